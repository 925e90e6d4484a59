//! Every differentiable operation against finite differences, first and second order, on inputs of every layout.

use wgrad::{CrossEntropyOptions, DType, Device, Reduction, Result, Tensor, gradcheck, gradgradcheck};

/// One input, several outputs.
type Split = fn(&Tensor) -> Result<Vec<Tensor>>;
type Function = Box<dyn Fn(&[Tensor]) -> Result<Vec<Tensor>>>;

/// Numbers without ties, away from 0 and from integers.
fn numbers(count: usize, from: f64, to: f64, salt: usize) -> Vec<f64> {
    let place = |i: usize| ((i * 37 + salt * 11) % 97) as f64 / 97.0;
    (0..count).map(|i| from + (to - from) * place(i) + 0.0123).collect()
}

pub(super) fn leaf(shape: &[usize], from: f64, to: f64, salt: usize) -> Tensor {
    let data = numbers(shape.iter().product(), from, to, salt);
    Tensor::from_slice(&data, shape, &Device::cpu()).unwrap().requires_grad_(true).unwrap()
}

/// Both orders of one function.
pub(super) fn check(name: &str, function: &dyn Fn(&[Tensor]) -> Result<Vec<Tensor>>, inputs: &[Tensor]) {
    gradcheck(function, inputs).unwrap_or_else(|error| panic!("{name}: {error}"));
    gradgradcheck(function, inputs).unwrap_or_else(|error| panic!("{name}: {error}"));
}

/// A function of one tensor, with its input contiguous, transposed, sliced, expanded, 0-dim and empty.
fn layouts(name: &str, from: f64, to: f64, function: impl Fn(&Tensor) -> Result<Tensor>) {
    let on = |view: fn(&Tensor) -> Result<Tensor>, shape: &[usize]| {
        check(name, &|x| Ok(vec![function(&view(&x[0])?)?]), &[leaf(shape, from, to, 1)]);
    };
    on(|x| Ok(x.clone()), &[2, 3]);
    on(|x| x.t(), &[2, 3]);
    on(|x| x.slice(1, 1, None, 2), &[2, 5]);
    on(|x| x.expand([2, 3]), &[2, 1]);
    on(|x| Ok(x.clone()), &[]);
    on(|x| Ok(x.clone()), &[0, 3]);
}

macro_rules! unary {
    ($($name:ident $from:literal $to:literal;)*) => {$(
        layouts(stringify!($name), $from, $to, |x| x.$name());
    )*};
}

#[test]
fn functions_of_elements() {
    unary! {
        neg -2.0 2.0; abs -2.0 2.0; sign -2.0 2.0; exp -2.0 2.0; log 0.3 3.0; log1p -0.5 3.0; expm1 -2.0 2.0; sqrt 0.3 3.0;
        rsqrt 0.3 3.0; square -2.0 2.0; reciprocal 0.3 3.0; sin -3.0 3.0; cos -3.0 3.0; tanh -2.0 2.0;
        sigmoid -3.0 3.0; erf -2.0 2.0; relu -2.0 2.0; silu -3.0 3.0; gelu -2.0 2.0; gelu_tanh -2.0 2.0;
        floor 0.1 0.8; ceil 0.1 0.8; round 0.6 1.3; trunc 0.1 0.8;
    }
}

#[test]
fn numbers_and_bounds() {
    layouts("add", -2.0, 2.0, |x| x.add(1.5));
    layouts("sub", -2.0, 2.0, |x| x.sub(1.5));
    layouts("rsub", -2.0, 2.0, |x| x.rsub(1.5));
    layouts("mul", -2.0, 2.0, |x| x.mul(1.5));
    layouts("div", -2.0, 2.0, |x| x.div(1.5));
    layouts("remainder", 0.1, 0.9, |x| x.remainder(1.0));
    for exponent in [0.0, 0.5, 1.0, 2.0, 3.0, -1.0, 2.5] {
        layouts("pow", 0.3, 3.0, |x| x.pow(exponent));
    }
    layouts("pow of a negative base", -3.0, -0.3, |x| x.pow(3));
    layouts("rpow", -1.0, 2.0, |x| x.rpow(2.0));
    layouts("clamp", -2.0, 2.0, |x| x.clamp(-1.0, 1.0));
    layouts("clamp to one side", -2.0, 2.0, |x| x.clamp(None, 0.5));
    layouts("masked_fill", -2.0, 2.0, |x| x.masked_fill(&x.gt(0.0)?, 3.0));
    layouts("where", -2.0, 2.0, |x| x.gt(0.0)?.where_cond(x.mul(2.0)?, x));
    layouts("maximum", -2.0, 2.0, |x| x.maximum(0.4));
    layouts("to", -2.0, 2.0, |x| x.to(DType::F64)?.deep_clone());
    layouts("dropout", -2.0, 2.0, |x| x.dropout(1.0, true));
}

