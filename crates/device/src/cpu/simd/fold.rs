//! Loops that fold lanes into accumulators: along rows, whose elements are contiguous, and along columns,
//! whose rows are.
//!
//! An accumulator is a value of [`FoldLoops::accumulator`] bytes and, for searches, an i64 position beside
//! it. Sums of f32 accumulate in f64 across blocks, and in f32 only over the few elements of a lane within a
//! block; products of f32 accumulate in f64 throughout. The order of all additions depends on sizes alone.
//! Loops are written out, because the iterator methods of the standard library are not always inlined and
//! then lose the vector width of their caller.
#![allow(unsafe_code)]

use std::marker::PhantomData;

use super::unary::map;
use super::{Full, Lean, Plain, Raw, SimdArgs, SimdBody, SimdLevel, Versions, input, output};
use crate::kernel::{ReduceOp, Ty};

/// The loops of one reduction over one type.
#[derive(Clone, Copy, Debug)]
pub struct FoldLoops {
    /// The bytes of an accumulated value.
    pub accumulator: usize,
    /// Whether each value has a position beside it.
    pub position: bool,
    /// The bits of the identity, from which a fold starts.
    pub identity: u64,
    /// Folds the n elements of row r of `a`, the first of which is at position `start`, into `dst[r]`.
    /// Positions are in `c`.
    pub rows: Raw,
    /// Folds the elements `a[r * n + i]` of all rows r, at positions `start + r`, into `dst[i]`. Positions
    /// are in `c`.
    pub columns: Raw,
    /// As `rows` and as `columns`, for the products of the elements of `a` and `b`; only for sums of f32.
    pub products: Option<[Raw; 2]>,
    /// Merges the n accumulators `a`, which belong to later elements, into `dst`. Positions are in `c` and,
    /// for `a`, in `b`.
    pub merge: Raw,
    /// Converts an accumulated value to the result; `None` if the result is the value itself, or its
    /// position.
    pub finish: Option<Raw>,
}

trait Folding {
    type In: Copy;
    type Acc: Copy;
    const IDENTITY: Self::Acc;
    fn step(acc: Self::Acc, x: Self::In) -> Self::Acc;
    fn merge(a: Self::Acc, b: Self::Acc) -> Self::Acc;
    fn slice<L: SimdLevel>(a: &[Self::In]) -> Self::Acc;
}

struct Values<F>(PhantomData<F>);

impl<F: Folding> SimdBody for Values<F> {
    #[inline(always)]
    unsafe fn run<L: SimdLevel>(args: &SimdArgs) {
        // SAFETY: the caller promises `rows` accumulators, and n lanes for each of them.
        let (dst, a) =
            unsafe { (output::<F::Acc>(args.dst, args.rows), input::<F::In>(args.a, args.rows * args.n)) };
        if args.n < 16 {
            for (acc, row) in dst.iter_mut().zip(a.chunks_exact(args.n.max(1))) {
                let mut sum = *acc;
                for &x in row {
                    sum = F::step(sum, x);
                }
                *acc = sum;
            }
        } else {
            for (acc, row) in dst.iter_mut().zip(a.chunks_exact(args.n)) {
                *acc = F::merge(*acc, F::slice::<L>(row));
            }
        }
    }
}

struct Columns<F>(PhantomData<F>);

impl<F: Folding> SimdBody for Columns<F> {
    #[inline(always)]
    unsafe fn run<L: SimdLevel>(args: &SimdArgs) {
        // SAFETY: the caller promises n accumulators, and `rows` rows of n lanes.
        let (dst, a) =
            unsafe { (output::<F::Acc>(args.dst, args.n), input::<F::In>(args.a, args.rows * args.n)) };
        for row in a.chunks_exact(args.n.max(1)) {
            for (acc, &x) in dst.iter_mut().zip(row) {
                *acc = F::step(*acc, x);
            }
        }
    }
}

struct Merged<F>(PhantomData<F>);

impl<F: Folding> SimdBody for Merged<F> {
    #[inline(always)]
    unsafe fn run<L: SimdLevel>(args: &SimdArgs) {
        // SAFETY: the caller promises n accumulators on each side.
        let (dst, a) = unsafe { (output::<F::Acc>(args.dst, args.n), input::<F::Acc>(args.a, args.n)) };
        for (acc, &x) in dst.iter_mut().zip(a) {
            *acc = F::merge(*acc, x);
        }
    }
}

