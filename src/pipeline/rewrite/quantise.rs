//! Pointwise convolutions in eight bits.
//!
//! ```text
//! value --> Mul ------> Add -------> QuantizeLinear --> DequantizeLinear --> Conv
//!         255 / width  -low's share  to 0..255, one scale for all            |
//!                                                     int8 --> Cast --> Mul -'
//!                                                                  a scale for each output
//! ```
//!
//! Where several values stand side by side, each takes the steps by itself, so that a kernel takes
//! them behind what makes it, and bytes are put side by side.
//!
//! What is usual, one range for all channels of a value, loses too much: PReLU leaves channels of
//! very different spread. Here each channel is stretched over the 256 steps by itself, and the
//! weights that it meets are scaled the other way. The bias takes up the offset, and what rounding
//! the weights does to the mean input. (Nagel et al., "Data-Free Quantization Through Weight
//! Equalization and Bias Correction", 2019, where the same is done without data.)
//!
//! The ranges are measured on faces ([`exposed`]) and come with a pack.

use std::collections::HashMap;

use prost::Message;
use prost::bytes::Bytes;
use thiserror::Error;

use super::groups::Reunion;
use super::messages::{Attribute, Graph, Model, Node, Tensor, Value};
use super::{Links, Made, rewrite, settle};

/// A channel's range is widened so many times: other faces reach further.
const MARGIN: f64 = 1.25;
/// And it is no narrower than this share of the widest of its value: what hardly moves on the
/// measured faces may move on others.
const FLOOR: f64 = 0.35;
/// Steps between the least and the greatest byte.
const STEPS: f64 = 255.0;
/// The greatest weight.
const WEIGHT: f64 = 127.0;
/// The names of the one scale and the zero of all values.
const UNIT: [&str; 2] = ["eight-bits/scale", "eight-bits/zero"];

/// Why a model cannot be computed in eight bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum QuantiseError {
    /// Not a model that is understood.
    #[error("not a readable ONNX model")]
    Model,
    /// The ranges are of other convolutions.
    #[error("the ranges are not this model's")]
    Ranges,
}

/// The range of each channel of a value: what a convolution meets there, but for outliers.
#[derive(Debug, Clone, PartialEq)]
pub(in super::super) struct Range {
    pub(in super::super) least: Vec<f32>,
    pub(in super::super) greatest: Vec<f32>,
    pub(in super::super) mean: Vec<f32>,
}

impl Range {
    /// Floats of a range of `channels` in a file: least values, greatest values, means.
    fn read(floats: &mut impl Iterator<Item = f32>, channels: usize) -> Option<Self> {
        let mut next = || {
            let values: Vec<f32> = floats.by_ref().take(channels).collect();
            (values.len() == channels && values.iter().all(|v| v.is_finite())).then_some(values)
        };
        Some(Self { least: next()?, greatest: next()?, mean: next()? })
    }

    /// As [`Range::read`] reads it.
    pub(in super::super) fn write(&self, out: &mut Vec<u8>) {
        let all = [&self.least, &self.greatest, &self.mean];
        out.extend(all.into_iter().flatten().flat_map(|value| value.to_le_bytes()));
    }

    /// Each channel's width and least value, widened.
    fn widened(&self) -> Vec<(f64, f64)> {
        let each = || self.least.iter().zip(&self.greatest).map(|(a, b)| [*a, *b].map(f64::from));
        let widest = each().map(|[least, greatest]| greatest - least).fold(0.0, f64::max);
        let widen = |[least, greatest]: [f64; 2]| {
            let width = (greatest - least).max(FLOOR * widest).max(1e-6) * MARGIN;
            (width, f64::midpoint(least, greatest) - width / 2.0)
        };
        each().map(widen).collect()
    }
}

