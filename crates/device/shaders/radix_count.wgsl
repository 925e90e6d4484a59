// How often each digit occurs among 256 keys: one invocation's share.
let begin = thread * 256u;
let end = min(begin + 256u, {{count}});
var counts: array<u32, 16>;
for (var digit = 0u; digit < 16u; digit++) {
    counts[digit] = 0u;
}
for (var i = begin; i < end; i++) {
    counts[(keys[i] >> {{shift}}) & 15u]++;
}
for (var digit = 0u; digit < 16u; digit++) {
    digits[digit * {{blocks}} + thread] = i32(counts[digit]);
}
