//! The best rows so far.
//!
//! # Invariants
//! - Rows below the floor are not kept, whatever else there is.
//! - The result does not depend on the order of offers: equal similarities are ordered by row.

use std::cmp::Ordering;

/// A row and how similar it is to the probe.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::index) struct Hit {
    /// The cosine.
    pub(in crate::index) similarity: f32,
    /// The row.
    pub(in crate::index) row: u32,
}

impl Hit {
    /// Best first.
    fn rank(self, other: Self) -> Ordering {
        other.similarity.total_cmp(&self.similarity).then(self.row.cmp(&other.row))
    }
}

/// The best rows of one search.
#[derive(Debug)]
pub(in crate::index) struct Tally {
    keep: usize,
    floor: f32,
    best: Vec<Hit>,
}

impl Tally {
    /// Keeps at most `keep` rows of at least `floor`.
    pub(in crate::index) fn new(keep: usize, floor: f32) -> Self {
        Self { keep, floor, best: Vec::new() }
    }

    /// The least similarity that an offer needs in order not to be in vain.
    #[inline]
    pub(in crate::index) fn bar(&self) -> f32 {
        if self.keep == 0 {
            return f32::INFINITY;
        }
        self.best.get(self.keep - 1).map_or(self.floor, |worst| worst.similarity)
    }

    /// Keeps the row if it is among the best.
    #[inline]
    pub(in crate::index) fn offer(&mut self, hit: Hit) {
        if hit.similarity < self.bar() {
            return;
        }
        let at = self.best.partition_point(|other| other.rank(hit).is_le());
        if at < self.keep {
            self.best.truncate(self.keep - 1);
            self.best.insert(at, hit);
        }
    }

    /// The best of both.
    pub(in crate::index) fn merge(mut self, other: Self) -> Self {
        for hit in other.best {
            self.offer(hit);
        }
        self
    }

    /// Best first.
    pub(in crate::index) fn into_best(self) -> Vec<Hit> {
        self.best
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hit(similarity: f32, row: u32) -> Hit {
        Hit { similarity, row }
    }

    fn gather(hits: &[Hit], keep: usize, floor: f32) -> Tally {
        let mut tally = Tally::new(keep, floor);
        for hit in hits {
            tally.offer(*hit);
        }
        tally
    }

    #[test]
    fn keeps_the_best_and_orders_ties_by_row() {
        let hits = [hit(0.1, 0), hit(0.9, 4), hit(0.9, 2), hit(-1.0, 9), hit(0.5, 1)];
        let best = gather(&hits, 3, -1.0).into_best();
        assert_eq!(best, [hit(0.9, 2), hit(0.9, 4), hit(0.5, 1)]);
    }

    #[test]
    fn keeping_none_keeps_none_and_nothing_below_the_floor_is_kept() {
        assert!(gather(&[hit(1.0, 0)], 0, -1.0).into_best().is_empty());
        let hits = [hit(0.49, 0), hit(0.5, 1), hit(0.51, 2)];
        assert_eq!(gather(&hits, 9, 0.5).into_best(), [hit(0.51, 2), hit(0.5, 1)]);
    }

    #[test]
    fn merging_pieces_in_any_order_gives_what_one_piece_gives() {
        let hits: Vec<Hit> = (0..20_u8).map(|i| hit(f32::from(i * 7 % 5), u32::from(i))).collect();
        let (a, b) = hits.split_at(11);
        let whole = gather(&hits, 4, 1.0).into_best();
        for (one, other) in [(a, b), (b, a)] {
            assert_eq!(gather(one, 4, 1.0).merge(gather(other, 4, 1.0)).into_best(), whole);
        }
    }
}
