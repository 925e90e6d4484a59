//! The layers, by family.

mod linear;
mod options;
mod parameter;

pub use linear::{Bilinear, BilinearOptions, Linear, LinearOptions};
pub use options::Sizes;
