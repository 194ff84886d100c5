//! The messages of ONNX (onnx.proto3) that a model is rewritten through. What is not looked into
//! stays as its bytes; remarks, and the shapes of values in between, are left out.

use prost::Message;
use prost::bytes::Bytes;

/// `ModelProto`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Model {
    #[prost(int64, tag = "1")]
    pub(super) ir_version: i64,
    #[prost(message, optional, tag = "7")]
    pub(super) graph: Option<Graph>,
    #[prost(bytes = "bytes", repeated, tag = "8")]
    pub(super) opset_import: Vec<Bytes>,
    #[prost(bytes = "bytes", repeated, tag = "25")]
    pub(super) functions: Vec<Bytes>,
}

impl Model {
    /// Whether `Split` takes its sizes as an attribute, as it did up to version 12 of the operators.
    pub(super) fn has_plain_splits(&self) -> bool {
        let sets = self.opset_import.iter().filter_map(|set| OperatorSet::decode(&**set).ok());
        let mut own = sets.filter(|set| matches!(&*set.domain, "" | "ai.onnx"));
        own.next().is_some_and(|set| (2..=12).contains(&set.version))
    }
}

/// `OperatorSetIdProto`.
#[derive(Clone, PartialEq, Message)]
struct OperatorSet {
    #[prost(string, tag = "1")]
    domain: String,
    #[prost(int64, tag = "2")]
    version: i64,
}

/// `GraphProto`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Graph {
    #[prost(message, repeated, tag = "1")]
    pub(super) node: Vec<Node>,
    #[prost(string, tag = "2")]
    pub(super) name: String,
    #[prost(bytes = "bytes", repeated, tag = "5")]
    pub(super) initializer: Vec<Bytes>,
    #[prost(bytes = "bytes", repeated, tag = "11")]
    pub(super) input: Vec<Bytes>,
    #[prost(bytes = "bytes", repeated, tag = "12")]
    pub(super) output: Vec<Bytes>,
    #[prost(bytes = "bytes", repeated, tag = "15")]
    pub(super) sparse_initializer: Vec<Bytes>,
}

/// `ValueInfoProto`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Value {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(message, optional, tag = "2")]
    pub(super) kind: Option<Kind>,
}

/// `TypeProto`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Kind {
    #[prost(message, optional, tag = "1")]
    pub(super) tensor: Option<TensorType>,
}

/// `TypeProto.Tensor`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct TensorType {
    #[prost(int32, tag = "1")]
    pub(super) elements: i32,
    #[prost(message, optional, tag = "2")]
    pub(super) shape: Option<Shape>,
}

/// `TensorShapeProto`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Shape {
    #[prost(message, repeated, tag = "1")]
    pub(super) dim: Vec<Dimension>,
}

/// `TensorShapeProto.Dimension` of a known size.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Dimension {
    #[prost(int64, tag = "1")]
    pub(super) value: i64,
}

/// `NodeProto`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Node {
    #[prost(string, repeated, tag = "1")]
    pub(super) input: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    pub(super) output: Vec<String>,
    #[prost(string, tag = "3")]
    pub(super) name: String,
    #[prost(string, tag = "4")]
    pub(super) op_type: String,
    #[prost(bytes = "bytes", repeated, tag = "5")]
    pub(super) attribute: Vec<Bytes>,
    #[prost(string, tag = "7")]
    pub(super) domain: String,
}

impl Node {
    /// A node of ONNX' own operators, named after its only output.
    pub(super) fn new(op_type: &str, input: Vec<String>, output: String) -> Self {
        Self {
            input,
            name: output.clone(),
            output: vec![output],
            op_type: op_type.to_owned(),
            ..Self::default()
        }
    }

    /// A node that puts values side by side along their channels.
    pub(super) fn side_by_side(parts: Vec<String>, output: String) -> Self {
        let attribute = vec![Attribute::number("axis", 1)];
        Self { attribute, ..Self::new("Concat", parts, output) }
    }

    fn attributes(&self) -> impl Iterator<Item = Attribute> {
        self.attribute.iter().filter_map(|attribute| Attribute::decode(&**attribute).ok())
    }

    /// The attribute `name`, if it is there and a whole number.
    pub(super) fn number(&self, name: &str) -> Option<i64> {
        self.attributes().find(|a| a.name == name && a.kind == Attribute::NUMBER).map(|a| a.i)
    }

    /// Whether it is a convolution that is not divided into groups.
    pub(super) fn is_whole_convolution(&self) -> bool {
        self.op_type == "Conv" && self.number("group").unwrap_or(1) == 1
    }

