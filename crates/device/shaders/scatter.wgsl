// Finds by bisection the sorted entries begin..end whose key is that of this element.
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
