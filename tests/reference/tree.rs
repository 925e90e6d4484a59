//! What comes of a case: tensors, numbers and names in lists and maps, and how that is compared with what is
//! expected.

use std::collections::BTreeMap;

use anyhow::Result;
use serde_json::Value;
use wgrad::Tensor;

use crate::case::Case;
use crate::node::float;
use crate::recorded::compare::{Tolerance, compare_numbers};
use crate::recorded::numbers::Numbers;
use crate::report::Report;

/// A result, as deep as what is expected.
#[derive(Clone)]
pub enum Tree {
    Null,
    Bool(bool),
    Number(f64),
    Text(String),
    Tensor(Tensor),
    List(Vec<Tree>),
    Map(BTreeMap<String, Tree>),
}

impl Tree {
    /// A map of these.
    pub fn map<K: Into<String>, V: Into<Tree>>(entries: impl IntoIterator<Item = (K, V)>) -> Tree {
        Tree::Map(entries.into_iter().map(|(key, value)| (key.into(), value.into())).collect())
    }

    /// A list of these.
    pub fn list<V: Into<Tree>>(values: impl IntoIterator<Item = V>) -> Tree {
        Tree::List(values.into_iter().map(Into::into).collect())
    }

    fn describe(&self) -> String {
        match self {
            Tree::Null => "null".to_owned(),
            Tree::Bool(value) => value.to_string(),
            Tree::Number(value) => format!("{value:?}"),
            Tree::Text(text) => format!("{text:?}"),
            Tree::Tensor(tensor) => format!("a tensor of shape {:?}", tensor.shape()),
            Tree::List(list) => format!("a list of {}", list.len()),
            Tree::Map(map) => format!("a map of {:?}", map.keys().collect::<Vec<_>>()),
        }
    }
}

impl From<bool> for Tree {
    fn from(value: bool) -> Tree {
        Tree::Bool(value)
    }
}

impl From<f64> for Tree {
    fn from(value: f64) -> Tree {
        Tree::Number(value)
    }
}

impl From<i64> for Tree {
    fn from(value: i64) -> Tree {
        Tree::Number(value as f64)
    }
}

impl From<usize> for Tree {
    fn from(value: usize) -> Tree {
        Tree::Number(value as f64)
    }
}

impl From<&str> for Tree {
    fn from(text: &str) -> Tree {
        Tree::Text(text.to_owned())
    }
}

impl From<String> for Tree {
    fn from(text: String) -> Tree {
        Tree::Text(text)
    }
}

impl From<Tensor> for Tree {
    fn from(tensor: Tensor) -> Tree {
        Tree::Tensor(tensor)
    }
}

impl From<&Tensor> for Tree {
    fn from(tensor: &Tensor) -> Tree {
        Tree::Tensor(tensor.clone())
    }
}

impl<T: Into<Tree>> From<Option<T>> for Tree {
    fn from(value: Option<T>) -> Tree {
        value.map_or(Tree::Null, Into::into)
    }
}

impl<T: Into<Tree>> From<Vec<T>> for Tree {
    fn from(values: Vec<T>) -> Tree {
        Tree::list(values)
    }
}

/// A comparison under way.
pub struct Comparison<'c, 'a> {
    pub case: &'c Case<'a>,
    /// What numbers outside of tensors hold to.
    pub rtol: f64,
    pub report: &'c mut Report,
}

impl Comparison<'_, '_> {
    /// Notes where the two differ.
    pub fn compare(&mut self, actual: &Tree, expected: &Value, path: &str) -> Result<()> {
        let below = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
        let number = float(expected);
        match (actual, expected) {
            (Tree::Tensor(tensor), Value::Object(leaf)) if leaf.contains_key("tensor") => {
                self.compare_leaf(tensor, leaf, path)?;
            }
            (&Tree::Number(actual), _) if number.is_some() => {
                let expected = number.unwrap_or(f64::NAN);
                let allowed = (self.rtol * actual.abs().max(expected.abs())).max(1e-12);
                let both_nan = actual.is_nan() && expected.is_nan();
                let off = (actual - expected).abs();
                if actual == expected || both_nan || (off.is_finite() && off <= allowed) {
                    self.report.add(path, if off.is_finite() { off / allowed } else { 0.0 });
                } else {
                    self.report.miss(path, format!("{actual:?} instead of {expected:?}"));
                }
            }
            (Tree::Map(map), Value::Object(expected)) => {
                for key in map.keys().filter(|key| !expected.contains_key(*key)) {
                    self.report.miss(&below(key), "is not expected".to_owned());
                }
                for (key, expected) in expected {
                    match map.get(key) {
                        Some(actual) => self.compare(actual, expected, &below(key))?,
                        None => self.report.miss(&below(key), "is missing".to_owned()),
                    }
                }
            }
            (Tree::List(list), Value::Array(expected)) if list.len() == expected.len() => {
                for (i, (actual, expected)) in list.iter().zip(expected).enumerate() {
                    self.compare(actual, expected, &below(&i.to_string()))?;
                }
            }
            (Tree::Null, Value::Null) => {}
            (Tree::Bool(actual), Value::Bool(expected)) if actual == expected => {}
            (Tree::Text(actual), Value::String(expected)) if actual == expected => {}
            _ => {
                let text: String = expected.to_string().chars().take(200).collect();
                self.report.miss(path, format!("{} instead of {text}", actual.describe()));
            }
        }
        Ok(())
    }

    fn compare_leaf(
        &mut self,
        actual: &Tensor,
        leaf: &serde_json::Map<String, Value>,
        path: &str,
    ) -> Result<()> {
        let known = |key: &&String| ["tensor", "rtol", "atol"].contains(&key.as_str());
        if let Some(key) = leaf.keys().find(|key| !known(key)) {
            self.report.miss(path, format!("the leaf says {key:?}, which the runner does not know"));
            return Ok(());
        }
        let number = |key: &str| leaf.get(key).and_then(float).unwrap_or(0.0);
        let tolerance = Tolerance { rtol: number("rtol"), atol: number("atol") };
        let name = leaf.get("tensor").and_then(Value::as_str).unwrap_or_default();
        match compare_numbers(&Numbers::of(actual)?, &self.case.expected(name)?, tolerance) {
            Ok(error) => self.report.add(path, error),
            Err(miss) => self.report.miss(path, miss),
        }
        Ok(())
    }
}
