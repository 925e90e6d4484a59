//! How many points are transformed, and the tables for it.
//!
//! Angles are fractions of integers, reduced exactly; sines and cosines are computed in f64 and rounded once.

use std::collections::VecDeque;
use std::f64::consts::PI;
use std::sync::{Arc, Mutex, PoisonError};

use wgrad_device::{Buffer, DType, Device, Element, Layout, Result};

use crate::kept::kept;
use crate::{Array, reserve};

/// The largest factor that a step takes, if the prime factors allow it.
const RADIX: usize = 32;
/// Prime factors up to here have matrices of their own; a convolution would cost more.
const LARGEST_PRIME: usize = 199;
/// The most numbers in all plans of one kind that are kept; a plan with more is not.
const KEPT: usize = 1 << 24;
/// Bytes of this machine's memory for each point of a plan of steps: its roots, its factors, and these as arrays.
const STEPS_BYTES: usize = 96;
/// Bytes for each point of a convolution beside its plans of steps: its chirp, its spectrum, and what finds that.
const CONVOLUTION_BYTES: usize = 128;

/// A way to transform a number of points.
pub(super) enum TransformPlan {
    /// One for each factor.
    Steps(Vec<RadixStep>),
    /// `out[k] = c[k] sum of (x[j] c[j]) / c[k - j]` with `c[j] = exp(∓πi j² / n)`.
    Convolution {
        /// `c`.
        chirp: Box<Twiddles>,
        /// The transform of more points.
        forward: Box<TransformPlan>,
        /// That of `1 / c`, divided by the number of points.
        spectrum: Box<Twiddles>,
        /// The way back.
        backward: Box<TransformPlan>,
    },
}

/// A way to transform a number of real points.
pub(super) enum Real {
    /// An even number.
    Packed(Arc<Packed>),
    /// An odd one, as complex numbers.
    Whole(Arc<TransformPlan>),
}

/// An even number of real points as half as many complex ones.
pub(super) struct Packed {
    /// Of half the points.
    pub(super) half: Arc<TransformPlan>,
    /// What takes the spectra of the even and the odd points apart, or joins them.
    pub(super) twiddles: Twiddles,
    /// 1 and -1, for the planes of a conjugate.
    pub(super) conjugate: DeviceTable,
}

/// A transform over the highest part of the index.
pub(super) struct RadixStep {
    /// Its number of points.
    pub(super) radix: usize,
    /// Its waves `[2 radix, 2 radix]`: rows are the planes of all results, columns those of all points.
    pub(super) matrix: DeviceTable,
    /// The factors before the next step: lower part of `j` by what this step found.
    pub(super) twiddles: Option<Twiddles>,
}

/// Complex factors of points, `[points.., 1]`.
pub(super) struct Twiddles {
    /// The real parts.
    pub(super) real: DeviceTable,
    /// The imaginary parts for both planes: `[2, points.., 1]`, those of the first negative.
    pub(super) imaginary: DeviceTable,
}

/// The numbers of an array without its device, with which they are kept.
pub(super) struct DeviceTable {
    buffer: Buffer,
    layout: Layout,
    dtype: DType,
}

impl DeviceTable {
    /// The array, on the device that the table was made on.
    pub(super) fn on(&self, device: &Device) -> Array {
        Array::evaluated(self.buffer.clone(), self.layout.clone(), self.dtype, device)
    }

    fn elements(&self) -> usize {
        self.layout.shape().iter().product()
    }
}

impl Twiddles {
    fn new(factors: &[(f64, f64)], points: &[usize], maker: &PlanMaker) -> Result<Twiddles> {
        let shape: Vec<usize> = points.iter().copied().chain([1]).collect();
        let planes: Vec<usize> = [2].into_iter().chain(shape.iter().copied()).collect();
        let real = maker.table(factors.iter().map(|f| f.0), &shape)?;
        let imaginary = factors.iter().map(|f| -f.1).chain(factors.iter().map(|f| f.1));
        Ok(Twiddles { real, imaginary: maker.table(imaginary, &planes)? })
    }

    /// The sizes of the points.
    pub(super) fn points(&self) -> &[usize] {
        let shape = self.real.layout.shape();
        &shape[..shape.len() - 1]
    }

    /// How many numbers it keeps on the device.
    fn numbers(&self) -> usize {
        3 * self.real.elements()
    }
}

