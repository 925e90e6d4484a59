//! The command line.

use wgrad::Device;

/// The options of the command line.
#[derive(Clone, Debug, Default)]
pub struct FuzzOptions {
    pub programs: u64,
    pub calls: u64,
    pub seed: u64,
    pub devices: Vec<String>,
    pub only: Option<u64>,
    pub call: Option<u64>,
    pub page: Option<String>,
    /// If set, this process is a worker, which starts at this number.
    pub worker: Option<u64>,
}

impl FuzzOptions {
    /// Parses arguments.
    ///
    /// # Errors
    /// For an unknown option, and for a value that is missing or no number.
    pub fn parse(arguments: impl IntoIterator<Item = String>) -> Result<FuzzOptions, String> {
        let mut options = FuzzOptions { seed: 1, ..FuzzOptions::default() };
        let mut arguments = arguments.into_iter();
        while let Some(name) = arguments.next() {
            let value = arguments.next().ok_or_else(|| format!("{name} needs a value"))?;
            let number = || value.parse::<u64>().map_err(|error| format!("{name} {value}: {error}"));
            match &name[..] {
                "--programs" => options.programs = number()?,
                "--calls" => options.calls = number()?,
                "--seed" => options.seed = number()?,
                "--only" => options.only = Some(number()?),
                "--call" => options.call = Some(number()?),
                "--worker" => options.worker = Some(number()?),
                "--page" => options.page = Some(value.clone()),
                "--devices" => options.devices = value.split(',').map(str::to_owned).collect(),
                _ => return Err(format!("{name} is no option; the head of fuzz/src/main.rs lists them")),
            }
        }
        if options.devices.is_empty() {
            options.devices = Device::available().into_iter().map(|info| info.name).collect();
        }
        Ok(options)
    }
}
