//! Initial values of parameters: `torch.nn.init`. Each function writes to a tensor in place, without
//! recording it, and returns it.

use wgrad_autograd::{DType, Device, Error, QrMode, Result, Tensor, no_grad};

/// What follows a layer, as far as the size of its weights depends on it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Nonlinearity {
    /// Nothing, or another product.
    Linear,
    /// `sigmoid`.
    Sigmoid,
    /// `tanh`.
    Tanh,
    /// `relu`.
    ReLU,
    /// `leaky_relu` with this negative slope; PyTorch's default is 0.01.
    LeakyReLU(f64),
    /// `selu`.
    SELU,
}

/// By what the variance of the weights is divided: what is kept alike from layer to layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fan {
    /// The number of inputs of an output: values keep their size forward.
    #[default]
    In,
    /// The number of outputs of an input: gradients keep their size backward.
    Out,
}

/// The settings of [`kaiming_uniform_`] and [`kaiming_normal_`].
///
/// ```
/// use wgrad::Tensor;
/// use wgrad::nn::init::{Fan, Kaiming, Nonlinearity, kaiming_normal_};
/// let weight = Tensor::empty([64, 32], &wgrad::Device::cpu())?;
/// kaiming_normal_(&weight, &Kaiming::new().fan(Fan::Out).nonlinearity(Nonlinearity::ReLU))?;
/// let std = weight.std()?.item::<f64>()?;
/// assert!((std - (2.0f64 / 64.0).sqrt()).abs() < 0.02);
/// # Ok::<(), wgrad::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Kaiming {
    fan: Fan,
    nonlinearity: Nonlinearity,
}

impl Kaiming {
    /// PyTorch's defaults: the fan in, and a leaky ReLU with slope 0.
    pub fn new() -> Kaiming {
        Kaiming { fan: Fan::In, nonlinearity: Nonlinearity::LeakyReLU(0.0) }
    }

    /// Which fan; `mode`.
    pub fn fan(mut self, fan: Fan) -> Self {
        self.fan = fan;
        self
    }

    /// What follows; `nonlinearity` and, for a leaky ReLU, `a`.
    pub fn nonlinearity(mut self, nonlinearity: Nonlinearity) -> Self {
        self.nonlinearity = nonlinearity;
        self
    }

    /// The standard deviation for a weight.
    fn std(&self, op: &'static str, weight: &Tensor) -> Result<f64> {
        let (fan_in, fan_out) = fans(op, weight)?;
        let fan = if self.fan == Fan::In { fan_in } else { fan_out };
        Ok(calculate_gain(self.nonlinearity) / (fan as f64).sqrt())
    }
}

impl Default for Kaiming {
    fn default() -> Self {
        Kaiming::new()
    }
}

/// The factor by which weights are larger because of what follows; `calculate_gain`.
///
/// ```
/// use wgrad::nn::init::{Nonlinearity, calculate_gain};
/// assert_eq!(calculate_gain(Nonlinearity::Tanh), 5.0 / 3.0);
/// ```
pub fn calculate_gain(nonlinearity: Nonlinearity) -> f64 {
    match nonlinearity {
        Nonlinearity::Linear | Nonlinearity::Sigmoid => 1.0,
        Nonlinearity::Tanh => 5.0 / 3.0,
        Nonlinearity::ReLU => 2f64.sqrt(),
        Nonlinearity::LeakyReLU(slope) => (2.0 / (1.0 + slope * slope)).sqrt(),
        Nonlinearity::SELU => 0.75,
    }
}

/// How many inputs an output of a weight `[outputs, inputs, window..]` has, and how many outputs an input.
fn fans(op: &'static str, weight: &Tensor) -> Result<(usize, usize)> {
    let [outputs, inputs, window @ ..] = weight.shape() else {
        let reason = "has fewer than two dims, so it has no inputs and outputs".to_owned();
        return Err(Error::Shape { op, shape: weight.shape().to_vec(), reason });
    };
    let field: usize = window.iter().product();
    Ok((inputs * field, outputs * field))
}

/// Writes to a tensor without recording it.
fn put(tensor: &Tensor, value: impl FnOnce() -> Result<Tensor>) -> Result<Tensor> {
    no_grad(|| tensor.copy_(&value()?))
}

/// Uniform numbers in `low..high`; PyTorch's defaults are 0 and 1.
///
/// ```
/// use wgrad::{Tensor, nn::init};
/// let weight = init::uniform_(&Tensor::empty([3, 4], &wgrad::Device::cpu())?, -0.5, 0.5)?;
/// assert!(weight.abs()?.max()?.item::<f32>()? <= 0.5);
/// # Ok::<(), wgrad::Error>(())
/// ```
///
/// # Errors
/// If the tensor does not hold floats, or the range is empty.
pub fn uniform_(tensor: &Tensor, low: f64, high: f64) -> Result<Tensor> {
    no_grad(|| tensor.uniform_(low, high))
}

