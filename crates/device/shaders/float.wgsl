// Functions of f32, written once over the types F, I, U and B, from which a scalar and a vec4 instance are
// made; the names of the latter end in 4. A kernel contains only those that it uses. NaN and infinity are
// recognised by their bits, since some compilers assume that neither exists.

fn f_bits(bits: U) -> F {
    return bitcast<F>(bits);
}

fn f_nan(like: F) -> F {
    return bitcast<F>((bitcast<U>(like) & U(0u)) | U(0x7fc00000u));
}

fn f_inf(like: F) -> F {
    return bitcast<F>((bitcast<U>(like) & U(0u)) | U(0x7f800000u));
}

fn f_is_nan(x: F) -> B {
    return (bitcast<U>(x) & U(0x7fffffffu)) > U(0x7f800000u);
}

fn f_is_inf(x: F) -> B {
    return (bitcast<U>(x) & U(0x7fffffffu)) == U(0x7f800000u);
}

fn f_is_finite(x: F) -> B {
    return (bitcast<U>(x) & U(0x7fffffffu)) < U(0x7f800000u);
}

fn f_copysign(size: F, sign: F) -> F {
    return bitcast<F>((bitcast<U>(size) & U(0x7fffffffu)) | (bitcast<U>(sign) & U(0x80000000u)));
}

fn f_sign(x: F) -> F {
    let signed = f_copysign(F(1.0), x);
    return select(signed, F(0.0), f_is_nan(x) | (x == F(0.0)));
}

fn f_max(a: F, b: F) -> F {
    let larger = select(b, a, a > b);
    return select(select(larger, b, f_is_nan(b)), a, f_is_nan(a));
}

fn f_min(a: F, b: F) -> F {
    let smaller = select(b, a, a < b);
    return select(select(smaller, b, f_is_nan(b)), a, f_is_nan(a));
}

// x - x and x / x, which compilers simplify to 0 and 1 even where x is infinite or NaN.
fn f_minus_itself(x: F) -> F {
    return select(f_nan(x), F(0.0), f_is_finite(x));
}

fn f_over_itself(x: F) -> F {
    return select(f_nan(x), F(1.0), f_is_finite(x) & (x != F(0.0)));
}

// Ties go to the even neighbour. Beyond 2^23 all floats are integers.
fn f_round(x: F) -> F {
    let size = abs(x);
    let down = floor(size);
    let rest = size - down;
    let odd = (I(select(F(0.0), down, size < F(8388608.0))) & I(1)) == I(1);
    let up = (rest > F(0.5)) | ((rest == F(0.5)) & odd);
    let rounded = select(down, down + F(1.0), up);
    return select(x, f_copysign(rounded, x), size < F(8388608.0));
}

fn f_trunc(x: F) -> F {
    return f_copysign(floor(abs(x)), x);
}

fn f_sqrt(x: F) -> F {
    return select(sqrt(x), f_nan(x), (x < F(0.0)) | f_is_nan(x));
}

fn f_rsqrt(x: F) -> F {
    return F(1.0) / f_sqrt(x);
}

// 2^n for n in -126 ..= 127.
fn f_power_of_two(n: I) -> F {
    return bitcast<F>(bitcast<U>(n + I(127)) << U(23u));
}

// x * 2^n for n in -252 ..= 254, also where 2^n itself is not a float.
fn f_scale(x: F, n: I) -> F {
    let half = n >> U(1u);
    return x * f_power_of_two(half) * f_power_of_two(n - half);
}

// exp(r) - 1 for |r| <= ln(2) / 2.
fn f_expm1_near_0(r: F) -> F {
    var p = F(0.00019845958740916103);
    p = p * r + F(0.001394165214151144);
    p = p * r + F(0.008333391509950161);
    p = p * r + F(0.04166634753346443);
    p = p * r + F(0.1666666567325592);
    p = p * r + F(0.5);
    return p * r * r + r;
}

