//! Writes the body of a loop as WGSL: it decides which values are vectors, and translates each instruction.
//!
//! One dim may be vectorised. An invocation then handles four consecutive indices of it: values that change
//! along that dim are vec4s, and all others stay scalars, which are broadcast where they meet vectors.

use std::collections::BTreeMap;

use super::access::Form;
use super::emit::{Emitter, LANES, Width, type_name};
use super::nest::{BufferWindows, Nest};
use super::value_numbering::representatives;
use crate::kernel::{BinaryOp, Const, Instr, Level, Reg, Ty, UnaryOp};
use crate::{DType, Error, Result, Scalar};

/// The body of a loop while its source is written.
pub(super) struct ShaderBody<'n> {
    pub(super) nest: &'n Nest,
    pub(super) windows: &'n BufferWindows,
    pub(super) types: Vec<Ty>,
    pub(super) levels: Vec<Level>,
    pub(super) stages: Vec<usize>,
    /// The dim that is vectorised.
    pub(super) vector: Option<usize>,
    pub(super) widths: Vec<Width>,
    pub(super) forms: BTreeMap<usize, Form>,
    /// For each value its name, if it is defined at this point of the source.
    names: Vec<Option<String>>,
    /// The value number of each value: the first value that is computed in the same way.
    numbering: Vec<Reg>,
    /// The values that are defined, in the order of their definitions.
    defined: Vec<Reg>,
    /// The expression of [`Instr::Accumulator`].
    pub(super) accumulator: Option<String>,
    /// The name of a vec4<bool> that says which of the four indices exist; `None` if all do.
    pub(super) valid: Option<String>,
    /// The name of a bool that says whether this invocation's row exists; `None` if it does.
    pub(super) live: Option<String>,
}

