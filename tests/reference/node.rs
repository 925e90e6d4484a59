//! What a case says, as a tree that notes what was read of it: what nobody read is an option that the runner
//! does not know, and the case fails.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;

use anyhow::{Context, Result, anyhow, bail};
use serde_json::{Map, Value};

/// A value of a case. Cheap to clone.
#[derive(Clone)]
pub struct Node<'a> {
    value: &'a Value,
    path: String,
    read: Rc<RefCell<BTreeSet<String>>>,
}

impl<'a> Node<'a> {
    /// A tree of which nothing has been read.
    pub fn new(value: &'a Value) -> Node<'a> {
        Node { value, path: String::new(), read: Rc::default() }
    }

    fn child(&self, name: &str, value: &'a Value) -> Node<'a> {
        let path = if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) };
        Node { value, path, read: self.read.clone() }
    }

    fn object(&self) -> Result<&'a Map<String, Value>> {
        self.value.as_object().ok_or_else(|| self.not("an object"))
    }

    fn not(&self, what: &str) -> anyhow::Error {
        anyhow!("{} is {}, not {what}", self.path, self.value)
    }

    /// What stands under a key. It is not read by that.
    pub fn find(&self, key: &str) -> Option<Node<'a>> {
        self.value.as_object()?.get(key).map(|value| self.child(key, value))
    }

    /// What stands under a key that must be there.
    pub fn get(&self, key: &str) -> Result<Node<'a>> {
        self.find(key).with_context(|| format!("{} has no {key:?}", self.path))
    }

    /// What stands under a key, read, if it is there: `options.read("lr", Node::float)`.
    pub fn read<T>(&self, key: &str, with: impl FnOnce(&Node<'a>) -> Result<T>) -> Result<Option<T>> {
        self.find(key).map(|node| with(&node)).transpose()
    }

    /// The keys of an object with what stands under them.
    pub fn entries(&self) -> Result<Vec<(&'a str, Node<'a>)>> {
        let entry = |(key, value): (&'a String, &'a Value)| (key.as_str(), self.child(key, value));
        Ok(self.object()?.iter().map(entry).collect())
    }

    /// The elements of a list.
    pub fn items(&self) -> Result<Vec<Node<'a>>> {
        let list = self.value.as_array().ok_or_else(|| self.not("a list"))?;
        Ok(list.iter().enumerate().map(|(i, value)| self.child(&i.to_string(), value)).collect())
    }

    /// All elements of a list: `node.list(Node::float)`.
    pub fn list<T>(&self, with: impl Fn(&Node<'a>) -> Result<T>) -> Result<Vec<T>> {
        self.items()?.iter().map(with).collect()
    }

    /// As many elements as that: `let [b1, b2] = node.array(Node::float)?`.
    pub fn array<T, const N: usize>(&self, with: impl Fn(&Node<'a>) -> Result<T>) -> Result<[T; N]> {
        self.list(with)?.try_into().map_err(|_| self.not(&format!("a list of {N}")))
    }

    /// `None` for null: `node.optional(Node::float)`.
    pub fn optional<T>(&self, with: impl FnOnce(&Node<'a>) -> Result<T>) -> Result<Option<T>> {
        if self.json().is_null() { Ok(None) } else { with(self).map(Some) }
    }

    /// A number, or one of the floats that JSON has no word for.
    pub fn float(&self) -> Result<f64> {
        self.mark();
        float(self.value).ok_or_else(|| self.not("a number"))
    }

    /// A whole number.
    pub fn int(&self) -> Result<i64> {
        self.json().as_i64().ok_or_else(|| self.not("a whole number"))
    }

    /// A whole number that is not negative.
    pub fn size(&self) -> Result<usize> {
        usize::try_from(self.int()?).map_err(|_| self.not("a size"))
    }

    pub fn bool(&self) -> Result<bool> {
        self.json().as_bool().ok_or_else(|| self.not("true or false"))
    }

    pub fn text(&self) -> Result<&'a str> {
        self.json().as_str().ok_or_else(|| self.not("a string"))
    }

    pub fn is_list(&self) -> bool {
        self.value.is_array()
    }

    pub fn is_object(&self) -> bool {
        self.value.is_object()
    }

    /// The value as it stands there; all of it has been read then.
    pub fn json(&self) -> &'a Value {
        self.mark();
        self.value
    }

    /// Fails for an option's value that nobody knows.
    pub fn unknown<T>(&self) -> Result<T> {
        bail!("{} is {}, which the runner does not know", self.path, self.value)
    }

    fn mark(&self) {
        self.read.borrow_mut().insert(self.path.clone());
    }

    /// The paths of values under this one that nobody has read.
    pub fn unread(&self) -> Vec<String> {
        let read = self.read.borrow();
        let (mut unread, mut open) = (Vec::new(), vec![self.clone()]);
        while let Some(node) = open.pop() {
            if read.contains(&node.path) {
                continue;
            }
            match node.value {
                Value::Object(map) => open.extend(map.iter().map(|(key, value)| node.child(key, value))),
                Value::Array(list) => {
                    open.extend(list.iter().enumerate().map(|(i, value)| node.child(&i.to_string(), value)));
                }
                _ => unread.push(node.path),
            }
        }
        unread.sort();
        unread
    }
}

/// A number, or `{"$float": "inf"}`.
pub fn float(value: &Value) -> Option<f64> {
    let special = |map: &Map<String, Value>| match map.get("$float")?.as_str()? {
        "inf" => Some(f64::INFINITY),
        "-inf" => Some(f64::NEG_INFINITY),
        "nan" => Some(f64::NAN),
        _ => None,
    };
    value.as_f64().or_else(|| value.as_object().filter(|map| map.len() == 1).and_then(special))
}
