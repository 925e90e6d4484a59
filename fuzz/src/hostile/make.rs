//! How hostile arguments of each type are made.

use wgrad::{
    BackwardOptions, BatchNormOptions, Bound, ConvOptions, CrossEntropyOptions, DType, Device, FftNorm,
    GridPadding, GridSampling, Index, IntArray, Interpolation, NormOrder, Options, PadMode, Padding,
    PoolOptions, QrMode, Reduction, Rounding, Scalar, Scale, ScatterReduce, Target, Tensor, Triangle, Value,
};

use super::Arguments;

/// A type of which hostile arguments can be made.
pub trait Hostile: Sized {
    /// A value, and its text in Rust. `name` is the name of the parameter.
    fn hostile(g: &mut Arguments, name: &str) -> (Self, String);
}

macro_rules! integers {
    ($($ty:ty),*) => {$(
        impl Hostile for $ty {
            fn hostile(g: &mut Arguments, _: &str) -> (Self, String) {
                let number = g.integer().clamp(<$ty>::MIN as i128, <$ty>::MAX as i128) as $ty;
                (number, number.to_string())
            }
        }
    )*};
}
integers!(isize, usize, i64, i32, u64);

/// Types of which an argument is one of several values. The text is the expression itself.
macro_rules! choices {
    ($($ty:ty: [$($choice:expr),*];)*) => {$(
        impl Hostile for $ty {
            fn hostile(g: &mut Arguments, _: &str) -> (Self, String) {
                let all = [$($choice),*];
                let at = g.random.below(all.len());
                let text = [$(stringify!($choice)),*][at];
                let Some(choice) = all.into_iter().nth(at) else {
                    unreachable!("the number is below their count")
                };
                (choice, text.to_owned())
            }
        }
    )*};
}
choices! {
    bool: [false, true];
    DType: [DType::Bool, DType::U8, DType::I32, DType::I64, DType::F16, DType::BF16, DType::F32, DType::F64];
    PadMode: [PadMode::Reflect, PadMode::Replicate, PadMode::Circular];
    Reduction: [Reduction::Mean, Reduction::Sum, Reduction::None];
    Rounding: [Rounding::Trunc, Rounding::Floor];
    ScatterReduce: [
        ScatterReduce::Sum, ScatterReduce::Prod, ScatterReduce::Mean, ScatterReduce::Amax, ScatterReduce::Amin
    ];
    GridSampling: [GridSampling::Bilinear, GridSampling::Nearest, GridSampling::Bicubic];
    GridPadding: [GridPadding::Zeros, GridPadding::Border, GridPadding::Reflection];
    Interpolation: [
        Interpolation::Nearest, Interpolation::NearestExact, Interpolation::Linear, Interpolation::Bicubic,
        Interpolation::Area
    ];
    FftNorm: [FftNorm::Backward, FftNorm::Ortho, FftNorm::Forward];
    QrMode: [QrMode::Reduced, QrMode::Complete, QrMode::R];
    Triangle: [Triangle::Lower, Triangle::Upper];
    String: [
        "ij,jk->ik".to_owned(), "...i->...".to_owned(), "ii->i".to_owned(), "".to_owned(), "i,i".to_owned(),
        "->".to_owned(), "i->j".to_owned(), "......".to_owned(), "ä,β->é".to_owned(),
        "ab, ...c -> c...".to_owned()
    ];
}

impl Hostile for f64 {
    fn hostile(g: &mut Arguments, _: &str) -> (Self, String) {
        let number = g.float();
        (number, format!("{number:?}"))
    }
}

impl Hostile for f32 {
    fn hostile(g: &mut Arguments, _: &str) -> (Self, String) {
        let number = g.float() as f32;
        (number, format!("{number:?}"))
    }
}

impl Hostile for Tensor {
    fn hostile(g: &mut Arguments, name: &str) -> (Self, String) {
        g.tensor(name)
    }
}

impl<T: Hostile> Hostile for Option<T> {
    fn hostile(g: &mut Arguments, name: &str) -> (Self, String) {
        if g.random.chance(40) {
            return (None, "None".to_owned());
        }
        let (value, text) = T::hostile(g, name);
        (Some(value), format!("Some({text})"))
    }
}

