//! The files of a topic, and its cases.

use anyhow::{Context, Result};
use safetensors::SafeTensors;
use serde::Deserialize;
use serde_json::{Map, Value};
use wgrad::{Device, Tensor};

use crate::node::Node;
use crate::recorded::files::Files;
use crate::recorded::numbers::{self, Numbers};
use crate::report::Report;
use crate::tree::{self, Tree};

/// What numbers outside of tensors hold to where a case does not say.
const RTOL: f64 = 1e-6;

#[derive(Deserialize)]
struct TopicFile {
    topic: String,
    cases: Vec<Map<String, Value>>,
}

/// All cases of a topic.
pub struct Topic<'a> {
    pub name: String,
    pub cases: Vec<Stored>,
    tensors: Option<SafeTensors<'a>>,
}

/// A case as its file has it.
pub struct Stored {
    pub id: String,
    body: Value,
    expect: Value,
}

impl<'a> Topic<'a> {
    /// From its files.
    pub fn new(name: &str, files: &'a Files) -> Result<Topic<'a>> {
        let file: TopicFile = serde_json::from_slice(&files.json)?;
        anyhow::ensure!(file.topic == name, "the file is about {}", file.topic);
        let tensors = (!files.safetensors.is_empty())
            .then(|| SafeTensors::deserialize(&files.safetensors))
            .transpose()?;
        let cases = file.cases.into_iter().map(Stored::new).collect::<Result<_>>()?;
        Ok(Topic { name: name.to_owned(), cases, tensors })
    }
}

impl Stored {
    fn new(mut body: Map<String, Value>) -> Result<Stored> {
        let id =
            body.remove("id").and_then(|id| id.as_str().map(str::to_owned)).context("a case has no id")?;
        let expect = body.remove("expect").with_context(|| format!("{id} has no expect"))?;
        Ok(Stored { id, body: Value::Object(body), expect })
    }

    /// What the case is about: the name of a schedule, layer, optimiser, function, or of what its topic calls a kind.
    pub fn kind(&self) -> Option<&str> {
        let scheduler = self.body.get("scheduler").and_then(|scheduler| scheduler.get("scheduler"));
        let named = || ["layer", "optimizer", "function", "kind"].iter().find_map(|&key| self.body.get(key));
        scheduler.or_else(named).and_then(Value::as_str)
    }
}

/// A case while it is replayed: what to do, and what must come of it.
pub struct Case<'a> {
    pub id: &'a str,
    /// What to do. All of it must be read.
    pub body: Node<'a>,
    /// What must come of it.
    pub expect: &'a Value,
    topic: &'a Topic<'a>,
    rtol: f64,
}

impl<'a> Case<'a> {
    pub fn new(topic: &'a Topic<'a>, stored: &'a Stored) -> Case<'a> {
        let body = Node::new(&stored.body);
        let rtol = body.read("rtol", Node::float).ok().flatten().unwrap_or(RTOL);
        Case { id: &stored.id, body, expect: &stored.expect, topic, rtol }
    }

    fn stored(&self, name: &str) -> Result<safetensors::tensor::TensorView<'a>> {
        let tensors = self.topic.tensors.as_ref().context("the topic has no tensors")?;
        tensors.tensor(name).with_context(|| format!("the tensor {name:?}"))
    }

    /// The tensor of a name, as stored.
    pub fn tensor(&self, name: &str, device: &Device) -> Result<Tensor> {
        numbers::tensor(&self.stored(name)?, device)
    }

    /// The tensor that an expected leaf names.
    pub fn leaf(&self, leaf: &Value, device: &Device) -> Result<Tensor> {
        let name = leaf.get("tensor").and_then(Value::as_str);
        self.tensor(name.with_context(|| format!("{leaf} is no tensor"))?, device)
    }

    /// What a name's tensor holds.
    pub fn expected(&self, name: &str) -> Result<Numbers> {
        Numbers::stored(&self.stored(name)?)
    }

    /// Compares what came of the case with all that it expects.
    pub fn compare(&self, actual: &Tree) -> Result<Report> {
        self.compare_with(actual, self.expect, "")
    }

    /// Compares with a part of what is expected; `path` is before the names of leaves.
    pub fn compare_with(&self, actual: &Tree, expected: &Value, path: &str) -> Result<Report> {
        let mut report = Report::default();
        tree::Comparison { case: self, rtol: self.rtol, report: &mut report }
            .compare(actual, expected, path)?;
        Ok(report)
    }

    /// A part of what is expected, by keys and places in lists: `case.expected_at(&["params", "50"])`.
    pub fn expected_at(&self, path: &[&str]) -> Result<&'a Value> {
        path.iter().try_fold(self.expect, |value, key| {
            let place = key.parse::<usize>().ok().and_then(|place| value.get(place));
            value.get(key).or(place).with_context(|| format!("nothing is expected at {path:?}"))
        })
    }
}
