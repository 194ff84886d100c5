//! From an embedding to what the arena holds and what a search compares with it.
//!
//! The vector is rotated first (see [`Rotation`]). Then SQ8: one byte a coordinate and one scale a
//! vector:
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
//! And a sketch: the signs of 512 coordinates. A vector of 512 or more dimensions gives its first
//! 512; a narrower one is rotated again, by maps of its own, until there are 512. Either way the
//! sketch is made of the codes alone, so that a row read back from a snapshot gets the same one.
//!
//! # Invariants
//! - Codes, sketches and rotated vectors of people and of probes live in buffers that are
//!   zeroised when dropped.
//! - Padding is zero in the probe, so a row's padding never counts.

use zeroize::{Zeroize, Zeroizing};

use super::arena::ROW_ALIGN;
use super::kernel::{SKETCH_BITS, SKETCH_BYTES, SKETCH_WORDS};
use super::rotation::{Rotation, RotationKey};
use crate::types::Embedding;

/// Largest code.
const MAX_CODE: f32 = 127.0;
/// How far rounding takes a row's length from 1, at most.
const LENGTH_TOLERANCE: f32 = 0.01;
/// Offset of stored codes.
const OFFSET: i32 = 128;
/// Turns a two's complement byte into offset binary: adding 128 modulo 256 flips the top bit.
const SIGN_BIT: u8 = 0x80;

/// Turns embeddings of one width into rows and probes.
pub(super) struct Quantiser {
    width: usize,
    key: RotationKey,
    rotation: Rotation,
    /// For widths below 512: the further maps that sketches take.
    further: Vec<Rotation>,
}

impl Quantiser {
    /// A quantiser under a deployment's key.
    pub(super) fn new(width: usize, key: RotationKey) -> Self {
        let rotation = Rotation::new(&key, width, 0);
        let maps = SKETCH_BITS.div_ceil(width);
        let further = (1..).take(maps - 1).map(|map| Rotation::new(&key, width, map)).collect();
        Self { width, key, rotation, further }
    }

    /// Dimensions.
    pub(super) fn width(&self) -> usize {
        self.width
    }

    /// Names the key of the rotation.
    pub(super) fn fingerprint(&self) -> [u8; 16] {
        self.key.fingerprint()
    }

    /// Quantises a template.
    pub(super) fn row(&self, embedding: &Embedding) -> Row {
        let (codes, scale) = self.codes(embedding);
        let mut stored = Zeroizing::new(vec![0; self.stride()]);
        for (stored, code) in stored.iter_mut().zip(&codes[..self.width]) {
            *stored = code.cast_unsigned() ^ SIGN_BIT;
        }
        let sketch = self.sketch(&codes[..self.width]);
        Row { codes: stored, scale, sketch }
    }

    /// The row that codes without padding stand for; `None` unless they are what
    /// [`Quantiser::row`] makes: a vector of length 1, with an extreme code.
    pub(super) fn row_of_codes(&self, used: &[u8], scale: f32) -> Option<Row> {
        let is_row = used.iter().all(|byte| *byte != 0) && used.iter().any(|b| is_extreme(*b));
        if !(used.len() == self.width && is_row && scale.is_finite() && scale > 0.0) {
            return None;
        }
        let mut codes: Zeroizing<Vec<i8>> = Zeroizing::new(Vec::with_capacity(self.width));
        codes.extend(used.iter().map(|byte| (byte ^ SIGN_BIT).cast_signed()));
        let square: f32 = codes.iter().map(|code| f32::from(*code) * f32::from(*code)).sum();
        if (square.sqrt() * scale - 1.0).abs() > LENGTH_TOLERANCE {
            return None;
        }
        let sketch = self.sketch(&codes);
        let mut stored = Zeroizing::new(Vec::with_capacity(self.stride()));
        stored.extend_from_slice(used);
        stored.resize(self.stride(), 0);
        Some(Row { codes: stored, scale, sketch })
    }