impl<T: Hostile> Hostile for Vec<T> {
    fn hostile(g: &mut Arguments, name: &str) -> (Self, String) {
        let (values, texts): (Vec<T>, Vec<String>) = (0..g.count()).map(|_| T::hostile(g, name)).unzip();
        (values, format!("[{}]", texts.join(", ")))
    }
}

impl<T: Hostile, const N: usize> Hostile for [T; N] {
    fn hostile(g: &mut Arguments, name: &str) -> (Self, String) {
        let mut texts = Vec::new();
        let values = std::array::from_fn(|_| {
            let (value, text) = T::hostile(g, name);
            texts.push(text);
            value
        });
        (values, format!("[{}]", texts.join(", ")))
    }
}

impl<A: Hostile, B: Hostile> Hostile for (A, B) {
    fn hostile(g: &mut Arguments, name: &str) -> (Self, String) {
        let ((a, a_text), (b, b_text)) = (A::hostile(g, name), B::hostile(g, name));
        ((a, b), format!("({a_text}, {b_text})"))
    }
}

impl Hostile for IntArray {
    fn hostile(g: &mut Arguments, name: &str) -> (Self, String) {
        let own = g.receiver_shape();
        if let Some(shape) = own
            && g.random.chance(15)
        {
            return (IntArray::from(&shape[..]), format!("{shape:?}"));
        }
        let (list, text) = Vec::<i64>::hostile(g, name);
        (IntArray::from(list), text)
    }
}

impl Hostile for Scalar {
    fn hostile(g: &mut Arguments, name: &str) -> (Self, String) {
        match g.random.below(3) {
            0 => (Scalar::Bool(true), "true".to_owned()),
            1 => {
                let (number, text) = i64::hostile(g, name);
                (Scalar::Int(number), text)
            }
            _ => {
                let (number, text) = f64::hostile(g, name);
                (Scalar::Float(number), text)
            }
        }
    }
}

impl Hostile for Value {
    fn hostile(g: &mut Arguments, name: &str) -> (Self, String) {
        if g.random.chance(60) {
            let (tensor, text) = g.tensor(name);
            return (Value::Tensor(tensor), format!("&{text}"));
        }
        let (number, text) = Scalar::hostile(g, name);
        (Value::Scalar(number), text)
    }
}

impl Hostile for Bound {
    fn hostile(g: &mut Arguments, name: &str) -> (Self, String) {
        match g.random.below(3) {
            0 => (Bound::None, "Bound::None".to_owned()),
            1 => {
                let (tensor, text) = g.tensor(name);
                (Bound::Tensor(tensor), format!("&{text}"))
            }
            _ => {
                let (number, text) = Scalar::hostile(g, name);
                (Bound::Scalar(number), text)
            }
        }
    }
}

impl Hostile for Device {
    fn hostile(g: &mut Arguments, _: &str) -> (Self, String) {
        let device = if g.random.chance(80) { g.device.clone() } else { Device::cpu() };
        let text = format!("&{:?}", device.name());
        (device, text)
    }
}

impl Hostile for Options {
    fn hostile(g: &mut Arguments, name: &str) -> (Self, String) {
        let ((dtype, dtype_text), (device, text)) =
            (Option::<DType>::hostile(g, name), Device::hostile(g, name));
        (Options { dtype, device }, format!("Options {{ dtype: {dtype_text}, device: {text} }}"))
    }
}

impl Hostile for Target {
    fn hostile(g: &mut Arguments, name: &str) -> (Self, String) {
        let (dtype, dtype_text) = Option::<DType>::hostile(g, name);
        let (device, text) = Option::<Device>::hostile(g, name);
        (Target { dtype, device }, format!("Target {{ dtype: {dtype_text}, device: {text} }}"))
    }
}

