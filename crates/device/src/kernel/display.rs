//! Kernels as text: one line that says the kind of work and its sizes and, with `{:#}`, the body with one
//! line for each instruction.
//!
//! The dims of a space are `i0`, `i1`, …, values are `%0`, `%1`, …, and buffers have the names that
//! [`Kernel::named`] is given, or `b0`, `b1`, …. Strides and offsets are stated only if the elements are not
//! contiguous in the order of the space.

use std::fmt::{self, Display, Formatter};

use super::{Access, BinaryOp, Instr, Kernel, Level, Loop, Matmul, Range, Reg, Scan, Scatter, Sort, Traffic};
use crate::Scalar;
use crate::layout::{Dims, contiguous_strides};

/// A kernel that displays its buffers by name; see [`Kernel::named`].
#[derive(Clone, Copy, Debug)]
pub struct NamedKernel<'a> {
    kernel: &'a Kernel,
    names: &'a [String],
}

impl Kernel {
    /// The kernel, displayed with these names of its buffers.
    ///
    /// ```
    /// use wgrad_device::DType;
    /// use wgrad_device::kernel::{Access, Instr, Kernel, Loop, Store, UnaryOp};
    /// let kernel = Kernel::Loop(Loop {
    ///     sizes: [64, 100].into_iter().collect(),
    ///     inner: 0,
    ///     accesses: vec![
    ///         Access::new(0, DType::F32, &[1, 64], 0),
    ///         Access::new(1, DType::F32, &[100, 1], 0),
    ///     ],
    ///     ranges: vec![],
    ///     body: vec![
    ///         Instr::Load { access: 0, indices: Default::default() },
    ///         Instr::Unary { op: UnaryOp::Exp, a: 0 },
    ///     ],
    ///     stores: vec![Store { access: 1, value: 1 }],
    /// });
    /// assert_eq!(kernel.to_string(), "loop over [64, 100]");
    /// let names = ["x".to_string(), "y".to_string()];
    /// assert_eq!(
    ///     format!("{:#}", kernel.named(&names)),
    ///     "loop over [64, 100]\n  %0 = x f32 strides [1, 64]\n  %1 = exp(%0)\n  y f32 = %1"
    /// );
    /// ```
    pub fn named<'a>(&'a self, names: &'a [String]) -> NamedKernel<'a> {
        NamedKernel { kernel: self, names }
    }
}

impl Display for NamedKernel<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.kernel {
            Kernel::Loop(kernel) => write_loop(f, kernel, self.names),
            Kernel::Matmul(kernel) => write_matmul(f, kernel, self.names),
            Kernel::Scatter(kernel) => write_scatter(f, kernel, self.names),
            Kernel::Scan(kernel) => write_scan(f, kernel, self.names),
            Kernel::Sort(kernel) => write_sort(f, kernel, self.names),
        }
    }
}

impl Display for Kernel {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.named(&[]).fmt(f)
    }
}

impl Display for Loop {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write_loop(f, self, &[])
    }
}

impl Display for Matmul {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write_matmul(f, self, &[])
    }
}

impl Display for Scatter {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write_scatter(f, self, &[])
    }
}

impl Display for Scan {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write_scan(f, self, &[])
    }
}

impl Display for Sort {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write_sort(f, self, &[])
    }
}

impl Display for Traffic {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "reads {}, writes {}", Bytes(self.read), Bytes(self.written))
    }
}

/// A number of bytes for people to read: exact up to 9,999, and with three digits beyond.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bytes(pub u64);

impl Display for Bytes {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.0 < 10_000 {
            return write!(f, "{} B", self.0);
        }
        let mut value = self.0 as f64 / 1e3;
        let mut unit = "kB";
        for larger in ["MB", "GB", "TB", "PB", "EB"] {
            if value >= 999.5 {
                (value, unit) = (value / 1e3, larger);
            }
        }
        let digits = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
        write!(f, "{value:.digits$} {unit}")
    }
}

fn name(names: &[String], buffer: usize) -> String {
    names.get(buffer).cloned().unwrap_or_else(|| format!("b{buffer}"))
}

fn write_loop(f: &mut Formatter<'_>, kernel: &Loop, names: &[String]) -> fmt::Result {
    let (outer, inner) = kernel.sizes.split_at(kernel.outer());
    match (outer, inner) {
        ([], []) => write!(f, "loop over one element")?,
        (_, []) => write!(f, "loop over {outer:?}")?,
        ([], _) => write!(f, "loop over a row of {inner:?}")?,
        _ => write!(f, "loop over {outer:?} rows of {inner:?}")?,
    }
    write_body(f, kernel, names)
}