    /// Quantises a probe.
    pub(super) fn probe(&self, embedding: &Embedding) -> Probe {
        let (codes, scale) = self.codes(embedding);
        let projections = self.projections(&codes[..self.width]);
        let sketch = signs(projections.iter().map(|value| *value > 0.0));
        let lean_scale = largest(&projections) / MAX_CODE;
        let mut lean = Box::new(Zeroizing::new([0; SKETCH_BITS]));
        quantise(&projections, lean_scale, lean.as_mut_slice());
        Probe::new(codes, scale, Lean { codes: lean, scale: lean_scale * scale }, &sketch)
    }

    /// A stored row as a probe, for comparing rows with each other.
    pub(super) fn row_probe(&self, stored: &[u8], scale: f32) -> BareProbe {
        let mut codes: Zeroizing<Vec<i8>> = Zeroizing::new(Vec::with_capacity(stored.len()));
        codes.extend(stored[..self.width].iter().map(|byte| (byte ^ SIGN_BIT).cast_signed()));
        codes.resize(stored.len(), 0);
        BareProbe::new(codes, scale)
    }

    /// The rotated vector that stored codes stand for.
    pub(super) fn vector(&self, stored: &[u8], scale: f32) -> Zeroizing<Vec<f32>> {
        let mut values: Zeroizing<Vec<f32>> = Zeroizing::new(Vec::with_capacity(self.width));
        let code = |byte: &u8| f32::from((byte ^ SIGN_BIT).cast_signed());
        values.extend(stored[..self.width].iter().map(|byte| code(byte) * scale));
        values
    }

    /// A vector that is rotated already as a probe.
    pub(super) fn rotated_probe(&self, rotated: &[f32]) -> BareProbe {
        let (codes, scale) = self.quantised(rotated);
        BareProbe::new(codes, scale)
    }

    /// Rotated and quantised, padded to whole cache lines.
    fn codes(&self, embedding: &Embedding) -> (Zeroizing<Vec<i8>>, f32) {
        self.quantised(&self.rotated(embedding))
    }

    /// The vector that is quantised.
    pub(super) fn rotated(&self, embedding: &Embedding) -> Zeroizing<Vec<f32>> {
        let mut rotated = Zeroizing::new(embedding.expose().to_vec());
        self.rotation.apply(&mut rotated);
        rotated
    }

    fn quantised(&self, rotated: &[f32]) -> (Zeroizing<Vec<i8>>, f32) {
        let scale = largest(rotated) / MAX_CODE;
        let mut codes = Zeroizing::new(vec![0; self.stride()]);
        quantise(rotated, scale, &mut codes);
        (codes, scale)
    }

    /// The signs of a row.
    fn sketch(&self, codes: &[i8]) -> Zeroizing<Vec<u8>> {
        if self.further.is_empty() {
            signs(codes.iter().map(|code| *code > 0))
        } else {
            signs(self.projections(codes).iter().map(|value| *value > 0.0))
        }
    }

    /// The coordinates whose signs make the sketch, in steps of the codes.
    fn projections(&self, codes: &[i8]) -> Zeroizing<Vec<f32>> {
        let mut all: Zeroizing<Vec<f32>> =
            Zeroizing::new(Vec::with_capacity(SKETCH_BITS + self.width));
        all.extend(codes.iter().map(|code| f32::from(*code)));
        for rotation in &self.further {
            let from = all.len();
            all.extend_from_within(..self.width);
            rotation.apply(&mut all[from..]);
        }
        let used = SKETCH_BITS.min(all.len());
        all[used..].zeroize();
        all.truncate(SKETCH_BITS);
        all
    }

    fn stride(&self) -> usize {
        self.width.next_multiple_of(ROW_ALIGN)
    }
}

/// A template, quantised for the arena.
pub(super) struct Row {
    codes: Zeroizing<Vec<u8>>,
    scale: f32,
    sketch: Zeroizing<Vec<u8>>,
}

