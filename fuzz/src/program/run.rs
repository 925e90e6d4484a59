//! Runs a program: on a device in its own dtypes, or as the reference in f64, exactly or with noise.

use wgrad::{
    BackwardOptions, DType, Device, Error, GradOptions, Result, Tensor, bf16, enable_grad, f16, grad,
    is_grad_enabled, no_grad,
};

use super::rules::ResultKind;
use super::{Action, Id, ProgramLeaf, ProgramStep, RandomProgram, Rule, RuleCall};
use crate::random::SplitMix64;

/// How a program is run.
pub struct RunMode<'a> {
    pub device: &'a Device,
    /// Whether all floats are f64.
    pub reference: bool,
    /// If set, every float is moved by a little, as rounding would move it. This is the seed of the
    /// directions.
    pub noise: Option<u64>,
    /// Whether every result is evaluated at once.
    pub eager: bool,
    /// Whether distances to discontinuities are noted.
    pub gaps: bool,
}

impl RunMode<'_> {
    pub fn on(device: &Device) -> RunMode<'_> {
        RunMode { device, reference: false, noise: None, eager: false, gaps: false }
    }
}

/// A value of a program that is compared.
#[derive(Clone, Debug)]
pub struct Shown {
    pub label: String,
    pub shape: Vec<usize>,
    pub dtype: DType,
    pub data: Vec<f64>,
}

/// The number of units in the last place by which noise moves a result. Most operations consist of several,
/// and each rounds.
const ROUNDINGS: f64 = 2.0;

/// The relative size of a unit in the last place of a dtype.
pub fn unit(dtype: DType) -> f64 {
    match dtype {
        DType::F16 => 2f64.powi(-10),
        DType::BF16 => 2f64.powi(-7),
        DType::F32 => 2f64.powi(-23),
        _ => 2f64.powi(-52),
    }
}

/// The smallest positive number of a dtype: for f16 the smallest subnormal one, for other dtypes the smallest
/// normal one, since subnormal numbers may be flushed to 0.
pub fn smallest(dtype: DType) -> f64 {
    match dtype {
        DType::F16 => 2f64.powi(-24),
        DType::BF16 | DType::F32 => 2f64.powi(-126),
        _ => 2f64.powi(-1022),
    }
}

/// A program in the middle of its run.
pub struct Runner<'a> {
    how: &'a RunMode<'a>,
    random: SplitMix64,
    values: Vec<Option<Tensor>>,
    /// The distances to discontinuities, in the order of the calls.
    pub gaps: Vec<Vec<f64>>,
    losses: Vec<Tensor>,
}

