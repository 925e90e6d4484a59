//! Matrix products: they compute tiles of the result in registers and inline the epilogue.
//!
//! - On a GPU, a workgroup computes 64 x 64 elements, with slices of both operands in workgroup memory.
//! - On software adapters, and for types other than 32-bit numbers, each invocation computes four columns of
//!   some rows, and reads the left operand at addresses that are uniform over its workgroup.
//! - If the result has few tiles or the operands are too large to be bound, the inner dim is cut into chunks
//!   whose products lie in temporary memory. A last dispatch adds them in order and runs the epilogue. On
//!   GPUs, all chunks are one dispatch if their number divides the inner dim (`split`).
//! - The rows, the columns or the inner dim of a factor may be composed of several dims, so that windows are
//!   read in place.
//! - Rows and columns are swapped if the result is tall and narrow.

use smallvec::smallvec;

use super::access::{Form, ShaderBuffer, element_type, zero};
use super::body::ShaderBody;
use super::emit::{Emitter, GROUP, LANES, Width, type_name};
use super::loops::{count, indices, validity};
use super::nest::{BufferWindows, Nest, access_bytes};
use crate::gpu::GpuShared;
use crate::gpu::program::{BoundMemory, Dispatch, Window};
use crate::kernel::{Access, Instr, Loop, Matmul, Reg, Ty};
use crate::layout::Strides;
use crate::{Error, Result};

mod left;
mod parts;
mod split;
mod tiles;
use tiles::{Names, OperandRole, ShaderOperand, in_registers, through_workgroup_memory};

/// The most steps along the inner dim that one invocation takes.
const MAX_INNER: usize = 32 << 10;
/// The most multiplications of a product that counts as small on a software adapter. The products of a
/// training step have more, so that another batch size does not lead to another source.
const SMALL: usize = 2 << 10;
/// The number of batch dims that the source of a product has on software adapters, if there are no more.
const BATCH_DIMS: usize = 2;
/// The most bytes that the products of chunks take.
const MAX_TEMP: u64 = 64 << 20;

/// A part of a product: an index space of `batch.., m, n, k` with the epilogue's accesses, then those of lhs
/// and rhs.
struct MatmulNest<'k> {
    kernel: &'k Matmul,
    nest: Nest,
    /// The dims of the result's rows and columns.
    rows: usize,
    columns: usize,
    k: usize,
    ty: Ty,
}

/// What a dispatch does with its products.
#[derive(Clone, Copy)]
enum ProductTarget<'n> {
    /// It runs the epilogue on them.
    Epilogue,
    /// It writes them to a chunk of a temporary, which holds the part `held` of the result.
    Chunk { chunk: usize, held: &'n Nest },
}

