//! Printing as PyTorch does: the same digits, widths, line breaks and suffixes.

use std::fmt;

use wgrad_array::{Array, DType, Result, Scalar, default_dtype};

use crate::Tensor;

/// PyTorch's print options, with their defaults.
const PRECISION: usize = 4;
const THRESHOLD: usize = 1000;
const EDGE_ITEMS: usize = 3;
const LINE_WIDTH: usize = 80;

/// A tensor's elements, those left out of a summary excepted.
struct Elements {
    /// The shape with long dims cut to twice the edge items.
    shape: Vec<usize>,
    /// Which dims were cut.
    cut: Vec<bool>,
    values: Vec<Scalar>,
}

impl Elements {
    /// Reads a tensor's elements; of a large one only the edges.
    fn read(x: &Array) -> Result<Elements> {
        let summarize = x.elements() > THRESHOLD;
        let mut edges = x.clone();
        let mut cut = Vec::new();
        for (dim, &size) in x.shape().iter().enumerate() {
            let long = summarize && size > 2 * EDGE_ITEMS;
            cut.push(long);
            if long {
                let first = edges.slice(dim, 0, EDGE_ITEMS, 1)?;
                let last = edges.slice(dim, size - EDGE_ITEMS, EDGE_ITEMS, 1)?;
                edges = Array::cat(&[first, last], dim)?;
            }
        }
        let values = match x.dtype() {
            DType::Bool => edges.to_vec::<bool>()?.into_iter().map(Scalar::Bool).collect(),
            DType::U8 | DType::I32 | DType::I64 => {
                edges.cast(DType::I64)?.to_vec::<i64>()?.into_iter().map(Scalar::Int).collect()
            }
            DType::F64 => edges.to_vec::<f64>()?.into_iter().map(Scalar::Float).collect(),
            DType::F32 | DType::F16 | DType::BF16 => {
                let wide = edges.cast(DType::F32)?.to_vec::<f32>()?;
                wide.into_iter().map(|value| Scalar::Float(value.into())).collect()
            }
        };
        Ok(Elements { shape: edges.shape().to_vec(), cut, values })
    }
}

/// How the numbers of one tensor are written: all alike, and equally wide.
struct Format {
    style: Style,
    /// Digits behind the point.
    precision: usize,
    width: usize,
}

#[derive(Clone, Copy, PartialEq)]
enum Style {
    /// Integers and bools.
    Plain,
    /// Floats that are all integers: `1.`
    Whole,
    /// Decimals.
    Fixed,
    /// Decimals and an exponent.
    Scientific,
}

impl Format {
    /// What fits these values. A precision that was asked for is kept in whole numbers too.
    fn of(dtype: DType, values: &[Scalar], asked: Option<usize>, least_width: usize) -> Format {
        let precision = asked.unwrap_or(PRECISION);
        let mut format = Format { style: Style::Plain, precision, width: 1 };
        if !dtype.is_float() {
            format.width = values.iter().map(|&value| format.text(value).len()).max().unwrap_or(1);
            format.width = format.width.max(least_width).max(1);
            return format;
        }
        let numbers: Vec<f64> = values
            .iter()
            .map(|value| value.as_f64())
            .filter(|value| value.is_finite() && *value != 0.0)
            .collect();
        format.style = if asked.is_some() { Style::Fixed } else { Style::Whole };
        if numbers.is_empty() {
            format.width = least_width.max(1);
            return format;
        }
        let largest = numbers.iter().fold(0f64, |max, value| max.max(value.abs()));
        let smallest = numbers.iter().fold(f64::INFINITY, |min, value| min.min(value.abs()));
        let wide_range = match dtype {
            // As PyTorch on devices without f64, and for halves: the quotient in f32 decides the same way.
            DType::F64 => largest / smallest > 1000.0,
            _ => f64::from(largest as f32) / f64::from(smallest as f32) > 1000.0,
        };
        format.style = if wide_range || largest > 1e8 || smallest < 1e-4 {
            Style::Scientific
        } else if asked.is_none() && numbers.iter().all(|value| value.fract() == 0.0) {
            Style::Whole
        } else {
            Style::Fixed
        };
        format.width =
            numbers.iter().map(|&value| format.text(Scalar::Float(value)).len()).max().unwrap_or(1);
        format.width = format.width.max(least_width);
        format
    }

