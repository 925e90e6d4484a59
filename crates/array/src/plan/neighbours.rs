//! The clusters into which a step may be fused: an index of clusters by the memory that they use, and a
//! search that says whether one cluster depends on another without visiting all earlier ones.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;

use smallvec::SmallVec;

use super::cluster::{Cluster, ClusterKind};
use super::facts::{Facts, Slot};
use crate::graph::WordHasher;

/// The most clusters that are tried besides those that compute the operands.
const NEIGHBOURS: usize = 6;

/// The dependencies between the clusters made so far, and the memory that they use.
#[derive(Default)]
pub(super) struct Neighbours {
    /// For each memory the loops that read or write it, in the order in which they were made.
    by_slot: HashMap<Slot, Vec<usize>, BuildHasherDefault<WordHasher>>,
    /// For each cluster its level: a number larger than the levels of all clusters on which it depends.
    levels: Vec<usize>,
    /// For each cluster the clusters that read its results.
    users: Vec<SmallVec<[usize; 2]>>,
    /// For each cluster the last search that visited it.
    seen: Vec<usize>,
    /// The number of searches so far.
    searches: usize,
    stack: Vec<usize>,
}

impl Neighbours {
    /// Updates the index for a cluster that was just made, or to which a step was just added.
    pub(super) fn changed(&mut self, clusters: &[Cluster], at: usize) {
        if at == self.levels.len() {
            self.levels.push(0);
            self.users.push(SmallVec::new());
            self.seen.push(0);
        }
        let cluster = &clusters[at];
        if cluster.kind == ClusterKind::Loop {
            for &slot in &cluster.body.slots {
                let sharing = self.by_slot.entry(slot).or_default();
                if let Err(place) = sharing.binary_search(&at) {
                    sharing.insert(place, at);
                }
            }
        }
        for &need in &cluster.needs {
            if let Err(place) = self.users[need].binary_search(&at) {
                self.users[need].insert(place, at);
            }
        }
        // The levels of the clusters that depend on it are raised as far as necessary.
        self.stack.push(at);
        while let Some(at) = self.stack.pop() {
            let level = clusters[at].needs.iter().map(|&need| self.levels[need] + 1).max().unwrap_or(0);
            if level > self.levels[at] {
                self.levels[at] = level;
                let users = &self.users[at];
                self.stack.extend(users.iter().filter(|&&user| self.levels[user] <= level));
            }
        }
    }

    /// The most recent loops that use some of this memory, the most recent first.
    pub(super) fn sharing(&self, slots: &[Slot]) -> SmallVec<[usize; 12]> {
        let mut found: SmallVec<[usize; 12]> = SmallVec::new();
        for sharing in slots.iter().filter_map(|slot| self.by_slot.get(slot)) {
            found.extend(sharing.iter().rev().take(NEIGHBOURS).copied());
        }
        found.sort_unstable_by(|a, b| b.cmp(a));
        found.dedup();
        found.truncate(NEIGHBOURS);
        found
    }

    /// Whether the cluster `from` is `on`, or depends on it, directly or through others.
    pub(super) fn depends_on(
        &mut self,
        facts: &Facts<'_>,
        clusters: &[Cluster],
        from: usize,
        on: usize,
    ) -> bool {
        self.searches += 1;
        self.stack.clear();
        self.stack.push(from);
        while let Some(at) = self.stack.pop() {
            if at == on {
                self.stack.clear();
                return true;
            }
            // A cluster that depends on another has a higher level, so the search ends at the level of `on`.
            if self.levels[at] > self.levels[on]
                && std::mem::replace(&mut self.seen[at], self.searches) != self.searches
            {
                facts.effort.count_visited();
                self.stack.extend(&clusters[at].needs);
            }
        }
        false
    }
}
