//! The layers, by family.

mod activation;
mod attention;
mod cell;
mod conv;
mod dropout;
mod embedding;
mod linear;
mod norm;
mod options;
mod parameter;
mod pool;
mod recurrent;
mod sequential;
mod shape;

pub use activation::*;
pub use attention::*;
pub use cell::*;
pub use conv::*;
pub use dropout::*;
pub use embedding::*;
pub use linear::*;
pub use norm::*;
pub use options::Sizes;
pub use pool::*;
pub use recurrent::*;
pub use sequential::*;
pub use shape::*;
