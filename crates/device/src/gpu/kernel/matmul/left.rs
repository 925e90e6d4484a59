//! How the invocations of a workgroup, which all need the same elements of the left operand, get them.
//!
//! If a workgroup is one subgroup, each invocation loads some of the elements, and the others get them by
//! subgroup broadcasts. Otherwise each invocation loads all of them.

use super::MatmulTile;
use super::tiles::{C, Names, ShaderOperand, part, within};
use crate::gpu::kernel::access::zero;
use crate::gpu::kernel::body::choose;
use crate::gpu::kernel::emit::{Emitter, Width};
use crate::kernel::Ty;

/// The left operand's elements of the rows of a tile.
pub(super) struct Left<'t> {
    operand: &'t ShaderOperand<'t>,
    tile: &'t MatmulTile,
    names: &'t Names,
    ty: Ty,
    /// The size of the workgroup, if elements are broadcast.
    subgroup: Option<usize>,
}

impl<'t> Left<'t> {
    pub(super) fn new(
        operand: &'t ShaderOperand<'t>,
        tile: &'t MatmulTile,
        names: &'t Names,
        ty: Ty,
    ) -> Self {
        // Subgroup broadcasts take 32-bit numbers only.
        let subgroup = tile.subgroup.filter(|_| matches!(ty, Ty::F32 | Ty::I32));
        Left { operand, tile, names, ty, subgroup }
    }

    /// Whether four contiguous elements along the inner dim are loaded at once.
    fn along_inner(&self) -> bool {
        self.operand.along_inner && self.tile.steps == 4
    }

    /// Whether an invocation loads the elements of four rows at one step at once.
    fn along_rows(&self) -> bool {
        self.operand.along_outer && self.tile.steps == 4 && self.subgroup.is_some()
    }

    /// Defines the positions at which the rows begin that this invocation loads.
    pub(super) fn begin(&self, e: &mut Emitter<'_>) {
        let (operand, count) = (self.operand, &self.names.rows);
        let Some(lanes) = self.subgroup else {
            for r in 0..self.tile.rows {
                let place = operand.outer(&format!("min(first_row + {r}u, {count} - 1u)"));
                e.line(format!("let row{r} = left_batch + {place};"));
            }
            return;
        };
        for q in 0..self.tile.rows.div_ceil(lanes) {
            let first = q * lanes;
            // The number of rows is a multiple of four here: an invocation beyond the last row reads the last
            // four.
            let place = if self.along_rows() {
                format!("min(first_row + {first}u + local / 4u * 4u, {count} - 4u)")
            } else {
                operand.outer(&format!("min(first_row + {first}u + local, {count} - 1u)"))
            };
            e.line(format!("let row{q} = left_batch + {place};"));
        }
    }

    /// The offsets of the steps that this invocation loads.
    pub(super) fn steps(&self, e: &mut Emitter<'_>) -> Vec<String> {
        let inner = &self.names.inner;
        if self.along_rows() {
            let along = self.operand.inner(&format!("min(k + local % 4u, {inner} - 1u)"));
            e.line(format!("let left_step = {along};"));
            return vec!["left_step".to_owned()];
        }
        self.operand.steps(e, self.tile.steps, inner, self.along_inner())
    }

    /// Loads this invocation's elements for the steps from `k` on, whose offsets are `along`: those of row
    /// `r`, or of `r` and the rows after it.
    pub(super) fn load(&self, e: &mut Emitter<'_>, r: usize, along: &[String]) {
        let q = match self.subgroup {
            None => r,
            Some(lanes) if r.is_multiple_of(lanes) => r / lanes,
            Some(_) => return,
        };
        let vector = |condition: &str| {
            let value = self.operand.memory().load_vector(&format!("(row{q} + {})", along[0]));
            choose(self.ty, Width::Four, &zero(self.ty, Width::Four), &value, condition)
        };
        if self.along_inner() {
            e.line(format!("let left{q} = {};", vector("within")));
        } else if self.along_rows() {
            let condition = format!("vec4<bool>(k + local % 4u < {})", self.names.inner);
            e.line(format!("let left{q} = {};", vector(&condition)));
        } else {
            for (j, step) in along.iter().enumerate() {
                let value = self.operand.load(&format!("(row{q} + {step})"));
                e.line(format!("let left{q}_{j} = {};", within(self.ty, Width::One, &value, j)));
            }
        }
    }

    /// The element of row `r` at the `j`-th of the loaded steps.
    pub(super) fn element(&self, r: usize, j: usize) -> String {
        let Some(lanes) = self.subgroup else {
            let own = if self.along_inner() {
                part(self.ty, &format!("left{r}"), C[j])
            } else {
                format!("left{r}_{j}")
            };
            return own;
        };
        let (q, lane) = (r / lanes, r % lanes);
        let (own, source) = if self.along_inner() {
            (format!("left{q}.{}", C[j]), lane)
        } else if self.along_rows() {
            (format!("left{q}.{}", C[lane % 4]), lane / 4 * 4 + j)
        } else {
            (format!("left{q}_{j}"), lane)
        };
        format!("subgroupBroadcast({own}, {source}u)")
    }
}