/// An associative and commutative operation that joins elements of one type.
trait Join {
    type Of: Copy;
    const NEUTRAL: Self::Of;
    fn join(a: Self::Of, b: Self::Of) -> Self::Of;
}

/// Joins the elements `a[64 * k + i]` of all k into `dst[i]`, for i below 64.
struct Lanes<J>(PhantomData<J>);

impl<J: Join> SimdBody for Lanes<J> {
    #[inline(always)]
    unsafe fn run<L: SimdLevel>(args: &SimdArgs) {
        // SAFETY: the caller promises 64 accumulators and n lanes.
        let (dst, a) = unsafe { (output::<J::Of>(args.dst, 64), input::<J::Of>(args.a, args.n)) };
        let mut accumulators = [J::NEUTRAL; 64];
        for part in a.as_chunks::<64>().0 {
            for i in 0..64 {
                accumulators[i] = J::join(accumulators[i], part[i]);
            }
        }
        dst.copy_from_slice(&accumulators);
    }
}

/// Joins a slice into 64 lanes, and the lanes in a tree.
///
/// The loop over lanes is a call of its own: if it is inlined among other loops, its accumulators are kept in
/// memory instead of registers, and it takes three times as long.
#[inline(always)]
fn tree<J: Join, L: SimdLevel>(a: &[J::Of]) -> J::Of {
    let (whole, rest) = a.split_at(a.len() / 64 * 64);
    let mut lanes = [J::NEUTRAL; 64];
    if !whole.is_empty() {
        // SAFETY: `lanes` has 64 accumulators, and `whole` has `whole.len()` lanes.
        unsafe {
            L::version::<Lanes<J>>()(&SimdArgs::new(
                lanes.as_mut_ptr().cast(),
                whole.as_ptr().cast(),
                whole.len(),
            ))
        };
    }
    finish::<J>(&lanes, rest)
}

/// Joins 64 lanes and the remaining elements.
#[inline(always)]
fn finish<J: Join>(a: &[J::Of; 64], rest: &[J::Of]) -> J::Of {
    let step = J::join;
    let mut lanes = [J::NEUTRAL; 16];
    for i in 0..16 {
        lanes[i] = step(step(a[i], a[i + 16]), step(a[i + 32], a[i + 48]));
    }
    let (parts, rest) = rest.as_chunks::<16>();
    for part in parts {
        for i in 0..16 {
            lanes[i] = step(lanes[i], part[i]);
        }
    }
    let mut last = [J::NEUTRAL; 4];
    for i in 0..4 {
        last[i] = step(step(lanes[i], lanes[i + 4]), step(lanes[i + 8], lanes[i + 12]));
    }
    let mut all = step(step(last[0], last[1]), step(last[2], last[3]));
    for &x in rest {
        all = step(all, x);
    }
    all
}

/// A fold whose accumulator is of the elements' type.
macro_rules! same {
    ($versions:ident, $ty:ty, $identity:expr, |$a:ident, $b:ident| $step:expr) => {{
        struct FoldFn;
        impl Folding for FoldFn {
            type In = $ty;
            type Acc = $ty;
            const IDENTITY: $ty = $identity;
            #[inline(always)]
            fn step($a: $ty, $b: $ty) -> $ty {
                $step
            }
            #[inline(always)]
            fn merge(a: $ty, b: $ty) -> $ty {
                Self::step(a, b)
            }
            #[inline(always)]
            fn slice<L: SimdLevel>(a: &[$ty]) -> $ty {
                tree::<Self, L>(a)
            }
        }
        impl Join for FoldFn {
            type Of = $ty;
            const NEUTRAL: $ty = $identity;
            #[inline(always)]
            fn join(a: $ty, b: $ty) -> $ty {
                Self::step(a, b)
            }
        }
        values::<FoldFn, $versions>(None, |identity| u64_of(identity.to_ne_bytes()))
    }};
}

