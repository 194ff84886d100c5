//! From counted cosines to error rates and thresholds.
//!
//! A threshold lies on the edge of a bin, and a pair matches at or above it.
//!
//! # Invariants
//! - A threshold keeps its rate: at it, no more impostors match than the rate allows.
//! - A rate that would rest on fewer than [`LEAST_ERRORS`] false matches has no threshold.

use super::bounds::Share;
use super::pairs::{BINS_TO_ONE, Histogram, Tally};

/// Fewest false matches that a measured rate may rest on (Doddington's "rule of 30": the rate is
/// then within 30 % of the truth with a confidence of 90 %).
pub(super) const LEAST_ERRORS: u64 = 30;

/// The edge of a bin: a threshold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Edge(usize);

impl Edge {
    /// The cosine.
    #[expect(clippy::cast_precision_loss, reason = "tens of thousands")]
    pub(super) fn cosine(self) -> f64 {
        (self.0 as f64 - f64::from(BINS_TO_ONE)) / f64::from(BINS_TO_ONE)
    }

    /// The nearest edge to a cosine.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "clamped to the range of cosines"
    )]
    pub(super) fn nearest(cosine: f64) -> Self {
        let to_one = f64::from(BINS_TO_ONE);
        Self(((cosine.clamp(-1.0, 1.0) + 1.0) * to_one).round() as usize)
    }
}

/// Mean and deviation of cosines.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Moments {
    pub(super) mean: f64,
    pub(super) deviation: f64,
}

/// Both error rates at every threshold.
pub(super) struct Curve {
    /// By edge: impostors at or above it.
    matching: Vec<u64>,
    /// By edge: genuine pairs below it.
    missing: Vec<u64>,
    genuine: u64,
    impostors: u64,
    /// Of genuine and impostor pairs.
    pub(super) moments: (Moments, Moments),
}

impl Curve {
    pub(super) fn of(tally: &Tally) -> Self {
        let mut matching = tally.impostor.bins().to_vec();
        for edge in (1..matching.len()).rev() {
            matching[edge - 1] += matching[edge];
        }
        let mut missing = vec![0];
        for count in tally.genuine.bins() {
            missing.push(missing.last().copied().unwrap_or(0) + count);
        }
        let genuine = missing.pop().unwrap_or(0);
        let impostors = matching.first().copied().unwrap_or(0);
        let moments = (moments(&tally.genuine), moments(&tally.impostor));
        Self { matching, missing, genuine, impostors, moments }
    }

    pub(super) fn genuine(&self) -> u64 {
        self.genuine
    }

    pub(super) fn impostors(&self) -> u64 {
        self.impostors
    }

    /// False matches at a threshold.
    pub(super) fn fmr(&self, at: Edge) -> Share {
        Share { hits: self.matching.get(at.0).copied().unwrap_or(0), of: self.impostors }
    }

    /// False non-matches at a threshold.
    pub(super) fn fnmr(&self, at: Edge) -> Share {
        Share { hits: self.missing.get(at.0).copied().unwrap_or(self.genuine), of: self.genuine }
    }

    /// Impostor pairs that a rate takes for a measurement.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "rates of 1e-9 and more"
    )]
    pub(super) fn pairs_for(fmr: f64) -> u64 {
        (LEAST_ERRORS as f64 / fmr).round() as u64
    }

    /// The lowest threshold that keeps `fmr`, where there are pairs enough to say.
    pub(super) fn threshold(&self, fmr: f64) -> Option<Edge> {
        if self.impostors < Self::pairs_for(fmr) {
            return None;
        }
        let keeps = |edge: &usize| self.fmr(Edge(*edge)).rate() <= fmr;
        (0..self.matching.len()).find(keeps).map(Edge)
    }

    /// Where both rates are equal, and the rate: half way where they cross between two edges.
    pub(super) fn equal_error(&self) -> Option<(Edge, f64)> {
        let crosses = |edge: &Edge| self.fmr(*edge).rate() <= self.fnmr(*edge).rate();
        let edge = self.edges().find(crosses)?;
        let here = f64::midpoint(self.fmr(edge).rate(), self.fnmr(edge).rate());
        Some((edge, here))
    }

    /// Every threshold, ascending.
    pub(super) fn edges(&self) -> impl Iterator<Item = Edge> + use<> {
        (0..self.matching.len()).map(Edge)
    }

    /// Impostors that are more alike than half of the genuine pairs.
    pub(super) fn impostors_like_genuine(&self) -> u64 {
        let median = self.edges().find(|edge| 2 * self.fnmr(*edge).hits >= self.genuine);
        median.map_or(0, |edge| self.fmr(edge).hits)
    }

    /// Genuine pairs that are less alike than half of the impostors.
    pub(super) fn genuine_like_impostors(&self) -> u64 {
        let median = self.edges().find(|edge| 2 * self.fmr(*edge).hits <= self.impostors);
        median.map_or(0, |edge| self.fnmr(edge).hits)
    }
}

