// Functions of f64, written once over the types D and Q (64-bit floats and words), U, I, L and B. Vulkan's
// own exponential, logarithm, sine and so on do not take f64, so all are made of arithmetic here, by the
// methods of float.wgsl. NaN and infinity are recognised by their bits. No step relies on the rounding error
// of a sum, which compilers may simplify away: a head is cut off by its bits, and exact differences are
// passed through `d_kept`.

fn d_of(low: U, high: U) -> D {
    return bitcast<D>(Q(low) | (Q(high) << U(32u)));
}

fn d_low(x: D) -> U {
    return U(bitcast<Q>(x) & Q(0xffffffff));
}

fn d_high(x: D) -> U {
    return U(bitcast<Q>(x) >> U(32u));
}

fn d_size_bits(x: D) -> Q {
    return bitcast<Q>(x) & Q(0x7fffffffffffffff);
}

fn d_nan(like: D) -> D {
    return bitcast<D>((bitcast<Q>(like) & Q(0)) | Q(0x7ff8000000000000));
}

fn d_inf(like: D) -> D {
    return bitcast<D>((bitcast<Q>(like) & Q(0)) | Q(0x7ff0000000000000));
}

fn d_is_nan(x: D) -> B {
    return d_size_bits(x) > Q(0x7ff0000000000000);
}

fn d_is_inf(x: D) -> B {
    return d_size_bits(x) == Q(0x7ff0000000000000);
}

fn d_is_finite(x: D) -> B {
    return d_size_bits(x) < Q(0x7ff0000000000000);
}

fn d_is_negative(x: D) -> B {
    return d_high(x) >= U(0x80000000u);
}

// A key that compares as elements do, as `float_key`. Both zeros have one key, and all NaN the largest.
fn d_key(x: D) -> Q {
    let sign = Q(0x8000000000000000lu);
    let size = d_size_bits(x);
    let key = select(sign + size, sign - size, d_is_negative(x));
    return select(key, sign + (sign - Q(1)), d_is_nan(x));
}

fn d_key_low(x: D) -> U {
    return U(d_key(x) & Q(0xffffffff));
}

fn d_key_high(x: D) -> U {
    return U(d_key(x) >> U(32u));
}

fn d_copysign(size: D, sign: D) -> D {
    return bitcast<D>(d_size_bits(size) | (bitcast<Q>(sign) & Q(0x8000000000000000lu)));
}

fn d_sign(x: D) -> D {
    let signed = d_copysign(D(1.0), x);
    return select(signed, D(0.0), d_is_nan(x) | (x == D(0.0)));
}

fn d_max(a: D, b: D) -> D {
    let larger = select(b, a, a > b);
    return select(select(larger, b, d_is_nan(b)), a, d_is_nan(a));
}

fn d_min(a: D, b: D) -> D {
    let smaller = select(b, a, a < b);
    return select(select(smaller, b, d_is_nan(b)), a, d_is_nan(a));
}

// x - x and x / x, which compilers simplify to 0 and 1 even where x is infinite or NaN.
fn d_minus_itself(x: D) -> D {
    return select(d_nan(x), D(0.0), d_is_finite(x));
}

fn d_over_itself(x: D) -> D {
    return select(d_nan(x), D(1.0), d_is_finite(x) & (x != D(0.0)));
}

// Ties go to the even neighbour. Beyond 2^52 all floats are integers.
fn d_round(x: D) -> D {
    let size = abs(x);
    let down = floor(size);
    let rest = size - down;
    let odd = floor(down * D(0.5)) * D(2.0) != down;
    let up = (rest > D(0.5)) | ((rest == D(0.5)) & odd);
    let rounded = select(down, down + D(1.0), up);
    return select(x, d_copysign(rounded, x), size < D(4503599627370496.0));
}

fn d_trunc(x: D) -> D {
    return d_copysign(floor(abs(x)), x);
}

fn d_sqrt(x: D) -> D {
    return select(sqrt(x), d_nan(x), (x < D(0.0)) | d_is_nan(x));
}

fn d_rsqrt(x: D) -> D {
    return D(1.0) / d_sqrt(x);
}