/// The sum of f32 in f64.
struct Sum32;
impl Folding for Sum32 {
    type In = f32;
    type Acc = f64;
    const IDENTITY: f64 = 0.0;
    #[inline(always)]
    fn step(acc: f64, x: f32) -> f64 {
        acc + f64::from(x)
    }
    #[inline(always)]
    fn merge(a: f64, b: f64) -> f64 {
        a + b
    }
    #[inline(always)]
    fn slice<L: SimdLevel>(a: &[f32]) -> f64 {
        let mut sum = 0.0;
        for part in a.chunks(1024) {
            sum += f64::from(tree::<Sum32, L>(part));
        }
        sum
    }
}

impl Join for Sum32 {
    type Of = f32;
    const NEUTRAL: f32 = 0.0;
    #[inline(always)]
    fn join(a: f32, b: f32) -> f32 {
        a + b
    }
}

/// The product of f32 in f64, since in f32 each factor would add a rounding error of the whole product.
struct Prod32;
impl Folding for Prod32 {
    type In = f32;
    type Acc = f64;
    const IDENTITY: f64 = 1.0;
    #[inline(always)]
    fn step(acc: f64, x: f32) -> f64 {
        acc * f64::from(x)
    }
    #[inline(always)]
    fn merge(a: f64, b: f64) -> f64 {
        a * b
    }
    #[inline(always)]
    fn slice<L: SimdLevel>(a: &[f32]) -> f64 {
        let mut product = 1.0;
        for part in a.chunks(256) {
            let mut wide = [1.0; 256];
            for (wide, &x) in wide.iter_mut().zip(part) {
                *wide = f64::from(x);
            }
            product *= tree::<Prod32, L>(&wide[..part.len()]);
        }
        product
    }
}

impl Join for Prod32 {
    type Of = f64;
    const NEUTRAL: f64 = 1.0;
    #[inline(always)]
    fn join(a: f64, b: f64) -> f64 {
        a * b
    }
}

/// As [`Lanes`], for products.
struct ProductLanes;

impl SimdBody for ProductLanes {
    #[inline(always)]
    unsafe fn run<L: SimdLevel>(args: &SimdArgs) {
        // SAFETY: the caller promises 64 accumulators, and n lanes of each factor.
        let (dst, a, b) = unsafe {
            (output::<f32>(args.dst, 64), input::<f32>(args.a, args.n), input::<f32>(args.b, args.n))
        };
        let mut sums = [0.0; 64];
        for (a, b) in a.as_chunks::<64>().0.iter().zip(b.as_chunks::<64>().0) {
            for i in 0..64 {
                sums[i] += a[i] * b[i];
            }
        }
        dst.copy_from_slice(&sums);
    }
}

/// Sums of products over rows.
struct ProductRows;

impl SimdBody for ProductRows {
    #[inline(always)]
    unsafe fn run<L: SimdLevel>(args: &SimdArgs) {
        let lanes = args.rows * args.n;
        // SAFETY: the caller promises `rows` accumulators, and n lanes of each factor for each of them.
        let (dst, a, b) = unsafe {
            (output::<f64>(args.dst, args.rows), input::<f32>(args.a, lanes), input::<f32>(args.b, lanes))
        };
        let n = args.n.max(1);
        for ((acc, a), b) in dst.iter_mut().zip(a.chunks_exact(n)).zip(b.chunks_exact(n)) {
            for (a, b) in a.chunks(1024).zip(b.chunks(1024)) {
                let whole = a.len() / 64 * 64;
                let mut sums = [0.0; 64];
                let mut rest = [0.0; 64];
                for ((product, x), y) in rest.iter_mut().zip(&a[whole..]).zip(&b[whole..]) {
                    *product = x * y;
                }
                if whole > 0 {
                    let sums = sums.as_mut_ptr().cast();
                    // SAFETY: `sums` has 64 accumulators, and both factors have at least `whole` lanes.
                    unsafe {
                        L::version::<ProductLanes>()(&SimdArgs {
                            b: b.as_ptr().cast(),
                            ..SimdArgs::new(sums, a.as_ptr().cast(), whole)
                        });
                    }
                }
                *acc += f64::from(finish::<Sum32>(&sums, &rest[..a.len() - whole]));
            }
        }
    }
}

/// Sums of products over columns.
struct ProductColumns;

