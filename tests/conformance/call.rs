//! The arguments of a call, by name, with the defaults of the format.
//!
//! Every argument that a case names must be asked for: what nobody asked for is unknown, and the case fails.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::{Map, Value as Json};
use wgrad::{DType, Device, Error, Scalar, Tensor, Value};

/// Why a call gave nothing.
#[derive(Debug)]
pub enum Stop {
    /// The library said no.
    Library(Error),
    /// The arguments cannot be said in the library's types.
    Arguments(String),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Stop::Library(error)
    }
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Stop::Library(error) => write!(f, "{error}"),
            Stop::Arguments(reason) => write!(f, "arguments: {reason}"),
        }
    }
}

/// What a call, or the reading of an argument, gives.
pub type Outcome<T = Vec<Tensor>> = Result<T, Stop>;

/// An argument.
#[derive(Clone, Debug)]
pub enum Arg {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    Tensor(Tensor),
    List(Vec<Arg>),
    /// Start, stop and step of a Python slice.
    Slice([Option<isize>; 3]),
    Ellipsis,
}

/// The named arguments of one call.
pub struct Call {
    args: BTreeMap<String, Arg>,
    asked: RefCell<BTreeSet<String>>,
    /// Where tensors made from nothing live.
    pub device: Device,
}

impl Call {
    /// Binds inputs and arguments; tensors named `list.0`, `list.1`, … become a list, unless the arguments spell it out.
    pub fn bind(inputs: &[(String, Tensor)], json: &Map<String, Json>, device: &Device) -> Outcome<Call> {
        let mut args = BTreeMap::new();
        for (name, value) in json {
            args.insert(name.clone(), decode(value, inputs)?);
        }
        for (name, tensor) in inputs {
            match name.rsplit_once('.') {
                None => _ = args.insert(name.clone(), Arg::Tensor(tensor.clone())),
                Some((list, _)) if json.contains_key(list) => {}
                Some((list, position)) => {
                    let entry = args.entry(list.to_owned()).or_insert_with(|| Arg::List(Vec::new()));
                    let Arg::List(items) = entry else { return unclear(list, "both a list and a tensor") };
                    if position.parse() != Ok(items.len()) {
                        return unclear(list, "a list with a gap");
                    }
                    items.push(Arg::Tensor(tensor.clone()));
                }
            }
        }
        Ok(Call { args, asked: RefCell::default(), device: device.clone() })
    }

    /// An error if the case named an argument that nobody asked for.
    pub fn finish(&self) -> Outcome<()> {
        let asked = self.asked.borrow();
        match self.args.keys().find(|name| !asked.contains(*name)) {
            Some(name) => unclear(name, "not an argument that is known here"),
            None => Ok(()),
        }
    }

    /// The argument, if it was given and is not null.
    pub fn get(&self, name: &str) -> Option<&Arg> {
        self.asked.borrow_mut().insert(name.to_owned());
        self.args.get(name).filter(|arg| !matches!(arg, Arg::Null))
    }

    fn required(&self, name: &str) -> Outcome<&Arg> {
        self.get(name).ok_or_else(|| Stop::Arguments(format!("{name} is missing")))
    }

    /// A tensor. A number in its place becomes a 0-dim tensor, which promotes in the same way.
    pub fn tensor(&self, name: &str) -> Outcome<Tensor> {
        match self.required(name)? {
            Arg::Tensor(tensor) => Ok(tensor.clone()),
            arg => match scalar(arg) {
                Some(number) => Ok(Tensor::full((), number, &self.device)?),
                None => unclear(name, "not a tensor"),
            },
        }
    }

    /// A tensor that may be left out.
    pub fn opt_tensor(&self, name: &str) -> Outcome<Option<Tensor>> {
        self.get(name).map(|_| self.tensor(name)).transpose()
    }