/// Numbers of a normal distribution; PyTorch's defaults are 0 and 1.
///
/// ```
/// use wgrad::{Tensor, nn::init};
/// let weight = init::normal_(&Tensor::empty(10_000, &wgrad::Device::cpu())?, 0.0, 0.02)?;
/// assert!((weight.std()?.item::<f32>()? - 0.02).abs() < 0.002);
/// # Ok::<(), wgrad::Error>(())
/// ```
///
/// # Errors
/// If the tensor does not hold floats, or the deviation is negative.
pub fn normal_(tensor: &Tensor, mean: f64, std: f64) -> Result<Tensor> {
    no_grad(|| tensor.normal_(mean, std))
}

/// Numbers of a normal distribution of which those outside of `low..=high` are left out; PyTorch's defaults
/// are 0, 1, -2 and 2.
///
/// ```
/// use wgrad::{Tensor, nn::init};
/// let weight = init::trunc_normal_(&Tensor::empty(1000, &wgrad::Device::cpu())?, 0.0, 1.0, -2.0, 2.0)?;
/// assert!(weight.abs()?.max()?.item::<f32>()? <= 2.0);
/// # Ok::<(), wgrad::Error>(())
/// ```
///
/// # Errors
/// If the tensor does not hold floats, the deviation is not positive, or the bounds are not in order.
pub fn trunc_normal_(tensor: &Tensor, mean: f64, std: f64, low: f64, high: f64) -> Result<Tensor> {
    const OP: &str = "trunc_normal_";
    if !(std > 0.0 && low < high && mean.is_finite()) {
        let reason = format!(
            "there is no normal distribution with mean {mean} and deviation {std} between {low} and {high}"
        );
        return Err(Error::Argument { op: OP, reason });
    }
    // What part of the distribution, from -1 to 1, lies below the bounds.
    let bounds = [(low - mean) / std / 2f64.sqrt(), (high - mean) / std / 2f64.sqrt()];
    let parts = Tensor::new(bounds, (DType::F64, &Device::cpu()))?.erf()?.to_vec::<f64>()?;
    let &[first, last] = parts.as_slice() else { return Ok(tensor.clone()) };
    // At -1 and 1 themselves the quantile is infinite.
    let edge = 1.0 - 2f64.powi(-24);
    put(tensor, || {
        let part = Tensor::rand(tensor.shape(), tensor.device())?.mul(last - first)?.add(first)?;
        let quantile = part.clamp(-edge, edge)?.erfinv()?.mul(std * 2f64.sqrt())?.add(mean)?;
        quantile.clamp(low, high)
    })
}

/// One number everywhere.
///
/// ```
/// use wgrad::{Tensor, nn::init};
/// let bias = init::constant_(&Tensor::empty(2, &wgrad::Device::cpu())?, 0.25)?;
/// assert_eq!(bias.to_vec::<f32>()?, [0.25, 0.25]);
/// # Ok::<(), wgrad::Error>(())
/// ```
///
/// # Errors
/// If the tensor cannot hold the number.
pub fn constant_(tensor: &Tensor, value: f64) -> Result<Tensor> {
    no_grad(|| tensor.fill_(value))
}

/// Ones.
///
/// ```
/// use wgrad::{Tensor, nn::init};
/// let x = init::ones_(&Tensor::empty([2, 2], &wgrad::Device::cpu())?)?;
/// assert_eq!(x.to_vec::<f32>()?, [1.0; 4]);
/// # Ok::<(), wgrad::Error>(())
/// ```
///
/// # Errors
/// If the device fails.
pub fn ones_(tensor: &Tensor) -> Result<Tensor> {
    no_grad(|| tensor.fill_(1))
}

/// Zeros.
///
/// ```
/// use wgrad::{Tensor, nn::init};
/// let x = init::zeros_(&Tensor::empty([2, 2], &wgrad::Device::cpu())?)?;
/// assert_eq!(x.to_vec::<f32>()?, [0.0; 4]);
/// # Ok::<(), wgrad::Error>(())
/// ```
///
/// # Errors
/// If the device fails.
pub fn zeros_(tensor: &Tensor) -> Result<Tensor> {
    no_grad(|| tensor.zero_())
}

