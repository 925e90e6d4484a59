//! What the training programs share: their arguments, a progress bar.

use std::io::{IsTerminal, Write};

use anyhow::{Context, Result, bail};
use wgrad::Device;

/// Arguments of the form `--name value`.
pub struct Args(Vec<(String, String)>);

impl Args {
    /// Reads the command line; `names` are the arguments that there are.
    pub fn parse(names: &[&str]) -> Result<Args> {
        let mut found = Vec::new();
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            let Some(name) = argument.strip_prefix("--").filter(|name| names.contains(name)) else {
                bail!("unknown argument {argument}; there are --{}", names.join(", --"));
            };
            let value = arguments.next().with_context(|| format!("{argument} needs a value"))?;
            found.push((name.to_owned(), value));
        }
        Ok(Args(found))
    }

    /// The value of an argument, or its default.
    pub fn get<T: std::str::FromStr>(&self, name: &str, default: T) -> Result<T>
    where
        T::Err: std::error::Error + Send + Sync + 'static,
    {
        match self.text(name) {
            Some(text) => text.parse().with_context(|| format!("--{name} {text}")),
            None => Ok(default),
        }
    }

    /// The device named by `--device`, or the best one.
    pub fn device(&self) -> Result<Device> {
        Ok(self.text("device").map_or_else(Device::best, str::parse)?)
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().rev().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }
}

/// A bar with a note behind it, drawn over itself in a terminal; elsewhere a line now and then.
pub struct Progress {
    total: usize,
    lines: usize,
    terminal: bool,
}

impl Progress {
    /// A bar for `total` steps, of which `lines` are shown where there is no terminal.
    pub fn new(total: usize, lines: usize) -> Progress {
        Progress { total, lines, terminal: std::io::stdout().is_terminal() }
    }

    /// Shows that `done` steps are done.
    pub fn show(&self, done: usize, note: &str) {
        const WIDTH: usize = 24;
        let filled = done * WIDTH / self.total.max(1);
        let bar = format!(
            "[{}{}] {done:>4}/{}  {note}",
            "█".repeat(filled),
            "·".repeat(WIDTH - filled),
            self.total
        );
        if self.terminal {
            print!("\r{bar} {}", if done == self.total { "\n" } else { "" });
            // A terminal that has gone away is no reason to stop training.
            let _ = std::io::stdout().flush();
        } else if done == self.total || done.is_multiple_of(self.total.div_ceil(self.lines.max(1))) {
            println!("{bar}");
        }
    }
}