    fn text(&self, value: Scalar) -> String {
        let value = match value {
            Scalar::Bool(value) => return if value { "True".into() } else { "False".into() },
            Scalar::Int(value) => return value.to_string(),
            Scalar::Float(value) => value,
        };
        if value.is_nan() {
            return "nan".into();
        }
        if value.is_infinite() {
            return if value > 0.0 { "inf".into() } else { "-inf".into() };
        }
        match self.style {
            Style::Plain | Style::Whole => format!("{value:.0}."),
            Style::Fixed => format!("{value:.*}", self.precision),
            Style::Scientific => scientific(value, self.precision),
        }
    }

    fn padded(&self, value: Scalar) -> String {
        format!("{:>width$}", self.text(value), width = self.width)
    }
}

/// Python's `{:.4e}`: at least two digits of exponent, and its sign.
fn scientific(value: f64, precision: usize) -> String {
    let text = format!("{value:.precision$e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, digits) = match exponent.strip_prefix('-') {
        Some(digits) => ('-', digits),
        None => ('+', exponent),
    };
    format!("{mantissa}e{sign}{digits:0>2}")
}

/// The elements as nested lists.
fn body(elements: &Elements, format: &Format, dim: usize, start: usize, indent: usize) -> String {
    let Some(&size) = elements.shape.get(dim) else {
        return format.padded(elements.values[start]);
    };
    let stride: usize = elements.shape[dim + 1..].iter().product();
    let cut = elements.cut[dim];
    if dim + 1 == elements.shape.len() {
        let mut items: Vec<String> = (0..size).map(|i| format.padded(elements.values[start + i])).collect();
        if cut {
            items.insert(EDGE_ITEMS, " ...".into());
        }
        let per_line = (LINE_WIDTH.saturating_sub(indent) / (format.width + 2)).max(1);
        let lines: Vec<String> = items.chunks(per_line).map(|line| line.join(", ")).collect();
        return format!("[{}]", lines.join(&format!(",\n{}", " ".repeat(indent + 1))));
    }
    let mut slices: Vec<String> =
        (0..size).map(|i| body(elements, format, dim + 1, start + i * stride, indent + 1)).collect();
    if cut {
        slices.insert(EDGE_ITEMS, "...".into());
    }
    let inner = elements.shape.len() - dim - 1;
    let separator = format!(",{}{}", "\n".repeat(inner), " ".repeat(indent + 1));
    format!("[{}]", slices.join(&separator))
}

/// The tensor as text; every number with `precision` decimals, if given, and at least `least_width` characters.
fn describe(x: &Tensor, precision: Option<usize>, least_width: usize) -> Result<String> {
    const PREFIX: &str = "tensor(";
    let mut suffixes = Vec::new();
    if !x.device().is_cpu() {
        suffixes.push(format!("device='{}'", x.device()));
    }
    let usual_dtype = x.dtype() == default_dtype() || matches!(x.dtype(), DType::I64 | DType::Bool);
    let text = if x.numel() == 0 {
        if x.rank() != 1 {
            let sizes: Vec<String> = x.shape().iter().map(usize::to_string).collect();
            suffixes.push(format!("size=({})", sizes.join(", ")));
        }
        if x.dtype() != default_dtype() {
            suffixes.push(format!("dtype=torch.{}", x.dtype().torch_name()));
        }
        "[]".to_owned()
    } else {
        if !usual_dtype {
            suffixes.push(format!("dtype=torch.{}", x.dtype().torch_name()));
        }
        let elements = Elements::read(&x.array()?)?;
        let format = Format::of(x.dtype(), &elements.values, precision, least_width);
        body(&elements, &format, 0, 0, PREFIX.len())
    };
    match x.grad_fn() {
        Some(node) => suffixes.push(format!("grad_fn=<{}>", node.name())),
        None if x.requires_grad() => suffixes.push("requires_grad=True".into()),
        None => {}
    }
    let mut out = format!("{PREFIX}{text}");
    // PyTorch counts one more than the line has, and where there is only one yet another.
    let mut last_line = out.rfind('\n').map_or(out.len() + 2, |position| out.len() - position + 1);
    for suffix in suffixes {
        if last_line + suffix.len() + 2 > LINE_WIDTH {
            out.push_str(&format!(",\n{}{suffix}", " ".repeat(PREFIX.len())));
            last_line = PREFIX.len() + suffix.len();
        } else {
            out.push_str(&format!(", {suffix}"));
            last_line += suffix.len() + 2;
        }
    }
    out.push(')');
    Ok(out)
}