fn f_exp(x: F) -> F {
    let bounded = clamp(select(x, F(0.0), f_is_nan(x)), F(-104.0), F(89.0));
    let n = floor(bounded * F(1.44269504) + F(0.5));
    let r = (bounded - n * F(0.693115234375)) - n * F(3.194618329871446e-05);
    let result = f_scale(f_expm1_near_0(r) + F(1.0), I(n));
    return select(result, x, f_is_nan(x));
}

// With exp(r) = 1 + p, exp(x) - 1 = 2^n p + (2^n - 1), whose terms do not cancel.
fn f_expm1(x: F) -> F {
    let bounded = clamp(select(x, F(0.0), f_is_nan(x)), F(-30.0), F(80.0));
    let n = floor(bounded * F(1.44269504) + F(0.5));
    let r = (bounded - n * F(0.693115234375)) - n * F(3.194618329871446e-05);
    let scale = f_power_of_two(I(n));
    let result = scale * f_expm1_near_0(r) + (scale - F(1.0));
    return select(select(result, f_exp(x), x > F(60.0)), x, f_is_nan(x) | (x == F(0.0)));
}

// log(1 + x) for 1 + x in sqrt(1/2) .. sqrt(2), without the leading x.
fn f_log1p_tail(x: F) -> F {
    var p = F(0.0674663856625557);
    p = p * x + F(-0.11675651371479034);
    p = p * x + F(0.11888162791728973);
    p = p * x + F(-0.1240558922290802);
    p = p * x + F(0.14219552278518677);
    p = p * x + F(-0.1666799634695053);
    p = p * x + F(0.2000211924314499);
    p = p * x + F(-0.25000008940696716);
    p = p * x + F(0.3333331346511841);
    let square = x * x;
    return p * x * square - F(0.5) * square;
}

fn f_log(x: F) -> F {
    let tiny = x < F(1.17549435e-38);
    let scaled = select(x, x * F(8388608.0), tiny);
    let bits = bitcast<I>(scaled);
    // The exponent that leaves the fraction in sqrt(1/2) .. sqrt(2).
    let exponent = (bits - I(0x3f3504f3)) >> U(23u);
    let fraction = bitcast<F>(bits - (exponent << U(23u))) - F(1.0);
    let n = F(exponent) - select(F(0.0), F(23.0), tiny);
    let result = n * F(0.693115234375) + (fraction + (f_log1p_tail(fraction) + n * F(3.194618329871446e-05)));
    let at_most_zero = select(f_nan(x), -f_inf(x), x == F(0.0));
    let is_own_logarithm = (bitcast<U>(x) >= U(0x7f800000u)) & (bitcast<U>(x) < U(0x80000000u));
    let special = select(at_most_zero, x, is_own_logarithm);
    return select(special, result, (x > F(0.0)) & f_is_finite(x));
}

fn f_log1p(x: F) -> F {
    let near = (x > F(-0.2928)) & (x < F(0.4142));
    return select(f_log(F(1.0) + x), x + f_log1p_tail(x), near);
}

fn f_tanh(x: F) -> F {
    let size = abs(x);
    let z = x * x;
    var p = F(0.0020646650809794664);
    p = p * z + F(-0.008091968484222889);
    p = p * z + F(0.02166634611785412);
    p = p * z + F(-0.05394056439399719);
    p = p * z + F(0.13333158195018768);
    p = p * z + F(-0.333333283662796);
    let near = p * z * x + x;
    let far = F(1.0) - F(2.0) / (f_exp(F(2.0) * min(size, F(20.0))) + F(1.0));
    return select(select(f_copysign(far, x), near, size < F(0.625)), x, f_is_nan(x));
}

fn f_sigmoid(x: F) -> F {
    let e = f_exp(-abs(x));
    return select(F(1.0), e, x < F(0.0)) / (F(1.0) + e);
}

