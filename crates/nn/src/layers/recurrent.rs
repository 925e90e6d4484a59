//! Recurrent layers over sequences: [`RNN`], [`LSTM`] and [`GRU`], of several layers and in both directions.
//!
//! What the inputs contribute to all moments is one product; the moments follow one after the other.
//! Sequences of different lengths are masked, so that no plan depends on the lengths.

use wgrad_autograd::{Error, Options, Result, Tensor};

use super::options::{argument, settings};
use super::parameter::{bounded, bounded_bias};
use crate::{Hooks, Module, Training, Walk};

/// What a moment of a recurrent layer computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cell {
    Tanh,
    ReLU,
    Lstm,
    Gru,
}

impl Cell {
    /// How many gates there are.
    pub(super) fn gates(self) -> usize {
        match self {
            Cell::Tanh | Cell::ReLU => 1,
            Cell::Lstm => 4,
            Cell::Gru => 3,
        }
    }

    /// The hidden state and, of an LSTM, the cell's, after a moment: from what the input and the state before
    /// contribute.
    pub(super) fn step(
        self,
        from_input: &Tensor,
        from_state: &Tensor,
        h: &Tensor,
        c: Option<&Tensor>,
    ) -> Result<(Tensor, Option<Tensor>)> {
        match self {
            Cell::Tanh => Ok((from_input.add(from_state)?.tanh()?, None)),
            Cell::ReLU => Ok((from_input.add(from_state)?.relu()?, None)),
            Cell::Lstm => {
                let gates = from_input.add(from_state)?.chunk(4, -1)?;
                let ([input, forget, new, output], Some(c)) = (gates.as_slice(), c) else {
                    return Err(Error::Argument { op: "LSTM", reason: "needs the state of its cell".into() });
                };
                let c = forget.sigmoid()?.mul(c)?.add(input.sigmoid()?.mul(new.tanh()?)?)?;
                Ok((output.sigmoid()?.mul(c.tanh()?)?, Some(c)))
            }
            Cell::Gru => {
                let (x, s) = (from_input.chunk(3, -1)?, from_state.chunk(3, -1)?);
                let ([xr, xz, xn], [sr, sz, sn]) = (x.as_slice(), s.as_slice()) else {
                    return Err(Error::Argument {
                        op: "GRU",
                        reason: "needs a hidden size of at least 1".into(),
                    });
                };
                let (reset, keep) = (xr.add(sr)?.sigmoid()?, xz.add(sz)?.sigmoid()?);
                let new = xn.add(reset.mul(sn)?)?.tanh()?;
                Ok((new.add(keep.mul(h.sub(&new)?)?)?, None))
            }
        }
    }
}

/// The weights of a layer in one direction.
#[derive(Clone, Debug)]
struct Direction {
    /// Behind `weight_ih`: `_l0`, `_l0_reverse`.
    suffix: String,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Option<Tensor>,
    bias_hh: Option<Tensor>,
    weight_hr: Option<Tensor>,
}

impl Module for Direction {
    fn visit(&self, walk: &mut Walk<'_>) {
        walk.field(&format!("weight_ih{}", self.suffix), &self.weight_ih);
        walk.field(&format!("weight_hh{}", self.suffix), &self.weight_hh);
        walk.field(&format!("bias_ih{}", self.suffix), &self.bias_ih);
        walk.field(&format!("bias_hh{}", self.suffix), &self.bias_hh);
        walk.field(&format!("weight_hr{}", self.suffix), &self.weight_hr);
    }

    fn visit_mut(&mut self, walk: &mut Walk<'_>) {
        walk.field_mut(&format!("weight_ih{}", self.suffix), &mut self.weight_ih);
        walk.field_mut(&format!("weight_hh{}", self.suffix), &mut self.weight_hh);
        walk.field_mut(&format!("bias_ih{}", self.suffix), &mut self.bias_ih);
        walk.field_mut(&format!("bias_hh{}", self.suffix), &mut self.bias_hh);
        walk.field_mut(&format!("weight_hr{}", self.suffix), &mut self.weight_hr);
    }
}