#[test]
fn pairs() {
    type Pair = fn(&Tensor, &Tensor) -> Result<Tensor>;
    let operations: [(&str, Pair); 10] = [
        ("add", |a, b| a.add(b)),
        ("sub", |a, b| a.sub(b)),
        ("mul", |a, b| a.mul(b)),
        ("div", |a, b| a.div(b)),
        ("pow", |a, b| a.pow(b)),
        ("maximum", |a, b| a.maximum(b)),
        ("minimum", |a, b| a.minimum(b)),
        ("where", |a, b| a.gt(b)?.where_cond(a, b)),
        ("clamp", |a, b| a.clamp(b, &b.add(0.5)?)),
        ("remainder", |a, b| a.mul(0.2)?.remainder(b)),
    ];
    let shapes: [(&[usize], &[usize]); 5] =
        [(&[2, 3], &[2, 3]), (&[2, 3], &[3]), (&[2, 1], &[1, 3]), (&[], &[2]), (&[0, 3], &[1, 3])];
    for (name, operation) in operations {
        for (left, right) in shapes {
            let inputs = [leaf(left, 0.5, 2.5, 1), leaf(right, 0.6, 2.4, 2)];
            check(name, &|x| Ok(vec![operation(&x[0], &x[1])?]), &inputs);
            check(name, &|x| Ok(vec![operation(&x[0], &x[0].mul(0.9)?)?]), &inputs[..1]);
        }
    }
}

#[test]
fn reductions() {
    let over: [&[isize]; 4] = [&[0], &[-1], &[0, 1], &[]];
    for dims in over {
        for keepdim in [false, true] {
            let all: [(&str, Function); 8] = [
                ("sum", Box::new(move |x| Ok(vec![x[0].sum_dim(dims, keepdim)?]))),
                ("mean", Box::new(move |x| Ok(vec![x[0].mean_dim(dims, keepdim)?]))),
                ("amax", Box::new(move |x| Ok(vec![x[0].amax(dims, keepdim)?]))),
                ("amin", Box::new(move |x| Ok(vec![x[0].amin(dims, keepdim)?]))),
                ("var", Box::new(move |x| Ok(vec![x[0].var_dim(dims, 1.0, keepdim)?]))),
                ("std", Box::new(move |x| Ok(vec![x[0].std_dim(dims, 0.0, keepdim)?]))),
                ("logsumexp", Box::new(move |x| Ok(vec![x[0].logsumexp(dims, keepdim)?]))),
                (
                    "prod",
                    Box::new(move |x| Ok(vec![x[0].prod_dim(dims.first().copied().unwrap_or(0), keepdim)?])),
                ),
            ];
            for (name, function) in all {
                check(name, &function, &[leaf(&[3, 4], -2.0, 2.0, 3)]);
                check(name, &|x| function(&[x[0].t()?]), &[leaf(&[3, 4], -2.0, 2.0, 3)]);
            }
        }
    }
    layouts("sum", -2.0, 2.0, |x| x.sum());
    layouts("cumsum", -2.0, 2.0, |x| x.cumsum(-1));
    let nonempty: [(&str, Split); 6] = [
        ("mean", |x| Ok(vec![x.mean()?])),
        ("prod", |x| Ok(vec![x.prod()?])),
        ("max", |x| Ok(vec![x.max()?])),
        ("min", |x| Ok(vec![x.min()?])),
        ("max_dim", |x| Ok(vec![x.max_dim(-1, false)?.0])),
        ("min_dim", |x| Ok(vec![x.min_dim(0, true)?.0])),
    ];
    for (name, function) in nonempty {
        check(name, &|x| function(&x[0]), &[leaf(&[3, 4], -2.0, 2.0, 4)]);
        check(name, &|x| function(&x[0]), &[leaf(&[], -2.0, 2.0, 4)]);
    }
}

