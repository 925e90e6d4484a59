//! Which values of a body are the same: compilers take `x - x` for 0 and `x / x` for 1, which infinities and NaN are not,
//! and see through a value that is computed twice.

use std::collections::HashMap;

use crate::kernel::{Instr, Loop, Reg};

/// For each value the first that is computed in the same way from the same memory.
pub(super) fn representatives(kernel: &Loop) -> Vec<Reg> {
    let mut first: HashMap<Instr, Reg> = HashMap::new();
    let mut found: Vec<Reg> = Vec::with_capacity(kernel.body.len());
    for (reg, instr) in (0..).zip(&kernel.body) {
        let mut instr = instr.clone();
        let of = |reg: &mut Reg| *reg = found[*reg as usize];
        match &mut instr {
            Instr::Load { access, indices } => {
                let same = kernel.accesses.iter().position(|other| *other == kernel.accesses[*access]);
                *access = same.unwrap_or(*access);
                indices.iter_mut().for_each(of);
            }
            Instr::Unary { a, .. } | Instr::Cast { a, .. } | Instr::Reduce { a, .. } => of(a),
            Instr::Philox { index, .. } => of(index),
            Instr::Binary { a, b, .. } => [a, b].into_iter().for_each(of),
            Instr::Select { cond, a, b } => [cond, a, b].into_iter().for_each(of),
            Instr::Accumulator
            | Instr::Param { .. }
            | Instr::Const(_)
            | Instr::Coord { .. }
            | Instr::InRange { .. } => {}
        }
        found.push(*first.entry(instr).or_insert(reg));
    }
    found
}
