//! Products of a matrix and a vector, as loops.

use smallvec::smallvec;

use crate::DType;
use crate::kernel::{Access, BinaryOp, Instr, Loop, Matmul, ReduceOp, Reg};

/// The product of a matrix and a vector as a loop with a sum. Such a product reads the matrix once, and
/// packing it for the blocked product would cost more than the sum. `None` if neither factor is a vector.
pub fn as_loop(kernel: &Matmul) -> Option<Loop> {
    let rank = kernel.epilogue.sizes.len();
    let sizes = kernel.epilogue.sizes.get(rank.checked_sub(2)?..)?;
    let fits = |access: &Access| access.strides.len() == rank && access.dtype != DType::Bool;
    let single = kernel.lhs_parts.are_single() && kernel.rhs_parts.are_single();
    if !single
        || !sizes.contains(&1)
        || !fits(&kernel.lhs)
        || !fits(&kernel.rhs)
        || kernel.epilogue.inner != 0
    {
        return None;
    }
    let ordered = |(i, instr): (usize, &Instr)| instr.operands().iter().all(|&r| (r as usize) < i);
    if !kernel.epilogue.body.iter().enumerate().all(ordered) {
        return None;
    }
    // The dim that is summed over becomes the innermost dim of the loop.
    let mut sum = kernel.epilogue.clone();
    sum.inner = 1;
    sum.sizes.push(kernel.k);
    for strides in
        sum.accesses.iter_mut().map(|a| &mut a.strides).chain(sum.ranges.iter_mut().map(|r| &mut r.strides))
    {
        strides.push(0);
    }
    let factors = sum.accesses.len();
    for (access, dim) in [(&kernel.lhs, rank - 1), (&kernel.rhs, rank - 2)] {
        let mut access = access.clone();
        let along = std::mem::replace(&mut access.strides[dim], 0);
        access.strides.push(along);
        sum.accesses.push(access);
    }
    let load = |access: usize| Instr::Load { access, indices: smallvec![] };
    let product = [
        load(factors),
        load(factors + 1),
        Instr::Binary { op: BinaryOp::Mul, a: 0, b: 1 },
        Instr::Reduce { op: ReduceOp::Sum, a: 2 },
    ];
    // Each `Accumulator` instruction becomes the sum; all other registers are renumbered to follow it.
    let first = product.len() as Reg;
    let places: Vec<Reg> = kernel
        .epilogue
        .body
        .iter()
        .scan(first, |next, instr| {
            let own = *next;
            *next += Reg::from(*instr != Instr::Accumulator);
            Some(if *instr == Instr::Accumulator { first - 1 } else { own })
        })
        .collect();
    sum.body.retain(|instr| *instr != Instr::Accumulator);
    for instr in &mut sum.body {
        instr.renumber(|reg| *reg = places[*reg as usize]);
    }
    sum.body.splice(0..0, product);
    for store in &mut sum.stores {
        store.value = *places.get(store.value as usize)?;
    }
    Some(sum)
}