    /// A list of tensors.
    pub fn tensors(&self, name: &str) -> Outcome<Vec<Tensor>> {
        let tensor = |arg: &Arg| match arg {
            Arg::Tensor(tensor) => Ok(tensor.clone()),
            _ => unclear(name, "not a list of tensors"),
        };
        match self.required(name)? {
            Arg::List(items) => items.iter().map(tensor).collect(),
            arg => Ok(vec![tensor(arg)?]),
        }
    }

    /// A tensor or a number.
    pub fn value(&self, name: &str) -> Outcome<Value> {
        match self.required(name)? {
            Arg::Tensor(tensor) => Ok(Value::from(tensor)),
            arg => scalar(arg).map(Value::Scalar).ok_or_else(|| not(name, "a tensor or a number")),
        }
    }

    /// A tensor or a number that may be left out.
    pub fn opt_value(&self, name: &str) -> Outcome<Option<Value>> {
        self.get(name).map(|_| self.value(name)).transpose()
    }

    /// A number with its kind.
    pub fn scalar(&self, name: &str) -> Outcome<Scalar> {
        scalar(self.required(name)?).ok_or_else(|| not(name, "a number"))
    }

    /// A number with its kind, or the default.
    pub fn scalar_or(&self, name: &str, default: impl Into<Scalar>) -> Outcome<Scalar> {
        if self.get(name).is_some() { self.scalar(name) } else { Ok(default.into()) }
    }

    /// A number as a float, or the default.
    pub fn float(&self, name: &str, default: f64) -> Outcome<f64> {
        Ok(self.opt_float(name)?.unwrap_or(default))
    }

    /// A number as a float that may be left out.
    pub fn opt_float(&self, name: &str) -> Outcome<Option<f64>> {
        self.get(name).map(|_| self.scalar(name).map(Scalar::as_f64)).transpose()
    }

    /// An integer.
    pub fn int(&self, name: &str) -> Outcome<isize> {
        integer(self.required(name)?).ok_or_else(|| not(name, "an integer"))
    }

    /// An integer, or the default.
    pub fn int_or(&self, name: &str, default: isize) -> Outcome<isize> {
        Ok(self.opt_int(name)?.unwrap_or(default))
    }

    /// An integer that may be left out.
    pub fn opt_int(&self, name: &str) -> Outcome<Option<isize>> {
        self.get(name).map(|_| self.int(name)).transpose()
    }

    /// A size: an integer that is not negative.
    pub fn size(&self, name: &str) -> Outcome<usize> {
        usize::try_from(self.int(name)?).map_err(|_| not(name, "a size: it is negative"))
    }

    /// Integers: a list, or a single one.
    pub fn ints(&self, name: &str) -> Outcome<Vec<isize>> {
        match self.required(name)? {
            Arg::List(items) => items
                .iter()
                .map(|item| integer(item).ok_or_else(|| not(name, "a list of integers")))
                .collect(),
            _ => Ok(vec![self.int(name)?]),
        }
    }

    /// Integers that may be left out.
    pub fn opt_ints(&self, name: &str) -> Outcome<Option<Vec<isize>>> {
        self.get(name).map(|_| self.ints(name)).transpose()
    }

    /// Integers, or the default.
    pub fn ints_or(&self, name: &str, default: &[isize]) -> Outcome<Vec<isize>> {
        Ok(self.opt_ints(name)?.unwrap_or_else(|| default.to_vec()))
    }

    /// Sizes: integers that are not negative.
    pub fn sizes(&self, name: &str) -> Outcome<Vec<usize>> {
        let size = |n: isize| usize::try_from(n).map_err(|_| not(name, "sizes: one is negative"));
        self.ints(name)?.into_iter().map(size).collect()
    }

    /// Sizes, or the default.
    pub fn sizes_or(&self, name: &str, default: &[usize]) -> Outcome<Vec<usize>> {
        if self.get(name).is_some() { self.sizes(name) } else { Ok(default.to_vec()) }
    }

