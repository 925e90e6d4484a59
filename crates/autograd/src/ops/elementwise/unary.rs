//! Functions of each element: one row an operation.

use std::f64::consts::FRAC_2_SQRT_PI;

use wgrad_array::{Array, DType, Expr, Result};

use crate::Tensor;
use crate::ops::elementwise::binary::pow_array;
use crate::ops::reduce::widened;
use crate::tape::{Derivative, record};

/// A result computed in f32, as an f16 or bf16 again; others stay.
pub(in crate::ops) fn rounded(out: Array, dtype: DType) -> Result<Array> {
    if dtype.is_half() && out.dtype() == DType::F32 { out.cast(dtype) } else { Ok(out) }
}

/// A row: documentation; name and in-place name; forward, a formula of the array `x`; node; what the derivative uses besides the
/// gradient `g`: `input` (x), `output` (y) or `nothing`; the derivative, a formula of tensors. Halves are computed in f32 on the way
/// there and back.
macro_rules! unary {
    ($($(#[$doc:meta])* $name:ident, $in_place:ident = |$x:ident| $forward:expr, $node:literal,
        $saved:ident |$g:ident, $v:ident| $derivative:expr;)*) => {
        #[wgrad_macros::call_sites]
        impl Tensor {$(
            $(#[$doc])*
            pub fn $name(&self) -> Result<Tensor> {
                let input = self.operand()?;
                let $x = &Expr::from(widened(&input.array));
                let out: Expr = $forward;
                let out = rounded(out.done()?, self.dtype())?;
                Ok(record(out, [input], |_inputs, _out| {
                    let derivative = Derivative::new($node, |c| c.gradient(|| {
                        unary!(@parts $saved, c, $g, $v);
                        $derivative
                    }));
                    unary!(@save $saved, derivative, _inputs, _out)
                }))
            }

            #[doc = concat!("[`Tensor::", stringify!($name), "`] in place.")]
            ///
            /// # Errors
            #[doc = concat!("As [`Tensor::", stringify!($name), "`] and [`Tensor::copy_`].")]
            pub fn $in_place(&self) -> Result<Tensor> {
                self.write(stringify!($in_place), || self.$name())
            }
        )*}
    };
    (@parts nothing, $c:ident, $g:ident, $v:ident) => { let ($g, []) = &$c.wide_parts(); };
    (@parts $saved:ident, $c:ident, $g:ident, $v:ident) => { let ($g, [$v]) = &$c.wide_parts(); };
    (@save nothing, $derivative:ident, $inputs:ident, $out:ident) => { $derivative };
    (@save input, $derivative:ident, $inputs:ident, $out:ident) => { $derivative.save_input($inputs, 0) };
    (@save output, $derivative:ident, $inputs:ident, $out:ident) => { $derivative.save_output($out) };
}

pub(in crate::ops) use unary;

unary! {
    /// `-x`.
    ///
    /// # Errors
    /// For bool: use [`Tensor::logical_not`].
    neg, neg_ = |x| -x, "NegBackward0", nothing |g, x| -g;

    /// `|x|`; the derivative at 0 is 0.
    abs, abs_ = |x| x.abs(), "AbsBackward0", input |g, x| g * x.sign();

    /// -1, 0 or 1.
    sign, sign_ = |x| x.sign(), "SignBackward0", nothing |g, x| g.zeros_like();

    /// e to the x. Integers give the default dtype, as with all functions whose values are fractions.
    exp, exp_ = |x| x.exp(), "ExpBackward0", output |g, y| g * y;

    /// The natural logarithm: -inf at 0, NaN below.
    log, log_ = |x| x.log(), "LogBackward0", input |g, x| g / x;

    /// `log(1 + x)`, exact near 0.
    log1p, log1p_ = |x| x.log1p(), "Log1PBackward0", input |g, x| g / (x + 1.0);

    /// `exp(x) - 1`, exact near 0.
    expm1, expm1_ = |x| x.expm1(), "Expm1Backward0", output |g, y| g * (y + 1.0);

    /// The square root: NaN below 0; the derivative at 0 is inf.
    sqrt, sqrt_ = |x| x.sqrt(), "SqrtBackward0", output |g, y| g / (y * 2.0);

    /// `1 / sqrt(x)`.
    rsqrt, rsqrt_ = |x| x.rsqrt(), "RsqrtBackward0",
        output |g, y| g * -0.5 * (y * y * y);

    /// `x * x`.
    square, square_ = |x| x.map(|x| pow_array(x, 2i64.into())), "PowBackward0", input |g, x| g * (x.pow(1.0) * 2.0);

    /// `1 / x`.
    reciprocal, reciprocal_ = |x| x.reciprocal(), "ReciprocalBackward0",
        output |g, y| -g * (y * y);

    /// The sine of radians.
    sin, sin_ = |x| x.sin(), "SinBackward0", input |g, x| g * x.cos();

    /// The cosine of radians.
    cos, cos_ = |x| x.cos(), "CosBackward0", input |g, x| -g * x.sin();

    /// The hyperbolic tangent.
    tanh, tanh_ = |x| x.tanh(), "TanhBackward0",
        output |g, y| g * (1.0 - y * y);

    /// `1 / (1 + exp(-x))`.
    sigmoid, sigmoid_ = |x| x.sigmoid(), "SigmoidBackward0",
        output |g, y| g * (1.0 - y) * y;

    /// The Gauss error function.
    erf, erf_ = |x| x.erf(), "ErfBackward0",
        input |g, x| g * ((-(x * x)).exp() * FRAC_2_SQRT_PI);

    /// `max(x, 0)`; the derivative at 0 is 0, at NaN 1.
    relu, relu_ = |x| x.max(0i64), "ReluBackward0",
        output |g, y| g.masked_fill(y.le(0.0), 0.0).flat_in(y);

    /// `x * sigmoid(x)`.
    silu, silu_ = |x| x * x.sigmoid(), "SiluBackward0", input |g, x| {
        let s = &x.sigmoid();
        g * (s * (x * (1.0 - s) + 1.0))
    };

    /// The integer below.
    floor, floor_ = |x| x.floor(), "FloorBackward0", nothing |g, x| g.zeros_like();

    /// The integer above.
    ceil, ceil_ = |x| x.ceil(), "CeilBackward0", nothing |g, x| g.zeros_like();

    /// The nearest integer, of two the even one.
    round, round_ = |x| x.round(), "RoundBackward0", nothing |g, x| g.zeros_like();

    /// The integer nearer to 0.
    trunc, trunc_ = |x| x.trunc(), "TruncBackward0", nothing |g, x| g.zeros_like();
}
