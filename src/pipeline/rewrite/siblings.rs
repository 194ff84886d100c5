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
    let whole = |at: &usize| Sibling::of(&graph.node[*at], links);
    let numbers = || 0..graph.node.len();
    numbers().find_map(|first| {
        let eldest = whole(&first)?;
        let like = |at: &usize| whole(at).is_some_and(|sibling| sibling.is_like(&eldest));
        let gone: Vec<usize> = numbers().filter(like).collect();
        let siblings: Vec<Sibling<'_>> = gone.iter().filter_map(whole).collect();
        pays(&siblings).then(|| Change { at: gone[0], gone, made: join(&siblings) })
    })
}

/// A convolution with a bias, in one group.
struct Sibling<'a> {
    node: &'a Node,
    weights: Tensor,
    bias: Tensor,
}

impl<'a> Sibling<'a> {
    fn of(node: &'a Node, links: &Links) -> Option<Self> {
        let alone = node.op_type == "Conv" && node.number("group").unwrap_or(1) == 1;
        let ((weights, sides), (bias, biases)) = (links.weights(node, 1)?, links.weights(node, 2)?);
        (alone && sides.len() == 4 && biases == sides[..1]).then_some(Self { node, weights, bias })
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

fn pays(siblings: &[Sibling<'_>]) -> bool {
    let each = siblings.iter().map(|sibling| sibling.outputs().div_ceil(LANES));
    let outputs: usize = siblings.iter().map(Sibling::outputs).sum();
    outputs.div_ceil(LANES) < each.sum()
}

fn join(siblings: &[Sibling<'_>]) -> Made {
    let mut made = Made::default();
    let eldest = &siblings[0];
    let tensors = |tensor: fn(&Sibling<'_>) -> Tensor| siblings.iter().map(tensor).collect();
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
