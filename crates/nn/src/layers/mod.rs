//! The layers, by family.

mod activation;
mod attention;
mod cell;
mod conv;
mod dropout;
mod embedding;
mod linear;
mod loss;
mod norm;
mod options;
mod parameter;
mod pool;
mod projection;
mod recurrent;
mod sequential;
mod shape;
mod transformer;

pub use activation::*;
pub use attention::*;
pub use cell::*;
pub use conv::*;
pub use dropout::*;
pub use embedding::*;
pub use linear::*;
pub use loss::*;
pub use norm::*;
pub use options::Sizes;
pub use pool::*;
pub use projection::*;
pub use recurrent::*;
pub use sequential::*;
pub use shape::*;
pub use transformer::*;
