//! Makes a failing program smaller while it fails in the same way.

use std::time::{Duration, Instant};

use super::RandomProgram;

/// Leaves out steps, rounds, compared values and gradients, from the end to the front, until the program no
/// longer fails without any one of them, or the time is over.
pub fn shrink(
    program: RandomProgram,
    fails: impl Fn(&RandomProgram) -> bool,
    time: Duration,
) -> RandomProgram {
    let start = Instant::now();
    let mut best = program;
    let mut changed = true;
    while changed && start.elapsed() < time {
        changed = false;
        let mut smaller: Vec<RandomProgram> = Vec::new();
        if best.rounds > 1 {
            smaller.push(RandomProgram { rounds: 1, ..best.clone() });
            smaller.push(RandomProgram { rounds: best.rounds - 1, ..best.clone() });
        }
        if best.gradients {
            smaller.push(RandomProgram { gradients: false, ..best.clone() });
        }
        if let Some(found) = smaller.into_iter().find(|program| fails(program)) {
            best = found;
            changed = true;
        }
        let mut at = best.steps.len();
        while at > 0 && start.elapsed() < time {
            at = at.min(best.steps.len());
            if at == 0 {
                break;
            }
            at -= 1;
            let less = best.without(at);
            if !less.steps.is_empty() && fails(&less) {
                best = less;
                changed = true;
                continue;
            }
            if best.steps[at].held {
                let mut less = best.clone();
                less.steps[at].held = false;
                if fails(&less) {
                    best = less;
                    changed = true;
                }
            }
        }
        for at in 0..best.leaves.len() {
            if best.leaves[at].requires_grad {
                let mut less = best.clone();
                less.leaves[at].requires_grad = false;
                if fails(&less) {
                    best = less;
                    changed = true;
                }
            }
        }
    }
    best
}