/// From the middles of the bins.
#[expect(clippy::cast_precision_loss, reason = "counts of pairs")]
fn moments(histogram: &Histogram) -> Moments {
    let half = 0.5 / f64::from(BINS_TO_ONE);
    let middles = histogram.bins().iter().enumerate();
    let (mut count, mut sum, mut square) = (0.0, 0.0, 0.0);
    for (edge, pairs) in middles.filter(|(_, pairs)| **pairs > 0) {
        let (cosine, pairs) = (Edge(edge).cosine() + half, *pairs as f64);
        count += pairs;
        sum += pairs * cosine;
        square += pairs * cosine * cosine;
    }
    let mean = if count > 0.0 { sum / count } else { 0.0 };
    let variance = if count > 0.0 { square / count - mean * mean } else { 0.0 };
    Moments { mean, deviation: variance.max(0.0).sqrt() }
}

#[cfg(test)]
mod tests {
    use super::super::pairs::{Face, compare};
    use super::*;
    use crate::types::Embedding;

    /// Faces on a circle, by degrees and person: their cosines are known.
    fn curve(faces: &[(f64, usize)]) -> Curve {
        let face = |(degrees, person): &(f64, usize)| {
            let (sin, cos) = degrees.to_radians().sin_cos();
            let mut values = vec![0.0; 128];
            #[expect(clippy::cast_possible_truncation, reason = "f32 is the model's type")]
            {
                (values[0], values[1]) = (cos as f32, sin as f32);
            }
            let embedding = Embedding::normalise(values).unwrap();
            Face { embedding, person: *person, group: None }
        };
        let faces: Vec<_> = faces.iter().map(face).collect();
        Curve::of(&compare(&faces, 0, 1).whole)
    }

    #[test]
    fn rates_are_those_counted_by_hand() {
        // Genuine: cos 10 = 0.985. Impostors: cos 60 = 0.5, cos 50 = 0.643, with either of two.
        let curve = curve(&[(0.0, 0), (10.0, 0), (60.0, 1)]);
        assert_eq!((curve.genuine(), curve.impostors()), (1, 2));
        let at = |cosine| (curve.fmr(Edge::nearest(cosine)), curve.fnmr(Edge::nearest(cosine)));
        let share = |hits, of| Share { hits, of };
        assert_eq!(at(-1.0), (share(2, 2), share(0, 1)));
        assert_eq!(at(0.6), (share(1, 2), share(0, 1)));
        assert_eq!(at(0.65), (share(0, 2), share(0, 1)));
        assert_eq!(at(0.99), (share(0, 2), share(1, 1)));
        let (genuine, impostor) = curve.moments;
        assert!((genuine.mean - 0.984_8).abs() < 1e-4 && genuine.deviation < 1e-4);
        assert!((impostor.mean - 0.571_4).abs() < 1e-4);
        assert!((impostor.deviation - 0.071_4).abs() < 1e-4);
    }

    #[test]
    fn a_rate_without_pairs_enough_has_no_threshold() {
        assert_eq!(Curve::pairs_for(1e-4), 300_000);
        let few: Vec<_> = (0..20_u8).map(|n| (f64::from(n) * 2.0, usize::from(n))).collect();
        let curve = curve(&few);
        assert_eq!(curve.impostors(), 190);
        assert_eq!(curve.threshold(0.1), None);
        let threshold = curve.threshold(0.2).unwrap();
        let below = Edge(threshold.0 - 1);
        assert!(curve.fmr(threshold).rate() <= 0.2 && curve.fmr(below).rate() > 0.2);
    }

    #[test]
    fn the_equal_error_rate_is_where_the_rates_cross() {
        let apart = curve(&[(0.0, 0), (1.0, 0), (90.0, 1), (91.0, 1)]);
        assert!(apart.equal_error().unwrap().1 < 1e-9);
        let mixed = curve(&[(0.0, 0), (90.0, 0), (1.0, 1), (91.0, 1)]);
        let (_, rate) = mixed.equal_error().unwrap();
        assert!(rate > 0.4, "{rate}");
        assert_eq!(mixed.impostors_like_genuine(), 3);
    }

    #[test]
    fn an_edge_is_a_cosine_of_four_places() {
        assert!((Edge::nearest(0.2959).cosine() - 0.2959).abs() < f64::EPSILON);
        assert_eq!(Edge::nearest(0.2959).cosine().to_string(), "0.2959");
        assert_eq!(Edge::nearest(7.0), Edge::nearest(1.0));
    }
}
