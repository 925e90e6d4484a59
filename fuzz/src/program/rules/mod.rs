//! What programs are made of: for each call how its operands are found, how it runs, and how far it is from a discontinuity.

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
use super::{Args, Id, Leaf};
use crate::random::Random;

/// What a call gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A tensor of its own, whose floats are rounded.
    Value,
    /// The operand's own numbers, perhaps in its memory.
    View,
    /// The first operand, written to.
    InPlace,
}

/// The operands of a call.
pub struct Made {
    pub args: Vec<Id>,
    pub more: Args,
}

pub type Run = fn(&[Tensor], &Args) -> Result<Vec<Tensor>>;
pub type Make = fn(&mut Maker) -> Option<Made>;

pub struct Rule {
    pub name: &'static str,
    pub text: &'static str,
    pub kind: Kind,
    pub make: Make,
    pub run: Run,
    /// Distances to where the values or the derivatives jump.
    pub gap: Run,
    /// Whether its second integer moves with the rounds, at most by its last.
    pub moves: bool,
}

impl Rule {
    fn gap(mut self, gap: Run) -> Rule {
        self.gap = gap;
        self
    }
}

fn rule(name: &'static str, kind: Kind, text: &'static str, make: Make, run: Run) -> Rule {
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

/// Finds operands among the values there are, and makes leaves where a call needs more.
pub struct Maker<'a> {
    pub random: &'a mut Random,
    pub live: &'a [Live],
    pub leaves: Vec<Leaf>,
    pub next: Id,
}

impl Maker<'_> {
    /// A value of which something holds, the newest most often.
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

    /// A value that broadcasts together with a shape.
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
        self.leaves.push(Leaf { id, shape: shape.to_vec(), dtype, data, requires_grad });
        id
    }

    /// A new leaf, or a value that has this shape, dtype and range.
    pub fn float_like(&mut self, shape: &[usize], dtype: DType, low: f64, high: f64) -> Id {
        let there = self
            .find(|live| live.shape == shape && live.dtype == dtype && live.low >= low && live.high <= high);
        match there {
            Some(live) if self.random.chance(60) => live.id,
            _ => self.new_float(shape, dtype, low, high),
        }
    }
}

/// A number as a dtype holds it.
pub fn rounded(x: f64, dtype: DType) -> f64 {
    match dtype {
        DType::F16 => wgrad::f16::from_f64(x).to_f64(),
        DType::BF16 => wgrad::bf16::from_f64(x).to_f64(),
        DType::F32 => f64::from(x as f32),
        _ => x,
    }
}

/// Operands without anything more.
fn of(args: &[Id]) -> Option<Made> {
    Some(Made { args: args.to_vec(), more: Args::default() })
}

fn with(args: &[Id], n: &[i64]) -> Option<Made> {
    Some(Made { args: args.to_vec(), more: Args { n: n.to_vec(), ..Args::default() } })
}

fn with_floats(args: &[Id], n: &[i64], f: &[f64]) -> Option<Made> {
    Some(Made { args: args.to_vec(), more: Args { n: n.to_vec(), f: f.to_vec(), dtype: None } })
}

fn one(tensor: Result<Tensor>) -> Result<Vec<Tensor>> {
    Ok(vec![tensor?])
}

fn two(tensors: Result<(Tensor, Tensor)>) -> Result<Vec<Tensor>> {
    let (a, b) = tensors?;
    Ok(vec![a, b])
}

/// How far sorted neighbours along a dim are from each other.
fn neighbours(x: &Tensor, dim: isize) -> Result<Vec<Tensor>> {
    if !x.dtype().is_float() || x.rank() == 0 || x.numel() == 0 || x.size(dim)? < 2 {
        return Ok(Vec::new());
    }
    let (sorted, _) = x.sort(dim, false)?;
    let count = sorted.size(dim)? - 1;
    one(sorted.narrow(dim, 1, count)?.sub(&sorted.narrow(dim, 0, count)?))
}

/// The same over all elements.
fn all_neighbours(x: &Tensor) -> Result<Vec<Tensor>> {
    neighbours(&x.reshape([-1i64])?, 0)
}

/// How far numbers are from the integers.
fn from_integers(x: &Tensor) -> Result<Vec<Tensor>> {
    // Rounding would hide on which side they are; the sine has the same zeros.
    one(x.mul(std::f64::consts::PI)?.sin())
}

/// The integers of a list as usizes.
fn sizes(list: &[i64]) -> Vec<usize> {
    list.iter().map(|&n| n.max(0) as usize).collect()
}

/// A first look at a tensor: the smallest and the largest number.
pub fn range(tensor: &Tensor) -> Result<(f64, f64)> {
    let data = read(tensor)?;
    Ok(data.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), &x| {
        if x.is_nan() { (f64::NAN, f64::NAN) } else { (low.min(x), high.max(x)) }
    }))
}