impl<'a> Runner<'a> {
    pub fn new(how: &'a RunMode<'a>) -> Runner<'a> {
        let random = SplitMix64::new(how.noise.unwrap_or(0));
        Runner { how, random, values: Vec::new(), gaps: Vec::new(), losses: Vec::new() }
    }

    /// Runs the whole program, and reads the values that are compared.
    pub fn run(mut self, program: &RandomProgram) -> Result<(Vec<Shown>, Vec<Vec<f64>>)> {
        for leaf in &program.leaves {
            self.leaf(leaf)?;
        }
        for round in 0..program.rounds {
            for step in &program.steps {
                self.step(step, &program.dtypes, round)?;
            }
            if round + 1 < program.rounds {
                for id in program.steps.iter().flat_map(|step| &step.out) {
                    self.values[*id] = None;
                }
            }
        }
        let shown = self.finish(program)?;
        Ok((shown, self.gaps))
    }

    pub fn value(&self, id: Id) -> Result<&Tensor> {
        self.values.get(id).and_then(Option::as_ref).ok_or_else(|| lost(id))
    }

    fn put(&mut self, id: Id, tensor: Tensor) {
        if self.values.len() <= id {
            self.values.resize(id + 1, None);
        }
        self.values[id] = Some(tensor);
    }

    fn mapped(&self, dtype: DType) -> DType {
        if self.how.reference && dtype.is_float() { DType::F64 } else { dtype }
    }

    pub fn leaf(&mut self, leaf: &ProgramLeaf) -> Result<()> {
        let mut data = leaf.data.clone();
        if self.how.noise.is_some() && leaf.dtype.is_float() {
            let factors = self.factors(data.len(), unit(leaf.dtype));
            data.iter_mut().zip(factors).for_each(|(x, factor)| *x *= factor);
        }
        let tensor = tensor(&data, &leaf.shape, self.mapped(leaf.dtype), self.how.device)?;
        if leaf.requires_grad {
            tensor.requires_grad_(true)?;
            self.disturb_gradient(&tensor, leaf.dtype)?;
        }
        self.put(leaf.id, tensor);
        Ok(())
    }

    fn factors(&mut self, count: usize, unit: f64) -> Vec<f64> {
        (0..count).map(|_| if self.random.chance(50) { 1.0 + unit } else { 1.0 - unit }).collect()
    }

    fn factor(&mut self, shape: &[usize], unit: f64) -> Result<Tensor> {
        let factors = self.factors(shape.iter().product(), unit);
        Tensor::from_slice(&factors, shape, self.how.device)
    }

    /// Adds noise to the gradient that arrives at a tensor.
    fn disturb_gradient(&mut self, tensor: &Tensor, dtype: DType) -> Result<()> {
        if self.how.noise.is_none() || !tensor.requires_grad() {
            return Ok(());
        }
        let factor = self.factor(tensor.shape(), ROUNDINGS * unit(dtype))?;
        let below = if dtype == DType::F16 {
            // Gradients in f16 are often subnormal, so that they are rounded to multiples of the smallest
            // number.
            Some(self.factor(tensor.shape(), 1.0)?.sub(1.0)?.mul(smallest(dtype))?)
        } else {
            None
        };
        tensor.register_hook(move |g| {
            let g = g.mul(&factor)?;
            Ok(Some(match &below {
                Some(below) => g.add(below)?,
                None => g,
            }))
        })?;
        Ok(())
    }

    /// Runs a rule's call and returns its results; [`Runner::take`] gives them their numbers.
    pub fn call(&mut self, call: &RuleCall, dtypes: &[DType], round: usize) -> Result<Vec<Tensor>> {
        let RuleCall { rule, args, more, no_grad: off } = call;
        let off = *off;
        let mut tensors = args.iter().map(|&id| self.value(id).cloned()).collect::<Result<Vec<_>>>()?;
        if self.how.gaps {
            let gaps = no_grad(|| {
                let detached = tensors.iter().map(Tensor::detach).collect::<Vec<_>>();
                (rule.gap)(&detached, more)?.iter().map(read).collect::<Result<Vec<_>>>()
            })?;
            self.gaps.extend(gaps);
        }
        let mut more = more.clone();
        if rule.moves && round > 0 {
            // The last integer is the distance by which the window may move.
            more.n[1] = (more.n[1] + round as i64) % (more.n[3] + 1);
        }
        let to = more.dtype;
        more.dtype = to.map(|dtype| self.mapped(dtype));
        if self.how.noise.is_none() || rule.kind == ResultKind::View {
            let made = in_mode(off, || (rule.run)(&tensors, &more))?;
            if rule.kind == ResultKind::InPlace && tensors[0].dtype().is_float() {
                self.note_lost(&tensors[0], dtypes[args[0]])?;
                if self.how.eager {
                    tensors[0].eval()?;
                }
            }
            return Ok(made);
        }
        // The noise of an operand that is used twice differs for each use; otherwise `x / x` would always be
        // exact.
        for at in 1..args.len() {
            if args[..at].contains(&args[at]) && tensors[at].dtype() == DType::F64 {
                let factor = self.factor(tensors[at].shape(), unit(dtypes[args[at]]))?;
                tensors[at] = in_mode(off, || tensors[at].mul(&factor))?;
            }
        }
        // A call in place overwrites its operand, so the operands are copied first.
        let read = if rule.kind == ResultKind::InPlace {
            in_mode(off, || tensors.iter().map(Tensor::deep_clone).collect::<Result<Vec<_>>>())?
        } else {
            tensors.clone()
        };
        let mut made = in_mode(off, || (rule.run)(&tensors, &more))?;
        if rule.kind == ResultKind::InPlace {
            if tensors[0].dtype().is_float() {
                let new = in_mode(off, || self.disturbed(&tensors[0], &read, dtypes[args[0]]))?;
                in_mode(off, || tensors[0].copy_(&new))?;
            }
            return Ok(made);
        }
        // A conversion rounds to the new dtype, every other operation to that of its most precise operand.
        let floats = args.iter().map(|&id| dtypes[id]).filter(|dtype| dtype.is_float());
        let rounds_to = to.or(floats.min_by(|a, b| unit(*a).total_cmp(&unit(*b)))).unwrap_or(DType::F32);
        for tensor in made.iter_mut().filter(|tensor| tensor.dtype().is_float()) {
            *tensor = in_mode(off, || self.disturbed(tensor, &read, rounds_to))?;
        }
        Ok(made)
    }

    /// A result with noise in its value and in its derivatives.
    ///
    /// A derivative such as `y * (1 - y)` does not have errors of units of its own size, but of units of the
    /// numbers from which it is computed; this holds in PyTorch, too. So the noise includes a function whose
    /// value is 0 and whose derivatives have the size of a unit.
    fn disturbed(&mut self, result: &Tensor, operands: &[Tensor], dtype: DType) -> Result<Tensor> {
        let unit = ROUNDINGS * unit(dtype);
        let mut out = result.mul(&self.factor(result.shape(), unit)?)?;
        if !result.requires_grad() {
            return Ok(out);
        }
        for x in operands.iter().filter(|x| x.requires_grad() && x.dtype() == DType::F64 && is_grad_enabled())
        {
            let waves = self.factor(x.shape(), 1.0)?.sub(1.0)?.mul(&x.sin()?.sub(&x.detach().sin()?)?)?;
            let waves = if x.shape() == result.shape() { waves } else { waves.sum()? };
            out = out.add(&waves.mul(&self.factor(result.shape(), 1.0)?.sub(1.0)?)?.mul(unit)?)?;
        }
        Ok(out)
    }

    /// Notes a distance of NaN, which says nothing, if the dtype may round an element to 0.
    fn note_lost(&mut self, tensor: &Tensor, dtype: DType) -> Result<()> {
        if self.how.gaps {
            let least = smallest(dtype);
            let lost = read(&tensor.detach())?.iter().any(|x| *x != 0.0 && x.abs() < least);
            self.gaps.extend(lost.then(|| vec![f64::NAN]));
        }
        Ok(())
    }

    /// Stores a result under its number.
    pub fn take(&mut self, rule: &Rule, id: Id, tensor: Tensor, dtype: DType) -> Result<()> {
        if rule.kind == ResultKind::Value && tensor.dtype().is_float() {
            self.note_lost(&tensor, dtype)?;
            self.disturb_gradient(&tensor, dtype)?;
        }
        if self.how.eager {
            tensor.eval()?;
        }
        self.put(id, tensor);
        Ok(())
    }

    /// Runs one step.
    pub fn step(&mut self, step: &ProgramStep, dtypes: &[DType], round: usize) -> Result<()> {
        match &step.action {
            Action::Call(call) => {
                let made = self.call(call, dtypes, round)?;
                if made.len() != step.out.len() {
                    return Err(lost(*step.out.first().unwrap_or(&0)));
                }
                for (&id, tensor) in step.out.iter().zip(made) {
                    let dtype = dtypes.get(id).copied().unwrap_or(tensor.dtype());
                    self.take(call.rule, id, tensor, dtype)?;
                }
            }
            Action::Read(id) => self.value(*id)?.eval()?,
            Action::Forget(id) => self.values[*id] = None,
            Action::RetainGrad(id) => self.value(*id)?.retain_grad()?,
            Action::Backward { of, keep, create } => {
                let loss = self.weighted(of, dtypes)?;
                let options = BackwardOptions::new().retain_graph(*keep).create_graph(*create);
                loss.backward_with(options)?;
                if self.how.eager {
                    loss.eval()?;
                }
                self.losses.push(loss.detach());
            }
            Action::Update { leaf, rate, momentum, zero } => {
                let leaf = self.value(*leaf)?.clone();
                let Some(gradient) = leaf.grad() else { return Ok(()) };
                no_grad(|| {
                    let direction = match momentum {
                        Some(m) => self.value(*m)?.mul_(0.9)?.add_(&gradient)?,
                        None => gradient.clone(),
                    };
                    leaf.sub_(&direction.mul(*rate)?)?;
                    if *zero {
                        gradient.zero_()?;
                    } else {
                        leaf.zero_grad();
                    }
                    Ok(())
                })?;
                if self.how.eager {
                    leaf.eval()?;
                }
            }
        }
        Ok(())
    }

    /// A weighted sum of all elements. The weights differ, so that swapping two elements changes the sum.
    fn weighted(&mut self, ids: &[Id], dtypes: &[DType]) -> Result<Tensor> {
        let wide = ids.iter().any(|&id| dtypes.get(id) == Some(&DType::F64));
        let dtype = self.mapped(if wide { DType::F64 } else { DType::F32 });
        let mut sum: Option<Tensor> = None;
        for (turn, &id) in ids.iter().enumerate() {
            let part = self.weigh(&self.value(id)?.to_dtype(dtype)?, turn, wide)?;
            sum = Some(match sum {
                None => part,
                Some(sum) => sum.add(&part)?,
            });
        }
        sum.ok_or_else(|| lost(0))
    }

    /// The weighted sum of a tensor's elements. Noise is added to each product.
    fn weigh(&mut self, tensor: &Tensor, turn: usize, wide: bool) -> Result<Tensor> {
        let weights: Vec<f64> = (0..tensor.numel()).map(|i| weight(i, turn)).collect();
        let weights = self::tensor(&weights, tensor.shape(), tensor.dtype(), tensor.device())?;
        let mut products = tensor.mul(&weights)?;
        if self.how.noise.is_some() {
            let unit = unit(if wide { DType::F64 } else { DType::F32 });
            products = products.mul(&self.factor(products.shape(), unit)?)?;
        }
        products.sum()
    }

    /// The values that are compared: results, gradients, leaves, losses.
    fn finish(&mut self, program: &RandomProgram) -> Result<Vec<Shown>> {
        let mut all: Vec<(String, Tensor)> = Vec::new();
        let held: Vec<Id> = program
            .steps
            .iter()
            .filter(|step| step.held)
            .flat_map(|step| step.out.clone())
            .filter(|&id| self.value(id).is_ok())
            .collect();
        for &id in &held {
            let value = self.value(id)?;
            all.push((format!("v{id}"), value.detach()));
            if !value.is_leaf()
                && value.retains_grad()
                && let Some(g) = value.grad()
            {
                all.push((format!("v{id}.grad"), g.detach()));
            }
        }
        for (i, loss) in self.losses.iter().enumerate() {
            all.push((format!("loss {i}"), loss.clone()));
        }
        for leaf in &program.leaves {
            let value = self.value(leaf.id)?;
            if leaf.dtype.is_float() {
                all.push((format!("v{} in the end", leaf.id), value.detach()));
            }
            if let Some(g) = value.grad() {
                all.push((format!("v{}.grad", leaf.id), g.detach()));
            }
        }
        if program.gradients {
            self.gradients(program, &held, &mut all)?;
        }
        if program.seed.is_multiple_of(2) {
            Tensor::eval_all(all.iter().map(|(_, tensor)| tensor))?;
        }
        all.into_iter()
            .map(|(label, tensor)| {
                let (shape, dtype, data) = (tensor.shape().to_vec(), tensor.dtype(), read(&tensor)?);
                Ok(Shown { label, shape, dtype, data })
            })
            .collect()
    }

    /// Adds the first and second gradients of the held values.
    fn gradients(
        &mut self,
        program: &RandomProgram,
        held: &[Id],
        all: &mut Vec<(String, Tensor)>,
    ) -> Result<()> {
        let mut of = Vec::new();
        for &id in held {
            if self.value(id)?.requires_grad() {
                of.push(id);
            }
        }
        let leaves: Vec<&ProgramLeaf> = program.leaves.iter().filter(|leaf| leaf.requires_grad).collect();
        let inputs = leaves.iter().map(|leaf| self.value(leaf.id).cloned()).collect::<Result<Vec<_>>>()?;
        let inputs: Vec<&Tensor> = inputs.iter().collect();
        if of.is_empty() || inputs.is_empty() {
            return Ok(());
        }
        let loss = self.weighted(&of, &program.dtypes)?;
        all.push(("the sum".to_owned(), loss.detach()));
        let options = GradOptions::new().create_graph(true).allow_unused(true);
        let first = enable_grad(|| grad(&[&loss], &inputs, options))?;
        let mut again: Option<Tensor> = None;
        for (turn, (leaf, g)) in leaves.iter().zip(&first).enumerate() {
            let Some(g) = g else { continue };
            all.push((format!("first gradient of v{}", leaf.id), g.detach()));
            if g.requires_grad() {
                let wide = program.uses(DType::F64);
                let dtype = self.mapped(if wide { DType::F64 } else { DType::F32 });
                let part = self.weigh(&g.to_dtype(dtype)?, turn + 5, wide)?;
                again = Some(match again {
                    None => part,
                    Some(sum) => sum.add(&part)?,
                });
            }
        }
        let Some(again) = again else { return Ok(()) };
        let second = grad(&[&again], &inputs, GradOptions::new().allow_unused(true))?;
        for (leaf, g) in leaves.iter().zip(second) {
            if let Some(g) = g {
                all.push((format!("second gradient of v{}", leaf.id), g.detach()));
            }
        }
        Ok(())
    }
}

