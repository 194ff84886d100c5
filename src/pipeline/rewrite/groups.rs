//! Convolutions in small groups, taken apart.
//!
//! InsightFace's MobileFaceNets have one in groups of two channels. No kernel is made for that: of
//! an embedding in bf16 it takes 30 % of the time for 2 % of the multiplications. With the channels
//! sorted by their place in the group it falls into depthwise convolutions, for which there are
//! good kernels:
//!
//! ```text
//! Conv ---------> PRelu ---------> Conv in groups of 2 ---------> PRelu ---------> Conv
//!
//! Conv, first --> PRelu --+------> depthwise + depthwise, first --> PRelu --> Conv --+
//!                          \/                                                        +
//!                          /\                                                        |
//! Conv, second -> PRelu --+------> depthwise + depthwise, second -> PRelu --> Conv --+
//! ```

use super::messages::{Graph, Node, Tensor};
use super::{Change, LANES, Links, Made};

/// The largest groups that are taken apart: `n` channels become `n` times `n` convolutions.
const MOST: usize = 4;

/// How the parts come together again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reunion {
    /// Each is convolved on, and the results are added.
    Added,
    /// They are put side by side.
    SideBySide,
}

/// What takes the first such convolution apart, if there is one.
pub(super) fn taken_apart(graph: &Graph, links: &Links, reunion: Reunion) -> Option<Change> {
    let pattern = (0..graph.node.len()).find_map(|at| Pattern::around(graph, links, at))?;
    let gone = pattern.nodes.to_vec();
    Some(Change { gone, at: pattern.nodes[4], made: pattern.sorted(reunion) })
}

/// A convolution and the slopes of its outputs.
struct Layer {
    convolution: Node,
    bend: Node,
    weights: Tensor,
    bias: Tensor,
    slopes: Tensor,
}

impl Layer {
    /// The layer of these two nodes, if it has `channels` outputs.
    fn of(links: &Links, convolution: &Node, bend: &Node, channels: usize) -> Option<Self> {
        let (weights, sides) = links.weights(convolution, 1)?;
        let (bias, biases) = links.weights(convolution, 2)?;
        let (slopes, bends) = links.weights(bend, 1)?;
        let whole = sides.len() == 4 && biases == [channels] && bends == [channels, 1, 1];
        let (convolution, bend) = (convolution.clone(), bend.clone());
        (whole && sides[0] == channels).then_some(Self { convolution, bend, weights, bias, slopes })
    }

    /// The slopes of `channels`, which are at `place` in their groups, on `input`.
    fn bend(&self, made: &mut Made, input: String, channels: &[usize], place: usize) -> String {
        let name = format!("{}/{place}", self.bend.output[0]);
        let slopes = made.keep(self.slopes.pick(0, channels), &name);
        made.node(Node::new("PRelu", vec![input, slopes], name))
    }
}

/// Part `number` of a convolution, from `input`.
fn convolve(
    made: &mut Made,
    whole: &Node,
    input: &str,
    weights: Tensor,
    bias: Option<Tensor>,
    number: usize,
) -> String {
    // The node's name, since several may share their weights or bias.
    let name = format!("{}/{number}", whole.output[0]);
    let mut inputs = vec![input.to_owned(), made.keep(weights, &name)];
    inputs.extend(bias.map(|bias| made.keep(bias, &name)));
    let node = Node::new("Conv", inputs, name);
    made.node(Node { attribute: whole.attribute.clone(), ..node })
}

/// The sum of `terms`, under the name `to`. There are two at least.
fn add_up(made: &mut Made, terms: Vec<String>, to: &str) -> String {
    let last = terms.len() - 1;
    let add = |(_, sum), (at, term)| {
        let output = if at == last { to.to_owned() } else { format!("{term}/sum") };
        (at, made.node(Node::new("Add", vec![sum, term], output)))
    };
    terms.into_iter().enumerate().reduce(add).map(|(_, sum)| sum).unwrap_or_default()
}

/// A convolution in small groups and its neighbours.
struct Pattern {
    /// Where the five nodes are: convolution, slopes, grouped convolution, slopes, convolution.
    nodes: [usize; 5],
    groups: usize,
    /// Channels in a group, in and out.
    places: usize,
    first: Layer,
    grouped: Layer,
    last: Node,
    last_weights: Tensor,
    last_bias: Option<Tensor>,
}

