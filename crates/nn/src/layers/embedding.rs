//! Rows of tables by their numbers: [`Embedding`], and [`EmbeddingBag`] for the sums, means and maxima of
//! several.

use wgrad_autograd::{DType, Error, Options, Result, ScatterReduce, Tensor, no_grad};

use super::options::{argument, settings};
use super::parameter::parameter;
use crate::{Hooks, Layer, Module, init};

/// The row that a number which may count from the end means.
fn padding_row(op: &'static str, padding: Option<isize>, rows: usize) -> Result<Option<usize>> {
    let Some(given) = padding else { return Ok(None) };
    let row = if given < 0 { given.checked_add_unsigned(rows) } else { Some(given) };
    match row.and_then(|row| usize::try_from(row).ok()).filter(|&row| row < rows) {
        Some(row) => Ok(Some(row)),
        None => {
            Err(Error::Argument { op, reason: format!("padding_idx is {given}, and there are {rows} rows") })
        }
    }
}

/// A table of normal numbers, the padding row zeros.
fn table(rows: usize, width: usize, padding: Option<usize>, options: &Options) -> Result<Tensor> {
    parameter([rows, width], options, |tensor| {
        let normal = init::normal_(tensor, 0.0, 1.0)?;
        let Some(row) = padding else { return Ok(normal) };
        let other = Tensor::arange(0, rows as i64, 1, tensor.device())?.ne(row as i64)?.unsqueeze(-1)?;
        no_grad(|| normal.copy_(&normal.mul(other.to_dtype(normal.dtype())?)?))
    })
}

/// Scales the rows of these numbers that are longer than `max_norm` to that length, in place.
fn shorten(weight: &Tensor, index: &Tensor, max_norm: f64, norm_type: f64) -> Result<()> {
    no_grad(|| {
        let device = weight.device();
        let rows = weight.size(0)?;
        let flat = index.reshape(-1)?;
        let used =
            Tensor::zeros(rows, (DType::I64, device))?.index_fill(0, &flat, 1)?.gt(0)?.unsqueeze(-1)?;
        let norm = weight.vector_norm(norm_type, -1, true)?;
        let long = used.logical_and(&norm.gt(max_norm)?)?;
        let factor = norm.add(1e-7)?.reciprocal()?.mul(max_norm)?;
        weight.copy_(&long.where_cond(weight.mul(factor)?, weight)?)?;
        Ok(())
    })
}

settings! {
    /// The settings of an [`Embedding`].
    EmbeddingOptions {
        num_embeddings: usize, embedding_dim: usize;
        /// A row that is zeros at first and gets no gradient; may count from the end.
        padding_idx: Option<isize> = None,
        /// The largest norm of a row: longer ones are shortened, in place, when they are looked up.
        max_norm: Option<f64> = None,
        /// The exponent of that norm; 2.
        norm_type: f64 = 2.0,
        /// Whether a row's gradient is divided by how often it was looked up; false.
        scale_grad_by_freq: bool = false,
    }
}

impl EmbeddingOptions {
    /// The layer, on a device.
    ///
    /// # Errors
    /// If there is no such padding row, the device fails, or the dtype is not a float one.
    pub fn build(&self, options: impl Into<Options>) -> Result<Embedding> {
        let padding = padding_row("Embedding", self.padding_idx, self.num_embeddings)?;
        let weight = table(self.num_embeddings, self.embedding_dim, padding, &options.into())?;
        Ok(Embedding { weight, settings: self.clone(), hooks: Hooks::default() })
    }
}

/// Rows of a table for integers of any shape: `[..]` to `[.., embedding_dim]`; `torch.nn.Embedding`.
///
/// ```
/// use wgrad::nn::{Embedding, Layer};
/// use wgrad::{Device, Tensor};
/// let device = Device::cpu();
/// let tokens = Embedding::new(10, 4, &device)?;
/// let y = tokens.forward(&Tensor::new([[1i64, 2, 2]], &device)?)?;
/// assert_eq!(y.shape(), [1, 3, 4]);
/// let padded = Embedding::options(10, 4).padding_idx(-1).build(&device)?;
/// assert_eq!(padded.weight.select(0, 9)?.to_vec::<f32>()?, [0.0; 4]);
/// # Ok::<(), wgrad::Error>(())
/// ```
#[derive(Clone, Debug, Module)]
pub struct Embedding {
    /// `[num_embeddings, embedding_dim]`, of the standard normal distribution at first.
    pub weight: Tensor,
    #[module(skip)]
    settings: EmbeddingOptions,
    hooks: Hooks,
}

impl Embedding {
    /// A table of so many rows of a width.
    ///
    /// # Errors
    /// As [`EmbeddingOptions::build`].
    pub fn new(
        num_embeddings: usize,
        embedding_dim: usize,
        options: impl Into<Options>,
    ) -> Result<Embedding> {
        Embedding::options(num_embeddings, embedding_dim).build(options)
    }

