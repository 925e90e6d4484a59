//! GPUs opened with limits so low that the largest case of nearly every operator, which has some thousand elements, is above them: so
//! operators run in parts, in several bindings, over several dims of workgroups.

use wgrad::DeviceOptions;

use crate::case::Case;
use crate::replay::Replayed;
use crate::tensors::Store;

/// Bytes of a binding.
const BINDING: u64 = 4096;

/// 4 KiB a binding, 8 buffers a kernel, 64 workgroups a dim.
pub fn options() -> DeviceOptions {
    DeviceOptions {
        max_storage_buffers: Some(8),
        max_binding_bytes: Some(BINDING),
        max_workgroups_per_dimension: Some(64),
        ..DeviceOptions::default()
    }
}

/// Operators that say so where their data is above the limits, and why it cannot be cut.
const REFUSED: &[(&str, &str)] = &[
    ("argsort", "the keys of one row are one binding"),
    ("cummax", "a row's running places are read anywhere in it"),
    ("logcumsumexp", "a row is doubled in one binding"),
    ("masked_select", "the keys of the mask are one binding"),
    ("nonzero", "the keys of the mask are one binding"),
    ("sort", "the keys of one row are one binding"),
    ("std", "a row is measured from its first element, which is in another window of the same buffer"),
    ("take", "the input is read anywhere, in more windows than a kernel binds"),
    ("topk", "the keys of one row are one binding"),
    ("var", "as std"),
];

/// What came of an operator's case under low limits.
pub enum Verdict {
    /// To be counted as any other.
    Counts,
    /// It says that it cannot, and is listed.
    Refused,
    /// It is listed, and can.
    Listed,
}

/// Whether a listed operator says that it cannot.
pub fn verdict(op: &str, replayed: &Replayed) -> Verdict {
    if !REFUSED.iter().any(|(refused, _)| *refused == op) {
        return Verdict::Counts;
    }
    let parts = [&replayed.values, &replayed.grads, &replayed.second];
    let failures: Vec<&String> = parts.into_iter().flatten().filter_map(|part| part.as_ref().err()).collect();
    let says_so = |failure: &&String| failure.contains("that this device binds at a time");
    match failures.iter().all(|failure| says_so(failure) || *failure == "did not come to it") {
        true if failures.iter().any(says_so) => Verdict::Refused,
        true => Verdict::Listed,
        false => Verdict::Counts,
    }
}

/// The case with the largest input or output, if that is more than a binding holds.
pub fn largest<'a>(cases: &'a [Case], store: &Store<'_>) -> Option<&'a Case> {
    let bytes = |case: &Case| {
        let inputs = case.inputs.iter().map(|input| input.tensor.as_str());
        let outputs = case.outputs.iter().flatten().map(String::as_str);
        inputs.chain(outputs).map(|name| store.bytes(name)).max().unwrap_or(0)
    };
    cases.iter().max_by_key(|case| bytes(case)).filter(|case| bytes(case) as u64 > BINDING)
}
