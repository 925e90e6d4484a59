//! Whole programs, written as PyTorch's users write them, on every device here.
//!
//! `models` has one program a file. Its data and first weights are those of `record.safetensors`, and so are the losses of its 20 steps
//! and its last weights, which PyTorch computed (`record.py`). Each runs in f32 and, where the device has it, in f64,
//! and is read in each of five ways (`run::Reading`): when and whether a program reads its values must not matter.
//! Where each step is read, the later steps must be planned already, and memory must stay as it is. When a program
//! is over, nothing of it may be left.
//!
//!     cargo test -p wgrad --test programs                  # all
//!     cargo test -p wgrad --test programs -- gpt cnn cpu   # some, on some devices

#![allow(missing_docs)]

mod determinism;
mod errors;
mod memory;
mod models;
mod parts;
mod plans;
mod record;
mod run;
#[path = "../../crates/device/tests/support/mod.rs"]
mod support;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, ensure};
use models::{PROGRAMS, Program};
use run::{Reading, Run};
use wgrad::{DType, Device, tape};

/// What must hold on each device, by its name.
pub type Check = (&'static str, fn(&Device) -> Result<()>);

fn main() -> ExitCode {
    if let Ok(order) = std::env::var(determinism::CHILD) {
        return match determinism::child(&order) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                println!("{error:#}");
                ExitCode::FAILURE
            }
        };
    }
    let arguments: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    // Asked for its tests by a harness, it has none to name.
    if std::env::args().any(|arg| arg == "--list") {
        return ExitCode::SUCCESS;
    }
    let (devices, named) = match devices(&arguments) {
        Ok(found) => found,
        Err(error) => {
            println!("{error:#}");
            return ExitCode::FAILURE;
        }
    };
    let names: Vec<&String> = arguments.iter().filter(|arg| !named.contains(arg)).collect();
    let wanted = |name: &str| names.is_empty() || names.iter().any(|part| name.contains(part.as_str()));
    let (mut passed, mut failed) = (0, 0);
    let mut report = |name: &str, device: &Device, run: &dyn Fn() -> Vec<String>| {
        let start = Instant::now();
        let failures = run();
        let outcome = if failures.is_empty() { "ok" } else { "FAILED" };
        println!("{name:24} {:10} {outcome:6} {:6.2} s", device.name(), start.elapsed().as_secs_f64());
        failures.iter().for_each(|failure| println!("    {failure}"));
        *if failures.is_empty() { &mut passed } else { &mut failed } += 1;
    };
    for device in &devices {
        for (number, (name, _)) in PROGRAMS.iter().enumerate().filter(|(_, (name, _))| wanted(name)) {
            report(name, device, &|| run_program(number, device));
        }
        let checks = [errors::CHECKS, memory::CHECKS, plans::CHECKS, determinism::CHECKS].concat();
        for (name, check) in checks.into_iter().filter(|(name, _)| wanted(name)) {
            let failure = || caught(|| check(device)).err().map(|error| format!("{error:#}"));
            report(name, device, &|| failure().into_iter().collect());
        }
    }
    println!("{passed} passed, {failed} failed");
    if failed == 0 && passed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The devices to run on, all unless some are named, and the arguments that name them.
fn devices(arguments: &[String]) -> Result<(Vec<Device>, Vec<String>)> {
    let available = support::names();
    let named: Vec<String> = arguments.iter().filter(|arg| arg.parse::<Device>().is_ok()).cloned().collect();
    let chosen = if named.is_empty() { &available } else { &named };
    let devices =
        chosen.iter().map(|name| name.parse().with_context(|| name.clone())).collect::<Result<_>>()?;
    Ok((devices, named))
}

/// What failed in a program's runs on a device.
fn run_program(number: usize, device: &Device) -> Vec<String> {
    let mut failures = Vec::new();
    for (dtype, reading) in runs(number, device) {
        let outcome = caught(|| run_once(&PROGRAMS[number], device, dtype, reading));
        failures.extend(outcome.err().map(|error| format!("{dtype}, {reading:?}: {error:#}")));
    }
    failures
}

/// The dtypes and ways of reading in which a device runs a program: all on the CPU. A GPU's driver compiles kernels for much longer than
/// it runs them here, and other readings have other kernels, so there each program is read in one way, another one in each dtype, unless
/// `WGRAD_PROGRAMS=all` asks for all.
fn runs(number: usize, device: &Device) -> Vec<(DType, Reading)> {
    let all = device.is_cpu() || all();
    let dtypes = [DType::F32, DType::F64].into_iter().filter(|&dtype| device.supports(dtype));
    dtypes
        .enumerate()
        .flat_map(|(turn, dtype)| {
            let own = Reading::ALL[(number + 2 * turn) % Reading::ALL.len()];
            Reading::ALL
                .into_iter()
                .filter(move |&reading| all || reading == own)
                .map(move |reading| (dtype, reading))
        })
        .collect()
}

fn run_once(&(name, train): &Program, device: &Device, dtype: DType, reading: Reading) -> Result<()> {
    let before = (device.stats().bytes_in_use, tape::stats().live);
    let mut run = Run::new(name, device, dtype, reading)?;
    train(&mut run)?;
    run.finish()?;
    let after = (device.stats().bytes_in_use, tape::stats().live);
    ensure!(
        after == before,
        "bytes in use and nodes on the tape are {after:?}, and were {before:?} before it"
    );
    Ok(())
}

/// Whether everything is asked for, however long it takes.
pub fn all() -> bool {
    std::env::var("WGRAD_PROGRAMS").is_ok_and(|value| value == "all")
}

/// A panic is a failure like others.
fn caught(run: impl FnOnce() -> Result<()>) -> Result<()> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|payload| {
        let words = payload.downcast_ref::<String>().cloned();
        let words = words.or_else(|| payload.downcast_ref::<&str>().map(|&words| words.to_owned()));
        Err(anyhow!("panicked: {}", words.unwrap_or_default()))
    })
}