impl SimdBody for ProductColumns {
    #[inline(always)]
    unsafe fn run<L: SimdLevel>(args: &SimdArgs) {
        let lanes = args.rows * args.n;
        // SAFETY: the caller promises n accumulators, and `rows` rows of n lanes of each factor.
        let (dst, a, b) = unsafe {
            (output::<f64>(args.dst, args.n), input::<f32>(args.a, lanes), input::<f32>(args.b, lanes))
        };
        let n = args.n.max(1);
        for (a, b) in a.chunks_exact(n).zip(b.chunks_exact(n)) {
            for ((acc, &a), &b) in dst.iter_mut().zip(a).zip(b) {
                *acc += f64::from(a * b);
            }
        }
    }
}

/// The bytes of a value in a u64, in memory order, as the interpreter copies them.
fn u64_of<const N: usize>(bytes: [u8; N]) -> u64 {
    let mut all = [0; 8];
    all[..N].copy_from_slice(&bytes);
    u64::from_ne_bytes(all)
}

fn values<F: Folding, V: Versions>(finish: Option<Raw>, bits: impl Fn(F::Acc) -> u64) -> FoldLoops {
    FoldLoops {
        accumulator: size_of::<F::Acc>(),
        position: false,
        identity: bits(F::IDENTITY),
        rows: V::pick::<Values<F>>(),
        columns: V::pick::<Columns<F>>(),
        products: None,
        merge: Plain::pick::<Merged<F>>(),
        finish,
    }
}

/// A search for the first best value.
trait Best {
    type In: Copy + PartialEq;
    const WORST: Self::In;
    /// Whether `a` is better than `b`; false for equal values.
    fn beats(a: Self::In, b: Self::In) -> bool;
}

struct BestRows<B>(PhantomData<B>);

impl<B: Best> SimdBody for BestRows<B> {
    #[inline(always)]
    unsafe fn run<L: SimdLevel>(args: &SimdArgs) {
        // SAFETY: the caller promises `rows` accumulators and positions, and n lanes for each of them.
        let (dst, positions, a) = unsafe {
            (
                output::<B::In>(args.dst, args.rows),
                output::<i64>(args.c.cast_mut(), args.rows),
                input::<B::In>(args.a, args.rows * args.n),
            )
        };
        let rows = a.chunks_exact(args.n.max(1));
        for ((acc, position), row) in dst.iter_mut().zip(positions).zip(rows) {
            let best = tree::<BestRows<B>, L>(row);
            if B::beats(best, *acc) {
                // NaN differs from itself, so its position is that of the first element that the best value
                // does not beat.
                let first = row.iter().position(|&x| x == best || !B::beats(best, x));
                *acc = best;
                *position = (args.start + first.unwrap_or(0)) as i64;
            }
        }
    }
}

impl<B: Best> Join for BestRows<B> {
    type Of = B::In;
    const NEUTRAL: B::In = B::WORST;
    #[inline(always)]
    fn join(a: B::In, b: B::In) -> B::In {
        if B::beats(b, a) { b } else { a }
    }
}

struct BestColumns<B>(PhantomData<B>);

impl<B: Best> SimdBody for BestColumns<B> {
    #[inline(always)]
    unsafe fn run<L: SimdLevel>(args: &SimdArgs) {
        // SAFETY: the caller promises n accumulators and positions, and `rows` rows of n lanes.
        let (dst, positions, a) = unsafe {
            (
                output::<B::In>(args.dst, args.n),
                output::<i64>(args.c.cast_mut(), args.n),
                input::<B::In>(args.a, args.rows * args.n),
            )
        };
        for (row, a) in a.chunks_exact(args.n.max(1)).enumerate() {
            let here = (args.start + row) as i64;
            for ((acc, position), &x) in dst.iter_mut().zip(positions.iter_mut()).zip(a) {
                let better = B::beats(x, *acc);
                *acc = if better { x } else { *acc };
                *position = if better { here } else { *position };
            }
        }
    }
}

struct BestMerged<B>(PhantomData<B>);

impl<B: Best> SimdBody for BestMerged<B> {
    #[inline(always)]
    unsafe fn run<L: SimdLevel>(args: &SimdArgs) {
        // SAFETY: the caller promises n accumulators and n positions on each side.
        let (dst, positions, a, others) = unsafe {
            (
                output::<B::In>(args.dst, args.n),
                output::<i64>(args.c.cast_mut(), args.n),
                input::<B::In>(args.a, args.n),
                input::<i64>(args.b, args.n),
            )
        };
        for (((acc, position), &x), &other) in dst.iter_mut().zip(positions).zip(a).zip(others) {
            if B::beats(x, *acc) {
                *acc = x;
                *position = other;
            }
        }
    }
}

