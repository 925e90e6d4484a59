//! Compares all ways of running a program.
//!
//! The truth is the program in f64 on the CPU. The distance that another run may have from it is no chosen
//! number, but follows from the program: the program is run in f64 [`SAMPLES`] times more, with each float
//! and each gradient that an operation makes moved by two units in the last place of its dtype, up or down at
//! random. These changes show what rounding may change. An element may differ by [`MARGIN`] times the root
//! mean square of its changes, and by [`LAST_PLACES`] units in the last place of the tensor's largest
//! element, since operations are not rounded exactly.

use std::fmt::{self, Write};

use wgrad::{DType, Device};
use wgrad_array::with_fusion;

use super::run::{RunMode, Runner, Shown, smallest, unit};
use super::{Action, RandomProgram};

const SAMPLES: u64 = 6;
const MARGIN: f64 = 16.0;
const LAST_PLACES: f64 = 4.0;
/// A part of the error for a backward through an earlier round of a loop.
const FREED: &str = "were freed by an earlier backward";
/// A value must be further from a discontinuity than this many times the distance by which noise moves it.
const CLEARANCE: f64 = 32.0;

/// An error that a program showed.
#[derive(Clone, Debug)]
pub struct ProgramFault {
    /// The way of running it: `cpu`, `vulkan:0 without fusion`.
    pub way: String,
    /// The kind of error: `error`, `value`, `bits`, `derivative`.
    pub kind: &'static str,
    pub text: String,
}

impl fmt::Display for ProgramFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on {}: {}", self.kind, self.way, self.text)
    }
}

/// The result of checking a program.
pub enum ProgramVerdict {
    /// All runs agree. `elements` were compared, and the worst one differs by the part `worst` of what is
    /// allowed.
    Agrees {
        elements: usize,
        worst: f64,
        derivatives: usize,
    },
    /// Noise moves a value across a discontinuity, or out of the range of a dtype, so that the values cannot
    /// be compared.
    Unclear,
    Fault(ProgramFault),
}

/// A device, and its name.
pub struct TestDevice {
    pub name: String,
    pub device: Device,
}

/// Whether all distances to discontinuities are much larger than their changes by noise.
pub fn clear(exact: &[Vec<f64>], noisy: &[&[Vec<f64>]]) -> bool {
    noisy.iter().all(|run| run.len() == exact.len())
        && exact.iter().enumerate().all(|(at, gap)| {
            noisy.iter().all(|run| run[at].len() == gap.len())
                && gap.iter().enumerate().all(|(i, &distance)| {
                    let off = noisy.iter().fold(0f64, |off, run| off.max((run[at][i] - distance).abs()));
                    // A distance that is 0 with and without noise is a tie by construction.
                    distance.abs() > CLEARANCE * off || (distance == 0.0 && off == 0.0)
                })
        })
}

/// The compared values of a run, and its distances to discontinuities; or an error.
type Ran = Result<(Vec<Shown>, Vec<Vec<f64>>), String>;

fn ran(program: &RandomProgram, how: &RunMode) -> Ran {
    Runner::new(how).run(program).map_err(|error| error.to_string())
}

/// The values of a program in f64, and how far rounding may move them.
pub struct Truth {
    pub exact: Vec<Shown>,
    /// For each element the root mean square of its changes by noise.
    spread: Vec<Vec<f64>>,
}

impl Truth {
    /// The truth about a program. `None` if noise moves it across a discontinuity.
    pub fn of(program: &RandomProgram, cpu: &Device) -> Result<Option<Truth>, ProgramFault> {
        let reference = |noise| RunMode { device: cpu, reference: true, noise, eager: false, gaps: true };
        let fault = |way: &str, text| ProgramFault { way: way.to_owned(), kind: "error", text };
        let (exact, gaps) = match ran(program, &reference(None)) {
            Ok(done) => done,
            // If a loop writes a value with a graph to a leaf, the next backward would go back through the
            // earlier round, which PyTorch refuses, too.
            Err(error) if error.contains(FREED) => return Ok(None),
            Err(error) => return Err(fault("cpu in f64", error)),
        };
        let noisy = (1..=SAMPLES)
            .map(|sample| ran(program, &reference(Some(program.seed.wrapping_mul(31).wrapping_add(sample)))))
            .collect::<Result<Vec<_>, _>>();
        let noisy = match noisy {
            Ok(noisy) => noisy,
            Err(error) if error.contains(FREED) => return Ok(None),
            Err(error) => return Err(fault("cpu in f64 with noise", error)),
        };
        let met: Vec<&[Vec<f64>]> = noisy.iter().map(|(_, gaps)| &gaps[..]).collect();
        if !clear(&gaps, &met) || !in_range(program, &exact) {
            return Ok(None);
        }
        let samples: Vec<&[Shown]> = noisy.iter().map(|(shown, _)| &shown[..]).collect();
        Ok(spread(&exact, &samples).map(|spread| Truth { exact, spread }))
    }