fn f_erf(x: F) -> F {
    let size = min(abs(x), F(4.0));
    let z = size * size;
    var near = F(-9.598260476195719e-06);
    near = near * z + F(0.00011243720655329525);
    near = near * z + F(-0.000848128052894026);
    near = near * z + F(0.005220858845859766);
    near = near * z + F(-0.02686537615954876);
    near = near * z + F(0.11283781379461288);
    near = near * z + F(-0.37612637877464294);
    near = near * z + F(1.128379225730896);
    // Beyond 1, erf(x) = 1 - exp(-x^2) q(x), with q in powers of the distance from 1.5 and from 3.
    let s = size - F(1.5);
    var middle = F(-0.0007428077515214682);
    middle = middle * s + F(0.002054748823866248);
    middle = middle * s + F(-0.00510446447879076);
    middle = middle * s + F(0.01334164384752512);
    middle = middle * s + F(-0.0329388827085495);
    middle = middle * s + F(0.07615303248167038);
    middle = middle * s + F(-0.16362255811691284);
    middle = middle * s + F(0.32158541679382324);
    let t = size - F(3.0);
    var far = F(0.00017542988643981516);
    far = far * t + F(-0.0002336776233278215);
    far = far * t + F(0.001236278098076582);
    far = far * t + F(-0.0045015402138233185);
    far = far * t + F(0.0158742262456574);
    far = far * t + F(-0.05437309294939041);
    far = far * t + F(0.17900125682353973);
    let tail = F(1.0) - f_exp(-z) * select(far, middle, size < F(2.15));
    let result = select(f_copysign(tail, x), x * near, size < F(1.0));
    return select(result, x, f_is_nan(x));
}

// The 32 bits of 2/pi that begin at bit 32 * (i - 1) behind the point; 0 for those before the point.
fn f_two_over_pi(i: U) -> U {
    var word = U(0u);
    word = select(word, U(0xa2f9836eu), i == U(1u));
    word = select(word, U(0x4e441529u), i == U(2u));
    word = select(word, U(0xfc2757d1u), i == U(3u));
    word = select(word, U(0xf534ddc0u), i == U(4u));
    word = select(word, U(0xdb629599u), i == U(5u));
    word = select(word, U(0x3c439041u), i == U(6u));
    word = select(word, U(0xfe5163abu), i == U(7u));
    return word;
}

fn f_shift_in(high: U, low: U, shift: U) -> U {
    return select((high << shift) | (low >> (U(32u) - max(shift, U(1u)))), high, shift == U(0u));
}

// x as a number of quarter turns and a rest in -pi/4 ..= pi/4, for magnitudes at which x - n * pi/2 would
// lose all digits. The mantissa is multiplied by those bits of 2/pi that affect the result (Payne and Hanek).
fn f_reduce_large(x: F) -> FI {
    let bits = bitcast<U>(x) & U(0x7fffffffu);
    let mantissa = (bits & U(0x007fffffu)) | U(0x00800000u);
    let place = select((bits >> U(23u)) - U(120u), U(32u), bits < U(0x3f800000u));
    let word = place >> U(5u);
    let shift = place & U(31u);
    let t0 = f_two_over_pi(word);
    let t1 = f_two_over_pi(word + U(1u));
    let t2 = f_two_over_pi(word + U(2u));
    let t3 = f_two_over_pi(word + U(3u));
    let w0 = f_shift_in(t0, t1, shift);
    let w1 = f_shift_in(t1, t2, shift);
    let w2 = f_shift_in(t2, t3, shift);
    let carry0 = u_mul_high(mantissa, w2);
    let low = mantissa * w1;
    let middle = low + carry0;
    let carry1 = u_mul_high(mantissa, w1) + select(U(0u), U(1u), middle < low);
    let high = mantissa * w0 + carry1;
    let quarter = (high + U(0x20000000u)) >> U(30u);
    let rest_high = bitcast<I>(f_shift_in(high, middle, U(2u)));
    let rest_low = middle << U(2u);
    let negative = rest_high < I(0);
    // The magnitude of the rest as 64 bits, and then as a float, since its leading bits may all be 0.
    let size_low = select(rest_low, ~rest_low + U(1u), negative);
    let carry = select(U(0u), U(1u), rest_low == U(0u));
    let size_high = select(bitcast<U>(rest_high), ~bitcast<U>(rest_high) + carry, negative);
    let size = F(size_high) * F(2.3283064365386963e-10) + F(size_low) * F(5.421010862427522e-20);
    let rest = select(size, -size, negative) * F(1.5707963267948966);
    let backward = x < F(0.0);
    return FI(select(rest, -rest, backward), select(bitcast<I>(quarter), -bitcast<I>(quarter), backward));
}

