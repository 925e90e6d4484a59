// Keys: integers that compare as elements do.

// The key of a float from its bits. Both zeros have one key, and all NaN the largest. `sign` is the bit of
// the sign.
fn float_key(bits: U, sign: U, infinity: U) -> U {
    let magnitude = bits & (sign - U(1u));
    let key = select(sign + magnitude, sign - magnitude, (bits & sign) != U(0u));
    return select(key, sign + (sign - U(1u)), magnitude > infinity);
}
