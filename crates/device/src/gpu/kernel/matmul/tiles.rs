//! The loops of a matrix product along the inner dim, with sums in the registers of each invocation, or with
//! slices of the operands in workgroup memory.

use super::left::Left;
use super::parts::{function, outer_and_inner};
use super::{MatmulNest, MatmulTile};
use crate::gpu::kernel::access::{Form, ShaderBuffer, element_type, zero};
use crate::gpu::kernel::body::choose;
use crate::gpu::kernel::emit::{Emitter, LANES, Width, type_name};
use crate::gpu::kernel::nest::{BufferWindows, buffer_name, memory_of};
use crate::gpu::program::Window;
use crate::kernel::{Access, Ty};

/// The uniforms of a product's sizes.
pub(super) struct Names {
    pub(super) rows: String,
    pub(super) columns: String,
    pub(super) inner: String,
}

/// The expression `sum + a * b`, where `a` is a scalar, and `sum` and `b` are vectors.
fn multiply_add(ty: Ty, sum: &str, a: &str, b: &str) -> String {
    match ty {
        Ty::I64 => format!("i64_add4({sum}, i64_mul4(i64_splat({a}), {b}))"),
        Ty::Bool => format!("({sum} | (vec4<bool>({a}) & {b}))"),
        _ => format!("({sum} + {a} * {b})"),
    }
}

/// The components of a vector.
pub(super) const C: [&str; 4] = ["x", "y", "z", "w"];

/// An operand, and how the source reads one or four of its elements.
pub(super) struct ShaderOperand<'p> {
    access: &'p Access,
    name: &'static str,
    memory_name: String,
    form: Form,
    /// Whether four elements along the inner dim, or along the outer one, can be read at once. The outer dim
    /// of an operand is that which the result has too.
    pub(super) along_inner: bool,
    pub(super) along_outer: bool,
    /// The uniforms of the strides along the inner and the outer dim.
    inner_stride: String,
    outer_stride: String,
    /// The functions from indices to offsets, for an inner or an outer dim that is composed of several.
    inner_function: Option<String>,
    outer_function: Option<String>,
    offset: String,
}

/// What an operand is in a product.
pub(super) struct OperandRole<'p> {
    pub(super) access: &'p Access,
    /// The prefix of its variables and uniforms.
    pub(super) name: &'static str,
    /// The dim of the result that it has.
    pub(super) outer: usize,
    /// Whether it must be read element by element, because the epilogue reads its buffer too.
    pub(super) by_elements: bool,
}