/// Where a formula with a division would give NaN.
#[test]
fn products_with_zeros() -> Result<()> {
    for data in [[0.0, 2.0, 3.0], [0.0, 0.0, 3.0], [0.0, 0.0, 0.0]] {
        let x = Tensor::new([data], &Device::cpu())?.requires_grad_(true)?;
        check("prod", &|x| Ok(vec![x[0].prod()?, x[0].prod_dim(1, false)?]), &[x]);
    }
    Ok(())
}

#[test]
fn subgradients() -> Result<()> {
    let gradient = |data: &[f32], function: &dyn Fn(&Tensor) -> Result<Tensor>| -> Result<Vec<f32>> {
        let x = Tensor::from_slice(data, data.len(), &Device::cpu())?.requires_grad_(true)?;
        function(&x)?.sum()?.backward()?;
        x.grad().unwrap().to_vec()
    };
    assert_eq!(gradient(&[0.0], &|x| x.relu())?, [0.0]);
    assert_eq!(gradient(&[0.0], &|x| x.abs())?, [0.0]);
    assert_eq!(gradient(&[0.0], &|x| x.sqrt())?, [f32::INFINITY]);
    assert_eq!(gradient(&[2.0, 1.0, 2.0], &|x| x.max())?, [0.5, 0.0, 0.5]);
    assert_eq!(gradient(&[2.0, 1.0, 2.0], &|x| x.amax(0, false))?, [0.5, 0.0, 0.5]);
    assert_eq!(gradient(&[2.0, 1.0, 2.0], &|x| Ok(x.max_dim(0, false)?.0))?, [1.0, 0.0, 0.0]);
    assert_eq!(gradient(&[1.0, 2.0], &|x| x.maximum(&Tensor::ones([2], Device::cpu())?))?, [0.5, 1.0]);
    assert_eq!(gradient(&[0.0, 0.5, 1.0], &|x| x.clamp(0.0, 1.0))?, [0.0, 1.0, 0.0]);
    assert_eq!(gradient(&[0.0, 2.0], &|x| x.pow(0.0))?, [0.0, 0.0]);
    assert_eq!(gradient(&[3.0, 3.0], &|x| x.std())?, [0.0, 0.0]);
    Ok(())
}

