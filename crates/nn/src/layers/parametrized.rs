//! Layers whose weight is computed from other parameters: [`WeightNorm`] and [`SpectralNorm`]. Names are
//! those of `torch.nn.utils.parametrizations`.

use wgrad_autograd::{Error, Result, Tensor, no_grad};

use crate::{Layer, Module, Training, Value, Visitor, Walk};

/// The name of the weight that is computed.
const WEIGHT: &str = "weight";

/// The weight of a layer.
fn weight_of(op: &'static str, layer: &dyn Module) -> Result<Tensor> {
    let found = layer.named_parameters().into_iter().find(|(path, _)| path == WEIGHT);
    found.map(|(_, weight)| weight).ok_or_else(|| Error::Argument {
        op,
        reason: format!("a {} has no parameter {WEIGHT:?}", layer.type_name()),
    })
}

/// Puts another weight into a layer.
fn put(layer: &mut dyn Module, weight: Tensor) {
    struct Put(Tensor);
    impl Visitor for Put {
        fn value(&mut self, path: &str, value: Value<'_>) {
            if let (WEIGHT, Value::Tensor(_, tensor)) = (path, value) {
                *tensor = self.0.clone();
            }
        }
    }
    layer.visit_mut(&mut Walk::new(&mut Put(weight)));
}

/// The layer without a weight of its own.
fn emptied<L: Module + Clone>(layer: &L, weight: &Tensor) -> Result<L> {
    let mut layer = layer.clone();
    put(&mut layer, Tensor::zeros(0, (weight.dtype(), weight.device()))?);
    Ok(layer)
}

/// What the layer computes with a weight.
fn forward_with<L: Layer + Clone>(layer: &L, weight: Tensor, input: &Tensor) -> Result<Tensor> {
    let mut layer = layer.clone();
    put(&mut layer, weight);
    layer.forward(input)
}

/// A dim counted from the front.
fn dim_of(op: &'static str, weight: &Tensor, dim: isize) -> Result<usize> {
    let rank = weight.rank();
    let front = if dim < 0 { dim.checked_add_unsigned(rank) } else { Some(dim) };
    let front = front.and_then(|dim| usize::try_from(dim).ok()).filter(|&dim| dim < rank);
    front.ok_or(Error::Dim { op, dim, rank })
}

/// A layer whose weight is a direction times a length for each index of a dim, after Salimans and Kingma
/// (2016); `torch.nn.utils.parametrizations.weight_norm`.
///
/// ```
/// use wgrad::nn::{Layer, Linear, Module, WeightNorm};
/// use wgrad::{Device, Tensor};
/// let device = Device::cpu();
/// let linear = Linear::new(4, 2, &device)?;
/// let x = Tensor::ones([3, 4], &device)?;
/// let layer = WeightNorm::new(&linear, 0)?;
/// let off = layer.forward(&x)?.sub(linear.forward(&x)?)?.abs()?.max()?.item::<f32>()?;
/// assert!(off < 1e-5);
/// assert_eq!(layer.named_parameters()[1].0, "parametrizations.weight.original0");
/// # Ok::<(), wgrad::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct WeightNorm<L> {
    layer: L,
    /// The lengths, of size 1 in all dims but one.
    length: Tensor,
    direction: Tensor,
    dim: usize,
}

impl<L: Layer + Clone> WeightNorm<L> {
    /// With the lengths and directions of a layer's weight; PyTorch's default dim is 0.
    ///
    /// # Errors
    /// If the layer has no parameter `weight`, or that no such dim.
    pub fn new(layer: &L, dim: isize) -> Result<WeightNorm<L>> {
        let weight = weight_of("WeightNorm", layer)?;
        let dim = dim_of("WeightNorm", &weight, dim)?;
        let own = |x: Tensor| x.deep_clone()?.requires_grad_(weight.requires_grad());
        let (length, direction) =
            no_grad(|| Ok::<_, Error>((own(lengths(&weight, dim)?)?, own(weight.detach())?)))?;
        Ok(WeightNorm { layer: emptied(layer, &weight)?, length, direction, dim })
    }

    /// The weight.
    ///
    /// # Errors
    /// If the device fails.
    pub fn weight(&self) -> Result<Tensor> {
        self.direction.mul(self.length.div(lengths(&self.direction, self.dim)?)?)
    }
}

/// The 2-norms over all dims but one, which keep their places.
fn lengths(weight: &Tensor, dim: usize) -> Result<Tensor> {
    let others: Vec<usize> = (0..weight.rank()).filter(|&other| other != dim).collect();
    if others.is_empty() { weight.abs() } else { weight.vector_norm(2.0, others, true) }
}

impl<L: Layer + Clone> Layer for WeightNorm<L> {
    fn forward(&self, input: &Tensor) -> Result<Tensor> {
        forward_with(&self.layer, self.weight()?, input)
    }
}

impl<L: Layer + Clone> Module for WeightNorm<L> {
    fn visit(&self, walk: &mut Walk<'_>) {
        walk.hiding(WEIGHT, |walk| self.layer.visit(walk));
        walk.field("parametrizations.weight.original0", &self.length);
        walk.field("parametrizations.weight.original1", &self.direction);
    }

