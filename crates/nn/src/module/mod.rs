//! [`Module`]: what is known of everything that has parameters, by one walk over its values.
//!
//! Questions and changes are visitors of that walk. What can fail is found out before anything is changed.

mod hooks;
mod parts;
mod state;
mod summary;
mod training;
mod walk;

pub use hooks::{ForwardHookHandle, Hooks};
pub use state::StateDict;
pub use summary::{Summary, SummaryRow};
pub use training::Training;
pub use walk::{Kind, Value, Visitor, Walk};

use wgrad_autograd::{DType, Device, Error, GradOptions, Result, Tensor, no_grad};

/// Something with parameters: a layer, or a struct of layers. `#[derive(Module)]` implements it.
///
/// # Writing one
/// A field of type [`Tensor`] is a parameter; with `#[buffer]` it is a buffer. All else is found through the
/// fields' types, and paths are made of their names, which are PyTorch's in the layers of this crate, so that
/// PyTorch's checkpoints fit. How a module computes is a method of its own, usually `forward`:
///
/// ```
/// use wgrad::nn::{Layer, Linear, Module};
/// use wgrad::{Device, Tensor};
///
/// #[derive(Clone, Module)]
/// struct Net {
///     hidden: Linear,
///     output: Linear,
/// }
///
/// impl Net {
///     fn new(device: &Device) -> wgrad::Result<Net> {
///         Ok(Net { hidden: Linear::new(4, 8, device)?, output: Linear::new(8, 2, device)? })
///     }
///
///     fn forward(&self, x: &Tensor) -> wgrad::Result<Tensor> {
///         self.output.forward(&self.hidden.forward(x)?.relu()?)
///     }
/// }
///
/// let net = Net::new(&Device::cpu())?;
/// let names: Vec<String> = net.named_parameters().into_iter().map(|(name, _)| name).collect();
/// assert_eq!(names, ["hidden.weight", "hidden.bias", "output.weight", "output.bias"]);
/// assert_eq!(net.num_parameters(), 4 * 8 + 8 + 8 * 2 + 2);
/// let x = Tensor::ones([3, 4], &Device::cpu())?;
/// assert_eq!(net.forward(&x)?.shape(), [3, 2]);
/// # Ok::<(), wgrad::Error>(())
/// ```
///
/// # Shared weights
/// A tensor that stands in two fields is one weight. It is listed once, under its first path; a state dict
/// holds it once, and is read under any of its paths. Moving and copying a module keep it shared.
///
/// # Clones
/// `clone()` of a module is a second handle to the same weights, as of tensors; [`Module::deep_copy`] has
/// weights of its own.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no module, so a walk over a module's fields cannot look into it",
    note = "derive or implement `wgrad::nn::Module` for it, or put #[module(skip)] on the field"
)]
pub trait Module: Send + Sync {
    /// Gives all values to a walk.
    fn visit(&self, walk: &mut Walk<'_>);

    /// Gives all values to a walk that may replace them, in the same order as [`Module::visit`].
    fn visit_mut(&mut self, walk: &mut Walk<'_>);

    /// The name of the struct; empty for what is no struct of its own.
    fn type_name(&self) -> &'static str {
        ""
    }

    /// All parameters and buffers with their kinds and paths. A shared one appears as often as it occurs.
    fn tensors(&self) -> Vec<(String, Kind, Tensor)> {
        struct List(Vec<(String, Kind, Tensor)>);
        impl Visitor for List {
            fn value(&mut self, path: &str, value: Value<'_>) {
                if let Value::Tensor(kind, tensor) = value {
                    self.0.push((path.to_owned(), kind, tensor.clone()));
                }
            }
        }
        let mut list = List(Vec::new());
        self.visit(&mut Walk::new(&mut list));
        list.0
    }

    /// The parameters with their paths, each once; `named_parameters()`.
    fn named_parameters(&self) -> Vec<(String, Tensor)> {
        let mut out: Vec<(String, Tensor)> = Vec::new();
        for (path, kind, tensor) in self.tensors() {
            if kind == Kind::Parameter && !out.iter().any(|(_, known)| known.is_same(&tensor)) {
                out.push((path, tensor));
            }
        }
        out
    }

    /// The parameters, each once; `parameters()`.
    fn parameters(&self) -> Vec<Tensor> {
        self.named_parameters().into_iter().map(|(_, tensor)| tensor).collect()
    }

    /// The buffers with their paths; `named_buffers()`.
    fn named_buffers(&self) -> Vec<(String, Tensor)> {
        let buffers = self.tensors().into_iter().filter(|(_, kind, _)| *kind != Kind::Parameter);
        buffers.map(|(path, _, tensor)| (path, tensor)).collect()
    }

    /// How many numbers are trained: the elements of all parameters, shared ones once.
    fn num_parameters(&self) -> usize {
        self.named_parameters().iter().map(|(_, tensor)| tensor.numel()).sum()
    }

    /// Sets all its flags to training; `train()`.
    ///
    /// ```
    /// use wgrad::nn::{Dropout, Layer, Module};
    /// use wgrad::{Device, Tensor};
    /// let dropout = Dropout::new(0.5);
    /// let x = Tensor::ones(1000, &Device::cpu())?;
    /// dropout.eval();
    /// assert!(dropout.forward(&x)?.eq(&x)?.all()?.item::<bool>()?);
    /// dropout.train();
    /// assert!(!dropout.forward(&x)?.eq(&x)?.all()?.item::<bool>()?);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    fn train(&self) {
        self.set_training(true);
    }