impl<'p> ShaderOperand<'p> {
    pub(super) fn new(
        e: &mut Emitter<'_>,
        product: &'p MatmulNest<'_>,
        windows: &BufferWindows,
        OperandRole { access, name, outer, by_elements }: OperandRole<'p>,
    ) -> ShaderOperand<'p> {
        let sizes = &product.nest.kernel.sizes;
        let window = windows.get(&access.buffer).cloned().unwrap_or(Window {
            slot: memory_of(access.buffer),
            start: 0,
            end: 256,
        });
        let start = (window.start / access.dtype.size() as u64) as isize;
        let four = |d: usize| access.strides[d] % 4 == 0;
        let others = (0..product.k - 2).all(four) && access.offset % 4 == 0 && !by_elements;
        let made = outer_and_inner(product, outer);
        let fours = |parts: &[(usize, isize)]| parts.iter().all(|(_, stride)| stride % 4 == 0);
        // The innermost of several dims is read in whole vectors, wherever a part of the inner dim begins.
        let last_in_fours = match &made[1][..] {
            [first @ .., (size, 1)] if !first.is_empty() => {
                size % 4 == 0 && product.nest.first[product.k].is_multiple_of(4) && fours(first)
            }
            _ => false,
        };
        let steps_by_one = last_in_fours || made[1].len() == 1 && access.strides[product.k] == 1;
        let along_inner = others && steps_by_one && fours(&made[0]);
        let along_outer = others
            && made[0].len() == 1
            && access.strides[outer] == 1
            && four(product.k)
            && fours(&made[1])
            && sizes[outer].is_multiple_of(4);
        let form = if along_inner || along_outer { Form::Vectors } else { Form::Elements };
        let memory_name = buffer_name(access.buffer);
        e.bind(&memory_name, element_type(access.dtype, false, form == Form::Vectors), window);
        let first = &product.nest.first;
        let outer_function = function(e, &format!("{name}_outer"), &made[0], first[outer]);
        let inner_function = function(e, &format!("{name}_inner"), &made[1], first[product.k]);
        ShaderOperand {
            access,
            name,
            memory_name,
            form,
            along_inner,
            along_outer: along_outer && !along_inner,
            inner_stride: e.signed_uniform(&format!("{name}_inner_stride"), access.strides[product.k]),
            outer_stride: e.signed_uniform(&format!("{name}_outer_stride"), access.strides[outer]),
            inner_function,
            outer_function,
            offset: e.offset_uniform(
                &format!("{name}_offset"),
                access.offset - start,
                access.buffer,
                access.dtype.size(),
            ),
        }
    }

    /// Defines the position of the first element of the batch's matrix.
    pub(super) fn begin(&self, e: &mut Emitter<'_>, product: &MatmulNest<'_>) {
        let mut at = self.offset.clone();
        for d in (0..product.k - 2).filter(|&d| self.access.strides[d] != 0) {
            let stride = e.signed_uniform(&format!("{}_stride{d}", self.name), self.access.strides[d]);
            at = format!("{at} + i{d} * {stride}");
        }
        e.line(format!("let {}_batch = {at};", self.name));
    }

    /// The offset of an index along the inner dim.
    pub(super) fn inner(&self, index: &str) -> String {
        match &self.inner_function {
            Some(function) => format!("{function}({index})"),
            None => format!("({index}) * {}", self.inner_stride),
        }
    }

    /// The offset of an index along the outer dim.
    pub(super) fn outer(&self, index: &str) -> String {
        match &self.outer_function {
            Some(function) => format!("{function}({index})"),
            None => format!("({index}) * {}", self.outer_stride),
        }
    }

    /// The offsets of the steps from `k` on along the inner dim, as variables if they take more than a
    /// multiplication. If four contiguous elements are read at once (`whole`), only the offset of the first
    /// step.
    pub(super) fn steps(&self, e: &mut Emitter<'_>, count: usize, inner: &str, whole: bool) -> Vec<String> {
        if whole && self.inner_function.is_none() {
            return vec!["k".to_owned()];
        }
        let count = if whole { 1 } else { count };
        let step = |j: usize| {
            let along = self.inner(&step(j, inner));
            if self.inner_function.is_none() {
                return along;
            }
            e.line(format!("let {}_step{j} = {along};", self.name));
            format!("{}_step{j}", self.name)
        };
        (0..count).map(step).collect()
    }

    pub(super) fn memory(&self) -> ShaderBuffer<'_> {
        ShaderBuffer { buffer: &self.memory_name, dtype: self.access.dtype, form: self.form, mixed: false }
    }

    /// The expression of one element; from a buffer of vectors, a component of a vector.
    pub(super) fn load(&self, at: &str) -> String {
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
                let word = ShaderBuffer { form: Form::Elements, ..self.memory() };
                word.load(at)
            }
            _ => format!("{vector}[({at}) & 3u]"),
        }
    }
}

/// A component of a vector.
pub(super) fn part(ty: Ty, vector: &str, c: &str) -> String {
    if ty == Ty::I64 { format!("i64_{c}({vector})") } else { format!("{vector}.{c}") }
}

/// A vector from four scalars.
fn gather(ty: Ty, parts: &[String]) -> String {
    match ty {
        Ty::I64 => format!("i64_join({})", parts.join(", ")),
        _ => format!("{}({})", type_name(ty, Width::Four), parts.join(", ")),
    }
}

/// The index of step `j` from `k` on, clamped to the last one.
pub(super) fn step(j: usize, inner: &str) -> String {
    if j == 0 { "k".to_owned() } else { format!("min(k + {j}u, {inner} - 1u)") }
}

