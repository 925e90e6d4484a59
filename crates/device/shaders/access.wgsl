// Indices that come from data. They are checked, reported if they are out of range, and clamped.

fn report_index(op: u32, size: u32, index: vec2<u32>) {
    if (atomicAdd(&internal.failures, 1u) == 0u) {
        internal.op = op;
        internal.size = size;
        internal.index_lo = index.x;
        internal.index_hi = index.y;
    }
}

fn checked_i32(index: i32, size: u32, op: u32, counts: bool) -> u32 {
    let place = bitcast<u32>(index);
    if (place >= size && counts) {
        report_index(op, size, vec2<u32>(place, bitcast<u32>(index >> 31u)));
    }
    return select(0u, place, place < size);
}

fn checked_i64(index: I64, size: u32, op: u32, counts: bool) -> u32 {
    let inside = index.hi == 0u && index.lo < size;
    if (!inside && counts) {
        report_index(op, size, vec2<u32>(index.lo, index.hi));
    }
    return select(0u, index.lo, inside);
}

fn checked_i32x4(index: vec4<i32>, size: u32, op: u32, counts: vec4<bool>) -> vec4<u32> {
    return vec4<u32>(
        checked_i32(index.x, size, op, counts.x),
        checked_i32(index.y, size, op, counts.y),
        checked_i32(index.z, size, op, counts.z),
        checked_i32(index.w, size, op, counts.w),
    );
}

fn checked_i64x4(index: I64x4, size: u32, op: u32, counts: vec4<bool>) -> vec4<u32> {
    return vec4<u32>(
        checked_i64(i64_x(index), size, op, counts.x),
        checked_i64(i64_y(index), size, op, counts.y),
        checked_i64(i64_z(index), size, op, counts.z),
        checked_i64(i64_w(index), size, op, counts.w),
    );
}
