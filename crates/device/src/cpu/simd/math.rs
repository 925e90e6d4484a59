//! f32 functions without branches, so that loops that call them vectorise.
//!
//! Each function is a range reduction and a minimax polynomial, fitted in extended precision with its
//! coefficients rounded to f32 one after the other. `docs/numerics.md` states the errors. NaN, infinities,
//! the signs of zeros and subnormal numbers are treated as in C's math library.

use super::SimdLevel;

#[inline(always)]
fn fma<L: SimdLevel>(a: f32, b: f32, c: f32) -> f32 {
    if L::FMA { a.mul_add(b, c) } else { a * b + c }
}

#[inline(always)]
fn fma64<L: SimdLevel>(a: f64, b: f64, c: f64) -> f64 {
    if L::FMA { a.mul_add(b, c) } else { a * b + c }
}

/// `c[0] + c[1] x + c[2] x² + …`
#[inline(always)]
fn poly<L: SimdLevel, const N: usize>(x: f32, c: [f32; N]) -> f32 {
    let mut sum = c[N - 1];
    for i in (0..N - 1).rev() {
        sum = fma::<L>(sum, x, c[i]);
    }
    sum
}

#[inline(always)]
fn poly64<L: SimdLevel, const N: usize>(x: f64, c: [f64; N]) -> f64 {
    let mut sum = c[N - 1];
    for i in (0..N - 1).rev() {
        sum = fma64::<L>(sum, x, c[i]);
    }
    sum
}

/// Adding this number rounds to an integer, which is then in the low bits of the sum.
const ROUND: f32 = 12_582_912.0;
const ROUND64: f64 = 6_755_399_441_055_744.0;
// ln 2 as the sum of two parts. Products of the first part with exponents are exact.
const LN2_HIGH: f32 = 0.693_145_75;
const LN2_LOW: f32 = 1.428_606_8e-6;

/// `x = n ln 2 + r` with |r| <= ln 2 / 2, for |x| < 2^22 ln 2: n as an integer, and r.
#[inline(always)]
fn split_exponent<L: SimdLevel>(x: f32) -> (i32, f32) {
    let rounded = fma::<L>(x, std::f32::consts::LOG2_E, ROUND);
    let n = rounded - ROUND;
    let r = fma::<L>(n, -LN2_LOW, fma::<L>(n, -LN2_HIGH, x));
    ((rounded.to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32), r)
}

/// 2 to the n, for -127 < n < 128.
#[inline(always)]
fn power_of_two(n: i32) -> f32 {
    f32::from_bits(n.wrapping_add(127).wrapping_shl(23) as u32)
}

#[inline(always)]
fn exp_reduced<L: SimdLevel>(r: f32) -> f32 {
    let p = poly::<L, 5>(r, [0.5, 0.166_665_15, 0.041_666_374, 0.008_369_394, 0.001_394_325_4]);
    fma::<L>(p, r * r, r) + 1.0
}

#[inline(always)]
pub fn exp<L: SimdLevel>(x: f32) -> f32 {
    // Beyond these bounds the result is infinite or 0. NaN passes both comparisons.
    let x = if x > 89.0 { 89.0 } else { x };
    let x = if x < -104.0 { -104.0 } else { x };
    let (n, r) = split_exponent::<L>(x);
    // Scaling in two steps allows infinite and subnormal results.
    let half = n >> 1;
    exp_reduced::<L>(r) * power_of_two(half) * power_of_two(n.wrapping_sub(half))
}

/// exp for -80 < x < 80.
#[inline(always)]
fn exp_inside<L: SimdLevel>(x: f32) -> f32 {
    let (n, r) = split_exponent::<L>(x);
    exp_reduced::<L>(r) * power_of_two(n)
}