    /// Sets all its flags to being used; `eval()`.
    fn eval(&self) {
        self.set_training(false);
    }

    /// Sets all its flags; `train(mode)`.
    fn set_training(&self, training: bool) {
        struct Set(bool);
        impl Visitor for Set {
            fn value(&mut self, _: &str, value: Value<'_>) {
                if let Value::Training(flag) = value {
                    flag.set(self.0);
                }
            }
        }
        self.visit(&mut Walk::new(&mut Set(training)));
    }

    /// Forgets all parameters' gradients; `zero_grad()`.
    fn zero_grad(&self) {
        for (_, kind, tensor) in self.tensors() {
            if kind == Kind::Parameter {
                tensor.zero_grad();
            }
        }
    }

    /// Whether the parameters are to be trained; `requires_grad_(requires_grad)`.
    ///
    /// ```
    /// use wgrad::nn::{Linear, Module};
    /// let layer = Linear::new(2, 2, &wgrad::Device::cpu())?;
    /// layer.requires_grad_(false)?;
    /// assert!(!layer.weight.requires_grad());
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    ///
    /// # Errors
    /// If one cannot require grad, or is no leaf and cannot stop to; then all are as they were.
    fn requires_grad_(&self, requires_grad: bool) -> Result<()> {
        let parameters = self.parameters();
        let before: Vec<bool> = parameters.iter().map(Tensor::requires_grad).collect();
        for (i, tensor) in parameters.iter().enumerate() {
            if let Err(error) = tensor.requires_grad_(requires_grad) {
                for (tensor, before) in parameters.iter().zip(before).take(i) {
                    tensor.requires_grad_(before)?;
                }
                return Err(error);
            }
        }
        Ok(())
    }

    /// Moves all parameters and buffers, with the gradients that there are, to a device; `to(device)`.
    ///
    /// The module has other tensors then: an optimiser is made for them after it.
    ///
    /// # Errors
    /// If the device fails; then nothing was moved.
    fn to(&mut self, device: &Device) -> Result<()> {
        self.replace(&|tensor| tensor.to_device(device))
    }

    /// Gives all parameters and buffers that hold floats, and their gradients, another dtype; `to(dtype)`,
    /// `half()`.
    ///
    /// ```
    /// use wgrad::nn::{Linear, Module};
    /// let mut layer = Linear::new(2, 3, &wgrad::Device::cpu())?;
    /// layer.to_dtype(wgrad::DType::BF16)?;
    /// assert_eq!(layer.weight.dtype(), wgrad::DType::BF16);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    ///
    /// # Errors
    /// If the dtype is not a float one, or the device has no such dtype; then nothing was changed.
    fn to_dtype(&mut self, dtype: DType) -> Result<()> {
        if !dtype.is_float() {
            let reason = "does not hold parameters; use a float dtype".to_owned();
            return Err(Error::DType { op: "to_dtype", dtype, reason });
        }
        self.replace(&|tensor| {
            if tensor.dtype().is_float() { tensor.to_dtype(dtype) } else { Ok(tensor.clone()) }
        })
    }

