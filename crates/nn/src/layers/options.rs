//! How layers are configured: a method for each setting that has a default, of a struct of settings, or of a
//! layer without tensors itself.

use wgrad_autograd::{Error, Result};

/// What a method takes for a setting of a type: what is easily made into it.
macro_rules! argument {
    (Sizes) => { impl Into<Sizes> };
    (OutputSize) => { impl Into<OutputSize> };
    (Margins) => { impl Into<Margins> };
    (Option<$inner:ty>) => { impl Into<Option<$inner>> };
    ($other:ident) => { $other };
}
pub(crate) use argument;

/// Settings with defaults, each set by a method of its name.
///
/// `settings! { /// Documentation. Name { required: Type, … ; optional: Type = default, … } }`
macro_rules! settings {
    (
        $(#[$about:meta])*
        $name:ident {
            $($needed:ident: $needed_type:ident),* ;
            $($(#[$meaning:meta])* $wish:ident: $type:ident $(<$inner:ty>)? = $default:expr),* $(,)?
        }
    ) => {
        $(#[$about])*
        #[derive(Clone, Debug)]
        pub struct $name {
            $(pub(crate) $needed: $needed_type,)*
            $(pub(crate) $wish: $type $(<$inner>)?,)*
        }

        impl $name {
            pub(crate) fn new($($needed: argument!($needed_type)),*) -> $name {
                $name { $($needed: $needed.into(),)* $($wish: $default,)* }
            }

            $(
                $(#[$meaning])*
                pub fn $wish(mut self, $wish: argument!($type $(<$inner>)?)) -> Self {
                    self.$wish = $wish.into();
                    self
                }
            )*
        }
    };
}
pub(crate) use settings;

/// Layers without tensors, which are their own settings: what they need, a method for each setting that has a
/// default, and what is computed.
///
/// `functions! { /// About. Name(required: Type, …) { optional: Type = default, … } |layer, x| result; }`
macro_rules! functions {
    ($(
        $(#[$about:meta])*
        $name:ident ($($needed:ident: $needed_type:ident),*) {
            $($(#[$meaning:meta])* $wish:ident: $type:ident $(<$inner:ty>)? = $default:expr),*
        } |$layer:ident, $x:ident| $forward:expr;
    )*) => {$(
        $(#[$about])*
        #[derive(Clone, Debug, crate::Module)]
        pub struct $name {
            $(#[module(skip)] $needed: $needed_type,)*
            $(#[module(skip)] $wish: $type $(<$inner>)?,)*
            hooks: crate::Hooks,
        }

        impl $name {
            /// The layer, with PyTorch's defaults.
            #[allow(clippy::new_without_default)]
            pub fn new($($needed: argument!($needed_type)),*) -> $name {
                $name { $($needed: $needed.into(),)* $($wish: $default,)* hooks: crate::Hooks::default() }
            }

            $(
                $(#[$meaning])*
                pub fn $wish(mut self, $wish: argument!($type $(<$inner>)?)) -> Self {
                    self.$wish = $wish.into();
                    self
                }
            )*
        }

        impl crate::Layer for $name {
            fn forward(&self, input: &Tensor) -> Result<Tensor> {
                let ($layer, $x) = (self, input);
                self.hooks.around(input, || $forward)
            }
        }
    )*};
}
pub(crate) use functions;

/// As many numbers as dims, from a list of as many, or of one.
pub(crate) fn spread<const N: usize>(op: &'static str, name: &str, sizes: &Sizes) -> Result<[usize; N]> {
    match sizes.0.as_slice() {
        [one] => Ok([*one; N]),
        list => list.try_into().map_err(|_| {
            let reason = format!("{name} has {} numbers; give one, or one for each of {N} dims", list.len());
            Error::Argument { op, reason }
        }),
    }
}

/// One number, or one for each dim: `3`, `[3, 5]`, `&[3, 5]`, `vec![3, 5]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sizes(pub(crate) Vec<usize>);

impl From<usize> for Sizes {
    fn from(size: usize) -> Self {
        Sizes(vec![size])
    }
}

impl From<Vec<usize>> for Sizes {
    fn from(sizes: Vec<usize>) -> Self {
        Sizes(sizes)
    }
}

impl From<&[usize]> for Sizes {
    fn from(sizes: &[usize]) -> Self {
        Sizes(sizes.to_vec())
    }
}

impl<const N: usize> From<[usize; N]> for Sizes {
    fn from(sizes: [usize; N]) -> Self {
        Sizes(sizes.to_vec())
    }
}

impl<const N: usize> From<&[usize; N]> for Sizes {
    fn from(sizes: &[usize; N]) -> Self {
        Sizes(sizes.to_vec())
    }
}
