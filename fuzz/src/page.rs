//! The page that says what was run.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::hostile::METHODS;
use crate::options::FuzzOptions;
use crate::program::rules;

/// What was run of a kind, and what came of it.
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

    /// How often things of a kind were met, the most frequent first.
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

/// A line on a part.
pub fn summary(part: &RunSummary) -> String {
    let RunSummary { device, count, faults, seconds, .. } = part;
    if part.what == "programs" {
        format!(
            "{count} programs on {device}: {} agree, {} say nothing, {faults} faults; {} steps, {} elements compared, the worst off by {:.0} % of \
             what is allowed, {} derivatives compared with differences; {seconds} s",
            part.get("programs that agree"),
            part.get("programs that say nothing"),
            part.get("steps"),
            part.get("elements compared"),
            100.0 * part.get("most of what is allowed"),
            part.get("derivatives compared with differences"),
        )
    } else {
        format!(
            "{count} hostile calls of {} methods on {device}: {} gave values, {} were refused, {faults} faults; {seconds} s",
            part.all("method ").len(),
            part.get("calls with values"),
            part.get("calls refused"),
        )
    }
}

/// The whole page.
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
        let _ = writeln!(page, "- {}", summary(part));
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
        let _ = writeln!(page, "{}.", list.join(", "));
    }
    let _ = writeln!(
        page,
        "\n## The methods of the hostile calls\n\nAll {} public methods of `Tensor`, in turn:\n",
        METHODS.len()
    );
    let names: Vec<&str> = METHODS.iter().map(|&(name, _)| name).collect();
    let _ = writeln!(page, "{}.", names.join(", "));
    page
}

const HEAD: &str = "\
# Fuzzing

<!-- Written by `cargo run --release -p fuzz -- --programs N --calls N --seed N --page docs/fuzzing.md`. -->

The package `fuzz` tries two things on every device: random programs, whose values must be right however they are run, and hostile calls, which must end
with a value or an error. `.ci/run` does a short run of both.

## Random programs

A program is a random graph of operations on several dtypes (f32, f64, f16, bf16, i64, bool) and shapes (0-dim, empty, broadcast, strided), with views, writes in
place and writes to views, values that are read or dropped in the middle, `no_grad`, `detach`, several `backward` calls; every fourth is a loop that trains its
leaves. It is run

- lazily with fusion, twice, and both must agree bit for bit;
- with each result evaluated at once; without fusion;
- on each device;
- and compared, element by element, with the same program in f64 on the CPU: values, losses, leaves, `.grad`, first and second gradients. In
  f64 the gradients are compared with differences of the values, and second gradients with differences of the first.

How far an element may be off follows from the program: it is run in f64 six times more, with every number and every gradient that an operation makes moved by two
units in the last place of its dtype, since most operations round several times, up or down at random. An element may be off by 16 times the root of the mean square of what that changes, plus 4 units in
the last place of the largest element beside it. Integers and truth values must be equal. Kinks, ties and roundings to integers are avoided where programs
are made: a step stays only if each distance to a discontinuity is more than 32 times what noise changes it by, or is exactly 0 whatever noise does, which is
a tie by construction. A program that noise moves across one in the end says nothing, and is counted so.

A program that fails is made smaller, step by step, and printed with its seed: `--only SEED` makes and tries it again.

## Hostile calls

A call is a public method of `Tensor`, all in turn, with arguments of any size and kind: tensors of all dtypes, with NaN, infinities, the largest
integers, no elements, 65 dims or 2^62 expanded ones; sizes, dims and counts at the edges of their types. What comes back is read, differentiated or printed.
Each must end within 10 seconds with a value, or with an error of at most 500 characters after which the receiver can still be read: no panic, no abort, no
hang. The device may hold 256 MiB. The calls run in a process of their own, so that whatever ends it is reported with a number, and `--call NUMBER --seed SEED`
makes that call again. The table of calls is written from the library's sources when the package is built, so a new method is in it.

";
