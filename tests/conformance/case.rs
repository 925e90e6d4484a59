//! The case files, as Rust types. An unknown key is an error: it may matter.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};

/// The cases of one operator.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaseFile {
    pub op: String,
    #[serde(rename = "torch")]
    pub _torch: String,
    pub cases: Vec<Case>,
}

/// One call with what it gives, and what its gradients are.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    pub id: String,
    pub dtype: String,
    pub inputs: Vec<Input>,
    pub args: Map<String, Value>,
    pub outputs: Vec<Option<String>>,
    #[serde(default)]
    pub grad_outputs: Vec<Option<String>>,
    pub grads: Option<BTreeMap<String, String>>,
    pub grad_grads: Option<Second>,
    pub rtol: f64,
    pub atol: f64,
    #[serde(default)]
    pub grad_rtol: f64,
    #[serde(default)]
    pub grad_atol: f64,
    #[serde(default)]
    pub grad_grad_rtol: f64,
    #[serde(default)]
    pub grad_grad_atol: f64,
}

/// An input tensor: contiguous as stored, or a view of a piece of storage.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Input {
    pub name: String,
    pub tensor: String,
    pub strided: Option<Strided>,
    #[serde(default)]
    pub requires_grad: bool,
}

/// A view of storage, in elements.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Strided {
    pub shape: Vec<usize>,
    pub stride: Vec<isize>,
    pub offset: usize,
}

/// The double backward: the gradients of `sum(grads[n] * v[n])`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Second {
    pub v: BTreeMap<String, String>,
    pub grads: BTreeMap<String, String>,
}

/// The calls and programs that must fail.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ErrorFile {
    #[serde(rename = "torch")]
    pub _torch: String,
    pub cases: Vec<ErrorCase>,
}

/// A call of an operator, or a scenario with the program it stands for.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ErrorCase {
    pub id: String,
    pub op: Option<String>,
    #[serde(default)]
    pub inputs: Vec<Input>,
    #[serde(default)]
    pub args: Map<String, Value>,
    pub scenario: Option<String>,
    pub code: Option<String>,
    #[serde(rename = "error")]
    pub _error: String,
    pub message: String,
}
