// Functions of 32-bit integers. Division by 0 gives 0, and all results wrap.

fn u_mul_high(a: U, b: U) -> U {
    let a0 = a & U(0xffffu);
    let a1 = a >> U(16u);
    let b0 = b & U(0xffffu);
    let b1 = b >> U(16u);
    let low = a0 * b0;
    let middle = a1 * b0 + (low >> U(16u));
    let other = a0 * b1 + (middle & U(0xffffu));
    return a1 * b1 + (middle >> U(16u)) + (other >> U(16u));
}

fn u_div(a: U, b: U) -> U {
    return select(a / max(b, U(1u)), U(0u), b == U(0u));
}

fn u_rem(a: U, b: U) -> U {
    return select(a % max(b, U(1u)), U(0u), b == U(0u));
}

// The absolute values are divided, since the smallest integer divided by -1 has no quotient.
fn i_div(a: I, b: I) -> I {
    let quotient = bitcast<I>(u_div(bitcast<U>(abs(a)), bitcast<U>(abs(b))));
    return select(quotient, -quotient, (a ^ b) < I(0));
}

fn i_rem(a: I, b: I) -> I {
    let rest = a - i_div(a, b) * b;
    let moved = select(rest, rest + b, (rest != I(0)) & ((rest ^ b) < I(0)));
    return select(moved, I(0), b == I(0));
}

fn u_pow(a: U, b: U) -> U {
    var result = U(1u);
    var base = a;
    var left = b;
    for (var step = 0; step < 32; step++) {
        result = select(result, result * base, (left & U(1u)) == U(1u));
        base = base * base;
        left = left >> U(1u);
    }
    return result;
}

fn i_pow(a: I, b: I) -> I {
    let power = bitcast<I>(u_pow(bitcast<U>(a), bitcast<U>(b)));
    let alternating = select(I(1), I(-1), (b & I(1)) == I(1));
    let inverse = select(select(I(0), alternating, a == I(-1)), I(1), a == I(1));
    return select(power, inverse, b < I(0));
}

fn u_shl(a: U, b: U) -> U {
    return select(U(0u), a << (b & U(31u)), b < U(32u));
}

fn u_shr(a: U, b: U) -> U {
    return select(U(0u), a >> (b & U(31u)), b < U(32u));
}

fn i_shl(a: I, b: I) -> I {
    return bitcast<I>(u_shl(bitcast<U>(a), bitcast<U>(b)));
}

fn i_shr(a: I, b: I) -> I {
    return a >> min(bitcast<U>(b), U(31u));
}

fn i_order(x: I) -> U {
    return bitcast<U>(x) ^ U(0x80000000u);
}

// n / d and n % d for n < 2^31, from the rounded reciprocal of d: processors have vector division of floats,
// but not of integers.
fn divide(n: u32, d: u32, reciprocal: f32) -> vec2<u32> {
    let first = u32(f32(n) * reciprocal);
    let rest = bitcast<i32>(n - first * d);
    let second = i32(floor(f32(rest) * reciprocal));
    var quotient = first + bitcast<u32>(second);
    var remainder = rest - second * bitcast<i32>(d);
    if (remainder < 0) {
        quotient -= 1u;
        remainder += bitcast<i32>(d);
    } else if (remainder >= bitcast<i32>(d)) {
        quotient += 1u;
        remainder -= bitcast<i32>(d);
    }
    return vec2<u32>(quotient, bitcast<u32>(remainder));
}
