//! The operators by PyTorch's names: from a case's inputs and arguments to a call.

use std::collections::BTreeMap;

use serde_json::Value as Json;
use wgrad::{Bound, CrossEntropyOptions, DType, Device, Options, Reduction, Result, Scalar, Tensor, Value};

use crate::{Outcome, words};

/// One call.
pub struct Call<'a> {
    pub op: &'a str,
    pub inputs: &'a BTreeMap<String, Tensor>,
    pub args: &'a Json,
    pub device: &'a Device,
}

fn scalar(json: &Json) -> Option<Scalar> {
    if let Some(flag) = json.as_bool() {
        return Some(Scalar::Bool(flag));
    }
    if let Some(number) = json.as_i64() {
        return Some(Scalar::Int(number));
    }
    json.as_f64().map(Scalar::Float).or_else(|| json["$float"].as_str()?.parse().ok().map(Scalar::Float))
}

impl Call<'_> {
    fn arg(&self, name: &str) -> Option<&Json> {
        self.args.get(name).filter(|arg| !arg.is_null())
    }

    fn tensor(&self, name: &str) -> Outcome<&Tensor> {
        self.inputs.get(name).ok_or_else(|| format!("no input {name}"))
    }

    fn value(&self, name: &str) -> Outcome<Value> {
        match (self.inputs.get(name), self.arg(name).and_then(scalar)) {
            (Some(tensor), _) => Ok(tensor.into()),
            (None, Some(number)) => Ok(Value::Scalar(number)),
            (None, None) => Err(format!("no argument {name}")),
        }
    }

    fn number(&self, name: &str) -> Outcome<Scalar> {
        self.arg(name).and_then(scalar).ok_or_else(|| format!("no number {name}"))
    }

    fn float(&self, name: &str, default: f64) -> f64 {
        self.arg(name).and_then(scalar).map_or(default, Scalar::as_f64)
    }

    fn int(&self, name: &str, default: i64) -> i64 {
        self.arg(name).and_then(Json::as_i64).unwrap_or(default)
    }

    fn dim(&self, name: &str) -> isize {
        self.int(name, 0) as isize
    }

    fn size(&self, name: &str) -> usize {
        self.int(name, 0) as usize
    }

    fn flag(&self, name: &str) -> bool {
        self.arg(name) == Some(&Json::Bool(true))
    }

    fn list(&self, name: &str) -> Option<Vec<i64>> {
        let arg = self.arg(name)?;
        arg.as_i64().map(|n| vec![n]).or_else(|| arg.as_array()?.iter().map(Json::as_i64).collect())
    }

    fn sizes(&self, name: &str) -> Vec<i64> {
        self.list(name).unwrap_or_default()
    }

    fn all(&self) -> Vec<&Tensor> {
        (0..).map_while(|i| self.inputs.get(&format!("tensors.{i}"))).collect()
    }

    fn reduction(&self) -> Reduction {
        match self.arg("reduction").and_then(Json::as_str) {
            Some("none") => Reduction::None,
            Some("sum") => Reduction::Sum,
            _ => Reduction::Mean,
        }
    }

    fn dtype(&self) -> Outcome<Option<DType>> {
        self.arg("dtype").and_then(Json::as_str).map(|name| name.parse().map_err(words)).transpose()
    }

    fn options(&self) -> Outcome<Options> {
        Ok(Options { dtype: self.dtype()?, device: self.device.clone() })
    }

    fn bound(&self, name: &str) -> Bound {
        match self.value(name) {
            Ok(Value::Tensor(tensor)) => Bound::Tensor(tensor),
            Ok(Value::Scalar(number)) => Bound::Scalar(number),
            Err(_) => Bound::None,
        }
    }

    /// The outputs, in order.
    pub fn run(&self) -> Outcome<Vec<Tensor>> {
        if let Some(outputs) = self.several() {
            return outputs?.map_err(words);
        }
        for family in [Call::elementwise, Call::reduction_or_product, Call::arrangement, Call::the_rest] {
            if let Some(output) = family(self)? {
                return Ok(vec![output.map_err(words)?]);
            }
        }
        Err(format!("unknown operator {}", self.op))
    }

    fn several(&self) -> Option<Outcome<Result<Vec<Tensor>>>> {
        let x = match self.tensor("input") {
            Ok(x) => x,
            Err(_) => return None,
        };
        let pair = |outputs: Result<(Tensor, Tensor)>| outputs.map(|(a, b)| vec![a, b]);
        Some(Ok(match (self.op, self.arg("dim")) {
            ("max", Some(_)) => pair(x.max_dim(self.dim("dim"), self.flag("keepdim"))),
            ("min", Some(_)) => pair(x.min_dim(self.dim("dim"), self.flag("keepdim"))),
            ("chunk", _) => x.chunk(self.size("chunks"), self.dim("dim")),
            ("unbind", _) => x.unbind(self.dim("dim")),
            ("split", _) => match self.arg("split_size_or_sections") {
                Some(Json::Array(_)) => {
                    let sizes: Vec<usize> =
                        self.sizes("split_size_or_sections").into_iter().map(|n| n as usize).collect();
                    x.split_with_sizes(&sizes, self.dim("dim"))
                }
                _ => x.split(self.size("split_size_or_sections"), self.dim("dim")),
            },
            _ => return None,
        }))
    }

    fn elementwise(&self) -> Outcome<Option<Result<Tensor>>> {
        macro_rules! call {
            ($x:expr; $($unary:ident)*; $($binary:ident)*) => {
                match self.op {
                    $(stringify!($unary) => Some($x.$unary()),)*
                    $(stringify!($binary) => Some($x.$binary(self.value("other")?)),)*
                    "logical_and" => Some($x.logical_and(self.tensor("other")?)),
                    "logical_or" => Some($x.logical_or(self.tensor("other")?)),
                    "logical_xor" => Some($x.logical_xor(self.tensor("other")?)),
                    "gelu" if self.arg("approximate").is_some_and(|name| name == "tanh") => Some($x.gelu_tanh()),
                    "gelu" => Some($x.gelu()),
                    "pow" => Some($x.pow(self.value("exponent")?)),
                    "masked_fill" => Some($x.masked_fill(self.tensor("mask")?, self.number("value")?)),
                    "clamp" => Some($x.clamp(self.bound("min"), self.bound("max"))),
                    "to" => Some($x.to(self.dtype()?.ok_or("no dtype")?)),
                    _ => None,
                }
            };
        }
        match self.tensor("input") {
            Ok(x) => Ok(call!(x;
                neg abs exp log log1p expm1 sqrt rsqrt square reciprocal sin cos tanh sigmoid erf relu silu sign
                floor ceil trunc round isnan isfinite logical_not;
                add sub mul div remainder maximum minimum eq ne lt le gt ge)),
            Err(_) if self.op == "pow" => Ok(Some(self.tensor("exponent")?.rpow(self.number("input")?))),
            Err(_) => Ok(None),
        }
        .and_then(|found: Option<_>| match (found, self.op) {
            (None, "where") => {
                Ok(Some(self.tensor("condition")?.where_cond(self.value("input")?, self.value("other")?)))
            }
            (found, _) => Ok(found),
        })
    }

    fn reduction_or_product(&self) -> Outcome<Option<Result<Tensor>>> {
        let Ok(x) = self.tensor("input") else { return Ok(None) };
        let (dims, keepdim) = (self.list("dim"), self.flag("keepdim"));
        let all = dims.is_none();
        let dims = dims.unwrap_or_default();
        Ok(Some(match self.op {
            "sum" if all => x.sum(),
            "sum" => x.sum_dim(dims, keepdim),
            "mean" if all => x.mean(),
            "mean" => x.mean_dim(dims, keepdim),
            "prod" if all => x.prod(),
            "prod" => x.prod_dim(self.dim("dim"), keepdim),
            "amax" => x.amax(dims, keepdim),
            "amin" => x.amin(dims, keepdim),
            "any" => x.any_dim(dims, keepdim),
            "all" => x.all_dim(dims, keepdim),
            "var" => x.var_dim(dims, self.float("correction", 1.0), keepdim),
            "std" => x.std_dim(dims, self.float("correction", 1.0), keepdim),
            "logsumexp" => x.logsumexp(dims, keepdim),
            "max" => x.max(),
            "min" => x.min(),
            "argmax" if all => x.argmax(),
            "argmax" => x.argmax_dim(self.dim("dim"), keepdim),
            "argmin" if all => x.argmin(),
            "argmin" => x.argmin_dim(self.dim("dim"), keepdim),
            "cumsum" => x.cumsum(self.dim("dim")),
            "softmax" => x.softmax(self.dim("dim")),
            "log_softmax" => x.log_softmax(self.dim("dim")),
            "matmul" => x.matmul(self.tensor("other")?),
            "mm" => x.mm(self.tensor("mat2")?),
            "linear" => x.linear(self.tensor("weight")?, self.inputs.get("bias")),
            _ => return Ok(None),
        }))
    }

    fn arrangement(&self) -> Outcome<Option<Result<Tensor>>> {
        let Ok(x) = self.tensor("input") else { return Ok(None) };
        let optional = |name: &str| self.arg(name).and_then(Json::as_i64).map(|n| n as isize);
        Ok(Some(match self.op {
            "reshape" => x.reshape(self.sizes("shape")),
            "view" => x.view(self.sizes("shape")),
            "permute" => x.permute(self.sizes("dims")),
            "transpose" => x.transpose(self.dim("dim0"), self.dim("dim1")),
            "t" => x.t(),
            "expand" => x.expand(self.sizes("sizes")),
            "broadcast_to" => x.broadcast_to(self.sizes("shape")),
            "squeeze" => match self.list("dim") {
                Some(dims) => x.squeeze_dim(dims),
                None => x.squeeze(),
            },
            "unsqueeze" => x.unsqueeze(self.dim("dim")),
            "flatten" => x.flatten(self.dim("start_dim"), self.int("end_dim", -1) as isize),
            "unflatten" => x.unflatten(self.dim("dim"), self.sizes("sizes")),
            "narrow" => x.narrow(self.dim("dim"), self.dim("start"), self.size("length")),
            "slice" => {
                x.slice(self.dim("dim"), optional("start"), optional("end"), self.int("step", 1) as usize)
            }
            "select" => x.select(self.dim("dim"), self.dim("index")),
            "flip" => x.flip(self.sizes("dims")),
            "diagonal" => x.diagonal(self.dim("offset"), self.dim("dim1"), self.int("dim2", 1) as isize),
            "unfold" => x.unfold(self.dim("dimension"), self.size("size"), self.size("step")),
            "repeat" => x.repeat(self.sizes("repeats")),
            "tril" => x.tril(self.int("diagonal", 0)),
            "triu" => x.triu(self.int("diagonal", 0)),
            "pad" => {
                let margins = self.sizes("pad");
                let pairs: Vec<_> =
                    margins.chunks(2).map(|pair| (pair[0] as isize, pair[1] as isize)).collect();
                x.pad(&pairs, self.float("value", 0.0))
            }
            _ => return Ok(None),
        }))
    }

    fn the_rest(&self) -> Outcome<Option<Result<Tensor>>> {
        let dim = self.dim("dim");
        let (index, target) = (self.tensor("index"), self.tensor("target"));
        let classes = CrossEntropyOptions {
            weight: self.inputs.get("weight").cloned(),
            ignore_index: self.int("ignore_index", -100),
            label_smoothing: self.float("label_smoothing", 0.0),
            reduction: self.reduction(),
        };
        Ok(Some(match self.op {
            "cat" => Tensor::cat(&self.all(), dim),
            "stack" => Tensor::stack(&self.all(), dim),
            "full" => Tensor::full(self.sizes("size"), self.number("fill_value")?, self.options()?),
            "eye" => Tensor::eye(self.size("n"), self.int("m", self.int("n", 0)) as usize, self.options()?),
            "linspace" => Tensor::linspace(
                self.float("start", 0.0),
                self.float("end", 0.0),
                self.size("steps"),
                self.options()?,
            ),
            "arange" => {
                let (start, step) = (self.number("start"), self.number("step"));
                let (start, step) = (start.unwrap_or(Scalar::Int(0)), step.unwrap_or(Scalar::Int(1)));
                Tensor::arange(start, self.number("end")?, step, self.options()?)
            }
            "gather" => self.tensor("input")?.gather(dim, index?),
            "scatter_add" => self.tensor("input")?.scatter_add(dim, index?, self.tensor("src")?),
            "scatter" => self.tensor("input")?.scatter(dim, index?, self.tensor("src")?),
            "index_select" => self.tensor("input")?.index_select(dim, index?),
            "index_add" => self.tensor("input")?.index_add(dim, index?, self.tensor("source")?),
            "embedding" => {
                let padding = self.arg("padding_idx").and_then(Json::as_i64).map(|row| row as isize);
                self.tensor("input")?.embedding(self.tensor("weight")?, padding)
            }
            "one_hot" => self.tensor("input")?.one_hot(usize::try_from(self.int("num_classes", -1)).ok()),
            "layer_norm" => self.tensor("input")?.layer_norm(
                self.sizes("normalized_shape"),
                self.inputs.get("weight"),
                self.inputs.get("bias"),
                self.float("eps", 1e-5),
            ),
            "mse_loss" => self.tensor("input")?.mse_loss(target?, self.reduction()),
            "l1_loss" => self.tensor("input")?.l1_loss(target?, self.reduction()),
            "nll_loss" => self.tensor("input")?.nll_loss_with(target?, &classes),
            "cross_entropy" => self.tensor("input")?.cross_entropy_with(target?, &classes),
            "binary_cross_entropy_with_logits" => self.tensor("input")?.binary_cross_entropy_with_logits(
                target?,
                self.inputs.get("weight"),
                self.inputs.get("pos_weight"),
                self.reduction(),
            ),
            _ => return Ok(None),
        }))
    }
}
