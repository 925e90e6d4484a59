// Moves all keys of a short row to their places by one digit: one invocation's share.
for (var digit = 0u; digit < 16u; digit++) {
    places[digit] = 0u;
}
for (var i = begin; i < end; i++) {
    places[({{keys}}[i] >> {{shift}}) & 15u]++;
}
next = begin;
for (var digit = 0u; digit < 16u; digit++) {
    let count = places[digit];
    places[digit] = next;
    next += count;
}
for (var i = begin; i < end; i++) {
    let key = {{keys}}[i];
    let digit = (key >> {{shift}}) & 15u;
    let place = places[digit];
    places[digit] = place + 1u;
    {{keys_moved}}[place] = key;
    {{order_moved}}[place] = {{order}}[i];
}