/// The dispatches of a product, and the bytes that its buffers and temporaries need.
pub(super) fn plan(
    shared: &GpuShared,
    kernel: &Matmul,
    needs: &mut Vec<u64>,
    temps: &mut Vec<usize>,
) -> Result<Vec<Dispatch>> {
    let padded = if shared.caps.spread.software { with_batch_dims(kernel) } else { None };
    let kernel = padded.as_ref().unwrap_or(kernel);
    let rank = kernel.epilogue.sizes.len();
    let product = MatmulNest::new(kernel);
    product.nest.needs(needs);
    if kernel.epilogue.sizes.contains(&0) {
        return Ok(Vec::new());
    }
    // A factor with composed dims cannot be cut, so all of it must fit into one binding.
    for access in product.operands().into_iter().filter(|access| !access.indexed.is_empty()) {
        let parts = Access { strides: smallvec![], ..access.clone() };
        if access_bytes(&parts, &[]).is_some_and(|(low, high)| high - low + 256 > shared.caps.max_binding) {
            let reason = "windows reach over more than this device binds at a time; make them contiguous";
            return Err(Error::Unsupported { op: "matmul", reason: reason.to_owned() });
        }
    }
    let mut chunks = wanted_chunks(shared, &product);
    if chunks > 1 && !shared.caps.spread.software {
        let most = MAX_TEMP.min(shared.caps.max_binding);
        match split::side_by_side(shared, &product, chunks, most) {
            Ok(Some((steps, bytes))) => {
                temps.push(bytes as usize);
                return Ok(steps);
            }
            Ok(None) | Err(Error::Unsupported { .. }) => chunks = kernel.k.div_ceil(MAX_INNER),
            Err(error) => return Err(error),
        }
    }
    if chunks == 1 {
        let used: Vec<usize> = (0..product.nest.kernel.accesses.len()).collect();
        let dims: Vec<usize> = (0..rank).collect();
        if let Ok(spaces) = product.nest.spaces(&used, &dims, Some(product.columns), &shared.caps) {
            return spaces
                .into_iter()
                .map(|(nest, windows)| {
                    let part = MatmulNest { nest, ..product };
                    dispatch(shared, &part, &windows, ProductTarget::Epilogue)
                })
                .collect();
        }
        chunks = 2;
    }
    loop {
        let mut steps = Vec::new();
        let mut temp_bytes = 0;
        match in_chunks(shared, &product, chunks, &mut steps, &mut temp_bytes) {
            Ok(()) => {
                temps.push(temp_bytes as usize);
                return Ok(steps);
            }
            Err(Error::Unsupported { .. }) if chunks < kernel.k / 4 => chunks *= 2,
            Err(error) => return Err(error),
        }
    }
}

/// The product with as many batch dims as the source that other products use, if it has fewer. A source of
/// its own would take a software adapter far longer to compile than computing the indices of these dims
/// takes.
fn with_batch_dims(kernel: &Matmul) -> Option<Matmul> {
    let missing = (BATCH_DIMS + 2).checked_sub(kernel.epilogue.sizes.len()).filter(|&missing| missing > 0)?;
    let mut padded = kernel.clone();
    let Matmul { lhs, rhs, epilogue, .. } = &mut padded;
    // The added dims have size 1, so their strides are never used. But the source contains those that are not
    // 0, so they are given the strides that other products have.
    let pad = |strides: &mut Strides, step: isize| (0..missing).for_each(|_| strides.insert(0, step));
    pad(&mut lhs.strides, 4);
    pad(&mut rhs.strides, 4);
    let stores: Vec<usize> = epilogue.stores.iter().map(|store| store.access).collect();
    for (i, access) in epilogue.accesses.iter_mut().enumerate() {
        pad(&mut access.strides, if stores.contains(&i) { 4 } else { 0 });
    }
    epilogue.ranges.iter_mut().for_each(|range| pad(&mut range.strides, 0));
    (0..missing).for_each(|_| epilogue.sizes.insert(0, 1));
    for instr in &mut epilogue.body {
        if let Instr::Coord { dim } = instr {
            *dim += missing;
        }
    }
    Some(padded)
}

/// The number of chunks of the inner dim that keeps the device busy and its loops short.
fn wanted_chunks(shared: &GpuShared, product: &MatmulNest<'_>) -> usize {
    let sizes = &product.nest.kernel.sizes;
    let k = sizes[product.k];
    let tile = product.tile(shared);
    let tiles = sizes[product.rows].div_ceil(tile.rows) * sizes[product.columns].div_ceil(tile.columns());
    let batch: usize = sizes[..product.k - 2].iter().product();
    let busy = if shared.caps.spread.software { 6 } else { 256 };
    let for_busy = (busy / (tiles * batch).max(1)).min(k / 512).max(1);
    for_busy.max(k.div_ceil(MAX_INNER))
}

