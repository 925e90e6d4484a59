//! The results: kept, printed as JSON lines while they come and as a table at the end.
//!
//! A line is `{"peer": "wgrad-cpu", "device": "cpu", "task": …, "median_s": …}`; lines with `check` hold values to be compared with
//! other libraries, lines with `error` what failed.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use wgrad::{Device, DeviceKind};

use crate::measure::Measurement;

/// The results of all devices and tasks.
pub struct Report {
    json: Option<File>,
    devices: Vec<String>,
    tasks: Vec<String>,
    rows: Vec<Row>,
}

struct Row {
    device: String,
    task: String,
    outcome: Result<Measurement, String>,
}

impl Report {
    /// An empty one, whose JSON lines go to a file.
    pub fn new(json: Option<&Path>) -> Result<Report> {
        let create = |path: &Path| File::create(path).with_context(|| format!("creating {}", path.display()));
        Ok(Report { json: json.map(create).transpose()?, devices: vec![], tasks: vec![], rows: vec![] })
    }

    /// Begins with a device.
    pub fn device(&mut self, device: &Device) -> Result<()> {
        self.devices.push(device.to_string());
        let versions = json!({"wgrad": env!("CARGO_PKG_VERSION")});
        self.line(&json!({"peer": peer(device), "device": place(device), "meta": {"versions": versions}}))
    }

    /// Adds a result, and shows it.
    pub fn add(&mut self, device: &Device, task: &str, outcome: Result<Measurement>) -> Result<()> {
        let outcome = outcome.map_err(|error| format!("{error:#}"));
        let mut line = json!({"peer": peer(device), "device": place(device), "task": task});
        match &outcome {
            Ok(m) => {
                let losses =
                    if m.check.losses.len() == 1 { json!(m.check.losses[0]) } else { json!(m.check.losses) };
                let compared: serde_json::Map<String, Value> = m
                    .check
                    .compared
                    .iter()
                    .map(|(name, figures)| (name.to_string(), json!(figures)))
                    .collect();
                if !m.check.losses.is_empty() || !compared.is_empty() {
                    self.line(
                        &json!({"peer": peer(device), "check": task, "loss": losses, "grads": compared}),
                    )?;
                }
                let fields = json!({
                    "other_cpu": m.other_cpu.map(|cores| (cores * 100.0).round() / 100.0),
                    "median_s": m.median_s,
                    "min_s": m.min_s,
                    "runs": m.runs,
                    "peak_rss_mb": m.peak_rss_mb,
                    "first_s": (m.first_s * 1e6).round() / 1e6,
                    "dispatches": m.dispatches,
                    "bytes_moved": m.bytes_moved,
                    "device_peak_bytes": m.bytes_peak,
                });
                if let (Value::Object(line), Value::Object(fields)) = (&mut line, fields) {
                    line.extend(fields);
                }
                println!("{task:24} {:12} {:>9}", device.name(), time(m.median_s));
            }
            Err(error) => {
                line["error"] = json!(error);
                println!("{task:24} {:12} failed: {error}", device.name());
            }
        }
        self.line(&line)?;
        if !self.tasks.iter().any(|known| known == task) {
            self.tasks.push(task.to_owned());
        }
        self.rows.push(Row { device: device.to_string(), task: task.to_owned(), outcome });
        Ok(())
    }

    fn line(&mut self, line: &Value) -> Result<()> {
        if let Some(file) = &mut self.json {
            writeln!(file, "{line}").context("writing the JSON lines")?;
        }
        Ok(())
    }

    pub fn devices(&self) -> &[String] {
        &self.devices
    }

    pub fn tasks(&self) -> &[String] {
        &self.tasks
    }

    /// What was measured of a task on a device.
    pub fn get(&self, device: &str, task: &str) -> Option<&Measurement> {
        let row = self.rows.iter().find(|row| row.device == device && row.task == task)?;
        row.outcome.as_ref().ok()
    }

    /// The tasks that failed, with their devices.
    pub fn failed(&self) -> Vec<String> {
        let failed = self.rows.iter().filter(|row| row.outcome.is_err());
        failed.map(|row| format!("{} on {}", row.task, row.device)).collect()
    }