/// `model` (ONNX bytes), rewritten, with its pointwise convolutions in eight bits, apart from those
/// whose numbers are in `float`. `ranges` is what [`Range::write`] wrote of each, as f32 in
/// little-endian.
///
/// # Errors
/// [`QuantiseError`].
pub(in super::super) fn quantised(
    model: &[u8],
    ranges: &[u8],
    float: &[usize],
) -> Result<Vec<u8>, QuantiseError> {
    let mut model = decoded(model)?;
    let graph = model.graph.as_mut().ok_or(QuantiseError::Model)?;
    let links = Links::of(graph).ok_or(QuantiseError::Model)?;
    let (floats, rest) = ranges.as_chunks();
    let mut floats = floats.iter().map(|bytes| f32::from_le_bytes(*bytes));
    let mut layers = HashMap::new();
    for (number, layer) in pointwise(graph, &links).into_iter().enumerate() {
        let range = Range::read(&mut floats, layer.inputs()).ok_or(QuantiseError::Ranges)?;
        if !float.contains(&number) {
            layers.insert(layer.at, (layer, range));
        }
    }
    if floats.next().is_some() || !rest.is_empty() {
        return Err(QuantiseError::Ranges);
    }
    let gone: Vec<usize> = layers.values().filter_map(|(layer, _)| layer.whole).collect();
    let mut made = Made::default();
    made.weights.push(Tensor::floats(UNIT[0], &[], &[1.0]));
    made.weights.push(Tensor::bytes(UNIT[1], Tensor::UNSIGNED, &[], vec![0]));
    for (at, node) in std::mem::take(&mut graph.node).into_iter().enumerate() {
        match layers.get(&at) {
            Some((layer, range)) => layer.quantise(&node, range, &mut made),
            None if gone.contains(&at) => {}
            None => made.nodes.push(node),
        }
    }
    settle(graph, made);
    Ok(model.encode_to_vec())
}

/// A model that shows what its pointwise convolutions meet.
pub(in super::super) struct Exposed {
    /// ONNX bytes.
    pub(in super::super) model: Vec<u8>,
    /// For each of these convolutions which output shows it, and how many channels it has.
    pub(in super::super) places: Vec<(usize, usize)>,
}

/// `model`, rewritten, with the inputs of its pointwise convolutions among its outputs.
///
/// # Errors
/// [`QuantiseError::Model`].
pub(in super::super) fn exposed(model: &[u8]) -> Result<Exposed, QuantiseError> {
    let mut model = decoded(model)?;
    let graph = model.graph.as_mut().ok_or(QuantiseError::Model)?;
    let links = Links::of(graph).ok_or(QuantiseError::Model)?;
    let (own, mut names) = (graph.output.len(), Vec::<String>::new());
    let mut places = Vec::new();
    for layer in pointwise(graph, &links) {
        let name = &graph.node[layer.at].input[0];
        let known = names.iter().position(|known| known == name);
        places.push((own + known.unwrap_or(names.len()), layer.inputs()));
        if known.is_none() {
            names.push(name.clone());
        }
    }
    let outputs = names.into_iter().map(|name| Value { name, kind: None }.encode_to_vec().into());
    graph.output.extend(outputs);
    Ok(Exposed { model: model.encode_to_vec(), places })
}

/// The rewritten model: what is taken apart later would not be found between the steps.
fn decoded(model: &[u8]) -> Result<Model, QuantiseError> {
    let model = Model::decode(Bytes::copy_from_slice(model));
    let mut model = model.map_err(|_malformed| QuantiseError::Model)?;
    rewrite(&mut model, Reunion::SideBySide);
    Ok(model)
}

/// A convolution that looks at one pixel at a time.
struct Pointwise {
    /// Where its node is.
    at: usize,
    weights: Tensor,
    bias: Tensor,
    /// What it looks at, side by side, with the channels of each.
    parts: Vec<(String, usize)>,
    /// Where the node is that puts them side by side.
    whole: Option<usize>,
}

/// Those of `graph` with a bias, in its order. None is padded: a zero around bytes is no zero.
fn pointwise(graph: &Graph, links: &Links) -> Vec<Pointwise> {
    let layer = |(at, node): (usize, &Node)| {
        let [weights, bias] = links.convolution(node)?;
        let padded = node.numbers("pads").iter().any(|pad| *pad != 0);
        let one_pixel = weights.side(1) > 0 && weights.dims[2..] == [1, 1];
        let inputs = weights.side(1);
        let whole = links.before(node).and_then(|at| Some((at, parts(graph, links, at)?)));
        let whole =
            whole.filter(|(_, parts)| parts.iter().map(|part| part.1).sum::<usize>() == inputs);
        let (whole, parts) = match whole {
            Some((at, parts)) => (Some(at), parts),
            None => (None, vec![(node.input[0].clone(), inputs)]),
        };
        (one_pixel && !padded).then_some(Pointwise { at, weights, bias, parts, whole })
    };
    graph.node.iter().enumerate().filter_map(layer).collect()
}

/// What node `at` puts side by side along the channels, where it does and it is known how many
/// each has.
fn parts(graph: &Graph, links: &Links, at: usize) -> Option<Vec<(String, usize)>> {
    let concat = &graph.node[at];
    let part = |name: &String| {
        let bend = &graph.node[*links.makers.get(name)?];
        let (_, sides) = links.weights(bend, 1).filter(|_| bend.op_type == "PRelu")?;
        (sides.len() == 3 && sides[1..] == [1, 1]).then(|| (name.clone(), sides[0]))
    };
    let along_channels = concat.op_type == "Concat" && concat.number("axis") == Some(1);
    along_channels.then(|| concat.input.iter().map(part).collect())?
}

