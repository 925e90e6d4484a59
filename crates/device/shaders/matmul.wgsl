// The loop of a matrix product. 256 invocations compute 64 x 64 elements of the result, in steps of 16 along
// the inner dim. The rows of a slice are 68 long, so that neighbouring invocations write to different banks.
let first_row = row_tile * 64u;
let first_column = column_tile * 64u;
let row_in_tile = local / 16u * 4u;
let column_in_tile = local % 16u * 4u;
var sum0 = {{four}}(0);
var sum1 = {{four}}(0);
var sum2 = {{four}}(0);
var sum3 = {{four}}(0);
for (var k0 = 0u; k0 < {{inner}}; k0 += 16u) {
    for (var fetch = local; fetch < 1024u; fetch += 256u) {
{{fetch_left}}
{{fetch_right}}
    }
    workgroupBarrier();
    for (var k = 0u; k < 16u; k++) {
        let at = k * 68u + column_in_tile;
        let right =
            {{four}}(right_slice[at], right_slice[at + 1u], right_slice[at + 2u], right_slice[at + 3u]);
        let beside = k * 68u + row_in_tile;
        sum0 += left_slice[beside] * right;
        sum1 += left_slice[beside + 1u] * right;
        sum2 += left_slice[beside + 2u] * right;
        sum3 += left_slice[beside + 3u] * right;
    }
    workgroupBarrier();
}
let row = first_row + row_in_tile;
let column = first_column + column_in_tile;