macro_rules! best {
    ($versions:ident, $ty:ty, $worst:expr, |$a:ident, $b:ident| $beats:expr) => {{
        struct BestFn;
        impl Best for BestFn {
            type In = $ty;
            const WORST: $ty = $worst;
            #[inline(always)]
            fn beats($a: $ty, $b: $ty) -> bool {
                $beats
            }
        }
        FoldLoops {
            accumulator: size_of::<$ty>(),
            position: true,
            identity: u64_of(BestFn::WORST.to_ne_bytes()),
            rows: $versions::pick::<BestRows<BestFn>>(),
            columns: $versions::pick::<BestColumns<BestFn>>(),
            products: None,
            merge: Plain::pick::<BestMerged<BestFn>>(),
            finish: None,
        }
    }};
}

macro_rules! integer {
    ($versions:ident, $op:expr, $ty:ident) => {
        match $op {
            ReduceOp::Sum => same!($versions, $ty, 0, |a, b| a.wrapping_add(b)),
            ReduceOp::Prod => same!($versions, $ty, 1, |a, b| a.wrapping_mul(b)),
            ReduceOp::Max => same!($versions, $ty, $ty::MIN, |a, b| a.max(b)),
            ReduceOp::Min => same!($versions, $ty, $ty::MAX, |a, b| a.min(b)),
            ReduceOp::ArgMax => best!($versions, $ty, $ty::MIN, |a, b| a > b),
            ReduceOp::ArgMin => best!($versions, $ty, $ty::MAX, |a, b| a < b),
        }
    };
}

macro_rules! float {
    ($versions:ident, $op:expr, $ty:ident, $sum:expr, $product:expr) => {
        match $op {
            ReduceOp::Sum => $sum,
            ReduceOp::Prod => $product,
            ReduceOp::Max => {
                same!($versions, $ty, $ty::NEG_INFINITY, |a, b| if (a > b) | a.is_nan() { a } else { b })
            }
            ReduceOp::Min => {
                same!($versions, $ty, $ty::INFINITY, |a, b| if (a < b) | a.is_nan() { a } else { b })
            }
            ReduceOp::ArgMax => {
                best!($versions, $ty, $ty::NEG_INFINITY, |a, b| (a > b) | (a.is_nan() & !b.is_nan()))
            }
            ReduceOp::ArgMin => {
                best!($versions, $ty, $ty::INFINITY, |a, b| (a < b) | (a.is_nan() & !b.is_nan()))
            }
        }
    };
}

/// The loops of a reduction over values of this type.
pub fn fold(op: ReduceOp, ty: Ty) -> FoldLoops {
    let narrow = || Some(map!(Lean, f64 => f32, |x| x as f32));
    let bits = |identity: f64| u64_of(identity.to_ne_bytes());
    match ty {
        Ty::F32 => float!(
            Full,
            op,
            f32,
            FoldLoops {
                products: Some([Full::pick::<ProductRows>(), Full::pick::<ProductColumns>()]),
                ..values::<Sum32, Full>(narrow(), bits)
            },
            values::<Prod32, Full>(narrow(), bits)
        ),
        Ty::F64 => {
            float!(Lean, op, f64, same!(Lean, f64, 0.0, |a, b| a + b), same!(Lean, f64, 1.0, |a, b| a * b))
        }
        Ty::I32 => integer!(Lean, op, i32),
        Ty::I64 => integer!(Lean, op, i64),
        Ty::U32 => integer!(Plain, op, u32),
        Ty::Bool => match op {
            ReduceOp::Max | ReduceOp::Sum => same!(Plain, u8, 0, |a, b| a | b),
            ReduceOp::Min | ReduceOp::Prod => same!(Plain, u8, 1, |a, b| a & b),
            ReduceOp::ArgMax => best!(Plain, u8, 0, |a, b| a > b),
            ReduceOp::ArgMin => best!(Plain, u8, 1, |a, b| a < b),
        },
    }
}
