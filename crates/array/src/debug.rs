//! `WGRAD_DEBUG`: what evaluations do, told on standard error while they do it.
//!
//! `plan` tells each plan when it is built, `run` each evaluation; `plan,run` both. Without it the library is silent.

use std::io::Write;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use wgrad_device::kernel::Traffic;
use wgrad_device::{Device, Error};

use crate::plan::Outline;

/// What is to be told.
struct DebugTopics {
    plan: bool,
    run: bool,
}

static DEBUG_TOPICS: LazyLock<DebugTopics> = LazyLock::new(|| {
    let asked = std::env::var("WGRAD_DEBUG").unwrap_or_default();
    let has = |what: &str| asked.split(',').any(|word| word.trim() == what);
    DebugTopics { plan: has("plan"), run: has("run") }
});

/// Writes a line, or several; a standard error that is closed is no reason to stop.
fn tell(text: std::fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// Tells a plan that was built.
pub(crate) fn built(outline: impl FnOnce() -> Outline) {
    if DEBUG_TOPICS.plan {
        tell(format_args!("wgrad: {}", outline()));
    }
}

/// An evaluation that is to be told when it is done.
pub(crate) struct RunReport {
    begun: Instant,
    /// How long its plan took to make, if it was not known.
    planned: Option<Duration>,
}

impl RunReport {
    /// `None` if evaluations are not told.
    pub(crate) fn begin() -> Option<RunReport> {
        DEBUG_TOPICS.run.then(|| RunReport { begun: Instant::now(), planned: None })
    }

    /// Notes that the plan had to be made.
    pub(crate) fn planned(&mut self) {
        self.planned = Some(self.begun.elapsed());
    }

    /// Tells it.
    pub(crate) fn done(self, device: &Device, launches: usize, traffic: Traffic, error: Option<&Error>) {
        let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
        let all = self.begun.elapsed();
        let running = milliseconds(all.saturating_sub(self.planned.unwrap_or_default()));
        let plan = match self.planned {
            None => "hit".to_owned(),
            Some(time) => format!("miss: planned in {:.3} ms", milliseconds(time)),
        };
        let failed = error.map(|error| format!(", failed: {error}")).unwrap_or_default();
        let launches = if launches == 1 { "1 launch".to_owned() } else { format!("{launches} launches") };
        // A GPU may still be at work: the time is what the program waits.
        tell(format_args!("wgrad: run on {device}: {launches}, {traffic}, {running:.3} ms, {plan}{failed}"));
    }
}
