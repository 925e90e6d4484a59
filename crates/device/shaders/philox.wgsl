// Philox4x32-10, a counter-based generator of random bits.

fn philox_round(c: UUUU, k0: U, k1: U) -> UUUU {
    let high0 = u_mul_high(U(0xD2511F53u), c.x);
    let high1 = u_mul_high(U(0xCD9E8D57u), c.z);
    return UUUU(high1 ^ c.y ^ k0, U(0xCD9E8D57u) * c.z, high0 ^ c.w ^ k1, U(0xD2511F53u) * c.x);
}

// The block at the counter (number, 0, stream) under the key `seed`.
fn philox_block(number: U, seed_low: u32, seed_high: u32, stream_low: u32, stream_high: u32) -> UUUU {
    var c = UUUU(number, U(0u), U(stream_low), U(stream_high));
    let k0 = U(seed_low);
    let k1 = U(seed_high);
    c = philox_round(c, k0, k1);
    c = philox_round(c, k0 + U(0x9E3779B9u), k1 + U(0xBB67AE85u));
    c = philox_round(c, k0 + U(0x3C6EF372u), k1 + U(0x76CF5D0Au));
    c = philox_round(c, k0 + U(0xDAA66D2Bu), k1 + U(0x32370B8Fu));
    c = philox_round(c, k0 + U(0x78DDE6E4u), k1 + U(0xED9EBA14u));
    c = philox_round(c, k0 + U(0x1715609Du), k1 + U(0xA9066899u));
    c = philox_round(c, k0 + U(0xB54CDA56u), k1 + U(0x646E171Eu));
    c = philox_round(c, k0 + U(0x5384540Fu), k1 + U(0x1FD5C5A3u));
    c = philox_round(c, k0 + U(0xF1BBCDC8u), k1 + U(0xDB3D7428u));
    return philox_round(c, k0 + U(0x8FF34781u), k1 + U(0x96A522ADu));
}

// Word index % 4 of block index / 4.
fn philox(index: U, seed_low: u32, seed_high: u32, stream_low: u32, stream_high: u32) -> U {
    let c = philox_block(index >> U(2u), seed_low, seed_high, stream_low, stream_high);
    let word = index & U(3u);
    return select(select(c.x, c.y, word == U(1u)), select(c.z, c.w, word == U(3u)), word >= U(2u));
}