/// Adds the dispatches of a product in chunks of the inner dim, for parts of the result whose chunks a
/// temporary can hold.
fn in_chunks(
    shared: &GpuShared,
    product: &MatmulNest<'_>,
    chunks: usize,
    steps: &mut Vec<Dispatch>,
    temp_bytes: &mut u64,
) -> Result<()> {
    let nest = &product.nest;
    let rank = product.k;
    let elements: usize = nest.kernel.sizes[..rank].iter().product();
    let element = temp_dtype(product.ty).size() as u64;
    let bytes = (elements as u64).saturating_mul(chunks as u64 * element);
    if bytes > MAX_TEMP.min(shared.caps.max_binding) {
        let widest = (0..rank).max_by_key(|&d| nest.kernel.sizes[d]).filter(|&d| nest.kernel.sizes[d] > 1);
        let Some(d) = widest else {
            return Err(Error::Unsupported { op: "matmul", reason: "the inner dim is too long".to_owned() });
        };
        let whole = nest.kernel.sizes[d];
        let half = if whole >= 16 { (whole / 2).next_multiple_of(4) } else { whole / 2 };
        for (start, len) in [(0, half), (half, whole - half)] {
            let part = MatmulNest { nest: nest.restrict(d, start, len), ..*product };
            in_chunks(shared, &part, chunks, steps, temp_bytes)?;
        }
        return Ok(());
    }
    *temp_bytes = (*temp_bytes).max(bytes);
    let k = nest.kernel.sizes[product.k];
    let size = k.div_ceil(chunks).next_multiple_of(4);
    let operands = [nest.kernel.accesses.len() - 2, nest.kernel.accesses.len() - 1];
    let dims: Vec<usize> = (0..rank).collect();
    let mut chunk = 0;
    while chunk * size < k {
        let here = nest.restrict(product.k, chunk * size, size.min(k - chunk * size));
        for (part, windows) in here.spaces(&operands, &dims, Some(product.columns), &shared.caps)? {
            let part = MatmulNest { nest: part, ..*product };
            steps.push(dispatch(shared, &part, &windows, ProductTarget::Chunk { chunk, held: nest })?);
        }
        chunk += 1;
    }
    epilogue_of_chunks(shared, product, chunk, steps)
}

/// Adds the dispatches that add the products of the chunks and run the epilogue.
fn epilogue_of_chunks(
    shared: &GpuShared,
    product: &MatmulNest<'_>,
    chunks: usize,
    steps: &mut Vec<Dispatch>,
) -> Result<()> {
    const WORKGROUP: u32 = 64;
    let rank = product.k;
    let dims: Vec<usize> = (0..rank).collect();
    let used: Vec<usize> = (0..product.kernel.epilogue.accesses.len()).collect();
    let vector = Some(product.columns);
    for (nest, windows) in product.nest.spaces(&used, &dims, vector, &shared.caps)? {
        let mut body = ShaderBody::new(&nest, &windows, vector, product.ty);
        let mut e = Emitter::new(shared, "Chunks of a product, added, and what follows.", WORKGROUP);
        let threads = count(&nest, &dims, vector);
        let limit = e.uniform("threads", threads);
        e.line(format!("let thread = ({GROUP}) * {WORKGROUP}u + local;"));
        e.open(format!("if (thread >= {limit}) {{"));
        e.line("return;");
        e.close();
        indices(&mut e, &nest, &dims, vector, "thread");
        validity(&mut e, &mut body);
        let width = Width::Four;
        e.bind("products", element_type(temp_dtype(product.ty), false, false), temp_window());
        // Columns beyond the last one read the last one.
        let place = temp_place(&mut e, product, &nest, &product.nest);
        e.line(format!("let places = {place};"));
        let elements: usize = product.nest.kernel.sizes[..rank].iter().product();
        let all = e.uniform("elements", elements);
        let chunks = e.uniform("chunks", chunks);
        let t = type_name(product.ty, width);
        e.line(format!("var accumulator: {t} = {};", zero(product.ty, width)));
        e.open(format!("for (var chunk = 0u; chunk < {chunks}; chunk++) {{"));
        e.line(format!("let at = places + vec4<u32>(chunk * {all});"));
        let memory = temp_memory(product.ty);
        let parts = ["x", "y", "z", "w"].map(|c| memory.load(&format!("at.{c}"))).join(", ");
        let part = if product.ty == Ty::I64 {
            format!("i64_join({parts})")
        } else {
            format!("vec4<{}>({parts})", memory_type(product.ty))
        };
        let part = if product.ty == Ty::Bool { format!("({part} != vec4<i32>(0))") } else { part };
        e.line(format!("accumulator = {};", add(product.ty, "accumulator", &part)));
        e.close();
        body.accumulator = Some("accumulator".to_owned());
        finish_epilogue(&mut e, &mut body, &product.kernel.epilogue)?;
        steps.push(e.finish(threads.div_ceil(WORKGROUP as usize))?);
    }
    Ok(())
}

