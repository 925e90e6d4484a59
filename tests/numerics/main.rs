//! How far functions of one number are from the truth, on every device: what `docs/numerics.md` states.
//!
//! In f32 they are compared with f64, over one of so many of all f32 numbers; in f64, and where f64 has no such function, with
//! values of mpmath at 40 digits (`truth.safetensors`, made by `truth.py`). The test fails if a bound of the tables is
//! exceeded, or the page does not state these bounds. The page's measured numbers are from a finer run:
//!
//!     cargo test --workspace --test numerics                      # do the bounds hold, and does the page state them?
//!     WGRAD_WRITE_DOCS=1 cargo test --workspace --test numerics   # measure, and write the page

#![allow(missing_docs)]

#[path = "../../crates/device/tests/common/bounds.rs"]
#[allow(dead_code)] // The executors' tests look functions up by their operation.
mod bounds;
mod functions;
mod measure;
mod page;
#[path = "../../crates/device/tests/support/mod.rs"]
mod support;

use std::path::Path;

use anyhow::{Context, Result};
use functions::FUNCTIONS;
use measure::{Found, Truths};
use wgrad::DType;

/// Of so many f32 numbers one is tried: in a test, and for the page.
const STEPS: [usize; 2] = [49_999, 997];

#[test]
fn functions_are_within_their_bounds_and_numerics_md_states_them() -> Result<()> {
    let write = std::env::var_os("WGRAD_WRITE_DOCS").is_some_and(|value| value == "1");
    let truths = Truths::new(STEPS[usize::from(write)])?;
    let devices = support::devices();
    let mut failures = Vec::new();
    let mut rows = Vec::new();
    for function in FUNCTIONS {
        let bounds =
            functions::bounds_of(function.name).with_context(|| format!("no bounds of {}", function.name))?;
        let mut row = Vec::new();
        for device in &devices {
            let found = truths.in_f32(function, device)?;
            let bound = if device.is_cpu() { bounds.cpu } else { bounds.gpu };
            row.push((format!("{device}"), bound, found));
        }
        for device in devices.iter().filter(|device| device.supports(DType::F64)) {
            let bound = match device.is_cpu() {
                true => bounds.wide,
                false if support::is_nvidia(device) => functions::wide_on_nvidia(bounds),
                false => bounds.wide_gpu,
            };
            row.push((format!("{device} in f64"), bound, truths.in_f64(function, device)?));
        }
        for (place, bound, Found { error, at }) in &row {
            println!("{} on {place}: {error:.2} ulp at {at:e}", function.name);
            if error.is_nan() || error > bound {
                failures.push(format!("{} on {place}: {error} ulp at {at:e}, over {bound}", function.name));
            }
        }
        // Rounded up, so that what the page states is not less than what was found.
        rows.push(
            row.into_iter().map(|(_, _, found)| (found.error * 100.0).ceil() / 100.0).collect::<Vec<_>>(),
        );
    }
    assert!(failures.is_empty(), "over their bounds:\n{}", failures.join("\n"));
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/numerics.md");
    if write {
        let named = |wide: bool| {
            let some = devices[1..].iter().filter(|device| !wide || device.supports(DType::F64));
            some.map(|device| device.name().to_owned()).collect::<Vec<_>>()
        };
        std::fs::write(&file, page::write(&named(false), &named(true), &rows)?)?;
    }
    let text = std::fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
    let stated = page::read(&text)?;
    assert!(stated.over.is_empty(), "over their bounds in docs/numerics.md:\n{}", stated.over.join("\n"));
    assert!(
        page::write(&stated.adapters, &stated.wide_adapters, &stated.found)? == text,
        "docs/numerics.md is not current; WGRAD_WRITE_DOCS=1 cargo test --workspace --test numerics writes it"
    );
    Ok(())
}