impl<'n> ShaderBody<'n> {
    pub(super) fn new(
        nest: &'n Nest,
        windows: &'n BufferWindows,
        vector: Option<usize>,
        accumulator: Ty,
    ) -> ShaderBody<'n> {
        let types = nest.kernel.types(accumulator);
        let mut body = ShaderBody {
            levels: nest.kernel.levels(),
            stages: nest.kernel.stages(),
            widths: Vec::new(),
            forms: BTreeMap::new(),
            names: vec![None; types.len()],
            numbering: representatives(&nest.kernel),
            defined: Vec::new(),
            accumulator: None,
            valid: None,
            live: None,
            nest,
            windows,
            types,
            vector,
        };
        body.widths = body.find_widths();
        body.find_forms();
        body
    }

    fn find_widths(&self) -> Vec<Width> {
        let kernel = &self.nest.kernel;
        let along = |strides: &[isize]| match self.vector {
            Some(d) if strides[d] != 0 => Width::Four,
            _ => Width::One,
        };
        let mut widths: Vec<Width> = Vec::with_capacity(kernel.body.len());
        for instr in &kernel.body {
            let own = match instr {
                Instr::Load { access, .. } => {
                    let access = &kernel.accesses[*access];
                    let guards = access.guards.iter().map(|&g| along(&kernel.ranges[g].strides));
                    guards.fold(along(&access.strides), Width::max)
                }
                Instr::InRange { range } => along(&kernel.ranges[*range].strides),
                Instr::Coord { dim } if self.vector == Some(*dim) => Width::Four,
                Instr::Accumulator if self.vector.is_some() => Width::Four,
                _ => Width::One,
            };
            // A fold along the vectorised dim gives one value.
            let folded =
                matches!(instr, Instr::Reduce { .. }) && self.vector.is_some_and(|d| d >= kernel.outer());
            let width = if folded {
                Width::One
            } else {
                instr.operands().iter().map(|&r| widths[r as usize]).fold(own, Width::max)
            };
            widths.push(width);
        }
        // If an outer dim is vectorised, every fold gives one value for each of four rows.
        if self.vector.is_some_and(|d| d < kernel.outer()) && kernel.inner > 0 {
            let mut changed = true;
            while changed {
                changed = false;
                for (i, instr) in kernel.body.iter().enumerate() {
                    let fold = matches!(instr, Instr::Reduce { .. });
                    let wide = fold || instr.operands().iter().any(|&r| widths[r as usize] == Width::Four);
                    if wide && widths[i] == Width::One {
                        widths[i] = Width::Four;
                        changed = true;
                    }
                }
            }
        }
        widths
    }

    /// The number of defined values, to return to with [`ShaderBody::forget`].
    pub(super) fn mark(&self) -> usize {
        self.defined.len()
    }

    /// Forgets the values that were defined since a mark, because their block has ended.
    pub(super) fn forget(&mut self, mark: usize) {
        for reg in self.defined.drain(mark..) {
            self.names[reg as usize] = None;
        }
    }

    /// Notes that a value is defined under this name.
    pub(super) fn define(&mut self, reg: Reg, name: String) {
        self.names[reg as usize] = Some(name);
        self.defined.push(reg);
    }

    pub(super) fn is_defined(&self, reg: Reg) -> bool {
        self.names[reg as usize].is_some()
    }

    /// The expression of a defined value at this width.
    pub(super) fn value(&self, reg: Reg, width: Width) -> String {
        let name = self.names[reg as usize].clone().unwrap_or_default();
        to_width(&name, self.types[reg as usize], self.widths[reg as usize], width)
    }

    /// Writes the definitions of values and of all values that they need, unless these are defined already.
    pub(super) fn require(&mut self, e: &mut Emitter<'_>, regs: &[Reg]) -> Result<()> {
        let mut needed = vec![false; self.types.len()];
        let mut open: Vec<Reg> = regs.to_vec();
        while let Some(reg) = open.pop() {
            if !needed[reg as usize] && !self.is_defined(reg) {
                needed[reg as usize] = true;
                open.extend(self.nest.kernel.body[reg as usize].operands());
            }
        }
        for reg in 0..self.types.len() as Reg {
            if needed[reg as usize] {
                self.write(e, reg)?;
            }
        }
        Ok(())
    }

    fn write(&mut self, e: &mut Emitter<'_>, reg: Reg) -> Result<()> {
        let instr = &self.nest.kernel.body[reg as usize];
        let (ty, width) = (self.types[reg as usize], self.widths[reg as usize]);
        let t = type_name(ty, width);
        let name = format!("{}_{reg}", instr_name(instr));
        let expression = match instr {
            Instr::Const(value) => {
                self.define(reg, constant(*value));
                return Ok(());
            }
            Instr::Param { index, ty } => {
                let expression = e.parameter(*index, *ty);
                self.define(reg, expression);
                return Ok(());
            }
            Instr::Accumulator => {
                self.define(reg, self.accumulator.clone().unwrap_or_default());
                return Ok(());
            }
            Instr::Load { access, indices } => self.load(e, *access, indices, &name, width)?,
            Instr::Coord { dim } => {
                let first = e.uniform(&format!("first_{dim}"), self.nest.first[*dim]);
                match width {
                    Width::One => format!("bitcast<i32>(i{dim} + {first})"),
                    Width::Four => format!("bitcast<vec4<i32>>(vec4<u32>(i{dim} + {first}) + {LANES})"),
                }
            }
            Instr::InRange { range } => self.in_range(e, *range, width),
            Instr::Unary { op, a } => {
                let operand = self.types[*a as usize];
                unary(*op, operand, width, &self.value(*a, width))
            }
            Instr::Binary { op, a, b } => {
                let operand = self.types[*a as usize];
                let (x, y) = (self.value(*a, width), self.value(*b, width));
                match op {
                    BinaryOp::Sub | BinaryOp::Div if operand.is_float() && self.is_same(*a, *b) => {
                        let what = if *op == BinaryOp::Sub { "minus" } else { "over" };
                        format!("{}_{what}_itself{}({x})", float_prefix(operand), width.suffix())
                    }
                    op => binary(*op, operand, width, &x, &y),
                }
            }
            Instr::Select { cond, a, b } => {
                let (cond, a, b) = (self.value(*cond, width), self.value(*a, width), self.value(*b, width));
                choose(ty, width, &b, &a, &cond)
            }
            Instr::Cast { a, to } => cast(self.types[*a as usize], *to, width, &self.value(*a, width)),
            instr @ (Instr::Philox { index, params } | Instr::Normal { index, params }) => {
                let words: Vec<String> = (*params..params + 4).map(|i| e.parameter(i, Ty::U32)).collect();
                let name = if matches!(instr, Instr::Normal { .. }) { "normal" } else { "philox" };
                let (suffix, index) = (width.suffix(), self.value(*index, width));
                format!("{name}{suffix}({}({index}), {})", type_name(Ty::U32, width), words.join(", "))
            }
            // Folds are written by the surrounding loop, before the values that need them.
            Instr::Reduce { .. } => {
                return Err(Error::Unsupported {
                    op: "prepare",
                    reason: "a reduction outside of its row".to_owned(),
                });
            }
        };
        e.line(format!("let {name}: {t} = {expression};"));
        self.define(reg, name);
        Ok(())
    }

    /// Whether two values have the same value number.
    fn is_same(&self, a: Reg, b: Reg) -> bool {
        self.numbering[a as usize] == self.numbering[b as usize]
    }

    /// The expression of a range check.
    pub(super) fn in_range(&self, e: &mut Emitter<'_>, range: usize, width: Width) -> String {
        let check = &self.nest.kernel.ranges[range];
        let mut value = e.signed_uniform(&format!("range{range}_offset"), check.offset);
        for (d, &stride) in check.strides.iter().enumerate().filter(|(_, s)| **s != 0) {
            let stride = e.signed_uniform(&format!("range{range}_stride{d}"), stride);
            value = format!("{value} + i{d} * {stride}");
        }
        let size = e.uniform(&format!("range{range}_size"), check.size);
        match self.vector.filter(|&d| check.strides[d] != 0) {
            Some(d) => {
                let stride = e.signed_uniform(&format!("range{range}_stride{d}"), check.strides[d]);
                format!("((vec4<u32>({value}) + {LANES} * {stride}) < vec4<u32>({size}))")
            }
            None => to_width(&format!("({value} < {size})"), Ty::Bool, Width::One, width),
        }
    }
}

