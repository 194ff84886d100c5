//! The watch over recall: of every so many answers one is repeated by exact scan.
//!
//! The repetition belongs to the request whose probe it is, and its answer is the better of the
//! two: a person whom the way had missed gets in, and no probe outlives its request (promise P3).
//! The exact scan takes its time in short spells, so that writers wait for one spell and not for
//! all, and rests between them, so that other searches do (`Index::second_opinion`).
//!
//! # Invariants
//! - A mate counts once: found or missed.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{TARGET_RECALL, Way};

/// Misses before a way is judged: fewer may be chance.
const MISSES_TO_JUDGE: u64 = 3;

/// What repeated searches have shown of one way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Recall {
    /// Mates at or above the floor that the way had found as well.
    pub found: u64,
    /// Those that it had missed.
    pub missed: u64,
}

impl Recall {
    /// The share found; `None` while no mate was seen.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a share")]
    pub fn share(self) -> Option<f64> {
        let all = self.found + self.missed;
        (all > 0).then(|| self.found as f64 / all as f64)
    }
}

/// Counts answers and what their repetitions show.
pub(in crate::index) struct Canary {
    /// One answer of so many is repeated; 0 for none.
    every: u64,
    answers: AtomicU64,
    meters: [Meter; 3],
}

#[derive(Default)]
struct Meter {
    found: AtomicU64,
    missed: AtomicU64,
}

impl Canary {
    /// Repeats one answer of `every`; none for 0.
    pub(in crate::index) fn new(every: u64) -> Self {
        Self { every, answers: AtomicU64::new(0), meters: Default::default() }
    }

    /// Whether it is this answer's turn.
    pub(in crate::index) fn is_due(&self) -> bool {
        self.every > 0
            && self.answers.fetch_add(1, Ordering::Relaxed) % self.every == self.every - 1
    }

    /// Counts one mate, and says whether the way now misses more than the target allows.
    pub(in crate::index) fn saw(&self, way: Way, found: bool) -> bool {
        let meter = &self.meters[way as usize];
        let count = if found { &meter.found } else { &meter.missed };
        count.fetch_add(1, Ordering::Relaxed);
        let recall = self.recall(way);
        !found
            && recall.missed >= MISSES_TO_JUDGE
            && recall.share().is_some_and(|share| share < TARGET_RECALL)
    }

    /// Begins to count a way anew, because it goes on in another manner.
    pub(in crate::index) fn restart(&self, way: Way) {
        let meter = &self.meters[way as usize];
        meter.found.store(0, Ordering::Relaxed);
        meter.missed.store(0, Ordering::Relaxed);
    }

    /// What was seen of a way.
    pub(in crate::index) fn recall(&self, way: Way) -> Recall {
        let meter = &self.meters[way as usize];
        Recall {
            found: meter.found.load(Ordering::Relaxed),
            missed: meter.missed.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_answer_of_so_many_is_repeated() {
        let canary = Canary::new(4);
        let due = (0..12).filter(|_| canary.is_due()).count();
        assert_eq!(due, 3);
        assert!(!(0..12).any(|_| Canary::new(0).is_due()));
    }

    #[test]
    fn a_way_is_judged_after_three_misses_and_only_below_the_target() {
        let canary = Canary::new(1);
        assert!(!canary.saw(Way::Graph, false) && !canary.saw(Way::Graph, false));
        assert!(canary.saw(Way::Graph, false));
        canary.restart(Way::Graph);
        for _ in 0..5_000 {
            assert!(!canary.saw(Way::Graph, true));
        }
        assert!(!(0..5).any(|_| canary.saw(Way::Graph, false)), "5 of 5,005 are within the target");
        assert!(canary.saw(Way::Graph, false));
        assert_eq!(canary.recall(Way::Sketch), Recall::default());
    }
}
