//! What programs that train are made of: layers and what is known of all of them, initialisers, losses, optimisers
//! and schedules of learning rates. Names, defaults and values are those of PyTorch's `torch.nn` and `torch.optim`.
//!
//! - [`Module`] is what has parameters; `#[derive(Module)]` makes one of a struct. [`Layer`] is one that makes a tensor of a tensor.
//! - Layers that have tensors are made by `Name::new(sizes.., &device)`, or where something is not PyTorch's default by
//!   `Name::options(sizes..).setting(value).build(&device)`. Layers without tensors are their own settings:
//!   `MaxPool2d::new(3).stride(2)`.
//! - [`init`] has the initialisers.

// The derived code names the facade.
extern crate self as wgrad;

pub mod init;
mod layers;
mod module;
pub mod optim;

/// Where derived code looks for what it names.
#[doc(hidden)]
pub mod nn {
    pub use crate::{Module, Walk};
}

pub use layers::*;
pub use module::{
    ForwardHookHandle, Hooks, Kind, Layer, Module, StateDict, Summary, SummaryRow, Training, Value, Visitor,
    Walk,
};
/// Makes a struct a [`Module`].
pub use wgrad_macros::Module;