    /// Puts what a function makes of each tensor in its place, as a leaf that requires grad where the old one
    /// did. A shared tensor stays shared, and one that the function gives back stays. What the function
    /// computes is not recorded.
    ///
    /// # Errors
    /// The function's; then nothing was replaced.
    fn replace(&mut self, function: &dyn Fn(&Tensor) -> Result<Tensor>) -> Result<()> {
        let new = state::replacements(&self.tensors(), function)?;
        struct Replace(std::vec::IntoIter<Tensor>);
        impl Visitor for Replace {
            fn value(&mut self, _: &str, value: Value<'_>) {
                if let Value::Tensor(_, tensor) = value
                    && let Some(new) = self.0.next()
                {
                    *tensor = new;
                }
            }
        }
        self.visit_mut(&mut Walk::new(&mut Replace(new.into_iter())));
        Ok(())
    }

    /// The same module with weights, flags and hooks of its own; `copy.deepcopy(module)`. Gradients and hooks
    /// are not copied.
    ///
    /// ```
    /// use wgrad::nn::{Linear, Module};
    /// let layer = Linear::new(2, 2, &wgrad::Device::cpu())?;
    /// let copy = layer.deep_copy()?;
    /// wgrad::no_grad(|| layer.weight.zero_())?;
    /// assert!(copy.weight.abs()?.sum()?.item::<f32>()? > 0.0);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    ///
    /// # Errors
    /// If the device fails.
    fn deep_copy(&self) -> Result<Self>
    where
        Self: Sized + Clone,
    {
        struct Own;
        impl Visitor for Own {
            fn value(&mut self, _: &str, value: Value<'_>) {
                match value {
                    Value::Training(flag) => *flag = Training::new(flag.get()),
                    Value::Hooks(hooks) => *hooks = Hooks::default(),
                    Value::Tensor(..) => {}
                }
            }
        }
        let mut copy = self.clone();
        copy.replace(&|tensor| tensor.detach().deep_clone())?;
        copy.zero_grad();
        copy.visit_mut(&mut Walk::new(&mut Own));
        Ok(copy)
    }

    /// The values of all parameters and saved buffers, by path; `state_dict()`. They are what they were then,
    /// whatever is written to the module later, and share memory with it until then.
    ///
    /// # Errors
    /// If the device fails.
    fn state_dict(&self) -> Result<StateDict> {
        state::collect(&self.tensors())
    }

    /// Writes values to all parameters and saved buffers; `load_state_dict(state, strict)`. They are cast and
    /// moved to where the module's are.
    ///
    /// ```
    /// use wgrad::nn::{Linear, Module};
    /// let device = wgrad::Device::cpu();
    /// let (a, b) = (Linear::new(2, 3, &device)?, Linear::new(2, 3, &device)?);
    /// b.load_state_dict(&a.state_dict()?, true)?;
    /// assert_eq!(a.weight.to_vec::<f32>()?, b.weight.to_vec::<f32>()?);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::StateDict`] with all names that do not fit: with `strict` those that are missing or
    /// unexpected, and always those of another shape. Then nothing was changed.
    fn load_state_dict(&self, state: &StateDict, strict: bool) -> Result<()> {
        state::load(&self.tensors(), state, strict)
    }

    /// The paths of the parameters that require grad and that a loss does not depend on: after its backward
    /// they have no gradient.
    ///
    /// ```
    /// use wgrad::nn::{Layer, Linear, Module};
    /// use wgrad::Tensor;
    /// let device = wgrad::Device::cpu();
    /// let model = vec![Linear::new(2, 2, &device)?, Linear::new(2, 2, &device)?];
    /// let loss = model[0].forward(&Tensor::ones([1, 2], &device)?)?.sum()?;
    /// assert_eq!(model.unreached(&loss)?, ["1.weight", "1.bias"]);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`grad`](wgrad_autograd::grad) for this loss.
    fn unreached(&self, loss: &Tensor) -> Result<Vec<String>> {
        let mut parameters = self.named_parameters();
        parameters.retain(|(_, tensor)| tensor.requires_grad());
        let inputs: Vec<&Tensor> = parameters.iter().map(|(_, tensor)| tensor).collect();
        let ones = loss.detach().ones_like()?;
        let options = GradOptions::new().grad_outputs([Some(ones)]).allow_unused(true).retain_graph(true);
        let gradients = wgrad_autograd::grad(&[loss], &inputs, options)?;
        let missing = parameters.into_iter().zip(gradients).filter(|(_, gradient)| gradient.is_none());
        Ok(missing.map(|((path, _), _)| path).collect())
    }

