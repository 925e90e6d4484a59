//! How parameters are made.

use wgrad_autograd::{IntArray, Options, Result, Tensor};

use crate::init;

/// A parameter with values from a function that writes them.
pub(crate) fn parameter(
    shape: impl Into<IntArray>,
    options: &Options,
    init: impl FnOnce(&Tensor) -> Result<Tensor>,
) -> Result<Tensor> {
    init(&Tensor::empty(shape, options.clone())?)?.requires_grad_(true)
}

/// A parameter uniform within a bound.
pub(crate) fn bounded(shape: impl Into<IntArray>, bound: f64, options: &Options) -> Result<Tensor> {
    parameter(shape, options, |tensor| init::symmetric(tensor, bound))
}

/// A list of parameters uniform within a bound, if it is wanted.
pub(crate) fn bounded_bias(
    wanted: bool,
    size: usize,
    bound: f64,
    options: &Options,
) -> Result<Option<Tensor>> {
    wanted.then(|| bounded(size, bound, options)).transpose()
}

/// A parameter of one number, if it is wanted.
pub(crate) fn constant(
    wanted: bool,
    shape: impl Into<IntArray>,
    value: f64,
    options: &Options,
) -> Result<Option<Tensor>> {
    wanted.then(|| parameter(shape, options, |tensor| init::constant_(tensor, value))).transpose()
}