impl Pattern {
    /// The pattern around node `at`, if that is a convolution in small groups.
    fn around(graph: &Graph, links: &Links, at: usize) -> Option<Self> {
        let node = |at: usize| &graph.node[at];
        let groups: usize = node(at).number("group")?.try_into().ok()?;
        let (before, after) = (links.before(node(at))?, links.after(node(at))?);
        let (first, last) = (links.before(node(before))?, links.after(node(after))?);
        let nodes = [first, before, at, after, last];
        if nodes.map(|at| &*node(at).op_type) != ["Conv", "PRelu", "Conv", "PRelu", "Conv"] {
            return None;
        }
        let places = *links.weights(node(at), 1)?.1.get(1)?;
        let channels = groups.checked_mul(places)?;
        let (last_weights, sides) = links.weights(node(last), 1)?;
        let has_bias = node(last).input.len() > 2;
        let last_bias = if has_bias { Some(links.weights(node(last), 2)?.0) } else { None };
        let fits = groups >= LANES && (2..=MOST).contains(&places) && sides.len() == 4;
        let whole = [first, last].iter().all(|at| node(*at).is_whole_convolution());
        (fits && whole && sides[1] == channels).then_some(Self {
            nodes,
            groups,
            places,
            first: Layer::of(links, node(first), node(before), channels)?,
            grouped: Layer::of(links, node(at), node(after), channels)?,
            last: node(last).clone(),
            last_weights,
            last_bias,
        })
    }

    /// The same computation with the channels sorted by their place in the group.
    fn sorted(&self, reunion: Reunion) -> Made {
        let mut made = Made::default();
        let of_place = |place| (0..self.groups).map(move |group| group * self.places + place);
        let sorted: Vec<Vec<usize>> = (0..self.places).map(|p| of_place(p).collect()).collect();
        let first = &self.first;
        let mut parts = Vec::new();
        for (place, channels) in sorted.iter().enumerate() {
            let weights = first.weights.pick(0, channels);
            let bias = Some(first.bias.pick(0, channels));
            let whole = &first.convolution;
            let part = convolve(&mut made, whole, &whole.input[0], weights, bias, place);
            parts.push(first.bend(&mut made, part, channels, place));
        }
        let grouped = &self.grouped;
        let mut bent = Vec::new();
        for (place, channels) in sorted.iter().enumerate() {
            let own = grouped.weights.pick(0, channels);
            let mut sum = Vec::new();
            for (from, part) in parts.iter().enumerate() {
                let bias = (from == 0).then(|| grouped.bias.pick(0, channels));
                let (weights, number) = (own.pick(1, &[from]), place * self.places + from);
                let whole = &grouped.convolution;
                sum.push(convolve(&mut made, whole, part, weights, bias, number));
            }
            let to = format!("{}/sum/{place}", grouped.convolution.output[0]);
            let sum = add_up(&mut made, sum, &to);
            bent.push(grouped.bend(&mut made, sum, channels, place));
        }
        match reunion {
            Reunion::Added => self.add(&mut made, bent, &sorted),
            Reunion::SideBySide => self.put_side_by_side(&mut made, bent, &sorted.concat()),
        }
        made
    }

    /// The last convolution of `parts`, which have these channels, one by one.
    fn add(&self, made: &mut Made, parts: Vec<String>, sorted: &[Vec<usize>]) {
        let term = |(place, (part, channels)): (usize, (String, &Vec<usize>))| {
            let bias = self.last_bias.clone().filter(|_| place == 0);
            let weights = self.last_weights.pick(1, channels);
            convolve(made, &self.last, &part, weights, bias, place)
        };
        let terms = parts.into_iter().zip(sorted).enumerate().map(term).collect();
        add_up(made, terms, &self.last.output[0]);
    }

    /// The last convolution of all parts together, which have these channels.
    fn put_side_by_side(&self, made: &mut Made, parts: Vec<String>, channels: &[usize]) {
        let name = format!("{}/whole", self.grouped.bend.output[0]);
        let whole = made.node(Node::side_by_side(parts, name));
        let weights = made.keep(self.last_weights.pick(1, channels), &self.last.output[0]);
        let bias = self.last_bias.clone().map(|bias| made.keep(bias, &self.last.output[0]));
        let inputs = [whole, weights].into_iter().chain(bias).collect();
        made.nodes.push(Node { input: inputs, ..self.last.clone() });
    }
}
