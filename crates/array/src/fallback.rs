//! Fallbacks: the previous values of an array that was written in place. The array falls back to one of them
//! if its new value turns out to depend on data with a fault.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::node::NodeRef;

/// The value that was replaced in place, and those that it replaced in turn. They are kept until the newest
/// value has been computed without a fault. The owner of the newest value keeps this along with it.
#[derive(Clone)]
pub struct Fallback(Arc<Mutex<Option<Older>>>);

struct Older {
    node: NodeRef,
    next: Option<Fallback>,
    /// The number of values in the chain.
    count: usize,
}

impl Fallback {
    /// The fallback of `new`, which is pending and has replaced `old`; `before` is the fallback of `old`.
    pub(crate) fn keep(new: &NodeRef, old: &NodeRef, before: Option<Fallback>) -> Option<Fallback> {
        // A value with a fault is no fallback.
        let kept = if old.fault().is_some() {
            before?
        } else {
            let count = 1 + before.as_ref().map_or(0, Fallback::len);
            old.note_kept(1);
            let older = Older { node: old.clone(), next: before, count };
            Fallback(Arc::new(Mutex::new(Some(older))))
        };
        if let Some(work) = new.work().as_mut() {
            work.replaced.push(kept.clone());
        }
        Some(kept)
    }

    /// The value to fall back to, and that value's own fallback. It is the newest value that has been
    /// computed, so that nothing of a failed step remains; if there is none, the newest one without a fault.
    pub(crate) fn older(self) -> Option<(NodeRef, Option<Fallback>)> {
        let mut newest = None;
        let mut at = Some(self);
        while let Some(fallback) = at {
            let older = fallback.lock().as_ref().map(|older| (older.node.clone(), older.next.clone()));
            let Some((node, next)) = older else { break };
            if node.value().is_some() {
                return Some((node, next));
            }
            if newest.is_none() && node.fault().is_none() {
                newest = Some((node, next.clone()));
            }
            at = next;
        }
        newest
    }

    /// The number of values in the chain.
    pub(crate) fn len(&self) -> usize {
        self.lock().as_ref().map_or(0, |older| older.count)
    }

    /// Releases the older values.
    pub(crate) fn clear(&self) {
        let older = self.lock().take();
        drop(older);
    }

    fn lock(&self) -> MutexGuard<'_, Option<Older>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Older {
    /// Drops the chain in a loop, since it may be too long for recursion.
    fn drop(&mut self) {
        self.node.note_kept(-1);
        let mut next = self.next.take();
        while let Some(Fallback(slot)) = next {
            let last = Arc::into_inner(slot).and_then(|slot| slot.into_inner().ok().flatten());
            next = last.and_then(|mut older| older.next.take());
        }
    }
}