fn finish_epilogue(e: &mut Emitter<'_>, body: &mut ShaderBody<'_>, epilogue: &Loop) -> Result<()> {
    let values: Vec<Reg> = epilogue.stores.iter().map(|store| store.value).collect();
    body.require(e, &values)?;
    for store in &epilogue.stores {
        body.store(e, store)?;
    }
    Ok(())
}

fn temp_window() -> Window {
    Window { slot: BoundMemory::Temp(0), start: 0, end: 256 }
}

/// The dtype in which products of chunks are stored.
fn temp_dtype(ty: Ty) -> crate::DType {
    match ty {
        Ty::I64 => crate::DType::I64,
        Ty::F32 => crate::DType::F32,
        Ty::F64 => crate::DType::F64,
        _ => crate::DType::I32,
    }
}

fn memory_type(ty: Ty) -> &'static str {
    if ty == Ty::Bool { "i32" } else { type_name(ty, Width::One) }
}

fn temp_memory(ty: Ty) -> ShaderBuffer<'static> {
    ShaderBuffer { buffer: "products", dtype: temp_dtype(ty), form: Form::Elements, mixed: false }
}

/// The places of four columns' products in a chunk of the temporary, for a part of the result that the
/// temporary holds. They are relative to the first element that the temporary holds.
fn temp_place(e: &mut Emitter<'_>, product: &MatmulNest<'_>, part: &Nest, held: &Nest) -> String {
    let mut stride = 1;
    let mut terms = Vec::new();
    let mut lanes = String::new();
    for d in (0..product.k).rev() {
        let start = e.uniform(&format!("place_first{d}"), part.first[d] - held.first[d]);
        let step = e.uniform(&format!("place_stride{d}"), stride);
        if d == product.columns {
            let last = e.uniform(&format!("place_last{d}"), part.kernel.sizes[d].saturating_sub(1));
            lanes =
                format!("(min(vec4<u32>(i{d}) + {LANES}, vec4<u32>({last})) + vec4<u32>({start})) * {step}");
        } else {
            terms.push(format!("(i{d} + {start}) * {step}"));
        }
        stride *= held.kernel.sizes[d];
    }
    format!("vec4<u32>({}) + {lanes}", terms.join(" + "))
}

/// The part of the result that a workgroup computes.
struct MatmulTile {
    /// The rows of the tile.
    rows: usize,
    /// The number of invocations in a row of the tile.
    lanes: usize,
    /// The number of vectors of four columns that an invocation computes.
    vectors: usize,
    /// Whether slices of the operands go through workgroup memory.
    shared: bool,
    /// The size of the workgroup, if it is one subgroup whose invocations broadcast the elements that they
    /// load.
    subgroup: Option<usize>,
    /// The steps along the inner dim of one loop iteration: 1 or 4.
    steps: usize,
}

impl MatmulTile {
    fn columns(&self) -> usize {
        self.lanes * self.vectors * 4
    }
}

