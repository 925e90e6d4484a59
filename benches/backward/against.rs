//! Another library's results, read from its JSON lines, beside ours.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::measure::Check;
use crate::report::{Report, align, marked, ratio};

/// Results of other libraries, by their names.
pub struct Against(BTreeMap<String, Library>);

#[derive(Default)]
struct Library {
    /// Median seconds of a task, and how many cores other programs used meanwhile.
    medians: BTreeMap<String, (f64, Option<f64>)>,
    /// Loss or losses, and gradients or results, of a task.
    checks: BTreeMap<String, Value>,
}

/// Reads JSON lines; other lines are skipped.
pub fn read(path: &Path) -> Result<Against> {
    let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    let mut libraries: BTreeMap<String, Library> = BTreeMap::new();
    for line in text.lines().filter(|line| line.starts_with('{')) {
        let line: Value = serde_json::from_str(line).with_context(|| format!("reading {line}"))?;
        let Some(peer) = line["peer"].as_str() else { continue };
        let library = libraries.entry(peer.to_owned()).or_default();
        if let (Some(task), Some(median)) = (line["task"].as_str(), line["median_s"].as_f64()) {
            library.medians.insert(task.to_owned(), (median, line["other_cpu"].as_f64()));
        }
        if let Some(task) = line["check"].as_str() {
            library.checks.insert(task.to_owned(), line.clone());
        }
    }
    libraries.retain(|_, library| !library.medians.is_empty());
    ensure!(!libraries.is_empty(), "{} holds no times", path.display());
    Ok(Against(libraries))
}

impl Against {
    /// For each library: its times, ours, how many times faster we are, and whether the values agree.
    pub fn table(&self, report: &Report) -> String {
        let mut text = String::new();
        for (name, library) in &self.0 {
            let mut lines = vec![vec!["task".to_owned(), name.clone()]];
            for device in report.devices() {
                lines[0].extend([device.clone(), "faster".to_owned()]);
            }
            lines[0].push("values".to_owned());
            for task in report.tasks() {
                let Some(&(theirs, other_cpu)) = library.medians.get(task) else { continue };
                let mut line = vec![task.clone(), marked(theirs, other_cpu)];
                let mut differences = Vec::new();
                for device in report.devices() {
                    let ours = report.get(device, task);
                    line.push(ours.map(|m| marked(m.median_s, m.other_cpu)).unwrap_or_default());
                    line.push(ours.map(|m| ratio(theirs / m.median_s)).unwrap_or_default());
                    if let (Some(ours), Some(check)) = (ours, library.checks.get(task)) {
                        let found = differences_between(&ours.check, check);
                        differences.extend(found.into_iter().map(|what| format!("{what} on {device}")));
                    }
                }
                line.push(match (library.checks.contains_key(task), differences.is_empty()) {
                    (false, _) => String::new(),
                    (true, true) => "agree".to_owned(),
                    (true, false) => format!("DIFFER: {}", differences.join(", ")),
                });
                lines.push(line);
            }
            text.push_str(&align(&lines));
            text.push('\n');
        }
        text
    }
}

/// What differs by more than rounding: losses by 1e-4, norms and single elements of other values by 1e-3 of the norm.
fn differences_between(ours: &Check, theirs: &Value) -> Vec<String> {
    let losses: Vec<f64> = match &theirs["loss"] {
        Value::Array(losses) => losses.iter().filter_map(Value::as_f64).collect(),
        loss => loss.as_f64().into_iter().collect(),
    };
    let mut found = Vec::new();
    for (i, (a, b)) in ours.losses.iter().zip(losses).enumerate() {
        if differ(*a, b, 1e-4 * b.abs().max(1e-3)) {
            found.push(format!("loss {i} ({a} for {b})"));
        }
    }
    for (name, figures) in &ours.compared {
        let Value::Array(expected) = &theirs["grads"][name] else {
            found.push(format!("{name} (not there)"));
            continue;
        };
        let norm = expected.first().and_then(Value::as_f64).unwrap_or(0.0);
        // The second figure is a sum, which rounding may change at will.
        for (place, what) in [(0, "norm"), (2, "first element"), (3, "last element")] {
            let expected = expected.get(place).and_then(Value::as_f64).unwrap_or(f64::NAN);
            if differ(figures[place], expected, 1e-3 * norm.max(1e-6)) {
                found.push(format!("{what} of {name} ({} for {expected})", figures[place]));
            }
        }
    }
    found
}

/// Whether two numbers are further apart than that; NaN is far from everything.
fn differ(a: f64, b: f64, tolerance: f64) -> bool {
    let distance = (a - b).abs();
    distance.is_nan() || distance > tolerance
}
