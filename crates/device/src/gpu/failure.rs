//! What goes wrong on a device while nobody is asking: kept until the next call that needs a value.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::{Error, Result};

/// The first failure since the last report, and whether the device is gone for good.
#[derive(Default)]
pub(super) struct Failures {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    pending: Option<Error>,
    lost: Option<String>,
}

impl Failures {
    /// Keeps an error, unless an earlier one waits.
    pub(super) fn record(&self, error: Error) {
        let mut state = self.lock();
        if state.pending.is_none() {
            state.pending = Some(error);
        }
    }

    /// The device is gone.
    pub(super) fn lose(&self, reason: String) {
        self.lock().lost.get_or_insert(reason);
    }

    /// The error that waits, which is then forgotten; a lost device stays lost.
    pub(super) fn take(&self, device: &str) -> Result<()> {
        let mut state = self.lock();
        if let Some(reason) = &state.lost {
            return Err(Error::DeviceLost { device: device.to_owned(), reason: reason.clone() });
        }
        state.pending.take().map_or(Ok(()), Err)
    }

    /// Whether the device still exists.
    pub(super) fn alive(&self, device: &str) -> Result<()> {
        match &self.lock().lost {
            Some(reason) => Err(Error::DeviceLost { device: device.to_owned(), reason: reason.clone() }),
            None => Ok(()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
