//! Storage cells: what a tensor shares with its views and with its `detach()`.
//!
//! A cell holds the current array of a whole storage. Writing in place puts another array there and counts the version
//! up; who sees the storage through views computes its own value from the new array when it next needs it. Arrays
//! themselves never change, so a value that was saved for backward stays what it was.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use wgrad_array::{Array, Fallback, Layout, Result};

use crate::Tensor;
use crate::steps::Steps;
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
            let cell = Cell { array: array.clone(), version: 0, fallback: None };
            let storage = Arc::new(Storage { cell: Mutex::new(cell), parameter: AtomicBool::new(false) });
            *self = Value::Shared(Box::new(Shared { storage, view: None, cache: None }));
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
    /// A leaf that requires grad lives here: writing to it updates a parameter.
    parameter: AtomicBool,
}

struct Cell {
    array: Array,
    version: u64,
    /// What the array goes back to if the data that it depends on have a fault.
    fallback: Option<Fallback>,
}

impl Storage {
    /// How often it was written.
    pub(crate) fn version(&self) -> u64 {
        self.read().1
    }

    /// The whole array, and its version. Where somebody has been told that the data of what was written have a fault, it is
    /// what was there before.
    pub(crate) fn read(&self) -> (Array, u64) {
        let mut cell = lock(&self.cell);
        let mut spoilt = None;
        if cell.array.has_reported_fault()
            && let Some((older, next)) = cell.fallback.take().and_then(Fallback::older_value)
        {
            spoilt = Some(std::mem::replace(&mut cell.array, older));
            cell.fallback = next;
            cell.version += 1;
        }
        let read = (cell.array.clone(), cell.version);
        drop(cell);
        drop(spoilt);
        read
    }

    /// Replaces the array if its version is still this one.
    pub(crate) fn replace(&self, array: Array, version: u64) -> bool {
        let mut cell = lock(&self.cell);
        if cell.version != version {
            return false;
        }
        cell.version += 1;
        let before = cell.fallback.take();
        let fallback = array.replacing(&cell.array, before);
        cell.fallback = fallback.clone();
        let old = std::mem::replace(&mut cell.array, array.clone());
        drop(cell);
        drop(old);
        if self.parameter.load(Ordering::Relaxed) {
            wgrad_array::note_update();
        }
        if let Some(fallback) = fallback {
            array.bound(&fallback);
        }
        true
    }

    /// Notes that a leaf that requires grad lives here.
    pub(crate) fn holds_parameter(&self) {
        self.parameter.store(true, Ordering::Relaxed);
    }
}

/// A tensor's part in a storage.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) storage: Arc<Storage>,
    /// How the value comes from the storage; none: it is all of it.
    pub(crate) view: Option<View>,
    /// A view's value, and the version that it was computed from.
    pub(crate) cache: Option<(Array, u64)>,
}

/// How a view sees its storage.
#[derive(Clone)]
pub(crate) struct View {
    /// The steps from the storage to the view.
    pub(crate) steps: Steps,
    /// How many of them lead to the tensor that gradients go to, or went to before `detach()`.
    pub(crate) to_base: usize,
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
    /// The steps from the base, itself perhaps a view of the storage, to this view.
    pub(crate) fn steps_from_base(&self) -> Vec<ViewStep> {
        self.steps.since(self.to_base)
    }
}

/// A view whose storage was written since its value was computed.
pub(crate) struct Stale {
    steps: Steps,
    array: Array,
    version: u64,
}

impl Stale {
    /// The view's value now, and the version it belongs to.
    pub(crate) fn compute(self) -> Result<(Array, u64)> {
        Ok((self.steps.apply(&self.array)?, self.version))
    }
}

impl Shared {
    /// The current value, or what is needed to compute it (which must not happen under a lock).
    pub(crate) fn current(&self) -> std::result::Result<Array, Stale> {
        let (array, version) = self.storage.read();
        let Some(view) = &self.view else { return Ok(array) };
        match &self.cache {
            Some((cached, seen)) if *seen == version => Ok(cached.clone()),
            _ => Err(Stale { steps: view.steps.clone(), array, version }),
        }
    }

    /// The version that its value belongs to.
    pub(crate) fn seen(&self) -> u64 {
        match (&self.view, &self.cache) {
            (Some(_), Some((_, seen))) => *seen,
            _ => self.storage.version(),
        }
    }

    /// Keeps a view's value computed from a version, unless a newer one is known. Gives back what is to be dropped.
    pub(crate) fn refresh(&mut self, array: Array, version: u64) -> Option<Array> {
        if self.cache.as_ref().is_some_and(|(_, seen)| *seen >= version) {
            return None;
        }
        self.cache.replace((array, version)).map(|(old, _)| old)
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
