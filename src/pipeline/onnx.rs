//! The little of ONNX that must be read before a runtime may see a model.
//!
//! A model is a protobuf message (onnx.proto3). Two things matter here:
//!
//! ```text
//! ModelProto.graph = 7 (GraphProto)
//!   GraphProto.node = 1        NodeProto.attribute = 5
//!                                AttributeProto.t = 5, .tensors = 10    (TensorProto)
//!                                AttributeProto.g = 6, .graphs = 11     (GraphProto)
//!   GraphProto.initializer = 5                                          (TensorProto)
//!   GraphProto.sparse_initializer = 15   .values = 1, .indices = 2      (TensorProto)
//!   GraphProto.output = 12, .value_info = 13
//!                              ValueInfoProto.type = 2 / tensor_type = 1 / shape = 2 / dim = 1
//! TensorProto.external_data = 13, .data_location = 14 (1 is EXTERNAL)
//! ```
//!
//! # Invariants
//! - No input makes these functions panic or recurse deeper than [`DEPTH`].

use std::ops::Range;

use thiserror::Error;

/// Deepest nesting of graphs in attributes that is followed.
const DEPTH: usize = 8;

/// Why a model is refused before it is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum OnnxError {
    /// Not a protobuf message of the expected shape.
    #[error("not a readable ONNX model")]
    Malformed,
    /// Weights in another file could be exchanged behind the hash.
    #[error("keeps weights in another file, which its hash does not cover")]
    ExternalData,
}

/// One field of a message: its number and where its value lies.
struct Field {
    number: u64,
    value: Value,
}

enum Value {
    /// Wire type 0.
    Varint(u64),
    /// Wire type 2.
    Bytes(Range<usize>),
    /// Wire types 1 and 5.
    Fixed,
}

/// The fields of the message at `range` of `bytes`.
fn fields(bytes: &[u8], range: Range<usize>) -> Result<Vec<Field>, OnnxError> {
    let mut at = range.start;
    let mut found = Vec::new();
    while at < range.end {
        let key = varint(bytes, &mut at, range.end)?;
        let value = match key & 7 {
            0 => Value::Varint(varint(bytes, &mut at, range.end)?),
            1 => skip(&mut at, 8, range.end).map(|_| Value::Fixed)?,
            2 => {
                let length = varint(bytes, &mut at, range.end)?;
                Value::Bytes(skip(&mut at, length, range.end)?)
            }
            5 => skip(&mut at, 4, range.end).map(|_| Value::Fixed)?,
            _ => return Err(OnnxError::Malformed),
        };
        found.push(Field { number: key >> 3, value });
    }
    Ok(found)
}

fn skip(at: &mut usize, length: u64, end: usize) -> Result<Range<usize>, OnnxError> {
    let start = *at;
    let length = usize::try_from(length).ok().filter(|n| *n <= end - start);
    *at = start + length.ok_or(OnnxError::Malformed)?;
    Ok(start..*at)
}

fn varint(bytes: &[u8], at: &mut usize, end: usize) -> Result<u64, OnnxError> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.get(*at).filter(|_| *at < end).ok_or(OnnxError::Malformed)?;
        *at += 1;
        value |= u64::from(byte & 0x7F) << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err(OnnxError::Malformed)
}

/// The nested messages of the message at `range` whose field number is one of `numbers`.
fn nested(
    bytes: &[u8],
    range: Range<usize>,
    numbers: &[u64],
) -> Result<Vec<(u64, Range<usize>)>, OnnxError> {
    let pick = |field: Field| match field.value {
        Value::Bytes(range) if numbers.contains(&field.number) => Some((field.number, range)),
        Value::Bytes(_) | Value::Varint(_) | Value::Fixed => None,
    };
    Ok(fields(bytes, range)?.into_iter().filter_map(pick).collect())
}

/// Refuses a model any of whose tensors lies in another file.
pub(super) fn refuse_external_data(bytes: &[u8]) -> Result<(), OnnxError> {
    let graphs = nested(bytes, 0..bytes.len(), &[7])?;
    if graphs.is_empty() {
        return Err(OnnxError::Malformed);
    }
    graphs.into_iter().try_for_each(|(_, graph)| scan_graph(bytes, graph, DEPTH))
}