/// Writes the instructions and stores, if the format is `{:#}`.
fn write_body(f: &mut Formatter<'_>, kernel: &Loop, names: &[String]) -> fmt::Result {
    if !f.alternate() {
        return Ok(());
    }
    for (reg, instr) in kernel.body.iter().enumerate() {
        write!(f, "\n  %{reg} = ")?;
        write_instr(f, kernel, instr, names)?;
    }
    for store in &kernel.stores {
        let access = &kernel.accesses[store.access];
        write!(f, "\n  {} {}", name(names, access.buffer), access.dtype)?;
        let by_row = kernel.inner > 0 && kernel.store_level(access) == Level::Row;
        let rank = if by_row { kernel.outer() } else { kernel.sizes.len() };
        write_strides(f, &access.strides[..rank], access.offset, &kernel.sizes[..rank])?;
        write!(f, " = %{}{}", store.value, if by_row { ", once a row" } else { "" })?;
    }
    Ok(())
}

fn write_instr(f: &mut Formatter<'_>, kernel: &Loop, instr: &Instr, names: &[String]) -> fmt::Result {
    match instr {
        Instr::Load { access, indices } => {
            let access = &kernel.accesses[*access];
            write_access(f, access, &kernel.sizes, names)?;
            for (dim, index) in access.indexed.iter().zip(indices) {
                write!(f, " at %{index} of {} ({}, stride {})", dim.size, dim.op, dim.stride)?;
            }
            for (i, &guard) in access.guards.iter().enumerate() {
                write!(f, " {} {}", if i == 0 { "where" } else { "and" }, InRange(&kernel.ranges[guard]))?;
            }
            Ok(())
        }
        Instr::Accumulator => write!(f, "the product"),
        Instr::Param { index, ty } => write!(f, "parameter {index} ({ty:?})"),
        Instr::Const(number) => match number.value() {
            Scalar::Bool(value) => write!(f, "{value} ({:?})", number.ty()),
            Scalar::Int(value) => write!(f, "{value} ({:?})", number.ty()),
            Scalar::Float(value) => write!(f, "{value} ({:?})", number.ty()),
        },
        Instr::Coord { dim } => write!(f, "i{dim}"),
        Instr::InRange { range } => write!(f, "{}", InRange(&kernel.ranges[*range])),
        Instr::Unary { op, a } => write!(f, "{}(%{a})", Lower(op)),
        Instr::Binary { op, a, b } => write_binary(f, *op, *a, *b),
        Instr::Select { cond, a, b } => write!(f, "%{cond} ? %{a} : %{b}"),
        Instr::Cast { a, to } => write!(f, "{to}(%{a})"),
        Instr::Philox { index, params } => {
            write!(f, "philox(%{index}), seed and stream in parameters {params} to {}", params + 3)
        }
        Instr::Normal { index, params } => {
            write!(f, "normal(%{index}), seed and stream in parameters {params} to {}", params + 3)
        }
        Instr::Reduce { op, a } => write!(f, "{} of %{a} over the row", Lower(op)),
    }
}

fn write_binary(f: &mut Formatter<'_>, op: BinaryOp, a: Reg, b: Reg) -> fmt::Result {
    let sign = match op {
        BinaryOp::Add => "+",
        BinaryOp::Sub => "-",
        BinaryOp::Mul => "*",
        BinaryOp::Div => "/",
        BinaryOp::Rem => "%",
        BinaryOp::And => "&",
        BinaryOp::Or => "|",
        BinaryOp::Xor => "^",
        BinaryOp::Shl => "<<",
        BinaryOp::Shr => ">>",
        BinaryOp::Eq => "==",
        BinaryOp::Ne => "!=",
        BinaryOp::Lt => "<",
        BinaryOp::Le => "<=",
        BinaryOp::Gt => ">",
        BinaryOp::Ge => ">=",
        BinaryOp::Pow | BinaryOp::Max | BinaryOp::Min => return write!(f, "{}(%{a}, %{b})", Lower(&op)),
    };
    write!(f, "%{a} {sign} %{b}")
}

/// Writes a buffer as an access reads it: its name, its dtype and, unless it is contiguous, its strides.
fn write_access(f: &mut Formatter<'_>, access: &Access, sizes: &[usize], names: &[String]) -> fmt::Result {
    write!(f, "{} {}", name(names, access.buffer), access.dtype)?;
    write_strides(f, &access.strides, access.offset, sizes)
}

fn write_strides(f: &mut Formatter<'_>, strides: &[isize], offset: isize, sizes: &[usize]) -> fmt::Result {
    let dense = contiguous_strides(sizes);
    let is_dense =
        strides.len() == sizes.len() && (0..sizes.len()).all(|d| sizes[d] <= 1 || strides[d] == dense[d]);
    if !is_dense {
        write!(f, " strides {strides:?}")?;
    }
    if offset != 0 {
        write!(f, " offset {offset}")?;
    }
    Ok(())
}

