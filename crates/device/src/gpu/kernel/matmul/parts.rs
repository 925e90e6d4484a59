//! Rows, columns and inner dims of a factor that are composed of several dims, as those of windows are. In
//! the source, a function splits an index into those of the dims. It is called outside of the innermost loops
//! wherever the index does not change in them.

use super::MatmulNest;
use crate::gpu::kernel::emit::Emitter;
use crate::kernel::{Access, IndexedDim, Parts};
use crate::layout::{Dims, Strides};

/// The sizes and strides of the dims that a dim of a factor is composed of, outermost first.
pub(super) type Made = Vec<(usize, isize)>;

/// A factor's access over the dims `batch.., m, n, k`. The first dim of its matrix is dim `first`, and the
/// second is dim `second`. A composed dim has stride 0 there; the dims that it is composed of become indexed
/// dims of the access, which count as touched as a whole.
pub(super) fn over_nest(access: &Access, parts: &Parts, [first, second]: [usize; 2], rank: usize) -> Access {
    let mut strides: Strides = access.strides[..rank - 2].into();
    strides.resize(rank + 1, 0);
    let mut over = Access { strides, ..access.clone() };
    for (dim, made) in [first, second].into_iter().zip(made_of(access, parts, rank - 2)) {
        match made[..] {
            [(_, stride)] => over.strides[dim] = stride,
            _ => over.indexed.extend(made.iter().map(|&(size, stride)| IndexedDim {
                stride,
                size,
                op: "matmul",
            })),
        }
    }
    over
}

/// The dims that the rows and the columns of a factor are composed of. A single dim is given the size 0,
/// since its size is not known here.
fn made_of(access: &Access, parts: &Parts, batch: usize) -> [Made; 2] {
    let mut strides = access.strides[batch..].iter();
    let mut made = |sizes: &Dims| -> Made {
        let single = [0];
        let sizes = if sizes.is_empty() { &single[..] } else { sizes };
        sizes.iter().copied().zip(strides.by_ref().copied()).collect()
    };
    [made(&parts.rows), made(&parts.columns)]
}

/// The dims that the outer and the inner dim of a factor are composed of, for the factor whose outer dim is
/// `outer`.
pub(super) fn outer_and_inner(product: &MatmulNest<'_>, outer: usize) -> [Made; 2] {
    let (kernel, batch) = (product.kernel, product.k - 2);
    if outer == batch {
        made_of(&kernel.lhs, &kernel.lhs_parts, batch)
    } else {
        let [inner, outer] = made_of(&kernel.rhs, &kernel.rhs_parts, batch);
        [outer, inner]
    }
}

/// Writes the function from an index along a composed dim to an offset in elements, and returns its name;
/// `None` if the dim is a single one.
pub(super) fn function(e: &mut Emitter<'_>, name: &str, made: &Made, first: usize) -> Option<String> {
    if made.len() < 2 {
        return None;
    }
    let first = e.uniform(&format!("{name}_first"), first);
    e.line(format!("let rest{} = index + {first};", made.len() - 1));
    let mut terms = Vec::new();
    for (i, &(size, stride)) in made.iter().enumerate().skip(1).rev() {
        let n = e.uniform(&format!("{name}_size{i}"), size);
        let reciprocal = e.float_uniform(&format!("{name}_reciprocal{i}"), 1.0 / size as f32);
        e.line(format!("let digits{i} = divide(rest{i}, {n}, {reciprocal});"));
        e.line(format!("let rest{} = digits{i}.x;", i - 1));
        let stride = e.signed_uniform(&format!("{name}_step{i}"), stride);
        terms.push(format!("digits{i}.y * {stride}"));
    }
    let stride = e.signed_uniform(&format!("{name}_step0"), made[0].1);
    terms.push(format!("rest0 * {stride}"));
    e.line(format!("return {};", terms.join(" + ")));
    e.end_function(&format!("fn {name}(index: u32) -> u32"));
    Some(name.to_owned())
}