fn scan_graph(bytes: &[u8], graph: Range<usize>, depth: usize) -> Result<(), OnnxError> {
    let depth = depth.checked_sub(1).ok_or(OnnxError::Malformed)?;
    for (number, part) in nested(bytes, graph, &[1, 5, 15])? {
        match number {
            1 => {
                for (_, attribute) in nested(bytes, part, &[5])? {
                    scan_attribute(bytes, attribute, depth)?;
                }
            }
            5 => scan_tensor(bytes, part)?,
            _ => {
                for (_, tensor) in nested(bytes, part, &[1, 2])? {
                    scan_tensor(bytes, tensor)?;
                }
            }
        }
    }
    Ok(())
}

fn scan_attribute(bytes: &[u8], attribute: Range<usize>, depth: usize) -> Result<(), OnnxError> {
    for (number, part) in nested(bytes, attribute, &[5, 6, 10, 11])? {
        match number {
            5 | 10 => scan_tensor(bytes, part)?,
            _ => scan_graph(bytes, part, depth)?,
        }
    }
    Ok(())
}

fn scan_tensor(bytes: &[u8], tensor: Range<usize>) -> Result<(), OnnxError> {
    let external = |field: &Field| match field.value {
        Value::Varint(location) => field.number == 14 && location != 0,
        Value::Bytes(_) => field.number == 13,
        Value::Fixed => false,
    };
    if fields(bytes, tensor)?.iter().any(external) {
        return Err(OnnxError::ExternalData);
    }
    Ok(())
}

/// Makes the first dimension of outputs and intermediate values unknown where the model says 1.
///
/// Some exporters write batch 1 there although the input takes any batch; the runtime then prints
/// a warning on each call with more. What is unknown it infers again. `dim { dim_value: 1 }` is
/// the four bytes `0A 02 08 01`; its last two become `1A 00`, an empty `denotation`, so that the
/// dimension has no value and no length changes.
pub(super) fn free_batch(bytes: &mut [u8]) -> Result<(), OnnxError> {
    const ONE: [u8; 2] = [0x08, 0x01];
    const UNKNOWN: [u8; 2] = [0x1A, 0x00];
    let path: [&[u64]; 5] = [&[7], &[12, 13], &[2], &[1], &[2]];
    let mut shapes = Vec::from([(0, 0..bytes.len())]);
    for numbers in path {
        let mut inner = Vec::new();
        for (_, range) in shapes {
            inner.extend(nested(bytes, range, numbers)?);
        }
        shapes = inner;
    }
    for (_, shape) in shapes {
        if let Some((_, dim)) = nested(bytes, shape, &[1])?.into_iter().next()
            && bytes[dim.clone()] == ONE
        {
            bytes[dim].copy_from_slice(&UNKNOWN);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(number: u8, content: &[u8]) -> Vec<u8> {
        let mut out = vec![number << 3 | 2, u8::try_from(content.len()).unwrap()];
        out.extend_from_slice(content);
        out
    }

    fn model(graph: &[u8]) -> Vec<u8> {
        message(7, graph)
    }

    #[test]
    fn weights_elsewhere_are_found_wherever_they_hide() {
        let external = [14 << 3, 1];
        let named = message(13, b"where");
        let initializer = message(5, &external);
        let attribute = message(1, &message(5, &message(5, &named)));
        let subgraph = message(1, &message(5, &message(6, &initializer)));
        let sparse = message(15, &message(1, &external));
        for graph in [initializer, attribute, subgraph, sparse] {
            assert_eq!(refuse_external_data(&model(&graph)), Err(OnnxError::ExternalData));
        }
        let inline = message(5, &[14 << 3, 0]);
        assert_eq!(refuse_external_data(&model(&inline)), Ok(()));
    }

    #[test]
    fn only_the_batch_is_freed_and_not_the_inputs() {
        let dims = [message(1, &[0x08, 0x01]), message(1, &[0x08, 0x01])].concat();
        let value = |number| message(number, &message(2, &message(1, &message(2, &dims))));
        let mut bytes = model(&[value(11), value(12)].concat());
        let before = bytes.clone();
        free_batch(&mut bytes).unwrap();
        let changed: Vec<usize> = (0..bytes.len()).filter(|i| bytes[*i] != before[*i]).collect();
        let at = bytes.len() - 6;
        assert_eq!(changed, [at, at + 1]);
        assert_eq!(bytes[at..at + 2], [0x1A, 0x00]);
    }

    #[test]
    fn endless_nesting_is_refused() {
        let mut graph = Vec::new();
        for _ in 0..20 {
            graph = message(1, &message(5, &message(6, &graph)));
        }
        assert_eq!(refuse_external_data(&model(&graph)), Err(OnnxError::Malformed));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = refuse_external_data(&bytes);
            let _ = free_batch(&mut bytes);
        }
    }
}
