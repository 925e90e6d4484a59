// The state of a search for the first best element. Larger keys are better, and among equal keys smaller
// positions.

fn best_of(a: BEST, b: BEST) -> BEST {
    let take = (b.key > a.key) | ((b.key == a.key) & (b.at < a.at));
    return BEST(select(a.key, b.key, take), select(a.at, b.at, take));
}

fn best64_of(a: BEST64, b: BEST64) -> BEST64 {
    let take = u64_lt(a.key, b.key) | (i64_eq(a.key, b.key) & (b.at < a.at));
    return BEST64(i64_select(a.key, b.key, take), select(a.at, b.at, take));
}
