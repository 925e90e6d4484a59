//! Signals, images and volumes: transforms, windows and sizes.

pub(super) mod convolution;
pub(super) mod fourier;
pub(super) mod grid;
pub(super) mod pooling;
pub(super) mod resample;
