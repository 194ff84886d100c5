//! All pairs of faces, counted by their cosine.
//!
//! 13,000 photos are 87 million pairs: blocks of them are matrix products, spread over the cores,
//! and each cosine is only counted.
//!
//! # Invariants
//! - Every pair of two faces is counted once: as genuine where both are of one person, else as an
//!   impostor; in the whole, and in their group where both are in the same.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};

use ndarray::linalg::general_mat_mul;
use ndarray::{Array2, ArrayView2, s};
use zeroize::Zeroizing;

use crate::types::Embedding;

/// Bins to a cosine of 1.
pub(super) const BINS_TO_ONE: u32 = 10_000;
/// From -1 to 1, with a last one for 1 itself.
const BINS: usize = 2 * BINS_TO_ONE as usize + 1;
/// Faces on a side of a block.
const BLOCK: usize = 512;
/// Pairs that are named because their labels may be wrong, of each kind.
const NAMED: usize = 10;

/// A face and whose it is.
pub(super) struct Face {
    pub(super) embedding: Embedding,
    pub(super) person: usize,
    pub(super) group: Option<usize>,
}

/// How often each cosine was seen.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Histogram {
    bins: Vec<u64>,
}

impl Histogram {
    fn new() -> Self {
        Self { bins: vec![0; BINS] }
    }

    #[inline]
    fn count(&mut self, cosine: f32) {
        self.bins[bin(cosine)] += 1;
    }

    fn add(&mut self, other: &Self) {
        self.bins.iter_mut().zip(&other.bins).for_each(|(mine, theirs)| *mine += theirs);
    }

    /// By bin: how many pairs lie in it.
    pub(super) fn bins(&self) -> &[u64] {
        &self.bins
    }
}

#[inline]
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "within 0 and the number of bins; NaN becomes 0"
)]
fn bin(cosine: f32) -> usize {
    let place = (cosine + 1.0) * BINS_TO_ONE as f32;
    (place.max(0.0) as usize).min(BINS - 1)
}

/// Genuine and impostor pairs of one set of people.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Tally {
    pub(super) genuine: Histogram,
    pub(super) impostor: Histogram,
}

impl Tally {
    fn new() -> Self {
        Self { genuine: Histogram::new(), impostor: Histogram::new() }
    }

    #[inline]
    fn count(&mut self, cosine: f32, genuine: bool) {
        if genuine { self.genuine.count(cosine) } else { self.impostor.count(cosine) }
    }

    fn add(&mut self, other: &Self) {
        self.genuine.add(&other.genuine);
        self.impostor.add(&other.impostor);
    }
}

/// Two faces, by their places.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Pair {
    pub(super) cosine: f32,
    pub(super) faces: (usize, usize),
}

/// The strangest pairs of one kind.
#[derive(Debug, Clone, Default)]
struct Strangest(Vec<Pair>);

impl Strangest {
    /// `strangeness` falls along the list.
    #[inline]
    fn offer(&mut self, pair: Pair, strangeness: impl Fn(&Pair) -> f32) {
        let mine = strangeness(&pair);
        if self.0.len() == NAMED && self.0.last().is_some_and(|last| strangeness(last) >= mine) {
            return;
        }
        let at = self.0.partition_point(|other| strangeness(other) >= mine);
        self.0.insert(at, pair);
        self.0.truncate(NAMED);
    }
}

/// What all pairs came to.
#[derive(Debug, Clone)]
pub(super) struct Pairs {
    pub(super) whole: Tally,
    /// By group.
    pub(super) groups: Vec<Tally>,
    alike: Strangest,
    unlike: Strangest,
}

impl Pairs {
    fn new(groups: usize) -> Self {
        let groups = vec![Tally::new(); groups];
        let (alike, unlike) = (Strangest::default(), Strangest::default());
        Self { whole: Tally::new(), groups, alike, unlike }
    }

    /// The impostors that are most alike, best first.
    pub(super) fn most_alike_impostors(&self) -> &[Pair] {
        &self.alike.0
    }

    /// The genuine pairs that are least alike, worst first.
    pub(super) fn least_alike_genuine(&self) -> &[Pair] {
        &self.unlike.0
    }

    fn add(&mut self, other: &Self) {
        self.whole.add(&other.whole);
        self.groups.iter_mut().zip(&other.groups).for_each(|(mine, theirs)| mine.add(theirs));
        other.alike.0.iter().for_each(|pair| self.alike.offer(*pair, alike));
        other.unlike.0.iter().for_each(|pair| self.unlike.offer(*pair, unlike));
    }

    #[inline]
    fn count(&mut self, pair: Pair, one: &Face, other: &Face) {
        let genuine = one.person == other.person;
        self.whole.count(pair.cosine, genuine);
        if let Some(group) = one.group
            && one.group == other.group
        {
            self.groups[group].count(pair.cosine, genuine);
        }
        if genuine { self.unlike.offer(pair, unlike) } else { self.alike.offer(pair, alike) }
    }
}

