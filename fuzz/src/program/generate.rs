//! Makes a program from a seed.
//!
//! Each step is tried at once: in the program's own dtypes, and in f64, exactly and twice with noise. A step
//! is left out if it is refused, if its numbers grow too large, or if noise moves it across a discontinuity.
//! So every program has values that rounding cannot change much.

use wgrad::{DType, Device, Result};

use super::check::clear;
use super::rules::{CallOperands, Live, OperandFinder, ResultKind, range};
use super::run::{RunMode, Runner, read};
use super::{Action, Id, ProgramLeaf, ProgramStep, RandomProgram, Rule, RuleCall, rules};
use crate::random::SplitMix64;

/// The largest number of elements and of dims that a value may have.
const MOST_ELEMENTS: usize = 1200;
const MOST_DIMS: usize = 5;

struct ProgramGenerator<'a> {
    random: SplitMix64,
    program: RandomProgram,
    live: Vec<Live>,
    /// Four runs of the program: in its own dtypes; in f64 exactly; and in f64 with noise, twice.
    runners: Vec<Runner<'a>>,
    hows: &'a [RunMode<'a>],
    next: Id,
}

/// The program of a seed.
pub fn generate(seed: u64, cpu: &Device) -> Result<RandomProgram> {
    let reference = |noise| RunMode { device: cpu, reference: true, noise, eager: false, gaps: true };
    let hows = [RunMode::on(cpu), reference(None), reference(Some(seed)), reference(Some(!seed))];
    let program = RandomProgram {
        seed,
        leaves: Vec::new(),
        steps: Vec::new(),
        rounds: 1,
        gradients: true,
        dtypes: Vec::new(),
    };
    let mut generator = ProgramGenerator {
        random: SplitMix64::new(seed),
        program,
        live: Vec::new(),
        runners: hows.iter().map(Runner::new).collect(),
        hows: &hows,
        next: 0,
    };
    generator.make()?;
    Ok(generator.program)
}

