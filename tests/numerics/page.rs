//! The page: bounds from the tables, with the errors that a run found.

use std::fmt::Write;

use anyhow::{Context, Result};

use crate::functions::{self, FUNCTIONS, Function};

const HEAD: &str = "\
# Numerics

<!-- Written by `WGRAD_WRITE_DOCS=1 cargo test --workspace --test numerics`; the bounds are in the sources. -->

How far functions of one number are from the truth, in units in the last place (ulp) of the true value: 0.5 is what rounding
alone may cost. Tests assert the bounds (≤) and that this page states them, on the CPU and on every adapter present. Beside
them stands the largest error that was found when the page was written, over one in 997 of all f32 numbers and 200,000 more
between -30 and 30: on the CPU with AVX-512, and on Mesa's software adapters. Other processors and GPUs may differ within the bounds.

- **f32** is computed in f32 throughout, by polynomials without branches. The truth is the same function in f64 of Rust's standard library or
  of `libm`. Where these have none (\\*), and in f64, it is some hundreds of values of mpmath at 40 digits.
- **f64** functions of the kernels are on the CPU those of Rust's standard library and of `libm` themselves, one number at a time; on GPUs
  that have f64 (Vulkan's, where the adapter has 64-bit floats and integers) they are polynomials like those of f32, since Vulkan's own take no
  f64. The others are composed of them. Subnormal numbers may count as 0 on GPUs in f64 too.
- **f16 and bf16** are computed in f32 and rounded once, so their error is half a unit of theirs, rarely a hair more.
- **Domain**: where the function is finite and its value is not subnormal. On GPUs subnormal numbers may count as 0, and a division may be 2.5 ulp off,
  which is what the bounds of composed functions there are made of; by a divisor above 2^126 it may be 0 or NaN.
- **near 0**: functions with zeros that they meet to within rounding only, or with tails that they cut off. Values
  below 1 are measured in units of 1 there, 1.2e-7 in f32.
- What is not in the table and needs no approximation is exact or rounded once: `+ - *`, comparisons, `isnan`, `isfinite`,
  and on the CPU `/`. The power is at most 0.6 ulp off on the CPU, and 4 on GPUs; in f64, 2 on GPUs.
- NVIDIA's driver for Vulkan adds the parts of `1 - x` in another order than erfinv in f64 asks for: 128 ulp there.
- Sums are formed in fixed trees: f32 sums on the CPU go into f64 across blocks, and results do not depend on the number of threads.
";

/// The page with the errors found, by function: on the CPU, on each adapter, and the same in f64 where there is.
pub fn write(adapters: &[String], wide_adapters: &[String], found: &[Vec<f64>]) -> Result<String> {
    let mut page = HEAD.to_owned();
    writeln!(
        page,
        "\n| function | domain | near 0 | f32, CPU ≤ | CPU | f32, GPU ≤ | {}f64, CPU ≤ | CPU | f64, GPU ≤ | {}",
        named(adapters),
        named(wide_adapters).trim_end()
    )?;
    let numbers = "--:|".repeat(6 + adapters.len() + wide_adapters.len());
    writeln!(page, "|---|---|---|{numbers}")?;
    for (function, found) in FUNCTIONS.iter().zip(found) {
        let bounds =
            functions::bounds_of(function.name).with_context(|| format!("no bounds of {}", function.name))?;
        let (narrow, wide) = found.split_at_checked(adapters.len() + 1).context("too few columns")?;
        let ([cpu, gpus @ ..], [wide_cpu, wide_gpus @ ..]) = (narrow, wide) else {
            anyhow::bail!("too few columns")
        };
        let star = if function.truth.is_none() { "\\*" } else { "" };
        write!(page, "| {}{star} | {} |", function.name.replace("_1", "(1)"), domain(function))?;
        write!(page, " {} |", if function.absolute { "in units of 1" } else { "" })?;
        write!(page, " {} | {cpu:.2} | {} |", bounds.cpu, bounds.gpu)?;
        gpus.iter().try_for_each(|gpu| write!(page, " {gpu:.2} |"))?;
        write!(page, " {} | {wide_cpu:.2} | {} |", bounds.wide, bounds.wide_gpu)?;
        wide_gpus.iter().try_for_each(|gpu| write!(page, " {gpu:.2} |"))?;
        writeln!(page)?;
    }
    Ok(page)
}

fn named(adapters: &[String]) -> String {
    adapters.iter().map(|adapter| format!("{adapter} | ")).collect()
}

fn domain(function: &Function) -> String {
    match function.domain {
        [f32::MIN, f32::MAX] => "all".to_owned(),
        [f32::MIN_POSITIVE, f32::MAX] => "above 0".to_owned(),
        [low, f32::MAX] => format!("from {low}"),
        [low, high] => {
            let number = |x: f32| if x.abs() < 1e4 { format!("{x}") } else { format!("{x:e}") };
            format!("{}..={}", number(low), number(high))
        }
    }
}

/// What a page states.
pub struct Stated {
    pub adapters: Vec<String>,
    /// Those that have f64.
    pub wide_adapters: Vec<String>,
    /// The errors that were found, by function.
    pub found: Vec<Vec<f64>>,
    /// Rows with an error over its bound.
    pub over: Vec<String>,
}

/// Reads a page's table.
pub fn read(page: &str) -> Result<Stated> {
    let mut rows = page.lines().filter(|line| line.starts_with("| ")).map(|line| {
        line.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect::<Vec<_>>()
    });
    let heading = rows.next().context("docs/numerics.md has no table")?;
    let place = |title: &str| heading.iter().position(|cell| cell == title);
    let (Some(wide), Some(wide_gpu)) = (place("f64, CPU ≤"), place("f64, GPU ≤")) else {
        anyhow::bail!("the table of docs/numerics.md has too few columns");
    };
    let adapters = heading[6..wide].to_vec();
    let wide_adapters = heading[wide_gpu + 1..].to_vec();
    let mut stated = Stated { adapters, wide_adapters, found: Vec::new(), over: Vec::new() };
    for row in rows {
        anyhow::ensure!(row.len() == heading.len(), "a row of docs/numerics.md has not all cells: {row:?}");
        let number =
            |at: usize| row[at].parse::<f64>().with_context(|| format!("{:?} in docs/numerics.md", row[at]));
        let pairs =
            [(3, 4..5), (5, 6..wide), (wide, wide + 1..wide + 2), (wide_gpu, wide_gpu + 1..row.len())];
        let mut errors = Vec::new();
        for (bound, places) in pairs {
            for place in places {
                if number(place)? > number(bound)? {
                    stated.over.push(row.join(" | "));
                }
                errors.push(number(place)?);
            }
        }
        stated.found.push(errors);
    }
    Ok(stated)
}