#[inline(always)]
pub fn expm1<L: SimdLevel>(x: f32) -> f32 {
    let bounded = if x > 89.0 { 89.0 } else { x };
    let bounded = if bounded < -20.0 { -20.0 } else { bounded };
    let (n, r) = split_exponent::<L>(bounded);
    let p =
        poly::<L, 6>(r, [0.5, 0.166_666_67, 0.041_666_48, 0.008_333_208, 0.001_393_356_5, 0.000_199_442_66]);
    let p = fma::<L>(p, r * r, r);
    // 2^n (p + 1) - 1, computed as twice its half, since 2^n may be 2^128.
    let scale = power_of_two(n.wrapping_sub(1));
    let result = 2.0 * fma::<L>(scale, p, scale - 0.5);
    if x == 0.0 { x } else { result }
}

/// The logarithm of `x (1 + correction)` for a tiny correction.
#[inline(always)]
fn log_corrected<L: SimdLevel>(x: f32, correction: f32) -> f32 {
    let tiny = x < f32::MIN_POSITIVE;
    let scaled = if tiny { x * 8_388_608.0 } else { x };
    let shift = if tiny { -23.0 } else { 0.0 };
    // scaled = 2^e (1 + f) with 1 + f between sqrt(1/2) and sqrt(2)
    let bits = scaled.to_bits() as i32;
    let e = bits.wrapping_sub(std::f32::consts::FRAC_1_SQRT_2.to_bits() as i32) >> 23;
    let f = f32::from_bits(bits.wrapping_sub(e.wrapping_shl(23)) as u32) - 1.0;
    let e = e as f32 + shift;
    let p = poly::<L, 9>(
        f,
        [
            0.333_333_1,
            -0.249_999_87,
            0.200_022_24,
            -0.166_692_5,
            0.142_187_16,
            -0.123_844_02,
            0.118_726_194,
            -0.117_893_7,
            0.069_156_125,
        ],
    );
    let square = f * f;
    let low = fma::<L>(e, LN2_LOW, fma::<L>(f * square, p, correction));
    let low = fma::<L>(-0.5, square, low);
    let result = fma::<L>(e, LN2_HIGH, f + low);
    let result = if x == 0.0 { f32::NEG_INFINITY } else { result };
    let result = if x < 0.0 { f32::NAN } else { result };
    // Infinity and NaN are their own logarithms.
    if x < f32::INFINITY { result } else { x }
}

#[inline(always)]
pub fn log<L: SimdLevel>(x: f32) -> f32 {
    log_corrected::<L>(x, 0.0)
}

#[inline(always)]
pub fn log1p<L: SimdLevel>(x: f32) -> f32 {
    let sum = 1.0 + x;
    // The rounding error of the sum.
    let lost = if x > 1.0 { 1.0 - (sum - x) } else { x - (sum - 1.0) };
    let correction = if sum > 0.0 && sum < f32::INFINITY { lost / sum } else { 0.0 };
    let result = log_corrected::<L>(sum, correction);
    if x == 0.0 { x } else { result }
}

#[inline(always)]
pub fn tanh<L: SimdLevel>(x: f32) -> f32 {
    let square = x * x;
    let p = poly::<L, 6>(
        square,
        [-0.333_333_28, 0.133_331_1, -0.053_934_85, 0.021_636_752, -0.008_023_203, 0.002_005_781_5],
    );
    let small = fma::<L>(p * square, x, x);
    let magnitude = if x.abs() > 10.0 { 10.0 } else { x.abs() };
    let large = 1.0 - 2.0 / (exp_inside::<L>(2.0 * magnitude) + 1.0);
    // `copysign` also keeps the sign of -0.
    (if x.abs() < 0.625 { small } else { large }).copysign(x)
}

#[inline(always)]
pub fn sigmoid<L: SimdLevel>(x: f32) -> f32 {
    let e = exp::<L>(-x.abs());
    (if x < 0.0 { e } else { 1.0 }) / (1.0 + e)
}

