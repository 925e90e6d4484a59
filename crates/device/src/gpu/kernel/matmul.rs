//! Matrix products: tiles of the result in registers, the epilogue inlined.
//!
//! - A GPU's workgroup computes 64 x 64 elements, with slices of both operands in workgroup memory.
//! - On software adapters, and for types other than 32-bit numbers, each invocation keeps some rows of four columns, and
//!   reads the left operand at addresses that its whole workgroup shares.
//! - Where the result has few tiles or the operands are too large to be bound, the inner dim is cut into chunks whose
//!   products lie in temporary memory; a second dispatch adds them in order and runs the epilogue.
//! - Rows and columns change places where the result is tall and narrow.

use std::collections::BTreeMap;

use super::access::{Form, Memory, element_type, zero};
use super::body::Body;
use super::emit::{Emitter, GROUP, LANES, Width, type_name};
use super::loops::{count, indices, validity};
use super::nest::Nest;
use crate::gpu::Shared;
use crate::gpu::program::{Dispatch, Slot, Window};
use crate::kernel::{Access, Loop, Matmul, Reg, Ty};
use crate::layout::Strides;
use crate::{Error, Result};

type Windows = BTreeMap<usize, Window>;

/// Steps along the inner dim that one invocation takes at most.
const MAX_INNER: usize = 32 << 10;
/// Bytes that the chunks' products may take.
const MAX_TEMP: u64 = 64 << 20;

/// A part of a product: a space of `batch.., m, n, k` with the epilogue's accesses, then lhs and rhs.
struct Product<'k> {
    kernel: &'k Matmul,
    nest: Nest,
    /// The dims of the result's rows and columns.
    rows: usize,
    columns: usize,
    k: usize,
    ty: Ty,
}

/// Where a dispatch leaves its products.
#[derive(Clone, Copy)]
enum Target {
    /// The epilogue takes them.
    Epilogue,
    /// A temporary's chunk.
    Chunk(usize),
}