// The nearest float with a mantissa of 26 bits: products of two such floats are exact.
fn d_upper(x: D) -> D {
    return bitcast<D>((bitcast<Q>(x) + Q(0x4000000)) & Q(0xfffffffff8000000lu));
}

// x, hidden from the compiler: NVIDIA's (580) replaces (a - b) - c by a - (b + c) where the negative of a is
// at hand. `whole` is an integer below 2^52 whose last bit is 0.
fn d_kept(x: D, whole: D) -> D {
    return bitcast<D>(bitcast<Q>(x) + (bitcast<Q>(whole) & Q(1)));
}

// 2^n for n in -1022 ..= 1023.
fn d_power_of_two(n: I) -> D {
    return bitcast<D>(Q(bitcast<U>(n + I(1023))) << U(52u));
}

// x * 2^n for n in -2044 ..= 2046, also where 2^n itself is not a float.
fn d_scale(x: D, n: I) -> D {
    let half = n >> U(1u);
    return x * d_power_of_two(half) * d_power_of_two(n - half);
}

// The integer n for which x - n ln(2) is in -ln(2)/2 ..= ln(2)/2, and this rest.
fn d_reduce_exponent(x: D) -> DI {
    let n = floor(x * D(1.4426950408889634) + D(0.5));
    return DI(d_kept(x - n * D(0.6931471803691238), n) - n * D(1.9082149292705877e-10), I(n));
}

// exp(r) - 1 for |r| <= ln(2) / 2.
fn d_expm1_near_0(r: D) -> D {
    var p = D(2.0914686968086876e-09);
    p = p * r + D(2.5105217004720745e-08);
    p = p * r + D(2.75572736431103e-07);
    p = p * r + D(2.7557255400206422e-06);
    p = p * r + D(2.4801587325547743e-05);
    p = p * r + D(0.00019841269874820627);
    p = p * r + D(0.0013888888888883748);
    p = p * r + D(0.008333333333326136);
    p = p * r + D(0.04166666666666667);
    p = p * r + D(0.1666666666666667);
    p = p * r + D(0.5);
    return p * r * r + r;
}

fn d_exp(x: D) -> D {
    let bounded = clamp(select(x, D(0.0), d_is_nan(x)), D(-746.0), D(710.0));
    let reduced = d_reduce_exponent(bounded);
    let result = d_scale(d_expm1_near_0(reduced.f) + D(1.0), reduced.i);
    return select(result, x, d_is_nan(x));
}

// With exp(r) = 1 + p, exp(x) - 1 = 2^n p + (2^n - 1), whose terms do not cancel.
fn d_expm1(x: D) -> D {
    let bounded = clamp(select(x, D(0.0), d_is_nan(x)), D(-50.0), D(700.0));
    let reduced = d_reduce_exponent(bounded);
    let scale = d_power_of_two(reduced.i);
    let result = scale * d_expm1_near_0(reduced.f) + (scale - D(1.0));
    return select(select(result, d_exp(x), x > D(600.0)), x, d_is_nan(x) | (x == D(0.0)));
}

// log(head + rest), where the rest is small compared with the head.
fn d_log_of_sum(head: D, rest: D) -> D {
    let tiny = head < D(2.2250738585072014e-308);
    let scaled = select(head, head * D(18014398509481984.0), tiny);
    let bits = bitcast<Q>(scaled);
    // The exponent that leaves the fraction in sqrt(1/2) .. sqrt(2).
    let exponent = (bitcast<I>(d_high(scaled)) - I(0x3fe6a09e)) >> U(20u);
    let m = bitcast<D>(bits - (Q(bitcast<U>(exponent << U(20u))) << U(32u)));
    let f = (m - D(1.0)) + rest * d_power_of_two(max(-exponent, I(-1022)));
    let n = D(exponent) - select(D(0.0), D(54.0), tiny);
    let s = f / (D(2.0) + f);
    let z = s * s;
    var p = D(0.13086907873878542);
    p = p * z + D(0.13268746196943831);
    p = p * z + D(0.1538624070891935);
    p = p * z + D(0.18181795621633706);
    p = p * z + D(0.22222222391887056);
    p = p * z + D(0.2857142857080285);
    p = p * z + D(0.4000000000000088);
    p = p * z + D(0.6666666666666666);
    let half = D(0.5) * f * f;
    let low = s * (half + p * z) + n * D(1.9082149292705877e-10);
    let result = n * D(0.6931471803691238) + (f - (half - low));
    let at_most_zero = select(d_nan(head), -d_inf(head), head == D(0.0));
    let special = select(at_most_zero, head, d_is_nan(head) | (head > D(0.0)));
    return select(special, result, (head > D(0.0)) & d_is_finite(head));
}