/// The number in a 0-dim tensor.
fn number(x: &Tensor) -> Result<Scalar> {
    Ok(Elements::read(&x.array()?)?.values[0])
}

/// Writes a number as the formatter asks: its precision, width, alignment, sign and zeros. Integers and bools have no decimals.
fn write_number(f: &mut fmt::Formatter<'_>, dtype: DType, number: Scalar) -> fmt::Result {
    let text = match (number, f.precision()) {
        (Scalar::Bool(true), _) => "True".into(),
        (Scalar::Bool(false), _) => "False".into(),
        (Scalar::Int(value), _) => value.to_string(),
        (Scalar::Float(value), _) if value.is_nan() => "nan".into(),
        (Scalar::Float(value), Some(precision)) => format!("{value:.precision$}"),
        (Scalar::Float(value), None) if dtype == DType::F64 => value.to_string(),
        (Scalar::Float(value), None) => (value as f32).to_string(),
    };
    match text.strip_prefix('-') {
        Some(digits) => f.pad_integral(false, "", digits),
        None => f.pad_integral(true, "", &text),
    }
}

/// As PyTorch prints a tensor; large ones are summarised. An error on the way to the value stands in its place.
///
/// ```
/// use wgrad_autograd::{Device, Tensor};
/// let x = Tensor::new([[1f32, 9.0, 0.0]], &Device::cpu())?.requires_grad_(true)?;
/// assert_eq!(x.to_string(), "tensor([[1., 9., 0.]], requires_grad=True)");
/// assert_eq!((&x + 1.0)?.to_string(), "tensor([[ 2., 10.,  1.]], grad_fn=<AddBackward0>)");
/// # Ok::<(), wgrad_autograd::Error>(())
/// ```
///
/// With a precision or a width, a 0-dim tensor is written as its number, as by Python's `f"{loss:.4f}"`. In other tensors both are those of
/// each number, and four decimals are the default.
///
/// ```
/// use wgrad_autograd::{Device, Tensor};
/// let x = Tensor::new([1.0, 2.34567], &Device::cpu())?;
/// assert_eq!(format!("loss {:.4}", x.mean()?), "loss 1.6728");
/// assert_eq!(format!("{:>8.2}|", x.mean()?), "    1.67|");
/// assert_eq!(format!("{x:.2}"), "tensor([1.00, 2.35])");
/// # Ok::<(), wgrad_autograd::Error>(())
/// ```
impl fmt::Display for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (precision, width) = (f.precision(), f.width());
        let failed = if self.rank() == 0 && (precision.is_some() || width.is_some()) {
            match number(self) {
                Ok(number) => return write_number(f, self.dtype(), number),
                Err(error) => error,
            }
        } else {
            match describe(self, precision, width.unwrap_or(0)) {
                Ok(text) => return f.write_str(&text),
                Err(error) => error,
            }
        };
        write!(f, "tensor(<{failed}>)")
    }
}
