//! Errors that a device reports asynchronously. They are kept until the next call that needs a value.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::{Error, Result};

/// The first error since the last report, and whether the device is lost.
pub(super) struct Failures {
    device: String,
    state: Mutex<FailureState>,
    /// Whether `FailureState::lost` is set; reading this flag needs no lock.
    is_lost: AtomicBool,
}

#[derive(Default)]
struct FailureState {
    pending: Option<Error>,
    lost: Option<String>,
}

impl Failures {
    /// An empty record for the device of this name.
    pub(super) fn new(device: String) -> Failures {
        Failures { device, state: Mutex::default(), is_lost: AtomicBool::new(false) }
    }

    /// Keeps an error, unless an earlier one has not been reported yet.
    pub(super) fn record(&self, error: Error) {
        let mut state = self.lock();
        if state.pending.is_none() {
            state.pending = Some(error);
        }
    }

    /// The error for a kernel or a command that the driver refused.
    pub(super) fn refused(&self, reason: impl Into<String>) -> Error {
        Error::Kernel { device: self.device.clone(), reason: reason.into() }
    }

    /// Records that the device is lost.
    pub(super) fn lose(&self, reason: &str) {
        let reason = if reason.is_empty() { "it was destroyed" } else { reason };
        self.lock().lost.get_or_insert_with(|| {
            log::error!("{}: lost: {reason}", self.device);
            reason.to_owned()
        });
        self.is_lost.store(true, Ordering::Release);
    }

    /// Reports the kept error and forgets it. A lost device stays lost.
    pub(super) fn take(&self) -> Result<()> {
        self.alive()?;
        self.lock().pending.take().map_or(Ok(()), Err)
    }

    /// Whether the device still exists.
    pub(super) fn alive(&self) -> Result<()> {
        if !self.is_lost.load(Ordering::Acquire) {
            return Ok(());
        }
        let reason = self.lock().lost.clone().unwrap_or_default();
        Err(Error::DeviceLost { device: self.device.clone(), reason })
    }

    fn lock(&self) -> MutexGuard<'_, FailureState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
