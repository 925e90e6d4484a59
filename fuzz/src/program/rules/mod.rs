//! The rules of which programs are made. A rule says for one call how its operands are found, how it runs,
//! and how far its operands are from a discontinuity.

mod elementwise;
mod in_place;
mod index;
mod network;
mod products;
mod reduce;
mod views;

use std::sync::LazyLock;

use wgrad::{DType, Result, Tensor};

use super::run::read;
use super::{Id, ProgramLeaf, RuleParameters};
use crate::random::SplitMix64;

/// The kind of a call's result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResultKind {
    /// A new tensor, whose floats are rounded.
    Value,
    /// Elements of the operands, unchanged, and perhaps in their memory.
    View,
    /// The first operand, which the call has written.
    InPlace,
}

/// The operands and the other arguments of a call.
pub struct CallOperands {
    pub args: Vec<Id>,
    pub more: RuleParameters,
}

pub type RunRule = fn(&[Tensor], &RuleParameters) -> Result<Vec<Tensor>>;
pub type FindOperands = fn(&mut OperandFinder) -> Option<CallOperands>;

/// A call of which programs are made.
pub struct Rule {
    pub name: &'static str,
    pub text: &'static str,
    pub kind: ResultKind,
    pub make: FindOperands,
    pub run: RunRule,
    /// The distances of the operands to the points where the value or a derivative is discontinuous.
    pub gap: RunRule,
    /// Whether the second integer increases with each round of a training loop, up to the last integer.
    pub moves: bool,
}

impl Rule {
    fn gap(mut self, gap: RunRule) -> Rule {
        self.gap = gap;
        self
    }
}

fn rule(name: &'static str, kind: ResultKind, text: &'static str, make: FindOperands, run: RunRule) -> Rule {
    Rule { name, text, kind, make, run, gap: |_, _| Ok(Vec::new()), moves: false }
}

/// All rules.
pub fn rules() -> &'static [Rule] {
    static RULES: LazyLock<Vec<Rule>> = LazyLock::new(|| {
        let mut all = Vec::new();
        for family in [
            elementwise::rules,
            views::rules,
            reduce::rules,
            products::rules,
            index::rules,
            network::rules,
            in_place::rules,
        ] {
            all.extend(family());
        }
        all
    });
    &RULES
}

/// A value that a step may use.
#[derive(Clone)]
pub struct Live {
    pub id: Id,
    pub shape: Vec<usize>,
    pub dtype: DType,
    pub low: f64,
    pub high: f64,
    pub requires_grad: bool,
    pub is_leaf: bool,
}

impl Live {
    pub fn rank(&self) -> usize {
        self.shape.len()
    }
    pub fn numel(&self) -> usize {
        self.shape.iter().product()
    }
}

/// Finds operands among the existing values, and makes leaves where a call needs more.
pub struct OperandFinder<'a> {
    pub random: &'a mut SplitMix64,
    pub live: &'a [Live],
    pub leaves: Vec<ProgramLeaf>,
    pub next: Id,
}

