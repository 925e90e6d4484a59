//! Running statistics for weights that were not trained themselves: averaged ones.

use wgrad_autograd::{Result, Tensor, no_grad};

use crate::layers::with_means_of_all;
use crate::module::{Kind, Module, Training, Value, Visitor, Walk};

/// Computes the running statistics of all batch norms of a module anew, as the means over these batches;
/// `torch.optim.swa_utils.update_bn`.
///
/// `forward` is called with each batch, in training mode and without recording; the module's modes are as
/// before at the end.
///
/// ```
/// use wgrad::nn::{BatchNorm1d, Layer, Module};
/// use wgrad::optim::update_bn;
/// use wgrad::{Device, Tensor};
///
/// let device = Device::cpu();
/// let norm = BatchNorm1d::new(1, &device)?;
/// let batches = [Tensor::new([[0.0], [2.0]], &device)?, Tensor::new([[4.0], [6.0]], &device)?];
/// update_bn(&norm, &batches, |batch| norm.forward(batch))?;
/// let (_, mean) = &norm.named_buffers()[0];
/// assert_eq!(mean.to_vec::<f32>()?, [3.0]);
/// # Ok::<(), wgrad::Error>(())
/// ```
///
/// # Errors
/// Those of `forward`; the statistics are as they were then.
pub fn update_bn<'a>(
    module: &dyn Module,
    batches: impl IntoIterator<Item = &'a Tensor>,
    mut forward: impl FnMut(&Tensor) -> Result<Tensor>,
) -> Result<()> {
    let statistics = statistics(module);
    if statistics.is_empty() {
        return Ok(());
    }
    no_grad(|| {
        let before = statistics.iter().map(|(_, tensor)| tensor.deep_clone()).collect::<Result<Vec<_>>>()?;
        for (name, tensor) in &statistics {
            tensor.fill_(if name.ends_with("running_var") { 1.0 } else { 0.0 })?;
        }
        let modes = modes(module);
        module.train();
        let done = with_means_of_all(|| batches.into_iter().try_for_each(|batch| forward(batch).map(drop)));
        modes.iter().for_each(|(flag, mode)| flag.set(*mode));
        if done.is_err() {
            for ((_, tensor), before) in statistics.iter().zip(&before) {
                tensor.copy_(before)?;
            }
        }
        done
    })
}

/// The running statistics of all batch norms, by path.
fn statistics(module: &dyn Module) -> Vec<(String, Tensor)> {
    struct Norms(Vec<String>);
    impl Visitor for Norms {
        fn value(&mut self, _: &str, _: Value<'_>) {}

        fn module(&mut self, path: &str, module: &dyn Module) {
            if module.type_name().starts_with("BatchNorm") {
                self.0.push(if path.is_empty() { String::new() } else { format!("{path}.") });
            }
        }
    }
    let mut norms = Norms(Vec::new());
    norms.module("", module);
    module.visit(&mut Walk::new(&mut norms));
    let is_one = |path: &str, kind: Kind| {
        let name = norms.0.iter().find_map(|norm| path.strip_prefix(norm.as_str()));
        let names = ["running_mean", "running_var", "num_batches_tracked"];
        kind == Kind::Buffer && name.is_some_and(|name| names.contains(&name))
    };
    let tensors = module.tensors().into_iter().filter(|(path, kind, _)| is_one(path, *kind));
    tensors.map(|(path, _, tensor)| (path, tensor)).collect()
}

/// All flags of a module with what they say now.
fn modes(module: &dyn Module) -> Vec<(Training, bool)> {
    struct Flags(Vec<(Training, bool)>);
    impl Visitor for Flags {
        fn value(&mut self, _: &str, value: Value<'_>) {
            if let Value::Training(flag) = value {
                self.0.push((flag.clone(), flag.get()));
            }
        }
    }
    let mut flags = Flags(Vec::new());
    module.visit(&mut Walk::new(&mut flags));
    flags.0
}
