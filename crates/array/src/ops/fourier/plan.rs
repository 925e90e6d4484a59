//! Plans of Fourier transforms: the steps for a number of points, with their tables.
//!
//! Angles are fractions of integers and are reduced exactly; sines and cosines are computed in f64 and
//! rounded once.

use std::collections::VecDeque;
use std::f64::consts::PI;
use std::sync::{Arc, Mutex, PoisonError};

use wgrad_device::{Buffer, DType, Device, Element, Layout, Result};

use crate::kept::kept;
use crate::{Array, reserve};

/// The largest radix of a step, unless a prime factor is larger.
const RADIX: usize = 32;
/// Prime factors up to this one are the radix of a step; for larger ones a convolution is cheaper.
const LARGEST_PRIME: usize = 199;
/// The most numbers that the cached plans of one kind may have together. A larger plan is not cached.
const KEPT: usize = 1 << 24;
/// Bytes of host memory for each point of a plan of steps: its roots and twiddle factors, and their arrays.
const STEPS_BYTES: usize = 96;
/// Bytes of host memory for each point of a convolution besides its plans of steps: its chirp, and the
/// spectrum and its computation.
const CONVOLUTION_BYTES: usize = 128;

/// How a number of points is transformed.
pub(super) enum TransformPlan {
    /// One step for each factor of the number of points.
    Steps(Vec<RadixStep>),
    /// Bluestein's algorithm: `out[k] = c[k] sum of (x[j] c[j]) / c[k - j]` with `c[j] = exp(∓πi j² / n)`.
    Convolution {
        /// The factors `c`.
        chirp: Box<Twiddles>,
        /// The transform of the convolution's points, which are more than `n`.
        forward: Box<TransformPlan>,
        /// The transform of `1 / c`, divided by the number of the convolution's points.
        spectrum: Box<Twiddles>,
        /// The inverse of `forward`.
        backward: Box<TransformPlan>,
    },
}

/// How a number of real points is transformed.
pub(super) enum Real {
    /// An even number of points.
    Packed(Arc<Packed>),
    /// An odd number of points, as complex numbers.
    Whole(Arc<TransformPlan>),
}

/// The transform of an even number of real points as half as many complex ones.
pub(super) struct Packed {
    /// The transform of half the points.
    pub(super) half: Arc<TransformPlan>,
    /// The factors that separate the spectra of the even and the odd points, or combine them.
    pub(super) twiddles: Twiddles,
    /// 1 and -1, the factors of the two planes of a conjugate.
    pub(super) conjugate: DeviceTable,
}

/// A transform over the most significant digit of the index.
pub(super) struct RadixStep {
    /// The number of points.
    pub(super) radix: usize,
    /// The matrix of the transform, `[2 radix, 2 radix]`: the rows are the planes of the results, the columns
    /// those of the points.
    pub(super) matrix: DeviceTable,
    /// The twiddle factors before the next step, for the rest of `j` and the result's index `k1`.
    pub(super) twiddles: Option<Twiddles>,
}

/// Complex factors of points (twiddle factors), `[points.., 1]`.
pub(super) struct Twiddles {
    /// The real parts.
    pub(super) real: DeviceTable,
    /// The imaginary parts for both planes, `[2, points.., 1]`. Those of the first plane are negated.
    pub(super) imaginary: DeviceTable,
}

/// The memory of an array without a handle to its device. Tables are kept with their device, and a handle
/// would be a cycle.
pub(super) struct DeviceTable {
    buffer: Buffer,
    layout: Layout,
    dtype: DType,
}

impl DeviceTable {
    /// The array, on the device on which the table was made.
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

/// The number of points, whether the transform is the inverse one, and the dtype.
type Key = (usize, bool, DType);

/// A device's plans of one kind by their keys, the most recently used one in front.
struct Cache<P>(Mutex<VecDeque<(Key, Arc<P>)>>);

/// The plans that are cached with a device.
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
    /// The plan for a key: the cached one, or a new one.
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
        // The lock is not held here, since making a convolution's plan runs transforms.
        let plan = Arc::new(make()?);
        if numbers(&plan) > KEPT {
            return Ok(plan);
        }
        let mut plans = lock();
        // Another thread may have added the same plan in the meantime.
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

/// The cached plan for a key, which is moved to the front.
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

    /// The matrix of `exp(∓2πi j k / radix)` as a real matrix of twice the size.
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
        // The smallest sufficient number of the forms 2^k, 3 * 2^k and 5 * 2^k.
        let fits = |odd: usize| odd * (2 * n - 1).div_ceil(odd).next_power_of_two();
        let points = fits(1).min(fits(3)).min(fits(5));
        let _room = reserve(self.device, points.saturating_mul(CONVOLUTION_BYTES))?;
        let half_turns = self.roots(2 * n);
        let square = |j: usize| (j as u128 * j as u128 % (2 * n as u128)) as usize;
        let chirp: Vec<(f64, f64)> = (0..n).map(|j| half_turns[square(j)]).collect();
        // The spectrum is computed in f64 for every dtype, since it is computed only once.
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

    /// Let `z` be the spectrum of `x[2j] + i x[2j + 1]`. Then `(z[k] + z*[m - k]) / 2` is the spectrum of the
    /// even points, and `(z[k] - z*[m - k]) / 2i` that of the odd ones, which is multiplied by
    /// `exp(-2πi k / n)`.
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

    /// A table of these numbers in the dtype, on the device.
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

/// The cosine and the sine of `2πk / n` for k in 0..n. The angle is reduced to an eighth of a turn, so that
/// multiples of a quarter turn are exact.
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

/// The prime factors in ascending order.
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

/// The radices of the steps: ascending prime factors, combined into as few products of at most [`RADIX`] as
/// possible, of about equal size, the largest first.
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
        // A plan that is too large is not cached, and evicts no other.
        assert_eq!(get(4, KEPT + 1), KEPT + 1);
        assert_eq!(kept(&cache), [3, 2, 1]);
        assert_eq!(get(1, 0), KEPT / 4);
        assert_eq!(kept(&cache), [1, 3, 2]);
        // The least recently used plan is evicted.
        get(5, KEPT / 2);
        assert_eq!(kept(&cache), [5, 1, 3]);
        // A plan that does not fit is evicted; the plans that fit stay.
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