    /// The settings, to be changed.
    pub fn options(num_embeddings: usize, embedding_dim: usize) -> EmbeddingOptions {
        EmbeddingOptions::new(num_embeddings, embedding_dim)
    }
}

impl Layer for Embedding {
    fn forward(&self, input: &Tensor) -> Result<Tensor> {
        self.hooks.around(input, || {
            if let Some(max_norm) = self.settings.max_norm {
                shorten(&self.weight, input, max_norm, self.settings.norm_type)?;
            }
            let freq = self.settings.scale_grad_by_freq;
            input.embedding_with(&self.weight, self.settings.padding_idx, freq)
        })
    }
}

/// What an [`EmbeddingBag`] makes of the rows of a bag.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BagMode {
    /// Their sum.
    Sum,
    /// Their mean.
    #[default]
    Mean,
    /// The largest of each column.
    Max,
}

settings! {
    /// The settings of an [`EmbeddingBag`].
    EmbeddingBagOptions {
        num_embeddings: usize, embedding_dim: usize;
        /// What is made of a bag; the mean.
        mode: BagMode = BagMode::Mean,
        /// A number that counts for nothing in a bag; may count from the end.
        padding_idx: Option<isize> = None,
        /// The largest norm of a row: longer ones are shortened, in place, when they are looked up.
        max_norm: Option<f64> = None,
        /// The exponent of that norm; 2.
        norm_type: f64 = 2.0,
        /// Whether a row's gradient is divided by how often it was looked up; false.
        scale_grad_by_freq: bool = false,
        /// Whether the last offset is the end of the last bag; false.
        include_last_offset: bool = false,
    }
}

impl EmbeddingBagOptions {
    /// The layer, on a device.
    ///
    /// # Errors
    /// If there is no such padding row, frequencies are to scale the gradients of maxima, the device fails,
    /// or the dtype is not a float one.
    pub fn build(&self, options: impl Into<Options>) -> Result<EmbeddingBag> {
        const OP: &str = "EmbeddingBag";
        if self.scale_grad_by_freq && self.mode == BagMode::Max {
            let reason = "scale_grad_by_freq is for sums and means".to_owned();
            return Err(Error::Argument { op: OP, reason });
        }
        let padding = padding_row(OP, self.padding_idx, self.num_embeddings)?;
        let weight = table(self.num_embeddings, self.embedding_dim, padding, &options.into())?;
        Ok(EmbeddingBag { weight, padding, settings: self.clone(), hooks: Hooks::default() })
    }
}

/// Sums, means or maxima of a table's rows for bags of integers; `torch.nn.EmbeddingBag`. A bag of nothing
/// gives zeros.
///
/// ```
/// use wgrad::nn::{BagMode, EmbeddingBag, Layer};
/// use wgrad::{Device, Tensor};
/// let device = Device::cpu();
/// let bag = EmbeddingBag::options(10, 4).mode(BagMode::Sum).build(&device)?;
/// let words = Tensor::new([1i64, 2, 5], &device)?;
/// let y = bag.forward_bags(&words, &Tensor::new([0i64, 1], &device)?, None)?;
/// assert_eq!(y.shape(), [2, 4]);
/// assert_eq!(bag.forward(&words.reshape([1, 3])?)?.shape(), [1, 4]);
/// # Ok::<(), wgrad::Error>(())
/// ```
#[derive(Clone, Debug, Module)]
pub struct EmbeddingBag {
    /// `[num_embeddings, embedding_dim]`, of the standard normal distribution at first.
    pub weight: Tensor,
    padding: Option<usize>,
    #[module(skip)]
    settings: EmbeddingBagOptions,
    hooks: Hooks,
}

impl EmbeddingBag {
    /// Means of rows of a table.
    ///
    /// # Errors
    /// As [`EmbeddingBagOptions::build`].
    pub fn new(
        num_embeddings: usize,
        embedding_dim: usize,
        options: impl Into<Options>,
    ) -> Result<EmbeddingBag> {
        EmbeddingBag::options(num_embeddings, embedding_dim).build(options)
    }

    /// The settings, to be changed.
    pub fn options(num_embeddings: usize, embedding_dim: usize) -> EmbeddingBagOptions {
        EmbeddingBagOptions::new(num_embeddings, embedding_dim)
    }

    /// Bags of one length, `[bags, length]`, each row multiplied by a weight of the same shape.
    ///
    /// # Errors
    /// If the shapes differ, or the mode is not the sum.
    pub fn forward_weighted(&self, input: &Tensor, weights: &Tensor) -> Result<Tensor> {
        self.hooks.around(input, || self.equal_bags(input, Some(weights)))
    }

    /// Bags that lie one behind the other in a list, and where each begins; with weights of the rows, if the
    /// mode is the sum.
    ///
    /// # Errors
    /// If input or offsets are no lists, weights have another shape than the input, or the mode does not take
    /// them.
    pub fn forward_bags(&self, input: &Tensor, offsets: &Tensor, weights: Option<&Tensor>) -> Result<Tensor> {
        self.hooks.around(input, || self.lists(input, offsets, weights))
    }

