// How often each digit occurs among 256 keys of a row: one invocation's share.
let row_and_block = divide(thread, {{blocks}}, {{reciprocal}});
let begin = row_and_block.x * {{length}} + row_and_block.y * 256u;
let end = min(begin + 256u, (row_and_block.x + 1u) * {{length}});
var counts: array<u32, 16>;
for (var digit = 0u; digit < 16u; digit++) {
    counts[digit] = 0u;
}
for (var i = begin; i < end; i++) {
    counts[(keys[i] >> {{shift}}) & 15u]++;
}
let first = row_and_block.x * 16u * {{blocks}} + row_and_block.y;
for (var digit = 0u; digit < 16u; digit++) {
    digits[first + digit * {{blocks}}] = i32(counts[digit]);
}
