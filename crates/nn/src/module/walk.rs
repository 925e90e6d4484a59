//! The walk over a module's values: what every question to a module is answered by.
//!
//! A module gives its fields to a [`Walk`], which knows the path there, and a [`Visitor`] sees them one after
//! the other.

use wgrad_autograd::Tensor;

use super::{Hooks, Module, Training};

/// What a tensor is to its module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// It is trained.
    Parameter,
    /// It belongs to the module's state, but is not trained: running statistics.
    Buffer,
    /// It is moved with the module, but not saved: a table that can be computed again.
    Transient,
}

/// A value that a walk meets.
///
/// What a visitor puts in its place stays there if the walk began at [`Module::visit_mut`]. In a walk of
/// [`Module::visit`] the tensor is a handle to the same tensor, and another one put there is forgotten.
pub enum Value<'a> {
    /// A parameter or buffer.
    Tensor(Kind, &'a mut Tensor),
    /// A flag that says whether the module is trained or used.
    Training(&'a mut Training),
    /// The place where a layer's forward hooks are kept.
    Hooks(&'a mut Hooks),
}

/// What is done with a module's values.
pub trait Visitor {
    /// A value, and its path from where the walk began, such as `layers.0.weight`.
    fn value(&mut self, path: &str, value: Value<'_>);

    /// A module, before its values; the path of the outermost one is empty.
    fn module(&mut self, path: &str, module: &dyn Module) {
        let _ = (path, module);
    }
}

/// A walk over a module's values, in the order of its fields.
///
/// `#[derive(Module)]` writes the calls. By hand they are needed where names are made when the program runs:
///
/// ```
/// use wgrad::Tensor;
/// use wgrad::nn::{Module, Walk};
///
/// struct Table(Vec<(String, Tensor)>);
///
/// impl Module for Table {
///     fn visit(&self, walk: &mut Walk<'_>) {
///         for (name, value) in &self.0 {
///             walk.field(name, value);
///         }
///     }
///
///     fn visit_mut(&mut self, walk: &mut Walk<'_>) {
///         for (name, value) in &mut self.0 {
///             walk.field_mut(name, value);
///         }
///     }
/// }
///
/// let table = Table(vec![("left".into(), Tensor::zeros(3, &wgrad::Device::cpu())?)]);
/// assert_eq!(table.named_parameters()[0].0, "left");
/// # Ok::<(), wgrad::Error>(())
/// ```
pub struct Walk<'v> {
    path: String,
    kind: Kind,
    /// The path of a tensor that nobody is to see.
    hidden: Option<String>,
    visitor: &'v mut dyn Visitor,
}

impl<'v> Walk<'v> {
    /// A walk that begins here.
    pub fn new(visitor: &'v mut dyn Visitor) -> Walk<'v> {
        Walk { path: String::new(), kind: Kind::Parameter, hidden: None, visitor }
    }

    /// A field that holds parameters or modules.
    pub fn field(&mut self, name: &str, value: &dyn Module) {
        self.within(name, self.kind, value, |value, walk| value.visit(walk));
    }

    /// A field that holds parameters or modules, which the visitor may replace.
    pub fn field_mut(&mut self, name: &str, value: &mut dyn Module) {
        self.within(name, self.kind, value, |value, walk| value.visit_mut(walk));
    }

    /// A field whose tensors are buffers, which are saved unless they are transient.
    pub fn buffer(&mut self, name: &str, transient: bool, value: &dyn Module) {
        let kind = if transient { Kind::Transient } else { Kind::Buffer };
        self.within(name, kind, value, |value, walk| value.visit(walk));
    }

    /// A field whose tensors are buffers, which the visitor may replace.
    pub fn buffer_mut(&mut self, name: &str, transient: bool, value: &mut dyn Module) {
        let kind = if transient { Kind::Transient } else { Kind::Buffer };
        self.within(name, kind, value, |value, walk| value.visit_mut(walk));
    }

    /// The visitor sees a value here, and may replace it.
    pub(super) fn value(&mut self, value: Value<'_>) {
        self.visitor.value(&self.path, value);
    }

    /// The visitor sees a tensor here.
    pub(super) fn tensor(&mut self, tensor: &mut Tensor) {
        if self.hidden.as_ref() != Some(&self.path) {
            self.visitor.value(&self.path, Value::Tensor(self.kind, tensor));
        }
    }

    /// A part of the walk in which the visitor does not see the tensor of this name.
    pub(crate) fn hiding(&mut self, name: &str, part: impl FnOnce(&mut Walk<'v>)) {
        let path = if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) };
        let outer = self.hidden.replace(path);
        part(self);
        self.hidden = outer;
    }

    fn within<'m, M>(&mut self, name: &str, kind: Kind, value: M, visit: impl FnOnce(M, &mut Walk<'v>))
    where
        M: std::ops::Deref<Target = dyn Module + 'm>,
    {
        let (length, outer) = (self.path.len(), self.kind);
        if !self.path.is_empty() {
            self.path.push('.');
        }
        self.path.push_str(name);
        self.kind = kind;
        if !value.type_name().is_empty() {
            self.visitor.module(&self.path, &*value);
        }
        visit(value, self);
        self.path.truncate(length);
        self.kind = outer;
    }
}
