// Numbers that compare as elements do.

// Of a float's bits: both zeros are one key, and all NaN the largest. `sign` is the sign's bit.
fn float_key(bits: U, sign: U, infinity: U) -> U {
    let magnitude = bits & (sign - U(1u));
    let key = select(sign + magnitude, sign - magnitude, (bits & sign) != U(0u));
    return select(key, sign + (sign - U(1u)), magnitude > infinity);
}
