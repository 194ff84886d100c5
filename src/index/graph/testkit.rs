//! Vectors for the graph's tests.

use super::{Near, Space};

/// SplitMix64.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, bound: usize) -> u32 {
        u32::try_from(self.next() % bound as u64).unwrap()
    }

    /// Near enough to normal: a sum of four.
    fn value(&mut self) -> f32 {
        (0..4)
            .map(|_| f32::from(u16::try_from(self.below(1 << 16)).unwrap()) / 65_536.0 - 0.5)
            .sum()
    }
}

/// Unit vectors of floats.
pub(super) struct Dots {
    width: usize,
    values: Vec<f32>,
}

impl Dots {
    /// Vectors all over the sphere.
    pub(super) fn scattered(seed: u64, rows: usize, width: usize) -> Self {
        let mut random = Random::new(seed);
        let mut values: Vec<f32> = (0..rows * width).map(|_| random.value()).collect();
        for row in values.chunks_mut(width) {
            let length = row.iter().map(|v| v * v).sum::<f32>().sqrt();
            for value in row {
                *value /= length;
            }
        }
        Self { width, values }
    }

    /// Many rows on few vectors.
    pub(super) fn heaped(seed: u64, rows: usize, width: usize, heaps: usize) -> Self {
        let few = Self::scattered(seed, heaps, width);
        let values = few.values.iter().copied().cycle().take(rows * width).collect();
        Self { width, values }
    }

    pub(super) fn rows(&self) -> usize {
        self.values.len() / self.width
    }

    fn row(&self, row: u32) -> &[f32] {
        &self.values[row as usize * self.width..][..self.width]
    }

    pub(super) fn similarity(&self, a: u32, b: u32) -> f32 {
        self.row(a).iter().zip(self.row(b)).map(|(a, b)| a * b).sum()
    }

    /// A stored row as a probe.
    pub(super) fn probe(&self, row: u32) -> impl Fn(&[u32], &mut [f32]) + '_ {
        move |rows, found| self.similarities(row, rows, found)
    }

    /// The best of some rows, by looking at all of them.
    pub(super) fn exact(&self, probe: u32, rows: &[u32], keep: usize) -> Vec<u32> {
        let near = |row: &u32| Near { similarity: self.similarity(probe, *row), row: *row };
        let mut all: Vec<Near> = rows.iter().map(near).collect();
        all.sort_by(|a, b| a.rank(*b));
        all.iter().take(keep).map(|near| near.row).collect()
    }
}

impl Space for Dots {
    fn similarities(&self, row: u32, others: &[u32], found: &mut [f32]) {
        for (other, found) in others.iter().zip(found) {
            *found = self.similarity(row, *other);
        }
    }
}