fn d_log(x: D) -> D {
    return d_log_of_sum(x, D(0.0));
}

fn d_log1p(x: D) -> D {
    let head = d_upper(D(1.0) + x);
    let rest = x - (head - D(1.0));
    let ordinary = x < D(1e18);
    let result = d_log_of_sum(select(x, head, ordinary), select(D(0.0), rest, ordinary));
    return select(result, x, x == D(0.0));
}

fn d_tanh(x: D) -> D {
    let e = d_expm1(D(2.0) * min(abs(x), D(22.0)));
    return select(d_copysign(e / (e + D(2.0)), x), x, d_is_nan(x) | (x == D(0.0)));
}

fn d_sigmoid(x: D) -> D {
    let e = d_exp(-abs(x));
    return select(D(1.0), e, x < D(0.0)) / (D(1.0) + e);
}

fn d_erf(x: D) -> D {
    let size = min(abs(x), D(6.0));
    let z = size * size;
    var near = D(-7.795196484544679e-10);
    near = near * z + D(1.3719695467928431e-08);
    near = near * z + D(-1.62084002335903e-07);
    near = near * z + D(1.644741403630909e-06);
    near = near * z + D(-1.4924736064237354e-05);
    near = near * z + D(0.00012055294862153188);
    near = near * z + D(-0.0008548325974006523);
    near = near * z + D(0.005223977607088587);
    near = near * z + D(-0.026866170643234516);
    near = near * z + D(0.11283791670944987);
    near = near * z + D(-0.3761263890318354);
    near = near * z + D(0.12837916709551256);
    // Beyond 1, erf(x) = 1 - exp(-x^2) q(t).
    let t = (size - D(2.0)) / (size + D(2.0));
    var far = D(-1.1335871217975614e-06);
    far = far * t + D(1.2699800128671843e-06);
    far = far * t + D(4.012506135268079e-06);
    far = far * t + D(1.3065405600383247e-06);
    far = far * t + D(-1.3998681053057852e-05);
    far = far * t + D(-2.7562253362433343e-05);
    far = far * t + D(2.75272364498964e-05);
    far = far * t + D(0.00017435947143123445);
    far = far * t + D(4.3555582510331216e-05);
    far = far * t + D(-0.000981976940675019);
    far = far * t + D(-0.0008471432528355999);
    far = far * t + D(0.006997461736953557);
    far = far * t + D(0.0037328924043951756);
    far = far * t + D(-0.07897858101570583);
    far = far * t + D(0.24165819424246587);
    far = far * t + D(-0.4271858474139585);
    far = far * t + D(0.25539567631050575);
    let tail = D(1.0) - d_exp(-z) * far;
    let result = select(d_copysign(tail, x), x + x * near, size < D(1.0));
    return select(result, x, d_is_nan(x));
}