/// What a recurrent layer is made of.
#[derive(Clone, Debug)]
struct Settings {
    cell: Cell,
    input_size: usize,
    hidden_size: usize,
    num_layers: usize,
    bias: bool,
    batch_first: bool,
    dropout: f64,
    bidirectional: bool,
    proj_size: usize,
}

impl Settings {
    fn stack(&self, options: &Options) -> Result<Stack> {
        let op = if self.cell == Cell::Lstm { "LSTM" } else { "RNN" };
        let fail = |reason: &str| Err(Error::Argument { op, reason: reason.into() });
        if self.hidden_size == 0 || self.num_layers == 0 {
            return fail("hidden_size and num_layers must be at least 1");
        }
        if self.proj_size > 0 && (self.cell != Cell::Lstm || self.proj_size >= self.hidden_size) {
            return fail("proj_size is for an LSTM, and smaller than hidden_size");
        }
        if !(0.0..=1.0).contains(&self.dropout) {
            return fail("dropout must lie between 0 and 1");
        }
        let bound = 1.0 / (self.hidden_size as f64).sqrt();
        let gates = self.cell.gates() * self.hidden_size;
        let output = if self.proj_size > 0 { self.proj_size } else { self.hidden_size };
        let directions = if self.bidirectional { 2 } else { 1 };
        let mut weights = Vec::new();
        for layer in 0..self.num_layers {
            let input = if layer == 0 { self.input_size } else { output * directions };
            for direction in 0..directions {
                let projection =
                    (self.proj_size > 0).then(|| bounded([self.proj_size, self.hidden_size], bound, options));
                weights.push(Direction {
                    suffix: format!("_l{layer}{}", if direction == 1 { "_reverse" } else { "" }),
                    weight_ih: bounded([gates, input], bound, options)?,
                    weight_hh: bounded([gates, output], bound, options)?,
                    bias_ih: bounded_bias(self.bias, gates, bound, options)?,
                    bias_hh: bounded_bias(self.bias, gates, bound, options)?,
                    weight_hr: projection.transpose()?,
                });
            }
        }
        Ok(Stack {
            weights: Weights(weights),
            settings: self.clone(),
            output,
            directions,
            training: Training::default(),
        })
    }
}

#[derive(Clone, Debug)]
struct Weights(Vec<Direction>);

impl Module for Weights {
    fn visit(&self, walk: &mut Walk<'_>) {
        self.0.iter().for_each(|direction| direction.visit(walk));
    }

    fn visit_mut(&mut self, walk: &mut Walk<'_>) {
        self.0.iter_mut().for_each(|direction| direction.visit_mut(walk));
    }
}

/// The layers and directions of a recurrent layer.
#[derive(Clone, Debug, Module)]
struct Stack {
    #[module(flatten)]
    weights: Weights,
    #[module(skip)]
    settings: Settings,
    output: usize,
    directions: usize,
    training: Training,
}

/// What a recurrent layer is given besides its input.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sequences<'a> {
    lengths: Option<&'a [usize]>,
    hidden: Option<&'a Tensor>,
    cell: Option<&'a Tensor>,
}

impl<'a> Sequences<'a> {
    /// Of full length, from a state of zeros.
    pub fn new() -> Sequences<'a> {
        Sequences::default()
    }

    /// The length of each sequence of the batch. What is behind is not read, outputs there are 0, and the
    /// last state is that of the sequence's own last moment. Outputs are as long as the longest.
    pub fn lengths(mut self, lengths: &'a [usize]) -> Self {
        self.lengths = Some(lengths);
        self
    }

    /// The hidden state before the first moment, `[layers * directions, batch, hidden_size]`, or without a
    /// batch dim.
    pub fn hidden(mut self, hidden: &'a Tensor) -> Self {
        self.hidden = Some(hidden);
        self
    }

    /// The state of an LSTM's cells before the first moment, of the same shape with its hidden size.
    pub fn cell(mut self, cell: &'a Tensor) -> Self {
        self.cell = Some(cell);
        self
    }
}

