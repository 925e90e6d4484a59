// Standard normal numbers from random words, as in src/normal.rs and with its constants. All arithmetic is in
// integers, so that the bits are the same on every device.

fn normal_of(a: U, b: U, quarters: U) -> F {
    let word = a | U(1u);
    let zeros = countLeadingZeros(word);
    let top = word << zeros;
    let low = top < U(0xB504F334u);
    let m = select(top, u_mul_high(top, U(0xB504F334u)) << U(1u), low);
    let halves = zeros * U(2u) + select(U(0u), U(1u), low);
    let x = U(0u) - m;
    var series = U(0x3274798Du);
    series = U(0x05AF1A01u) + u_mul_high(series, x);
    series = U(0x1D0900B0u) + u_mul_high(series, x);
    series = U(0x1FA07BA2u) + u_mul_high(series, x);
    series = U(0x2AAF8435u) + u_mul_high(series, x);
    series = U(0x3FFFE89Du) + u_mul_high(series, x);
    series = U(0x80000012u) + u_mul_high(series, x);
    let near = halves == U(0u);
    let shift = select(U(0u), countLeadingZeros(x) & U(0xfffffffeu), near);
    let fraction = u_mul_high(x << shift, series);
    let sum = select(halves * U(0x02C5C860u) + (fraction >> U(4u)), fraction, near);
    let scale = select(U(26u), U(30u) + shift, near);
    let even = countLeadingZeros(sum) & U(0xfffffffeu);
    let t = sum << even;
    var y = U(0xC8F32AC9u) - u_mul_high(U(0x4EDB128Eu), t);
    y = U(0xBE164C07u) - u_mul_high(y, t);
    y = (U(0x63C25A9Cu) - u_mul_high(y, t)) << U(1u);
    y = u_mul_high(y, (U(0x30000000u) - u_mul_high(t, u_mul_high(y, y))) << U(2u)) << U(1u);
    y = u_mul_high(y, (U(0x30000000u) - u_mul_high(t, u_mul_high(y, y))) << U(2u)) << U(1u);
    let root = u_mul_high(t, y);
    let turn = b + (quarters << U(30u));
    let w = (select(turn, ~turn, (turn & U(0x40000000u)) != U(0u)) << U(2u)) | U(2u);
    let first = countLeadingZeros(w);
    let square = u_mul_high(w, w);
    var sine = U(0x00054050u) - u_mul_high(U(0x00001CCAu), square);
    sine = U(0x00996898u) - u_mul_high(sine, square);
    sine = U(0x0A335E03u) - u_mul_high(sine, square);
    sine = U(0x52AEF394u) - u_mul_high(sine, square);
    sine = U(0xC90FDAA2u) - u_mul_high(sine, square);
    let product = u_mul_high(root << U(1u), u_mul_high(w << first, sine));
    let leading = countLeadingZeros(product);
    let digits = (((product << leading) >> U(7u)) + U(1u)) >> U(1u);
    let exponent = U(143u) - leading - first - ((even + scale) >> U(1u));
    return f_bits(((exponent << U(23u)) + digits) | (turn & U(0x80000000u)));
}

// The number of an element, from the pair of words that contains its word: the sine for an even index, and
// the cosine for an odd one.
fn normal(index: U, seed_low: u32, seed_high: u32, stream_low: u32, stream_high: u32) -> F {
    let c = philox_block(index >> U(2u), seed_low, seed_high, stream_low, stream_high);
    let upper = (index & U(2u)) != U(0u);
    return normal_of(select(c.x, c.z, upper), select(c.y, c.w, upper), index & U(1u));
}
