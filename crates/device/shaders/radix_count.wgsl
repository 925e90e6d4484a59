// Counts the digits of a block of a row's keys. Each invocation counts one block.
let row_and_block = divide(thread, {{blocks}}, {{reciprocal}});
let begin = row_and_block.x * {{length}} + row_and_block.y * {{share}};
let end = min(begin + {{share}}, (row_and_block.x + 1u) * {{length}});
var places: array<u32, {{digits}}>;
for (var digit = 0u; digit < {{digits}}; digit++) {
    places[digit] = 0u;
}
for (var i = begin; i < end; i++) {
    places[(keys[i] >> {{shift}}) & {{mask}}]++;
}
let first = row_and_block.x * {{digits}} * {{blocks}} + row_and_block.y;
for (var digit = 0u; digit < {{digits}}; digit++) {
    counts[first + digit * {{blocks}}] = i32(places[digit]);
}