    /// Median times, how much faster each device is than the first, and what the runs cost there. A star marks a
    /// time while other programs used more than 0.3 of a core.
    pub fn table(&self) -> String {
        let shown = |m: &Measurement| marked(m.median_s, m.other_cpu);
        let mut lines = vec![vec!["task".to_owned()]];
        let base = self.devices.first().cloned().unwrap_or_default();
        lines[0].push(base.clone());
        for device in self.devices.iter().skip(1) {
            lines[0].extend([device.clone(), format!("{base}/{device}")]);
        }
        for device in &self.devices {
            lines[0].extend([format!("{device}: dispatches"), "moved".to_owned(), "peak".to_owned()]);
        }
        for task in &self.tasks {
            let first = self.get(&base, task);
            let mut line = vec![task.clone(), first.map(shown).unwrap_or_default()];
            for device in self.devices.iter().skip(1) {
                let here = self.get(device, task);
                line.push(here.map(shown).unwrap_or_default());
                line.push(first.zip(here).map(|(a, b)| ratio(a.median_s / b.median_s)).unwrap_or_default());
            }
            for device in &self.devices {
                match self.get(device, task) {
                    Some(m) => {
                        line.extend([m.dispatches.to_string(), bytes(m.bytes_moved), bytes(m.bytes_peak)])
                    }
                    None => line.extend([String::new(), String::new(), String::new()]),
                }
            }
            lines.push(line);
        }
        align(&lines)
    }
}

/// The name that a device's lines go by.
fn peer(device: &Device) -> String {
    format!("wgrad-{}", device.name())
}

/// The device as other libraries' lines call it.
fn place(device: &Device) -> String {
    let info = Device::available().into_iter().find(|info| info.name == device.name());
    match info.map(|info| info.kind) {
        Some(DeviceKind::Software) => format!("{}-software", device.name()),
        _ => device.name().to_owned(),
    }
}

/// A time, with a star if it was disturbed by other programs that used so many cores.
pub fn marked(seconds: f64, other_cpu: Option<f64>) -> String {
    let star = if other_cpu.is_some_and(|cores| cores > 0.3) { "*" } else { "" };
    time(seconds) + star
}

/// A time with three digits.
pub fn time(seconds: f64) -> String {
    let (value, unit) = match seconds {
        s if s >= 1.0 => (s, "s"),
        s if s >= 1e-3 => (s * 1e3, "ms"),
        s => (s * 1e6, "µs"),
    };
    format!("{} {unit}", digits(value))
}

/// A factor with three digits.
pub fn ratio(factor: f64) -> String {
    format!("{}x", digits(factor))
}

fn bytes(bytes: u64) -> String {
    let (value, unit) = match bytes as f64 {
        b if b >= 1e9 => (b / 1e9, "GB"),
        b if b >= 1e6 => (b / 1e6, "MB"),
        b if b >= 1e3 => (b / 1e3, "kB"),
        b => return format!("{b} B"),
    };
    format!("{} {unit}", digits(value))
}

fn digits(value: f64) -> String {
    let decimals = if value >= 99.95 {
        0
    } else if value >= 9.995 {
        1
    } else {
        2
    };
    format!("{value:.decimals$}")
}

/// Cells in columns, the first one to the left, numbers to the right; as Markdown.
pub fn align(lines: &[Vec<String>]) -> String {
    let columns = lines.first().map_or(0, Vec::len);
    let width = |column: usize| {
        lines
            .iter()
            .filter_map(|line| line.get(column))
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or(0)
            .max(3)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for (i, line) in lines.iter().enumerate() {
        for (column, (cell, &width)) in line.iter().zip(&widths).enumerate() {
            let cell = if column == 0 { format!("| {cell:<width$} ") } else { format!("| {cell:>width$} ") };
            text.push_str(&cell);
        }
        text.push_str("|\n");
        if i == 0 {
            for (column, &width) in widths.iter().enumerate() {
                let dashes = "-".repeat(width + 1);
                text.push_str(&if column == 0 { format!("|{dashes}-") } else { format!("|{dashes}:") });
            }
            text.push_str("|\n");
        }
    }
    text
}