/// The output, and the last hidden and cell states.
struct Output {
    output: Tensor,
    hidden: Tensor,
    cell: Option<Tensor>,
}

impl Stack {
    fn op(&self) -> &'static str {
        match self.settings.cell {
            Cell::Tanh | Cell::ReLU => "RNN",
            Cell::Lstm => "LSTM",
            Cell::Gru => "GRU",
        }
    }

    /// A state before the first moment, `[layers * directions, batch, size]`: the given one, or zeros.
    fn state(&self, given: Option<&Tensor>, batched: bool, like: &Tensor, size: usize) -> Result<Tensor> {
        let shape = [self.settings.num_layers * self.directions, like.size(1)?, size];
        let Some(given) = given else { return Tensor::zeros(shape, (like.dtype(), like.device())) };
        let state = if batched { given.clone() } else { given.unsqueeze(1)? };
        if state.shape() == shape {
            return Ok(state);
        }
        let reason = format!("is not that of a state, {shape:?}");
        Err(Error::Shape { op: self.op(), shape: given.shape().to_vec(), reason })
    }

    fn forward(&self, input: &Tensor, given: &Sequences<'_>) -> Result<Output> {
        let op = self.op();
        let batched = match input.rank() {
            2 => false,
            3 => true,
            _ => {
                let reason = "is not that of sequences: batch, time and width, or without a batch".to_owned();
                return Err(Error::Shape { op, shape: input.shape().to_vec(), reason });
            }
        };
        // [time, batch, width]
        let mut x = match (batched, self.settings.batch_first) {
            (false, _) => input.unsqueeze(1)?,
            (true, true) => input.transpose(0, 1)?,
            (true, false) => input.clone(),
        };
        let lengths = given.lengths.map(|lengths| self.lengths(lengths, &x)).transpose()?;
        if let Some(lengths) = given.lengths {
            x = x.narrow(0, 0, lengths.iter().copied().max().unwrap_or(0))?;
        }
        if x.size(0)? == 0 {
            let reason = "has no moments; give sequences of at least one".to_owned();
            return Err(Error::Shape { op, shape: input.shape().to_vec(), reason });
        }
        let lstm = self.settings.cell == Cell::Lstm;
        let hidden = self.state(given.hidden, batched, &x, self.output)?;
        let cells =
            lstm.then(|| self.state(given.cell, batched, &x, self.settings.hidden_size)).transpose()?;
        let (mut last_hidden, mut last_cells) = (Vec::new(), Vec::new());
        for layer in 0..self.settings.num_layers {
            if layer > 0 && self.training.get() && self.settings.dropout > 0.0 {
                x = x.dropout(self.settings.dropout, true)?;
            }
            let mut outputs = Vec::new();
            for direction in 0..self.directions {
                let at = layer * self.directions + direction;
                let Some(weights) = self.weights.0.get(at) else { continue };
                let h = hidden.select(0, at as isize)?;
                let c = cells.as_ref().map(|cells| cells.select(0, at as isize)).transpose()?;
                let run = self.run(weights, &x, h, c, lengths.as_ref(), direction == 1)?;
                outputs.push(run.output);
                last_hidden.push(run.hidden);
                last_cells.extend(run.cell);
            }
            x = Tensor::cat(&outputs.iter().collect::<Vec<_>>(), -1)?;
        }
        let joined = |states: &[Tensor]| {
            let all = Tensor::stack(&states.iter().collect::<Vec<_>>(), 0)?;
            if batched { Ok(all) } else { all.squeeze_dim(1) }
        };
        Ok(Output {
            output: match (batched, self.settings.batch_first) {
                (false, _) => x.squeeze_dim(1)?,
                (true, true) => x.transpose(0, 1)?,
                (true, false) => x,
            },
            hidden: joined(&last_hidden)?,
            cell: lstm.then(|| joined(&last_cells)).transpose()?,
        })
    }

    /// The lengths on the device, `[batch, 1]`.
    fn lengths(&self, lengths: &[usize], x: &Tensor) -> Result<Tensor> {
        let (time, batch) = (x.size(0)?, x.size(1)?);
        if lengths.len() != batch || lengths.iter().any(|&length| length == 0 || length > time) {
            let reason = format!("lengths must be {batch} numbers between 1 and {time}");
            return Err(Error::Argument { op: self.op(), reason });
        }
        let lengths: Vec<i64> = lengths.iter().map(|&length| length as i64).collect();
        Tensor::from_slice(&lengths, [batch, 1], x.device())
    }

    /// One direction of one layer over all moments.
    fn run(
        &self,
        weights: &Direction,
        x: &Tensor,
        mut h: Tensor,
        mut c: Option<Tensor>,
        lengths: Option<&Tensor>,
        reverse: bool,
    ) -> Result<Output> {
        let from_inputs = x.linear(&weights.weight_ih, &weights.bias_ih)?.unbind(0)?;
        let mut outputs = Vec::new();
        for i in 0..from_inputs.len() {
            let moment = if reverse { from_inputs.len() - 1 - i } else { i };
            let Some(from_input) = from_inputs.get(moment) else { continue };
            let from_state = h.linear(&weights.weight_hh, &weights.bias_hh)?;
            let (mut next, next_c) = self.settings.cell.step(from_input, &from_state, &h, c.as_ref())?;
            if let Some(projection) = &weights.weight_hr {
                next = next.linear(projection, None)?;
            }
            let Some(lengths) = lengths else {
                (h, c) = (next.clone(), next_c);
                outputs.push(next);
                continue;
            };
            // Outside of its length a sequence's state stays, and its output is 0.
            let inside = lengths.gt(moment as i64)?;
            outputs.push(inside.where_cond(&next, 0.0)?);
            h = inside.where_cond(&next, &h)?;
            if let (Some(old), Some(new)) = (c, next_c) {
                c = Some(inside.where_cond(&new, &old)?);
            } else {
                c = None;
            }
        }
        if reverse {
            outputs.reverse();
        }
        Ok(Output { output: Tensor::stack(&outputs.iter().collect::<Vec<_>>(), 0)?, hidden: h, cell: c })
    }
}