/// A matrix with ones on its diagonal, the identity of a linear layer.
///
/// ```
/// use wgrad::{Tensor, nn::init};
/// let x = init::eye_(&Tensor::empty([2, 2], &wgrad::Device::cpu())?)?;
/// assert_eq!(x.to_vec::<f32>()?, [1.0, 0.0, 0.0, 1.0]);
/// # Ok::<(), wgrad::Error>(())
/// ```
///
/// # Errors
/// If the tensor does not have two dims.
pub fn eye_(tensor: &Tensor) -> Result<Tensor> {
    let &[rows, columns] = tensor.shape() else {
        let reason = "is not a matrix".to_owned();
        return Err(Error::Shape { op: "eye_", shape: tensor.shape().to_vec(), reason });
    };
    put(tensor, || Tensor::eye(rows, columns, tensor.device()))
}

/// The identity of a convolution, as far as there are channels: a one in the middle of the windows that lead
/// from a channel to itself, in each of `groups` groups of output channels. PyTorch's default is one group.
///
/// ```
/// use wgrad::{Tensor, nn::init};
/// let weight = init::dirac_(&Tensor::empty([2, 2, 3], &wgrad::Device::cpu())?, 1)?;
/// assert_eq!(weight.to_vec::<f32>()?, [0., 1., 0., 0., 0., 0., 0., 0., 0., 0., 1., 0.]);
/// # Ok::<(), wgrad::Error>(())
/// ```
///
/// # Errors
/// If the tensor is not the weight of a convolution over one to three dims, or the groups do not divide its
/// output channels.
pub fn dirac_(tensor: &Tensor, groups: usize) -> Result<Tensor> {
    const OP: &str = "dirac_";
    let shape = tensor.shape();
    let fail = |reason: &str| Error::Shape { op: OP, shape: shape.to_vec(), reason: reason.to_owned() };
    let [outputs, inputs, window @ ..] = shape else {
        return Err(fail("is not that of a convolution: it needs three to five dims"));
    };
    if window.is_empty() || window.len() > 3 {
        return Err(fail("is not that of a convolution: it needs three to five dims"));
    }
    if groups == 0 || outputs % groups != 0 {
        return Err(fail("has a number of output channels that the groups do not divide"));
    }
    let field: usize = window.iter().product();
    let centre = window.iter().fold(0, |at, &size| at * size + size / 2);
    let mut values = vec![0f32; tensor.numel()];
    for output in 0..*outputs {
        let channel = output % (outputs / groups);
        if channel < *inputs
            && let Some(value) = values.get_mut((output * inputs + channel) * field + centre)
        {
            *value = 1.0;
        }
    }
    put(tensor, || Tensor::from_slice(&values, shape, tensor.device()))
}

/// Uniform numbers whose size keeps values and gradients alike, after Glorot and Bengio (2010); PyTorch's
/// default gain is 1.
///
/// ```
/// use wgrad::{Tensor, nn::init};
/// let x = init::xavier_uniform_(&Tensor::empty([2, 4], &wgrad::Device::cpu())?, 1.0)?;
/// assert!(x.abs()?.max()?.item::<f32>()? <= 1.0);
/// # Ok::<(), wgrad::Error>(())
/// ```
///
/// # Errors
/// If the tensor has fewer than two dims or does not hold floats.
pub fn xavier_uniform_(tensor: &Tensor, gain: f64) -> Result<Tensor> {
    let (fan_in, fan_out) = fans("xavier_uniform_", tensor)?;
    symmetric(tensor, gain * (6.0 / (fan_in + fan_out) as f64).sqrt())
}

/// Normal numbers whose size keeps values and gradients alike, after Glorot and Bengio (2010); PyTorch's
/// default gain is 1.
///
/// ```
/// use wgrad::{Tensor, nn::init};
/// let x = init::xavier_normal_(&Tensor::empty([50, 50], &wgrad::Device::cpu())?, 1.0)?;
/// assert!((x.std()?.item::<f64>()? - 0.02f64.sqrt()).abs() < 0.02);
/// # Ok::<(), wgrad::Error>(())
/// ```
///
/// # Errors
/// If the tensor has fewer than two dims or does not hold floats.
pub fn xavier_normal_(tensor: &Tensor, gain: f64) -> Result<Tensor> {
    let (fan_in, fan_out) = fans("xavier_normal_", tensor)?;
    spread(tensor, gain * (2.0 / (fan_in + fan_out) as f64).sqrt())
}

/// Uniform numbers whose size keeps values alike behind rectifiers, after He et al. (2015).
///
/// ```
/// use wgrad::{Tensor, nn::init};
/// let x = Tensor::empty([3, 6], &wgrad::Device::cpu())?;
/// init::kaiming_uniform_(&x, &init::Kaiming::new())?;
/// assert!(x.abs()?.max()?.item::<f32>()? <= 1.0);
/// # Ok::<(), wgrad::Error>(())
/// ```
///
/// # Errors
/// If the tensor has fewer than two dims or does not hold floats.
pub fn kaiming_uniform_(tensor: &Tensor, options: &Kaiming) -> Result<Tensor> {
    symmetric(tensor, 3f64.sqrt() * options.std("kaiming_uniform_", tensor)?)
}

