//! What the graph was seen to do in this gallery, `ef` by `ef`.
//!
//! # Invariants
//! - Rungs stand in the order of their `ef`.
//! - A rung serves only if it found every mate that it was measured with, and never again after the
//!   canary caught it missing more than the target allows.

use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// How the graph did with one `ef`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::index) struct Rung {
    /// Candidates that the walk keeps.
    pub(in crate::index) ef: usize,
    /// Share of mates found that an exact scan finds.
    pub(in crate::index) recall: f64,
    /// Mean time of one unfiltered search.
    pub(in crate::index) cost: Duration,
}

impl Rung {
    /// Whether it missed nobody, of so many that it then meets the target with confidence.
    pub(in crate::index) fn is_good(self) -> bool {
        self.recall >= 1.0
    }
}

/// The ladder.
#[derive(Debug)]
pub(in crate::index) struct Tuning {
    rungs: Vec<Rung>,
    /// The first rung that may serve.
    from: AtomicUsize,
    /// Rows of the galleries that it holds for.
    sizes: RangeInclusive<usize>,
}

impl Tuning {
    /// A ladder measured over `rows` rows, which holds until the gallery has grown or shrunk by more
    /// than a quarter; `None` without a rung.
    pub(in crate::index) fn new(rungs: Vec<Rung>, rows: usize) -> Option<Self> {
        Self::of_sizes(rungs, rows - rows / 4..=rows + rows / 4)
    }

    fn of_sizes(mut rungs: Vec<Rung>, sizes: RangeInclusive<usize>) -> Option<Self> {
        rungs.sort_by_key(|rung| rung.ef);
        (!rungs.is_empty()).then(|| Self { rungs, from: AtomicUsize::new(0), sizes })
    }

    /// One rung that holds for every size, so that tests of any size go through the graph.
    #[cfg(test)]
    pub(in crate::index) fn lasting(rung: Rung) -> Option<Self> {
        Self::of_sizes(vec![rung], 0..=usize::MAX)
    }

    /// Whether the gallery has changed too much since.
    pub(in crate::index) fn is_stale(&self, rows: usize) -> bool {
        !self.sizes.contains(&rows)
    }

    /// The least rung that meets the target.
    pub(in crate::index) fn serving(&self) -> Option<Rung> {
        let allowed = self.rungs.iter().skip(self.from.load(Ordering::Relaxed));
        allowed.copied().find(|rung| rung.is_good())
    }

    /// The serving rung, or the last where none meets the target.
    pub(in crate::index) fn serving_or_best(&self) -> Rung {
        self.serving().unwrap_or(self.rungs[self.rungs.len() - 1])
    }

    /// Never again the rung with this `ef`: it was caught missing too much.
    pub(in crate::index) fn rule_out(&self, ef: usize) {
        let above = self.rungs.partition_point(|rung| rung.ef <= ef);
        self.from.fetch_max(above, Ordering::Relaxed);
    }

    /// The best recall seen.
    pub(in crate::index) fn best_recall(&self) -> f64 {
        self.rungs.iter().map(|rung| rung.recall).fold(0.0, f64::max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tuning() -> Tuning {
        let rung = |ef, recall| Rung { ef, recall, cost: Duration::from_micros(ef as u64) };
        Tuning::new(vec![rung(256, 1.0), rung(64, 0.9995), rung(128, 1.0)], 1_000).unwrap()
    }

    #[test]
    fn the_least_ef_that_meets_the_target_serves_until_it_is_caught() {
        let tuning = tuning();
        assert_eq!(tuning.serving().unwrap().ef, 128);
        tuning.rule_out(128);
        assert_eq!(tuning.serving().unwrap().ef, 256);
        tuning.rule_out(64);
        assert_eq!(tuning.serving().unwrap().ef, 256);
        tuning.rule_out(256);
        assert_eq!(tuning.serving(), None);
        assert_eq!(tuning.serving_or_best().ef, 256);
    }

    #[test]
    fn a_gallery_that_changed_by_more_than_a_quarter_is_measured_again() {
        let tuning = tuning();
        assert!(!tuning.is_stale(1_250) && !tuning.is_stale(750));
        assert!(tuning.is_stale(1_251) && tuning.is_stale(749));
    }
}
