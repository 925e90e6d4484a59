//! GPUs opened with limits so low that the largest case of nearly every operator, which has some thousand elements, is above them: so
//! operators run in parts, in several bindings, over several dims of workgroups.

use wgrad::DeviceOptions;

use crate::case::Case;
use crate::tensors::Store;

/// Bytes of a binding.
const BINDING: u64 = 4096;

/// 4 KiB a binding, 8 buffers a kernel, 64 workgroups a dim, 12 KiB of workgroup memory.
pub fn options() -> DeviceOptions {
    DeviceOptions {
        max_storage_buffers: Some(8),
        max_binding_bytes: Some(BINDING),
        max_workgroups_per_dimension: Some(64),
        max_workgroup_memory: Some(12 << 10),
        ..DeviceOptions::default()
    }
}

/// Operators with a kernel that the host runs where its data is above the limits, and why it cannot be cut.
const HOSTED: &[(&str, &str)] = &[
    ("argsort", "the keys of one row are one binding"),
    ("cummax", "a row's running places are read anywhere in it"),
    ("logcumsumexp", "a row is doubled in one binding"),
    ("sort", "the keys of one row are one binding"),
    ("take", "the input is read anywhere, in more windows than a kernel binds"),
    ("topk", "the keys of one row are one binding"),
];

/// Whether the host is expected to run kernels of an operator.
pub fn is_hosted(op: &str) -> bool {
    HOSTED.iter().any(|(listed, _)| *listed == op)
}

/// That the host ran kernels of an operator's case if it is listed, and none otherwise.
pub fn check_hosted(op: &str, hosted: u64) -> Result<(), String> {
    match (is_hosted(op), hosted) {
        (true, 0) => Err("runs on the device: take it off the list of what the host runs".to_owned()),
        (false, 1..) => Err(format!("the host ran {hosted} of its kernels, and it is not listed")),
        _ => Ok(()),
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
