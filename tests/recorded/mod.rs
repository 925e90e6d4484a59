//! What the runners share that replay recorded values: where the files are, tensors as numbers, how results
//! are compared.
#![allow(dead_code)] // Each runner uses its own part.

pub mod compare;
pub mod files;
pub mod numbers;