/// Runs a closure with grad mode off, or in the present mode.
fn in_mode<R>(off: bool, run: impl FnOnce() -> R) -> R {
    if off { no_grad(run) } else { run() }
}

/// The weight of an element.
pub fn weight(i: usize, turn: usize) -> f64 {
    ((i * 7 + turn * 3 + 4) % 11) as f64 / 8.0 - 0.625
}

fn lost(id: Id) -> Error {
    Error::Argument { op: "fuzz", reason: format!("the program has no value v{id} here") }
}

/// A tensor of these numbers, converted to a dtype.
pub fn tensor(data: &[f64], shape: &[usize], dtype: DType, device: &Device) -> Result<Tensor> {
    match dtype {
        DType::F64 => Tensor::from_slice(data, shape, device),
        DType::F32 => Tensor::from_slice(&to(data, |x| x as f32), shape, device),
        DType::F16 => Tensor::from_slice(&to(data, f16::from_f64), shape, device),
        DType::BF16 => Tensor::from_slice(&to(data, bf16::from_f64), shape, device),
        DType::I64 => Tensor::from_slice(&to(data, |x| x as i64), shape, device),
        DType::I32 => Tensor::from_slice(&to(data, |x| x as i32), shape, device),
        DType::U8 => Tensor::from_slice(&to(data, |x| x as u8), shape, device),
        DType::Bool => Tensor::from_slice(&to(data, |x| x != 0.0), shape, device),
    }
}

fn to<T>(data: &[f64], convert: impl Fn(f64) -> T) -> Vec<T> {
    data.iter().map(|&x| convert(x)).collect()
}

/// The elements as f64.
pub fn read(tensor: &Tensor) -> Result<Vec<f64>> {
    Ok(match tensor.dtype() {
        DType::F64 => tensor.to_vec::<f64>()?,
        DType::F32 => tensor.to_vec::<f32>()?.into_iter().map(f64::from).collect(),
        DType::F16 => tensor.to_vec::<f16>()?.into_iter().map(f64::from).collect(),
        DType::BF16 => tensor.to_vec::<bf16>()?.into_iter().map(f64::from).collect(),
        DType::I64 => tensor.to_vec::<i64>()?.into_iter().map(|n| n as f64).collect(),
        DType::I32 => tensor.to_vec::<i32>()?.into_iter().map(f64::from).collect(),
        DType::U8 => tensor.to_vec::<u8>()?.into_iter().map(f64::from).collect(),
        DType::Bool => tensor.to_vec::<bool>()?.into_iter().map(|b| f64::from(u8::from(b))).collect(),
    })
}