    /// The rows of integers `[.., width]`, those of the padding zeros, and which of them count, `[.., 1]`.
    fn rows(&self, input: &Tensor, weights: Option<&Tensor>) -> Result<(Tensor, Option<Tensor>)> {
        const OP: &str = "EmbeddingBag";
        if let Some(weights) = weights {
            if self.settings.mode != BagMode::Sum {
                let reason = "weights of rows are for sums; use BagMode::Sum".to_owned();
                return Err(Error::Argument { op: OP, reason });
            }
            if weights.shape() != input.shape() {
                let reason = "differ: each row has one weight".to_owned();
                let (lhs, rhs) = (input.shape().to_vec(), weights.shape().to_vec());
                return Err(Error::ShapeMismatch { op: OP, lhs, rhs, reason });
            }
        }
        if let Some(max_norm) = self.settings.max_norm {
            shorten(&self.weight, input, max_norm, self.settings.norm_type)?;
        }
        let mut rows = input.embedding_with(&self.weight, None, self.settings.scale_grad_by_freq)?;
        if let Some(weights) = weights {
            rows = rows.mul(weights.unsqueeze(-1)?)?;
        }
        let Some(padding) = self.padding else { return Ok((rows, None)) };
        let counts = input.ne(padding as i64)?.unsqueeze(-1)?;
        let nothing = if self.settings.mode == BagMode::Max { f64::NEG_INFINITY } else { 0.0 };
        Ok((counts.where_cond(rows, nothing)?, Some(counts)))
    }

    fn equal_bags(&self, input: &Tensor, weights: Option<&Tensor>) -> Result<Tensor> {
        let &[bags, length] = input.shape() else {
            let reason = "is not [bags, length]; for a list give offsets".to_owned();
            return Err(Error::Shape { op: "EmbeddingBag", shape: input.shape().to_vec(), reason });
        };
        let (rows, counts) = self.rows(input, weights)?;
        match self.settings.mode {
            BagMode::Sum => rows.sum_dim(1, false),
            BagMode::Mean => {
                let sum = rows.sum_dim(1, false)?;
                match counts {
                    None => sum.div(length.max(1) as f64),
                    Some(counts) => sum.div(counts.to_dtype(rows.dtype())?.sum_dim(1, false)?.clamp_min(1)?),
                }
            }
            BagMode::Max if length == 0 => {
                Tensor::zeros([bags, self.weight.size(1)?], (rows.dtype(), rows.device()))
            }
            BagMode::Max => {
                let largest = rows.amax(1, false)?;
                match counts {
                    None => Ok(largest),
                    Some(counts) => counts.any_dim(1, false)?.where_cond(largest, 0.0),
                }
            }
        }
    }

    fn lists(&self, input: &Tensor, offsets: &Tensor, weights: Option<&Tensor>) -> Result<Tensor> {
        for list in [input, offsets] {
            if list.rank() != 1 {
                let reason = "is no list; bags of one length need no offsets".to_owned();
                return Err(Error::Shape { op: "EmbeddingBag", shape: list.shape().to_vec(), reason });
            }
        }
        let count = offsets.numel();
        let bags = if self.settings.include_last_offset { count.saturating_sub(1) } else { count };
        let device = self.weight.device();
        let place = Tensor::arange(0, input.numel() as i64, 1, (DType::I64, device))?;
        let bag = offsets.narrow(0, 0, bags)?.to_dtype(DType::I64)?.searchsorted(&place, true)?.sub(1)?;
        let (rows, counts) = self.rows(input, weights)?;
        let zeros = Tensor::zeros([bags, self.weight.size(1)?], (rows.dtype(), rows.device()))?;
        // How many rows of a bag count.
        let sizes = || {
            let ones = match &counts {
                Some(counts) => counts.to_dtype(rows.dtype())?,
                None => Tensor::ones([input.numel(), 1], (rows.dtype(), device))?,
            };
            Tensor::zeros([bags, 1], (rows.dtype(), device))?.index_add(0, &bag, &ones)
        };
        match self.settings.mode {
            BagMode::Sum => zeros.index_add(0, &bag, &rows),
            BagMode::Mean => zeros.index_add(0, &bag, &rows)?.div(sizes()?.clamp_min(1)?),
            BagMode::Max => {
                let index = bag.unsqueeze(-1)?.expand(rows.shape())?;
                let largest = zeros.scatter_reduce(0, &index, &rows, ScatterReduce::Amax, false)?;
                sizes()?.gt(0)?.where_cond(largest, 0.0)
            }
        }
    }
}

impl Layer for EmbeddingBag {
    /// Bags of one length, `[bags, length]`.
    fn forward(&self, input: &Tensor) -> Result<Tensor> {
        self.hooks.around(input, || self.equal_bags(input, None))
    }
}
