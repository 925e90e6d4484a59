//! Where the cases come from: the project's own archive, or the folder named by `WGRAD_CONFORMANCE_DIR`.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};

use crate::recorded::files;
pub use crate::recorded::files::Files;

/// Where they are from, and all files of the set, by operator.
pub fn read() -> Result<(String, BTreeMap<String, Files>)> {
    let (origin, set) = files::read("WGRAD_CONFORMANCE_DIR", "tests/conformance/cases.tar.gz")?;
    for (op, files) in &set {
        let both = !files.json.is_empty() && !files.safetensors.is_empty();
        ensure!(both, "{op} has only one of its two files");
    }
    Ok((origin, set))
}