// x as a number of quarter turns and a rest in -pi/4 ..= pi/4, for magnitudes at which x - n * pi/2 would
// lose all digits. The mantissa is multiplied by those bits of 2/pi that affect the result (Payne and Hanek).
fn d_reduce_large(x: D) -> DI {
    let bits = d_size_bits(x);
    let mantissa = (bits & Q(0x000fffffffffffff)) | Q(0x0010000000000000);
    let m_low = mantissa & Q(0xffffffff);
    let m_high = mantissa >> U(32u);
    let place = max(U(bits >> U(52u)), U(1023u)) - U(1013u);
    let word = place >> U(5u);
    let shift = place & U(31u);
    var below = Q(0);
    var carry_low = Q(0);
    var carry_high = Q(0);
    var high = Q(0);
    var low = Q(0);
    for (var step = 0u; step < 6u; step++) {
        let i = word + U(5u - step);
        let factor = Q(f_shift_in(d_two_over_pi(i), d_two_over_pi(i + U(1u)), shift));
        let first = factor * m_low + carry_low;
        let second = below * m_high + (first & Q(0xffffffff)) + carry_high;
        carry_low = first >> U(32u);
        carry_high = second >> U(32u);
        below = factor;
        low = (low >> U(32u)) | (high << U(32u));
        high = (high >> U(32u)) | (second << U(32u));
    }
    let quarter = bitcast<I>(U((high + Q(0x2000000000000000)) >> U(62u)));
    let rest_high = (high << U(2u)) | (low >> U(62u));
    let rest_low = low << U(2u);
    let negative = rest_high >= Q(0x8000000000000000lu);
    // The magnitude of the rest as 128 bits, and then as a float, since its leading bits may all be 0.
    let size_low = select(rest_low, ~rest_low + Q(1), negative);
    let size_high = select(rest_high, ~rest_high + select(Q(0), Q(1), rest_low == Q(0)), negative);
    let size = D(size_high) * D(5.421010862427522e-20) + D(size_low) * D(2.938735877055719e-39);
    let rest = select(size, -size, negative) * D(1.5707963267948966);
    let backward = d_is_negative(x);
    return DI(select(rest, -rest, backward), select(quarter, -quarter, backward));
}

fn d_reduce_angle(x: D) -> DI {
    let large = (abs(x) > D(500000.0)) & d_is_finite(x);
    let n = floor(select(x, D(0.0), large | !d_is_finite(x)) * D(0.6366197723675814) + D(0.5));
    let first = d_kept(x - n * D(1.5707963267341256), n);
    let near = d_kept(first - n * D(6.077100506303966e-11), n) - n * D(2.0222662487959506e-21);
    if (!any(large)) {
        return DI(near, I(n));
    }
    let far = d_reduce_large(x);
    return DI(select(near, far.f, large), select(I(n), far.i, large));
}

fn d_sin_of_quarter(r: D, quarter: I) -> D {
    let z = r * r;
    var s = D(1.591810123167728e-10);
    s = s * z + D(-2.5051131455447428e-08);
    s = s * z + D(2.755731610068312e-06);
    s = s * z + D(-0.0001984126983675497);
    s = s * z + D(0.008333333333330946);
    s = s * z + D(-0.16666666666666666);
    let sine = s * z * r + r;
    var c = D(-1.1382614869434128e-11);
    c = c * z + D(2.087614602470193e-09);
    c = c * z + D(-2.7557317270560385e-07);
    c = c * z + D(2.4801587298763433e-05);
    c = c * z + D(-0.0013888888888887395);
    c = c * z + D(0.041666666666666664);
    let cosine = c * z * z + (D(1.0) - D(0.5) * z);
    let value = select(sine, cosine, (quarter & I(1)) == I(1));
    return select(value, -value, (quarter & I(2)) == I(2));
}

fn d_sin(x: D) -> D {
    let angle = d_reduce_angle(x);
    let result = select(d_sin_of_quarter(angle.f, angle.i), x, x == D(0.0));
    return select(d_nan(x), result, d_is_finite(x));
}

fn d_cos(x: D) -> D {
    let angle = d_reduce_angle(x);
    return select(d_nan(x), d_sin_of_quarter(angle.f, angle.i + I(1)), d_is_finite(x));
}

