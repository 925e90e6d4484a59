//! Calls and programs that must fail: each gives an error here too and leaves its inputs as they were, or is in one of
//! the tables of `exceptions` with the reason why it cannot, or need not.

mod exceptions;
mod scenarios;

use std::fmt::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};

use anyhow::Result;
use wgrad::{Device, Tensor};

use crate::call::Stop;
use crate::case::{ErrorCase, ErrorFile};
use crate::ops;
use crate::replay::{call, panic_text};
use crate::report::Count;
use crate::source::Files;
use crate::tensors::{Layout, Numbers, Store, Values};

/// What came of one entry.
enum Verdict {
    /// An error, as it must be.
    Error,
    /// It cannot fail here, for this reason.
    Excused(&'static str),
    /// It should have failed, or did in the wrong way.
    Wrong(String),
}

/// Runs all entries on a device; counts, and a text that says what is wrong.
pub fn run(files: &Files, device: &Device, only: &[String]) -> Result<(Count, String)> {
    let file: ErrorFile = serde_json::from_slice(&files.json)?;
    let store = Store::new(&files.safetensors)?;
    let mut count = Count::default();
    let mut excused = 0;
    let mut text = "\nerrors\n".to_owned();
    let all = only.is_empty() || only.iter().any(|name| name == "errors");
    for case in file.cases.iter().filter(|case| all || only.contains(&case.id)) {
        let subject = case.op.as_deref().or(case.scenario.as_deref()).unwrap_or_default();
        match verdict(case, &store, device)? {
            Verdict::Error => count.add(true),
            Verdict::Excused(reason) => {
                excused += 1;
                _ = writeln!(text, "    {} {subject}: cannot fail here, {reason}", case.id);
            }
            Verdict::Wrong(what) => {
                count.add(false);
                _ = writeln!(text, "    {} {subject}: {what}; PyTorch: {}", case.id, case.message);
            }
        }
    }
    _ = writeln!(text, "errors {count}, {excused} cannot fail here");
    Ok((count, text))
}

fn verdict(case: &ErrorCase, store: &Store, device: &Device) -> Result<Verdict> {
    let judged = catch_unwind(AssertUnwindSafe(|| match (&case.op, &case.scenario) {
        (Some(op), None) => call_verdict(op, case, store, device),
        (None, Some(scenario)) => {
            Ok(scenario_verdict(scenario, case.code.as_deref().unwrap_or_default(), device))
        }
        _ => Ok(Verdict::Wrong("the entry is neither a call nor a scenario".to_owned())),
    }));
    judged.unwrap_or_else(|panic| Ok(Verdict::Wrong(format!("panicked: {}", panic_text(&*panic)))))
}

fn scenario_verdict(name: &str, code: &str, device: &Device) -> Verdict {
    if let Some(reason) = exceptions::scenario(name) {
        return Verdict::Excused(reason);
    }
    match scenarios::run(name, device) {
        None => Verdict::Wrong(format!("an unknown scenario: {}", code.replace('\n', "; "))),
        Some(Ok(())) => Verdict::Wrong("no error".to_owned()),
        Some(Err(_)) => Verdict::Error,
    }
}

fn call_verdict(name: &str, case: &ErrorCase, store: &Store, device: &Device) -> Result<Verdict> {
    let Some(op) = ops::find(name) else { return Ok(Verdict::Wrong("an unknown operator".to_owned())) };
    if let Some(reason) = exceptions::call(name, &case.message) {
        return Ok(Verdict::Excused(reason));
    }
    let mut inputs = Vec::new();
    for input in &case.inputs {
        inputs.push((input.name.clone(), store.input(input, device, Layout::Stored)?));
    }
    let before = contents(&inputs)?;
    // Some errors, such as an index out of range, appear only where the result is read.
    let outcome = call(op, &inputs, &case.args, device).and_then(|outputs| {
        outputs.iter().try_for_each(|out| Numbers::of(out).map(drop)).map_err(Stop::from)
    });
    let intact = contents(&inputs)? == before;
    Ok(match outcome {
        Ok(()) => Verdict::Wrong("no error".to_owned()),
        Err(Stop::Arguments(reason)) => match exceptions::argument(&reason) {
            Some(why) => Verdict::Excused(why),
            None => Verdict::Wrong(format!("not expressed: {reason}")),
        },
        Err(Stop::Library(_)) if intact => Verdict::Error,
        Err(Stop::Library(error)) => Verdict::Wrong(format!("failed ({error}) but changed an input")),
    })
}

/// The elements of the inputs, as text so that NaN equals itself.
fn contents(inputs: &[(String, Tensor)]) -> Result<Vec<String>> {
    let text = |tensor: &Tensor| {
        Numbers::of(tensor).map(|numbers| match numbers.values {
            Values::Float(values) => format!("{values:?}"),
            Values::Integer(values) => format!("{values:?}"),
        })
    };
    Ok(inputs.iter().map(|(_, tensor)| text(tensor)).collect::<wgrad::Result<_>>()?)
}
