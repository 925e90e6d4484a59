//! The command line.

use std::path::PathBuf;

use anyhow::{Result, bail};
use wgrad::Device;

use crate::tasks::{Set, Task};

/// What to run, where, and where the results go.
pub struct Options {
    /// Which tasks there are.
    pub set: Set,
    /// Beginnings of task names; none are all tasks of the set.
    tasks: Vec<String>,
    /// Names of devices.
    pub devices: Vec<String>,
    /// Small sizes and few runs.
    pub quick: bool,
    /// Where JSON lines go.
    pub json: Option<PathBuf>,
    /// Where the chart goes.
    pub svg: Option<PathBuf>,
    /// Another library's JSON lines.
    pub against: Option<PathBuf>,
}

impl Options {
    /// Reads the arguments; without `--devices`, the CPU and all adapters are taken.
    pub fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Options> {
        let mut options = Options {
            set: Set::Standard,
            tasks: vec![],
            devices: vec![],
            quick: false,
            json: None,
            svg: None,
            against: None,
        };
        while let Some(flag) = arguments.next() {
            let mut value = || arguments.next().ok_or_else(|| anyhow::anyhow!("{flag} needs a value"));
            let list = |text: String| text.split(',').map(str::to_owned).collect();
            match flag.as_str() {
                // What `cargo bench` itself passes.
                "--bench" => {}
                "--set" => {
                    options.set = match value()?.as_str() {
                        "standard" => Set::Standard,
                        "operators" => Set::Operators,
                        other => bail!("unknown set {other}; there are standard and operators"),
                    }
                }
                "--tasks" => options.tasks = list(value()?),
                "--devices" => options.devices = list(value()?),
                "--quick" => options.quick = true,
                "--json" => options.json = Some(value()?.into()),
                "--svg" => options.svg = Some(value()?.into()),
                "--against" => options.against = Some(value()?.into()),
                _ => bail!(
                    "unknown argument {flag}; there are --set operators --tasks a,b --devices cpu,vulkan:0 --quick --json FILE \
                     --svg FILE --against FILE"
                ),
            }
        }
        if options.devices.is_empty() {
            options.devices = Device::available().into_iter().map(|device| device.name).collect();
        }
        Ok(options)
    }

    /// Whether a task is to run.
    pub fn wants(&self, task: &Task) -> bool {
        self.tasks.is_empty() || self.tasks.iter().any(|start| task.name.starts_with(start))
    }
}