impl<'k> MatmulNest<'k> {
    fn new(kernel: &'k Matmul) -> MatmulNest<'k> {
        let rank = kernel.epilogue.sizes.len();
        let mut whole = kernel.epilogue.clone();
        whole.inner = 0;
        whole.sizes.push(kernel.k);
        whole.accesses.iter_mut().for_each(|access| access.strides.push(0));
        whole.ranges.iter_mut().for_each(|range| range.strides.push(0));
        let (lhs, rhs) = (&kernel.lhs, &kernel.rhs);
        whole.accesses.push(parts::over_nest(lhs, &kernel.lhs_parts, [rank - 2, rank], rank));
        whole.accesses.push(parts::over_nest(rhs, &kernel.rhs_parts, [rank, rank - 1], rank));
        let (m, n) = (whole.sizes[rank - 2], whole.sizes[rank - 1]);
        let swapped = n < 16 && n < m;
        let (rows, columns) = if swapped { (rank - 1, rank - 2) } else { (rank - 2, rank - 1) };
        let first = vec![0; rank + 1];
        let full = whole.sizes.to_vec();
        let nest = Nest { kernel: whole, first, full };
        MatmulNest { kernel, nest, rows, columns, k: rank, ty: kernel.accumulator() }
    }

    /// The operand that has the rows of the result, and the one that has its columns.
    fn operands(&self) -> [&Access; 2] {
        let accesses = &self.nest.kernel.accesses;
        let (lhs, rhs) = (&accesses[accesses.len() - 2], &accesses[accesses.len() - 1]);
        if self.rows < self.columns { [lhs, rhs] } else { [rhs, lhs] }
    }

    fn tile(&self, shared: &GpuShared) -> MatmulTile {
        let rows = self.nest.kernel.sizes[self.rows];
        let few = match rows {
            1 => 1,
            2..=4 => 4,
            _ => 8,
        };
        if shared.caps.spread.software {
            // On the processor, loads cost more than arithmetic, so each invocation computes as much as it
            // can, unless loads are shared by broadcasts.
            let columns = self.nest.kernel.sizes[self.columns];
            let subgroup = shared.caps.spread.subgroup;
            let lanes = subgroup.unwrap_or(8);
            let vectors = if rows >= 32 && columns > 32 && subgroup.is_none() { 2 } else { 1 };
            // For little work, compiling a long source would take longer than the work.
            if rows.saturating_mul(columns).saturating_mul(self.nest.kernel.sizes[self.k]) <= SMALL {
                return MatmulTile { rows: few.min(4), lanes, vectors: 1, shared: false, subgroup, steps: 1 };
            }
            let rows = if rows > 8 { 16 } else { few };
            return MatmulTile { rows, lanes, vectors, shared: false, subgroup, steps: 4 };
        }
        if rows > 8 && matches!(self.ty, Ty::F32 | Ty::I32) {
            return MatmulTile { rows: 64, lanes: 16, vectors: 1, shared: true, subgroup: None, steps: 4 };
        }
        MatmulTile { rows: few, lanes: 64, vectors: 1, shared: false, subgroup: None, steps: 4 }
    }
}

fn add(ty: Ty, a: &str, b: &str) -> String {
    super::body::binary(crate::kernel::BinaryOp::Add, ty, Width::Four, a, b)
}

/// One dispatch over a part of the product.
fn dispatch(
    shared: &GpuShared,
    product: &MatmulNest<'_>,
    windows: &BufferWindows,
    target: ProductTarget<'_>,
) -> Result<Dispatch> {
    let tile = product.tile(shared);
    let sizes = &product.nest.kernel.sizes;
    let workgroup = if tile.shared { 256 } else { tile.lanes as u32 };
    let mut e = Emitter::new(shared, "A matrix product.", workgroup);
    let mut body = ShaderBody::new(&product.nest, windows, Some(product.columns), product.ty);
    // An operand is read element by element if the epilogue reads its buffer too.
    let accesses = &product.nest.kernel.accesses;
    let users = |buffer: usize| accesses.iter().filter(|a| a.buffer == buffer).count();
    for access in product.operands() {
        if users(access.buffer) > 1 {
            body.forms.insert(access.buffer, Form::Elements);
        }
    }
    write_result(&mut e, &mut body, product, target)?;
    let roles = [("left", product.rows), ("right", product.columns)];
    let [left, right] = [0, 1].map(|i| {
        let (access, (name, outer)) = (product.operands()[i], roles[i]);
        let by_elements = users(access.buffer) > 1;
        ShaderOperand::new(&mut e, product, windows, OperandRole { access, name, outer, by_elements })
    });
    let row_tiles = sizes[product.rows].div_ceil(tile.rows);
    let column_tiles = sizes[product.columns].div_ceil(tile.columns());
    let batch_dims: Vec<usize> = (0..product.k - 2).collect();
    let batch = count(&product.nest, &batch_dims, None);
    let number = |e: &mut Emitter<'_>, name: &str, n: usize| {
        (e.uniform(name, n), e.float_uniform(&format!("{name}_reciprocal"), 1.0 / n as f32))
    };
    // Neighbouring workgroups have the same columns, so that the right operand's panel stays in the cache.
    let (n, reciprocal) = number(&mut e, "row_tiles", row_tiles);
    e.line(format!("let tiles = divide({GROUP}, {n}, {reciprocal});"));
    e.line("let row_tile = tiles.y;");
    let (n, reciprocal) = number(&mut e, "column_tiles", column_tiles);
    e.line(format!("let batch_and_column = divide(tiles.x, {n}, {reciprocal});"));
    e.line("let column_tile = batch_and_column.y;");
    let batches = e.uniform("batches", batch);
    e.line("let batch = batch_and_column.x;");
    // Only whole workgroups return, so that barriers stay in uniform control flow.
    e.open(format!("if (batch >= {batches}) {{"));
    e.line("return;");
    e.close();
    indices(&mut e, &product.nest, &batch_dims, None, "batch");
    left.begin(&mut e, product);
    right.begin(&mut e, product);
    let names = Names {
        rows: e.uniform("row_count", sizes[product.rows]),
        columns: e.uniform("column_count", sizes[product.columns]),
        inner: e.uniform("inner_count", sizes[product.k]),
    };
    if tile.shared {
        through_workgroup_memory(&mut e, product, &left, &right, &names);
    } else {
        in_registers(&mut e, product, &tile, &left, &right, &names);
    }
    e.finish(row_tiles * column_tiles * batch)
}