impl Pointwise {
    fn inputs(&self) -> usize {
        self.weights.side(1)
    }

    /// The weights as bytes behind these steps, and what goes with them.
    #[expect(clippy::cast_possible_truncation, reason = "computed in f64, kept in f32 and i8")]
    fn rounded(&self, range: &Range, widened: &[(f64, f64)]) -> Rounded {
        let mut rounded = Rounded::default();
        let weights = self.weights.values();
        for (row, bias) in weights.chunks_exact(self.inputs()).zip(self.bias.values()) {
            let row: Vec<f64> = row.iter().map(|weight| f64::from(*weight)).collect();
            let stretched = || row.iter().zip(widened).map(|(weight, (width, _))| weight * width);
            let most = stretched().fold(1e-9, |most: f64, weight| most.max(weight.abs()));
            let scale = most / WEIGHT;
            let mut bias = f64::from(bias);
            for ((weight, wide), ((width, low), mean)) in
                row.iter().zip(stretched()).zip(widened.iter().zip(&range.mean))
            {
                let (byte, mean) = ((wide / scale).round(), f64::from(*mean));
                bias += weight * mean - byte * scale * (mean - low) / width;
                rounded.bytes.push((byte as i8).cast_unsigned());
            }
            rounded.scales.push((scale / STEPS) as f32);
            rounded.biases.push(bias as f32);
        }
        rounded
    }

    /// The convolution in eight bits.
    fn quantise(&self, node: &Node, range: &Range, made: &mut Made) {
        let part = |part: &str| format!("{}/{part}", node.output[0]);
        let widened = range.widened();
        let rounded = self.rounded(range, &widened);
        let outputs = self.weights.dims[0];
        made.weights.extend([
            Tensor::bytes(&part("weights"), Tensor::SIGNED, &self.weights.dims, rounded.bytes),
            Tensor::floats(&part("scale"), &[outputs, 1, 1, 1], &rounded.scales),
            Tensor::floats(&part("bias"), &[outputs], &rounded.biases),
        ]);
        let mut rest = &widened[..];
        let mut values = Vec::new();
        for (number, (name, channels)) in self.parts.iter().enumerate() {
            let (own, after) = rest.split_at(*channels);
            rest = after;
            values.push(step(made, name, own, &part(&number.to_string())));
        }
        let value = if let [value] = &*values {
            value.clone()
        } else {
            made.node(Node::side_by_side(values, part("value")))
        };
        let mut cast = Node::new("Cast", vec![part("weights")], part("cast"));
        cast.attribute.push(Attribute::number("to", i64::from(Tensor::FLOAT)));
        let cast = made.node(cast);
        let weights = made.node(Node::new("Mul", vec![cast, part("scale")], part("scaled")));
        made.nodes.push(Node { input: vec![value, weights, part("bias")], ..node.clone() });
    }
}

/// The steps of `value`, whose channels have these widths and least values.
#[expect(clippy::cast_possible_truncation, reason = "computed in f64, kept in f32")]
fn step(made: &mut Made, value: &str, widened: &[(f64, f64)], name: &str) -> String {
    let part = |part: &str| format!("{name}/{part}");
    let factors: Vec<f32> = widened.iter().map(|(width, _)| (STEPS / width) as f32).collect();
    let offsets: Vec<f32> =
        widened.iter().map(|(width, low)| (-low / width * STEPS) as f32).collect();
    let dims = [1, i64::try_from(widened.len()).unwrap_or(i64::MAX), 1, 1];
    made.weights.extend([
        Tensor::floats(&part("factor"), &dims, &factors),
        Tensor::floats(&part("offset"), &dims, &offsets),
    ]);
    let mut put =
        |kind: &str, inputs: Vec<String>, to: &str| made.node(Node::new(kind, inputs, part(to)));
    let [scale, zero] = UNIT.map(str::to_owned);
    let wide = put("Mul", vec![value.to_owned(), part("factor")], "wide");
    let shifted = put("Add", vec![wide, part("offset")], "shifted");
    let bytes = put("QuantizeLinear", vec![shifted, scale.clone(), zero.clone()], "quantised");
    put("DequantizeLinear", vec![bytes, scale, zero], "value")
}

/// Weights in eight bits.
#[derive(Default)]
struct Rounded {
    /// Two's complement.
    bytes: Vec<u8>,
    /// For each output, what a step of its weights and a step of the input are worth together.
    scales: Vec<f32>,
    /// For each output.
    biases: Vec<f32>,
}
