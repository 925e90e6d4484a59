//! Helpers that the executors' tests share.
#![allow(dead_code)] // Each test file uses its own part.

pub mod bounds;
pub mod compare;
pub mod random;
pub mod reference;