/// Normal numbers whose size keeps values alike behind rectifiers, after He et al. (2015).
///
/// ```
/// use wgrad::{Tensor, nn::init};
/// let x = Tensor::empty([50, 50], &wgrad::Device::cpu())?;
/// init::kaiming_normal_(&x, &init::Kaiming::new())?;
/// assert!((x.std()?.item::<f64>()? - 0.2).abs() < 0.02);
/// # Ok::<(), wgrad::Error>(())
/// ```
///
/// # Errors
/// If the tensor has fewer than two dims or does not hold floats.
pub fn kaiming_normal_(tensor: &Tensor, options: &Kaiming) -> Result<Tensor> {
    spread(tensor, options.std("kaiming_normal_", tensor)?)
}

/// Uniform numbers between `-bound` and `bound`; nothing to do for an empty tensor, whose fans may be 0.
pub(crate) fn symmetric(tensor: &Tensor, bound: f64) -> Result<Tensor> {
    if tensor.numel() == 0 { Ok(tensor.clone()) } else { uniform_(tensor, -bound, bound) }
}

fn spread(tensor: &Tensor, std: f64) -> Result<Tensor> {
    if tensor.numel() == 0 { Ok(tensor.clone()) } else { normal_(tensor, 0.0, std) }
}

/// A random matrix with orthogonal rows or columns, whichever are fewer, of norm `gain`: all dims but the
/// first count as columns. After Saxe et al. (2014); PyTorch's default gain is 1.
///
/// ```
/// use wgrad::{Tensor, nn::init};
/// let weight = init::orthogonal_(&Tensor::empty([2, 3], &wgrad::Device::cpu())?, 1.0)?;
/// let products = weight.matmul(&weight.t()?)?.sub(&Tensor::eye(2, 2, &wgrad::Device::cpu())?)?;
/// assert!(products.abs()?.max()?.item::<f32>()? < 1e-5);
/// # Ok::<(), wgrad::Error>(())
/// ```
///
/// # Errors
/// If the tensor has fewer than two dims.
pub fn orthogonal_(tensor: &Tensor, gain: f64) -> Result<Tensor> {
    let [rows, rest @ ..] = tensor.shape() else {
        let reason = "has fewer than two dims".to_owned();
        return Err(Error::Shape { op: "orthogonal_", shape: Vec::new(), reason });
    };
    if rest.is_empty() {
        let reason = "has fewer than two dims".to_owned();
        return Err(Error::Shape { op: "orthogonal_", shape: vec![*rows], reason });
    }
    let columns: usize = rest.iter().product();
    if rows * columns == 0 {
        return Ok(tensor.clone());
    }
    put(tensor, || {
        let normal =
            Tensor::randn([*rows.max(&columns), *rows.min(&columns)], (DType::F32, tensor.device()))?;
        let (q, r) = normal.qr(QrMode::Reduced)?;
        // With r's diagonal made positive the matrix is uniform among all orthogonal ones.
        let q = q.mul(r.diagonal(0, 0, 1)?.sign()?)?;
        let q = if *rows < columns { q.t()? } else { q };
        q.reshape(tensor.shape())?.mul(gain)
    })
}

/// A matrix of which a part of each column, rounded up, are zeros at random places, and the rest normal
/// numbers, after Martens (2010). PyTorch's default deviation is 0.01.
///
/// ```
/// use wgrad::{Tensor, nn::init};
/// let weight = init::sparse_(&Tensor::empty([10, 3], &wgrad::Device::cpu())?, 0.25, 0.01)?;
/// assert_eq!(weight.count_nonzero(0)?.to_vec::<i64>()?, [7, 7, 7]);
/// # Ok::<(), wgrad::Error>(())
/// ```
///
/// # Errors
/// If the tensor does not have two dims, or the part is not between 0 and 1.
pub fn sparse_(tensor: &Tensor, sparsity: f64, std: f64) -> Result<Tensor> {
    const OP: &str = "sparse_";
    let &[rows, _] = tensor.shape() else {
        let reason = "is not a matrix".to_owned();
        return Err(Error::Shape { op: OP, shape: tensor.shape().to_vec(), reason });
    };
    if !(0.0..=1.0).contains(&sparsity) {
        let reason = format!("the part of zeros is {sparsity}; it must lie between 0 and 1");
        return Err(Error::Argument { op: OP, reason });
    }
    let zeros = (sparsity * rows as f64).ceil();
    put(tensor, || {
        let place = Tensor::rand(tensor.shape(), tensor.device())?.argsort(0, false)?.argsort(0, false)?;
        let normal = Tensor::randn(tensor.shape(), tensor.device())?.mul(std)?;
        normal.masked_fill(&place.lt(zeros)?, 0)
    })
}