fn alike(pair: &Pair) -> f32 {
    pair.cosine
}

fn unlike(pair: &Pair) -> f32 {
    -pair.cosine
}

/// Compares every face with every other one, with `threads`.
pub(super) fn compare(faces: &[Face], groups: usize, threads: usize) -> Pairs {
    let width = faces.first().map_or(0, |face| face.embedding.width());
    let mut values = Zeroizing::new(Vec::with_capacity(faces.len() * width));
    for face in faces {
        values.extend_from_slice(face.embedding.expose());
    }
    let matrix = ArrayView2::from_shape((faces.len(), width), &values)
        .expect("as many rows as faces, and a pipeline's embeddings are of one width");
    let blocks = faces.len().div_ceil(BLOCK);
    let tasks: Vec<(usize, usize)> =
        (0..blocks).flat_map(|row| (row..blocks).map(move |column| (row, column))).collect();
    let (next, total) = (AtomicUsize::new(0), Mutex::new(Pairs::new(groups)));
    std::thread::scope(|scope| {
        for _ in 0..threads.clamp(1, tasks.len().max(1)) {
            scope.spawn(|| {
                let mut pairs = Pairs::new(groups);
                let mut cosines = Array2::zeros((BLOCK, BLOCK));
                while let Some(task) = tasks.get(next.fetch_add(1, Ordering::Relaxed)) {
                    count_block(*task, faces, &matrix, &mut cosines, &mut pairs);
                }
                total.lock().unwrap_or_else(PoisonError::into_inner).add(&pairs);
            });
        }
    });
    total.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// The pairs of a block of rows with a block of columns; on the diagonal those above it.
fn count_block(
    (row, column): (usize, usize),
    faces: &[Face],
    matrix: &ArrayView2<'_, f32>,
    cosines: &mut Array2<f32>,
    pairs: &mut Pairs,
) {
    let span = |block: usize| block * BLOCK..((block + 1) * BLOCK).min(faces.len());
    let (rows, columns) = (span(row), span(column));
    let mut product = cosines.slice_mut(s![..rows.len(), ..columns.len()]);
    let (left, right) = (matrix.slice(s![rows.clone(), ..]), matrix.slice(s![columns.clone(), ..]));
    general_mat_mul(1.0, &left, &right.t(), 0.0, &mut product);
    for (one, cosines) in rows.zip(product.rows()) {
        for (other, cosine) in columns.clone().zip(cosines) {
            if other > one {
                let pair = Pair { cosine: *cosine, faces: (one, other) };
                pairs.count(pair, &faces[one], &faces[other]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faces(count: usize) -> Vec<Face> {
        let mut state = 11_u64;
        let mut number = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            f32::from(u16::try_from(state >> 48).unwrap()) / 32_768.0 - 1.0
        };
        (0..count)
            .map(|place| Face {
                embedding: Embedding::normalise((0..128).map(|_| number()).collect()).unwrap(),
                person: place / 3,
                group: (place % 7 > 0).then_some(place / 30 % 2),
            })
            .collect()
    }

    /// More than a block, and not a multiple of one.
    const COUNT: usize = BLOCK + 77;

    #[test]
    fn blocks_count_what_every_pair_by_itself_comes_to() {
        let faces = faces(COUNT);
        let mut plain = Pairs::new(2);
        for one in 0..COUNT {
            for other in one + 1..COUNT {
                let cosine = faces[one].embedding.cosine(&faces[other].embedding).get();
                let pair = Pair { cosine, faces: (one, other) };
                plain.count(pair, &faces[one], &faces[other]);
            }
        }
        for threads in [1, 3] {
            let found = compare(&faces, 2, threads);
            let sets = std::iter::once(&found.whole).chain(&found.groups);
            for (set, expected) in sets.zip(std::iter::once(&plain.whole).chain(&plain.groups)) {
                close(&set.genuine, &expected.genuine);
                close(&set.impostor, &expected.impostor);
            }
            for (found, expected) in found.alike.0.iter().zip(&plain.alike.0) {
                assert!((found.cosine - expected.cosine).abs() < 1e-5);
            }
            assert_eq!(found.unlike.0.len(), NAMED);
        }
    }

    /// Sums in another order may move a cosine over the edge of a bin, never further.
    fn close(one: &Histogram, other: &Histogram) {
        let (mut a, mut b, mut moved) = (0_u64, 0_u64, 0_u64);
        for (x, y) in one.bins.iter().zip(&other.bins) {
            (a, b) = (a + x, b + y);
            moved = moved.max(a.abs_diff(b));
        }
        assert_eq!(a, b, "no pair is lost or counted twice");
        assert!(moved <= 2, "{moved}");
    }

    #[test]
    fn a_bin_holds_the_cosines_from_its_edge_on() {
        assert_eq!((bin(-1.5), bin(-1.0), bin(1.0), bin(1.2)), (0, 0, BINS - 1, BINS - 1));
        assert_eq!(bin(0.295_95), 12_959);
        assert_eq!(bin(f32::NAN), 0);
    }
}