impl ProgramGenerator<'_> {
    fn make(&mut self) -> Result<()> {
        self.first_leaves()?;
        let training = self.random.chance(25);
        let most = if self.random.chance(20) { 40 } else { 22 };
        let steps = 4 + self.random.below(most);
        for _ in 0..steps * 6 {
            if self.program.steps.len() >= steps {
                break;
            }
            match self.random.below(100) {
                0..7 => self.read()?,
                7..11 => self.forget(),
                11..13 => self.retain_grad()?,
                13..16 if !training => self.backward()?,
                _ => self.call()?,
            }
        }
        if training {
            self.train()?;
        }
        self.hold_last();
        Ok(())
    }

    fn first_leaves(&mut self) -> Result<()> {
        let main = match self.random.below(100) {
            0..68 => DType::F32,
            68..83 => DType::F64,
            83..92 => DType::F16,
            _ => DType::BF16,
        };
        let sizes: Vec<usize> = (0..4).map(|_| [1, 2, 3, 4, 5, 6, 8][self.random.below(7)]).collect();
        let count = 2 + self.random.below(3);
        for turn in 0..count {
            let rank = [0, 1, 2, 2, 2, 3, 3, 4][self.random.below(8)];
            let mut shape: Vec<usize> = sizes[4 - rank..].to_vec();
            for size in &mut shape {
                match self.random.below(40) {
                    0 => *size = 0,
                    1..5 => *size = 1,
                    _ => {}
                }
            }
            let dtype = match self.random.below(100) {
                0..80 => main,
                80..90 => DType::F32,
                90..95 => DType::F64,
                _ => DType::BF16,
            };
            let low = if self.random.chance(25) { 0.25 } else { -2.0 };
            let mut maker =
                OperandFinder { random: &mut self.random, live: &[], leaves: Vec::new(), next: self.next };
            if turn == 3 {
                if maker.random.chance(50) {
                    maker.new_ints(&shape, 0, 4);
                } else {
                    maker.new_bools(&shape);
                }
            } else {
                maker.new_float(&shape, dtype, low, 2.0);
            }
            let (leaves, next) = (maker.leaves, maker.next);
            self.next = next;
            for leaf in leaves {
                self.add_leaf(leaf, true)?;
            }
        }
        Ok(())
    }

    fn add_leaf(&mut self, leaf: ProgramLeaf, usable: bool) -> Result<()> {
        for runner in &mut self.runners {
            runner.leaf(&leaf)?;
        }
        self.set_dtype(leaf.id, leaf.dtype);
        if usable {
            let live = self.look(leaf.id, true)?;
            self.live.push(live);
        }
        self.program.leaves.push(leaf);
        Ok(())
    }

    fn set_dtype(&mut self, id: Id, dtype: DType) {
        let dtypes = &mut self.program.dtypes;
        if dtypes.len() <= id {
            dtypes.resize(id + 1, DType::Bool);
        }
        dtypes[id] = dtype;
    }

    fn look(&self, id: Id, is_leaf: bool) -> Result<Live> {
        let own = self.runners[0].value(id)?;
        let (low, high) = range(self.runners[1].value(id)?)?;
        let shape = own.shape().to_vec();
        Ok(Live { id, shape, dtype: own.dtype(), low, high, requires_grad: own.requires_grad(), is_leaf })
    }

    fn push(&mut self, action: Action, out: Vec<Id>, held: bool) {
        self.program.steps.push(ProgramStep { action, out, held });
    }

    /// One call of a rule, if it can be made.
    fn call(&mut self) -> Result<()> {
        let all = rules();
        let rule: &'static Rule = &all[self.random.below(all.len())];
        let mut maker =
            OperandFinder { random: &mut self.random, live: &self.live, leaves: Vec::new(), next: self.next };
        let made = (rule.make)(&mut maker);
        let (leaves, next) = (maker.leaves, maker.next);
        self.next = next;
        let Some(CallOperands { args, more }) = made else { return Ok(()) };
        let no_grad = self.random.chance(if rule.kind == ResultKind::InPlace { 20 } else { 5 });
        let counts = (self.program.leaves.len(), self.live.len());
        for leaf in leaves {
            let usable = leaf.dtype.is_float();
            self.add_leaf(leaf, usable)?;
        }
        let before: Vec<usize> = self.runners.iter().map(|runner| runner.gaps.len()).collect();
        let dtypes = self.program.dtypes.clone();
        // In its own dtypes first: a call that is refused has changed nothing.
        let call = RuleCall { rule, args, more, no_grad };
        let results = match self.runners[0].call(&call, &dtypes, 0) {
            Ok(results) if results.iter().all(|x| x.numel() <= MOST_ELEMENTS && x.rank() <= MOST_DIMS) => {
                results
            }
            _ => {
                self.forget_leaves(counts);
                return Ok(());
            }
        };
        let mut out = Vec::new();
        for tensor in results {
            let (id, dtype) = (self.next, tensor.dtype());
            self.next += 1;
            self.set_dtype(id, dtype);
            self.runners[0].take(rule, id, tensor, dtype)?;
            out.push(id);
        }
        let step = ProgramStep { action: Action::Call(call), out, held: false };
        let good = self.follow(&step, &before).unwrap_or(false);
        if !good {
            self.forget_leaves(counts);
            if rule.kind == ResultKind::InPlace {
                self.again()?;
            }
            return Ok(());
        }
        for &id in &step.out {
            let live = self.look(id, false)?;
            self.live.push(live);
        }
        if rule.kind == ResultKind::InPlace {
            let looked = self.live.iter().map(|live| self.look(live.id, live.is_leaf));
            self.live = looked.collect::<Result<Vec<_>>>()?;
        }
        let held = !step.out.is_empty() && self.random.chance(35);
        self.program.steps.push(ProgramStep { held, ..step });
        Ok(())
    }

    fn forget_leaves(&mut self, (leaves, live): (usize, usize)) {
        self.program.leaves.truncate(leaves);
        self.live.truncate(live);
    }

    /// Runs a step in f64, exactly and with noise. True if its values can be compared.
    fn follow(&mut self, step: &ProgramStep, before: &[usize]) -> Result<bool> {
        let dtypes = self.program.dtypes.clone();
        for runner in &mut self.runners[1..] {
            runner.step(step, &dtypes, 0)?;
        }
        let met: Vec<&[Vec<f64>]> =
            self.runners[1..].iter().zip(&before[1..]).map(|(runner, &at)| &runner.gaps[at..]).collect();
        if !clear(met[0], &met[1..]) {
            return Ok(false);
        }
        let Action::Call(call) = &step.action else { return Ok(true) };
        let written: &[Id] = if call.rule.kind == ResultKind::InPlace { &call.args[..1] } else { &step.out };
        for &id in written {
            let own = self.runners[0].value(id)?;
            let exact = self.runners[1].value(id)?;
            if own.shape() != exact.shape() {
                return Ok(false);
            }
            let (float, narrow) = (own.dtype().is_float(), own.dtype().size() == 2);
            if exact.dtype() != if float { DType::F64 } else { own.dtype() } {
                return Ok(false);
            }
            let exact = read(exact)?;
            let most = exact.iter().fold(0f64, |most, x| most.max(x.abs()));
            if !exact.iter().all(|x| x.is_finite()) || most > if narrow { 60.0 } else { 1e4 } {
                return Ok(false);
            }
            for noisy in &self.runners[2..] {
                let noisy = read(noisy.value(id)?)?;
                let off = exact.iter().zip(&noisy).fold(0f64, |off, (a, b)| off.max((a - b).abs()));
                if !noisy.iter().all(|x| x.is_finite()) || off > most * if narrow { 0.1 } else { 1e-3 } {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Runs all steps so far again, since a write in place that is left out cannot be undone.
    fn again(&mut self) -> Result<()> {
        self.runners = self.hows.iter().map(Runner::new).collect();
        for runner in &mut self.runners {
            for leaf in &self.program.leaves {
                runner.leaf(leaf)?;
            }
            for step in &self.program.steps {
                runner.step(step, &self.program.dtypes, 0)?;
            }
        }
        Ok(())
    }

    fn read(&mut self) -> Result<()> {
        if let Some(live) = self.random.pick(&self.live) {
            let id = live.id;
            self.push(Action::Read(id), Vec::new(), false);
        }
        Ok(())
    }

    fn forget(&mut self) {
        if self.live.len() > 3 {
            let at = self.random.below(self.live.len());
            if !self.live[at].is_leaf && self.program.leaf(self.live[at].id).is_none() {
                let id = self.live.remove(at).id;
                self.push(Action::Forget(id), Vec::new(), false);
            }
        }
    }

    fn retain_grad(&mut self) -> Result<()> {
        let fitting: Vec<Id> =
            self.live.iter().filter(|live| live.requires_grad && !live.is_leaf).map(|live| live.id).collect();
        if let Some(&id) = self.random.pick(&fitting)
            && self.program.leaf(id).is_none()
        {
            self.push(Action::RetainGrad(id), Vec::new(), false);
            for step in &mut self.program.steps {
                step.held |= step.out.contains(&id);
            }
        }
        Ok(())
    }

    /// The newest values of which a loss may be made: floats that require a gradient.
    fn losses(&mut self, most: usize) -> Vec<Id> {
        let mut ids: Vec<Id> = self
            .live
            .iter()
            .rev()
            .filter(|live| {
                live.requires_grad && live.dtype.is_float() && self.program.leaf(live.id).is_none()
            })
            .map(|live| live.id)
            .take(most)
            .collect();
        ids.sort_unstable();
        ids
    }

    fn backward(&mut self) -> Result<()> {
        let most = 1 + self.random.below(2);
        let of = self.losses(most);
        if !of.is_empty() {
            let create = self.random.chance(30);
            let action = Action::Backward { of, keep: true, create };
            let step = ProgramStep { action, out: Vec::new(), held: false };
            let dtypes = self.program.dtypes.clone();
            for runner in &mut self.runners {
                // An error is found again when the program is checked.
                let _ = runner.step(&step, &dtypes, 0);
            }
            self.program.steps.push(step);
        }
        Ok(())
    }

    /// Makes the steps the body of a loop that trains the leaves.
    fn train(&mut self) -> Result<()> {
        let of = self.losses(3);
        if of.is_empty() {
            return Ok(());
        }
        self.program.gradients = false;
        self.program.rounds = 2 + self.random.below(4);
        self.push(Action::Backward { of, keep: false, create: false }, Vec::new(), false);
        let leaves: Vec<ProgramLeaf> =
            self.program.leaves.iter().filter(|leaf| leaf.requires_grad).cloned().collect();
        let momentum = self.random.chance(40);
        for leaf in leaves {
            let moment = if momentum {
                let id = self.next;
                self.next += 1;
                let zeros = vec![0.0; leaf.data.len()];
                self.add_leaf(ProgramLeaf { id, data: zeros, requires_grad: false, ..leaf.clone() }, false)?;
                Some(id)
            } else {
                None
            };
            let zero = self.random.chance(30);
            self.push(
                Action::Update { leaf: leaf.id, rate: 0.0625, momentum: moment, zero },
                Vec::new(),
                false,
            );
        }
        Ok(())
    }

    /// Marks the last three values that have not been dropped to be compared.
    fn hold_last(&mut self) {
        let last: Vec<Id> = self.live.iter().rev().take(3).map(|live| live.id).collect();
        for step in &mut self.program.steps {
            step.held |= step.out.iter().any(|id| last.contains(id));
        }
    }
}
