//! Products whose chunks of the inner dim are computed by one dispatch, for devices that run more workgroups
//! at a time than the product has tiles.

use smallvec::SmallVec;

use super::{MatmulNest, ProductTarget, dispatch, epilogue_of_chunks, temp_dtype};
use crate::Result;
use crate::gpu::GpuShared;
use crate::gpu::kernel::scan::{TEMPS, name_temp};
use crate::gpu::program::Dispatch;
use crate::kernel::{Access, Instr, Loop, Matmul, Parts, Store, Ty};
use crate::layout::{Dims, contiguous_strides};

/// The dispatches of a product whose chunks are a batch dim of another product, and the bytes of the
/// temporary that holds the products of the chunks. The number of chunks is the largest up to `wanted` that
/// divides the inner dim; `None` if none does.
pub(super) fn side_by_side(
    shared: &GpuShared,
    product: &MatmulNest<'_>,
    wanted: usize,
    most_bytes: u64,
) -> Result<Option<(Vec<Dispatch>, u64)>> {
    let kernel = product.kernel;
    if product.ty == Ty::Bool {
        return Ok(None);
    }
    let (inner, batch) = (inner_sizes(kernel), kernel.epilogue.sizes.len() - 2);
    let divides = |chunks: usize| {
        (kernel.k / chunks).is_multiple_of(4) && inner.iter().all(|sizes| sizes[0].is_multiple_of(chunks))
    };
    let Some(chunks) = (2..=wanted).rev().find(|&chunks| divides(chunks)) else {
        return Ok(None);
    };
    let mut sizes: Dims = SmallVec::from_slice(&[chunks]);
    sizes.extend_from_slice(&kernel.epilogue.sizes);
    let dtype = temp_dtype(product.ty);
    let elements = sizes.iter().fold(1usize, |n, &size| n.saturating_mul(size));
    let bytes = (elements as u64).saturating_mul(dtype.size() as u64);
    if bytes > most_bytes {
        return Ok(None);
    }
    let (lhs, lhs_columns) =
        chunked(&kernel.lhs, &kernel.lhs_parts.columns, batch + rows_of(&kernel.lhs_parts), kernel.k, chunks);
    let (rhs, rhs_rows) = chunked(&kernel.rhs, &kernel.rhs_parts.rows, batch, kernel.k, chunks);
    let mut strides = contiguous_strides(&sizes);
    strides.iter_mut().zip(&sizes).filter(|(_, size)| **size == 1).for_each(|(stride, _)| *stride = 0);
    let split = Matmul {
        k: kernel.k / chunks,
        lhs,
        rhs,
        lhs_parts: Parts { columns: lhs_columns, ..kernel.lhs_parts.clone() },
        rhs_parts: Parts { rows: rhs_rows, ..kernel.rhs_parts.clone() },
        epilogue: Loop {
            inner: 0,
            accesses: vec![Access::new(TEMPS, dtype, &strides, 0)],
            ranges: Vec::new(),
            body: vec![Instr::Accumulator],
            stores: vec![Store { access: 0, value: 0 }],
            sizes,
        },
    };
    let parts = MatmulNest::new(&split);
    let used: Vec<usize> = (0..parts.nest.kernel.accesses.len()).collect();
    let dims: Vec<usize> = (0..parts.k).collect();
    let mut steps = Vec::new();
    for (nest, mut windows) in parts.nest.spaces(&used, &dims, Some(parts.columns), &shared.caps)? {
        windows.values_mut().for_each(name_temp);
        steps.push(dispatch(shared, &MatmulNest { nest, ..parts }, &windows, ProductTarget::Epilogue)?);
    }
    epilogue_of_chunks(shared, product, chunks, &mut steps)?;
    Ok(Some((steps, bytes)))
}

/// The sizes that the inner dim of each factor is composed of.
fn inner_sizes(kernel: &Matmul) -> [Dims; 2] {
    let made =
        |sizes: &Dims| if sizes.is_empty() { SmallVec::from_slice(&[kernel.k]) } else { sizes.clone() };
    [made(&kernel.lhs_parts.columns), made(&kernel.rhs_parts.rows)]
}

/// The number of strides that the rows of a factor have.
fn rows_of(parts: &Parts) -> usize {
    parts.rows.len().max(1)
}

/// A factor with the chunks of its inner dim as its first batch dim, and the sizes that the inner dim of a
/// chunk is composed of. `place` is the position of the inner dim's first stride.
fn chunked(factor: &Access, made: &Dims, place: usize, k: usize, chunks: usize) -> (Access, Dims) {
    let mut factor = factor.clone();
    let first = made.first().copied().unwrap_or(k) / chunks;
    let step = factor.strides[place] * first as isize;
    if first == 1 {
        factor.strides[place] = 0;
    }
    factor.strides.insert(0, step);
    let mut made = made.clone();
    if let Some(size) = made.first_mut() {
        *size = first;
    }
    (factor, made)
}
