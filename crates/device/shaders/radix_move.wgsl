// Moves 256 keys to their places by one digit, those with equal digits in their order.
let begin = thread * 256u;
let end = min(begin + 256u, {{count}});
var places: array<u32, 16>;
for (var digit = 0u; digit < 16u; digit++) {
    let at = digit * {{blocks}} + thread;
    var before = 0i;
    if (at > 0u) {
        before = digits[at - 1u];
    }
    places[digit] = u32(before);
}
for (var i = begin; i < end; i++) {
    let key = keys[i];
    let digit = (key >> {{shift}}) & 15u;
    let place = places[digit];
    places[digit] = place + 1u;
    keys_moved[place] = key;
    order_moved[place] = order[i];
}