// |x|^y as 2^(y log2 x), where the logarithm and its product with y are sums of two floats each. The heads
// have 26 bits, so that their products are exact.
fn d_pow_of_positive(x: D, y: D) -> D {
    let tiny = x < D(2.2250738585072014e-308);
    let scaled = select(x, x * D(18014398509481984.0), tiny);
    let exponent = (bitcast<I>(d_high(scaled)) - I(0x3fe6a09e)) >> U(20u);
    let m = bitcast<D>(bitcast<Q>(scaled) - (Q(bitcast<U>(exponent << U(20u))) << U(32u)));
    let n = D(exponent) - select(D(0.0), D(54.0), tiny);
    // log2(m) = 2/ln(2) * atanh(t), t = (m - 1) / (m + 1) = t_head + t_rest.
    let above = m - D(1.0);
    let below = m + D(1.0);
    let below_head = d_upper(below);
    let below_rest = m - d_kept(below_head - D(1.0), n);
    let t_head = d_upper(above / below);
    let t_rest = (d_kept(above - t_head * below_head, n) - t_head * below_rest) / below;
    let t = t_head + t_rest;
    let z = t * t;
    var p = D(0.1758495933198153);
    p = p * z + D(0.1755933620502194);
    p = p * z + D(0.20002207724349447);
    p = p * z + D(0.23076892431208176);
    p = p * z + D(0.2727272750320685);
    p = p * z + D(0.3333333333248331);
    p = p * z + D(0.4285714285714405);
    p = p * z + D(0.6);
    // 3 atanh(t) / t = 3 + z + p z^2 = s_head + s_rest
    let square = t_head * t_head;
    let beyond = p * z * z + t_rest * (t_head + t);
    let s_head = d_upper(D(3.0) + square + beyond);
    let s_rest = beyond - (d_kept(s_head - D(3.0), n) - square);
    let u = t_head * s_head;
    let v = t_rest * s_head + t * s_rest;
    let a_head = d_upper(u + v);
    let a_rest = v - d_kept(a_head - u, n);
    // 2 / (3 ln(2)) = 0.9617966860532761 + 7.872699542894897e-09
    let log_head = a_head * D(0.9617966860532761);
    let log_rest = a_head * D(7.872699542894897e-09) + a_rest * D(0.9617966939259756);
    let head = d_upper(n + (log_head + log_rest));
    let rest = log_rest - (d_kept(head - n, n) - log_head);
    let limited = clamp(y, D(-1e25), D(1e25));
    let y_head = d_upper(limited);
    let power = head * y_head;
    let power_rest = head * (limited - y_head) + rest * limited;
    let sum = clamp(power + power_rest, D(-1100.0), D(1040.0));
    let inside = abs(power + power_rest) < D(1040.0);
    let whole = floor(sum + D(0.5));
    let r = select(sum - whole, d_kept(power - whole, whole) + power_rest, inside);
    return d_scale(d_expm1_near_0(r * D(0.6931471805599453)) + D(1.0), I(whole));
}

fn d_pow(x: D, y: D) -> D {
    let size = abs(x);
    let y_size = abs(y);
    let whole = (floor(y_size) == y_size) | d_is_inf(y);
    let small = select(D(0.0), y_size, whole & (y_size < D(9007199254740992.0)));
    let odd = floor(small * D(0.5)) * D(2.0) != small;
    let inf = d_inf(x);
    let ordinary = (size > D(0.0)) & d_is_finite(x) & d_is_finite(y);
    var result = d_pow_of_positive(select(D(1.0), size, ordinary), select(D(1.0), y, ordinary));
    // The base is 0 or infinite, or the exponent is infinite.
    let grows = (size > D(1.0)) == (y > D(0.0));
    result = select(select(D(0.0), inf, grows), result, ordinary);
    result = select(result, D(1.0), d_is_inf(y) & (size == D(1.0)));
    result = select(result, -result, odd & d_is_negative(x));
    result = select(result, d_nan(x), (x < D(0.0)) & d_is_finite(x) & !whole);
    result = select(result, d_nan(x), d_is_nan(x) | d_is_nan(y));
    return select(result, D(1.0), (y == D(0.0)) | (x == D(1.0)));
}

// The mantissa with its leading bit: an integer times 2^(exponent - 1075).
fn d_mantissa(bits: Q) -> Q {
    return (bits & Q(0x000fffffffffffff)) | select(Q(0x0010000000000000), Q(0), (bits >> U(52u)) == Q(0));
}

