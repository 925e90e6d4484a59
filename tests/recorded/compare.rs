//! Whether a result is the expected one, and by how much it misses.

use super::numbers::{Numbers, Values};

/// How far a float may be off: `atol + rtol * |expected|`.
#[derive(Clone, Copy)]
pub struct Tolerance {
    pub rtol: f64,
    pub atol: f64,
}

impl Tolerance {
    /// A case's tolerance, so many times as wide.
    pub fn new(rtol: f64, atol: f64, factor: f64) -> Tolerance {
        Tolerance { rtol: rtol * factor, atol: atol * factor }
    }
}

/// The largest error in units of the tolerance, or what is wrong.
pub fn compare(actual: &Numbers, expected: &Numbers, tolerance: Tolerance) -> Result<f64, String> {
    if actual.dtype != expected.dtype {
        return Err(format!("dtype {} instead of {}", actual.dtype, expected.dtype));
    }
    compare_numbers(actual, expected, tolerance)
}

/// The same where floats of any width are compared with floats, and integers with integers.
pub fn compare_numbers(actual: &Numbers, expected: &Numbers, tolerance: Tolerance) -> Result<f64, String> {
    if actual.shape != expected.shape {
        return Err(format!("shape {:?} instead of {:?}", actual.shape, expected.shape));
    }
    match (&actual.values, &expected.values) {
        (Values::Integer(actual), Values::Integer(expected)) => {
            let wrong = actual.iter().zip(expected).filter(|(a, e)| a != e).count();
            match actual.iter().zip(expected).find(|(a, e)| a != e) {
                Some((a, e)) => Err(format!("{wrong} of {} elements differ, as {a} for {e}", actual.len())),
                None => Ok(0.0),
            }
        }
        (Values::Float(actual), Values::Float(expected)) => compare_floats(actual, expected, tolerance),
        _ => Err("floats and integers were compared".to_owned()),
    }
}

fn compare_floats(actual: &[f64], expected: &[f64], tolerance: Tolerance) -> Result<f64, String> {
    let (mut worst, mut wrong, mut example) = (0.0f64, 0, None);
    for (i, (&a, &e)) in actual.iter().zip(expected).enumerate() {
        if a == e || (a.is_nan() && e.is_nan()) {
            continue;
        }
        let allowed = tolerance.atol + tolerance.rtol * e.abs();
        let close = a.is_finite() && e.is_finite() && (a - e).abs() <= allowed;
        let error = if a.is_finite() && e.is_finite() { (a - e).abs() / allowed } else { f64::INFINITY };
        if !close {
            wrong += 1;
            // The worst one, or the first that is not even comparable.
            if example.is_none() || error > worst {
                example = Some((i, a, e));
            }
        }
        worst = worst.max(error);
    }
    match example {
        None => Ok(worst),
        Some((i, a, e)) => Err(format!(
            "{wrong} of {} elements differ, as [{i}] = {a:?} for {e:?} ({worst:.3} times the tolerance)",
            expected.len()
        )),
    }
}
