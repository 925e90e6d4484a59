// Conversions between vectors of four elements and the words of memory.

fn halves_split(words: vec2<u32>) -> vec4<u32> {
    return vec4<u32>(words.x & 0xffffu, words.x >> 16u, words.y & 0xffffu, words.y >> 16u);
}

fn halves_join(halves: vec4<u32>) -> vec2<u32> {
    return vec2<u32>(halves.x | (halves.y << 16u), halves.z | (halves.w << 16u));
}

fn bytes_split(word: u32) -> vec4<u32> {
    return (vec4<u32>(word) >> vec4<u32>(0u, 8u, 16u, 24u)) & vec4<u32>(0xffu);
}

fn bytes_join(bytes: vec4<u32>) -> u32 {
    return (bytes.x & 0xffu) | ((bytes.y & 0xffu) << 8u) | ((bytes.z & 0xffu) << 16u) | (bytes.w << 24u);
}

fn i64_at(words: vec2<u32>) -> I64 {
    return I64(words.x, words.y);
}

fn i64_words(x: I64) -> vec2<u32> {
    return vec2<u32>(x.lo, x.hi);
}

fn i64_split(first: vec4<u32>, second: vec4<u32>) -> I64x4 {
    let low = vec4<u32>(first.x, first.z, second.x, second.z);
    let high = vec4<u32>(first.y, first.w, second.y, second.w);
    return I64x4(low, high);
}

fn i64_join(a: I64, b: I64, c: I64, d: I64) -> I64x4 {
    return I64x4(vec4<u32>(a.lo, b.lo, c.lo, d.lo), vec4<u32>(a.hi, b.hi, c.hi, d.hi));
}

fn i64_splat(x: I64) -> I64x4 {
    return I64x4(vec4<u32>(x.lo), vec4<u32>(x.hi));
}

fn i64_x(v: I64x4) -> I64 {
    return I64(v.lo.x, v.hi.x);
}

fn i64_y(v: I64x4) -> I64 {
    return I64(v.lo.y, v.hi.y);
}

fn i64_z(v: I64x4) -> I64 {
    return I64(v.lo.z, v.hi.z);
}

fn i64_w(v: I64x4) -> I64 {
    return I64(v.lo.w, v.hi.w);
}

fn d_at(words: vec2<u32>) -> f64 {
    return d_of(words.x, words.y);
}

fn d_words(x: f64) -> vec2<u32> {
    return vec2<u32>(d_low(x), d_high(x));
}

fn d_split(first: vec4<u32>, second: vec4<u32>) -> vec4<f64> {
    let low = vec4<u32>(first.x, first.z, second.x, second.z);
    let high = vec4<u32>(first.y, first.w, second.y, second.w);
    return d_of4(low, high);
}

fn d_pair(x: vec4<f64>) -> I64x4 {
    return I64x4(d_low4(x), d_high4(x));
}
