// A bitonic sorting network in workgroup memory: sorts rows of keys together with their places. Each step has
// 512 compare-and-exchange operations, two for each invocation.
workgroupBarrier();
for (var run = 2u; run <= {{padded}}; run <<= 1u) {
    for (var reach = run >> 1u; reach > 0u; reach >>= 1u) {
        for (var pair = local; pair < 512u; pair += 256u) {
            let a = 2u * pair - (pair & (reach - 1u));
            let b = a + reach;
            let place_a = places[a];
            let place_b = places[b];
            {{load}}
            let is_rising = (a & run & ({{padded}} - 1u)) == 0u;
            if (({{after}}) == is_rising) {
                places[a] = place_b;
                places[b] = place_a;
                {{exchange}}
            }
        }
        workgroupBarrier();
    }
}