    /// The number of compared elements, and the largest difference as a part of what is allowed.
    pub fn compare(&self, got: &[Shown]) -> Result<(usize, f64), String> {
        compare(got, &self.exact, &self.spread)
    }
}

/// Runs a program in all ways, and compares the results.
pub fn check(program: &RandomProgram, cpu: &Device, targets: &[TestDevice]) -> ProgramVerdict {
    let fault = |way: &str, kind, text: String| {
        ProgramVerdict::Fault(ProgramFault { way: way.to_owned(), kind, text })
    };
    let truth = match Truth::of(program, cpu) {
        Ok(Some(truth)) => truth,
        Ok(None) => return ProgramVerdict::Unclear,
        Err(fault) => return ProgramVerdict::Fault(fault),
    };
    let (mut elements, mut worst) = (0, 0f64);
    for target in targets {
        if DType::ALL.iter().any(|&dtype| program.uses(dtype) && !target.device.supports(dtype)) {
            continue;
        }
        let plain = RunMode::on(&target.device);
        let eager = RunMode { eager: true, ..RunMode::on(&target.device) };
        let name = &target.name;
        let first = ran(program, &plain);
        let mut ways = vec![(name.clone(), first.clone())];
        // Software adapters compile kernels slowly, so a GPU runs at most one of these two ways for each
        // program.
        if target.device.is_cpu() || program.seed.is_multiple_of(3) {
            ways.push((format!("{name} eagerly"), ran(program, &eager)));
        }
        if target.device.is_cpu() || program.seed % 3 == 1 {
            ways.push((format!("{name} without fusion"), with_fusion(false, || ran(program, &plain))));
        }
        for (way, result) in ways {
            match result {
                Err(error) => return fault(&way, "error", error),
                Ok((shown, _)) => match truth.compare(&shown) {
                    Ok((count, most)) => (elements, worst) = (elements + count, worst.max(most)),
                    Err(text) => return fault(&way, "value", text),
                },
            }
        }
        let again = ran(program, &plain);
        if let (Ok((one, _)), Ok((two, _))) = (&first, &again)
            && let Some(text) = bits(one, two)
        {
            return fault(&format!("{name} twice"), "bits", text);
        }
    }
    match differences(program, cpu, &truth.exact) {
        Ok(derivatives) => ProgramVerdict::Agrees { elements, worst, derivatives },
        Err(text) => fault("cpu in f64", "derivative", text),
    }
}

/// Whether all values are far from the largest numbers of the dtypes.
fn in_range(program: &RandomProgram, exact: &[Shown]) -> bool {
    let most = if program.uses(DType::F16) { 1e3 } else { 1e9 };
    exact.iter().flat_map(|shown| &shown.data).all(|x| !x.is_finite() || x.abs() < most)
}

/// For each element the root mean square of its changes by noise. `None` if noise makes an element infinite
/// or NaN, or finite.
fn spread(exact: &[Shown], samples: &[&[Shown]]) -> Option<Vec<Vec<f64>>> {
    exact
        .iter()
        .map(|shown| {
            // With noise a linear function has second gradients, too, so a sample may have values that the
            // program has not.
            let find = |sample: &&[Shown]| sample.iter().find(|other| other.label == shown.label).cloned();
            let others = samples.iter().map(find).collect::<Option<Vec<Shown>>>()?;
            (0..shown.data.len())
                .map(|i| spread_of(shown.data[i], others.iter().map(|other| other.data.get(i))))
                .collect()
        })
        .collect()
}

fn spread_of<'a>(x: f64, others: impl Iterator<Item = Option<&'a f64>>) -> Option<f64> {
    let (mut sum, mut count) = (0.0, 0.0);
    for noisy in others {
        let noisy = *noisy?;
        if x.is_finite() != noisy.is_finite() {
            return None;
        }
        let off = if x.is_finite() { x - noisy } else { 0.0 };
        sum += off * off;
        count += 1.0;
    }
    Some((sum / f64::max(count, 1.0)).sqrt())
}

