//! Every form that a template has here, as bytes: for those who prove that none is left.
//!
//! # Not here
//! Looking for them: `residue` does so in this process, `tests/it/forensics.rs` in another.

use zeroize::Zeroizing;

use super::quantise::Quantiser;
use super::rotation::RotationKey;
use crate::types::Embedding;

/// One form: its name and its bytes, in a buffer that is wiped, because a search must not find what
/// it looks for by.
#[doc(hidden)]
pub type Form = (&'static str, Zeroizing<Vec<u8>>);

/// All forms of `face` under a deployment's rotation. Not for the service: a test's tool.
#[doc(hidden)]
#[must_use]
pub fn forms(face: &Embedding, key: RotationKey) -> Vec<Form> {
    forms_under(&Quantiser::new(face.width(), key), face)
}

pub(super) fn forms_under(quantiser: &Quantiser, face: &Embedding) -> Vec<Form> {
    let row = quantiser.row(face);
    let rotated = quantiser.rotated(face);
    let mut signed = Zeroizing::new(row.codes().to_vec());
    for code in signed.iter_mut() {
        *code ^= 0x80;
    }
    vec![
        ("f32", wide(face.expose())),
        ("bf16", half(face.expose(), 0)),
        ("bf16 rounded", half(face.expose(), 0x8000)),
        ("rotated f32", wide(&rotated)),
        ("rotated bf16", half(&rotated, 0)),
        ("rotated bf16 rounded", half(&rotated, 0x8000)),
        ("row as f32", wide(&quantiser.vector(row.codes(), row.scale()))),
        ("codes", Zeroizing::new(row.codes().to_vec())),
        ("codes, 16 bits", widened(row.codes(), 0)),
        ("signed codes, 16 bits", widened(&signed, 0xFF)),
        ("signed codes, 16 bits, unsigned", widened(&signed, 0)),
        ("signed codes", signed),
        ("sketch", Zeroizing::new(row.sketch().to_vec())),
    ]
}

fn wide(values: &[f32]) -> Zeroizing<Vec<u8>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(size_of_val(values)));
    for value in values {
        bytes.extend_from_slice(&value.to_le_bytes());
    }
    bytes
}

/// The upper halves; `carry` 0x8000 rounds (away from zero), 0 cuts off.
fn half(values: &[f32], carry: u32) -> Zeroizing<Vec<u8>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(2 * values.len()));
    for value in values {
        bytes.extend_from_slice(&(value.to_bits() + carry).to_le_bytes()[2..]);
    }
    bytes
}

/// Codes as kernels widen them to 16 bits; `sign` is the upper byte of negative ones.
fn widened(codes: &[u8], sign: u8) -> Zeroizing<Vec<u8>> {
    let wide = |code: &u8| [*code, if code & 0x80 == 0 { 0 } else { sign }];
    let mut bytes = Zeroizing::new(Vec::with_capacity(2 * codes.len()));
    bytes.extend(codes.iter().flat_map(wide));
    bytes
}
