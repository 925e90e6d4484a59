//! What L-BFGS remembers of the steps before: changes of the parameters with those of the gradient, which
//! stand for the inverse of the Hessian.

use std::collections::{BTreeMap, VecDeque};

use wgrad_autograd::{DType, Device, Result, Tensor};

use super::read;
use super::search::Point;
use crate::optim::rule::compute_dtype;

/// A change of the gradient and the change of the parameters that it came with.
#[derive(Clone)]
struct Change {
    grad: Tensor,
    params: Tensor,
    /// 1 over their product.
    weight: f64,
}

/// The memory between steps.
#[derive(Clone, Default)]
pub(super) struct Memory {
    changes: VecDeque<Change>,
    /// What the inverse Hessian is taken for before the changes.
    scale: f64,
    /// The last direction with the gradient and the loss where it began.
    last: Option<(Tensor, Tensor, f64)>,
    /// How far the last step went along its direction.
    pub(super) length: f64,
    pub(super) iterations: usize,
    pub(super) evaluations: usize,
}

impl Memory {
    /// The direction to go, down the quadratic model; at most so many changes are kept.
    pub(super) fn direction(&mut self, grad: &Tensor, most: usize) -> Result<Tensor> {
        let Some((direction, before, _)) = self.last.as_ref().filter(|_| self.iterations > 1) else {
            self.changes.clear();
            self.scale = 1.0;
            return grad.neg();
        };
        let change = grad.sub(before)?;
        let step = direction.mul(self.length)?;
        let [product, square] = read([&change.dot(&step)?, &change.dot(&change)?])?;
        // Only changes along which the gradient grows describe a minimum.
        if product > 1e-10 {
            while self.changes.len() >= most {
                self.changes.pop_front();
            }
            self.changes.push_back(Change { grad: change, params: step, weight: 1.0 / product });
            self.scale = product / square;
        }
        let mut q = grad.neg()?;
        let mut parts = Vec::new();
        for change in self.changes.iter().rev() {
            let part = change.params.dot(&q)?.mul(change.weight)?;
            q = q.sub(change.grad.mul(&part)?)?;
            parts.push(part);
        }
        let mut r = q.mul(self.scale)?;
        for (change, part) in self.changes.iter().zip(parts.iter().rev()) {
            let other = change.grad.dot(&r)?.mul(change.weight)?;
            r = r.add(change.params.mul(part.sub(other)?)?)?;
        }
        Ok(r)
    }

    /// Notes where a direction begins.
    pub(super) fn went(&mut self, from: &Point, direction: &Tensor, length: f64) {
        self.last = Some((direction.clone(), from.grad.clone(), from.loss));
        self.length = length;
    }

    /// By PyTorch's names; what are lists there is stacked.
    pub(super) fn save(&self) -> Result<BTreeMap<String, Tensor>> {
        let cpu = Device::cpu();
        let number = |value: f64| Tensor::full((), value, (DType::F64, &cpu));
        let count = |value: usize| Tensor::full((), value as i64, (DType::I64, &cpu));
        let mut saved: BTreeMap<String, Tensor> = BTreeMap::new();
        let mut put = |name: &str, tensor: Tensor| drop(saved.insert(name.to_owned(), tensor));
        put("func_evals", count(self.evaluations)?);
        put("n_iter", count(self.iterations)?);
        if let Some((direction, grad, loss)) = &self.last {
            put("d", direction.deep_clone()?);
            put("prev_flat_grad", grad.deep_clone()?);
            put("prev_loss", number(*loss)?);
            put("t", number(self.length)?);
            put("H_diag", number(self.scale)?);
            let stack = |of: fn(&Change) -> &Tensor| match self.changes.len() {
                0 => Tensor::zeros([0, grad.numel()], (grad.dtype(), grad.device())),
                _ => Tensor::stack(&self.changes.iter().map(of).collect::<Vec<_>>(), 0),
            };
            put("old_dirs", stack(|change| &change.grad)?);
            put("old_stps", stack(|change| &change.params)?);
            let weights: Vec<f64> = self.changes.iter().map(|change| change.weight).collect();
            put("ro", Tensor::from_slice(&weights, [weights.len()], &cpu)?);
        }
        Ok(saved)
    }

    /// From what was saved for so many elements; what does not fit is noted.
    pub(super) fn load(
        saved: &BTreeMap<String, Tensor>,
        elements: usize,
        like: &Tensor,
        problems: &mut Vec<String>,
    ) -> Result<Memory> {
        const VECTORS: [&str; 4] = ["d", "prev_flat_grad", "old_dirs", "old_stps"];
        const NUMBERS: [&str; 5] = ["func_evals", "n_iter", "t", "H_diag", "prev_loss"];
        let unknown = saved.keys().filter(|name| {
            !VECTORS.contains(&name.as_str()) && !NUMBERS.contains(&name.as_str()) && name.as_str() != "ro"
        });
        problems.extend(unknown.map(|name| format!("there is an unknown {name}")));
        let host = |tensor: &Tensor| tensor.to_device(&Device::cpu())?.to_dtype(DType::F64)?.to_vec::<f64>();
        let mut numbers = BTreeMap::new();
        for name in NUMBERS {
            match saved.get(name).filter(|tensor| tensor.numel() == 1).map(&host).transpose()?.as_deref() {
                Some([value]) => drop(numbers.insert(name, *value)),
                _ if saved.contains_key(name) => problems.push(format!("{name} is not one number")),
                _ => {}
            }
        }
        let number = |name: &str| numbers.get(name).copied().unwrap_or_default();
        let mut memory = Memory {
            iterations: number("n_iter") as usize,
            evaluations: number("func_evals") as usize,
            length: number("t"),
            scale: number("H_diag"),
            ..Memory::default()
        };
        let vectors = VECTORS.map(|name| saved.get(name));
        let [Some(direction), Some(grad), Some(grads), Some(steps)] = vectors else {
            if memory.iterations > 0 || vectors.iter().any(Option::is_some) {
                problems.push(format!("one of {VECTORS:?} is missing"));
            }
            return Ok(memory);
        };
        let weights = saved.get("ro").map(host).transpose()?.unwrap_or_default();
        let fits = [direction, grad].iter().all(|vector| vector.shape() == [elements])
            && [grads, steps].iter().all(|list| list.shape() == [weights.len(), elements]);
        if !fits {
            problems.push(format!("the vectors are not those of {elements} elements"));
            return Ok(memory);
        }
        let own =
            |tensor: &Tensor| tensor.detach().to((compute_dtype(like.dtype()), like.device()))?.deep_clone();
        memory.last = Some((own(direction)?, own(grad)?, number("prev_loss")));
        for (place, weight) in weights.into_iter().enumerate() {
            let row = |list: &Tensor| own(&list.select(0, place as isize)?);
            memory.changes.push_back(Change { grad: row(grads)?, params: row(steps)?, weight });
        }
        Ok(memory)
    }
}