#[test]
fn views_and_joins() {
    type View = fn(&Tensor) -> Result<Tensor>;
    let views: [(&str, View); 23] = [
        ("reshape", |x| x.reshape([3, -1])),
        ("reshape with a copy", |x| x.transpose(0, 2)?.reshape([-1])),
        ("view", |x| x.contiguous()?.view([12, 2])),
        ("flatten", |x| x.flatten(1, -1)),
        ("unflatten", |x| x.unflatten(-1, [2, 2])),
        ("permute", |x| x.permute([2, 0, 1])),
        ("transpose", |x| x.transpose(0, -1)),
        ("mt", |x| x.mt()),
        ("expand", |x| x.unsqueeze(1)?.expand([2, 3, -1, -1])),
        ("broadcast_to", |x| x.broadcast_to([2, 2, 3, 4])),
        ("squeeze", |x| x.unsqueeze(0)?.unsqueeze(-1)?.squeeze()),
        ("squeeze_dim", |x| x.unsqueeze(0)?.squeeze_dim([0, 1])),
        ("narrow", |x| x.narrow(2, 1, 2)),
        ("slice", |x| x.slice(2, 1, None, 2)),
        ("select", |x| x.select(1, -1)),
        ("diagonal", |x| x.diagonal(1, 2, 1)),
        ("diagonal below", |x| x.diagonal(-1, 0, 2)),
        ("unfold", |x| x.unfold(2, 2, 1)),
        ("flip", |x| x.flip([0, 2])),
        ("tril", |x| x.tril(0)),
        ("triu", |x| x.triu(-1)),
        ("repeat", |x| x.repeat([2, 1, 2, 3])),
        ("pad", |x| x.pad(&[(1, -1), (0, 2)], 5.0)),
    ];
    for (name, view) in views {
        check(name, &|x| Ok(vec![view(&x[0])?.square()?]), &[leaf(&[2, 3, 4], -2.0, 2.0, 5)]);
        check(name, &|x| Ok(vec![view(&x[0].permute([2, 1, 0])?)?]), &[leaf(&[4, 3, 2], -2.0, 2.0, 5)]);
    }
    let pieces: [(&str, Split); 4] = [
        ("split", |x| x.split(2, 1)),
        ("split_with_sizes", |x| x.split_with_sizes(&[1, 0, 2], 1)),
        ("chunk", |x| x.chunk(2, 1)),
        ("unbind", |x| x.unbind(0)),
    ];
    for (name, split) in pieces {
        check(name, &|x| split(&x[0]), &[leaf(&[2, 3], -2.0, 2.0, 6)]);
        check(name, &|x| Ok(vec![split(&x[0])?.remove(1).exp()?]), &[leaf(&[2, 3], -2.0, 2.0, 6)]);
    }
    let two = [leaf(&[2, 3], -2.0, 2.0, 7), leaf(&[2, 3], -2.0, 2.0, 8)];
    check("cat", &|x| Ok(vec![Tensor::cat(&[&x[0], &x[1], &x[0]], 1)?.square()?]), &two);
    check("stack", &|x| Ok(vec![Tensor::stack(&[&x[0], &x[1]], -1)?.square()?]), &two);
}

#[test]
fn products() {
    let shapes: [(&[usize], &[usize]); 9] = [
        (&[3], &[3]),
        (&[2, 3], &[3]),
        (&[3], &[3, 2]),
        (&[2, 3], &[3, 4]),
        (&[2, 2, 3], &[3, 2]),
        (&[2, 2, 3], &[3]),
        (&[3], &[2, 3, 2]),
        (&[2, 1, 2, 3], &[2, 3, 2]),
        (&[2, 0], &[0, 3]),
    ];
    for (left, right) in shapes {
        let inputs = [leaf(left, -2.0, 2.0, 1), leaf(right, -2.0, 2.0, 2)];
        check("matmul", &|x| Ok(vec![x[0].matmul(&x[1])?]), &inputs);
    }
    let transposed = [leaf(&[3, 2], -2.0, 2.0, 1), leaf(&[4, 3], -2.0, 2.0, 2)];
    check("matmul", &|x| Ok(vec![x[0].t()?.matmul(&x[1].t()?)?]), &transposed);
    for shape in [&[3][..], &[2, 3], &[2, 2, 3]] {
        let inputs = [leaf(shape, -2.0, 2.0, 1), leaf(&[4, 3], -2.0, 2.0, 2), leaf(&[4], -2.0, 2.0, 3)];
        check("linear", &|x| Ok(vec![x[0].linear(&x[1], &x[2])?]), &inputs);
        check("linear", &|x| Ok(vec![x[0].linear(&x[1], None)?]), &inputs[..2]);
    }
}

#[test]
fn indexing() -> Result<()> {
    let index = Tensor::new([[0i64, 2, 1], [1, 1, 0]], &Device::cpu())?;
    let list = Tensor::new([2i64, 0, 2], &Device::cpu())?;
    let x = || leaf(&[3, 3], -2.0, 2.0, 1);
    check("gather", &|x| Ok(vec![x[0].gather(0, &index)?]), &[x()]);
    check("gather", &|x| Ok(vec![x[0].t()?.gather(1, &index)?.square()?]), &[x()]);
    let pair = [x(), leaf(&[3, 3], -2.0, 2.0, 2)];
    check("scatter_add", &|x| Ok(vec![x[0].scatter_add(0, &index, &x[1])?.square()?]), &pair);
    let once = Tensor::new([[0i64, 2, 1], [1, 0, 2]], &Device::cpu())?;
    check("scatter", &|x| Ok(vec![x[0].scatter(0, &once, &x[1])?.square()?]), &pair);
    check("index_select", &|x| Ok(vec![x[0].index_select(1, &list)?.square()?]), &[x()]);
    check("index_add", &|x| Ok(vec![x[0].index_add(0, &list, &x[1])?.square()?]), &pair);
    check("embedding", &|x| Ok(vec![index.embedding(&x[0], None)?.square()?]), &[x()]);
    let padded = leaf(&[3, 3], -2.0, 2.0, 1);
    index.embedding(&padded, -2)?.sum()?.backward()?;
    assert_eq!(padded.grad().unwrap().select(0, 1)?.to_vec::<f64>()?, [0.0; 3]);
    Ok(())
}

