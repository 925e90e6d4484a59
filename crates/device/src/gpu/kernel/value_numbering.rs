//! Which values of a body are the same: compilers take `x - x` for 0 and `x / x` for 1, which infinities and
//! NaN are not, and see through a value that is computed twice.

use std::collections::HashMap;

use crate::kernel::{Instr, Loop, Reg};

/// For each value the first that is computed in the same way from the same memory.
pub(super) fn representatives(kernel: &Loop) -> Vec<Reg> {
    let mut first: HashMap<Instr, Reg> = HashMap::new();
    let mut found: Vec<Reg> = Vec::with_capacity(kernel.body.len());
    for (reg, instr) in (0..).zip(&kernel.body) {
        let mut instr = instr.clone();
        instr.renumber(|reg| *reg = found[*reg as usize]);
        if let Instr::Load { access, .. } = &mut instr {
            let same = kernel.accesses.iter().position(|other| *other == kernel.accesses[*access]);
            *access = same.unwrap_or(*access);
        }
        found.push(*first.entry(instr).or_insert(reg));
    }
    found
}
