//! Values that replace others in place: a fault in the data of the new one brings the old one back.

use wgrad_device::Result;
use wgrad_device::kernel::BinaryOp;

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

impl Array {
    /// Whether its data may turn out to have a fault when it is computed.
    pub fn may_fail(&self) -> bool {
        self.0.may_fail()
    }

    /// The same values, which have the fault of `other`, of this shape, if its data turn out to have one. They need not depend on
    /// `other` otherwise: the gradient of a loss may not.
    ///
    /// # Errors
    /// As [`Array::select`].
    pub fn tied_to(&self, other: &Array) -> Result<Array> {
        if !other.0.may_fail() {
            return Ok(self.clone());
        }
        Array::select(&other.binary(BinaryOp::Eq, other)?, self, self)
    }
}

impl Fallback {
    /// What to go back to, and the way back from there: the newest value that an evaluation has computed, or where there is none the
    /// newest without a fault.
    pub fn older_value(self) -> Option<(Array, Option<Fallback>)> {
        self.older().map(|(node, next)| (Array(node), next))
    }
}
