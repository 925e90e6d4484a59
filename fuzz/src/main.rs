//! A fuzzer for the library: random programs, and hostile calls.
//!
//! ```text
//! cargo run --release -p fuzz -- --programs 10000 --seed 1       random programs
//! cargo run --release -p fuzz -- --calls 100000 --seed 1         hostile calls
//!     --devices cpu,vulkan:0    the devices; without this option, all devices of the machine
//!     --page docs/fuzzing.md    writes the page about the run
//! cargo run --release -p fuzz -- --only 17                       one program: its text and its faults
//! cargo run --release -p fuzz -- --call 17 --seed 1              one hostile call
//! ```
//!
//! The exit status is 1 if a fault was found.

mod hostile;
mod options;
mod page;
mod program;
mod random;
mod supervise;
#[cfg(test)]
mod tests;
mod work;

use std::process::ExitCode;

fn main() -> ExitCode {
    let result =
        options::FuzzOptions::parse(std::env::args().skip(1)).and_then(|options| work::run(&options));
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}