#[inline(always)]
pub fn erf<L: SimdLevel>(x: f32) -> f32 {
    let square = x * x;
    let p = poly::<L, 7>(
        square,
        [
            0.128_379_17,
            -0.376_126_3,
            0.112_836_25,
            -0.026_855_662,
            0.005_192_202,
            -0.000_804_741_75,
            7.987_429e-5,
        ],
    );
    let small = fma::<L>(p, x, x);
    // For larger arguments, erfc(t) = exp(-t - q(t)).
    let t = if x.abs() > 4.05 { 4.05 } else { x.abs() };
    let q = poly::<L, 8>(
        t,
        [
            -0.000_170_552_03,
            0.129_495_16,
            0.633_386_7,
            0.108_236_53,
            -0.025_091_369,
            0.004_160_439_6,
            -0.000_432_274_45,
            2.090_599e-5,
        ],
    );
    let large = (1.0 - exp_inside::<L>(-(t + q))).copysign(x);
    if x.abs() < 0.92 { small } else { large }
}

/// The largest magnitude for which the range reduction of [`sin`] and [`cos`] is exact enough. Loops use
/// [`sin_far`] and [`cos_far`] beyond it.
pub const TRIGONOMETRIC_LIMIT: f32 = 4_000_000.0;

/// The sine (shift 0) or cosine (shift 1).
#[inline(always)]
fn sin_shifted<L: SimdLevel>(x: f32, shift: u32) -> f32 {
    // pi/2 as the sum of two parts. The first has 30 bits, so its products with quadrant numbers are exact.
    const HIGH: f64 = 1.570_796_325_802_803;
    const LOW: f64 = 9.920_935_796_805_404e-10;
    let rounded = f64::from(x) * std::f64::consts::FRAC_2_PI + ROUND64;
    let n = rounded - ROUND64;
    let r = ((f64::from(x) - n * HIGH) - n * LOW) as f32;
    let quadrant = (rounded.to_bits() as u32).wrapping_add(shift);
    let square = r * r;
    let sin = poly::<L, 4>(square, [-0.166_666_67, 0.008_333_379, -0.000_198_530_47, 2.832_099_7e-6]);
    let sin = fma::<L>(sin * square, r, r);
    let cos = poly::<L, 3>(square, [0.041_666_646, -0.001_388_730_1, 2.443_066e-5]);
    let cos = fma::<L>(cos, square * square, fma::<L>(-0.5, square, 1.0));
    let magnitude = if quadrant & 1 == 0 { sin } else { cos };
    f32::from_bits(magnitude.to_bits() ^ (quadrant & 2) << 30)
}

#[inline(always)]
pub fn sin<L: SimdLevel>(x: f32) -> f32 {
    let result = sin_shifted::<L>(x, 0);
    if x == 0.0 { x } else { result }
}

#[inline(always)]
pub fn cos<L: SimdLevel>(x: f32) -> f32 {
    sin_shifted::<L>(x, 1)
}

/// The sine of any number, one lane at a time.
#[cold]
pub fn sin_far(x: f32) -> f32 {
    f64::from(x).sin() as f32
}

/// The cosine of any number, one lane at a time.
#[cold]
pub fn cos_far(x: f32) -> f32 {
    f64::from(x).cos() as f32
}

