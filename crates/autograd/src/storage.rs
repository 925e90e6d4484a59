//! Storage cells: what a tensor shares with its views and with its `detach()`.
//!
//! A cell holds the current array of a whole storage. Writing in place puts another array there and counts the version
//! up; who sees the storage through views computes its own value from the new array when it next needs it. Arrays
//! themselves never change, so a value that was saved for backward stays what it was.

use std::sync::{Arc, Mutex};

use wgrad_array::{Array, Layout, Result};

use crate::Tensor;
use crate::tape::lock;
use crate::view::ViewStep;

/// A tensor's value.
pub(crate) enum Value {
    /// Nobody shares it.
    Own(Array),
    /// It lives in a storage that others may see.
    Shared(Box<Shared>),
}

impl Value {
    /// The shared form, made now if need be.
    pub(crate) fn share(&mut self) -> &mut Shared {
        if let Value::Own(array) = self {
            let storage = Arc::new(Storage { cell: Mutex::new(Cell { array: array.clone(), version: 0 }) });
            *self = Value::Shared(Box::new(Shared { storage, seen: 0, array: array.clone(), view: None }));
        }
        match self {
            Value::Shared(shared) => shared,
            Value::Own(_) => unreachable!("it was shared just now"),
        }
    }
}

/// The memory of a tensor and its views, as one array in row-major order.
pub(crate) struct Storage {
    cell: Mutex<Cell>,
}

struct Cell {
    array: Array,
    version: u64,
}

impl Storage {
    /// How often it was written.
    pub(crate) fn version(&self) -> u64 {
        lock(&self.cell).version
    }

    /// The whole array, and its version.
    pub(crate) fn read(&self) -> (Array, u64) {
        let cell = lock(&self.cell);
        (cell.array.clone(), cell.version)
    }

    /// Replaces the array if its version is still this one; gives back what is to be dropped.
    pub(crate) fn replace(&self, array: Array, version: u64) -> std::result::Result<Array, Array> {
        let mut cell = lock(&self.cell);
        if cell.version != version {
            return Err(array);
        }
        cell.version += 1;
        Ok(std::mem::replace(&mut cell.array, array))
    }
}

/// A tensor's part in a storage.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) storage: Arc<Storage>,
    /// The version that `array` was computed from.
    pub(crate) seen: u64,
    /// The tensor's own value at that version.
    pub(crate) array: Array,
    /// How the value comes from the storage; none: it is all of it.
    pub(crate) view: Option<View>,
}

/// How a view sees its storage.
#[derive(Clone)]
pub(crate) struct View {
    /// The steps from the storage to the view.
    pub(crate) steps: Arc<[ViewStep]>,
    /// Where the elements would lie if the storage were row-major memory.
    pub(crate) layout: Layout,
    /// The tensor that gradients go to; none after `detach()`.
    pub(crate) base: Option<Tensor>,
    /// How the view was made: whether it may be written to.
    pub(crate) kind: ViewKind,
    /// The storage's version when the view's history was made.
    pub(crate) history_version: u64,
}

/// How a view was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ViewKind {
    /// Alone, with grad mode on.
    Plain,
    /// With grad mode off.
    NoGrad,
    /// With others by one operation, such as `split`.
    Multiple(&'static str),
}

impl View {
    /// The steps from a base, itself perhaps a view of the storage, to this view.
    pub(crate) fn steps_from(&self, base: &Tensor) -> Vec<ViewStep> {
        let skip = match &lock(&base.0.state).value {
            Value::Shared(shared) => shared.view.as_ref().map_or(0, |view| view.steps.len()),
            Value::Own(_) => 0,
        };
        self.steps.get(skip..).unwrap_or_default().to_vec()
    }
}

/// A view whose storage was written since its value was computed.
pub(crate) struct Stale {
    steps: Option<Arc<[ViewStep]>>,
    array: Array,
    version: u64,
}

impl Stale {
    /// The view's value now, and the version it belongs to.
    pub(crate) fn compute(self) -> Result<(Array, u64)> {
        let mut array = self.array;
        for step in self.steps.iter().flat_map(|steps| steps.iter()) {
            array = step.apply(&array)?;
        }
        Ok((array, self.version))
    }
}

impl Shared {
    /// The current value, or what is needed to compute it (which must not happen under a lock).
    pub(crate) fn current(&self) -> std::result::Result<Array, Stale> {
        let (array, version) = self.storage.read();
        if version == self.seen {
            return Ok(self.array.clone());
        }
        Err(Stale { steps: self.view.as_ref().map(|view| view.steps.clone()), array, version })
    }

    /// Keeps a value computed from a version, unless a newer one is known. Gives back what is to be dropped.
    pub(crate) fn refresh(&mut self, array: Array, version: u64) -> Option<Array> {
        (version > self.seen).then(|| {
            self.seen = version;
            std::mem::replace(&mut self.array, array)
        })
    }

    /// Another handle to the same part.
    pub(crate) fn handle(&self) -> Shared {
        self.clone()
    }

    /// Another handle to the same part, without a base that gradients would go to.
    pub(crate) fn detached(&self) -> Shared {
        let mut shared = self.clone();
        if let Some(view) = &mut shared.view {
            view.base = None;
            view.kind = ViewKind::Plain;
        }
        shared
    }
}
