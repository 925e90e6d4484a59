//! Value numbering: finds values of a body that are computed in the same way. Compilers simplify `x - x` to 0
//! and `x / x` to 1, which is wrong for infinities and NaN, and they recognise a value that is computed
//! twice. So such operations must be found here, to be written in another way.

use std::collections::HashMap;

use crate::kernel::{Instr, Loop, Reg};

/// For each value the first one that is computed in the same way from the same memory.
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