fn compare(got: &[Shown], exact: &[Shown], spread: &[Vec<f64>]) -> Result<(usize, f64), String> {
    let labels = |list: &[Shown]| list.iter().map(|shown| shown.label.clone()).collect::<Vec<_>>();
    if labels(got) != labels(exact) {
        return Err(format!("shows {:?}, but {:?} in f64", labels(got), labels(exact)));
    }
    let (mut count, mut worst) = (0, 0f64);
    for ((got, exact), spread) in got.iter().zip(exact).zip(spread) {
        if got.shape != exact.shape || got.data.len() != exact.data.len() {
            return Err(format!("{} has shape {:?}, in f64 {:?}", got.label, got.shape, exact.shape));
        }
        let largest = exact.data.iter().filter(|x| x.is_finite()).fold(0f64, |most, x| most.max(x.abs()));
        let (unit, smallest) = (unit(got.dtype), smallest(got.dtype));
        for (i, (&x, &truth)) in got.data.iter().zip(&exact.data).enumerate() {
            count += 1;
            if x == truth || (x.is_nan() && truth.is_nan()) {
                continue;
            }
            let allowed = if got.dtype.is_float() {
                MARGIN * spread[i] + LAST_PLACES * (unit * largest + smallest)
            } else {
                0.0
            };
            let off = (x - truth).abs();
            if off.is_nan() || off > allowed {
                let mut text = String::new();
                let _ = write!(
                    text,
                    "{}[{i}] of shape {:?} {:?} is {x:e}, must be {truth:e}; off by {off:e}, \
                     allowed {allowed:e}\n  got   {:?}\n  exact {:?}",
                    got.label,
                    got.shape,
                    got.dtype,
                    first_few(&got.data),
                    first_few(&exact.data)
                );
                return Err(text);
            }
            worst = worst.max(off / allowed);
        }
    }
    Ok((count, worst))
}

fn first_few(data: &[f64]) -> &[f64] {
    &data[..data.len().min(24)]
}

/// The first element that differs in any bit.
fn bits(one: &[Shown], two: &[Shown]) -> Option<String> {
    for (one, two) in one.iter().zip(two) {
        for (i, (x, y)) in one.data.iter().zip(&two.data).enumerate() {
            if x.to_bits() != y.to_bits() && !(x.is_nan() && y.is_nan()) {
                return Some(format!("{}[{i}] is {x:e} at first, then {y:e}", one.label));
            }
        }
    }
    None
}

/// First and second gradients in f64 against differences of the sum and of the first gradients: some elements
/// of each leaf.
fn differences(program: &RandomProgram, cpu: &Device, exact: &[Shown]) -> Result<usize, String> {
    if !program.is_pure()
        || !program.gradients
        || program.steps.iter().any(|step| matches!(step.action, Action::Backward { .. }))
    {
        return Ok(0);
    }
    let find = |list: &[Shown], label: &str| list.iter().find(|shown| shown.label == label).cloned();
    let how = RunMode { device: cpu, reference: true, noise: None, eager: false, gaps: false };
    let mut count = 0;
    for (at, leaf) in program.leaves.iter().enumerate() {
        if !leaf.requires_grad || leaf.data.is_empty() {
            continue;
        }
        // One element of each leaf, which the seed chooses.
        let i = program.seed as usize % leaf.data.len();
        let moved = |by: f64| -> Option<Vec<Shown>> {
            let mut program = program.clone();
            program.leaves[at].data[i] += by;
            ran(&program, &how).ok().map(|(shown, _)| shown)
        };
        let h = 1e-4;
        let (Some(a), Some(b), Some(c), Some(d)) = (moved(h), moved(-h), moved(h / 2.0), moved(-h / 2.0))
        else {
            continue;
        };
        for (gradient, what) in [("first", "the sum".to_owned()), ("second", String::new())] {
            let Some(truth) = find(exact, &format!("{gradient} gradient of v{}", leaf.id)) else { continue };
            let value = |list: &[Shown]| -> Option<(f64, f64)> {
                if !what.is_empty() {
                    return find(list, &what).map(|sum| (sum.data[0], sum.data[0].abs()));
                }
                // The weighted sum of which the second gradient is taken.
                let (mut sum, mut size) = (0.0, 0.0);
                for (turn, leaf) in program.leaves.iter().filter(|leaf| leaf.requires_grad).enumerate() {
                    let Some(first) = find(list, &format!("first gradient of v{}", leaf.id)) else {
                        continue;
                    };
                    for (i, x) in first.data.iter().enumerate() {
                        let part = x * super::run::weight(i, turn + 5);
                        sum += part;
                        size += part.abs();
                    }
                }
                Some((sum, size))
            };
            let (Some(a), Some(b), Some(c), Some(d)) = (value(&a), value(&b), value(&c), value(&d)) else {
                continue;
            };
            let (wide, near) = ((a.0 - b.0) / (2.0 * h), (c.0 - d.0) / h);
            // Richardson extrapolation: the error of the difference with the smaller step is a third of the
            // difference between the two, besides rounding.
            let better = near + (near - wide) / 3.0;
            let allowed = (near - wide).abs() + 1e-13 * (a.1 + 1.0) / h * 10.0;
            // If the two differ much, there is a kink within the step, and the derivative cannot be compared.
            if !better.is_finite() || allowed > 1e-3 * (better.abs() + truth.data[i].abs() + 1e-3) {
                continue;
            }
            count += 1;
            let off = (better - truth.data[i]).abs();
            if off.is_nan() || off > 4.0 * allowed {
                return Err(format!(
                    "the {gradient} gradient of v{}[{i}] is {:e}, by differences {better:e} ± {allowed:e}",
                    leaf.id, truth.data[i]
                ));
            }
        }
    }
    Ok(count)
}