fn f_reduce_angle(x: F) -> FI {
    let n = floor(x * F(0.6366197723675814) + F(0.5));
    let near = ((x - n * F(1.5703125)) - n * F(0.0004837512969970703)) - n * F(7.549533620476723e-08)
        - n * F(2.5633440682570896e-12);
    let large = (abs(x) > F(2000.0)) & f_is_finite(x);
    if (!any(large)) {
        return FI(near, I(n));
    }
    let far = f_reduce_large(x);
    return FI(select(near, far.f, large), select(I(select(n, F(0.0), large)), far.i, large));
}

fn f_sin_of_quarter(r: F, quarter: I) -> F {
    let z = r * r;
    var s = F(2.7175644845556235e-06);
    s = s * z + F(-0.00019839256128761917);
    s = s * z + F(0.008333329111337662);
    s = s * z + F(-0.1666666716337204);
    let sine = s * z * r + r;
    var c = F(-2.7203304853173904e-07);
    c = c * z + F(2.479943577782251e-05);
    c = c * z + F(-0.0013888883404433727);
    c = c * z + F(0.0416666679084301);
    let cosine = c * z * z + (F(1.0) - F(0.5) * z);
    let value = select(sine, cosine, (quarter & I(1)) == I(1));
    return select(value, -value, (quarter & I(2)) == I(2));
}

fn f_sin(x: F) -> F {
    let angle = f_reduce_angle(x);
    return select(f_nan(x), f_sin_of_quarter(angle.f, angle.i), f_is_finite(x));
}

fn f_cos(x: F) -> F {
    let angle = f_reduce_angle(x);
    return select(f_nan(x), f_sin_of_quarter(angle.f, angle.i + I(1)), f_is_finite(x));
}

// x with only the upper 12 bits of its mantissa: products of two such floats are exact.
fn f_upper(x: F) -> F {
    return bitcast<F>(bitcast<U>(x) & U(0xfffff000u));
}

// |x|^y as 2^(y log2 x), where the logarithm and its product with y are sums of two floats each. The heads
// have 12 bits, so that their products are exact. No step relies on the rounding error of a sum, which
// compilers may simplify away.
fn f_pow_of_positive(x: F, y: F) -> F {
    let tiny = x < F(1.17549435e-38);
    let scaled = select(x, x * F(8388608.0), tiny);
    let bits = bitcast<I>(scaled);
    let exponent = (bits - I(0x3f3504f3)) >> U(23u);
    let m = bitcast<F>(bits - (exponent << U(23u)));
    let n = F(exponent) - select(F(0.0), F(23.0), tiny);
    // log2(m) = 2/ln(2) * atanh(t), t = (m - 1) / (m + 1) = t_head + t_rest.
    let above = m - F(1.0);
    let below = m + F(1.0);
    let below_head = f_upper(below);
    let below_rest = m - (below_head - F(1.0));
    let t_head = f_upper(above / below);
    let t_rest = ((above - t_head * below_head) - t_head * below_rest) / below;
    let t = t_head + t_rest;
    let z = t * t;
    var p = F(0.09804334491491318);
    p = p * z + F(0.11087295413017273);
    p = p * z + F(0.14286072552204132);
    p = p * z + F(0.19999997317790985);
    p = p * z + F(0.3333333432674408);
    // 2/ln(2) = 2.884765625 + 0.00062445679
    let log_head = t_head * F(2.884765625);
    let log_rest = t_head * F(0.0006244567921385169) + (t_rest + p * z * t) * F(2.885390043258667);
    let head = f_upper(n + log_head);
    let rest = ((n - head) + log_head) + log_rest;
    let limited = clamp(y, F(-1e15), F(1e15));
    let y_head = f_upper(limited);
    let power = head * y_head;
    let power_rest = head * (limited - y_head) + rest * limited;
    let sum = clamp(power + power_rest, F(-160.0), F(140.0));
    let inside = abs(power + power_rest) < F(140.0);
    let whole = floor(sum + F(0.5));
    let r = select(sum - whole, (power - whole) + power_rest, inside);
    var e = F(1.5195026207948104e-05);
    e = e * r + F(0.0001546802232041955);
    e = e * r + F(0.0013333950191736221);
    e = e * r + F(0.009618034586310387);
    e = e * r + F(0.055504102259874344);
    e = e * r + F(0.24022650718688965);
    e = e * r + F(0.6931471824645996);
    return f_scale(e * r + F(1.0), I(whole));
}

