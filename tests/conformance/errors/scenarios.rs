//! Programs of a few lines whose last line must fail, under the names they have in `errors.json`.

use wgrad::{BackwardOptions, DType, Device, GradOptions, Result, Tensor, grad, no_grad};

type Scenario = fn(&Device) -> Result<()>;

/// Runs the scenario of a name; `None` if there is none.
pub fn run(name: &str, device: &Device) -> Option<Result<()>> {
    SCENARIOS.iter().find(|(scenario, _)| *scenario == name).map(|(_, run)| run(device))
}

fn ones(shape: &[usize], device: &Device) -> Result<Tensor> {
    Tensor::ones(shape, device)
}

fn leaf(shape: &[usize], device: &Device) -> Result<Tensor> {
    ones(shape, device)?.requires_grad_(true)
}

fn integers(size: usize, device: &Device) -> Result<Tensor> {
    Tensor::ones([size], (DType::I64, device))
}

/// A result, not a leaf, that requires grad.
fn result(shape: &[usize], device: &Device) -> Result<Tensor> {
    leaf(shape, device)?.mul(1.0)
}

const SCENARIOS: &[(&str, Scenario)] = &[
    ("backward_non_scalar", |d| leaf(&[6], d)?.mul(2.0)?.backward()),
    ("backward_twice", |d| {
        let x = leaf(&[4], d)?;
        let y = x.mul(&x)?.sum()?;
        y.backward()?;
        y.backward()
    }),
    ("backward_twice_shared", |d| {
        let h = leaf(&[5], d)?.exp()?;
        h.sum()?.backward()?;
        h.mul(2.0)?.sum()?.backward()
    }),
    ("grad_twice", |d| {
        let x = leaf(&[4], d)?;
        let y = x.mul(&x)?.sum()?;
        grad(&[&y], &[&x], GradOptions::new())?;
        grad(&[&y], &[&x], GradOptions::new()).map(drop)
    }),
    ("backward_no_grad", |d| ones(&[5], d)?.sum()?.backward()),
    ("backward_under_no_grad", |d| {
        let x = leaf(&[6], d)?;
        no_grad(|| x.sum())?.backward()
    }),
    ("backward_detached", |d| leaf(&[4], d)?.mul(2.0)?.detach().sum()?.backward()),
    ("backward_argmax", |d| leaf(&[7], d)?.argmax()?.backward()),
    ("backward_comparison", |d| leaf(&[4], d)?.gt(0.0)?.sum()?.backward()),
    ("backward_gradient_shape", |d| {
        leaf(&[5], d)?.mul(2.0)?.backward_with(BackwardOptions::new().gradient(&ones(&[6], d)?))
    }),
    ("backward_gradient_shape_scalar", |d| {
        leaf(&[3], d)?.sum()?.backward_with(BackwardOptions::new().gradient(&ones(&[7], d)?))
    }),
    ("grad_shape", |d| {
        let x = leaf(&[7], d)?;
        grad(&[&x.mul(2.0)?], &[&x], GradOptions::new().grad_outputs([Some(ones(&[6, 7], d)?)])).map(drop)
    }),
    ("grad_unused", |d| {
        let (x, w) = (leaf(&[2], d)?, leaf(&[4], d)?);
        grad(&[&x.mul(2.0)?.sum()?], &[&x, &w], GradOptions::new()).map(drop)
    }),
    ("grad_not_required", |d| {
        let (x, w) = (leaf(&[5], d)?, ones(&[5], d)?);
        grad(&[&x.mul(&w)?.sum()?], &[&x, &w], GradOptions::new()).map(drop)
    }),
    ("grad_non_scalar", |d| {
        let x = leaf(&[6], d)?;
        grad(&[&x.mul(2.0)?], &[&x], GradOptions::new()).map(drop)
    }),
    ("second_without_create_graph", |d| {
        let x = leaf(&[2], d)?;
        let first = grad(&[&x.pow(3.0)?.sum()?], &[&x], GradOptions::new())?;
        match &first[..] {
            [Some(gradient)] => gradient.sum()?.backward(),
            _ => Ok(()),
        }
    }),
    ("requires_grad_integer", |d| integers(3, d)?.requires_grad_(true).map(drop)),
    ("requires_grad_bool", |d| Tensor::ones([2], (DType::Bool, d))?.requires_grad_(true).map(drop)),
    ("requires_grad_set_integer", |d| integers(5, d)?.requires_grad_(true).map(drop)),
    ("constructor_requires_grad_integer", |d| integers(5, d)?.requires_grad_(true).map(drop)),
    ("tensor_requires_grad_integer", |d| Tensor::new([1i64, 2], d)?.requires_grad_(true).map(drop)),
    ("requires_grad_nonleaf_off", |d| result(&[3], d)?.requires_grad_(false).map(drop)),
    ("requires_grad_nonleaf_set", |d| result(&[3], d)?.requires_grad_(false).map(drop)),
    ("inplace_leaf", |d| leaf(&[5], d)?.add_(1.0).map(drop)),
    ("inplace_leaf_iadd", |d| leaf(&[4], d)?.add_(1.0).map(drop)),
    ("inplace_leaf_zero", |d| leaf(&[6], d)?.zero_().map(drop)),
    ("inplace_leaf_view", |d| leaf(&[5, 3], d)?.select(0, 0)?.mul_(2.0).map(drop)),
    ("inplace_leaf_setitem", |d| leaf(&[2], d)?.select(0, 0)?.fill_(1.0).map(drop)),
    ("inplace_multi_view", |d| {
        let y = result(&[3, 5], d)?;
        y.unbind(0)?[0].mul_(2.0).map(drop)
    }),
    ("inplace_split_view", |d| {
        let y = result(&[4, 5], d)?;
        y.split(2, 0)?[0].mul_(2.0).map(drop)
    }),
    ("inplace_no_grad_view", |d| {
        let y = result(&[7, 3], d)?;
        no_grad(|| y.select(0, 0))?.mul_(2.0).map(drop)
    }),
    ("inplace_expanded", |d| ones(&[1], d)?.expand(5)?.add_(1.0).map(drop)),
    ("inplace_broadcast", |d| ones(&[4], d)?.add_(ones(&[3, 4], d)?).map(drop)),
    ("inplace_broadcast_mismatch", |d| ones(&[5], d)?.mul_(ones(&[4], d)?).map(drop)),
    ("inplace_dtype", |d| integers(4, d)?.add_(0.5).map(drop)),
    ("inplace_dtype_div", |d| integers(3, d)?.div_(2).map(drop)),
    ("inplace_bool", |d| Tensor::ones([6], (DType::Bool, d))?.add_(1).map(drop)),
    ("copy_shape", |d| ones(&[4], d)?.copy_(&ones(&[5], d)?).map(drop)),
    ("copy_leaf", |d| leaf(&[6], d)?.copy_(&Tensor::zeros([6], d)?).map(drop)),
    ("setitem_shape", |d| ones(&[7, 3], d)?.select(0, 0)?.copy_(&ones(&[2], d)?).map(drop)),
    ("setitem_mask_shape", |d| {
        let mask = Tensor::new([true, false, true, true], d)?;
        ones(&[4], d)?.index_put(&[Some(mask)], &ones(&[2], d)?, false).map(drop)
    }),
    ("index_put_setitem_range", |d| {
        let written = ones(&[7], d)?.index_put(&[Some(Tensor::new([7i64], d)?)], &ones(&[], d)?, false)?;
        written.to_vec::<f32>().map(drop)
    }),
    ("item_many", |d| ones(&[5], d)?.item::<f32>().map(drop)),
    ("item_empty", |d| ones(&[0], d)?.item::<f32>().map(drop)),
    ("bool_many", |d| ones(&[5], d)?.item::<bool>().map(drop)),
    ("bool_empty", |d| ones(&[0], d)?.item::<bool>().map(drop)),
    ("len_0d", |d| ones(&[], d)?.size(0).map(drop)),
    ("iterate_0d", |d| ones(&[], d)?.unbind(0).map(drop)),
    ("grad_assign_shape", |d| leaf(&[4], d)?.set_grad(Some(&ones(&[3], d)?))),
    ("grad_assign_dtype", |d| leaf(&[5], d)?.set_grad(Some(&Tensor::ones([5], (DType::F16, d))?))),
    ("grad_assign_self", |d| {
        let x = leaf(&[6], d)?;
        x.set_grad(Some(&x))
    }),
    ("retain_grad_not_required", |d| ones(&[3], d)?.retain_grad()),
    ("hook_not_required", |d| ones(&[5], d)?.register_hook(|g| Ok(Some(g.clone()))).map(drop)),
    ("hook_shape", |d| {
        let y = leaf(&[7], d)?.mul(2.0)?;
        y.register_hook(|g| Tensor::ones([2], g.device()).map(Some))?;
        y.sum()?.backward()
    }),
    ("device_unknown", |_| "gpu".parse::<Device>().map(drop)),
    ("negative_size", |d| Tensor::zeros([6isize, -1], d).map(drop)),
    ("from_shape_overflow", |d| Tensor::empty([1usize << 40, 1 << 40], d).map(drop)),
    ("linear_module_shape", |d| ones(&[2, 2], d)?.linear(&ones(&[3, 5], d)?, &ones(&[3], d)?).map(drop)),
];