/// Converts an expression to another width. A vector is converted to its first component, which happens along
/// dims of size 1 only.
pub(super) fn to_width(value: &str, ty: Ty, from: Width, to: Width) -> String {
    match (from, to, ty) {
        (Width::One, Width::Four, Ty::I64) => format!("i64_splat({value})"),
        (Width::Four, Width::One, Ty::I64) => format!("i64_x({value})"),
        (Width::Four, Width::One, _) => format!("{value}.x"),
        (Width::One, Width::Four, _) => format!("{}({value})", type_name(ty, Width::Four)),
        _ => value.to_owned(),
    }
}

/// The expression that is `a` where the condition fails and `b` where it holds.
pub(super) fn choose(ty: Ty, width: Width, a: &str, b: &str, condition: &str) -> String {
    match ty {
        Ty::I64 => format!("i64_select{}({a}, {b}, {condition})", width.suffix()),
        _ => format!("select({a}, {b}, {condition})"),
    }
}

fn instr_name(instr: &Instr) -> String {
    match instr {
        Instr::Load { .. } => "x".to_owned(),
        Instr::Coord { .. } => "coord".to_owned(),
        Instr::InRange { .. } => "inside".to_owned(),
        Instr::Unary { op, .. } => format!("{op:?}").to_lowercase(),
        Instr::Binary { op, .. } => format!("{op:?}").to_lowercase(),
        Instr::Select { .. } => "chosen".to_owned(),
        Instr::Cast { to, .. } => format!("as_{to}"),
        Instr::Philox { .. } | Instr::Normal { .. } => "random".to_owned(),
        Instr::Reduce { op, .. } => format!("row_{}", format!("{op:?}").to_lowercase()),
        Instr::Accumulator | Instr::Param { .. } | Instr::Const(_) => "value".to_owned(),
    }
}

