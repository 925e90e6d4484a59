// Conversions between f32 and packed elements: two f16 or bf16 are in a word, and four bytes.

fn f16_bits(x: F) -> U {
    let bits = bitcast<U>(x);
    let size = bits & U(0x7fffffffu);
    let sign = (bits >> U(16u)) & U(0x8000u);
    let normal = (size - U(0x38000000u) + U(0xfffu) + ((size >> U(13u)) & U(1u))) >> U(13u);
    // Below 2^-14 the mantissa is shifted down and rounded, ties to even.
    let mantissa = (size & U(0x7fffffu)) | U(0x800000u);
    let shift = min(U(126u) - min(size >> U(23u), U(112u)), U(25u));
    let kept = mantissa >> shift;
    let lost = mantissa & ((U(1u) << shift) - U(1u));
    let half = U(1u) << (shift - U(1u));
    let up = (lost > half) | ((lost == half) & ((kept & U(1u)) == U(1u)));
    let subnormal = select(kept, kept + U(1u), up);
    var result = select(normal, subnormal, size < U(0x38800000u));
    result = select(result, U(0x7c00u), size >= U(0x477ff000u));
    result = select(result, U(0x7e00u), size > U(0x7f800000u));
    return sign | result;
}

fn f16_value(half: U) -> F {
    let size = half & U(0x7fffu);
    let sign = (half & U(0x8000u)) << U(16u);
    let normal = (size << U(13u)) + U(0x38000000u);
    let subnormal = bitcast<U>(F(size) * F(5.960464477539063e-08));
    let special = (size << U(13u)) | U(0x7f800000u);
    let bits = select(select(normal, special, size >= U(0x7c00u)), subnormal, size < U(0x400u));
    return bitcast<F>(sign | bits);
}

fn bf16_bits(x: F) -> U {
    let bits = bitcast<U>(x);
    let rounded = (bits + U(0x7fffu) + ((bits >> U(16u)) & U(1u))) >> U(16u);
    return select(rounded, (bits >> U(16u)) | U(0x40u), (bits & U(0x7fffffffu)) > U(0x7f800000u));
}

fn bf16_value(half: U) -> F {
    return bitcast<F>(half << U(16u));
}

fn f16_round(x: F) -> F {
    return f16_value(f16_bits(x));
}

fn bf16_round(x: F) -> F {
    return bf16_value(bf16_bits(x));
}

fn half_of(word: U, element: U) -> U {
    return (word >> ((element & U(1u)) * U(16u))) & U(0xffffu);
}

fn byte_of(word: U, element: U) -> U {
    return (word >> ((element & U(3u)) * U(8u))) & U(0xffu);
}

// Truncates towards zero and wraps, as a cast through a signed 64-bit integer would. NaN gives 0.
fn f_to_i32(x: F) -> I {
    // The comparison is one of bits, since some drivers take NaN for small.
    let small = (bitcast<U>(x) & U(0x7fffffffu)) < U(0x4f000000u);
    if (all(small)) {
        return I(x);
    }
    return bitcast<I>(f_to_i64(x).lo);
}
