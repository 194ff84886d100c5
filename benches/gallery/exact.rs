//! The truth that a search is measured against: the most similar template, in f32, none left out.

use rayon::prelude::*;

use super::Gallery;
use super::population::{LANES, Lanes, product};

/// Templates compared with all probes before the next ones are read: half a megabyte at 512-d.
const ROWS_AT_ONCE: usize = 256;

/// The best match of a probe.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Nearest {
    pub(crate) template: usize,
    pub(crate) cosine: f32,
}

impl Gallery {
    /// For each of the probes (flat, as wide as the gallery) its most similar template; of
    /// several that are equally similar the first.
    pub(crate) fn nearest(&self, probes: &[f32]) -> Vec<Nearest> {
        let count = probes.len() / self.width();
        let blocks: Vec<_> = probes.chunks(LANES * self.width()).map(|b| self.lanes(b)).collect();
        let none = || vec![Nearest { template: usize::MAX, cosine: f32::NEG_INFINITY }; count];
        let rows = self.templates().par_chunks(ROWS_AT_ONCE * self.width()).enumerate();
        rows.fold(none, |best, (n, rows)| compare(best, n * ROWS_AT_ONCE, rows, &blocks))
            .reduce(none, |a, b| a.into_iter().zip(b).map(|(a, b)| better(a, b)).collect())
    }

    /// Up to [`LANES`] probes side by side.
    fn lanes(&self, probes: &[f32]) -> Vec<Lanes> {
        let mut lanes = vec![[0.0; LANES]; self.width()];
        for (lane, probe) in probes.chunks_exact(self.width()).enumerate() {
            lanes.iter_mut().zip(probe).for_each(|(row, x)| row[lane] = *x);
        }
        lanes
    }
}

fn compare(
    mut best: Vec<Nearest>,
    first: usize,
    rows: &[f32],
    blocks: &[Vec<Lanes>],
) -> Vec<Nearest> {
    for (best, block) in best.chunks_mut(LANES).zip(blocks) {
        for (n, cosines) in product(rows, block).iter().enumerate() {
            for (best, &cosine) in best.iter_mut().zip(cosines) {
                *best = better(*best, Nearest { template: first + n, cosine });
            }
        }
    }
    best
}

fn better(a: Nearest, b: Nearest) -> Nearest {
    let order = b.cosine.total_cmp(&a.cosine).then(a.template.cmp(&b.template));
    if order.is_gt() { b } else { a }
}