impl TransformPlan {
    /// How many numbers it keeps on the device.
    fn numbers(&self) -> usize {
        match self {
            TransformPlan::Steps(steps) => steps
                .iter()
                .map(|step| step.matrix.elements() + step.twiddles.as_ref().map_or(0, Twiddles::numbers))
                .sum(),
            TransformPlan::Convolution { chirp, forward, spectrum, backward } => {
                chirp.numbers() + forward.numbers() + spectrum.numbers() + backward.numbers()
            }
        }
    }
}

impl Packed {
    /// How many numbers it keeps on the device.
    fn numbers(&self) -> usize {
        self.half.numbers() + self.twiddles.numbers()
    }
}

/// A number of points, whether it is the inverse transform, and a dtype.
type Key = (usize, bool, DType);

/// A device's plans by what they are for, the last used in front.
struct Cache<P>(Mutex<VecDeque<(Key, Arc<P>)>>);

/// What is kept with a device.
#[derive(Default)]
pub(crate) struct FourierTables {
    complex: Cache<TransformPlan>,
    real: Cache<Packed>,
}

impl<P> Default for Cache<P> {
    fn default() -> Cache<P> {
        Cache(Mutex::default())
    }
}

impl<P> Cache<P> {
    /// The plan for a key: one that was kept, or a new one.
    fn get(
        &self,
        key: Key,
        make: impl FnOnce() -> Result<P>,
        numbers: impl Fn(&P) -> usize,
    ) -> Result<Arc<P>> {
        let lock = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(plan) = take(&mut lock(), key) {
            return Ok(plan);
        }
        // Without the lock: a convolution's plan runs transforms of its own.
        let plan = Arc::new(make()?);
        if numbers(&plan) > KEPT {
            return Ok(plan);
        }
        let mut plans = lock();
        // Another thread may have made the same one.
        if let Some(plan) = take(&mut plans, key) {
            return Ok(plan);
        }
        plans.push_front((key, plan.clone()));
        let mut kept = 0;
        plans.retain(|(_, plan)| {
            let more = kept + numbers(plan);
            let stays = more <= KEPT;
            if stays {
                kept = more;
            }
            stays
        });
        Ok(plan)
    }
}

/// The plan that is kept for a key, now in front.
fn take<P>(plans: &mut VecDeque<(Key, Arc<P>)>, key: Key) -> Option<Arc<P>> {
    let at = plans.iter().position(|(own, _)| *own == key)?;
    let found = plans.remove(at)?;
    plans.push_front(found.clone());
    Some(found.1)
}

/// The plan for `n` complex points, at least 1.
pub(super) fn complex(n: usize, inverse: bool, dtype: DType, device: &Device) -> Result<Arc<TransformPlan>> {
    let make = || {
        let _room = reserve(device, n.saturating_mul(STEPS_BYTES))?;
        PlanMaker { inverse, dtype, device }.plan(n)
    };
    kept(device).fourier.complex.get((n, inverse, dtype), make, TransformPlan::numbers)
}

/// The plan for `n` real points, at least 2.
pub(super) fn real(n: usize, inverse: bool, dtype: DType, device: &Device) -> Result<Real> {
    if !n.is_multiple_of(2) {
        return complex(n, inverse, dtype, device).map(Real::Whole);
    }
    let make = || {
        let _room = reserve(device, n.saturating_mul(STEPS_BYTES))?;
        PlanMaker { inverse, dtype, device }.packed(n)
    };
    kept(device).fourier.real.get((n, inverse, dtype), make, Packed::numbers).map(Real::Packed)
}
/// Makes plans for a direction, a dtype and a device.
struct PlanMaker<'a> {
    inverse: bool,
    dtype: DType,
    device: &'a Device,
}