impl OperandFinder<'_> {
    /// A value for which `fits` is true. In half of the cases it is one of the newest four.
    pub fn find(&mut self, fits: impl Fn(&Live) -> bool) -> Option<Live> {
        let fitting: Vec<&Live> = self.live.iter().filter(|live| fits(live)).collect();
        let from = if self.random.chance(50) { fitting.len().saturating_sub(4) } else { 0 };
        self.random.pick(&fitting[from..]).map(|&live| live.clone())
    }

    pub fn float(&mut self) -> Option<Live> {
        self.find(|live| live.dtype.is_float())
    }

    pub fn float_of_rank(&mut self, rank: usize) -> Option<Live> {
        self.find(|live| live.dtype.is_float() && live.rank() >= rank && live.numel() > 0)
    }

    pub fn float_within(&mut self, low: f64, high: f64) -> Option<Live> {
        self.find(|live| live.dtype.is_float() && live.low >= low && live.high <= high)
    }

    pub fn any(&mut self) -> Option<Live> {
        self.find(|_| true)
    }

    /// A value whose shape broadcasts together with this one.
    pub fn beside(&mut self, shape: &[usize], fits: impl Fn(&Live) -> bool) -> Option<Live> {
        self.find(|live| {
            fits(live)
                && live.shape.iter().rev().zip(shape.iter().rev()).all(|(&a, &b)| a == b || a == 1 || b == 1)
        })
    }

    /// A dim, counted from either end.
    pub fn dim(&mut self, rank: usize) -> i64 {
        let dim = self.random.below(rank) as i64;
        if self.random.chance(40) { dim - rank as i64 } else { dim }
    }

    pub fn flag(&mut self) -> i64 {
        i64::from(self.random.chance(50))
    }

    /// Some distinct dims.
    pub fn dims(&mut self, rank: usize) -> Vec<i64> {
        (0..rank as i64).filter(|_| self.random.chance(50)).collect()
    }

    /// A new leaf of random floats.
    pub fn new_float(&mut self, shape: &[usize], dtype: DType, low: f64, high: f64) -> Id {
        let count = shape.iter().product();
        let data = (0..count).map(|_| rounded(self.random.float(low, high), dtype)).collect();
        let requires_grad = self.random.chance(75);
        self.push(shape, dtype, data, requires_grad)
    }

    /// A new leaf of random integers, both ends included.
    pub fn new_ints(&mut self, shape: &[usize], low: i64, high: i64) -> Id {
        let count = shape.iter().product();
        let data = (0..count).map(|_| self.random.between(low, high) as f64).collect();
        self.push(shape, DType::I64, data, false)
    }

    pub fn new_bools(&mut self, shape: &[usize]) -> Id {
        let count = shape.iter().product();
        let data = (0..count).map(|_| f64::from(u8::from(self.random.chance(50)))).collect();
        self.push(shape, DType::Bool, data, false)
    }

    pub fn push(&mut self, shape: &[usize], dtype: DType, data: Vec<f64>, requires_grad: bool) -> Id {
        let id = self.next;
        self.next += 1;
        self.leaves.push(ProgramLeaf { id, shape: shape.to_vec(), dtype, data, requires_grad });
        id
    }

    /// A value with this shape and dtype in this range, or a new leaf.
    pub fn float_like(&mut self, shape: &[usize], dtype: DType, low: f64, high: f64) -> Id {
        let there = self
            .find(|live| live.shape == shape && live.dtype == dtype && live.low >= low && live.high <= high);
        match there {
            Some(live) if self.random.chance(60) => live.id,
            _ => self.new_float(shape, dtype, low, high),
        }
    }
}

/// A number, rounded to a dtype.
pub fn rounded(x: f64, dtype: DType) -> f64 {
    match dtype {
        DType::F16 => wgrad::f16::from_f64(x).to_f64(),
        DType::BF16 => wgrad::bf16::from_f64(x).to_f64(),
        DType::F32 => f64::from(x as f32),
        _ => x,
    }
}

/// Operands without other arguments.
fn of(args: &[Id]) -> Option<CallOperands> {
    Some(CallOperands { args: args.to_vec(), more: RuleParameters::default() })
}

fn with(args: &[Id], n: &[i64]) -> Option<CallOperands> {
    Some(CallOperands {
        args: args.to_vec(),
        more: RuleParameters { n: n.to_vec(), ..RuleParameters::default() },
    })
}

fn with_floats(args: &[Id], n: &[i64], f: &[f64]) -> Option<CallOperands> {
    Some(CallOperands {
        args: args.to_vec(),
        more: RuleParameters { n: n.to_vec(), f: f.to_vec(), dtype: None },
    })
}

fn one(tensor: Result<Tensor>) -> Result<Vec<Tensor>> {
    Ok(vec![tensor?])
}

fn two(tensors: Result<(Tensor, Tensor)>) -> Result<Vec<Tensor>> {
    let (a, b) = tensors?;
    Ok(vec![a, b])
}

/// The distances between neighbours in the sorted elements along a dim.
fn neighbours(x: &Tensor, dim: isize) -> Result<Vec<Tensor>> {
    if !x.dtype().is_float() || x.rank() == 0 || x.numel() == 0 || x.size(dim)? < 2 {
        return Ok(Vec::new());
    }
    let (sorted, _) = x.sort(dim, false)?;
    let count = sorted.size(dim)? - 1;
    one(sorted.narrow(dim, 1, count)?.sub(&sorted.narrow(dim, 0, count)?))
}

/// The distances between neighbours among all elements, sorted.
fn all_neighbours(x: &Tensor) -> Result<Vec<Tensor>> {
    neighbours(&x.reshape([-1i64])?, 0)
}

/// A measure of how far numbers are from the integers.
fn from_integers(x: &Tensor) -> Result<Vec<Tensor>> {
    // A distance would not say on which side of an integer a number is; this sine does, and is 0 at the
    // integers, too.
    one(x.mul(std::f64::consts::PI)?.sin())
}

/// The integers of a list as sizes; negative ones become 0.
fn sizes(list: &[i64]) -> Vec<usize> {
    list.iter().map(|&n| n.max(0) as usize).collect()
}

/// The smallest and the largest element of a tensor; NaN if one is NaN.
pub fn range(tensor: &Tensor) -> Result<(f64, f64)> {
    let data = read(tensor)?;
    Ok(data.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), &x| {
        if x.is_nan() { (f64::NAN, f64::NAN) } else { (low.min(x), high.max(x)) }
    }))
}
