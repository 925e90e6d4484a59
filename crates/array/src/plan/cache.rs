//! The plan cache: plans by the keys of their graphs. It is bounded in bytes and evicts the least recently
//! used plans.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Plan;
use crate::graph::WordHasher;

/// The most bytes that a device's plans may take. The plan for a training step of a large model takes about a
/// million.
const MAX_BYTES: usize = 64 << 20;

/// The plan cache of a device.
#[derive(Default)]
pub(crate) struct PlanCache(Mutex<CachedPlans>);

#[derive(Default)]
struct CachedPlans {
    plans: HashMap<Box<[u64]>, CachedPlan, BuildHasherDefault<WordHasher>>,
    bytes: usize,
    /// The number of uses so far, which serves as the time.
    clock: u64,
}

struct CachedPlan {
    plan: Arc<Plan>,
    bytes: usize,
    /// The time of its last use.
    used: u64,
}

impl PlanCache {
    /// The plan for this key. This counts as a use.
    pub(super) fn find(&self, key: &[u64]) -> Option<Arc<Plan>> {
        let mut known = self.lock();
        known.clock += 1;
        let clock = known.clock;
        let entry = known.plans.get_mut(key)?;
        entry.used = clock;
        Some(entry.plan.clone())
    }

    /// Whether there is a plan for this key. This does not count as a use.
    pub(super) fn has(&self, key: &[u64]) -> bool {
        self.lock().plans.contains_key(key)
    }

    /// Adds a plan, and evicts others if the cache has become too large. The new plan stays even if it is too
    /// large alone.
    pub(super) fn add(&self, key: &[u64], plan: &Arc<Plan>) {
        let bytes = size_of_val(key) + size_of::<CachedPlan>() + plan.memory();
        let mut gone = Vec::new();
        let mut known = self.lock();
        known.clock += 1;
        let entry = CachedPlan { plan: plan.clone(), bytes, used: known.clock };
        known.bytes += bytes;
        if let Some(before) = known.plans.insert(key.into(), entry) {
            known.bytes -= before.bytes;
            gone.push(before);
        }
        while known.bytes > MAX_BYTES && known.plans.len() > 1 {
            let oldest = known.plans.iter().min_by_key(|(_, entry)| entry.used).map(|(key, _)| key.clone());
            let Some(entry) = oldest.and_then(|key| known.plans.remove(&key)) else { break };
            known.bytes -= entry.bytes;
            gone.push(entry);
        }
        // The evicted plans are dropped after the lock is released, since dropping kernels takes time.
        drop(known);
        drop(gone);
    }

    fn lock(&self) -> MutexGuard<'_, CachedPlans> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
