//! Settings of optimisers: the builders, and the same by PyTorch's names, as states and schedules need them.

use std::collections::BTreeMap;

use wgrad_autograd::{Error, Result};

/// The value of a setting such as `lr` or `betas`.
///
/// ```
/// use wgrad::optim::Setting;
///
/// assert_eq!(Setting::from(0.1), Setting::Float(0.1));
/// assert_eq!(Setting::from([0.9, 0.999]), Setting::List(vec![0.9.into(), 0.999.into()]));
/// ```
#[derive(Clone, Debug, PartialEq)]
pub enum Setting {
    /// Nothing; Python's `None`.
    None,
    /// On or off.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A number.
    Float(f64),
    /// A name.
    Text(String),
    /// Several, as `betas`.
    List(Vec<Setting>),
}

/// Settings by PyTorch's names.
pub type Settings = BTreeMap<String, Setting>;

impl Setting {
    /// It as a number, if it is one.
    ///
    /// ```
    /// use wgrad::optim::Setting;
    ///
    /// assert_eq!(Setting::Int(2).as_f64(), Some(2.0));
    /// assert_eq!(Setting::None.as_f64(), None);
    /// ```
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Setting::Int(value) => Some(*value as f64),
            Setting::Float(value) => Some(*value),
            _ => None,
        }
    }
}

impl From<bool> for Setting {
    fn from(value: bool) -> Setting {
        Setting::Bool(value)
    }
}

impl From<f64> for Setting {
    fn from(value: f64) -> Setting {
        Setting::Float(value)
    }
}

impl From<usize> for Setting {
    fn from(value: usize) -> Setting {
        i64::try_from(value).map_or(Setting::Float(value as f64), Setting::Int)
    }
}

impl<T: Into<Setting>> From<Option<T>> for Setting {
    fn from(value: Option<T>) -> Setting {
        value.map_or(Setting::None, Into::into)
    }
}

impl<T: Into<Setting>, const N: usize> From<[T; N]> for Setting {
    fn from(values: [T; N]) -> Setting {
        Setting::List(values.into_iter().map(Into::into).collect())
    }
}

/// A type that settings have.
pub(super) trait Typed: Sized {
    /// What it looks like, for errors.
    const KIND: &'static str;

    fn from_setting(setting: &Setting) -> Option<Self>;
}

impl Typed for bool {
    const KIND: &'static str = "true or false";

    fn from_setting(setting: &Setting) -> Option<bool> {
        match setting {
            Setting::Bool(value) => Some(*value),
            _ => None,
        }
    }
}

impl Typed for f64 {
    const KIND: &'static str = "a number";

    fn from_setting(setting: &Setting) -> Option<f64> {
        setting.as_f64()
    }
}

impl Typed for usize {
    const KIND: &'static str = "a whole number from 0 on";

    fn from_setting(setting: &Setting) -> Option<usize> {
        match setting {
            Setting::Int(value) => usize::try_from(*value).ok(),
            _ => None,
        }
    }
}

impl<T: Typed> Typed for Option<T> {
    const KIND: &'static str = T::KIND;

    fn from_setting(setting: &Setting) -> Option<Option<T>> {
        match setting {
            Setting::None => Some(None),
            setting => T::from_setting(setting).map(Some),
        }
    }
}

impl<T: Typed, const N: usize> Typed for [T; N] {
    const KIND: &'static str = "a list of the right length";

    fn from_setting(setting: &Setting) -> Option<[T; N]> {
        let Setting::List(values) = setting else { return None };
        values.iter().map(T::from_setting).collect::<Option<Vec<T>>>()?.try_into().ok()
    }
}

/// Reads a setting into a field.
pub(super) fn assign<T: Typed>(op: &'static str, name: &str, field: &mut T, value: &Setting) -> Result<()> {
    *field = T::from_setting(value).ok_or_else(|| Error::Argument {
        op,
        reason: format!("{name} is {value:?}; it must be {}", T::KIND),
    })?;
    Ok(())
}

/// An error unless a number is at least 0.
pub(super) fn not_negative(op: &'static str, name: &str, value: f64) -> Result<()> {
    check(op, value >= 0.0, || format!("{name} is {value}; it must be at least 0"))
}

/// An error unless all of these are at least 0 and below 1.
pub(super) fn below_one(op: &'static str, name: &str, values: &[f64]) -> Result<()> {
    check(op, values.iter().all(|value| (0.0..1.0).contains(value)), || {
        format!("{name} is {values:?}; each must be at least 0 and below 1")
    })
}

/// An error with this reason unless something holds.
pub(super) fn check(op: &'static str, holds: bool, reason: impl FnOnce() -> String) -> Result<()> {
    if holds { Ok(()) } else { Err(Error::Argument { op, reason: reason() }) }
}

/// The settings of an optimiser: a struct with a builder for each field, and access by PyTorch's names. A row
/// is documentation, name, type and default; `example` is the value that the builder's example sets.
macro_rules! settings {
    ($(#[$doc:meta])* $Options:ident of $optimiser:literal {
        $($(#[$field_doc:meta])* $field:ident: $Type:ty = $default:expr, example $example:expr;)*
    }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $Options {
            $($(#[$field_doc])* pub $field: $Type,)*
        }

        impl Default for $Options {
            fn default() -> Self {
                $Options { $($field: $default,)* }
            }
        }

        impl $Options {
            /// PyTorch's defaults.
            ///
            #[doc = concat!("```\nuse wgrad::optim::", stringify!($Options), ";\n\nassert_eq!(",
                stringify!($Options), "::new(), ", stringify!($Options), "::default());\n```")]
            pub fn new() -> Self {
                Self::default()
            }

            $(
                $(#[$field_doc])*
                ///
                #[doc = concat!("```\nuse wgrad::optim::", stringify!($Options), ";\n\nlet options = ",
                    stringify!($Options), "::new().", stringify!($field), "(", stringify!($example),
                    ");\nassert_eq!(options.", stringify!($field), ", ", stringify!($example), ");\n```")]
                pub fn $field(mut self, $field: $Type) -> Self {
                    self.$field = $field;
                    self
                }
            )*
        }

        impl $crate::optim::rule::Named for $Options {
            const OPTIMISER: &'static str = $optimiser;

            fn settings(&self) -> $crate::optim::Settings {
                [$((stringify!($field).to_owned(), self.$field.clone().into()),)*].into()
            }

            fn set(&mut self, name: &str, value: &$crate::optim::Setting) -> wgrad_autograd::Result<bool> {
                match name {
                    $(stringify!($field) => {
                        $crate::optim::setting::assign(Self::OPTIMISER, name, &mut self.$field, value)?;
                    })*
                    _ => return Ok(false),
                }
                Ok(true)
            }
        }
    };
}
pub(super) use settings;
