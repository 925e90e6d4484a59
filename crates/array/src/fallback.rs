//! What a value written in place goes back to if the data that it depends on turn out to have a fault.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::node::NodeRef;

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
            old.note_kept(1);
            let older = Older { node: old.clone(), next: before, count };
            Fallback(Arc::new(Mutex::new(Some(older))))
        };
        if let Some(work) = new.work().as_mut() {
            work.replaced.push(kept.clone());
        }
        Some(kept)
    }

    /// What to go back to, and the way back from there: the newest value that an evaluation has computed, so that nothing of a step that
    /// failed stays; where there is none, the newest without a fault.
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

    /// How many values there are to go back to.
    pub(crate) fn len(&self) -> usize {
        self.lock().as_ref().map_or(0, |older| older.count)
    }

    /// Lets go of the older values.
    pub(crate) fn clear(&self) {
        let older = self.lock().take();
        drop(older);
    }

    fn lock(&self) -> MutexGuard<'_, Option<Older>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Older {
    /// Without recursion, since there may be many.
    fn drop(&mut self) {
        self.node.note_kept(-1);
        let mut next = self.next.take();
        while let Some(Fallback(slot)) = next {
            let last = Arc::into_inner(slot).and_then(|slot| slot.into_inner().ok().flatten());
            next = last.and_then(|mut older| older.next.take());
        }
    }
}
