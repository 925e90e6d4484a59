//! GPUs opened with limits so low that the first case of each operator, which has some thousand elements, is above them: so every
//! operator runs in parts, in several bindings, over several dims of workgroups.

use wgrad::DeviceOptions;

use crate::replay::Replayed;

/// 4 KiB a binding, 8 buffers a kernel, 64 workgroups a dim.
pub fn options() -> DeviceOptions {
    DeviceOptions {
        max_storage_buffers: Some(8),
        max_binding_bytes: Some(4096),
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
    ("std", "the device's scratch is as small as a binding, and holds no row's partial sums"),
    ("take", "the input is read anywhere, in more windows than a kernel binds"),
    ("topk", "the keys of one row are one binding"),
    ("transpose", "four elements side by side in the result are further apart than a binding holds"),
    ("var", "as std"),
];

/// Whether all that failed is an operator's own word that it cannot.
pub fn is_refused(op: &str, replayed: &Replayed) -> bool {
    let parts = [&replayed.values, &replayed.grads, &replayed.second];
    let mut failures = parts.into_iter().flatten().filter_map(|part| part.as_ref().err());
    let says_so = |failure: &String| {
        failure.contains("that this device binds at a time") || failure == "did not come to it"
    };
    REFUSED.iter().any(|(refused, _)| *refused == op) && failures.all(says_so)
}
