// 64-bit integers as two words, on every adapter: two's complement, results wrap, division by 0 gives 0.

fn i64_of_i32(x: I) -> L {
    return L(bitcast<U>(x), bitcast<U>(x >> U(31u)));
}

fn i64_of_u32(x: U) -> L {
    return L(x, U(0u));
}

fn i64_select(a: L, b: L, condition: B) -> L {
    return L(select(a.lo, b.lo, condition), select(a.hi, b.hi, condition));
}

fn i64_add(a: L, b: L) -> L {
    let lo = a.lo + b.lo;
    return L(lo, a.hi + b.hi + select(U(0u), U(1u), lo < a.lo));
}

fn i64_not(a: L) -> L {
    return L(~a.lo, ~a.hi);
}

fn i64_neg(a: L) -> L {
    return L(~a.lo + U(1u), ~a.hi + select(U(0u), U(1u), a.lo == U(0u)));
}

fn i64_sub(a: L, b: L) -> L {
    return L(a.lo - b.lo, a.hi - b.hi - select(U(0u), U(1u), a.lo < b.lo));
}

fn i64_mul(a: L, b: L) -> L {
    return L(a.lo * b.lo, u_mul_high(a.lo, b.lo) + a.lo * b.hi + a.hi * b.lo);
}

fn i64_and(a: L, b: L) -> L {
    return L(a.lo & b.lo, a.hi & b.hi);
}

fn i64_or(a: L, b: L) -> L {
    return L(a.lo | b.lo, a.hi | b.hi);
}

fn i64_xor(a: L, b: L) -> L {
    return L(a.lo ^ b.lo, a.hi ^ b.hi);
}

fn i64_is_zero(a: L) -> B {
    return (a.lo | a.hi) == U(0u);
}

fn i64_is_negative(a: L) -> B {
    return a.hi >= U(0x80000000u);
}

fn i64_eq(a: L, b: L) -> B {
    return (a.lo == b.lo) & (a.hi == b.hi);
}

fn u64_lt(a: L, b: L) -> B {
    return (a.hi < b.hi) | ((a.hi == b.hi) & (a.lo < b.lo));
}

fn i64_lt(a: L, b: L) -> B {
    let a_hi = bitcast<I>(a.hi);
    let b_hi = bitcast<I>(b.hi);
    return (a_hi < b_hi) | ((a_hi == b_hi) & (a.lo < b.lo));
}

fn i64_max(a: L, b: L) -> L {
    return i64_select(a, b, i64_lt(a, b));
}

fn i64_min(a: L, b: L) -> L {
    return i64_select(a, b, i64_lt(b, a));
}

fn i64_abs(a: L) -> L {
    return i64_select(a, i64_neg(a), i64_is_negative(a));
}

fn i64_sign(a: L) -> L {
    let negative = i64_is_negative(a);
    let one = L(select(U(1u), U(0xffffffffu), negative), select(U(0u), U(0xffffffffu), negative));
    return i64_select(one, L(U(0u), U(0u)), i64_is_zero(a));
}

fn u64_shl(a: L, n: U) -> L {
    let s = n & U(31u);
    let hi = select((a.hi << s) | (a.lo >> (U(32u) - max(s, U(1u)))), a.hi, s == U(0u));
    let lo = a.lo << s;
    let far = n >= U(32u);
    return L(select(lo, U(0u), far), select(hi, lo, far));
}

fn i64_shl(a: L, b: L) -> L {
    let inside = (b.hi == U(0u)) & (b.lo < U(64u));
    return i64_select(L(U(0u), U(0u)), u64_shl(a, b.lo & U(63u)), inside);
}

fn i64_shr(a: L, b: L) -> L {
    let n = select(U(63u), b.lo, (b.hi == U(0u)) & (b.lo < U(64u)));
    let s = n & U(31u);
    let sign = bitcast<U>(bitcast<I>(a.hi) >> U(31u));
    let hi = bitcast<U>(bitcast<I>(a.hi) >> s);
    let lo = select((a.lo >> s) | (a.hi << (U(32u) - max(s, U(1u)))), a.lo, s == U(0u));
    let far = n >= U(32u);
    return L(select(lo, hi, far), select(hi, sign, far));
}

fn u64_to_f32_roughly(a: L) -> F {
    return F(a.hi) * F(4294967296.0) + F(a.lo);
}

// The integer part of a positive float below 2^64.
fn u64_of_f32(x: F) -> L {
    let bits = bitcast<U>(x);
    let mantissa = (bits & U(0x007fffffu)) | U(0x00800000u);
    let exponent = bits >> U(23u);
    let up = u64_shl(L(mantissa, U(0u)), min(max(exponent, U(150u)) - U(150u), U(63u)));
    let down = mantissa >> min(U(150u) - min(exponent, U(150u)), U(31u));
    return i64_select(L(down, U(0u)), up, exponent >= U(150u));
}

