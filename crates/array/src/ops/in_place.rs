//! Values that replace others in place. If the new value depends on data with a fault, the old one comes
//! back.

use wgrad_device::Result;
use wgrad_device::kernel::BinaryOp;

use crate::{Array, Fallback, eval};

/// A value is evaluated when its chain of fallbacks has become longer than this.
const LONGEST: usize = 64;

impl Array {
    /// Notes that this value has replaced `old` in place; `before` is the fallback of `old`. The result is
    /// this value's fallback, which the owner of the value keeps along with it. `None` if this value has been
    /// computed already.
    pub fn replacing(&self, old: &Array, before: Option<Fallback>) -> Option<Fallback> {
        if self.is_evaluated() {
            return None;
        }
        Fallback::keep(&self.0, &old.0, before)
    }

    /// Computes this value if its chain of fallbacks has become too long.
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

    /// The same values, made dependent on `other`, which must have the same shape: if the data of `other`
    /// turn out to have a fault, these values have it, too. The gradient of a loss, for instance, may not
    /// depend on the loss otherwise.
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
    /// The value to fall back to, and that value's own fallback. It is the newest value that has been
    /// computed, or, if there is none, the newest one without a fault.
    pub fn older_value(self) -> Option<(Array, Option<Fallback>)> {
        self.older().map(|(node, next)| (Array(node), next))
    }
}
