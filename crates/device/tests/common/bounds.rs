//! The bounds of the errors of functions of one number, in units in the last place. This table is what tests
//! assert and `docs/numerics.md` states. Functions of the kernel IR are named as in `UnaryOp`, in lower case.

use wgrad_device::kernel::{Gives, Ty, UnaryOp};

/// The bounds of one function.
pub struct Bounds {
    pub name: &'static str,
    /// In f32, on the CPU.
    pub cpu: f64,
    /// In f32, on GPU adapters, whose division and square root may themselves be inexact.
    pub gpu: f64,
    /// In f64, on the CPU.
    pub wide: f64,
    /// In f64, on GPU adapters that have it.
    pub wide_gpu: f64,
}

/// A row of a table.
pub const fn bounds(name: &'static str, cpu: f64, gpu: f64, wide: f64, wide_gpu: f64) -> Bounds {
    Bounds { name, cpu, gpu, wide, wide_gpu }
}

/// The functions of the kernel IR.
pub const KERNEL: &[Bounds] = &[
    bounds("neg", 0.0, 0.0, 0.0, 0.0),
    bounds("abs", 0.0, 0.0, 0.0, 0.0),
    bounds("sign", 0.0, 0.0, 0.0, 0.0),
    bounds("floor", 0.0, 0.0, 0.0, 0.0),
    bounds("ceil", 0.0, 0.0, 0.0, 0.0),
    bounds("round", 0.0, 0.0, 0.0, 0.0),
    bounds("trunc", 0.0, 0.0, 0.0, 0.0),
    bounds("reciprocal", 0.5, 2.5, 1.0, 1.0),
    bounds("sqrt", 0.5, 1.0, 1.0, 1.0),
    bounds("rsqrt", 1.5, 4.0, 1.5, 2.0),
    bounds("exp", 1.0, 2.0, 1.0, 2.0),
    bounds("expm1", 1.5, 3.0, 1.0, 3.0),
    bounds("log", 0.9, 2.0, 1.0, 2.0),
    bounds("log1p", 0.9, 3.0, 1.0, 2.0),
    bounds("sin", 1.6, 3.0, 1.0, 3.0),
    bounds("cos", 1.6, 3.0, 1.0, 3.0),
    bounds("tanh", 1.4, 4.0, 1.0, 4.0),
    bounds("sigmoid", 2.3, 4.0, 2.0, 4.0),
    bounds("erf", 1.6, 4.0, 1.0, 3.0),
];

/// The functions of the kernel IR that give numbers: all except those of bits and those whose results are
/// bools.
pub fn functions() -> impl Iterator<Item = UnaryOp> {
    UnaryOp::ALL.iter().copied().filter(|op| op.domain().has(Ty::F32) && op.gives() == Gives::Same)
}

/// The bounds of a function of the kernel IR.
pub fn of_kernel(op: impl std::fmt::Debug) -> &'static Bounds {
    let name = format!("{op:?}").to_lowercase();
    KERNEL.iter().find(|bounds| bounds.name == name).unwrap_or_else(|| panic!("no bounds of {name}"))
}
