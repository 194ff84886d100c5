//! Convolutions of one input, joined.
//!
//! A kernel computes [`LANES`] outputs at once. SCRFD's heads have 2, 8 and 20, which take the time
//! of 16, 16 and 32; together they take that of 32, and a tenth of the detector's time is saved.
//!
//! ```text
//! value -+-> Conv, 2            value --> Conv, 30 --> Split -+->
//!        +-> Conv, 8                                          +->
//!        +-> Conv, 20                                         +->
//! ```

use super::messages::{Attribute, Graph, Node, Tensor};
use super::{Change, LANES, Links, Made};

/// What joins the first such convolutions, if there are any.
pub(super) fn joined(graph: &Graph, links: &Links) -> Option<Change> {
    let nodes = graph.node.iter().enumerate();
    let all: Vec<_> = nodes.filter_map(|(at, node)| Sibling::of(at, node, links)).collect();
    all.iter().find_map(|eldest| {
        let siblings: Vec<_> = all.iter().filter(|sibling| sibling.is_like(eldest)).collect();
        let gone = siblings.iter().map(|sibling| sibling.at).collect();
        pays(&siblings).then(|| Change { gone, at: siblings[0].at, made: join(&siblings) })
    })
}

/// A convolution with a bias, in one group.
struct Sibling<'a> {
    /// Where its node is.
    at: usize,
    node: &'a Node,
    weights: Tensor,
    bias: Tensor,
}

impl<'a> Sibling<'a> {
    fn of(at: usize, node: &'a Node, links: &Links) -> Option<Self> {
        let [weights, bias] = links.convolution(node)?;
        Some(Self { at, node, weights, bias })
    }

    /// Whether it does the same as the other, apart from the weights.
    fn is_like(&self, other: &Self) -> bool {
        self.node.input[0] == other.node.input[0]
            && self.node.attribute == other.node.attribute
            && self.weights.dims[1..] == other.weights.dims[1..]
    }

    fn outputs(&self) -> usize {
        self.weights.side(0)
    }
}

fn pays(siblings: &[&Sibling<'_>]) -> bool {
    let each = siblings.iter().map(|sibling| sibling.outputs().div_ceil(LANES));
    let outputs: usize = siblings.iter().map(|sibling| sibling.outputs()).sum();
    outputs.div_ceil(LANES) < each.sum()
}

fn join(siblings: &[&Sibling<'_>]) -> Made {
    let mut made = Made::default();
    let eldest = siblings[0];
    let tensors = |tensor: fn(&&Sibling<'_>) -> Tensor| siblings.iter().map(tensor).collect();
    let weights = Tensor::stack(tensors(|sibling| sibling.weights.clone()));
    let bias = Tensor::stack(tensors(|sibling| sibling.bias.clone()));
    let weights = [weights, bias].map(|tensor| made.keep(tensor, "joined"));
    let inputs = std::iter::once(eldest.node.input[0].clone()).chain(weights).collect();
    let node = Node::new("Conv", inputs, format!("{}/joined", eldest.node.output[0]));
    let joined = made.node(Node { attribute: eldest.node.attribute.clone(), ..node });
    let outputs = siblings.iter().map(|sibling| sibling.weights.dims[0]).collect();
    made.nodes.push(Node {
        output: siblings.iter().map(|sibling| sibling.node.output[0].clone()).collect(),
        attribute: vec![Attribute::number("axis", 1), Attribute::numbers("split", outputs)],
        ..Node::new("Split", vec![joined.clone()], joined + "/split")
    });
    made
}
