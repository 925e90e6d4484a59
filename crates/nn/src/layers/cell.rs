//! Single moments of recurrent layers: [`RNNCell`], [`LSTMCell`] and [`GRUCell`].

use wgrad_autograd::{Error, Options, Result, Tensor};

use super::options::{argument, settings};
use super::parameter::{bounded, bounded_bias};
use super::recurrent::Cell;
use crate::Module;

/// The products of a cell.
#[derive(Clone, Debug, Module)]
struct Products {
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Option<Tensor>,
    bias_hh: Option<Tensor>,
    hidden_size: usize,
}

impl Products {
    fn new(
        cell: Cell,
        input_size: usize,
        hidden_size: usize,
        bias: bool,
        options: &Options,
    ) -> Result<Products> {
        if hidden_size == 0 {
            return Err(Error::Argument { op: "RNNCell", reason: "hidden_size must be at least 1".into() });
        }
        let bound = 1.0 / (hidden_size as f64).sqrt();
        let gates = cell.gates() * hidden_size;
        Ok(Products {
            weight_ih: bounded([gates, input_size], bound, options)?,
            weight_hh: bounded([gates, hidden_size], bound, options)?,
            bias_ih: bounded_bias(bias, gates, bound, options)?,
            bias_hh: bounded_bias(bias, gates, bound, options)?,
            hidden_size,
        })
    }

    /// A state for an input: the given one, or zeros.
    fn state(&self, given: Option<&Tensor>, input: &Tensor) -> Result<Tensor> {
        let mut shape = input.shape().to_vec();
        if let Some(width) = shape.last_mut() {
            *width = self.hidden_size;
        }
        match given {
            None => Tensor::zeros(shape, (input.dtype(), input.device())),
            Some(state) if state.shape() == shape => Ok(state.clone()),
            Some(state) => {
                let reason = format!("is not that of the state for this input, {shape:?}");
                Err(Error::Shape { op: "RNNCell", shape: state.shape().to_vec(), reason })
            }
        }
    }

    fn step(
        &self,
        cell: Cell,
        input: &Tensor,
        h: Option<&Tensor>,
        c: Option<&Tensor>,
    ) -> Result<(Tensor, Option<Tensor>)> {
        if input.rank() != 1 && input.rank() != 2 {
            let reason = "is not [batch, width], or that without a batch".to_owned();
            return Err(Error::Shape { op: "RNNCell", shape: input.shape().to_vec(), reason });
        }
        let h = self.state(h, input)?;
        let c = if cell == Cell::Lstm { Some(self.state(c, input)?) } else { None };
        let from_input = input.linear(&self.weight_ih, &self.bias_ih)?;
        let from_state = h.linear(&self.weight_hh, &self.bias_hh)?;
        cell.step(&from_input, &from_state, &h, c.as_ref())
    }
}