#[test]
fn normalisations_and_losses() -> Result<()> {
    let x = || leaf(&[3, 4], -2.0, 2.0, 1);
    for dim in [0, -1] {
        check("softmax", &|x| Ok(vec![x[0].softmax(dim)?]), &[x()]);
        check("log_softmax", &|x| Ok(vec![x[0].t()?.log_softmax(dim)?]), &[x()]);
    }
    let affine = [x(), leaf(&[4], 0.5, 2.0, 2), leaf(&[4], -1.0, 1.0, 3)];
    check("layer_norm", &|x| Ok(vec![x[0].layer_norm(4, &x[1], &x[2], 1e-5)?]), &affine);
    check("layer_norm", &|x| Ok(vec![x[0].layer_norm([3, 4], None, None, 1e-5)?]), &affine[..1]);
    let two = [x(), leaf(&[3, 4], 0.1, 0.9, 5)];
    let classes = Tensor::new([1i64, 3, 0], &Device::cpu())?;
    let ignoring = Tensor::new([1i64, -100, 0], &Device::cpu())?;
    let weight = Tensor::new([0.5f64, 1.0, 2.0, 1.5], &Device::cpu())?;
    for reduction in [Reduction::Mean, Reduction::Sum, Reduction::None] {
        check("mse_loss", &|x| Ok(vec![x[0].mse_loss(&x[1], reduction)?]), &two);
        check("l1_loss", &|x| Ok(vec![x[0].l1_loss(&x[1], reduction)?]), &two);
        check(
            "bce",
            &|x| Ok(vec![x[0].binary_cross_entropy_with_logits(&x[1], None, None, reduction)?]),
            &two,
        );
        let weighted = |x: &[Tensor]| {
            Ok(vec![x[0].binary_cross_entropy_with_logits(&x[1], &weight, &weight.mul(1.3)?, reduction)?])
        };
        check("bce with weights", &weighted, &two);
        for label_smoothing in [0.0, 0.2] {
            let options = CrossEntropyOptions {
                weight: Some(weight.clone()),
                label_smoothing,
                reduction,
                ..Default::default()
            };
            check("cross_entropy", &|x| Ok(vec![x[0].cross_entropy_with(&classes, &options)?]), &[x()]);
            check(
                "cross_entropy, one ignored",
                &|x| Ok(vec![x[0].cross_entropy_with(&ignoring, &options)?]),
                &[x()],
            );
            check(
                "cross_entropy with probabilities",
                &|x| Ok(vec![x[0].cross_entropy_with(&x[1], &options)?]),
                &two,
            );
        }
    }
    Ok(())
}

#[test]
fn writing_in_place() {
    let inputs = [leaf(&[3, 4], 0.5, 2.0, 1), leaf(&[4], 0.5, 2.0, 2)];
    let through_views = |x: &[Tensor]| {
        let base = x[0].mul(1.5)?;
        base.select(0, 1)?.mul_(&x[1])?;
        base.t()?.narrow(0, 1, 2)?.exp_()?;
        base.diagonal(0, 0, 1)?.copy_(&x[1].narrow(0, 0, 3)?)?;
        base.slice(1, 0, None, 2)?.div_(&base.slice(1, 1, None, 2)?)?;
        base.square_()?;
        Ok(vec![base.clone(), base.select(1, 2)?])
    };
    check("in place", &through_views, &inputs);
}
