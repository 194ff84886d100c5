//! Random numbers that depend on a seed and a place in the gallery, never on a thread.
//!
//! # Not here
//! Anything that has to be hard to guess: this is for benches and tests.

use std::f32::consts::TAU;

/// SplitMix64 (Steele, Lea and Flood, 2014), one short stream for each thing that is sampled.
pub(super) struct Random(u64);

/// What a stream is for: streams of different kinds never coincide.
#[derive(Clone, Copy)]
pub(super) enum Stream {
    Person,
    Template,
    Mate,
    Stranger,
    StrangersProbe,
}

impl Random {
    /// The stream of the `index`-th thing of its kind.
    pub(super) fn of(seed: u64, kind: Stream, index: usize) -> Self {
        Self(mix(mix(mix(seed) ^ kind as u64) ^ index as u64))
    }

    /// A number below `limit`, which is at most 2^32; the bias is below `limit / 2^32`.
    pub(super) fn below(&mut self, limit: usize) -> usize {
        let scaled = u128::from(self.next()) * limit as u128;
        usize::try_from(scaled >> u64::BITS).unwrap_or(0)
    }

    /// Two independent standard normal numbers (Box and Muller, 1958), at most 5.8 in size.
    pub(super) fn normal_pair(&mut self) -> [f32; 2] {
        let bits = self.next();
        let (radius, turn) = (1.0 - unit(bits >> 40), unit((bits >> 8) & 0xFF_FFFF));
        let radius = (-2.0 * radius.ln()).sqrt();
        let (sine, cosine) = (TAU * turn).sin_cos();
        [radius * cosine, radius * sine]
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mix(self.0)
    }
}

/// 24 bits as a number in [0, 1).
#[expect(clippy::cast_precision_loss, reason = "24 bits fit into a float")]
fn unit(bits: u64) -> f32 {
    bits as f32 / 16_777_216.0
}

fn mix(word: u64) -> u64 {
    let word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    word ^ (word >> 31)
}
