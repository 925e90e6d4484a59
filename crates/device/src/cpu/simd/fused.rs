//! Two operations on f32 in one loop, so that the intermediate value stays in a register.
//!
//! Each operation rounds its result as it would alone.
#![allow(unsafe_code)]

use super::{Full, Raw, SimdArgs, SimdBody, SimdLevel, Versions, input, output};
use crate::kernel::BinaryOp;

const ADD: u8 = 0;
const SUB: u8 = 1;
const MUL: u8 = 2;
/// The second operation subtracts the intermediate value from the third operand.
const FROM: u8 = 3;

/// `dst[i] = (a[i] FIRST b[i]) SECOND c[i]` for i below n. `A`, `B` and `C` say which operands have lanes;
/// the others have one value.
struct Fused<const FIRST: u8, const SECOND: u8, const A: bool, const B: bool, const C: bool>;

impl<const FIRST: u8, const SECOND: u8, const A: bool, const B: bool, const C: bool> SimdBody
    for Fused<FIRST, SECOND, A, B, C>
{
    #[inline(always)]
    unsafe fn run<L: SimdLevel>(args: &SimdArgs) {
        let n = args.n;
        let lanes = |all: bool| if all { n } else { 1 };
        // SAFETY: the caller promises n lanes, or one value for an operand without lanes.
        let (dst, a, b, c) = unsafe {
            (
                output::<f32>(args.dst, n),
                input::<f32>(args.a, lanes(A)),
                input::<f32>(args.b, lanes(B)),
                input::<f32>(args.c, lanes(C)),
            )
        };
        let (first_a, first_b, first_c) = (a[0], b[0], c[0]);
        for i in 0..n {
            let a = if A { a[i] } else { first_a };
            let b = if B { b[i] } else { first_b };
            let c = if C { c[i] } else { first_c };
            let first = match FIRST {
                ADD => a + b,
                SUB => a - b,
                _ => a * b,
            };
            dst[i] = match SECOND {
                ADD => first + c,
                SUB => first - c,
                MUL => first * c,
                _ => c - first,
            };
        }
    }
}

/// The loops of two operations.
#[derive(Clone, Copy, Debug)]
pub struct Pairing {
    /// The forms by which operands of the first operation have lanes (both, only the first, only the second),
    /// then by whether the third operand has lanes.
    forms: [[Raw; 2]; 3],
}

impl Pairing {
    /// The loop for operands of which `single` ones have one value. Not both operands of the first operation
    /// may be single.
    pub fn form(&self, single: [bool; 3]) -> Raw {
        let pattern = match single {
            [false, false, _] => 0,
            [false, true, _] => 1,
            _ => 2,
        };
        self.forms[pattern][usize::from(single[2])]
    }
}

fn forms<const FIRST: u8, const SECOND: u8>() -> Pairing {
    Pairing {
        forms: [
            [
                Full::pick::<Fused<FIRST, SECOND, true, true, true>>(),
                Full::pick::<Fused<FIRST, SECOND, true, true, false>>(),
            ],
            [
                Full::pick::<Fused<FIRST, SECOND, true, false, true>>(),
                Full::pick::<Fused<FIRST, SECOND, true, false, false>>(),
            ],
            [
                Full::pick::<Fused<FIRST, SECOND, false, true, true>>(),
                Full::pick::<Fused<FIRST, SECOND, false, true, false>>(),
            ],
        ],
    }
}

/// The loops of `(a first b) second c` or, if `reversed`, of `c second (a first b)`; `None` if there are
/// none.
pub fn fused(first: BinaryOp, second: BinaryOp, reversed: bool) -> Option<Pairing> {
    use BinaryOp::{Add, Mul, Sub};
    Some(match (first, second, reversed) {
        (Add, Add, _) => forms::<ADD, ADD>(),
        (Add, Sub, false) => forms::<ADD, SUB>(),
        (Add, Sub, true) => forms::<ADD, FROM>(),
        (Add, Mul, _) => forms::<ADD, MUL>(),
        (Sub, Add, _) => forms::<SUB, ADD>(),
        (Sub, Sub, false) => forms::<SUB, SUB>(),
        (Sub, Sub, true) => forms::<SUB, FROM>(),
        (Sub, Mul, _) => forms::<SUB, MUL>(),
        (Mul, Add, _) => forms::<MUL, ADD>(),
        (Mul, Sub, false) => forms::<MUL, SUB>(),
        (Mul, Sub, true) => forms::<MUL, FROM>(),
        (Mul, Mul, _) => forms::<MUL, MUL>(),
        _ => return None,
    })
}