/// The expression of a constant.
pub(super) fn constant(value: Const) -> String {
    match (value.ty(), value.value()) {
        (Ty::Bool, value) => value.as_bool().to_string(),
        (Ty::U32, value) => format!("{}u", value.as_i64() as u32),
        (Ty::I32, value) => match value.as_i64() as i32 {
            i32::MIN => "bitcast<i32>(2147483648u)".to_owned(),
            value => format!("({value}i)"),
        },
        (Ty::I64, value) => format!("I64({}u, {}u)", value.as_i64() as u32, (value.as_i64() >> 32) as u32),
        (Ty::F64, value) => double(value.as_f64()),
        (_, Scalar::Float(value)) => float(value as f32),
        (_, value) => float(value.as_f64() as f32),
    }
}

/// The expression of an f32. Values that have no literal in WGSL are given by their bits.
pub(super) fn float(value: f32) -> String {
    if value.is_normal() || value.to_bits() == 0 {
        format!("({value:?}f)")
    } else {
        format!("f_bits({}u)", value.to_bits())
    }
}

/// The expression of an f64.
fn double(value: f64) -> String {
    let bits = value.to_bits();
    if value.is_normal() || bits == 0 {
        format!("({value:?}lf)")
    } else {
        format!("d_of({}u, {}u)", bits as u32, bits >> 32)
    }
}

/// The prefix of the names of the library's float functions.
const fn float_prefix(ty: Ty) -> &'static str {
    if matches!(ty, Ty::F64) { "d" } else { "f" }
}

fn unary(op: UnaryOp, ty: Ty, width: Width, a: &str) -> String {
    let t = type_name(ty, width);
    let w = width.suffix();
    let f = float_prefix(ty);
    match (ty, op) {
        (Ty::Bool, UnaryOp::Not) => format!("!{a}"),
        (Ty::I64, op) => format!("i64_{}{w}({a})", format!("{op:?}").to_lowercase()),
        (Ty::U32, UnaryOp::Neg) => format!("{t}(0u) - {a}"),
        (Ty::U32, UnaryOp::Abs) => a.to_owned(),
        (Ty::U32, UnaryOp::Sign) => format!("min({a}, {t}(1u))"),
        (_, UnaryOp::Not) => format!("~{a}"),
        (_, UnaryOp::Neg) => format!("-{a}"),
        (_, UnaryOp::Abs) => format!("abs({a})"),
        (Ty::I32, UnaryOp::Sign) => format!("sign({a})"),
        (_, UnaryOp::Floor) => format!("floor({a})"),
        (_, UnaryOp::Ceil) => format!("ceil({a})"),
        (_, UnaryOp::Reciprocal) => format!("{t}(1.0) / {a}"),
        (_, UnaryOp::IsNan) => format!("{f}_is_nan{w}({a})"),
        (_, UnaryOp::IsFinite) => format!("{f}_is_finite{w}({a})"),
        (_, op) => format!("{f}_{}{w}({a})", format!("{op:?}").to_lowercase()),
    }
}

