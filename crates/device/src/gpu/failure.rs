//! What goes wrong on a device while nobody is asking: kept until the next call that needs a value.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::{Error, Result};

/// The first failure since the last report, and whether the device is gone for good.
pub(super) struct Failures {
    device: String,
    state: Mutex<FailureState>,
    /// Whether `FailureState::lost` says why, so that asking costs little.
    is_lost: AtomicBool,
}

#[derive(Default)]
struct FailureState {
    pending: Option<Error>,
    lost: Option<String>,
}

impl Failures {
    /// None so far, on the device called so.
    pub(super) fn new(device: String) -> Failures {
        Failures { device, state: Mutex::default(), is_lost: AtomicBool::new(false) }
    }

    /// Keeps an error, unless an earlier one waits.
    pub(super) fn record(&self, error: Error) {
        let mut state = self.lock();
        if state.pending.is_none() {
            state.pending = Some(error);
        }
    }

    /// The driver refused something.
    pub(super) fn refused(&self, reason: impl Into<String>) -> Error {
        Error::Kernel { device: self.device.clone(), reason: reason.into() }
    }

    /// The device is gone.
    pub(super) fn lose(&self, reason: &str) {
        let reason = if reason.is_empty() { "it was destroyed" } else { reason };
        self.lock().lost.get_or_insert_with(|| {
            log::error!("{}: lost: {reason}", self.device);
            reason.to_owned()
        });
        self.is_lost.store(true, Ordering::Release);
    }

    /// The error that waits, which is then forgotten; a lost device stays lost.
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