/// Writes the function `finish`, which takes the finished products of four columns.
fn write_result(
    e: &mut Emitter<'_>,
    body: &mut ShaderBody<'_>,
    product: &MatmulNest<'_>,
    target: ProductTarget<'_>,
) -> Result<()> {
    let t = type_name(product.ty, Width::Four);
    let params: Vec<String> = (0..product.k).map(|d| format!("i{d}: u32")).collect();
    let signature = format!("fn finish({}, accumulator: {t})", params.join(", "));
    validity(e, body);
    match target {
        ProductTarget::Epilogue => {
            body.accumulator = Some("accumulator".to_owned());
            finish_epilogue(e, body, &product.kernel.epilogue)?;
        }
        ProductTarget::Chunk { chunk, held } => {
            e.bind("products", element_type(temp_dtype(product.ty), false, false), temp_window());
            let elements: usize = held.kernel.sizes[..product.k].iter().product();
            let chunk = e.uniform("chunk_offset", chunk * elements);
            let place = temp_place(e, product, &product.nest, held);
            e.line(format!("let places = {place} + vec4<u32>({chunk});"));
            let memory = temp_memory(product.ty);
            for c in ["x", "y", "z", "w"] {
                let value = match product.ty {
                    Ty::I64 => format!("i64_{c}(accumulator)"),
                    Ty::Bool => format!("select(0, 1, accumulator.{c})"),
                    _ => format!("accumulator.{c}"),
                };
                if body.valid.is_some() {
                    e.open(format!("if (valid.{c}) {{"));
                }
                memory.store(e, &format!("places.{c}"), &value);
                if body.valid.is_some() {
                    e.close();
                }
            }
        }
    }
    e.end_function(&signature);
    Ok(())
}
