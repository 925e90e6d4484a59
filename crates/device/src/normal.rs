//! Standard normal numbers from random words, computed in integers.
//!
//! G. Box, M. Muller: "A note on the generation of random normal deviates", Annals of Mathematical Statistics
//! 29, 1958: for u and v uniform in (0, 1), `sqrt(-2 ln u) sin(2πv)` and `sqrt(-2 ln u) cos(2πv)` are two
//! independent normal numbers.
//!
//! The bits must be the same on every device. No device guarantees the bits of a logarithm, or whether a
//! product and the sum with it are rounded separately, but all guarantee sums, products and shifts of
//! integers. So numbers here are fixed-point fractions of 32 bits, functions are polynomials whose terms are
//! upper halves of products, and the f32 is assembled from its bits. `shaders/normal.wgsl` computes the same
//! in WGSL. The result is within one unit in the last place of the formula's, for every pair of words.

/// sqrt(1/2) with 32 fractional bits, which is also sqrt(2) with 31.
const ROOT: u32 = 0xB504_F334;
/// ln 2 with 26 fractional bits.
const LN_2: u32 = 0x02C5_C860;
/// `-ln(1 - x) / x` within 1e-8 for x in 0..0.293: coefficients with 31 fractional bits, that of x^6 first.
const LOG: [u32; 7] =
    [0x3274_798D, 0x05AF_1A01, 0x1D09_00B0, 0x1FA0_7BA2, 0x2AAF_8435, 0x3FFF_E89D, 0x8000_0012];
/// `1 / sqrt(x)` within 0.4 % for x in 1/4..1, with alternating signs: coefficients with 29 fractional bits,
/// that of x^3 first.
const RSQRT: [u32; 4] = [0x4EDB_128E, 0xC8F3_2AC9, 0xBE16_4C07, 0x63C2_5A9C];
/// `sin(πx / 2) / x` as a polynomial in x², with alternating signs: coefficients with 31 fractional bits,
/// that of x^10 first.
const SINE: [u32; 6] = [0x0000_1CCA, 0x0005_4050, 0x0099_6898, 0x0A33_5E03, 0x52AE_F394, 0xC90F_DAA2];

/// The product of two fractions: the upper half of their product in 64 bits.
#[inline(always)]
fn times(a: u32, b: u32) -> u32 {
    ((u64::from(a) * u64::from(b)) >> 32) as u32
}

/// A polynomial whose terms have alternating signs, and whose partial sums in Horner's scheme are positive.
#[inline(always)]
fn alternating<const N: usize>(coefficients: [u32; N], x: u32) -> u32 {
    coefficients.into_iter().reduce(|sum, c| c.wrapping_sub(times(sum, x))).unwrap_or(0)
}