impl PlanMaker<'_> {
    fn plan(&self, n: usize) -> Result<TransformPlan> {
        let primes = prime_factors(n);
        if primes.iter().any(|&p| p > LARGEST_PRIME) {
            self.convolution(n)
        } else {
            self.steps(&radices(&primes))
        }
    }

    fn steps(&self, radices: &[usize]) -> Result<TransformPlan> {
        let mut points: usize = radices.iter().product();
        let mut step = |&radix: &usize| {
            let (roots, rest) = (self.roots(points), points / radix);
            let factors: Vec<(f64, f64)> = (0..points).map(|i| roots[(i / radix) * (i % radix)]).collect();
            let twiddles = (rest > 1).then(|| Twiddles::new(&factors, &[rest, radix], self)).transpose()?;
            points = rest;
            Ok(RadixStep { radix, matrix: self.matrix(radix)?, twiddles })
        };
        radices.iter().map(&mut step).collect::<Result<_>>().map(TransformPlan::Steps)
    }

    /// `exp(∓2πi j k / radix)` as real numbers.
    fn matrix(&self, radix: usize) -> Result<DeviceTable> {
        let roots = self.roots(radix);
        let mut values = Vec::with_capacity(4 * radix * radix);
        for k in 0..radix {
            let wave = || (0..radix).map(|j| roots[j * k % radix]);
            values.extend(wave().map(|w| w.0).chain(wave().map(|w| -w.1)));
        }
        for k in 0..radix {
            let wave = || (0..radix).map(|j| roots[j * k % radix]);
            values.extend(wave().map(|w| w.1).chain(wave().map(|w| w.0)));
        }
        self.table(values.into_iter(), &[2 * radix, 2 * radix])
    }

    fn convolution(&self, n: usize) -> Result<TransformPlan> {
        // A power of two, or one and a half or five quarters of one, if that is enough.
        let fits = |odd: usize| odd * (2 * n - 1).div_ceil(odd).next_power_of_two();
        let points = fits(1).min(fits(3)).min(fits(5));
        let _room = reserve(self.device, points.saturating_mul(CONVOLUTION_BYTES))?;
        let half_turns = self.roots(2 * n);
        let square = |j: usize| (j as u128 * j as u128 % (2 * n as u128)) as usize;
        let chirp: Vec<(f64, f64)> = (0..n).map(|j| half_turns[square(j)]).collect();
        // The spectrum in f64, whatever the dtype: it is found once.
        let mut wave = vec![0f64; 2 * points];
        for (j, &(cos, sin)) in chirp.iter().enumerate() {
            for at in [j, (points - j) % points] {
                (wave[2 * at], wave[2 * at + 1]) = (cos / points as f64, -sin / points as f64);
            }
        }
        let spectrum =
            Array::from_slice(&wave, &[points, 2], &Device::cpu())?.fourier(0, false)?.to_vec::<f64>()?;
        let spectrum: Vec<(f64, f64)> = spectrum.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
        let radices = radices(&prime_factors(points));
        let way = |inverse: bool| PlanMaker { inverse, ..*self }.steps(&radices).map(Box::new);
        Ok(TransformPlan::Convolution {
            chirp: Twiddles::new(&chirp, &[n], self)?.into(),
            forward: way(false)?,
            spectrum: Twiddles::new(&spectrum, &[points], self)?.into(),
            backward: way(true)?,
        })
    }

    /// With the spectrum `z` of `x[2j] + i x[2j + 1]`: `(z[k] + z*[m - k]) / 2` is that of the even points, and
    /// `(z[k] - z*[m - k]) / 2i` times `exp(-2πi k / n)` that of the odd ones, moved to their places.
    fn packed(&self, n: usize) -> Result<Packed> {
        let roots = self.roots(n);
        let half = n / 2;
        let (count, scale) = if self.inverse { (half, 1.0) } else { (half + 1, -0.5) };
        let twiddles: Vec<(f64, f64)> =
            roots[..count].iter().map(|&(cos, sin)| (-scale * sin, scale * cos)).collect();
        Ok(Packed {
            half: complex(half, self.inverse, self.dtype, self.device)?,
            twiddles: Twiddles::new(&twiddles, &[count], self)?,
            conjugate: self.table([1.0, -1.0].into_iter(), &[2, 1, 1])?,
        })
    }

    /// `exp(∓2πi k / n)` for k in 0..n.
    fn roots(&self, n: usize) -> Vec<(f64, f64)> {
        let sign = if self.inverse { 1.0 } else { -1.0 };
        (0..n).map(|k| root(k, n)).map(|(cos, sin)| (cos, sign * sin)).collect()
    }

    /// Numbers in the dtype, on the device.
    fn table(&self, values: impl Iterator<Item = f64>, shape: &[usize]) -> Result<DeviceTable> {
        let executor = self.device.executor();
        let buffer = if self.dtype == DType::F64 {
            executor.upload(f64::to_bytes(&values.collect::<Vec<f64>>()))
        } else {
            executor.upload(f32::to_bytes(&values.map(|x| x as f32).collect::<Vec<f32>>()))
        };
        Ok(DeviceTable { buffer: buffer?, layout: Layout::contiguous(shape), dtype: self.dtype })
    }
}

