//! Counts, and how they are printed.

use std::collections::BTreeMap;
use std::fmt;

use crate::replay::{Part, Replayed};

/// Passed and all.
#[derive(Clone, Copy, Default)]
pub struct Count {
    pub passed: usize,
    pub total: usize,
}

impl Count {
    pub fn add(&mut self, passed: bool) {
        self.passed += usize::from(passed);
        self.total += 1;
    }

    pub fn failed(&self) -> usize {
        self.total - self.passed
    }
}

impl std::ops::Add for Count {
    type Output = Count;

    fn add(self, other: Count) -> Count {
        Count { passed: self.passed + other.passed, total: self.total + other.total }
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.total {
            0 => f.pad("-"),
            total => f.pad(&format!("{}/{total}", self.passed)),
        }
    }
}

/// What came of an operator's cases.
#[derive(Default)]
pub struct OpReport {
    pub op: String,
    pub cases: Count,
    values: Count,
    grads: Count,
    second: Count,
    dtypes: BTreeMap<String, Count>,
    /// The largest error among what passed, in units of the tolerance.
    worst: f64,
    /// Cases that this device cannot hold, and says so.
    pub skipped: usize,
    /// Operators, of those seen above the limits, that have no case of the device's dtypes.
    pub no_dtype: usize,
    pub failures: Vec<String>,
}

impl OpReport {
    pub fn new(op: &str) -> OpReport {
        OpReport { op: op.to_owned(), ..OpReport::default() }
    }

    /// Counts a case.
    pub fn add(&mut self, id: &str, dtype: &str, replayed: &Replayed) {
        let mut passed = true;
        let parts = [
            (&replayed.values, &mut self.values),
            (&replayed.grads, &mut self.grads),
            (&replayed.second, &mut self.second),
        ];
        for (part, count) in parts {
            let Some(part) = part else { continue };
            count.add(part.is_ok());
            match part {
                Part::Ok(error) => self.worst = self.worst.max(*error),
                Part::Err(failure) => {
                    passed = false;
                    self.failures.push(format!("{id} ({dtype}): {failure}"));
                }
            }
        }
        self.cases.add(passed);
        self.dtypes.entry(dtype.to_owned()).or_default().add(passed);
    }
}

impl fmt::Display for OpReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dtypes: Vec<String> =
            self.dtypes.iter().map(|(dtype, count)| format!("{dtype} {count}")).collect();
        write!(
            f,
            "{:<34} {:>8} {:>8} {:>8} {:>7.3}  {}",
            self.op,
            self.values,
            self.grads,
            self.second,
            self.worst,
            dtypes.join(", ")
        )
    }
}

/// The table's heading.
pub fn heading() -> String {
    format!("{:<34} {:>8} {:>8} {:>8} {:>7}  by dtype", "operator", "values", "grads", "second", "worst")
}