    /// A truth value, or the default.
    pub fn flag(&self, name: &str, default: bool) -> Outcome<bool> {
        match self.get(name) {
            None => Ok(default),
            Some(Arg::Bool(flag)) => Ok(*flag),
            Some(_) => unclear(name, "not a truth value"),
        }
    }

    /// A text, or the default.
    pub fn text(&self, name: &str, default: &str) -> Outcome<String> {
        match self.get(name) {
            None => Ok(default.to_owned()),
            Some(Arg::Text(text)) => Ok(text.clone()),
            Some(_) => unclear(name, "not a text"),
        }
    }

    /// A dtype that may be left out.
    pub fn opt_dtype(&self, name: &str) -> Outcome<Option<DType>> {
        match self.get(name) {
            None => Ok(None),
            Some(Arg::Text(text)) => Ok(Some(text.parse()?)),
            Some(_) => unclear(name, "not a dtype"),
        }
    }
}

/// The error that an argument is not what it should be.
pub fn not(name: &str, what: &str) -> Stop {
    Stop::Arguments(format!("{name} is not {what}"))
}

/// The error that an argument is something unexpected.
pub fn unclear<T>(name: &str, what: &str) -> Outcome<T> {
    Err(Stop::Arguments(format!("{name} is {what}")))
}

fn scalar(arg: &Arg) -> Option<Scalar> {
    match *arg {
        Arg::Bool(b) => Some(Scalar::Bool(b)),
        Arg::Int(i) => Some(Scalar::Int(i)),
        Arg::Float(f) => Some(Scalar::Float(f)),
        _ => None,
    }
}

/// An integer, also one in an integer tensor of one element, as Python takes it for an index.
pub fn integer(arg: &Arg) -> Option<isize> {
    match arg {
        Arg::Int(i) => isize::try_from(*i).ok(),
        Arg::Tensor(tensor) if !tensor.dtype().is_float() => tensor.item::<i64>().ok().map(|i| i as isize),
        _ => None,
    }
}

fn decode(value: &Json, inputs: &[(String, Tensor)]) -> Outcome<Arg> {
    Ok(match value {
        Json::Null => Arg::Null,
        Json::Bool(b) => Arg::Bool(*b),
        Json::Number(n) => match n.as_i64() {
            Some(i) => Arg::Int(i),
            None => Arg::Float(n.as_f64().ok_or_else(|| not("a number", "one that f64 can hold"))?),
        },
        Json::String(text) => Arg::Text(text.clone()),
        Json::Array(items) => {
            Arg::List(items.iter().map(|item| decode(item, inputs)).collect::<Outcome<_>>()?)
        }
        Json::Object(object) => decode_special(object, inputs)?,
    })
}

/// What JSON has no word for: an object with one key.
fn decode_special(object: &Map<String, Json>, inputs: &[(String, Tensor)]) -> Outcome<Arg> {
    let unknown = || Stop::Arguments(format!("{} has no meaning", Json::Object(object.clone())));
    let mut entries = object.iter();
    let (Some((key, value)), None) = (entries.next(), entries.next()) else { return Err(unknown()) };
    match (key.as_str(), value) {
        ("$float", Json::String(text)) => text.parse().map(Arg::Float).map_err(|_| unknown()),
        ("$ellipsis", Json::Bool(true)) => Ok(Arg::Ellipsis),
        ("$tensor", Json::String(name)) => {
            let input = inputs.iter().find(|(input, _)| input == name).ok_or_else(unknown)?;
            Ok(Arg::Tensor(input.1.clone()))
        }
        ("$slice", Json::Array(parts)) if parts.len() == 3 => {
            let mut slice = [None; 3];
            for (part, json) in slice.iter_mut().zip(parts) {
                if !json.is_null() {
                    *part = Some(json.as_i64().ok_or_else(unknown)? as isize);
                }
            }
            Ok(Arg::Slice(slice))
        }
        _ => Err(unknown()),
    }
}