    /// The whole numbers of the attribute `name`; none where it has none.
    pub(super) fn numbers(&self, name: &str) -> Vec<i64> {
        self.attributes().find(|a| a.name == name).map_or_else(Vec::new, |a| a.ints)
    }

    /// Whether it has graphs of its own, which may use any value outside.
    pub(super) fn nests(&self) -> bool {
        self.attributes().any(|a| Attribute::GRAPHS.contains(&a.kind))
    }
}

/// An `AttributeProto` with whole numbers.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Attribute {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(int64, tag = "3")]
    i: i64,
    #[prost(int64, repeated, packed = "false", tag = "8")]
    ints: Vec<i64>,
    #[prost(int32, tag = "20")]
    kind: i32,
}

impl Attribute {
    /// `AttributeProto.type` of a whole number.
    const NUMBER: i32 = 2;
    /// The same of several.
    const NUMBERS: i32 = 7;
    /// The same of a graph and of graphs.
    const GRAPHS: [i32; 2] = [5, 10];

    pub(super) fn number(name: &str, i: i64) -> Bytes {
        Self { name: name.to_owned(), i, kind: Self::NUMBER, ..Self::default() }
            .encode_to_vec()
            .into()
    }

    pub(super) fn numbers(name: &str, ints: Vec<i64>) -> Bytes {
        Self { name: name.to_owned(), ints, kind: Self::NUMBERS, ..Self::default() }
            .encode_to_vec()
            .into()
    }
}

/// A `TensorProto` whose values lie in `raw_data`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Tensor {
    #[prost(int64, repeated, packed = "false", tag = "1")]
    pub(super) dims: Vec<i64>,
    #[prost(int32, tag = "2")]
    pub(super) data_type: i32,
    #[prost(string, tag = "8")]
    pub(super) name: String,
    #[prost(bytes = "bytes", tag = "9")]
    pub(super) raw_data: Bytes,
}

impl Tensor {
    /// `TensorProto.DataType.FLOAT`.
    pub(super) const FLOAT: i32 = 1;
    /// `TensorProto.DataType.UINT8`.
    pub(super) const UNSIGNED: i32 = 2;
    /// `TensorProto.DataType.INT8`.
    pub(super) const SIGNED: i32 = 3;

    pub(super) fn floats(name: &str, dims: &[i64], values: &[f32]) -> Self {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Self::bytes(name, Self::FLOAT, dims, bytes)
    }

    pub(super) fn bytes(name: &str, data_type: i32, dims: &[i64], bytes: Vec<u8>) -> Self {
        Self { dims: dims.to_vec(), data_type, name: name.to_owned(), raw_data: bytes.into() }
    }

    /// Its floats.
    pub(super) fn values(&self) -> Vec<f32> {
        self.raw_data.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
    }

    /// Its sides, if it has as many plain floats as they say.
    pub(super) fn sides(&self) -> Option<Vec<usize>> {
        let sides = self.dims.iter().map(|side| usize::try_from(*side));
        let sides = sides.collect::<Result<Vec<_>, _>>().ok()?;
        let bytes = sides.iter().try_fold(size_of::<f32>(), |all, side| all.checked_mul(*side))?;
        (self.data_type == Self::FLOAT && bytes == self.raw_data.len()).then_some(sides)
    }

    /// One of its [sides](Tensor::sides).
    pub(super) fn side(&self, axis: usize) -> usize {
        usize::try_from(self.dims[axis]).unwrap_or_default()
    }

    /// Its slices along `axis` at `places`, in that order. It must have [`Tensor::sides`], and the
    /// places must lie within.
    pub(super) fn pick(&self, axis: usize, places: &[usize]) -> Self {
        let parts: usize = (0..axis).map(|before| self.side(before)).product();
        let part = self.raw_data.len() / parts.max(1);
        let slice = part / self.side(axis).max(1);
        let mut raw_data = Vec::with_capacity(self.raw_data.len());
        for part in self.raw_data.chunks_exact(part.max(1)) {
            for place in places {
                raw_data.extend_from_slice(&part[place * slice..(place + 1) * slice]);
            }
        }
        let mut dims = self.dims.clone();
        dims[axis] = i64::try_from(places.len()).unwrap_or(i64::MAX);
        Self { dims, raw_data: raw_data.into(), ..self.clone() }
    }

    /// Tensors that differ in their first side at most, one after the other. There is at least one.
    pub(super) fn stack(tensors: Vec<Self>) -> Self {
        let raw_data = tensors.iter().flat_map(|tensor| tensor.raw_data.iter().copied()).collect();
        let first = tensors.iter().map(|tensor| tensor.dims[0]).sum();
        let mut all = tensors.into_iter().next().unwrap_or_default();
        all.dims[0] = first;
        Self { raw_data, ..all }
    }
}