// One step of a division: a number that is certainly not above the quotient is subtracted from it, with its
// multiple of the divisor from the rest.
fn u64_divide_step(state: LL, divisor: L) -> LL {
    let estimate = u64_to_f32_roughly(state.b) / u64_to_f32_roughly(divisor) * F(0.9999990);
    let part = u64_of_f32(estimate);
    return LL(i64_add(state.a, part), i64_sub(state.b, i64_mul(part, divisor)));
}

fn u64_divide_last(state: LL, divisor: L) -> LL {
    let fits = !u64_lt(state.b, divisor);
    let one = L(select(U(0u), U(1u), fits), U(0u));
    return LL(i64_add(state.a, one), i64_select(state.b, i64_sub(state.b, divisor), fits));
}

// The quotient and the remainder of unsigned numbers. Each step finds at least 19 bits.
fn u64_divide(n: L, d: L) -> LL {
    let divisor = i64_select(d, L(U(1u), U(0u)), i64_is_zero(d));
    var state = LL(L(U(0u), U(0u)), n);
    state = u64_divide_step(state, divisor);
    state = u64_divide_step(state, divisor);
    state = u64_divide_step(state, divisor);
    state = u64_divide_step(state, divisor);
    state = u64_divide_last(state, divisor);
    return u64_divide_last(state, divisor);
}

fn i64_div(a: L, b: L) -> L {
    let quotient = u64_divide(i64_abs(a), i64_abs(b)).a;
    let signed = i64_select(quotient, i64_neg(quotient), (a.hi ^ b.hi) >= U(0x80000000u));
    return i64_select(signed, L(U(0u), U(0u)), i64_is_zero(b));
}

fn i64_rem(a: L, b: L) -> L {
    let size = u64_divide(i64_abs(a), i64_abs(b)).b;
    let rest = i64_select(size, i64_neg(size), i64_is_negative(a));
    let moves = !i64_is_zero(rest) & ((rest.hi ^ b.hi) >= U(0x80000000u));
    let moved = i64_select(rest, i64_add(rest, b), moves);
    return i64_select(moved, L(U(0u), U(0u)), i64_is_zero(b));
}

fn i64_pow(a: L, b: L) -> L {
    var result = L(U(1u), U(0u));
    var base = a;
    var left = b;
    for (var step = 0; step < 64; step++) {
        result = i64_select(result, i64_mul(result, base), (left.lo & U(1u)) == U(1u));
        base = i64_mul(base, base);
        left = L((left.lo >> U(1u)) | (left.hi << U(31u)), left.hi >> U(1u));
    }
    let zero = L(U(0u), U(0u));
    let one = L(U(1u), U(0u));
    let minus_one = L(U(0xffffffffu), U(0xffffffffu));
    let alternating = i64_select(one, minus_one, (b.lo & U(1u)) == U(1u));
    let inverse = i64_select(i64_select(zero, alternating, i64_eq(a, minus_one)), one, i64_eq(a, one));
    return i64_select(result, inverse, i64_is_negative(b));
}

// Rounds to the nearest float, ties to even.
fn i64_to_f32(a: L) -> F {
    let size = i64_abs(a);
    let high_zeros = countLeadingZeros(size.hi);
    let zeros = select(high_zeros, U(32u) + countLeadingZeros(size.lo), size.hi == U(0u));
    let normal = u64_shl(size, min(zeros, U(63u)));
    let kept = normal.hi >> U(8u);
    let lost = normal.hi & U(0xffu);
    let above = (lost > U(0x80u)) | ((lost == U(0x80u)) & ((normal.lo != U(0u)) | ((kept & U(1u)) == U(1u))));
    let mantissa = F(select(kept, kept + U(1u), above));
    let scale = bitcast<F>((U(167u) - min(zeros, U(63u))) << U(23u));
    let result = select(mantissa * scale, F(0.0), i64_is_zero(a));
    return select(result, -result, i64_is_negative(a));
}

// Truncates towards zero. Values that do not fit saturate, and NaN gives 0.
fn f_to_i64(x: F) -> L {
    let size = abs(x);
    let inside = size < F(9223372036854775808.0);
    let whole = u64_of_f32(select(F(0.0), size, inside));
    let negative = x < F(0.0);
    let signed = i64_select(whole, i64_neg(whole), negative);
    let limit = L(select(U(0xffffffffu), U(0u), negative), select(U(0x7fffffffu), U(0x80000000u), negative));
    let result = i64_select(limit, signed, inside);
    return i64_select(result, L(U(0u), U(0u)), f_is_nan(x));
}

fn i64_order(x: L) -> L {
    return L(x.lo, x.hi ^ U(0x80000000u));
}