macro_rules! cells {
    ($(
        $(#[$about:meta])*
        $name:ident, $options:ident { $($(#[$meaning:meta])* $wish:ident: $type:ident = $default:expr)? },
        |$layer:ident| $cell:expr;
    )*) => {$(
        settings! {
            #[doc = concat!("The settings of [`", stringify!($name), "`].")]
            $options {
                input_size: usize, hidden_size: usize;
                /// Whether there are biases; true.
                bias: bool = true,
                $($(#[$meaning])* $wish: $type = $default,)?
            }
        }

        impl $options {
            /// The layer, on a device.
            ///
            /// # Errors
            /// If the hidden size is 0, the device fails, or the dtype is not a float one.
            pub fn build(&self, options: impl Into<Options>) -> Result<$name> {
                let $layer = self;
                let cell = $cell;
                let (input, hidden) = (self.input_size, self.hidden_size);
                let products = Products::new(cell, input, hidden, self.bias, &options.into())?;
                Ok($name { products, cell })
            }
        }

        $(#[$about])*
        #[derive(Clone, Debug, Module)]
        pub struct $name {
            #[module(flatten)]
            products: Products,
            #[module(skip)]
            cell: Cell,
        }

        impl $name {
            /// A cell with PyTorch's defaults.
            ///
            /// # Errors
            #[doc = concat!("As [`", stringify!($options), "::build`].")]
            pub fn new(input_size: usize, hidden_size: usize, options: impl Into<Options>) -> Result<$name> {
                $name::options(input_size, hidden_size).build(options)
            }

            /// The settings, to be changed.
            pub fn options(input_size: usize, hidden_size: usize) -> $options {
                $options::new(input_size, hidden_size)
            }
        }
    )*};
}

cells! {
    /// One moment of an [`RNN`](crate::RNN); `torch.nn.RNNCell`.
    ///
    /// ```
    /// use wgrad::nn::RNNCell;
    /// use wgrad::{Device, Tensor};
    /// let device = Device::cpu();
    /// let cell = RNNCell::new(3, 5, &device)?;
    /// let x = Tensor::ones([2, 3], &device)?;
    /// let h = cell.forward(&x, None)?;
    /// assert_eq!(cell.forward(&x, Some(&h))?.shape(), [2, 5]);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    RNNCell, RNNCellOptions {
        /// Whether relu takes the place of tanh; false.
        relu: bool = false
    }, |layer| if layer.relu { Cell::ReLU } else { Cell::Tanh };

    /// One moment of an [`LSTM`](crate::LSTM); `torch.nn.LSTMCell`.
    LSTMCell, LSTMCellOptions {}, |_layer| Cell::Lstm;

    /// One moment of a [`GRU`](crate::GRU); `torch.nn.GRUCell`.
    ///
    /// ```
    /// use wgrad::nn::GRUCell;
    /// use wgrad::{Device, Tensor};
    /// let device = Device::cpu();
    /// let cell = GRUCell::new(3, 5, &device)?;
    /// let x = Tensor::ones([2, 3], &device)?;
    /// let h = cell.forward(&x, None)?;
    /// assert_eq!(cell.forward(&x, Some(&h))?.shape(), [2, 5]);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    GRUCell, GRUCellOptions {}, |_layer| Cell::Gru;
}

macro_rules! hidden_steps {
    ($($name:ident),*) => {$(
        impl $name {
            /// The state after a moment, `[batch, hidden_size]`, from the input `[batch, input_size]` and the
            /// state before, or zeros.
            ///
            /// # Errors
            /// If the shapes do not fit.
            pub fn forward(&self, input: &Tensor, hidden: Option<&Tensor>) -> Result<Tensor> {
                Ok(self.products.step(self.cell, input, hidden, None)?.0)
            }
        }
    )*};
}
hidden_steps!(RNNCell, GRUCell);

impl LSTMCell {
    /// The hidden state and the cell's after a moment, `[batch, hidden_size]`, from the input
    /// `[batch, input_size]` and the states before, or zeros.
    ///
    /// ```
    /// use wgrad::nn::LSTMCell;
    /// use wgrad::{Device, Tensor};
    /// let device = Device::cpu();
    /// let cell = LSTMCell::new(3, 5, &device)?;
    /// let x = Tensor::ones([2, 3], &device)?;
    /// let (h, c) = cell.forward(&x, None)?;
    /// let (h, _) = cell.forward(&x, Some((&h, &c)))?;
    /// assert_eq!(h.shape(), [2, 5]);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    ///
    /// # Errors
    /// If the shapes do not fit.
    pub fn forward(&self, input: &Tensor, state: Option<(&Tensor, &Tensor)>) -> Result<(Tensor, Tensor)> {
        let (h, c) = state.unzip();
        match self.products.step(self.cell, input, h, c)? {
            (h, Some(c)) => Ok((h, c)),
            (_, None) => Err(Error::Argument { op: "LSTMCell", reason: "has no state of its cell".into() }),
        }
    }
}
