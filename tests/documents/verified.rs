//! What the conformance set verifies of each operator.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::source;

/// The dtypes of an operator's cases: all, those with gradients, those with gradients of gradients.
pub type Orders = [BTreeSet<String>; 3];

#[derive(Deserialize)]
struct CaseFile {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    dtype: String,
    grads: Option<serde::de::IgnoredAny>,
    grad_grads: Option<serde::de::IgnoredAny>,
}

/// Reads the set; by operator.
pub fn read() -> Result<BTreeMap<String, Orders>> {
    let mut verified = BTreeMap::new();
    let (_, set) = source::read()?;
    for (op, files) in set.into_iter().filter(|(op, _)| op != "errors") {
        let file: CaseFile =
            serde_json::from_slice(&files.json).with_context(|| format!("the cases of {op}"))?;
        let mut orders = Orders::default();
        for case in file.cases {
            let reached = [true, case.grads.is_some(), case.grad_grads.is_some()];
            for (dtypes, _) in orders.iter_mut().zip(reached).filter(|(_, reached)| *reached) {
                dtypes.insert(case.dtype.clone());
            }
        }
        verified.insert(op, orders);
    }
    Ok(verified)
}
