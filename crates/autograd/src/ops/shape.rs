//! Shapes: views of a storage, its pieces, and elements arranged anew.

pub(super) mod arrange;
pub(super) mod join;
pub(super) mod pieces;
pub(super) mod strided;
pub(super) mod views;
