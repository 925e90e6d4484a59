//! Tries random programs and hostile calls on the library.
//!
//! ```text
//! cargo run --release -p fuzz -- --programs 10000 --seed 1       random programs
//! cargo run --release -p fuzz -- --calls 100000 --seed 1         hostile calls
//!     --devices cpu,vulkan:0    where; without it, on all devices that are there
//!     --page docs/fuzzing.md    writes down what was run
//! cargo run --release -p fuzz -- --only 17                       one program: its text, and what is wrong with it
//! cargo run --release -p fuzz -- --call 17 --seed 1              one hostile call
//! ```
//!
//! The exit status is 1 if anything was wrong.

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
