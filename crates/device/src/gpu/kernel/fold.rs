//! The state of a reduction: how it is made of an element, and how two states are joined.

use super::body::{binary, choose};
use super::emit::{Width, type_name};
use crate::kernel::{BinaryOp, ReduceOp, Ty};

/// A reduction over values of one type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ShaderFold {
    pub(super) op: ReduceOp,
    pub(super) ty: Ty,
}

impl ShaderFold {
    fn is_search(self) -> bool {
        matches!(self.op, ReduceOp::ArgMax | ReduceOp::ArgMin)
    }

    /// Whether its state or, for a search, the key that is compared has 64 bits.
    fn is_wide(self) -> bool {
        matches!(self.ty, Ty::I64 | Ty::F64)
    }

    /// Whether a subgroup broadcast can send its state, which must be a 32-bit number.
    pub(super) fn is_broadcastable(self) -> bool {
        !self.is_search() && matches!(self.ty, Ty::F32 | Ty::I32 | Ty::U32)
    }

    /// The WGSL type of the state.
    pub(super) fn state(self, width: Width) -> &'static str {
        match (self.is_search(), self.is_wide(), width) {
            (true, false, Width::One) => "Best",
            (true, false, Width::Four) => "Best4",
            (true, true, Width::One) => "Best64",
            (true, true, Width::Four) => "Best64x4",
            (false, ..) => type_name(self.ty, width),
        }
    }

    /// Whether its state is a bool. In workgroup memory a bool is stored as a number, because NVIDIA's driver
    /// for Vulkan (580) gives wrong results with bools there.
    fn is_truth(self) -> bool {
        self.ty == Ty::Bool && !self.is_search()
    }

    /// The WGSL type of a state in workgroup memory.
    pub(super) fn shared_state(self) -> &'static str {
        if self.is_truth() { "u32" } else { self.state(Width::One) }
    }

    /// The representation of a state in workgroup memory.
    pub(super) fn to_shared(self, state: &str) -> String {
        if self.is_truth() { format!("select(0u, 1u, {state})") } else { state.to_owned() }
    }

    /// The state that is stored at a place of workgroup memory.
    pub(super) fn of_shared(self, place: &str) -> String {
        if self.is_truth() { format!("({place} != 0u)") } else { place.to_owned() }
    }

    /// Whether the fold rounds, so that summing blocks separately keeps more digits.
    pub(super) fn is_rounded(self) -> bool {
        self.op == ReduceOp::Sum && self.ty.is_float()
    }

    /// The state of no elements: the identity of the fold.
    pub(super) fn start(self, width: Width) -> String {
        let t = type_name(self.ty, width);
        let u = type_name(Ty::U32, width);
        if self.is_search() {
            let key = if self.is_wide() { constant64(0, 0, width) } else { format!("{u}(0u)") };
            return format!("{}({key}, {u}(0xffffffffu))", self.state(width));
        }
        match (self.ty, self.op) {
            (Ty::Bool, ReduceOp::Sum | ReduceOp::Max) => format!("{t}(false)"),
            (Ty::Bool, _) => format!("{t}(true)"),
            (Ty::I64, ReduceOp::Sum) => constant64(0, 0, width),
            (Ty::I64, ReduceOp::Prod) => constant64(1, 0, width),
            (Ty::I64, ReduceOp::Max) => constant64(0, 0x8000_0000, width),
            (Ty::I64, _) => constant64(u32::MAX, 0x7fff_ffff, width),
            (_, ReduceOp::Sum) => format!("{t}(0)"),
            (_, ReduceOp::Prod) => format!("{t}(1)"),
            (Ty::F32, ReduceOp::Max) => format!("{t}(f_bits(0xff800000u))"),
            (Ty::F32, _) => format!("{t}(f_bits(0x7f800000u))"),
            (Ty::F64, ReduceOp::Max) => format!("{t}(d_of(0u, 0xfff00000u))"),
            (Ty::F64, _) => format!("{t}(d_of(0u, 0x7ff00000u))"),
            (Ty::I32, ReduceOp::Max) => format!("{t}(bitcast<i32>(0x80000000u))"),
            (Ty::I32, _) => format!("{t}(0x7fffffff)"),
            (_, ReduceOp::Max) => format!("{t}(0u)"),
            (_, _) => format!("{t}(0xffffffffu)"),
        }
    }

    /// The state of one element, or of no elements where `valid` is false.
    pub(super) fn lift(self, value: &str, position: &str, width: Width, valid: Option<&str>) -> String {
        let w = width.suffix();
        let u = type_name(Ty::U32, width);
        if !self.is_search() {
            return match valid {
                Some(valid) => choose(self.ty, width, &self.start(width), value, valid),
                None => value.to_owned(),
            };
        }
        let largest = self.op == ReduceOp::ArgMax;
        let key = match (self.ty, largest) {
            (Ty::Bool, true) => format!("select({u}(0u), {u}(1u), {value})"),
            (Ty::Bool, false) => format!("select({u}(1u), {u}(0u), {value})"),
            (Ty::U32, true) => value.to_owned(),
            (Ty::U32, false) => format!("~{value}"),
            (Ty::I32, true) => format!("i_order{w}({value})"),
            (Ty::I32, false) => format!("~i_order{w}({value})"),
            (Ty::I64, true) => format!("i64_order{w}({value})"),
            (Ty::I64, false) => format!("i64_not{w}(i64_order{w}({value}))"),
            (Ty::F64, true) => format!("d_order{w}({value})"),
            (Ty::F64, false) => format!("d_order_reversed{w}({value})"),
            (_, true) => format!("f_order{w}({value})"),
            (_, false) => format!("f_order_reversed{w}({value})"),
        };
        let Some(valid) = valid else { return format!("{}({key}, {position})", self.state(width)) };
        let nothing = if self.is_wide() { constant64(0, 0, width) } else { format!("{u}(0u)") };
        let key = choose(if self.is_wide() { Ty::I64 } else { Ty::U32 }, width, &nothing, &key, valid);
        format!("{}({key}, select({u}(0xffffffffu), {position}, {valid}))", self.state(width))
    }

    /// Joins two states.
    pub(super) fn join(self, a: &str, b: &str, width: Width) -> String {
        let w = width.suffix();
        match (self.is_search(), self.op) {
            (true, _) if self.is_wide() => format!("best64_of{w}({a}, {b})"),
            (true, _) => format!("best_of{w}({a}, {b})"),
            (false, ReduceOp::Sum) => binary(BinaryOp::Add, self.ty, width, a, b),
            (false, ReduceOp::Prod) => binary(BinaryOp::Mul, self.ty, width, a, b),
            (false, ReduceOp::Max) => binary(BinaryOp::Max, self.ty, width, a, b),
            (false, _) => binary(BinaryOp::Min, self.ty, width, a, b),
        }
    }

    /// One component of a vector of states.
    pub(super) fn component(self, state: &str, c: &str) -> String {
        match (self.is_search(), self.is_wide()) {
            (true, true) => format!("Best64(i64_{c}({state}.key), {state}.at.{c})"),
            (true, false) => format!("Best({state}.key.{c}, {state}.at.{c})"),
            (false, _) if self.ty == Ty::I64 => format!("i64_{c}({state})"),
            (false, _) => format!("{state}.{c}"),
        }
    }

    /// Joins the four components of a vector of states.
    pub(super) fn across(self, state: &str) -> String {
        let [x, y, z, w] = ["x", "y", "z", "w"].map(|c| self.component(state, c));
        self.join(&self.join(&x, &y, Width::One), &self.join(&z, &w, Width::One), Width::One)
    }

    /// The value of the reduction.
    pub(super) fn result(self, state: &str, width: Width) -> String {
        match (self.is_search(), width) {
            (true, Width::One) => format!("I64({state}.at, 0u)"),
            (true, Width::Four) => format!("I64x4({state}.at, vec4<u32>(0u))"),
            (false, _) => state.to_owned(),
        }
    }

    /// The number of words of a stored state.
    pub(super) fn words(self) -> usize {
        1 + usize::from(self.is_search()) + usize::from(self.is_wide())
    }

    /// The expressions of a state's words.
    pub(super) fn to_words(self, state: &str) -> Vec<String> {
        let value = if self.is_search() { format!("{state}.key") } else { state.to_owned() };
        let mut words = match self.ty {
            _ if self.is_search() && !self.is_wide() => vec![value],
            Ty::F64 if !self.is_search() => vec![format!("d_low({value})"), format!("d_high({value})")],
            Ty::I64 | Ty::F64 => vec![format!("{value}.lo"), format!("{value}.hi")],
            Ty::Bool => vec![format!("select(0u, 1u, {value})")],
            Ty::U32 => vec![value],
            _ => vec![format!("bitcast<u32>({value})")],
        };
        if self.is_search() {
            words.push(format!("{state}.at"));
        }
        words
    }

    /// The expression of a state from its words.
    pub(super) fn of_words(self, words: &[String]) -> String {
        let value = match self.ty {
            _ if self.is_search() && !self.is_wide() => words[0].clone(),
            Ty::F64 if !self.is_search() => format!("d_of({}, {})", words[0], words[1]),
            Ty::I64 | Ty::F64 => format!("I64({}, {})", words[0], words[1]),
            Ty::Bool => format!("({} != 0u)", words[0]),
            Ty::U32 => words[0].clone(),
            ty => format!("bitcast<{}>({})", type_name(ty, Width::One), words[0]),
        };
        if self.is_search() {
            format!("{}({value}, {})", self.state(Width::One), words[words.len() - 1])
        } else {
            value
        }
    }

    /// A vector of states from four states.
    pub(super) fn gather(self, parts: &[String; 4]) -> String {
        match (self.is_search(), self.is_wide()) {
            (false, _) if self.ty == Ty::I64 => format!("i64_join({})", parts.join(", ")),
            (false, _) => format!("{}({})", type_name(self.ty, Width::Four), parts.join(", ")),
            (true, wide) => {
                let member =
                    |m: &str| parts.iter().map(|p| format!("{p}.{m}")).collect::<Vec<_>>().join(", ");
                let key = if wide {
                    format!("i64_join({})", member("key"))
                } else {
                    format!("vec4<u32>({})", member("key"))
                };
                format!("{}({key}, vec4<u32>({}))", self.state(Width::Four), member("at"))
            }
        }
    }
}

fn constant64(low: u32, high: u32, width: Width) -> String {
    match width {
        Width::One => format!("I64({low}u, {high}u)"),
        Width::Four => format!("I64x4(vec4<u32>({low}u), vec4<u32>({high}u))"),
    }
}