/// The value of step `j`, or zero if there is no such step.
pub(super) fn within(ty: Ty, width: Width, value: &str, j: usize) -> String {
    let condition = match (j, width) {
        (0, _) => return value.to_owned(),
        (_, Width::One) => format!("within.{}", C[j]),
        (_, Width::Four) => format!("vec4<bool>(within.{})", C[j]),
    };
    choose(ty, width, &zero(ty, width), value, &condition)
}

/// Writes a product that keeps its sums in registers: an invocation computes all rows of the tile in its own
/// columns, which are `tile.vectors` times four consecutive ones.
pub(super) fn in_registers(
    e: &mut Emitter<'_>,
    product: &MatmulNest<'_>,
    tile: &MatmulTile,
    left: &ShaderOperand<'_>,
    right: &ShaderOperand<'_>,
    names: &Names,
) {
    let ty = product.ty;
    let t = type_name(ty, Width::Four);
    let inner = &names.inner;
    e.line(format!("let first_row = row_tile * {}u;", tile.rows));
    define_columns(e, tile, right, &names.columns);
    let left = Left::new(left, tile, names, ty);
    left.begin(e);
    for r in 0..tile.rows {
        for v in 0..tile.vectors {
            e.line(format!("var sum{r}_{v}: {t} = {};", zero(ty, Width::Four)));
        }
    }
    e.open(format!("for (var k = 0u; k < {inner}; k += {}u) {{", tile.steps));
    if tile.steps == 4 {
        // Steps beyond the end count as zeros in both operands.
        e.line(format!("let within = vec4<u32>(k) + {LANES} < vec4<u32>({inner});"));
    }
    load_right(e, ty, tile, right, inner);
    let along = left.steps(e);
    for r in 0..tile.rows {
        left.load(e, r, &along);
        for j in 0..tile.steps {
            let factor = left.element(r, j);
            e.line(format!("let factor{r}_{j} = {factor};"));
            for v in 0..tile.vectors {
                let (sum, factor) = (format!("sum{r}_{v}"), format!("factor{r}_{j}"));
                let sum = multiply_add(ty, &sum, &factor, &format!("right{j}_{v}"));
                e.line(format!("sum{r}_{v} = {sum};"));
            }
        }
    }
    e.close();
    finish_rows(e, product, tile, names);
}

/// Defines the first of each four columns of an invocation, and where the right operand's columns begin.
fn define_columns(e: &mut Emitter<'_>, tile: &MatmulTile, right: &ShaderOperand<'_>, columns: &str) {
    for v in 0..tile.vectors {
        let first = v * tile.lanes;
        e.line(format!(
            "let first_column{v} = (column_tile * {}u + {first}u + local) * 4u;",
            tile.lanes * tile.vectors
        ));
        if right.along_outer {
            // The number of columns is a multiple of four: an invocation beyond the last column reads the
            // last four.
            e.line(format!("let column{v} = right_batch + min(first_column{v}, {columns} - 4u);"));
        } else if right.outer_function.is_some() {
            let at = |c: usize| right.outer(&format!("min(first_column{v} + {c}u, {columns} - 1u)"));
            let places = [0, 1, 2, 3].map(at).join(", ");
            e.line(format!("let column{v} = vec4<u32>(right_batch) + vec4<u32>({places});"));
        } else {
            let first = format!("vec4<u32>(first_column{v}) + {LANES}");
            let index = format!("min({first}, vec4<u32>({columns} - 1u))");
            e.line(format!("let column{v} = vec4<u32>(right_batch) + {index} * {};", right.outer_stride));
        }
    }
}

