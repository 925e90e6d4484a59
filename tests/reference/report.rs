//! What came of cases, and how it is printed.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::Result;

/// What a comparison found.
#[derive(Default)]
pub struct Report {
    /// The largest error of what holds, in units of its tolerance, and where it is.
    worst: (f64, String),
    misses: Vec<String>,
}

impl Report {
    /// A leaf that holds, with its largest error in units of its tolerance.
    pub fn add(&mut self, path: &str, error: f64) {
        if error > self.worst.0 {
            self.worst = (error, path.to_owned());
        }
    }

    /// Something that does not hold.
    pub fn miss(&mut self, path: &str, what: String) {
        self.misses.push(format!("{path}: {what}"));
    }

    /// Notes what does not hold, if it does not.
    pub fn check(&mut self, holds: bool, path: &str, what: impl FnOnce() -> String) {
        if !holds {
            self.miss(path, what());
        }
    }

    /// With what another comparison of the same case found.
    pub fn and(mut self, other: Report) -> Report {
        if other.worst.0 > self.worst.0 {
            self.worst = other.worst;
        }
        self.misses.extend(other.misses);
        self
    }
}

/// What came of a case.
pub enum Outcome {
    Compared(Report),
    /// It needs something that the library does not have yet.
    Waiting(&'static str),
}

impl From<Report> for Outcome {
    fn from(report: Report) -> Outcome {
        Outcome::Compared(report)
    }
}

/// How many cases.
#[derive(Clone, Copy, Default)]
pub struct Counts {
    pub passed: usize,
    pub failed: usize,
    pub waiting: usize,
}

impl std::ops::Add for Counts {
    type Output = Counts;

    fn add(self, other: Counts) -> Counts {
        Counts {
            passed: self.passed + other.passed,
            failed: self.failed + other.failed,
            waiting: self.waiting + other.waiting,
        }
    }
}

/// A topic's cases on a device.
pub struct TopicReport {
    topic: String,
    device: String,
    pub counts: Counts,
    worst: (f64, String),
    waiting: BTreeMap<&'static str, usize>,
    failures: Vec<String>,
}

/// So many of a case's misses are printed.
const SHOWN: usize = 4;

impl TopicReport {
    pub fn new(topic: &str, device: &str) -> TopicReport {
        TopicReport {
            topic: topic.to_owned(),
            device: device.to_owned(),
            counts: Counts::default(),
            worst: (0.0, String::new()),
            waiting: BTreeMap::new(),
            failures: Vec::new(),
        }
    }

    /// Counts a case. `unread` are options that nobody asked for.
    pub fn add(&mut self, id: &str, outcome: Result<Outcome>, unread: &[String]) {
        let mut report = match outcome {
            Ok(Outcome::Waiting(reason)) => {
                *self.waiting.entry(reason).or_default() += 1;
                self.counts.waiting += 1;
                return;
            }
            Ok(Outcome::Compared(report)) => report,
            Err(error) => Report { misses: vec![format!("{error:#}")], ..Report::default() },
        };
        // A failed case has not come to all of its options.
        if report.misses.is_empty() && !unread.is_empty() {
            report.misses.push(format!("nobody has read {}", unread.join(", ")));
        }
        if report.misses.is_empty() {
            self.counts.passed += 1;
        } else {
            self.counts.failed += 1;
            let more = report.misses.len().saturating_sub(SHOWN);
            let more = if more > 0 { format!("; and {more} more") } else { String::new() };
            self.failures
                .push(format!("{id}: {}{more}", report.misses[..report.misses.len().min(SHOWN)].join("; ")));
        }
        if report.worst.0 > self.worst.0 {
            self.worst = (report.worst.0, format!("{id} {}", report.worst.1));
        }
    }
}

impl fmt::Display for TopicReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts { passed, failed, .. } = self.counts;
        write!(f, "{:<16} {:<10} {:>9}", self.topic, self.device, format!("{passed}/{}", passed + failed))?;
        if self.worst.0 > 0.0 {
            write!(f, "  worst {:.3} of the tolerance ({})", self.worst.0, self.worst.1)?;
        }
        for (reason, count) in &self.waiting {
            write!(f, "  {count} waiting for {reason}")?;
        }
        writeln!(f)?;
        self.failures.iter().try_for_each(|failure| writeln!(f, "    {failure}"))
    }
}