    fn visit_mut(&mut self, walk: &mut Walk<'_>) {
        walk.hiding(WEIGHT, |walk| self.layer.visit_mut(walk));
        walk.field_mut("parametrizations.weight.original0", &mut self.length);
        walk.field_mut("parametrizations.weight.original1", &mut self.direction);
    }

    fn type_name(&self) -> &'static str {
        self.layer.type_name()
    }
}

/// A layer whose weight is divided by its largest singular value, found by a step of power iteration at each
/// forward in training, after Miyato et al. (2018); `torch.nn.utils.parametrizations.spectral_norm`.
///
/// ```
/// use wgrad::nn::{Linear, SpectralNorm};
/// let layer = SpectralNorm::new(&Linear::new(4, 3, &wgrad::Device::cpu())?, 0)?;
/// let largest = layer.weight()?.svdvals()?.max()?.item::<f32>()?;
/// assert!((largest - 1.0).abs() < 0.05);
/// # Ok::<(), wgrad::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct SpectralNorm<L> {
    layer: L,
    original: Tensor,
    /// The singular vectors of the largest value.
    left: Tensor,
    right: Tensor,
    dim: usize,
    iterations: usize,
    training: Training,
}

/// What norms are taken to be at least.
const EPS: f64 = 1e-12;

impl<L: Layer + Clone> SpectralNorm<L> {
    /// Of a layer's weight as a matrix whose rows are those of a dim; PyTorch's default dim is 0, for
    /// transposed convolutions 1.
    ///
    /// # Errors
    /// If the layer has no parameter `weight`, or that fewer than two dims, or not this one.
    pub fn new(layer: &L, dim: isize) -> Result<SpectralNorm<L>> {
        const OP: &str = "SpectralNorm";
        let weight = weight_of(OP, layer)?;
        let dim = dim_of(OP, &weight, dim)?;
        if weight.rank() < 2 {
            let reason = "has fewer than two dims".to_owned();
            return Err(Error::Shape { op: OP, shape: weight.shape().to_vec(), reason });
        }
        let requires_grad = weight.requires_grad();
        let original = no_grad(|| weight.detach().deep_clone())?.requires_grad_(requires_grad)?;
        let rows = original.size(dim as isize)?;
        let random =
            |size: usize| Tensor::randn(size, (weight.dtype(), weight.device()))?.normalize(2.0, 0, EPS);
        let layer = SpectralNorm {
            layer: emptied(layer, &weight)?,
            left: random(rows)?,
            right: random(original.numel() / rows.max(1))?,
            original,
            dim,
            iterations: 1,
            training: Training::default(),
        };
        layer.iterate(15)?;
        Ok(layer)
    }

    /// How many steps of power iteration a forward in training takes; 1.
    pub fn iterations(mut self, iterations: usize) -> Self {
        self.iterations = iterations;
        self
    }

    fn matrix(&self) -> Result<Tensor> {
        self.original.movedim(self.dim, 0)?.flatten(1, -1)
    }

    fn iterate(&self, steps: usize) -> Result<()> {
        no_grad(|| {
            let matrix = self.matrix()?;
            for _ in 0..steps {
                self.left.copy_(&matrix.mv(&self.right)?.normalize(2.0, 0, EPS)?)?;
                self.right.copy_(&matrix.t()?.mv(&self.left)?.normalize(2.0, 0, EPS)?)?;
            }
            Ok(())
        })
    }

    /// The weight. In training the singular vectors are brought up to date first.
    ///
    /// # Errors
    /// If the device fails.
    pub fn weight(&self) -> Result<Tensor> {
        if self.training.get() {
            self.iterate(self.iterations)?;
        }
        let (left, right) = no_grad(|| Ok::<_, Error>((self.left.deep_clone()?, self.right.deep_clone()?)))?;
        self.original.div(left.dot(&self.matrix()?.mv(&right)?)?)
    }
}

impl<L: Layer + Clone> Layer for SpectralNorm<L> {
    fn forward(&self, input: &Tensor) -> Result<Tensor> {
        forward_with(&self.layer, self.weight()?, input)
    }
}

impl<L: Layer + Clone> Module for SpectralNorm<L> {
    fn visit(&self, walk: &mut Walk<'_>) {
        walk.hiding(WEIGHT, |walk| self.layer.visit(walk));
        walk.field("parametrizations.weight.original", &self.original);
        walk.buffer("parametrizations.weight.0._u", false, &self.left);
        walk.buffer("parametrizations.weight.0._v", false, &self.right);
        self.training.visit(walk);
    }

    fn visit_mut(&mut self, walk: &mut Walk<'_>) {
        walk.hiding(WEIGHT, |walk| self.layer.visit_mut(walk));
        walk.field_mut("parametrizations.weight.original", &mut self.original);
        walk.buffer_mut("parametrizations.weight.0._u", false, &mut self.left);
        walk.buffer_mut("parametrizations.weight.0._v", false, &mut self.right);
        self.training.visit_mut(walk);
    }

    fn type_name(&self) -> &'static str {
        self.layer.type_name()
    }
}
