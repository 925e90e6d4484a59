//! The functions that are measured, where, and what they should be.

use std::f64::consts::PI;

use wgrad::{Result, Tensor};

use crate::bounds::{Bounds, KERNEL, bounds};

/// A function of one number.
pub struct Function {
    pub name: &'static str,
    pub call: fn(&Tensor) -> Result<Tensor>,
    /// The truth in f64, of a library or of its formula, if there is one for any argument.
    pub truth: Option<fn(f64) -> f64>,
    /// The arguments at which it is finite and none of its values is subnormal.
    pub domain: [f32; 2],
    /// Whether values below 1 are measured in units of 1: the function has zeros that it only meets to within rounding, or
    /// tails that it cuts off.
    pub absolute: bool,
}

/// All numbers.
const ALL: [f32; 2] = [f32::MIN, f32::MAX];
const POSITIVE: [f32; 2] = [f32::MIN_POSITIVE, f32::MAX];

macro_rules! functions {
    ($($name:ident $domain:expr, $truth:expr, $kind:ident;)*) => {
        &[$(Function {
            name: stringify!($name),
            call: |x| x.$name(),
            truth: $truth,
            domain: $domain,
            absolute: functions!(@$kind),
        },)* Function {
            name: "polygamma_1",
            call: |x| x.polygamma(1),
            truth: None,
            domain: [-100.0, 1e18],
            absolute: false,
        }]
    };
    (@relative) => { false };
    (@absolute) => { true };
}

pub const FUNCTIONS: &[Function] = functions! {
    neg ALL, Some(|x| -x), relative;
    abs ALL, Some(f64::abs), relative;
    sign ALL, Some(|x| if x == 0.0 { 0.0 } else { x.signum() }), relative;
    floor ALL, Some(f64::floor), relative;
    ceil ALL, Some(f64::ceil), relative;
    round ALL, Some(f64::round_ties_even), relative;
    trunc ALL, Some(f64::trunc), relative;
    reciprocal [-8e37, 8e37], Some(f64::recip), relative;
    sqrt POSITIVE, Some(f64::sqrt), relative;
    rsqrt POSITIVE, Some(|x| 1.0 / x.sqrt()), relative;
    exp [-87.0, 88.0], Some(f64::exp), relative;
    expm1 [-1e30, 88.0], Some(f64::exp_m1), relative;
    log POSITIVE, Some(f64::ln), relative;
    log1p [-0.9999999, f32::MAX], Some(f64::ln_1p), relative;
    sin ALL, Some(f64::sin), relative;
    cos ALL, Some(f64::cos), relative;
    tanh ALL, Some(f64::tanh), relative;
    sigmoid [-87.0, f32::MAX], Some(|x| 1.0 / (1.0 + (-x).exp())), relative;
    erf ALL, Some(libm::erf), relative;
    exp2 [-125.0, 127.0], Some(f64::exp2), relative;
    log2 POSITIVE, Some(f64::log2), relative;
    log10 POSITIVE, Some(f64::log10), relative;
    tan ALL, Some(f64::tan), relative;
    asin [-1.0, 1.0], Some(f64::asin), relative;
    acos [-1.0, 1.0], Some(f64::acos), relative;
    atan ALL, Some(f64::atan), relative;
    sinh [-88.0, 88.0], Some(f64::sinh), relative;
    cosh [-88.0, 88.0], Some(f64::cosh), relative;
    asinh ALL, Some(libm::asinh), relative;
    acosh [1.0, f32::MAX], Some(libm::acosh), relative;
    atanh [-0.9999999, 0.9999999], Some(libm::atanh), relative;
    logsigmoid [-1e30, 80.0], Some(|x| if x < 0.0 { x - x.exp().ln_1p() } else { -(-x).exp().ln_1p() }), relative;
    silu [-80.0, 1e30], Some(|x| x / (1.0 + (-x).exp())), relative;
    gelu [-12.0, 1e30], Some(|x| x * libm::erfc(-x * 0.5f64.sqrt()) / 2.0), absolute;
    erfc [-1e30, 9.0], Some(libm::erfc), relative;
    erfinv [-0.99999994, 0.99999994], None, relative;
    lgamma [-1000.0, 1e36], Some(libm::lgamma), absolute;
    digamma [-100.0, 1e36], None, absolute;
    i0 [-88.0, 88.0], None, relative;
    i1 [-88.0, 88.0], None, relative;
    sinc [-1e5, 1e5], Some(|x| if x == 0.0 { 1.0 } else { (PI * (x % 2.0)).sin() / (PI * x) }), absolute;
};

/// The bounds of functions that are composed of the kernel's.
const COMPOSED: &[Bounds] = &[
    bounds("exp2", 0.6, 4.0, 1.5, 2.0),
    bounds("log2", 2.0, 3.5, 1.5, 2.5),
    bounds("log10", 2.2, 3.5, 1.5, 2.5),
    bounds("tan", 4.0, 8.0, 1.5, 4.0),
    bounds("asin", 3.5, 6.0, 2.5, 3.5),
    bounds("acos", 3.5, 6.0, 2.5, 3.5),
    bounds("atan", 3.0, 5.0, 1.5, 3.0),
    bounds("sinh", 3.0, 6.0, 1.5, 4.0),
    bounds("cosh", 3.0, 6.0, 2.5, 4.0),
    bounds("asinh", 2.0, 6.0, 1.5, 4.0),
    bounds("acosh", 2.2, 6.0, 1.5, 4.0),
    bounds("atanh", 2.2, 6.0, 1.5, 4.0),
    bounds("logsigmoid", 2.0, 6.0, 1.5, 4.0),
    bounds("silu", 3.2, 7.0, 2.5, 5.0),
    bounds("gelu", 1.6, 4.0, 1.5, 3.0),
    bounds("erfc", 5.5, 12.0, 4.0, 6.0),
    bounds("erfinv", 2.2, 6.0, 3.0, 5.0),
    bounds("lgamma", 16.0, 24.0, 4.0, 8.0),
    bounds("digamma", 5.0, 12.0, 8.0, 10.0),
    bounds("polygamma_1", 4.5, 12.0, 4.0, 8.0),
    bounds("i0", 5.0, 10.0, 5.0, 8.0),
    bounds("i1", 4.0, 10.0, 5.0, 8.0),
    bounds("sinc", 1.3, 4.0, 1.0, 2.0),
];

/// The bounds of a function.
pub fn bounds_of(name: &str) -> Option<&'static Bounds> {
    KERNEL.iter().chain(COMPOSED).find(|bounds| bounds.name == name)
}

/// The bound in f64 on NVIDIA's driver for Vulkan, which adds the parts of `1 - x` in another order: erfinv is 107 off on an H100.
pub fn wide_on_nvidia(bounds: &Bounds) -> f64 {
    if bounds.name == "erfinv" { 128.0 } else { bounds.wide_gpu }
}
