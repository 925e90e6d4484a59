//! Which clusters a step may join: those that share memory with it, found by the memory, and those that nothing it reads waits
//! for, found without looking at all that came before.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;

use smallvec::SmallVec;

use super::cluster::{Cluster, Kind};
use super::facts::{Facts, Slot};
use crate::graph::WordHasher;

/// The most clusters that are tried beside those of the operands.
const NEIGHBOURS: usize = 6;

/// What is known of the clusters made so far.
#[derive(Default)]
pub(super) struct Neighbours {
    /// The loops that read or write some memory, in the order in which they were made.
    by_slot: HashMap<Slot, Vec<usize>, BuildHasherDefault<WordHasher>>,
    /// For each cluster, a number larger than those of all clusters that it waits for.
    levels: Vec<usize>,
    /// The clusters that read each cluster's results.
    users: Vec<SmallVec<[usize; 2]>>,
    /// The question for which each cluster was looked at last.
    seen: Vec<usize>,
    questions: usize,
    stack: Vec<usize>,
}

impl Neighbours {
    /// Takes note of a cluster that was made last, or has got a step more.
    pub(super) fn changed(&mut self, clusters: &[Cluster], at: usize) {
        if at == self.levels.len() {
            self.levels.push(0);
            self.users.push(SmallVec::new());
            self.seen.push(0);
        }
        let cluster = &clusters[at];
        if cluster.kind == Kind::Loop {
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
        // Those that wait for it are moved up, as far as they must be.
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

    /// The last loops that have some of this memory in common, the last one first.
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

    /// Whether a cluster waits for another, directly or not, or is the same.
    pub(super) fn waits_for(
        &mut self,
        facts: &Facts<'_>,
        clusters: &[Cluster],
        from: usize,
        on: usize,
    ) -> bool {
        self.questions += 1;
        self.stack.clear();
        self.stack.push(from);
        while let Some(at) = self.stack.pop() {
            if at == on {
                self.stack.clear();
                return true;
            }
            // What waits for it is above it.
            if self.levels[at] > self.levels[on]
                && std::mem::replace(&mut self.seen[at], self.questions) != self.questions
            {
                facts.effort.count_visited();
                self.stack.extend(&clusters[at].needs);
            }
        }
        false
    }
}
