//! A model of pictures, given their pixels as they are.
//!
//! ```text
//! bytes, 1 x side x side x 3 --> Cast --> Sub mean --> Mul 1 / std --> Transpose --> as before
//! ```
//!
//! The sides are fixed. What OpenVINO is given with open ones it plans anew at each run: shapes,
//! memory and kernels, node by node, which takes a seventh of the detector's time. And a quarter of
//! the memory is written, read and wiped.

use prost::Message;
use prost::bytes::Bytes;

use super::super::pack::Normalisation;
use super::messages::{Attribute, Dimension, Kind, Model, Node, Shape, Tensor, TensorType, Value};

/// `model` (ONNX bytes), whose one input is planes of floats, for pixels of a square of `side`:
/// bytes, the top row first. `None` where it is not understood.
pub(in super::super) fn of_pixels(
    model: &[u8],
    side: usize,
    normalisation: Normalisation,
) -> Option<Vec<u8>> {
    let mut model = Model::decode(Bytes::copy_from_slice(model)).ok()?;
    let graph = model.graph.as_mut()?;
    let [input] = &mut graph.input[..] else { return None };
    let planes = Value::decode(&**input).ok()?.name;
    let part = |part: &str| format!("{planes}/{part}");
    *input = pixels(part("pixels"), side)?.encode_to_vec().into();
    let Normalisation { mean, std } = normalisation;
    for (name, value) in [("mean", mean), ("scale", 1.0 / std)] {
        graph.initializer.push(Tensor::floats(&part(name), &[], &[value]).encode_to_vec().into());
    }
    let node = |kind, inputs: &[&str], to| {
        Node::new(kind, inputs.iter().map(|input| part(input)).collect(), to)
    };
    let mut cast = node("Cast", &["pixels"], part("floats"));
    cast.attribute.push(Attribute::number("to", i64::from(Tensor::FLOAT)));
    let centred = node("Sub", &["floats", "mean"], part("centred"));
    let scaled = node("Mul", &["centred", "scale"], part("scaled"));
    let mut apart = node("Transpose", &["scaled"], planes.clone());
    apart.attribute.push(Attribute::numbers("perm", vec![0, 3, 1, 2]));
    graph.node.splice(0..0, [cast, centred, scaled, apart]);
    Some(model.encode_to_vec())
}

fn pixels(name: String, side: usize) -> Option<Value> {
    let side = i64::try_from(side).ok()?;
    let dim = [1, side, side, 3].map(|value| Dimension { value }).to_vec();
    let tensor = TensorType { elements: Tensor::UNSIGNED, shape: Some(Shape { dim }) };
    Some(Value { name, kind: Some(Kind { tensor: Some(tensor) }) })
}