/// The expression of an operation on two values of one type.
pub(super) fn binary(op: BinaryOp, ty: Ty, width: Width, a: &str, b: &str) -> String {
    use BinaryOp::*;
    let w = width.suffix();
    let lower = format!("{op:?}").to_lowercase();
    let infix = |symbol: &str| format!("({a} {symbol} {b})");
    let call = |prefix: &str| format!("{prefix}_{lower}{w}({a}, {b})");
    match (ty, op) {
        (Ty::I64, Ne) => format!("!i64_eq{w}({a}, {b})"),
        (Ty::I64, Le) => format!("!i64_lt{w}({b}, {a})"),
        (Ty::I64, Gt) => format!("i64_lt{w}({b}, {a})"),
        (Ty::I64, Ge) => format!("!i64_lt{w}({a}, {b})"),
        (Ty::I64, _) => call("i64"),
        (Ty::Bool, Max | Or | Add) => infix("|"),
        (Ty::Bool, Min | And | Mul) => infix("&"),
        (Ty::Bool, Xor) => infix("!="),
        (Ty::Bool, Lt) => format!("(!{a} & {b})"),
        (Ty::Bool, Le) => format!("(!{a} | {b})"),
        (Ty::Bool, Gt) => format!("({a} & !{b})"),
        (Ty::Bool, Ge) => format!("({a} | !{b})"),
        (_, Eq) => infix("=="),
        // A driver may translate `!=` of floats to an ordered comparison, which is false for NaN.
        (Ty::F32 | Ty::F64, Ne) => format!("!({a} == {b})"),
        (_, Ne) => infix("!="),
        (_, Lt) => infix("<"),
        (_, Le) => infix("<="),
        (_, Gt) => infix(">"),
        (_, Ge) => infix(">="),
        (_, Add) => infix("+"),
        (_, Sub) => infix("-"),
        (_, Mul) => infix("*"),
        (_, And) => infix("&"),
        (_, Or) => infix("|"),
        (_, Xor) => infix("^"),
        (Ty::F32 | Ty::F64, Div) => infix("/"),
        (Ty::F32 | Ty::F64, _) => call(float_prefix(ty)),
        (_, Max | Min) => format!("{lower}({a}, {b})"),
        (Ty::I32, _) => call("i"),
        (_, _) => call("u"),
    }
}

/// The expression of the value that an element of a dtype holds after `a` is stored in it.
pub(super) fn cast(from: Ty, to: DType, width: Width, a: &str) -> String {
    let w = width.suffix();
    let t = |ty: Ty| type_name(ty, width);
    let (i, u, f, d) = (t(Ty::I32), t(Ty::U32), t(Ty::F32), t(Ty::F64));
    let as_i32 = || match from {
        Ty::Bool => format!("select({i}(0), {i}(1), {a})"),
        Ty::I32 => a.to_owned(),
        Ty::U32 => format!("bitcast<{i}>({a})"),
        Ty::I64 => format!("bitcast<{i}>({a}.lo)"),
        Ty::F32 | Ty::F64 => format!("{}_to_i32{w}({a})", float_prefix(from)),
    };
    let as_f32 = || match from {
        Ty::Bool => format!("select({f}(0.0), {f}(1.0), {a})"),
        Ty::I32 | Ty::U32 => format!("{f}({a})"),
        Ty::I64 => format!("i64_to_f32{w}({a})"),
        Ty::F32 => a.to_owned(),
        Ty::F64 if to == DType::F32 => format!("d_to_f32{w}({a})"),
        // Rounding to odd, since the result is rounded once more.
        Ty::F64 => format!("d_to_odd_f32{w}({a})"),
    };
    let as_f64 = || match from {
        Ty::Bool => format!("select({d}(0.0), {d}(1.0), {a})"),
        Ty::I32 | Ty::U32 | Ty::F32 => format!("{d}({a})"),
        Ty::I64 => format!("d_of_i64{w}({a})"),
        Ty::F64 => a.to_owned(),
    };
    match to {
        DType::Bool => match from {
            Ty::Bool => a.to_owned(),
            Ty::I32 => format!("({a} != {i}(0))"),
            Ty::U32 => format!("({a} != {u}(0u))"),
            Ty::I64 => format!("!i64_is_zero{w}({a})"),
            Ty::F32 => format!("!({a} == {f}(0.0))"),
            Ty::F64 => format!("!({a} == {d}(0.0))"),
        },
        DType::U8 => format!("({} & {i}(255))", as_i32()),
        DType::I32 => as_i32(),
        DType::I64 => match from {
            Ty::I64 => a.to_owned(),
            Ty::F32 | Ty::F64 => format!("{}_to_i64{w}({a})", float_prefix(from)),
            Ty::U32 => format!("i64_of_u32{w}({a})"),
            Ty::Bool | Ty::I32 => format!("i64_of_i32{w}({})", as_i32()),
        },
        DType::F16 => format!("f16_round{w}({})", as_f32()),
        DType::BF16 => format!("bf16_round{w}({})", as_f32()),
        DType::F32 => as_f32(),
        DType::F64 => as_f64(),
    }
}