/// The debug form of a value in lower case: `Exp` as `exp`.
struct Lower<'a, T>(&'a T);

impl<T: fmt::Debug> Display for Lower<'_, T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&format!("{:?}", self.0).to_lowercase())
    }
}

/// A range check as text: `0 <= 2 i0 + i1 - 1 < 5`.
struct InRange<'a>(&'a Range);

impl Display for InRange<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "0 <= ")?;
        let mut empty = true;
        for (dim, &stride) in self.0.strides.iter().enumerate().filter(|(_, stride)| **stride != 0) {
            let sign = match (stride < 0, empty) {
                (true, true) => "-",
                (true, false) => " - ",
                (false, true) => "",
                (false, false) => " + ",
            };
            write!(f, "{sign}")?;
            match stride.unsigned_abs() {
                1 => write!(f, "i{dim}")?,
                factor => write!(f, "{factor} i{dim}")?,
            }
            empty = false;
        }
        match self.0.offset {
            offset if empty => write!(f, "{offset}")?,
            0 => {}
            offset if offset < 0 => write!(f, " - {}", offset.unsigned_abs())?,
            offset => write!(f, " + {offset}")?,
        }
        write!(f, " < {}", self.0.size)
    }
}

fn write_matmul(f: &mut Formatter<'_>, kernel: &Matmul, names: &[String]) -> fmt::Result {
    let [lhs, rhs] = kernel.factors();
    let (batch, matrix) = kernel.epilogue.sizes.split_at(kernel.epilogue.sizes.len().saturating_sub(2));
    write!(f, "matmul of [{}, {}]", matrix.first().unwrap_or(&1), kernel.k)?;
    write!(f, " and [{}, {}]", kernel.k, matrix.get(1).unwrap_or(&1))?;
    if !batch.is_empty() {
        write!(f, " for {batch:?}")?;
    }
    if !f.alternate() {
        return Ok(());
    }
    for (access, sizes) in [lhs, rhs] {
        write!(f, "\n  ")?;
        write_access(f, access, &sizes, names)?;
        if sizes.len() > batch.len() + 2 {
            write!(f, " over {sizes:?}")?;
        }
    }
    write_body(f, &kernel.epilogue, names)
}

fn write_scatter(f: &mut Formatter<'_>, kernel: &Scatter, names: &[String]) -> fmt::Result {
    write!(f, "scatter ({}) of {:?}", Lower(&kernel.op), kernel.sizes)?;
    write!(f, " into {} elements", kernel.elements)?;
    if !f.alternate() {
        return Ok(());
    }
    write!(f, "\n  {} starts as ", name(names, kernel.target.buffer))?;
    match kernel.base {
        Some(base) => write!(f, "{}", name(names, base))?,
        None => write!(f, "zeros")?,
    }
    write!(f, "\n  ")?;
    write_access(f, &kernel.source, &kernel.sizes, names)?;
    for (index, dim) in kernel.indices.iter().zip(&kernel.target.indexed) {
        write!(f, "\n  to ")?;
        write_access(f, index, &kernel.sizes, names)?;
        write!(f, " of {} ({}, stride {})", dim.size, dim.op, dim.stride)?;
    }
    Ok(())
}

fn write_scan(f: &mut Formatter<'_>, kernel: &Scan, names: &[String]) -> fmt::Result {
    write!(f, "running {} along the last dim of {:?}", Lower(&kernel.op), kernel.sizes)?;
    write_source_and_target(f, (&kernel.source, &kernel.sizes), (&kernel.target, &kernel.sizes), names)
}

fn write_sort(f: &mut Formatter<'_>, kernel: &Sort, names: &[String]) -> fmt::Result {
    let order = if kernel.descending { "descending" } else { "ascending" };
    write!(f, "{order} order along the last dim of {:?}", kernel.sizes)?;
    if kernel.sizes.last().is_some_and(|&length| length != kernel.count) {
        write!(f, ", places {} to {}", kernel.first, kernel.first + kernel.count)?;
    }
    write_source_and_target(
        f,
        (&kernel.source, &kernel.sizes),
        (&kernel.target, &kernel.target_sizes()),
        names,
    )
}

