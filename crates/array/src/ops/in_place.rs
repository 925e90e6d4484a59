//! Values that replace others in place: a fault in the data of the new one brings the old one back.

use crate::{Array, Fallback, eval};

/// The most values written in place one after the other, without one that was evaluated, before the newest is.
const LONGEST: usize = 64;

impl Array {
    /// Notes that this value has replaced `old` in place, whose own way back was `before`. Gives the way back from this value, which
    /// whoever keeps the value keeps beside it; `None` if it has been computed.
    pub fn replacing(&self, old: &Array, before: Option<Fallback>) -> Option<Fallback> {
        if self.is_evaluated() {
            return None;
        }
        Fallback::keep(&self.0, &old.0, before)
    }

    /// Computes this value if it has replaced too many others in place that are kept for its sake.
    pub fn bound(&self, fallback: &Fallback) {
        if fallback.len() > LONGEST {
            eval::evaluate_unasked(std::iter::once(&self.0));
        }
    }
}

impl Fallback {
    /// What to go back to, and the way back from there: the newest value that an evaluation has computed, or where there is none the
    /// newest without a fault.
    pub fn older_value(self) -> Option<(Array, Option<Fallback>)> {
        self.older().map(|(node, next)| (Array(node), next))
    }
}
