//! `WGRAD_DEBUG`: reports on evaluations, written to standard error.
//!
//! `plan` writes each plan when it is built, `run` writes a line for each evaluation, and `plan,run` does
//! both. Without the variable nothing is written.

use std::io::Write;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use wgrad_device::kernel::Traffic;
use wgrad_device::{Device, Error};

use crate::plan::Outline;

/// The topics for which reports are written.
struct DebugTopics {
    plan: bool,
    run: bool,
}

static DEBUG_TOPICS: LazyLock<DebugTopics> = LazyLock::new(|| {
    let asked = std::env::var("WGRAD_DEBUG").unwrap_or_default();
    let has = |what: &str| asked.split(',').any(|word| word.trim() == what);
    DebugTopics { plan: has("plan"), run: has("run") }
});

/// Writes lines to standard error. If that is closed, the report is lost.
fn write(text: std::fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// Reports a plan that was built.
pub(crate) fn built(outline: impl FnOnce() -> Outline) {
    if DEBUG_TOPICS.plan {
        write(format_args!("wgrad: {}", outline()));
    }
}

/// The report on an evaluation, which is written at its end.
pub(crate) struct RunReport {
    begun: Instant,
    /// The time that planning took, unless the plan was in the cache.
    planned: Option<Duration>,
}

impl RunReport {
    /// `None` if evaluations are not reported.
    pub(crate) fn begin() -> Option<RunReport> {
        DEBUG_TOPICS.run.then(|| RunReport { begun: Instant::now(), planned: None })
    }

    /// Notes that the plan was not in the cache, and has just been made.
    pub(crate) fn planned(&mut self) {
        self.planned = Some(self.begun.elapsed());
    }

    /// Writes the report.
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
        // This is the time for which the program waits: a GPU may still be at work.
        write(format_args!("wgrad: run on {device}: {launches}, {traffic}, {running:.3} ms, {plan}{failed}"));
    }
}