/// Loads the right operand's elements of the invocation's columns, for the steps of the inner dim from `k`
/// on.
fn load_right(e: &mut Emitter<'_>, ty: Ty, tile: &MatmulTile, right: &ShaderOperand<'_>, inner: &str) {
    let whole = right.along_inner && tile.steps == 4;
    let along = right.steps(e, tile.steps, inner, whole);
    let right_at = |v: usize, along: &str| -> String {
        if right.along_outer {
            right.memory().load_vector(&format!("(column{v} + {along})"))
        } else {
            let at = |c: &&str| right.load(&format!("(column{v}.{c} + {along})"));
            gather(ty, &C.iter().map(at).collect::<Vec<_>>())
        }
    };
    for v in 0..tile.vectors {
        if whole {
            for c in C {
                let load = right.memory().load_vector(&format!("(column{v}.{c} + {})", along[0]));
                e.line(format!("let down{v}_{c} = {load};"));
            }
        }
        for j in 0..tile.steps {
            let value = if whole {
                gather(ty, &C.map(|column| part(ty, &format!("down{v}_{column}"), C[j])))
            } else {
                right_at(v, &along[j])
            };
            let value = within(ty, Width::Four, &value, j);
            e.line(format!("let right{j}_{v} = {value};"));
        }
    }
}

/// Runs the epilogue for all rows of the tile.
///
/// The rows are a loop, so that the epilogue is in the source once for each vector of columns and not once
/// for each sum: drivers inline the function. The sums are picked by comparisons, because an array of them
/// takes longer to compile than all copies.
fn finish_rows(e: &mut Emitter<'_>, product: &MatmulNest<'_>, tile: &MatmulTile, names: &Names) {
    let ty = product.ty;
    let t = type_name(ty, Width::Four);
    let Names { rows, columns, .. } = names;
    e.open(format!("for (var row = first_row; row < min(first_row + {}u, {rows}); row++) {{", tile.rows));
    for v in 0..tile.vectors {
        e.open(format!("if (first_column{v} < {columns}) {{"));
        e.line(format!("var sum: {t} = sum0_{v};"));
        for r in 1..tile.rows {
            let here = format!("vec4<bool>(row == first_row + {r}u)");
            e.line(format!("sum = {};", choose(ty, Width::Four, "sum", &format!("sum{r}_{v}"), &here)));
        }
        e.line(call_finish(product, "row", &format!("first_column{v}"), "sum"));
        e.close();
    }
    e.close();
}

/// Writes a product whose operands go through workgroup memory in slices. Each of 256 invocations computes 4
/// x 4 elements.
pub(super) fn through_workgroup_memory(
    e: &mut Emitter<'_>,
    product: &MatmulNest<'_>,
    left: &ShaderOperand<'_>,
    right: &ShaderOperand<'_>,
    names: &Names,
) {
    let ty = product.ty;
    let (one, four) = (type_name(ty, Width::One), type_name(ty, Width::Four));
    e.workgroup_array("left_slice", one, 16 * 68);
    e.workgroup_array("right_slice", one, 16 * 68);
    let fetch = |operand: &ShaderOperand<'_>, count: &str, first: &str| {
        let name = operand.name;
        // Neighbouring invocations read contiguous elements.
        let (outer, inner) = if operand.access.strides[product.k] == 1 {
            ("fetch / 16u", "fetch % 16u")
        } else {
            ("fetch % 64u", "fetch / 64u")
        };
        let at = format!(
            "({name}_batch + {} + {})",
            operand.outer(&format!("min({first} + {name}_place, {count} - 1u)")),
            operand.inner(&format!("min(k0 + {name}_depth, {} - 1u)", names.inner))
        );
        let value = operand.load(&format!("{name}_at"));
        format!(
            "        let {name}_place = {outer};\n        let {name}_depth = {inner};\n        \
             let {name}_at = {at};\n        \
             {name}_slice[{name}_depth * 68u + {name}_place] = \
             select({one}(0), {value}, k0 + {name}_depth < {});",
            names.inner
        )
    };
    let text = include_str!("../../../../shaders/matmul.wgsl");
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

fn call_finish(product: &MatmulNest<'_>, row: &str, column: &str, sum: &str) -> String {
    let index = |d: usize| match d {
        d if d == product.rows => row.to_owned(),
        d if d == product.columns => column.to_owned(),
        d => format!("i{d}"),
    };
    let places: Vec<String> = (0..product.k).map(index).collect();
    format!("finish({}, {sum});", places.join(", "))
}
