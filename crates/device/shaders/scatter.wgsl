// The entries begin..end of the sorted list that meet this element, and their values joined to what is there.
var low = 0u;
var high = {{entries}};
for (var probe = 0; probe < 32; probe++) {
    if (low >= high) {
        break;
    }
    let middle = (low + high) / 2u;
    if (keys[middle] < key) {
        low = middle + 1u;
    } else {
        high = middle;
    }
}
let begin = low;
high = {{entries}};
for (var probe = 0; probe < 32; probe++) {
    if (low >= high) {
        break;
    }
    let middle = (low + high) / 2u;
    if (keys[middle] <= key) {
        low = middle + 1u;
    } else {
        high = middle;
    }
}
let end = select(begin, low, is_target);
