//! How options are read.

use anyhow::{Context, Result};
use wgrad::nn::{Enlarge, Margins, OutputSize, Sizes};
use wgrad::{Device, Reduction, Tensor};

use crate::case::Case;
use crate::node::Node;

/// The constructor's arguments of a layer.
pub struct Args<'c, 'a> {
    pub node: Node<'a>,
    pub case: &'c Case<'a>,
    pub device: &'c Device,
}

/// Reads options and sets those that are there: `set!(options, args, bias: bool, stride: sizes)`.
macro_rules! set {
    ($options:expr, $args:expr $(, $name:ident: $read:ident)*) => {{
        let options = $options;
        $(let options = match $args.read(stringify!($name), $crate::topics::layers::options::$read)? {
            Some(value) => options.$name(value),
            None => options,
        };)*
        options
    }};
}
pub(super) use set;

impl<'a> Args<'_, 'a> {
    pub fn read<T>(&self, name: &str, with: impl FnOnce(&Node<'a>) -> Result<T>) -> Result<Option<T>> {
        self.node.read(name, with)
    }

    pub fn size(&self, name: &str) -> Result<usize> {
        self.node.get(name)?.size()
    }

    pub fn int(&self, name: &str) -> Result<isize> {
        int(&self.node.get(name)?)
    }

    pub fn float(&self, name: &str) -> Result<f64> {
        self.node.get(name)?.float()
    }

    pub fn bool(&self, name: &str, default: bool) -> Result<bool> {
        Ok(self.read(name, Node::bool)?.unwrap_or(default))
    }

    pub fn sizes(&self, name: &str) -> Result<Sizes> {
        sizes(&self.node.get(name)?)
    }

    pub fn output_size(&self) -> Result<OutputSize> {
        let node = self.node.get("output_size")?;
        let size = |node: &Node<'_>| node.optional(Node::size);
        let sizes = if node.is_list() { node.list(size)? } else { vec![size(&node)?] };
        Ok(OutputSize::from(sizes))
    }

    pub fn margins(&self) -> Result<Margins> {
        let node = self.node.get("padding")?;
        Ok(Margins::from(if node.is_list() { node.list(int)? } else { vec![int(&node)?] }))
    }

    /// What an upsampling is to do.
    pub fn enlarge(&self) -> Result<Enlarge> {
        if let Some(size) = self.read("size", sizes)? {
            return Ok(Enlarge::to(size));
        }
        let factors = self.node.get("scale_factor")?;
        let factors = if factors.is_list() { factors.list(Node::float)? } else { vec![factors.float()?] };
        Ok(Enlarge::by_each(&factors))
    }

    pub fn reduction(&self) -> Result<Reduction> {
        self.read("reduction", reduction).map(Option::unwrap_or_default)
    }

    /// An option that is a tensor.
    pub fn tensor(&self, name: &str) -> Result<Option<Tensor>> {
        self.read(name, |node| self.case.tensor(node.get("$tensor")?.text()?, self.device))
    }

    /// An option that is a layer: its name, and its arguments.
    pub fn nested(&self, name: &str) -> Result<(&'a str, Args<'_, 'a>)> {
        let node = self.node.get(name)?;
        let args = Args { node: node.get("args")?, case: self.case, device: self.device };
        Ok((node.get("layer")?.text().with_context(|| format!("the layer of {name}"))?, args))
    }
}

pub fn bool(node: &Node<'_>) -> Result<bool> {
    node.bool()
}

pub fn float(node: &Node<'_>) -> Result<f64> {
    node.float()
}

pub fn size(node: &Node<'_>) -> Result<usize> {
    node.size()
}

pub fn int(node: &Node<'_>) -> Result<isize> {
    Ok(isize::try_from(node.int()?)?)
}

pub fn index(node: &Node<'_>) -> Result<i64> {
    node.int()
}

/// A number or null.
pub fn maybe_float(node: &Node<'_>) -> Result<Option<f64>> {
    node.optional(Node::float)
}

pub fn sizes(node: &Node<'_>) -> Result<Sizes> {
    Ok(if node.is_list() { Sizes::from(node.list(Node::size)?) } else { Sizes::from(node.size()?) })
}

pub fn reduction(node: &Node<'_>) -> Result<Reduction> {
    match node.text()? {
        "mean" => Ok(Reduction::Mean),
        "sum" => Ok(Reduction::Sum),
        "none" => Ok(Reduction::None),
        _ => node.unknown(),
    }
}