/// `sqrt(-2 ln u) sin(2π (v + quarters / 4))` of u = (a | 1) / 2^32 and v = (b + 1/2) / 2^32.
// It is always inlined, so that loops vectorise.
#[inline(always)]
pub(crate) fn normal([a, b]: [u32; 2], quarters: u32) -> f32 {
    // u is 2^(-halves / 2) times a fraction m in sqrt(1/2)..1.
    let word = a | 1;
    let zeros = word.leading_zeros();
    let top = word << zeros;
    let low = top < ROOT;
    let m = if low { times(top, ROOT) << 1 } else { top };
    let halves = 2 * zeros + u32::from(low);
    // -2 ln u = halves ln 2 - 2 ln m, as t / 2^scale with an even scale. Near u = 1, leading zeros are
    // shifted out to keep digits.
    let x = m.wrapping_neg();
    let series = LOG.into_iter().reduce(|sum, c| c.wrapping_add(times(sum, x))).unwrap_or(0);
    let near = halves == 0;
    let shift = if near { x.leading_zeros() & !1 } else { 0 };
    let fraction = times(x << shift, series);
    let t = if near { fraction } else { (halves * LN_2).wrapping_add(fraction >> 4) };
    let scale = if near { 30 + shift } else { 26 };
    // The square root, by Newton's method for 1 / sqrt, which doubles the correct bits from 8 to 32. It has
    // 30 fractional bits.
    let even = t.leading_zeros() & !1;
    let t = t << even;
    let mut y = alternating(RSQRT, t) << 1;
    for _ in 0..2 {
        let rest = (3u32 << 28).wrapping_sub(times(t, times(y, y))) << 2;
        y = times(y, rest) << 1;
    }
    let root = times(t, y);
    // The angle in quarter turns: a sign, and w in (0, 1).
    let turn = b.wrapping_add(quarters << 30);
    let mirrored = if turn & (1 << 30) != 0 { !turn } else { turn };
    let w = mirrored << 2 | 2;
    let first = w.leading_zeros();
    let sine = times(w << first, alternating(SINE, times(w, w)));
    // The product, rounded to 24 bits. If it is rounded up to a power of two, the carry increments the
    // exponent, as it must.
    let product = times(root << 1, sine);
    let zeros = product.leading_zeros();
    let digits = (((product << zeros) >> 7) + 1) >> 1;
    let exponent = 143 - zeros - first - (even + scale) / 2;
    f32::from_bits(((exponent << 23) + digits) | (turn & 1 << 31))
}

#[cfg(test)]
mod tests {
    use super::normal;
    use crate::philox4x32_10;

    /// The formula in f64.
    fn formula([a, b]: [u32; 2], quarters: u32) -> f64 {
        let word = |x: f64| x / 4_294_967_296.0;
        let (u, v) = (word(f64::from(a | 1)), word(f64::from(b) + 0.5) + f64::from(quarters) / 4.0);
        // 1 - u is exact, so `ln_1p` keeps the digits where u is near 1.
        (-2.0 * (-(1.0 - u)).ln_1p()).sqrt() * (v * std::f64::consts::TAU).sin()
    }

    fn check(words: [u32; 2], quarters: u32) {
        let (found, truth) = (f64::from(normal(words, quarters)), formula(words, quarters));
        let off = (found - truth).abs() / truth.abs();
        assert!(off < 1.5 * f64::powi(2.0, -24), "{found} for {truth} of {words:x?}, {quarters}");
    }

    #[test]
    fn the_formula_at_its_edges() {
        let powers = (0..32).flat_map(|k| [(1u32 << k).wrapping_sub(1), 1 << k, (1 << k) + 1]);
        let near = [0xB504_F332, 0xB504_F333, 0xB504_F334, 0xB504_F335, 0x5A82_799A, u32::MAX - 1, u32::MAX];
        let words: Vec<u32> = powers.chain(near).flat_map(|word| [word, !word]).collect();
        for &a in &words {
            // Near the zeros of the sine in the middle of a turn, f64's sine of 2πv loses digits.
            for &b in words.iter().filter(|&&b| b < 1 << 30) {
                check([a, b], 0);
            }
        }
    }

    #[test]
    fn the_formula_of_random_words() {
        for i in 0..200_000 {
            let [a, b, c, d] = philox4x32_10([i, 0, 0, 0], [17, 4]);
            // Words of every magnitude: small ones give numbers in the tail, large ones near the middle.
            let (small, large) = (a >> (d % 32), u32::MAX - (a >> (d % 32)));
            check([a, b >> 2], 0);
            check([small, c >> 2], 0);
            check([large, c >> 2], 0);
            // The other quarters of the turn give the same numbers with other signs.
            let mirrored = |x: u32| 0x7fff_ffff - x;
            let (x, v) = (normal([a, b >> 2], 0), b >> 2);
            assert_eq!(normal([a, mirrored(v)], 0), x);
            assert_eq!(normal([a, v.wrapping_add(1 << 31)], 0), -x);
            assert_eq!(normal([a, v.wrapping_sub(1 << 30)], 1), x);
        }
    }
}