impl Row {
    /// Offset-binary codes, padded to whole cache lines.
    pub(super) fn codes(&self) -> &[u8] {
        &self.codes
    }

    /// Value of one code step.
    pub(super) fn scale(&self) -> f32 {
        self.scale
    }

    /// 512 signs, little endian, 1 for positive.
    pub(super) fn sketch(&self) -> &[u8] {
        &self.sketch
    }
}

/// A vector, quantised for comparison with rows.
pub(super) struct BareProbe {
    codes: Zeroizing<Vec<i8>>,
    scale: f32,
    bias: i32,
}

impl BareProbe {
    fn new(codes: Zeroizing<Vec<i8>>, scale: f32) -> Self {
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

/// A probe in all forms that a search takes.
pub(super) struct Probe {
    bare: BareProbe,
    lean: Lean,
    sketch: Box<Zeroizing<[u64; SKETCH_WORDS]>>,
}

/// The coordinates behind a sketch's bits, quantised.
struct Lean {
    codes: Box<Zeroizing<[i8; SKETCH_BITS]>>,
    scale: f32,
}

impl Probe {
    fn new(codes: Zeroizing<Vec<i8>>, scale: f32, lean: Lean, signs: &[u8]) -> Self {
        let mut sketch = Box::new(Zeroizing::new([0; SKETCH_WORDS]));
        for (word, bytes) in sketch.iter_mut().zip(signs.as_chunks().0) {
            *word = u64::from_le_bytes(*bytes);
        }
        Self { bare: BareProbe::new(codes, scale), lean, sketch }
    }

    /// For comparing with codes.
    pub(super) fn bare(&self) -> &BareProbe {
        &self.bare
    }

    /// 512 coordinates as signed codes, in the order of a sketch's bits.
    pub(super) fn lean_codes(&self) -> &[i8; SKETCH_BITS] {
        &self.lean.codes
    }

    /// Value of one step of [`Probe::lean_codes`].
    pub(super) fn lean_scale(&self) -> f32 {
        self.lean.scale
    }

    /// 512 signs, as in a row.
    pub(super) fn sketch(&self) -> &[u64; SKETCH_WORDS] {
        &self.sketch
    }
}

/// The largest magnitude. Never zero for what is quantised here: an embedding has length 1, and
/// its codes have an extreme one.
fn largest(values: &[f32]) -> f32 {
    // In lanes, so that no maximum waits for the one before it.
    const LANES: usize = 16;
    let mut lanes = [f32::MIN_POSITIVE; LANES];
    for values in values.chunks(LANES) {
        for (lane, value) in lanes.iter_mut().zip(values) {
            *lane = if value.abs() > *lane { value.abs() } else { *lane };
        }
    }
    lanes.into_iter().fold(f32::MIN_POSITIVE, f32::max)
}

#[expect(clippy::cast_possible_truncation, reason = "clamped to the range of a code")]
fn quantise(values: &[f32], scale: f32, codes: &mut [i8]) {
    for (code, value) in codes.iter_mut().zip(values) {
        // Rounded to the nearest by cutting off: `f32::round` is a call on processors of the
        // baseline.
        let steps = (value / scale).clamp(-MAX_CODE, MAX_CODE);
        *code = (steps + 0.5_f32.copysign(steps)) as i32 as i8;
    }
}

/// Whether a stored code is the largest or the least: every row has one, by its scale.
fn is_extreme(stored: u8) -> bool {
    stored == 1 || stored == u8::MAX
}

/// The first 512 signs as bits, 1 for positive.
fn signs(mut positive: impl Iterator<Item = bool>) -> Zeroizing<Vec<u8>> {
    let mut bytes = Zeroizing::new(vec![0; SKETCH_BYTES]);
    for byte in bytes.iter_mut() {
        *byte = (0..8).fold(0, |byte, bit| byte | u8::from(positive.next() == Some(true)) << bit);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::kernel::Kernel;
    use crate::index::testkit::{Random, quantiser};

    fn sq8_cosine(quantiser: &Quantiser, a: &Embedding, b: &Embedding) -> f32 {
        let (row, probe) = (quantiser.row(a), quantiser.probe(b));
        let kernels = Kernel::Portable.kernels().unwrap();
        let dot = kernels.dot(row.codes(), probe.bare().codes());
        probe.bare().score(dot, row.scale())
    }

    #[test]
    fn quantising_moves_a_cosine_by_less_than_0_005() {
        let (quantiser, mut random) = (quantiser(512), Random::new(1));
        for _ in 0..2_000 {
            let a = random.embedding(512);
            let b = random.near(&a, 0.7);
            for other in [&b, &random.embedding(512), &a] {
                let error = (sq8_cosine(&quantiser, &a, other) - a.cosine(other).get()).abs();
                assert!(error < 0.005, "{error}");
            }
        }
    }

    #[test]
    fn every_code_is_the_nearest() {
        let mut random = Random::new(3);
        let values = random.embedding(512).expose().to_vec();
        let scale = largest(&values) / MAX_CODE;
        assert!(values.iter().all(|value| value.abs() <= largest(&values)));
        let mut codes = [0; 512];
        quantise(&values, scale, &mut codes);
        assert!(codes.iter().any(|code| code.abs() == 127), "{codes:?}");
        for (value, code) in values.iter().zip(codes) {
            let error = (f32::from(code) * scale - value).abs();
            assert!(error <= scale * 0.500_01, "{value} became {code} times {scale}");
        }
    }

    #[test]
    fn a_vector_of_one_coordinate_quantises_too() {
        for width in [128, 130, 512, 1024] {
            let mut values = vec![0.0; width];
            values[width - 1] = -3.0;
            let lone = Embedding::normalise(values).unwrap();
            let cosine = sq8_cosine(&quantiser(width), &lone, &lone);
            assert!((cosine - 1.0).abs() < 1e-2, "{width}: {cosine}");
        }
    }

    #[test]
    fn stored_codes_give_back_the_same_row_and_nothing_else_does() {
        for width in [128, 130, 500, 512, 768, 1024] {
            let (quantiser, mut random) = (quantiser(width), Random::new(2));
            let row = quantiser.row(&random.embedding(width));
            let used = &row.codes()[..width];
            let again = quantiser.row_of_codes(used, row.scale()).unwrap();
            assert_eq!((again.codes(), again.sketch()), (row.codes(), row.sketch()));
            for (codes, scale) in [
                (vec![0; width], row.scale()),
                (vec![128; width], row.scale()),
                (used[1..].to_vec(), row.scale()),
                (used.to_vec(), 0.0),
                (used.to_vec(), f32::NAN),
                (used.to_vec(), row.scale() * 2.0),
                (used.to_vec(), row.scale() / 2.0),
                (used.iter().map(|code| *code / 2 + 1).collect(), row.scale()),
            ] {
                assert!(quantiser.row_of_codes(&codes, scale).is_none());
            }
        }
    }

    /// The share of equal signs of two vectors at an angle is that angle's, whatever the width.
    #[test]
    fn sketches_differ_by_the_angle() {
        for width in [128, 200, 512, 1024] {
            let (quantiser, mut random) = (quantiser(width), Random::new(3));
            let mut total = 0;
            for _ in 0..200 {
                let a = random.embedding(width);
                let b = random.near(&a, 0.5);
                let (a, b) = (quantiser.row(&a), quantiser.probe(&b));
                let words = a.sketch().as_chunks().0.iter().zip(b.sketch());
                let differ = |(x, y): (&[u8; 8], &u64)| (u64::from_le_bytes(*x) ^ y).count_ones();
                total += words.map(differ).sum::<u32>();
            }
            let mean = f64::from(total) / 200.0;
            // acos(0.5) / pi = 1/3 of 512.
            assert!((mean - 170.7).abs() < 2.5, "{width}: {mean}");
        }
    }
}
