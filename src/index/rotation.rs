//! The keyed rotation that every vector goes through before it is stored.
//!
//! Three rounds of random signs and a Walsh-Hadamard transform are an orthogonal map that costs
//! `O(d log d)` and behaves like a random one (Ailon and Chazelle 2006; three rounds as in
//! Andoni et al. 2015). It serves two ends:
//!
//! - **Even coordinates**: whatever axis a model likes best is spread over all of them, so that a
//!   byte a coordinate and a sign a coordinate both keep most of what there is.
//! - **Renewal** (ISO/IEC 24745): the signs are drawn from a key, so that rows of one deployment
//!   say nothing beside rows of another, and a new key gives new rows without new enrolments.
//!
//! ```text
//! width 512:  H S3 H S2 H S1 v                H: Hadamard / sqrt(n), S: +-1 on the diagonal
//! other:      each H runs over the first p coordinates and then over the last p,
//!             p the largest power of two that fits: the two overlap, and each is orthogonal
//! ```
//!
//! # Invariants
//! - Lengths and inner products are kept up to rounding.
//! - The same key and width give the same map on every machine.
//!
//! # Not here
//! Secrecy. The map is linear: who has a few rows and the vectors they stand for can solve for
//! it. Rows are protected by where they lie, not by this.

use sha2::{Digest, Sha256};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// Bytes of a rotation's key.
const KEY_BYTES: usize = 32;
/// Rounds of signs and transform.
const ROUNDS: usize = 3;

/// The key that rotations are drawn from. It belongs to a deployment and has to stay the same for
/// as long as rows are kept.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct RotationKey(Box<[u8; KEY_BYTES]>);

impl RotationKey {
    /// Takes over a key.
    #[must_use]
    pub fn new(bytes: &[u8; KEY_BYTES]) -> Self {
        Self(Box::new(*bytes))
    }

    /// Names the key and tells nothing of it: a snapshot says under which it was made.
    pub(super) fn fingerprint(&self) -> [u8; 16] {
        let digest: [u8; 32] = Sha256::new()
            .chain_update(b"assent rotation fingerprint")
            .chain_update(*self.0)
            .finalize()
            .into();
        let (half, _) = digest.split_first_chunk().expect("32 bytes have 16");
        *half
    }

    /// Bits that only the key's owner can foretell, `count` of them for the map numbered `map`.
    fn signs(&self, map: u32, count: usize) -> Zeroizing<Vec<f32>> {
        let mut signs = Zeroizing::new(Vec::with_capacity(count));
        for block in 0_u32.. {
            let mut bits: [u8; 32] = Sha256::new()
                .chain_update(b"assent rotation signs")
                .chain_update(*self.0)
                .chain_update(map.to_le_bytes())
                .chain_update(block.to_le_bytes())
                .finalize()
                .into();
            for byte in bits {
                signs.extend((0..8).map(|bit| if byte >> bit & 1 == 1 { -1.0 } else { 1.0 }));
            }
            bits.zeroize();
            if signs.len() >= count {
                break;
            }
        }
        signs.truncate(count);
        signs
    }
}

impl std::fmt::Debug for RotationKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RotationKey")
    }
}

impl PartialEq for RotationKey {
    fn eq(&self, other: &Self) -> bool {
        self.fingerprint() == other.fingerprint()
    }
}

impl Eq for RotationKey {}

/// One orthogonal map of a width.
pub(super) struct Rotation {
    width: usize,
    /// The largest power of two that fits in the width.
    span: usize,
    /// Round after round.
    signs: Zeroizing<Vec<f32>>,
}

impl Rotation {
    /// The map numbered `map` of a key; maps of one key are as unlike as those of two.
    pub(super) fn new(key: &RotationKey, width: usize, map: u32) -> Self {
        let span = 1 << width.ilog2();
        Self { width, span, signs: key.signs(map, ROUNDS * width) }
    }

