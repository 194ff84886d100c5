//! Rewrites a model so that a runtime's fast kernels fit it.
//!
//! # Invariants
//! - [`rewritten`] changes nothing of what is computed: the same products are added, at most in
//!   another order. A model without its patterns, or one that is not understood, is left alone.
//! - [`of_pixels`] changes nothing either but what the model is given.
//! - [`quantised`] rounds, and is used where a check at start finds that it rounds little.

mod groups;
mod messages;
mod pixels;
mod quantise;
mod siblings;

use std::collections::{HashMap, HashSet};
use std::fmt::Display;

use prost::Message;
use prost::bytes::Bytes;

use groups::Reunion;
use messages::{Graph, Model, Node, Tensor, Value};

pub(super) use pixels::of_pixels;
pub use quantise::QuantiseError;
pub(super) use quantise::{Exposed, Range, exposed, quantised};

/// Channels that a kernel works on at once.
const LANES: usize = 16;

/// `model` (ONNX bytes) rewritten; `None` where there is nothing to do.
pub(super) fn rewritten(model: &[u8]) -> Option<Vec<u8>> {
    let mut model = Model::decode(Bytes::copy_from_slice(model)).ok()?;
    rewrite(&mut model, Reunion::Added).then(|| model.encode_to_vec())
}

/// Whether anything was to be done.
fn rewrite(model: &mut Model, reunion: Reunion) -> bool {
    let splits = model.has_plain_splits();
    let Some(graph) = &mut model.graph else { return false };
    let mut found = false;
    while let Some(change) = change(graph, splits, reunion) {
        change.make(graph);
        found = true;
    }
    found
}

/// What is to be done next, if anything.
fn change(graph: &Graph, splits: bool, reunion: Reunion) -> Option<Change> {
    let links = Links::of(graph)?;
    groups::taken_apart(graph, &links, reunion)
        .or_else(|| splits.then(|| siblings::joined(graph, &links)).flatten())
}

/// Nodes that take the place of others.
struct Change {
    /// Where those are that go.
    gone: Vec<usize>,
    /// Where, among those, the new ones stand: all that they need is made before, and all that
    /// need them come after.
    at: usize,
    made: Made,
}

impl Change {
    fn make(self, graph: &mut Graph) {
        let Self { gone, at: place, mut made } = self;
        let mut new = Some(std::mem::take(&mut made.nodes));
        for (at, node) in std::mem::take(&mut graph.node).into_iter().enumerate() {
            if at == place {
                made.nodes.extend(new.take().unwrap_or_default());
            }
            if !gone.contains(&at) {
                made.nodes.push(node);
            }
        }
        settle(graph, made);
    }
}

/// Gives `graph` these nodes, and the weights that they use: its own and the new.
fn settle(graph: &mut Graph, made: Made) {
    graph.node = made.nodes;
    let names = graph.node.iter().flat_map(|node| &node.input);
    let used: HashSet<&str> = names.map(String::as_str).collect();
    let is_used = |bytes: &Bytes| {
        Tensor::decode(bytes.clone()).is_ok_and(|tensor| used.contains(&*tensor.name))
    };
    graph.initializer.retain(is_used);
    graph.initializer.extend(made.weights.iter().map(|weights| weights.encode_to_vec().into()));
}

/// New nodes in the order in which they run, and what they compute with.
#[derive(Default)]
struct Made {
    nodes: Vec<Node>,
    weights: Vec<Tensor>,
}

impl Made {
    /// Adds a node and gives the name of its first output.
    fn node(&mut self, node: Node) -> String {
        let output = node.output[0].clone();
        self.nodes.push(node);
        output
    }

    /// Adds weights under a name of their own, which it gives.
    fn keep(&mut self, weights: Tensor, part: impl Display) -> String {
        let name = format!("{}/{part}", weights.name);
        self.weights.push(Tensor { name: name.clone(), ..weights });
        name
    }
}

/// Who makes and who takes each value, and the weights by their names.
struct Links {
    makers: HashMap<String, usize>,
    /// How often a value is used, and by which node last; an output of the graph counts.
    takers: HashMap<String, (usize, usize)>,
    weights: HashMap<String, Tensor>,
}

impl Links {
    /// `None` where graphs within nodes may use values too, or a node makes nothing.
    fn of(graph: &Graph) -> Option<Self> {
        let (mut makers, mut takers) = (HashMap::new(), HashMap::<_, (usize, usize)>::new());
        for (at, node) in graph.node.iter().enumerate() {
            if node.nests() || node.output.is_empty() {
                return None;
            }
            makers.extend(node.output.iter().map(|name| (name.clone(), at)));
            for name in &node.input {
                let (times, by) = takers.entry(name.clone()).or_default();
                (*times, *by) = (*times + 1, at);
            }
        }
        for output in &graph.output {
            takers.entry(Value::decode(&**output).ok()?.name).or_default().0 += 1;
        }
        let weights = graph.initializer.iter().map(|bytes| Tensor::decode(bytes.clone()));
        let weights = weights.map(|tensor| tensor.map(|tensor| (tensor.name.clone(), tensor)));
        Some(Self { makers, takers, weights: weights.collect::<Result<_, _>>().ok()? })
    }

    /// The node that makes the first input of `node`, if nobody else uses what it makes.
    fn before(&self, node: &Node) -> Option<usize> {
        let name = node.input.first()?;
        (self.takers.get(name)?.0 == 1).then(|| self.makers.get(name).copied())?
    }

    /// The node that takes the output of `node`, if it alone does.
    fn after(&self, node: &Node) -> Option<usize> {
        let (times, by) = self.takers.get(node.output.first()?)?;
        (*times == 1).then_some(*by)
    }

    /// Weights and bias of `node`, if it is a convolution of pictures in one group.
    fn convolution(&self, node: &Node) -> Option<[Tensor; 2]> {
        let ((weights, sides), (bias, biases)) = (self.weights(node, 1)?, self.weights(node, 2)?);
        (node.is_whole_convolution() && sides.len() == 4 && biases == sides[..1])
            .then_some([weights, bias])
    }

    /// The weights that are input `number` of `node`, and their sides, if there are as many as
    /// those say.
    fn weights(&self, node: &Node, number: usize) -> Option<(Tensor, Vec<usize>)> {
        let tensor = self.weights.get(node.input.get(number)?)?;
        Some((tensor.clone(), tensor.sides()?))
    }
}

#[cfg(test)]
mod tests;
