//! How layers are configured: the settings of a layer are a struct with a method for each that has a default.

/// Settings with defaults, each set by a method of its name.
///
/// `settings! { /// Documentation. Name { required: Type, … ; optional: Type = default, … } }`
macro_rules! settings {
    (
        $(#[$about:meta])*
        $name:ident {
            $($needed:ident: $needed_type:ty),* ;
            $($(#[$meaning:meta])* $wish:ident: $wish_type:ty = $default:expr),* $(,)?
        }
    ) => {
        $(#[$about])*
        #[derive(Clone, Debug)]
        pub struct $name {
            $(pub(crate) $needed: $needed_type,)*
            $(pub(crate) $wish: $wish_type,)*
        }

        impl $name {
            pub(crate) fn new($($needed: impl Into<$needed_type>),*) -> $name {
                $name { $($needed: $needed.into(),)* $($wish: $default,)* }
            }

            $(
                $(#[$meaning])*
                pub fn $wish(mut self, $wish: impl Into<$wish_type>) -> Self {
                    self.$wish = $wish.into();
                    self
                }
            )*
        }
    };
}
pub(crate) use settings;

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
