//! The exact scan: every permitted row is compared, so recall is 1 by construction.
//!
//! # Invariants
//! - Only the rows it is given are read; permission is decided before, never by a filter after.
//! - The result does not depend on how the rows are cut into pieces: equal similarities are
//!   ordered by row.

use std::cmp::Ordering;

use rayon::prelude::*;

use super::arena::Arena;
use super::kernel::Dot;
use super::quantise::Probe;
use crate::types::Timestamp;

/// Above this many rows a scan is spread over the cores; below, handing it out costs more.
const PARALLEL_ROWS: usize = 50_000;
/// Rows in a piece of a spread scan: about 4 MiB at 512 dimensions.
const PIECE_ROWS: usize = 8_192;

/// One search over an arena at one instant.
pub(super) struct Scan<'a> {
    /// Where the rows are.
    pub(super) arena: &'a Arena,
    /// How rows are compared.
    pub(super) dot: Dot,
    /// What they are compared with.
    pub(super) probe: &'a Probe,
    /// By row: the instant from which on it does not match.
    pub(super) matches_until: &'a [Timestamp],
    /// The instant of the search.
    pub(super) now: Timestamp,
    /// How many candidates are wanted.
    pub(super) keep: usize,
}

impl Scan<'_> {
    /// Compares all rows of `lists`. A row stands in one list at most.
    pub(super) fn over(&self, lists: &[&[u32]]) -> Tally {
        let total: usize = lists.iter().map(|list| list.len()).sum();
        if total <= PARALLEL_ROWS {
            return lists.iter().fold(Tally::default(), |tally, list| self.piece(tally, list));
        }
        let pieces: Vec<&[u32]> = lists.iter().flat_map(|list| list.chunks(PIECE_ROWS)).collect();
        pieces
            .par_iter()
            .fold(Tally::default, |tally, piece| self.piece(tally, piece))
            .reduce(Tally::default, |a, b| a.merge(b, self.keep))
    }

    fn piece(&self, mut tally: Tally, rows: &[u32]) -> Tally {
        for &row in rows {
            if self.now < self.matches_until[row as usize] {
                tally.searched += 1;
                tally.offer(Hit { similarity: self.score(row), row }, self.keep);
            }
        }
        tally
    }

    fn score(&self, row: u32) -> f32 {
        let (codes, scale) = self.arena.row(row);
        self.probe.score(self.dot.apply(codes, self.probe.codes()), scale)
    }
}

/// A row and how similar it is to the probe.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Hit {
    /// The cosine.
    pub(super) similarity: f32,
    /// The row.
    pub(super) row: u32,
}

impl Hit {
    /// Best first.
    fn rank(self, other: Self) -> Ordering {
        other.similarity.total_cmp(&self.similarity).then(self.row.cmp(&other.row))
    }
}

/// The best rows so far and how many were compared.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Best first.
    pub(super) best: Vec<Hit>,
    /// Rows compared.
    pub(super) searched: usize,
}

impl Tally {
    #[inline]
    fn offer(&mut self, hit: Hit, keep: usize) {
        let full = self.best.len() >= keep;
        if full && self.best.last().is_none_or(|worst| worst.rank(hit).is_le()) {
            return;
        }
        let at = self.best.partition_point(|other| other.rank(hit).is_le());
        self.best.insert(at, hit);
        self.best.truncate(keep);
    }

    fn merge(mut self, other: Self, keep: usize) -> Self {
        self.searched += other.searched;
        for hit in other.best {
            self.offer(hit, keep);
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hit(similarity: f32, row: u32) -> Hit {
        Hit { similarity, row }
    }

    #[test]
    fn keeps_the_best_and_orders_ties_by_row() {
        let mut tally = Tally::default();
        for h in [hit(0.1, 0), hit(0.9, 4), hit(0.9, 2), hit(-1.0, 9), hit(0.5, 1)] {
            tally.offer(h, 3);
        }
        assert_eq!(tally.best, [hit(0.9, 2), hit(0.9, 4), hit(0.5, 1)]);
    }

    #[test]
    fn keeping_none_keeps_none() {
        let mut tally = Tally::default();
        tally.offer(hit(1.0, 0), 0);
        assert!(tally.best.is_empty());
    }

    #[test]
    fn merging_pieces_gives_what_one_piece_gives() {
        let hits: Vec<Hit> = (0..20_u8).map(|i| hit(f32::from(i * 7 % 5), u32::from(i))).collect();
        let gather = |hits: &[Hit]| {
            let mut tally = Tally::default();
            for hit in hits {
                tally.offer(*hit, 4);
            }
            tally
        };
        let (a, b) = hits.split_at(11);
        assert_eq!(gather(b).merge(gather(a), 4).best, gather(&hits).best);
    }
}
