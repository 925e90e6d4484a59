//! How the invocations of a workgroup, who all need the same elements of the left operand, get them.
//!
//! Where a workgroup is one subgroup, each invocation loads elements of its own and tells the others; else each loads them all.

use super::tiles::{C, Operand, part};
use crate::gpu::kernel::emit::Emitter;
use crate::kernel::Ty;

/// The left operand's elements of a tile's rows.
pub(super) struct Left<'o, 'p> {
    operand: &'o Operand<'p>,
    rows: usize,
    /// The invocations of a workgroup, if they tell each other.
    told_by: Option<usize>,
    row_count: &'o str,
    ty: Ty,
}

impl<'o, 'p> Left<'o, 'p> {
    pub(super) fn new(
        operand: &'o Operand<'p>,
        rows: usize,
        told_by: Option<usize>,
        row_count: &'o str,
        ty: Ty,
    ) -> Self {
        // Only numbers can be told.
        let told_by = told_by.filter(|_| matches!(ty, Ty::F32 | Ty::I32));
        Left { operand, rows, told_by, row_count, ty }
    }

    /// Defines where rows begin.
    pub(super) fn begin(&self, e: &mut Emitter<'_>) {
        let (count, stride) = (self.row_count, &self.operand.outer_stride);
        let Some(lanes) = self.told_by else {
            for r in 0..self.rows {
                e.line(format!("let row{r} = left_batch + min(first_row + {r}u, {count} - 1u) * {stride};"));
            }
            return;
        };
        for q in 0..self.rows.div_ceil(lanes) {
            let first = format!("first_row + {}u", q * lanes);
            e.line(format!("let row{q} = left_batch + min({first} + local, {count} - 1u) * {stride};"));
            if self.operand.along_outer {
                // Rows are a multiple of four: an invocation beyond reads the last ones.
                e.line(format!("let rows{q} = left_batch + min({first} + local / 4u * 4u, {count} - 4u);"));
            }
        }
    }

    /// Loads the elements of four steps along the inner dim, beginning at `k`, that this invocation is to load for row `r` or
    /// those that follow.
    pub(super) fn load_four(&self, e: &mut Emitter<'_>, r: usize) {
        let operand = self.operand;
        let stride = &operand.inner_stride;
        let q = match self.told_by {
            None => r,
            Some(lanes) if r.is_multiple_of(lanes) => r / lanes,
            Some(_) => return,
        };
        if operand.along_inner {
            e.line(format!("let left{q} = {};", operand.memory().load_vector(&format!("(row{q} + k)"))));
        } else if operand.along_outer && self.told_by.is_some() {
            let at = format!("(rows{q} + (k + local % 4u) * {stride})");
            e.line(format!("let left{q} = {};", operand.memory().load_vector(&at)));
        } else {
            for j in 0..4 {
                let value = operand.load(&format!("(row{q} + (k + {j}u) * {stride})"));
                e.line(format!("let left{q}_{j} = {value};"));
            }
        }
    }

    /// The element of row `r` and the `j`-th of the four steps.
    pub(super) fn of_four(&self, r: usize, j: usize) -> String {
        let operand = self.operand;
        let Some(lanes) = self.told_by else {
            return if operand.along_inner {
                part(self.ty, &format!("left{r}"), C[j])
            } else {
                format!("left{r}_{j}")
            };
        };
        let (q, lane) = (r / lanes, r % lanes);
        if operand.along_inner {
            format!("subgroupBroadcast(left{q}.{}, {lane}u)", C[j])
        } else if operand.along_outer {
            format!("subgroupBroadcast(left{q}.{}, {}u)", C[lane % 4], lane / 4 * 4 + j)
        } else {
            format!("subgroupBroadcast(left{q}_{j}, {lane}u)")
        }
    }

    /// Loads the element at step `k` that this invocation is to load for row `r` or those that follow.
    pub(super) fn load_one(&self, e: &mut Emitter<'_>, r: usize) {
        let q = match self.told_by {
            None => r,
            Some(lanes) if r.is_multiple_of(lanes) => r / lanes,
            Some(_) => return,
        };
        let value = self.operand.load(&format!("(row{q} + k * {})", self.operand.inner_stride));
        e.line(format!("let left{q} = {value};"));
    }

    /// The element of row `r` at step `k`.
    pub(super) fn of_one(&self, r: usize) -> String {
        match self.told_by {
            None => format!("left{r}"),
            Some(lanes) => format!("subgroupBroadcast(left{}, {}u)", r / lanes, r % lanes),
        }
    }
}