/// The steps of a product, and the bytes that its buffers and temporaries need.
pub(super) fn plan(
    shared: &Shared,
    kernel: &Matmul,
    needs: &mut Vec<u64>,
    temps: &mut Vec<usize>,
) -> Result<Vec<Dispatch>> {
    let rank = kernel.epilogue.sizes.len();
    if rank < 2 {
        return Err(Error::Unsupported { op: "matmul", reason: "a product needs two dims".to_owned() });
    }
    let product = Product::new(kernel);
    product.nest.needs(needs);
    if kernel.epilogue.sizes.contains(&0) {
        return Ok(Vec::new());
    }
    let mut chunks = wanted_chunks(shared, &product);
    if chunks == 1 {
        let used: Vec<usize> = (0..product.nest.kernel.accesses.len()).collect();
        let dims: Vec<usize> = (0..rank).collect();
        if let Ok(spaces) = product.nest.spaces(&used, &dims, Some(product.columns), shared.caps.max_binding)
        {
            return spaces
                .into_iter()
                .map(|(nest, windows)| {
                    let part = Product { nest, ..product };
                    dispatch(shared, &part, &windows, Target::Epilogue)
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

/// The number of chunks of the inner dim that keeps the device busy and its loops short.
fn wanted_chunks(shared: &Shared, product: &Product<'_>) -> usize {
    let sizes = &product.nest.kernel.sizes;
    let k = sizes[product.k];
    let tile = product.tile(shared);
    let tiles = sizes[product.rows].div_ceil(tile.rows) * sizes[product.columns].div_ceil(tile.columns());
    let batch: usize = sizes[..product.k - 2].iter().product();
    let busy = if shared.caps.software { 6 } else { 256 };
    let for_busy = (busy / (tiles * batch).max(1)).min(k / 512).max(1);
    for_busy.max(k.div_ceil(MAX_INNER))
}

/// Adds the steps of a product in chunks of the inner dim, for parts of the result that temporaries can hold.
fn in_chunks(
    shared: &Shared,
    product: &Product<'_>,
    chunks: usize,
    steps: &mut Vec<Dispatch>,
    temp_bytes: &mut u64,
) -> Result<()> {
    let nest = &product.nest;
    let rank = product.k;
    let elements: usize = nest.kernel.sizes[..rank].iter().product();
    let element = if product.ty == Ty::I64 { 8 } else { 4 };
    let bytes = (elements as u64).saturating_mul(chunks as u64 * element);
    if bytes > MAX_TEMP.min(shared.caps.max_binding) {
        let widest = (0..rank).max_by_key(|&d| nest.kernel.sizes[d]).filter(|&d| nest.kernel.sizes[d] > 1);
        let Some(d) = widest else {
            return Err(Error::Unsupported { op: "matmul", reason: "the inner dim is too long".to_owned() });
        };
        let whole = nest.kernel.sizes[d];
        let half = if whole >= 16 { (whole / 2).next_multiple_of(4) } else { whole / 2 };
        for (start, len) in [(0, half), (half, whole - half)] {
            let part = Product { nest: nest.restrict(d, start, len), ..*product };
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
        for (mut nest, windows) in
            here.spaces(&operands, &dims, Some(product.columns), shared.caps.max_binding)?
        {
            // The place in the temporary counts from the part's beginning.
            for d in 0..rank {
                nest.first[d] -= product.nest.first[d];
            }
            nest.full = product.nest.kernel.sizes.to_vec();
            let part = Product { nest, ..*product };
            steps.push(dispatch(shared, &part, &windows, Target::Chunk(chunk))?);
        }
        chunk += 1;
    }
    epilogue_of_chunks(shared, product, chunk, steps)
}

/// One dispatch, or a few, that add the chunks' products and run the epilogue.
fn epilogue_of_chunks(
    shared: &Shared,
    product: &Product<'_>,
    chunks: usize,
    steps: &mut Vec<Dispatch>,
) -> Result<()> {
    const WORKGROUP: u32 = 64;
    let rank = product.k;
    let dims: Vec<usize> = (0..rank).collect();
    let used: Vec<usize> = (0..product.kernel.epilogue.accesses.len()).collect();
    let vector = Some(product.columns);
    for (nest, windows) in product.nest.spaces(&used, &dims, vector, shared.caps.max_binding)? {
        let mut body = Body::new(&nest, &windows, vector, product.ty)?;
        let mut e = Emitter::new(shared, "Chunks of a product, added, and what follows.", WORKGROUP);
        let threads = count(&nest, &dims, vector);
        let limit = e.number("threads", threads);
        e.line(format!("let thread = ({GROUP}) * {WORKGROUP}u + local;"));
        e.open(format!("if (thread >= {limit}) {{"));
        e.line("return;");
        e.close();
        indices(&mut e, &nest, &dims, vector, "thread");
        validity(&mut e, &mut body);
        let width = Width::Four;
        e.bind("products", element_type(temp_dtype(product.ty), false, false), temp_window());
        // Columns that don't exist read the last one's.
        let mut first = vec![0; rank];
        for d in 0..rank {
            first[d] = nest.first[d] - product.nest.first[d];
        }
        let place = temp_place(&mut e, product, &nest.kernel.sizes, &product.nest.kernel.sizes, &first);
        e.line(format!("let places = {place};"));
        let elements: usize = product.nest.kernel.sizes[..rank].iter().product();
        let all = e.number("elements", elements);
        let chunks = e.number("chunks", chunks);
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

fn finish_epilogue(e: &mut Emitter<'_>, body: &mut Body<'_>, epilogue: &Loop) -> Result<()> {
    let values: Vec<Reg> = epilogue.stores.iter().map(|store| store.value).collect();
    body.require(e, &values)?;
    for store in &epilogue.stores {
        body.store(e, store)?;
    }
    Ok(())
}

fn temp_window() -> Window {
    Window { slot: Slot::Temp(0), start: 0, end: 256 }
}

/// The dtype that chunks' products of a type are kept as.
fn temp_dtype(ty: Ty) -> crate::DType {
    match ty {
        Ty::I64 => crate::DType::I64,
        Ty::F32 | Ty::F64 => crate::DType::F32,
        _ => crate::DType::I32,
    }
}

fn memory_type(ty: Ty) -> &'static str {
    if ty == Ty::Bool { "i32" } else { type_name(ty, Width::One) }
}

fn temp_memory(ty: Ty) -> Memory<'static> {
    Memory { buffer: "products", dtype: temp_dtype(ty), form: Form::Elements, mixed: false }
}

/// The places of four columns' products in a chunk of the temporary.
fn temp_place(
    e: &mut Emitter<'_>,
    product: &Product<'_>,
    sizes: &[usize],
    full: &[usize],
    first: &[usize],
) -> String {
    let mut stride = 1;
    let mut terms = Vec::new();
    let mut lanes = String::new();
    for d in (0..product.k).rev() {
        let start = e.number(&format!("place_first{d}"), first[d]);
        let step = e.number(&format!("place_stride{d}"), stride);
        if d == product.columns {
            let last = e.number(&format!("place_last{d}"), sizes[d].saturating_sub(1));
            lanes =
                format!("(min(vec4<u32>(i{d}) + {LANES}, vec4<u32>({last})) + vec4<u32>({start})) * {step}");
        } else {
            terms.push(format!("(i{d} + {start}) * {step}"));
        }
        stride *= full[d];
    }
    format!("vec4<u32>({}) + {lanes}", terms.join(" + "))
}

/// How much of the result a workgroup computes.
struct Tile {
    /// Rows of a workgroup.
    rows: usize,
    /// Invocations side by side.
    lanes: usize,
    /// Times four columns that an invocation keeps.
    vectors: usize,
    /// Whether slices of the operands go through workgroup memory.
    shared: bool,
}

impl Tile {
    fn columns(&self) -> usize {
        self.lanes * self.vectors * 4
    }
}

impl<'k> Product<'k> {
    fn new(kernel: &'k Matmul) -> Product<'k> {
        let rank = kernel.epilogue.sizes.len();
        let mut whole = kernel.epilogue.clone();
        whole.inner = 0;
        whole.sizes.push(kernel.k);
        whole.accesses.iter_mut().for_each(|access| access.strides.push(0));
        whole.ranges.iter_mut().for_each(|range| range.strides.push(0));
        let operand = |access: &Access, without: usize| {
            let mut strides: Strides = access.strides[..rank - 2].into();
            let (first, second) = (access.strides[rank - 2], access.strides[rank - 1]);
            strides.extend(if without == rank - 1 { [first, 0, second] } else { [0, second, first] });
            Access { strides, ..access.clone() }
        };
        whole.accesses.push(operand(&kernel.lhs, rank - 1));
        whole.accesses.push(operand(&kernel.rhs, rank - 2));
        let (m, n) = (whole.sizes[rank - 2], whole.sizes[rank - 1]);
        let swapped = n < 16 && n < m;
        let (rows, columns) = if swapped { (rank - 1, rank - 2) } else { (rank - 2, rank - 1) };
        let first = vec![0; rank + 1];
        let full = whole.sizes.to_vec();
        let nest = Nest { kernel: whole, first, full };
        Product { kernel, nest, rows, columns, k: rank, ty: kernel.accumulator() }
    }

    /// The operand whose rows are the result's rows, and the one whose columns are its columns.
    fn operands(&self) -> [&Access; 2] {
        let accesses = &self.nest.kernel.accesses;
        let (lhs, rhs) = (&accesses[accesses.len() - 2], &accesses[accesses.len() - 1]);
        if self.rows < self.columns { [lhs, rhs] } else { [rhs, lhs] }
    }

    fn tile(&self, shared: &Shared) -> Tile {
        let rows = self.nest.kernel.sizes[self.rows];
        let few = match rows {
            1 => 1,
            2..=4 => 4,
            _ => 8,
        };
        if shared.caps.software {
            // Loads cost more than arithmetic here: the more each invocation keeps, the better.
            let columns = self.nest.kernel.sizes[self.columns];
            let vectors = if rows >= 32 && columns > 32 { 2 } else { 1 };
            return Tile { rows: if rows > 8 { 16 } else { few }, lanes: 8, vectors, shared: false };
        }
        if rows > 8 && matches!(self.ty, Ty::F32 | Ty::I32) {
            return Tile { rows: 64, lanes: 16, vectors: 1, shared: true };
        }
        Tile { rows: few, lanes: 64, vectors: 1, shared: false }
    }
}

/// The text of `sum + a * b`, where `a` is one number and `sum` and `b` are four.
fn multiply_add(ty: Ty, sum: &str, a: &str, b: &str) -> String {
    match ty {
        Ty::I64 => format!("i64_add4({sum}, i64_mul4(i64_splat({a}), {b}))"),
        Ty::Bool => format!("({sum} | (vec4<bool>({a}) & {b}))"),
        _ => format!("({sum} + {a} * {b})"),
    }
}

fn add(ty: Ty, a: &str, b: &str) -> String {
    super::body::binary(crate::kernel::BinaryOp::Add, ty, Width::Four, a, b)
}

/// One dispatch over a part of the product.
fn dispatch(shared: &Shared, product: &Product<'_>, windows: &Windows, target: Target) -> Result<Dispatch> {
    let tile = product.tile(shared);
    let sizes = &product.nest.kernel.sizes;
    let workgroup = if tile.shared { 256 } else { tile.lanes as u32 };
    let mut e = Emitter::new(shared, "A matrix product.", workgroup);
    let mut body = Body::new(&product.nest, windows, Some(product.columns), product.ty)?;
    // The operands are read by elements where the epilogue reads them too.
    let accesses = &product.nest.kernel.accesses;
    let users = |buffer: usize| accesses.iter().filter(|a| a.buffer == buffer).count();
    for access in product.operands() {
        if users(access.buffer) > 1 {
            body.forms.insert(access.buffer, Form::Elements);
        }
    }
    write_result(&mut e, &mut body, product, target)?;
    let [left, right] = product.operands();
    let left = Operand::new(&mut e, product, windows, left, "left", product.rows, users(left.buffer) > 1);
    let right =
        Operand::new(&mut e, product, windows, right, "right", product.columns, users(right.buffer) > 1);
    let row_tiles = sizes[product.rows].div_ceil(tile.rows);
    let column_tiles = sizes[product.columns].div_ceil(tile.columns());
    let batch_dims: Vec<usize> = (0..product.k - 2).collect();
    let batch = count(&product.nest, &batch_dims, None);
    let number = |e: &mut Emitter<'_>, name: &str, n: usize| {
        (e.number(name, n), e.float(&format!("{name}_reciprocal"), 1.0 / n as f32))
    };
    // Neighbouring workgroups share columns: the right operand's panel stays in the cache.
    let (n, reciprocal) = number(&mut e, "row_tiles", row_tiles);
    e.line(format!("let tiles = divide({GROUP}, {n}, {reciprocal});"));
    e.line("let row_tile = tiles.y;");
    let (n, reciprocal) = number(&mut e, "column_tiles", column_tiles);
    e.line(format!("let batch_and_column = divide(tiles.x, {n}, {reciprocal});"));
    e.line("let column_tile = batch_and_column.y;");
    let batches = e.number("batches", batch);
    e.line("let batch = batch_and_column.x;");
    // Whole workgroups only: nothing else would keep barriers uniform.
    e.open(format!("if (batch >= {batches}) {{"));
    e.line("return;");
    e.close();
    indices(&mut e, &product.nest, &batch_dims, None, "batch");
    left.begin(&mut e, product);
    right.begin(&mut e, product);
    let names = Names {
        rows: e.number("row_count", sizes[product.rows]),
        columns: e.number("column_count", sizes[product.columns]),
        inner: e.number("inner_count", sizes[product.k]),
    };
    if tile.shared {
        through_workgroup_memory(&mut e, product, &left, &right, &names);
    } else {
        in_registers(&mut e, product, &tile, &left, &right, &names);
    }
    e.finish(row_tiles * column_tiles * batch)
}

/// The names of a product's sizes.
struct Names {
    rows: String,
    columns: String,
    inner: String,
}

/// Writes the function that takes four columns' finished products.
fn write_result(
    e: &mut Emitter<'_>,
    body: &mut Body<'_>,
    product: &Product<'_>,
    target: Target,
) -> Result<()> {
    let t = type_name(product.ty, Width::Four);
    let params: Vec<String> = (0..product.k).map(|d| format!("i{d}: u32")).collect();
    let signature = format!("fn finish({}, accumulator: {t})", params.join(", "));
    validity(e, body);
    match target {
        Target::Epilogue => {
            body.accumulator = Some("accumulator".to_owned());
            finish_epilogue(e, body, &product.kernel.epilogue)?;
        }
        Target::Chunk(chunk) => {
            e.bind("products", element_type(temp_dtype(product.ty), false, false), temp_window());
            let nest = &product.nest;
            let elements: usize = nest.full[..product.k].iter().product();
            let chunk = e.number("chunk_offset", chunk * elements);
            let place = temp_place(e, product, &nest.kernel.sizes, &nest.full, &nest.first);
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

/// An operand in the text: how one or four of its elements are read.
struct Operand<'p> {
    access: &'p Access,
    name: &'static str,
    memory_name: String,
    form: Form,
    /// Whether four elements along the inner dim, or along the other one, can be read at once.
    along_inner: bool,
    along_outer: bool,
    /// Names of the strides along the inner dim and the other one.
    inner_stride: String,
    outer_stride: String,
    offset: String,
}

impl<'p> Operand<'p> {
    fn new(
        e: &mut Emitter<'_>,
        product: &'p Product<'_>,
        windows: &Windows,
        access: &'p Access,
        name: &'static str,
        outer: usize,
        by_elements: bool,
    ) -> Operand<'p> {
        let sizes = &product.nest.kernel.sizes;
        let window = windows.get(&access.buffer).cloned().unwrap_or_else(|| Window {
            slot: Slot::Buffer(access.buffer),
            start: 0,
            end: 256,
        });
        let start = (window.start / access.dtype.size() as u64) as isize;
        let four = |d: usize| access.strides[d] % 4 == 0;
        let others = (0..product.k - 2).all(four) && access.offset % 4 == 0 && !by_elements;
        let along_inner = others && access.strides[product.k] == 1 && four(outer);
        let along_outer = others && access.strides[outer] == 1 && four(product.k) && sizes[outer] % 4 == 0;
        let form = if along_inner || along_outer { Form::Vectors } else { Form::Elements };
        let memory_name = format!("buffer{}", access.buffer);
        e.bind(&memory_name, element_type(access.dtype, false, form == Form::Vectors), window);
        Operand {
            access,
            name,
            memory_name,
            form,
            along_inner,
            along_outer: along_outer && !along_inner,
            inner_stride: e.signed(&format!("{name}_inner_stride"), access.strides[product.k]),
            outer_stride: e.signed(&format!("{name}_outer_stride"), access.strides[outer]),
            offset: e.signed(&format!("{name}_offset"), access.offset - start),
        }
    }

    /// Defines the place of the batch's first element.
    fn begin(&self, e: &mut Emitter<'_>, product: &Product<'_>) {
        let mut at = self.offset.clone();
        for d in (0..product.k - 2).filter(|&d| self.access.strides[d] != 0) {
            let stride = e.signed(&format!("{}_stride{d}", self.name), self.access.strides[d]);
            at = format!("{at} + i{d} * {stride}");
        }
        e.line(format!("let {}_batch = {at};", self.name));
    }

    fn memory(&self) -> Memory<'_> {
        Memory { buffer: &self.memory_name, dtype: self.access.dtype, form: self.form, mixed: false }
    }

    /// One element; of a buffer of vectors, picked out of one.
    fn load(&self, at: &str) -> String {
        if self.form != Form::Vectors {
            return self.memory().load(at);
        }
        let vector = self.memory().load_vector(at);
        match Ty::of(self.access.dtype) {
            Ty::I64 => {
                let words = format!("{}[({at}) >> 1u]", self.memory_name);
                format!("i64_at(select({words}.xy, {words}.zw, (({at}) & 1u) == 1u))")
            }
            _ if self.access.dtype.size() == 1 => {
                let word = Memory { form: Form::Elements, ..self.memory() };
                word.load(at)
            }
            _ => format!("{vector}[({at}) & 3u]"),
        }
    }
}

/// The k-th of four values.
fn part(ty: Ty, vector: &str, c: &str) -> String {
    if ty == Ty::I64 { format!("i64_{c}({vector})") } else { format!("{vector}.{c}") }
}

/// Four values from single ones.
fn gather(ty: Ty, parts: &[String]) -> String {
    match ty {
        Ty::I64 => format!("i64_join({})", parts.join(", ")),
        _ => format!("{}({})", type_name(ty, Width::Four), parts.join(", ")),
    }
}

/// Every invocation keeps the tile's rows of its own columns, four of them side by side at a time.
fn in_registers(
    e: &mut Emitter<'_>,
    product: &Product<'_>,
    tile: &Tile,
    left: &Operand<'_>,
    right: &Operand<'_>,
    names: &Names,
) {
    const C: [&str; 4] = ["x", "y", "z", "w"];
    let ty = product.ty;
    let t = type_name(ty, Width::Four);
    let Names { rows, columns, inner } = names;
    e.line(format!("let first_row = row_tile * {}u;", tile.rows));
    for v in 0..tile.vectors {
        let first = v * tile.lanes;
        e.line(format!(
            "let first_column{v} = (column_tile * {}u + {first}u + local) * 4u;",
            tile.lanes * tile.vectors
        ));
        if right.along_outer {
            // Columns are a multiple of four: an invocation beyond reads the last ones.
            e.line(format!("let column{v} = right_batch + min(first_column{v}, {columns} - 4u);"));
        } else {
            e.line(format!(
                "let column{v} = vec4<u32>(right_batch) + min(vec4<u32>(first_column{v}) + {LANES}, vec4<u32>({columns} - 1u)) * {};",
                right.outer_stride
            ));
        }
    }
    for r in 0..tile.rows {
        e.line(format!(
            "let row{r} = left_batch + min(first_row + {r}u, {rows} - 1u) * {};",
            left.outer_stride
        ));
        for v in 0..tile.vectors {
            e.line(format!("var sum{r}_{v}: {t} = {};", zero(ty, Width::Four)));
        }
    }
    let right_at = |v: usize, k: &str| -> String {
        if right.along_outer {
            right.memory().load_vector(&format!("(column{v} + ({k}) * {})", right.inner_stride))
        } else {
            let at = |c: &&str| right.load(&format!("(column{v}.{c} + ({k}) * {})", right.inner_stride));
            gather(ty, &C.iter().map(at).collect::<Vec<_>>())
        }
    };
    e.line("var k = 0u;");
    e.open(format!("for (; k + 4u <= {inner}; k += 4u) {{"));
    for v in 0..tile.vectors {
        if right.along_inner {
            for c in C {
                let load = right.memory().load_vector(&format!("(column{v}.{c} + k)"));
                e.line(format!("let down{v}_{c} = {load};"));
            }
            for (j, c) in C.iter().enumerate() {
                let parts = C.map(|column| part(ty, &format!("down{v}_{column}"), c));
                e.line(format!("let right{j}_{v} = {};", gather(ty, &parts)));
            }
        } else {
            for j in 0..4 {
                e.line(format!("let right{j}_{v} = {};", right_at(v, &format!("k + {j}u"))));
            }
        }
    }
    for r in 0..tile.rows {
        if left.along_inner {
            e.line(format!("let left{r} = {};", left.memory().load_vector(&format!("(row{r} + k)"))));
        }
        for j in 0..4 {
            let value = if left.along_inner {
                part(ty, &format!("left{r}"), C[j])
            } else {
                e.line(format!(
                    "let left{r}_{j} = {};",
                    left.load(&format!("(row{r} + (k + {j}u) * {})", left.inner_stride))
                ));
                format!("left{r}_{j}")
            };
            for v in 0..tile.vectors {
                let sum = multiply_add(ty, &format!("sum{r}_{v}"), &value, &format!("right{j}_{v}"));
                e.line(format!("sum{r}_{v} = {sum};"));
            }
        }
    }
    e.close();
    e.open(format!("for (; k < {inner}; k++) {{"));
    for v in 0..tile.vectors {
        e.line(format!("let right_{v} = {};", right_at(v, "k")));
    }
    for r in 0..tile.rows {
        e.line(format!("let left{r} = {};", left.load(&format!("(row{r} + k * {})", left.inner_stride))));
        for v in 0..tile.vectors {
            let sum = multiply_add(ty, &format!("sum{r}_{v}"), &format!("left{r}"), &format!("right_{v}"));
            e.line(format!("sum{r}_{v} = {sum};"));
        }
    }
    e.close();
    for v in 0..tile.vectors {
        e.open(format!("if (first_column{v} < {columns}) {{"));
        for r in 0..tile.rows {
            e.open(format!("if (first_row + {r}u < {rows}) {{"));
            let (row, column) = (format!("first_row + {r}u"), format!("first_column{v}"));
            e.line(call_finish(product, &row, &column, &format!("sum{r}_{v}")));
            e.close();
        }
        e.close();
    }
}

/// Slices of both operands go through workgroup memory; 256 invocations keep 4 x 4 elements each.
fn through_workgroup_memory(
    e: &mut Emitter<'_>,
    product: &Product<'_>,
    left: &Operand<'_>,
    right: &Operand<'_>,
    names: &Names,
) {
    let ty = product.ty;
    let (one, four) = (type_name(ty, Width::One), type_name(ty, Width::Four));
    e.workgroup_array("left_slice", one, 16 * 68);
    e.workgroup_array("right_slice", one, 16 * 68);
    let fetch = |operand: &Operand<'_>, count: &str, first: &str| {
        let name = operand.name;
        // Neighbouring invocations read neighbouring elements.
        let (outer, inner) = if operand.access.strides[product.k] == 1 {
            ("fetch / 16u", "fetch % 16u")
        } else {
            ("fetch % 64u", "fetch / 64u")
        };
        let at = format!(
            "({name}_batch + min({first} + {name}_outer, {count} - 1u) * {} + min(k0 + {name}_inner, {} - 1u) * {})",
            operand.outer_stride, names.inner, operand.inner_stride
        );
        let value = operand.load(&format!("{name}_at"));
        format!(
            "        let {name}_outer = {outer};\n        let {name}_inner = {inner};\n        let {name}_at = {at};\n        \
             {name}_slice[{name}_inner * 68u + {name}_outer] = select({one}(0), {value}, k0 + {name}_inner < {});",
            names.inner
        )
    };
    let text = include_str!("../../../shaders/matmul.wgsl");
    let places = [
        ("four", four.to_owned()),
        ("inner", names.inner.clone()),
        ("fetch_left", fetch(left, &names.rows, "first_row")),
        ("fetch_right", fetch(right, &names.columns, "first_column")),
    ];
    let places = places.each_ref().map(|(place, value)| (*place, value.as_str()));
    e.insert(text, &places);
    e.open(format!("if (column >= {}) {{", names.columns));
    e.line("return;");
    e.close();
    for r in 0..4 {
        e.open(format!("if (row + {r}u < {}) {{", names.rows));
        e.line(call_finish(product, &format!("row + {r}u"), "column", &format!("sum{r}")));
        e.close();
    }
}

fn call_finish(product: &Product<'_>, row: &str, column: &str, sum: &str) -> String {
    let index = |d: usize| match d {
        d if d == product.rows => row.to_owned(),
        d if d == product.columns => column.to_owned(),
        d => format!("i{d}"),
    };
    let places: Vec<String> = (0..product.k).map(index).collect();
    format!("finish({}, {sum});", places.join(", "))
}
