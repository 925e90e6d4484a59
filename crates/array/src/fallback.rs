//! What a value written in place goes back to if the data that it depends on turns out to have a fault.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::node::{Node, NodeRef};

/// The value that was replaced in place, and what that one replaced: kept until the newest value is known to be good. Whoever keeps
/// the newest value keeps this beside it.
#[derive(Clone)]
pub struct Fallback(Arc<Mutex<Option<Older>>>);

struct Older {
    node: NodeRef,
    next: Option<Fallback>,
    /// How many values there are to go back to.
    count: usize,
}

impl Fallback {
    /// Where to go back to from `new`, which is pending and has replaced `old`, whose own way back was `before`.
    pub(crate) fn keep(new: &NodeRef, old: &NodeRef, before: Option<Fallback>) -> Option<Fallback> {
        // What has a fault itself is nothing to go back to.
        let kept = if old.fault().is_some() {
            before?
        } else {
            let count = 1 + before.as_ref().map_or(0, Fallback::len);
            let older = Older { node: old.clone(), next: before, count };
            Fallback(Arc::new(Mutex::new(Some(older))))
        };
        if let Some(work) = new.work().as_mut() {
            work.replaced.push(kept.clone());
        }
        Some(kept)
    }

    /// The newest value without a fault to go back to, and the way back from there.
    pub(crate) fn older(self) -> Option<(NodeRef, Option<Fallback>)> {
        let mut at = Some(self);
        while let Some(fallback) = at {
            let (node, next) = {
                let slot = fallback.lock();
                let older = slot.as_ref()?;
                (older.node.clone(), older.next.clone())
            };
            if node.fault().is_none() {
                return Some((node, next));
            }
            at = next;
        }
        None
    }

    /// How many values there are to go back to.
    pub(crate) fn len(&self) -> usize {
        self.lock().as_ref().map_or(0, |older| older.count)
    }

    /// Lets go of the older values.
    pub(crate) fn clear(&self) {
        let older = self.lock().take();
        drop(older);
    }

    /// Calls a function with the node of the value to go back to.
    pub(crate) fn with_node(&self, look: impl FnOnce(&Node)) {
        if let Some(older) = &*self.lock() {
            look(&older.node);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Older>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Older {
    /// Without recursion, since there may be many.
    fn drop(&mut self) {
        let mut next = self.next.take();
        while let Some(Fallback(slot)) = next {
            let last = Arc::into_inner(slot).and_then(|slot| slot.into_inner().ok().flatten());
            next = last.and_then(|mut older| older.next.take());
        }
    }
}
