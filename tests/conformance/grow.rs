//! The ways in which a case's inputs can be enlarged: which dims are repeated, and which numbers of its arguments grow with them.
//!
//! Data is repeated as a whole, so what is valid stays valid. Which way suits an operator is not known here: its call on the CPU tells.

use std::collections::BTreeSet;
use std::fmt;

use serde_json::{Map, Value as Json};
use wgrad::{DType, Tensor};

/// A way of enlarging a case.
#[derive(Clone, PartialEq)]
pub struct Way {
    /// For each input and dim, whether it is repeated.
    dims: Vec<Vec<bool>>,
    /// The integer of the arguments that grows as the dims do.
    arg: Option<usize>,
    /// Whether each copy of integers points to its own copy of what they index.
    spread: bool,
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |dims: &Vec<bool>| {
            let marks: Vec<&str> = dims.iter().map(|&repeated| if repeated { "n" } else { "1" }).collect();
            format!("[{}]", marks.join(", "))
        };
        let dims: Vec<String> = self.dims.iter().map(list).collect();
        write!(f, "repeated {}", dims.join(" "))?;
        if let Some(arg) = self.arg {
            write!(f, ", {arg} grown in its arguments")?;
        }
        if self.spread { write!(f, ", indices spread") } else { Ok(()) }
    }
}

/// The ways for inputs of some shapes, those that leave most of a call as it is first.
pub struct Ways(std::vec::IntoIter<Way>);

impl Ways {
    pub fn new(shapes: &[&[usize]], args: &Map<String, Json>) -> Ways {
        let mut ways: Vec<Way> = Vec::new();
        let mut add = |dims: Vec<Vec<bool>>, arg: Option<usize>| {
            for spread in [true, false] {
                let way = Way { dims: dims.clone(), arg, spread };
                if (arg.is_some() || dims.iter().flatten().any(|&d| d)) && !ways.contains(&way) {
                    ways.push(way);
                }
            }
        };
        let by = |repeated: &dyn Fn(usize, usize) -> bool| -> Vec<Vec<bool>> {
            let dims = |(i, shape): (usize, &&[usize])| (0..shape.len()).map(|d| repeated(i, d)).collect();
            shapes.iter().enumerate().map(dims).collect()
        };
        let mut in_args = BTreeSet::new();
        args.values().for_each(|value| integers(value, &mut in_args));
        if let Some(first) = shapes.first().filter(|shape| !shape.is_empty()) {
            // The batch, as far as it is one of all inputs, of those with as many dims, of those with as many elements there.
            add(by(&|_, d| d == 0), None);
            add(by(&|i, d| d == 0 && shapes[i].len() == first.len()), None);
            add(by(&|i, d| d == 0 && shapes[i][0] == first[0]), None);
            add(by(&|i, d| d == 0 && i == 0), None);
            add(by(&|i, d| d + 1 == first.len() && shapes[i].len() == first.len()), None);
            add(by(&|i, d| d + 1 == first.len() && i == 0), None);
        }
        let mut sizes: Vec<usize> = Vec::new();
        for &size in shapes.iter().copied().flatten().filter(|size| **size > 0) {
            if !sizes.contains(&size) {
                sizes.push(size);
            }
        }
        for &size in &sizes {
            add(by(&|i, d| shapes[i][d] == size), None);
        }
        for &size in sizes.iter().filter(|size| in_args.contains(size)) {
            add(by(&|i, d| shapes[i][d] == size), Some(size));
        }
        for d in 0..shapes.first().map_or(0, |first| first.len()) {
            add(by(&|i, dim| i == 0 && dim == d), None);
            add(by(&|_, dim| dim == d), None);
        }
        for &number in in_args.iter().filter(|number| **number > 1) {
            add(by(&|_, _| false), Some(number));
        }
        Ways(ways.into_iter())
    }
}

impl Iterator for Ways {
    type Item = Way;

    fn next(&mut self) -> Option<Way> {
        self.0.next()
    }
}

impl Way {
    /// How many elements an input would have.
    pub fn numel(&self, input: usize, shape: &[usize], times: usize) -> usize {
        let sizes = shape.iter().zip(&self.dims[input]);
        sizes.fold(1, |n, (&size, &repeated)| {
            n.saturating_mul(if repeated { size.saturating_mul(times) } else { size })
        })
    }

    /// An input, so many times as large in each dim that is repeated.
    pub fn input(&self, input: usize, tensor: &Tensor, times: usize) -> wgrad::Result<Tensor> {
        let dims = &self.dims[input];
        let Some(first) = dims.iter().position(|&repeated| repeated) else { return Ok(tensor.clone()) };
        let counts: Vec<isize> =
            dims.iter().map(|&repeated| if repeated { times as isize } else { 1 }).collect();
        let larger = tensor.repeat(counts)?;
        if !self.spread || tensor.dtype().is_float() || tensor.dtype() == DType::Bool {
            return Ok(larger);
        }
        let size = tensor.shape()[first];
        let moved: Vec<i64> = (0..size * times).map(|i| (i / size.max(1) * size) as i64).collect();
        let mut shape = vec![1; dims.len()];
        shape[first] = size * times;
        larger.add(Tensor::from_slice(&moved, shape, tensor.device())?.to_dtype(tensor.dtype())?)
    }

    /// The arguments, with the integer that grows.
    pub fn args(&self, args: &Map<String, Json>, times: usize) -> Map<String, Json> {
        let Some(number) = self.arg else { return args.clone() };
        args.iter().map(|(name, value)| (name.clone(), grown(value, number, times))).collect()
    }
}

/// The sizes that an argument may hold.
fn integers(value: &Json, found: &mut BTreeSet<usize>) {
    match value {
        Json::Number(number) => found.extend(number.as_u64().and_then(|n| usize::try_from(n).ok())),
        Json::Array(items) => items.iter().for_each(|item| integers(item, found)),
        _ => {}
    }
}

fn grown(value: &Json, number: usize, times: usize) -> Json {
    match value {
        Json::Number(n) if n.as_u64() == Some(number as u64) => Json::from(number * times),
        Json::Array(items) => items.iter().map(|item| grown(item, number, times)).collect(),
        _ => value.clone(),
    }
}
