// Finds the places of a short row's keys by one digit. Each invocation sorts one row.
let begin = thread * {{length}};
let end = begin + {{length}};
var places: array<u32, {{digits}}>;
for (var digit = 0u; digit < {{digits}}; digit++) {
    places[digit] = 0u;
}
for (var i = begin; i < end; i++) {
    places[(keys[i] >> {{shift}}) & {{mask}}]++;
}
var next = begin;
for (var digit = 0u; digit < {{digits}}; digit++) {
    let count = places[digit];
    places[digit] = next;
    next += count;
}
