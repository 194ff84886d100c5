//! SQ8: one byte a dimension and one scale a vector.
//!
//! ```text
//! scale = max |v_i| / 127          code_i = round(v_i / scale), -127..=127
//! a . b ~ scale_a * scale_b * sum(code_a_i * code_b_i)
//! ```
//!
//! A row is stored in offset binary (`code + 128`, unsigned) because the fastest instruction
//! multiplies unsigned by signed bytes (VNNI `vpdpbusd`). With `r_i = code_i + 128` a kernel
//! returns `sum(r_i * p_i)`, and `sum(code_i * p_i)` is that less `128 * sum(p_i)`, which the
//! probe knows once: its [`bias`](Probe::score). At 1,024 dimensions the first sum is below 2^25
//! and the second below 2^24, so `i32` never overflows and `f32` holds the result exactly: every
//! kernel gives the same bits.
//!
//! # Invariants
//! - Codes of people and of probes live in buffers that are zeroised when dropped.
//! - Padding is zero in the probe, so a row's padding never counts.

use zeroize::Zeroizing;

use super::arena::ROW_ALIGN;
use crate::types::Embedding;

/// Largest code.
const MAX_CODE: f32 = 127.0;
/// Offset of stored codes.
const OFFSET: i32 = 128;
/// Turns a two's complement byte into offset binary: adding 128 modulo 256 flips the top bit.
const SIGN_BIT: u8 = 0x80;

/// A template, quantised for the arena.
pub(super) struct Row {
    codes: Zeroizing<Vec<u8>>,
    scale: f32,
}

impl Row {
    /// Quantises a template.
    pub(super) fn of(embedding: &Embedding) -> Self {
        let scale = scale_of(embedding);
        let mut codes = Zeroizing::new(vec![0; padded(embedding)]);
        for (code, value) in codes.iter_mut().zip(embedding.expose()) {
            *code = quantise(*value, scale).cast_unsigned() ^ SIGN_BIT;
        }
        Self { codes, scale }
    }

    /// Offset-binary codes, padded to whole cache lines.
    pub(super) fn codes(&self) -> &[u8] {
        &self.codes
    }

    /// Value of one code step.
    pub(super) fn scale(&self) -> f32 {
        self.scale
    }
}

/// A probe, quantised for comparison with rows.
pub(super) struct Probe {
    codes: Zeroizing<Vec<i8>>,
    scale: f32,
    bias: i32,
}

impl Probe {
    /// Quantises a probe.
    pub(super) fn of(embedding: &Embedding) -> Self {
        let scale = scale_of(embedding);
        let mut codes = Zeroizing::new(vec![0; padded(embedding)]);
        for (code, value) in codes.iter_mut().zip(embedding.expose()) {
            *code = quantise(*value, scale);
        }
        let bias = OFFSET * codes.iter().map(|code| i32::from(*code)).sum::<i32>();
        Self { codes, scale, bias }
    }

    /// Signed codes, padded with zeros to whole cache lines.
    pub(super) fn codes(&self) -> &[i8] {
        &self.codes
    }

    /// The cosine, from a kernel's dot product with a row and that row's scale.
    #[inline]
    #[expect(clippy::cast_precision_loss, reason = "below 2^24, see the head of this file")]
    pub(super) fn score(&self, dot: i32, row_scale: f32) -> f32 {
        (dot - self.bias) as f32 * (row_scale * self.scale)
    }
}

fn padded(embedding: &Embedding) -> usize {
    embedding.width().next_multiple_of(ROW_ALIGN)
}

/// Never zero: an embedding has length 1, so some value is at least 1/32 at 1,024 dimensions.
fn scale_of(embedding: &Embedding) -> f32 {
    embedding.expose().iter().fold(0.0_f32, |max, value| max.max(value.abs())) / MAX_CODE
}

#[expect(clippy::cast_possible_truncation, reason = "clamped to the range of a code")]
fn quantise(value: f32, scale: f32) -> i8 {
    (value / scale).round().clamp(-MAX_CODE, MAX_CODE) as i8
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::kernel::Kernel;
    use crate::index::testkit::Random;

    fn sq8_cosine(a: &Embedding, b: &Embedding) -> f32 {
        let (row, probe) = (Row::of(a), Probe::of(b));
        let dot = Kernel::Portable.dot().unwrap().apply(row.codes(), probe.codes());
        probe.score(dot, row.scale())
    }

    #[test]
    fn quantising_moves_a_cosine_by_less_than_0_005() {
        let mut random = Random::new(1);
        for _ in 0..2_000 {
            let a = random.embedding(512);
            let b = random.near(&a, 0.7);
            for other in [&b, &random.embedding(512), &a] {
                let error = (sq8_cosine(&a, other) - a.cosine(other).get()).abs();
                assert!(error < 0.005, "{error}");
            }
        }
    }

    #[test]
    fn a_vector_of_one_coordinate_quantises_too() {
        let mut values = vec![0.0; 130];
        values[129] = -3.0;
        let lone = Embedding::normalise(values).unwrap();
        assert!((sq8_cosine(&lone, &lone) - 1.0).abs() < 1e-6);
    }
}