macro_rules! recurrent {
    ($(
        $(#[$about:meta])*
        $name:ident, $options:ident { $($(#[$meaning:meta])* $wish:ident: $type:ident = $default:expr)? },
        |$layer:ident| $cell:expr, $projection:expr;
        $state:ty, |$given:ident, $out:ident| $last:expr;
    )*) => {$(
        settings! {
            #[doc = concat!("The settings of [`", stringify!($name), "`].")]
            $options {
                input_size: usize, hidden_size: usize;
                /// The number of layers, each of which reads what the one before gives; 1.
                num_layers: usize = 1usize,
                /// Whether there are biases; true.
                bias: bool = true,
                /// Whether tensors are `[batch, time, ..]` instead of `[time, batch, ..]`; false. States are
                /// not.
                batch_first: bool = false,
                /// With what probability elements between layers are left out in training; 0.
                dropout: f64 = 0.0,
                /// Whether the sequence is read from its end too; false.
                bidirectional: bool = false,
                $($(#[$meaning])* $wish: $type = $default,)?
            }
        }

        impl $options {
            /// The layer, on a device.
            ///
            /// # Errors
            /// If a size is 0, a probability is not between 0 and 1, the device fails, or the dtype is not a
            /// float one.
            pub fn build(&self, options: impl Into<Options>) -> Result<$name> {
                let $layer = self;
                let settings = Settings {
                    cell: $cell,
                    input_size: self.input_size,
                    hidden_size: self.hidden_size,
                    num_layers: self.num_layers,
                    bias: self.bias,
                    batch_first: self.batch_first,
                    dropout: self.dropout,
                    bidirectional: self.bidirectional,
                    proj_size: $projection,
                };
                Ok($name { stack: settings.stack(&options.into())?, hooks: Hooks::default() })
            }
        }

        $(#[$about])*
        #[derive(Clone, Debug, Module)]
        pub struct $name {
            #[module(flatten)]
            stack: Stack,
            hooks: Hooks,
        }

        impl $name {
            /// One layer with PyTorch's defaults.
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

            /// The outputs of the last layer at all moments, and all layers' last states, from states of
            /// zeros.
            ///
            /// # Errors
            /// If the input is not a sequence of the layer's width, or a batch of such.
            pub fn forward(&self, input: &Tensor) -> Result<(Tensor, $state)> {
                self.forward_with(input, &Sequences::new())
            }

            /// The same from given states, or with sequences of different lengths.
            ///
            /// # Errors
            /// As the forward; and if states or lengths do not fit.
            pub fn forward_with(&self, input: &Tensor, $given: &Sequences<'_>) -> Result<(Tensor, $state)> {
                let $out = self.stack.forward(input, $given)?;
                let output = self.hooks.after(input, $out.output.clone())?;
                Ok((output, $last))
            }
        }
    )*};
}

recurrent! {
    /// `h = tanh(x W_ih + b_ih + h W_hh + b_hh)` at each moment; `torch.nn.RNN`.
    ///
    /// ```
    /// use wgrad::nn::RNN;
    /// use wgrad::{Device, Tensor};
    /// let device = Device::cpu();
    /// let rnn = RNN::options(3, 5).num_layers(2).bidirectional(true).build(&device)?;
    /// let (output, last) = rnn.forward(&Tensor::ones([7, 2, 3], &device)?)?;
    /// assert_eq!((output.shape(), last.shape()), (&[7, 2, 10][..], &[4, 2, 5][..]));
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    RNN, RNNOptions {
        /// Whether relu takes the place of tanh; false.
        relu: bool = false
    }, |layer| if layer.relu { Cell::ReLU } else { Cell::Tanh }, 0;
    Tensor, |given, out| out.hidden;

    /// Long short-term memory; `torch.nn.LSTM`. Its states are a pair: hidden ones and those of the cells.
    ///
    /// ```
    /// use wgrad::nn::{LSTM, Sequences};
    /// use wgrad::{Device, Tensor};
    /// let device = Device::cpu();
    /// let lstm = LSTM::options(3, 5).batch_first(true).build(&device)?;
    /// let x = Tensor::ones([2, 7, 3], &device)?;
    /// let (output, (hidden, cell)) = lstm.forward_with(&x, &Sequences::new().lengths(&[7, 4]))?;
    /// assert_eq!(output.shape(), [2, 7, 5]);
    /// assert_eq!(output.select(0, 1)?.select(0, 5)?.to_vec::<f32>()?, [0.0; 5]);
    /// assert_eq!((hidden.shape(), cell.shape()), (&[1, 2, 5][..], &[1, 2, 5][..]));
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    LSTM, LSTMOptions {
        /// The size that the hidden state is projected to, or 0 for none; 0.
        proj_size: usize = 0usize
    }, |layer| Cell::Lstm, layer.proj_size;
    (Tensor, Tensor), |given, out| {
        let cell = out.cell;
        let missing = || Error::Argument { op: "LSTM", reason: "has no state of its cell".into() };
        (out.hidden, cell.ok_or_else(missing)?)
    };

    /// Gated recurrent units; `torch.nn.GRU`.
    ///
    /// ```
    /// use wgrad::nn::GRU;
    /// use wgrad::{Device, Tensor};
    /// let device = Device::cpu();
    /// let (output, last) = GRU::new(3, 5, &device)?.forward(&Tensor::ones([7, 3], &device)?)?;
    /// assert_eq!((output.shape(), last.shape()), (&[7, 5][..], &[1, 5][..]));
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    GRU, GRUOptions {}, |_layer| Cell::Gru, 0;
    Tensor, |given, out| out.hidden;
}
