// Finds the places of a block of a row's keys by one digit, from the scanned counts of all blocks.
let row_and_block = divide(thread, {{blocks}}, {{reciprocal}});
let row = row_and_block.x * {{length}};
let begin = row + row_and_block.y * {{share}};
let end = min(begin + {{share}}, row + {{length}});
let first = row_and_block.x * {{digits}} * {{blocks}};
var places: array<u32, {{digits}}>;
for (var digit = 0u; digit < {{digits}}; digit++) {
    let at = digit * {{blocks}} + row_and_block.y;
    var before = 0i;
    if (at > 0u) {
        before = counts[first + at - 1u];
    }
    places[digit] = row + u32(before);
}
