//! The operations on tensors, by family.
//!
//! # Adding an operation
//! Everything about an operation stands in one place: its documentation, its forward in array operations, and its
//! derivative, a formula of *tensors*, so that derivatives of derivatives come for free.
//!
//! - An elementwise operation is a row of the table in `unary` or `binary`, a comparison or another function without
//!   gradient of the table in `logic`.
//! - Any other operation is a method in its family's file, in this form:
//!
//! ```text
//! pub fn cumsum(&self, dim: isize) -> Result<Tensor> {
//!     let dim = normalize_dim("cumsum", dim, self.rank())?;       // check, and normalise the arguments
//!     let x = self.operand()?;                                    // its value and its place in the graph, at once
//!     let out = x.array.scan(ReduceOp::Sum, dim)?;                // forward, lazily
//!     Ok(record(out, [x], |inputs, out| {                         // recorded only if x needs a gradient
//!         Derivative::with("CumsumBackward0", move |c| c.gradient(|| c.g().flip(dim).cumsum(dim).flip(dim)))
//!             // .save_input(inputs, 0) .save_output(out) .save(&mask): let (g, [x, y, mask]) = c.parts();
//!     }))
//! }
//! ```
//!
//! The gradient and the saved values are a `TensorExpr` each, which `#[call_sites]` gives every method of a tensor, also one that is not
//! public. `c.gradients(n, |i| …)` asks for the gradient of input `i` only where it is wanted; where steps are no formula, `c.each` takes
//! tensors. A gradient may have the broadcast shape or a higher precision: the engine sums it down and casts it. `c.input_shape(i)` is the
//! input's shape. A formula that the forward and the derivative share is a function of a `Formula`, as in `gelu`.
//! In-place variants are `self.write("name_", || self.name(…))`.
//! Inside of derivatives `view_value` makes views that share no storage, which is cheaper.

mod create;
mod elementwise;
mod index;
mod inplace;
mod linalg;
mod loss;
mod norm;
mod product;
mod random;
mod reduce;
mod shape;
mod signal;
mod sort;

pub use create::Data;
pub use create::transfer::Target;
pub use elementwise::arithmetic::Number;
pub use elementwise::clamp::Bound;
pub use elementwise::pairs::Rounding;
pub use index::scatter::ScatterReduce;
pub use index::selection::Index;
pub use linalg::NormOrder;
pub use loss::{CrossEntropyOptions, Reduction};
pub use norm::normalization::BatchNormOptions;
pub use reduce::counting::Unique;
pub use shape::arrange::PadMode;
pub use signal::convolution::{ConvOptions, Padding};
pub use signal::fourier::FftNorm;
pub use signal::grid::{GridPadding, GridSampling};
pub use signal::pooling::PoolOptions;
pub use signal::resample::{Interpolation, Scale};