fn write_source_and_target(
    f: &mut Formatter<'_>,
    source: (&Access, &Dims),
    target: (&Access, &Dims),
    names: &[String],
) -> fmt::Result {
    if !f.alternate() {
        return Ok(());
    }
    write!(f, "\n  from ")?;
    write_access(f, source.0, source.1, names)?;
    write!(f, "\n  to ")?;
    write_access(f, target.0, target.1, names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DType;
    use crate::kernel::{Const, IndexedDim, ReduceOp, ScatterOp, Store, Ty, UnaryOp};

    fn lines(text: &impl Display) -> Vec<String> {
        format!("{text:#}").lines().map(str::to_owned).collect()
    }

    #[test]
    fn a_loop_states_rows_strides_guards_and_what_is_stored_once_a_row() {
        let mut padded = Access::new(0, DType::F16, &[10, -1], 8);
        padded.guards.push(0);
        let kernel = Loop {
            sizes: [4, 6].into_iter().collect(),
            inner: 1,
            accesses: vec![
                padded,
                Access::new(1, DType::F32, &[1, 0], 0),
                Access::new(2, DType::F32, &[6, 1], 0),
            ],
            ranges: vec![Range { strides: [2, -1].into_iter().collect(), offset: -3, size: 5 }],
            body: vec![
                Instr::Load { access: 0, indices: Default::default() },
                Instr::Reduce { op: ReduceOp::Max, a: 0 },
                Instr::Binary { op: BinaryOp::Sub, a: 0, b: 1 },
                Instr::Const(Const::new(0.5, Ty::F32)),
                Instr::Binary { op: BinaryOp::Pow, a: 2, b: 3 },
            ],
            stores: vec![Store { access: 1, value: 1 }, Store { access: 2, value: 4 }],
        };
        assert_eq!(kernel.to_string(), "loop over [4] rows of [6]");
        assert_eq!(
            lines(&kernel)[1..],
            [
                "  %0 = b0 f16 strides [10, -1] offset 8 where 0 <= 2 i0 - i1 - 3 < 5",
                "  %1 = max of %0 over the row",
                "  %2 = %0 - %1",
                "  %3 = 0.5 (F32)",
                "  %4 = pow(%2, %3)",
                "  b1 f32 = %1, once a row",
                "  b2 f32 = %4",
            ]
        );
    }

    #[test]
    fn other_kernels_state_their_sizes_and_factors() {
        let epilogue = Loop {
            sizes: [3, 8, 5].into_iter().collect(),
            inner: 0,
            accesses: vec![Access::new(2, DType::F32, &[40, 5, 1], 0)],
            ranges: vec![],
            body: vec![Instr::Accumulator, Instr::Unary { op: UnaryOp::Tanh, a: 0 }],
            stores: vec![Store { access: 0, value: 1 }],
        };
        let (lhs, rhs) =
            (Access::new(0, DType::F32, &[16, 2, 1], 0), Access::new(1, DType::F32, &[0, 1, 2], 0));
        let kernel = Kernel::Matmul(Matmul::new(2, lhs, rhs, epilogue));
        assert_eq!(kernel.to_string(), "matmul of [8, 2] and [2, 5] for [3]");
        assert_eq!(
            lines(&kernel)[1..],
            [
                "  b0 f32",
                "  b1 f32 strides [0, 1, 2]",
                "  %0 = the product",
                "  %1 = tanh(%0)",
                "  b2 f32 = %1",
            ]
        );

        let mut target = Access::new(2, DType::F64, &[0, 1], 0);
        target.indexed.push(IndexedDim { stride: 4, size: 10, op: "index_add" });
        let kernel = Kernel::Scatter(Scatter {
            op: ScatterOp::Add,
            sizes: [7, 4].into_iter().collect(),
            source: Access::new(0, DType::F64, &[4, 1], 0),
            indices: vec![Access::new(1, DType::I64, &[1, 0], 0)],
            target,
            base: None,
            elements: 40,
        });
        assert_eq!(
            lines(&kernel),
            [
                "scatter (add) of [7, 4] into 40 elements",
                "  b2 starts as zeros",
                "  b0 f64",
                "  to b1 i64 strides [1, 0] of 10 (index_add, stride 4)",
            ]
        );

        let kernel = Kernel::Sort(Sort {
            descending: true,
            sizes: [2, 9].into_iter().collect(),
            source: Access::new(0, DType::F32, &[1, 2], 0),
            target: Access::new(1, DType::I64, &[3, 1], 0),
            first: 0,
            count: 3,
        });
        assert_eq!(
            lines(&kernel),
            [
                "descending order along the last dim of [2, 9], places 0 to 3",
                "  from b0 f32 strides [1, 2]",
                "  to b1 i64",
            ]
        );
    }

    #[test]
    fn bytes_are_exact_while_they_are_few() {
        let texts = [0, 9_999, 25_600, 999_499, 999_500, 4_200_000, 12_340_000_000];
        let texts = texts.map(|bytes| Bytes(bytes).to_string());
        assert_eq!(texts, ["0 B", "9999 B", "25.6 kB", "999 kB", "1.00 MB", "4.20 MB", "12.3 GB"]);
    }
}
