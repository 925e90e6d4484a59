//! Operators of the set that the library does not have yet. The list is part of every report and shrinks to nothing.

/// Their names in the format.
pub const NOT_YET: &[&str] = &[
    "ctc_loss",
    "grid_sample",
    "linalg.cholesky",
    "linalg.det",
    "linalg.eigh",
    "linalg.eigvalsh",
    "linalg.inv",
    "linalg.matrix_norm",
    "linalg.norm",
    "linalg.qr",
    "linalg.slogdet",
    "linalg.solve",
    "linalg.solve_triangular",
    "linalg.svd",
    "linalg.svdvals",
    "norm",
];