impl Hostile for Index {
    fn hostile(g: &mut Arguments, _: &str) -> (Self, String) {
        match g.random.below(6) {
            0 => {
                let (at, text) = isize::hostile(g, "");
                (Index::At(at), format!("Index::At({text})"))
            }
            1 => {
                let ((start, a), (end, b)) =
                    (Option::<isize>::hostile(g, ""), Option::<isize>::hostile(g, ""));
                let (step, c) = usize::hostile(g, "");
                (Index::Slice(start, end, step), format!("Index::Slice({a}, {b}, {c})"))
            }
            2 => (Index::Ellipsis, "Index::Ellipsis".to_owned()),
            3 => (Index::NewAxis, "Index::NewAxis".to_owned()),
            4 => {
                let (tensor, text) = g.tensor("index");
                (Index::Tensor(tensor), format!("Index::Tensor({text})"))
            }
            _ => {
                let yes = g.random.chance(50);
                (Index::Bool(yes), format!("Index::Bool({yes})"))
            }
        }
    }
}

impl Hostile for NormOrder {
    fn hostile(g: &mut Arguments, name: &str) -> (Self, String) {
        match g.random.below(4) {
            0 => (NormOrder::Frobenius, "NormOrder::Frobenius".to_owned()),
            1 => (NormOrder::Nuclear, "NormOrder::Nuclear".to_owned()),
            _ => {
                let (number, text) = f64::hostile(g, name);
                (NormOrder::Number(number), text)
            }
        }
    }
}

impl Hostile for Scale {
    fn hostile(g: &mut Arguments, name: &str) -> (Self, String) {
        if g.random.chance(50) {
            let (size, text) = Vec::<usize>::hostile(g, name);
            return (Scale::Size(size), format!("Scale::Size(vec!{text})"));
        }
        let (factor, text) = Vec::<f64>::hostile(g, name);
        let again = g.random.chance(50);
        (Scale::Factor(factor, again), format!("Scale::Factor(vec!{text}, {again})"))
    }
}

impl Hostile for Padding {
    fn hostile(g: &mut Arguments, name: &str) -> (Self, String) {
        match g.random.below(4) {
            0 => (Padding::Valid, "Padding::Valid".to_owned()),
            1 => (Padding::Same, "Padding::Same".to_owned()),
            _ => {
                let (list, text) = Vec::<usize>::hostile(g, name);
                (Padding::Explicit(list), format!("Padding::Explicit(vec!{text})"))
            }
        }
    }
}

/// Structs of options, in which each field is the default one or a hostile one.
macro_rules! options {
    ($($ty:ident = $default:expr; { $($field:ident),* };)*) => {$(
        impl Hostile for $ty {
            fn hostile(g: &mut Arguments, _: &str) -> (Self, String) {
                let mut options: $ty = $default;
                let mut texts = Vec::<String>::new();
                $(if g.random.chance(45) {
                    let (value, text) = Hostile::hostile(g, stringify!($field));
                    options.$field = value;
                    texts.push(format!("{}: {text}", stringify!($field)));
                })*
                (options, format!("&{} {{ {} }}", stringify!($ty), texts.join(", ")))
            }
        }
    )*};
}
options! {
    ConvOptions = ConvOptions::default(); { stride, padding, dilation, groups, output_padding };
    PoolOptions = PoolOptions::new(&[2, 2]);
        { kernel_size, stride, padding, dilation, ceil_mode, count_include_pad, divisor_override };
    BatchNormOptions = BatchNormOptions::default();
        { running_mean, running_var, weight, bias, momentum, eps };
    CrossEntropyOptions = CrossEntropyOptions::default();
        { weight, ignore_index, label_smoothing, reduction };
}

impl Hostile for BackwardOptions {
    fn hostile(g: &mut Arguments, _: &str) -> (Self, String) {
        let (gradients, text) = Vec::<Option<Tensor>>::hostile(g, "gradient");
        let (keep, create) = (g.random.chance(50), g.random.chance(50));
        let mut options = BackwardOptions::new().retain_graph(keep).create_graph(create);
        let mut all = format!("BackwardOptions::new().retain_graph({keep}).create_graph({create})");
        if g.random.chance(60) {
            options = options.gradients(gradients);
            all += &format!(".gradients({text})");
        }
        (options, all)
    }
}
