//! Plans by their graphs' keys, as many as fit into some memory: those that were not used for longest go first.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Plan;
use crate::graph::WordHasher;

/// The most bytes that a device's plans take: a step of a large model takes about one million.
const MOST_BYTES: usize = 64 << 20;

/// A device's plans.
#[derive(Default)]
pub(crate) struct Plans(Mutex<Known>);

#[derive(Default)]
struct Known {
    plans: HashMap<Box<[u64]>, Entry, BuildHasherDefault<WordHasher>>,
    bytes: usize,
    /// Counts uses.
    clock: u64,
}

struct Entry {
    plan: Arc<Plan>,
    bytes: usize,
    /// When it was last used.
    used: u64,
}

impl Plans {
    /// The plan of this key.
    pub(super) fn find(&self, key: &[u64]) -> Option<Arc<Plan>> {
        let mut known = self.lock();
        known.clock += 1;
        let clock = known.clock;
        let entry = known.plans.get_mut(key)?;
        entry.used = clock;
        Some(entry.plan.clone())
    }

    /// Whether there is a plan of this key, which is no use of it.
    pub(super) fn has(&self, key: &[u64]) -> bool {
        self.lock().plans.contains_key(key)
    }

    /// Adds a plan. It stays itself, however large it is.
    pub(super) fn add(&self, key: &[u64], plan: &Arc<Plan>) {
        let bytes = size_of_val(key) + size_of::<Entry>() + plan.memory();
        let mut gone = Vec::new();
        let mut known = self.lock();
        known.clock += 1;
        let entry = Entry { plan: plan.clone(), bytes, used: known.clock };
        known.bytes += bytes;
        if let Some(before) = known.plans.insert(key.into(), entry) {
            known.bytes -= before.bytes;
            gone.push(before);
        }
        while known.bytes > MOST_BYTES && known.plans.len() > 1 {
            let oldest = known.plans.iter().min_by_key(|(_, entry)| entry.used).map(|(key, _)| key.clone());
            let Some(entry) = oldest.and_then(|key| known.plans.remove(&key)) else { break };
            known.bytes -= entry.bytes;
            gone.push(entry);
        }
        // Kernels are dropped while nobody waits for the lock.
        drop(known);
        drop(gone);
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