    /// Rotates in place; `values` is as long as the map is wide.
    pub(super) fn apply(&self, values: &mut [f32]) {
        debug_assert_eq!(values.len(), self.width);
        for signs in self.signs.chunks_exact(self.width) {
            for (value, sign) in values.iter_mut().zip(signs) {
                *value *= sign;
            }
            hadamard(&mut values[..self.span]);
            if self.span < self.width {
                hadamard(&mut values[self.width - self.span..]);
            }
        }
    }
}

/// The Walsh-Hadamard transform, scaled to keep lengths; `values` is a power of two long, at
/// least four.
fn hadamard(values: &mut [f32]) {
    // The two shortest strides in one step: as loops of their own they take longer than the rest.
    for four in values.as_chunks_mut::<4>().0 {
        let [a, b, c, d] = *four;
        let [ab, cd] = [(a + b, a - b), (c + d, c - d)];
        *four = [ab.0 + cd.0, ab.1 + cd.1, ab.0 - cd.0, ab.1 - cd.1];
    }
    let mut half = 4;
    while half < values.len() {
        for pair in values.chunks_exact_mut(2 * half) {
            let (left, right) = pair.split_at_mut(half);
            for (a, b) in left.iter_mut().zip(right) {
                (*a, *b) = (*a + *b, *a - *b);
            }
        }
        half *= 2;
    }
    #[expect(clippy::cast_precision_loss, reason = "at most 1,024")]
    let scale = (values.len() as f32).sqrt().recip();
    for value in values {
        *value *= scale;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::testkit::Random;

    fn key(byte: u8) -> RotationKey {
        RotationKey::new(&[byte; KEY_BYTES])
    }

    fn dot(a: &[f32], b: &[f32]) -> f32 {
        a.iter().zip(b).map(|(a, b)| a * b).sum()
    }

    #[test]
    fn every_width_keeps_cosines() {
        let mut random = Random::new(40);
        for width in [128, 130, 192, 255, 256, 500, 512, 513, 768, 1000, 1024] {
            let rotation = Rotation::new(&key(1), width, 0);
            let (a, b) = (random.embedding(width), random.embedding(width));
            let (mut x, mut y) = (a.expose().to_vec(), b.expose().to_vec());
            rotation.apply(&mut x);
            rotation.apply(&mut y);
            assert!((dot(&x, &x) - 1.0).abs() < 1e-4, "{width}");
            assert!((dot(&x, &y) - a.cosine(&b).get()).abs() < 1e-4, "{width}");
        }
    }

    #[test]
    fn one_coordinate_spreads_over_all() {
        for width in [128, 200, 512, 1024] {
            for at in [0, width / 2, width - 1] {
                let mut values = vec![0.0; width];
                values[at] = 1.0;
                Rotation::new(&key(2), width, 0).apply(&mut values);
                let largest = values.iter().fold(0.0_f32, |max, v| max.max(v.abs()));
                assert!(largest < 0.5, "{width}: {largest}");
            }
        }
    }

    /// D4: the same face under two keys looks like two strangers.
    #[test]
    fn d4_two_keys_give_rows_that_are_strangers() {
        let mut random = Random::new(41);
        let (one, other) = (Rotation::new(&key(1), 512, 0), Rotation::new(&key(2), 512, 0));
        for _ in 0..50 {
            let face = random.embedding(512);
            let (mut x, mut y) = (face.expose().to_vec(), face.expose().to_vec());
            one.apply(&mut x);
            other.apply(&mut y);
            // Strangers in 512 dimensions: standard deviation 0.044.
            assert!(dot(&x, &y).abs() < 0.25);
        }
    }

    #[test]
    fn a_fingerprint_tells_keys_apart_and_is_not_the_key() {
        assert_ne!(key(1).fingerprint(), key(2).fingerprint());
        assert_ne!(key(1).fingerprint(), [1; 16]);
        assert_eq!(format!("{:?}", key(1)), "RotationKey");
    }
}
