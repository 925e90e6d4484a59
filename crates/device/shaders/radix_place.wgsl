// Moves the keys `begin..end` to the places of their digits. Keys with equal digits keep their order.
for (var i = begin; i < end; i++) {
    let key = keys[i];
    let digit = (key >> {{shift}}) & {{mask}};
    let place = places[digit];
    places[digit] = place + 1u;
    keys_moved[place] = key;
    order_moved[place] = order[i];
}
