//! The page docs/fuzzing.md, which describes the fuzzer and its last run.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::hostile::METHODS;
use crate::options::FuzzOptions;
use crate::program::rules;

/// The results of a run: all programs, or all calls on a device.
pub struct RunSummary {
    /// `programs` or `calls`.
    pub what: &'static str,
    pub device: String,
    pub count: u64,
    pub faults: u64,
    pub counts: BTreeMap<String, f64>,
    pub seconds: u64,
}

impl RunSummary {
    fn get(&self, name: &str) -> f64 {
        self.counts.get(name).copied().unwrap_or(0.0)
    }

    /// The counts whose names have a prefix, the largest first.
    fn all(&self, prefix: &str) -> Vec<(&str, u64)> {
        let mut all: Vec<(&str, u64)> = self
            .counts
            .iter()
            .filter_map(|(name, &count)| name.strip_prefix(prefix).map(|name| (name, count as u64)))
            .collect();
        all.sort_by_key(|&(_, count)| std::cmp::Reverse(count));
        all
    }
}

/// The results of a run in one sentence.
pub fn summary(part: &RunSummary) -> String {
    let RunSummary { device, count, faults, seconds, .. } = part;
    if part.what == "programs" {
        format!(
            "{count} programs on {device}: {} agree, {} say nothing, {faults} faults; {} steps, \
             {} elements compared, the worst off by {:.0} % of what is allowed, \
             {} derivatives compared with differences; {seconds} s",
            part.get("programs that agree"),
            part.get("programs that say nothing"),
            part.get("steps"),
            part.get("elements compared"),
            100.0 * part.get("most of what is allowed"),
            part.get("derivatives compared with differences"),
        )
    } else {
        format!(
            "{count} hostile calls of {} methods on {device}: {} gave values, {} were refused, \
             {faults} faults; {seconds} s",
            part.all("method ").len(),
            part.get("calls with values"),
            part.get("calls refused"),
        )
    }
}

/// The text of the page.
pub fn write(options: &FuzzOptions, parts: &[RunSummary]) -> String {
    let mut page = String::from(HEAD);
    let _ = writeln!(page, "## The last run\n");
    let mut command = "cargo run --release -p fuzz --".to_owned();
    for (name, count) in [("--programs", options.programs), ("--calls", options.calls)] {
        if count > 0 {
            let _ = write!(command, " {name} {count}");
        }
    }
    let _ = writeln!(
        page,
        "    {command} --seed {} --devices {} --page docs/fuzzing.md\n",
        options.seed,
        options.devices.join(",")
    );
    for part in parts {
        let _ = writeln!(page, "{}", wrapped(&format!("- {}", summary(part)), "  "));
    }
    if let Some(part) = parts.iter().find(|part| part.what == "programs") {
        let met = part.all("rule ");
        let _ = writeln!(
            page,
            "\n## The operations of the programs\n\n{} of {} were met, with the number of times:\n",
            met.len(),
            rules().len()
        );
        let list: Vec<String> = met.iter().map(|(name, count)| format!("{name} {count}")).collect();
        let _ = writeln!(page, "{}.", wrapped(&list.join(", "), ""));
    }
    let _ = writeln!(
        page,
        "\n## The methods of the hostile calls\n\nAll {} public methods of `Tensor`, in turn:\n",
        METHODS.len()
    );
    let names: Vec<&str> = METHODS.iter().map(|&(name, _)| name).collect();
    let _ = writeln!(page, "{}.", wrapped(&names.join(", "), ""));
    page
}

/// A paragraph in lines of at most 110 characters. All lines but the first are indented.
fn wrapped(text: &str, indent: &str) -> String {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let last = lines.len() - 1;
        if !lines[last].is_empty() && lines[last].len() + 1 + word.len() > 109 {
            lines.push(format!("{indent}{word}"));
        } else {
            let space = if lines[last].is_empty() { "" } else { " " };
            lines[last] += &format!("{space}{word}");
        }
    }
    lines.join("\n")
}

const HEAD: &str = "\
# Fuzzing

<!-- Written by `cargo run --release -p fuzz -- --programs N --calls N --seed N --page docs/fuzzing.md`. -->

The package `fuzz` tests the library in two ways on every device: with random programs, whose values must be
right in whichever way they are run, and with hostile calls, which must end with a value or an error.
`.ci/run` does a short run of both.

## Random programs

A program is a random graph of operations on several dtypes (f32, f64, f16, bf16, i64, bool) and shapes
(0-dim, empty, broadcast, strided). It contains views, writes in place and writes to views, values that are
read or dropped in the middle, `no_grad`, `detach`, and several `backward` calls. Every fourth program is a
loop that trains its leaves. Each program is run

- lazily with fusion, twice, and both runs must agree bit for bit;
- with each result evaluated at once, and without fusion;
- on each device.

Each run is compared, element by element, with the same program in f64 on the CPU: values, losses, leaves,
`.grad`, first and second gradients. In f64 the gradients are also compared with finite differences of the
values, and second gradients with differences of the first.

The difference that is allowed for an element follows from the program. The program is run in f64 six times
more, with noise: every float and every gradient that an operation makes is moved by two units in the last
place of its dtype, up or down at random (most operations round several times). An element may differ by 16
times the root mean square of its changes by noise, plus 4 units in the last place of the largest element of
its tensor. Integers and booleans must be equal. Kinks, ties and roundings to integers are avoided when a
program is made: a step is kept only if each distance to a discontinuity is more than 32 times the change of
that distance by noise, or if it is exactly 0 with and without noise, which is a tie by construction. If noise
still moves a finished program across a discontinuity, its values cannot be compared; the summary counts it as
a program that says nothing.

A program that fails is made smaller, step by step, and printed with its seed; `--only SEED` makes and tests
it again.

## Hostile calls

A call is a public method of `Tensor` (they take turns) with arguments of any size and kind: tensors of all
dtypes, with NaN, infinities, the largest integers, no elements, 65 dims or 2^62 expanded elements; sizes,
dims and counts at the limits of their types. The results are read, differentiated or printed. Each call must
end within 10 seconds with a value, or with an error of at most 500 characters after which the receiver can
still be read. It must not panic, abort or hang. The device may use 256 MiB. The calls run in a worker
process, so that a call that ends the process is reported with its number; `--call NUMBER --seed SEED` makes
that call again. The table of calls is made from the library's sources when the package is built, so it
contains every new method.

";