/// C's pow, computed in f64.
#[inline(always)]
pub fn pow<L: SimdLevel>(x: f32, y: f32) -> f32 {
    let base = f64::from(x.abs());
    let exponent = f64::from(y);
    // base = 2^e m with m between sqrt(1/2) and sqrt(2); log m = 2 atanh((m - 1) / (m + 1))
    let bits = base.to_bits() as i64;
    let e = bits.wrapping_sub(std::f64::consts::FRAC_1_SQRT_2.to_bits() as i64) >> 52;
    let m = f64::from_bits(bits.wrapping_sub(e.wrapping_shl(52)) as u64);
    let s = (m - 1.0) / (m + 1.0);
    let series = poly64::<L, 8>(
        s * s,
        [1.0, 1.0 / 3.0, 1.0 / 5.0, 1.0 / 7.0, 1.0 / 9.0, 1.0 / 11.0, 1.0 / 13.0, 1.0 / 15.0],
    );
    let log2 = e as i32 as f64 + 2.0 * std::f64::consts::LOG2_E * s * series;
    let log2 = if base == 0.0 { f64::NEG_INFINITY } else { log2 };
    let log2 = if base < f64::INFINITY { log2 } else { base };
    let z = exponent * log2;
    let z = if z > 200.0 { 200.0 } else { z };
    let z = if z < -200.0 { -200.0 } else { z };
    let rounded = z + ROUND64;
    let n = rounded - ROUND64;
    let r = (z - n) * std::f64::consts::LN_2;
    let power = poly64::<L, 10>(
        r,
        [
            1.0,
            1.0,
            1.0 / 2.0,
            1.0 / 6.0,
            1.0 / 24.0,
            1.0 / 120.0,
            1.0 / 720.0,
            1.0 / 5040.0,
            1.0 / 40320.0,
            1.0 / 362_880.0,
        ],
    );
    let scale = f64::from_bits(rounded.to_bits().wrapping_add(1023).wrapping_shl(52));
    let magnitude = (power * scale) as f32;
    // A power of a negative base is NaN unless the exponent is an integer, and is negative if that is odd.
    let integer = y.trunc() == y;
    let half = y * 0.5;
    let odd = integer && half.trunc() != half;
    let negative = x.is_sign_negative();
    let result = if negative && odd { -magnitude } else { magnitude };
    let result = if x < 0.0 && !integer && x != f32::NEG_INFINITY { f32::NAN } else { result };
    let result = if x.is_nan() || y.is_nan() { f32::NAN } else { result };
    // C's pow treats an infinite exponent as an even integer.
    let result = if x == -1.0 && y.abs() == f32::INFINITY { 1.0 } else { result };
    if x == 1.0 || y == 0.0 { 1.0 } else { result }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::simd::Baseline;

    /// Processors without fused multiply-add keep nearly the same error bounds.
    #[test]
    fn functions_are_as_good_without_fused_multiply_add() {
        type Pair = (&'static str, fn(f32) -> f32, fn(f64) -> f64);
        let pairs: [Pair; 8] = [
            ("exp", exp::<Baseline>, f64::exp),
            ("expm1", expm1::<Baseline>, f64::exp_m1),
            ("log", log::<Baseline>, f64::ln),
            ("log1p", log1p::<Baseline>, f64::ln_1p),
            ("sin", sin::<Baseline>, f64::sin),
            ("cos", cos::<Baseline>, f64::cos),
            ("tanh", tanh::<Baseline>, f64::tanh),
            ("sigmoid", sigmoid::<Baseline>, |x| 1.0 / (1.0 + (-x).exp())),
        ];
        for (name, found, truth) in pairs {
            for bits in (0..=u32::MAX).step_by(99_991) {
                let x = f32::from_bits(bits);
                if x.is_nan() || (x.abs() > TRIGONOMETRIC_LIMIT && (name == "sin" || name == "cos")) {
                    continue;
                }
                let (y, truth) = (found(x), truth(f64::from(x)));
                if truth.is_nan() || !(truth as f32).is_finite() {
                    assert!(
                        y.is_nan() == truth.is_nan()
                            && (y.is_nan() || f64::from(y) == f64::from(truth as f32))
                    );
                    continue;
                }
                let magnitude = (truth as f32).abs();
                let ulp = f64::from(f32::from_bits(magnitude.to_bits() + 1)) - f64::from(magnitude);
                let error = (f64::from(y) - truth).abs() / ulp;
                assert!(error <= 2.0, "{name} of {x}: {y} instead of {truth}, {error} ulp");
            }
        }
    }
}
