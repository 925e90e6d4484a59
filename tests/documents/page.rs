//! The page: a table for each family, and one of the methods that are no operator of the set.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use anyhow::{Context, Result};

use crate::calls::Calls;
use crate::library::{Library, Method};
use crate::verified::Orders;

const HEAD: &str = "\
# Operators

<!-- Written by `WGRAD_WRITE_DOCS=1 cargo test --workspace --test documents`; edit the sources' documentation instead. -->

PyTorch's operators and their methods of `Tensor`, made from the documentation in `crates/autograd/src/ops` and from the cases of
`tests/conformance`, which a test compares with this page.

- **dtypes**: those whose values are verified by PyTorch's cases. f64 works wherever f32 does, on the CPU and on GPUs that have it (`Device::supports`).
- **derivatives**: the highest order that PyTorch's cases verify, with dtypes. Every operator that has an order here is compared with
  finite differences in f64, to the second order. Derivatives are made of differentiable operators, so there is no highest order.
- **devices**: *all* are the CPU and every GPU, in kernels. For *host* the tensor is read when the operator is called, and what the text
  of the family says is computed on the CPU; the result is on the tensor's device.
- What is said of derivatives are the subgradients at the points where an operator has none: those of PyTorch.
- Methods that end in `_` work in place; other names in a row are further forms of the operator.
";

/// Words of sentences that say something about derivatives, or about where an operator runs.
const TELLING: &[&str] =
    &["derivative", "gradient", "ifferentiable", "host", "GPU", "at once", "PyTorch's default"];
/// Words of families that run on the host.
const HOST: &str = "on the host";

/// Writes the page.
pub fn write(
    library: &Library,
    calls: &Calls,
    verified: &BTreeMap<String, Orders>,
    unchecked: &[[String; 3]],
) -> Result<String> {
    let mut families: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let mut used = BTreeSet::new();
    for (op, methods) in calls {
        let orders = verified.get(op).with_context(|| format!("{op} has no cases"))?;
        let method = methods.first().and_then(|name| library.methods.get(name)).context("no method")?;
        let names: Vec<String> = methods.iter().flat_map(|name| with_in_place(library, name)).collect();
        let notes = unchecked
            .iter()
            .filter(|row| row[0] == *op)
            .map(|row| format!(" With `{}`: {}.", row[1], row[2]));
        let row = format!(
            "| {op} | {} | {} | {} | {} | {}{} |",
            code(&names),
            list(&orders[0]),
            derivatives(orders),
            devices(library, method),
            cell(&telling(&method.text)),
            cell(&notes.collect::<String>())
        );
        used.extend(names);
        families.entry(&method.family).or_default().push(row);
    }
    let mut page = HEAD.to_owned();
    writeln!(page, "\n{} operators, by family.", calls.len())?;
    for (family, rows) in families {
        let about = library.families.get(family).map_or("", String::as_str);
        let title = if family.is_empty() { "other" } else { family };
        writeln!(page, "\n## {title}\n\n{}\n", about)?;
        writeln!(
            page,
            "| PyTorch | wgrad | dtypes | derivatives | devices | what it does |\n|---|---|---|---|---|---|"
        )?;
        rows.iter().try_for_each(|row| writeln!(page, "{row}"))?;
    }
    writeln!(
        page,
        "\n## Further methods\n\nMethods that give tensors and are none of the operators above.\n"
    )?;
    writeln!(page, "| wgrad | devices | what it does |\n|---|---|---|")?;
    for (name, method) in &library.methods {
        let in_place_of_another = name.strip_suffix('_').is_some_and(|plain| library.computes(plain));
        if method.computes && !used.contains(name) && !in_place_of_another {
            let names = code(&with_in_place(library, name));
            writeln!(page, "| {names} | {} | {} |", devices(library, method), cell(&telling(&method.text)))?;
        }
    }
    Ok(page)
}

fn with_in_place(library: &Library, name: &str) -> Vec<String> {
    let in_place = format!("{name}_");
    let mut names = vec![name.to_owned()];
    names.extend(library.computes(&in_place).then_some(in_place));
    names
}

fn code(names: &[String]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(" ")
}

fn list(dtypes: &BTreeSet<String>) -> String {
    // The order in which they are usually named.
    let order = ["f32", "f64", "f16", "bf16", "i64", "i32", "u8", "bool"];
    order.into_iter().filter(|dtype| dtypes.contains(*dtype)).collect::<Vec<_>>().join(" ")
}

/// `2 (f32), 1 (f16 bf16)`: each dtype at its highest order.
fn derivatives([_, first, second]: &Orders) -> String {
    let rest: BTreeSet<String> = first.difference(second).cloned().collect();
    let orders = [(2, second), (1, &rest)].into_iter().filter(|(_, dtypes)| !dtypes.is_empty());
    let orders: Vec<String> = orders.map(|(order, dtypes)| format!("{order} ({})", list(dtypes))).collect();
    if orders.is_empty() { "none".to_owned() } else { orders.join(", ") }
}

fn devices(library: &Library, method: &Method) -> &'static str {
    let about = library.families.get(&method.family).map_or("", String::as_str);
    if about.contains(HOST) || method.text.contains(HOST) { "host" } else { "all" }
}

/// The first sentence, and those about derivatives and devices.
fn telling(text: &str) -> String {
    let kept = sentences(text).into_iter().enumerate();
    let kept = kept.filter(|(i, sentence)| *i == 0 || TELLING.iter().any(|word| sentence.contains(word)));
    kept.map(|(_, sentence)| sentence).collect::<Vec<_>>().join(" ")
}

/// A sentence ends at a point behind which a capital letter or code starts, outside of code.
fn sentences(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let (mut start, mut in_code) = (0, false);
    let bytes = text.as_bytes();
    for (i, byte) in bytes.iter().enumerate() {
        in_code ^= *byte == b'`';
        let ends = *byte == b'.' && !in_code && bytes.get(i + 1) == Some(&b' ');
        let starts = bytes.get(i + 2).is_some_and(|next| next.is_ascii_uppercase() || *next == b'`');
        if ends && starts {
            found.push(&text[start..=i]);
            start = i + 2;
        }
    }
    found.push(&text[start..]);
    found
}

/// Text in a cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}
