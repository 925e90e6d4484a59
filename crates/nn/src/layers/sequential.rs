//! Layers one after the other.

use wgrad_autograd::{Result, Tensor};

use crate::{Layer, Module, Walk};

/// A layer whose type is not known, and that can be copied.
trait AnyLayer: Layer {
    fn boxed(&self) -> Box<dyn AnyLayer>;
}

impl<L: Layer + Clone + 'static> AnyLayer for L {
    fn boxed(&self) -> Box<dyn AnyLayer> {
        Box::new(self.clone())
    }
}

impl Clone for Box<dyn AnyLayer> {
    fn clone(&self) -> Self {
        (**self).boxed()
    }
}

/// Layers one after the other, named by their numbers; `torch.nn.Sequential`.
///
/// Lists and dictionaries of modules, PyTorch's `ModuleList` and `ModuleDict`, are a `Vec` and a `BTreeMap`
/// with names as keys.
///
/// ```
/// use wgrad::nn::{Layer, Linear, Module, ReLU, Sequential};
/// use wgrad::{Device, Tensor};
/// let device = Device::cpu();
/// let model = Sequential::new()
///     .push(Linear::new(4, 8, &device)?)
///     .push(ReLU::new())
///     .push(Linear::new(8, 2, &device)?);
/// assert_eq!(model.forward(&Tensor::ones([3, 4], &device)?)?.shape(), [3, 2]);
/// assert_eq!(model.named_parameters()[2].0, "2.weight");
/// # Ok::<(), wgrad::Error>(())
/// ```
#[derive(Clone, Default)]
pub struct Sequential(Vec<Box<dyn AnyLayer>>);

impl Sequential {
    /// Without layers: what it is given.
    pub fn new() -> Sequential {
        Sequential::default()
    }

    /// With another layer behind those there are.
    pub fn push(mut self, layer: impl Layer + Clone + 'static) -> Self {
        self.0.push(Box::new(layer));
        self
    }

    /// The number of layers.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no layers.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A layer by its number.
    pub fn get(&self, index: usize) -> Option<&dyn Layer> {
        self.0.get(index).map(|layer| &**layer as &dyn Layer)
    }
}

impl Layer for Sequential {
    fn forward(&self, input: &Tensor) -> Result<Tensor> {
        self.0.iter().try_fold(input.clone(), |x, layer| layer.forward(&x))
    }
}

impl Module for Sequential {
    fn visit(&self, walk: &mut Walk<'_>) {
        for (i, layer) in self.0.iter().enumerate() {
            walk.field(&i.to_string(), &**layer);
        }
    }

    fn visit_mut(&mut self, walk: &mut Walk<'_>) {
        for (i, layer) in self.0.iter_mut().enumerate() {
            walk.field_mut(&i.to_string(), &mut **layer);
        }
    }

    fn type_name(&self) -> &'static str {
        "Sequential"
    }
}

impl std::fmt::Debug for Sequential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.iter().map(|layer| layer.type_name())).finish()
    }
}