    /// A table of the layers: the shapes that they give in a forward, how many parameters they have, and how
    /// many multiplications and additions the products with them take. The forward's values are not computed,
    /// and nothing is recorded.
    ///
    /// ```
    /// use wgrad::nn::{Layer, Linear, Module, ReLU, Sequential};
    /// use wgrad::{Device, Tensor};
    /// let device = Device::cpu();
    /// let model = Sequential::new().push(Linear::new(4, 8, &device)?).push(ReLU::new());
    /// let summary = model.summary(|| model.forward(&Tensor::zeros([3, 4], &device)?))?;
    /// assert_eq!(summary.rows[1].output.as_deref(), Some(&[3, 8][..]));
    /// assert_eq!((summary.parameters, summary.operations), (40, 2 * 3 * 4 * 8));
    /// println!("{summary}");
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    ///
    /// # Errors
    /// The forward's.
    fn summary<T>(&self, forward: impl FnOnce() -> Result<T>) -> Result<Summary>
    where
        Self: Sized,
    {
        summary::summarize(self, || no_grad(|| forward().map(drop)))
    }

    /// Registers a function that sees the input and the output of the layer at a path (empty: this one) at
    /// each of its forwards, and may replace the output; `register_forward_hook`.
    ///
    /// ```
    /// use std::sync::{Arc, Mutex};
    /// use wgrad::Tensor;
    /// use wgrad::nn::{Layer, Linear, Module};
    /// let device = wgrad::Device::cpu();
    /// let model = vec![Linear::new(2, 3, &device)?];
    /// let shapes = Arc::new(Mutex::new(Vec::new()));
    /// let seen = shapes.clone();
    /// let handle = model.register_forward_hook("0", move |_input, output| {
    ///     seen.lock().unwrap().push(output.shape().to_vec());
    ///     Ok(None)
    /// })?;
    /// model[0].forward(&Tensor::ones([5, 2], &device)?)?;
    /// assert_eq!(*shapes.lock().unwrap(), [[5, 3]]);
    /// handle.remove();
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    ///
    /// # Errors
    /// If there is no layer with hooks at that path.
    fn register_forward_hook(
        &self,
        path: &str,
        hook: impl Fn(&Tensor, &Tensor) -> Result<Option<Tensor>> + Send + Sync + 'static,
    ) -> Result<ForwardHookHandle>
    where
        Self: Sized,
    {
        let places = state::hooks(self);
        let found = places.iter().find(|(known, ..)| known == path);
        found.map(|(_, hooks)| hooks.register(hook)).ok_or_else(|| {
            let known: Vec<&str> = places.iter().map(|(known, ..)| known.as_str()).collect();
            let reason = format!(
                "no layer at {path:?} has hooks; a struct of layers needs a field of type Hooks; there are: {}",
                known.join(", ")
            );
            Error::Argument { op: "register_forward_hook", reason }
        })
    }
}

/// A module that makes one tensor of one tensor.
///
/// ```
/// use wgrad::nn::{Layer, Module, ReLU, Sequential};
/// use wgrad::Tensor;
///
/// #[derive(Clone, Module)]
/// struct Scale(f64);
///
/// impl Layer for Scale {
///     fn forward(&self, input: &Tensor) -> wgrad::Result<Tensor> {
///         input.mul(self.0)
///     }
/// }
///
/// let model = Sequential::new().push(Scale(2.0)).push(ReLU::new());
/// let y = model.forward(&Tensor::new([-1.0, 3.0], &wgrad::Device::cpu())?)?;
/// assert_eq!(y.to_vec::<f32>()?, [0.0, 6.0]);
/// # Ok::<(), wgrad::Error>(())
/// ```
pub trait Layer: Module {
    /// Computes the output for an input.
    ///
    /// # Errors
    /// If the input does not fit the layer.
    fn forward(&self, input: &Tensor) -> Result<Tensor>;
}

impl<L: Layer + ?Sized> Layer for Box<L> {
    fn forward(&self, input: &Tensor) -> Result<Tensor> {
        (**self).forward(input)
    }
}
