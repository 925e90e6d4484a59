//! Functions of single elements and of pairs of elements: tables of rows, and what needs more than a row.

pub(super) mod activation;
pub(super) mod arithmetic;
pub(super) mod binary;
pub(super) mod clamp;
pub(super) mod gelu;
pub(super) mod logic;
pub(super) mod pairs;
pub(super) mod rectifier;
pub(super) mod transcendental;
pub(super) mod unary;