/// The cosine and the sine of `2πk / n` for k in 0..n, computed within an eighth of a turn: quarters are exact.
fn root(k: usize, n: usize) -> (f64, f64) {
    let (quarter, rest) = (4 * k / n, 4 * k % n);
    let of = |rest: usize| (PI / 2.0 * rest as f64 / n as f64).sin_cos();
    let (cos, sin) = if 2 * rest <= n {
        let (sin, cos) = of(rest);
        (cos, sin)
    } else {
        of(n - rest)
    };
    match quarter {
        0 => (cos, sin),
        1 => (-sin, cos),
        2 => (-cos, -sin),
        _ => (sin, -cos),
    }
}

/// In ascending order.
fn prime_factors(mut n: usize) -> Vec<usize> {
    let (mut primes, mut divisor) = (Vec::new(), 2);
    while divisor * divisor <= n {
        while n.is_multiple_of(divisor) {
            primes.push(divisor);
            n /= divisor;
        }
        divisor += 1;
    }
    if n > 1 {
        primes.push(n);
    }
    primes
}

/// Prime factors, ascending, gathered to as few factors up to [`RADIX`] as can be, about equal, the largest first.
fn radices(primes: &[usize]) -> Vec<usize> {
    let limit = primes.last().copied().unwrap_or(1).max(RADIX);
    for count in 1..=primes.len() {
        let mut radices = vec![1; count];
        for &prime in primes.iter().rev() {
            if let Some(least) = radices.iter_mut().min() {
                *least *= prime;
            }
        }
        if radices.iter().all(|&radix| radix <= limit) {
            radices.sort_unstable_by(|a, b| b.cmp(a));
            return radices;
        }
    }
    primes.to_vec()
}

#[cfg(test)]
mod tests {
    use wgrad_device::Error;

    use super::*;

    /// The numbers of points in the cache, the last used first.
    fn kept(cache: &Cache<usize>) -> Vec<usize> {
        cache.0.lock().unwrap().iter().map(|(key, _)| key.0).collect()
    }

    #[test]
    fn only_plans_that_fit_are_kept() {
        let cache = Cache::<usize>::default();
        let get = |n: usize, numbers: usize| {
            let key = (n, false, DType::F32);
            *cache.get(key, || Ok(numbers), |&numbers| numbers).unwrap()
        };
        assert_eq!((get(1, KEPT / 4), get(2, KEPT / 4), get(3, KEPT / 4)), (KEPT / 4, KEPT / 4, KEPT / 4));
        // Too large to be kept at all: the others stay.
        assert_eq!(get(4, KEPT + 1), KEPT + 1);
        assert_eq!(kept(&cache), [3, 2, 1]);
        assert_eq!(get(1, 0), KEPT / 4);
        assert_eq!(kept(&cache), [1, 3, 2]);
        // What was used longest ago makes room.
        get(5, KEPT / 2);
        assert_eq!(kept(&cache), [5, 1, 3]);
        // One that does not fit goes; what fits beside the others stays.
        get(6, KEPT / 4 + 1);
        assert_eq!(kept(&cache), [6, 5]);
        get(7, KEPT / 4 - 1);
        assert_eq!(kept(&cache), [7, 6, 5]);
    }

    #[test]
    fn a_plan_that_another_thread_made_meanwhile_is_used() {
        let cache = Cache::<usize>::default();
        let key = (8, false, DType::F32);
        let other = || {
            cache.get(key, || Ok(1), |_| 1)?;
            Ok(2)
        };
        assert_eq!(*cache.get(key, other, |_| 1).unwrap(), 1);
        assert_eq!(kept(&cache), [8]);
    }

    #[test]
    fn tables_without_room_are_an_error() {
        for n in [1 << 42, (1 << 42) + 1, (1 << 61) - 1, usize::MAX] {
            let found = complex(n, false, DType::F32, &Device::cpu());
            assert!(matches!(found, Err(Error::OutOfMemory { .. })), "{n}");
            let found = real(n, false, DType::F32, &Device::cpu());
            assert!(matches!(found, Err(Error::OutOfMemory { .. })), "{n} real");
        }
    }
}