fn f_pow(x: F, y: F) -> F {
    let size = abs(x);
    let y_size = abs(y);
    let whole = (floor(y_size) == y_size) | f_is_inf(y);
    let small = select(F(0.0), y_size, y_size < F(16777216.0));
    let odd = whole & ((U(small) & U(1u)) == U(1u));
    let inf = f_inf(x);
    let ordinary = (size > F(0.0)) & f_is_finite(x) & f_is_finite(y);
    var result = f_pow_of_positive(select(F(1.0), size, ordinary), select(F(1.0), y, ordinary));
    // The base is 0 or infinite, or the exponent is infinite.
    let grows = (size > F(1.0)) == (y > F(0.0));
    result = select(select(F(0.0), inf, grows), result, ordinary);
    result = select(result, F(1.0), f_is_inf(y) & (size == F(1.0)));
    result = select(result, -result, odd & (bitcast<U>(x) >= U(0x80000000u)));
    result = select(result, f_nan(x), (x < F(0.0)) & f_is_finite(x) & !whole);
    result = select(result, f_nan(x), f_is_nan(x) | f_is_nan(y));
    return select(result, F(1.0), (y == F(0.0)) | (x == F(1.0)));
}

// The mantissa with its leading bit, and the exponent such that x is the mantissa, as an integer, times
// 2^(exponent - 150).
fn f_mantissa(bits: U) -> U {
    let raw = bits >> U(23u);
    return (bits & U(0x007fffffu)) | select(U(0x00800000u), U(0u), raw == U(0u));
}

// The remainder with the sign of b. The quotient may be huge, so mantissas are divided as integers, which is
// exact, 8 bits at a time.
fn f_rem(a: F, b: F) -> F {
    let a_bits = bitcast<U>(a) & U(0x7fffffffu);
    let b_bits = bitcast<U>(b) & U(0x7fffffffu);
    let regular = f_is_finite(a) & f_is_finite(b) & (b_bits > U(0u));
    let b_exponent = max(b_bits >> U(23u), U(1u));
    let a_exponent = max(a_bits >> U(23u), U(1u));
    let divisor = select(U(1u), f_mantissa(b_bits), regular);
    let divides = regular & (a_bits >= b_bits);
    var left = select(U(0u), a_exponent - b_exponent, divides);
    var rest = f_mantissa(a_bits) % divisor;
    for (var step = 0; step < 35; step++) {
        if (!any(left > U(0u))) {
            break;
        }
        let bits = min(left, U(8u));
        rest = (rest << bits) % divisor;
        left -= bits;
    }
    let size = select(abs(a), f_scale(F(rest), bitcast<I>(b_exponent) - I(150)), divides);
    let signed = f_copysign(size, a);
    let other_side = (size != F(0.0)) & ((bitcast<U>(a) ^ bitcast<U>(b)) >= U(0x80000000u));
    let result = select(signed, signed + b, other_side);
    return select(f_nan(a), result, regular | (f_is_finite(a) & f_is_inf(b)));
}

// An integer whose order is that of the floats, with NaN above all, and with both zeros equal.
fn f_order(x: F) -> U {
    let bits = bitcast<U>(select(x, F(0.0), x == F(0.0)));
    let ordered = select(bits | U(0x80000000u), ~bits, bits >= U(0x80000000u));
    return select(ordered, U(0xffffffffu), f_is_nan(x));
}

// As f_order in reverse, but with NaN still above all.
fn f_order_reversed(x: F) -> U {
    return select(~f_order(x), U(0xffffffffu), f_is_nan(x));
}