// The remainder with the sign of b. The quotient may be huge, so mantissas are divided as integers, which is
// exact, 11 bits at a time.
fn d_rem(a: D, b: D) -> D {
    let a_bits = d_size_bits(a);
    let b_bits = d_size_bits(b);
    let regular = d_is_finite(a) & d_is_finite(b) & (b_bits > Q(0));
    let b_exponent = max(U(b_bits >> U(52u)), U(1u));
    let a_exponent = max(U(a_bits >> U(52u)), U(1u));
    let divisor = select(Q(1), d_mantissa(b_bits), regular);
    let divides = regular & (a_bits >= b_bits);
    var left = select(U(0u), a_exponent - b_exponent, divides);
    var rest = d_mantissa(a_bits) % divisor;
    for (var step = 0; step < 190; step++) {
        if (!any(left > U(0u))) {
            break;
        }
        let bits = min(left, U(11u));
        rest = (rest << bits) % divisor;
        left -= bits;
    }
    let size = select(abs(a), d_scale(D(rest), bitcast<I>(b_exponent) - I(1075)), divides);
    let signed = d_copysign(size, a);
    let other_side = (size != D(0.0)) & (d_is_negative(a) != d_is_negative(b));
    let result = select(signed, signed + b, other_side);
    return select(d_nan(a), result, regular | (d_is_finite(a) & d_is_inf(b)));
}

// An integer whose order is that of the floats, with NaN above all, and with both zeros equal.
fn d_order(x: D) -> L {
    let bits = bitcast<Q>(select(x, D(0.0), x == D(0.0)));
    let top = Q(0x8000000000000000lu);
    let ordered = select(select(bits | top, ~bits, bits >= top), ~Q(0), d_is_nan(x));
    return L(U(ordered & Q(0xffffffff)), U(ordered >> U(32u)));
}

// As d_order in reverse, but with NaN still above all.
fn d_order_reversed(x: D) -> L {
    return i64_select(i64_not(d_order(x)), L(U(0xffffffffu), U(0xffffffffu)), d_is_nan(x));
}

fn d_of_i64(a: L) -> D {
    return D(bitcast<I>(a.hi)) * D(4294967296.0) + D(a.lo);
}

// Truncates towards zero. Values that do not fit saturate, and NaN gives 0.
fn d_to_i64(x: D) -> L {
    let bits = d_size_bits(x);
    let exponent = U(bits >> U(52u));
    let up = d_mantissa(bits) << min(max(exponent, U(1075u)) - U(1075u), U(63u));
    let down = d_mantissa(bits) >> min(U(1075u) - min(exponent, U(1075u)), U(63u));
    let whole = select(down, up, exponent >= U(1075u));
    let negative = d_is_negative(x);
    let limit = select(Q(0x7fffffffffffffff), Q(0x8000000000000000lu), negative);
    let signed = select(whole, ~whole + Q(1), negative);
    let result = select(select(limit, signed, exponent < U(1086u)), Q(0), d_is_nan(x));
    return L(U(result & Q(0xffffffff)), U(result >> U(32u)));
}

fn d_to_i32(x: D) -> I {
    return bitcast<I>(d_to_i64(x).lo);
}

// The bits of an f32 below the sign, rounded to the nearest with ties to even, or rounded to odd: an inexact
// result has its last bit set.
fn d_narrow(x: D, to_odd: bool) -> U {
    let bits = d_size_bits(x);
    let exponent = U(bits >> U(52u));
    // Below 2^-126 the mantissa is shifted further down.
    let small = exponent < U(897u);
    let source = select(bits - Q(0x3800000000000000), d_mantissa(bits), small);
    let shift = select(U(29u), min(U(926u) - min(exponent, U(897u)), U(63u)), small);
    let kept = U((source >> shift) & Q(0xffffffff));
    let lost = source & ((Q(1) << shift) - Q(1));
    let half = Q(1) << (shift - U(1u));
    let odd = (kept & U(1u)) == U(1u);
    let nearest = select(kept, kept + U(1u), (lost > half) | ((lost == half) & odd));
    let marked = select(kept, kept | U(1u), lost != Q(0));
    let result = select(select(nearest, marked, to_odd), U(0x7f800000u), exponent > U(1150u));
    return select(result, U(0x7fc00000u), d_is_nan(x));
}

fn d_to_f32(x: D) -> F {
    return bitcast<F>(d_narrow(x, false) | (d_high(x) & U(0x80000000u)));
}

// Rounds to odd, so that rounding the result to fewer bits gives the same as rounding x once.
fn d_to_odd_f32(x: D) -> F {
    return bitcast<F>(d_narrow(x, true) | (d_high(x) & U(0x80000000u)));
}
