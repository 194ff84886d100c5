//! What the graph needs besides requests: being completed and being measured.
//!
//! # Invariants
//! - Care runs beside searches and changes of the gallery; each step holds the read side of the
//!   lock for one row or one search.
//! - Scans serve until the graph is complete and measured.
//! - Care runs on threads of its own, never on the common pool: a search that holds the lock may
//!   be waiting for that.

use std::time::{Duration, Instant};

use rayon::prelude::*;
use zeroize::Zeroizing;

use super::catalogue::GROUP_ROWS;
use super::graph::Graph;
use super::planner::{MEASURED_FROM, Rung, Tuning};
use super::quantise::BareProbe;
use super::state::State;
use super::status::GraphStatus;
use super::{Index, IndexError};
use crate::types::SlotId;

/// The `ef`s that are tried.
const LADDER: [usize; 7] = [32, 64, 128, 256, 512, 1_024, 2_048];
/// Mates that an `ef` has to find, every one: of others it then finds 0.999 with a confidence of
/// 95 %.
const MATES: u32 = 3_000;
/// Mates after which an `ef` that missed one is given up.
const MATES_TO_JUDGE: u32 = 200;
/// Rungs that meet the target and are measured: one to serve, one for when it is caught.
const GOOD_RUNGS: usize = 2;
/// Cosines of the made-up mates: mean and spread of second photos (docs, calibration).
const MATE_COSINE: (f32, f32) = (0.60, 0.11);
/// The furthest and the nearest that they are.
const MATE_RANGE: (f32, f32) = (MEASURED_FROM, 0.95);
/// Rows linked between two looks at what is left.
const STRETCH: usize = 4_096;

/// What one call of [`Index::care`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Care {
    /// There is no graph, or nothing to do.
    Idle,
    /// Some rows were linked; there may be more.
    Linked {
        /// Live rows that are linked.
        linked: usize,
        /// All live rows.
        of: usize,
    },
    /// The graph is complete and was measured.
    Measured,
}

impl Index {
    /// Links rows that are not in the graph yet, or measures it when that is due. Blocks for as
    /// long as it takes on `threads` threads, a few seconds at most for linking; to be called
    /// again until it is idle, and then now and again.
    ///
    /// # Errors
    /// A poisoned index.
    pub fn care(&self, threads: usize) -> Result<Care, IndexError> {
        let (slots, live) = {
            let state = self.read()?;
            let Some(graph) = &state.graph else { return Ok(Care::Idle) };
            let missing = state.catalogue.live_slots(0).filter(|slot| !graph.holds(slot.index));
            (missing.take(STRETCH).collect::<Vec<SlotId>>(), state.catalogue.live())
        };
        if !slots.is_empty() {
            self.link_all(&slots, threads)?;
            let linked = self.read()?.graph.as_ref().map_or(0, Graph::len);
            return Ok(Care::Linked { linked, of: live });
        }
        if self.planner.tuning().is_some_and(|tuning| !tuning.is_stale(live)) || live == 0 {
            return Ok(Care::Idle);
        }
        self.planner.tuned(self.measure()?);
        Ok(Care::Measured)
    }

    pub(super) fn graph_status(&self, graph: &Graph) -> GraphStatus {
        let serving = self.planner.tuning().and_then(|tuning| tuning.serving());
        GraphStatus { linked: graph.len(), bytes: graph.bytes(), ef: serving.map(|rung| rung.ef) }
    }

    fn link_all(&self, slots: &[SlotId], threads: usize) -> Result<(), IndexError> {
        let link = |slot: &SlotId| self.read().map(|state| state.link(self.tools(), *slot));
        pool(threads)?.install(|| slots.par_iter().try_for_each(link))
    }

    /// Looks for made-up mates of the gallery's own rows with one `ef` after the other.
    fn measure(&self) -> Result<Option<Tuning>, IndexError> {
        let (mut rungs, mut good) = (Vec::new(), 0);
        for ef in LADDER {
            let Some(rung) = self.rung(ef)? else { return Ok(None) };
            good += usize::from(rung.is_good());
            rungs.push(rung);
            if good == GOOD_RUNGS {
                break;
            }
        }
        let rows = self.read()?.catalogue.live();
        Ok(Tuning::new(rungs, rows))
    }

    /// `None` where the gallery is empty.
    fn rung(&self, ef: usize) -> Result<Option<Rung>, IndexError> {
        let (mut looked, mut missed, mut took) = (0, 0, Duration::ZERO);
        while looked < MATES && (looked < MATES_TO_JUDGE || missed == 0) {
            let state = self.read()?;
            let Some((probe, similarity)) = self.made_up_mate(&state, looked) else {
                return Ok(None);
            };
            let begun = Instant::now();
            let near = state.walk_all(self.tools(), &probe, ef);
            took += begun.elapsed();
            looked += 1;
            missed += u32::from(near.is_none_or(|best| best < similarity));
        }
        let recall = 1.0 - f64::from(missed) / f64::from(looked);
        Ok(Some(Rung { ef, recall, cost: took / looked }))
    }

    /// A probe that resembles a row of the gallery as a second photo would, and its similarity to
    /// that row: the row turned towards the difference of two others.
    fn made_up_mate(&self, state: &State, number: u32) -> Option<(BareProbe, f32)> {
        let mut draw = Draw(u64::from(number) + 1);
        let row = draw.row(state)?;
        let mut noise = self.vector(state, draw.row(state)?);
        let other = self.vector(state, draw.row(state)?);
        let mate = self.vector(state, row);
        for (n, o) in noise.iter_mut().zip(other.iter()) {
            *n -= o;
        }
        let along = dot(&noise, &mate) / dot(&mate, &mate).max(f32::MIN_POSITIVE);
        for (n, m) in noise.iter_mut().zip(mate.iter()) {
            *n -= along * m;
        }
        let cosine =
            (MATE_COSINE.0 + MATE_COSINE.1 * draw.normal()).clamp(MATE_RANGE.0, MATE_RANGE.1);
        let across = (dot(&mate, &mate) / dot(&noise, &noise).max(f32::MIN_POSITIVE)).sqrt();
        let sine = (1.0 - cosine * cosine).sqrt();
        for (n, m) in noise.iter_mut().zip(mate.iter()) {
            *n = cosine * m + sine * across * *n;
        }
        let probe = self.quantiser.rotated_probe(&noise);
        let similarity = state.gallery(self.kernels).score(&probe, row);
        Some((probe, similarity))
    }

    /// A row as the rotated vector that its codes stand for.
    fn vector(&self, state: &State, row: u32) -> Zeroizing<Vec<f32>> {
        let (codes, scale) = state.arena.row(row);
        self.quantiser.vector(codes, scale)
    }
}

/// Threads for work that takes the lock.
pub(super) fn pool(threads: usize) -> Result<rayon::ThreadPool, IndexError> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads.max(1));
    pool.thread_name(|n| format!("index-care-{n}")).build().map_err(IndexError::Threads)
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Numbers that look random (SplitMix64; Steele, Lea and Flood 2014). They pick rows to measure
/// with: nothing hangs on their secrecy.
struct Draw(u64);

impl Draw {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let a = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let b = (a ^ (a >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        b ^ (b >> 31)
    }

    /// A live row, near enough to any with the same chance.
    fn row(&mut self, state: &State) -> Option<u32> {
        let rows = u64::try_from(state.catalogue.group_count()).ok()? * u64::from(GROUP_ROWS);
        let from = u32::try_from(self.next().checked_rem(rows)?).ok()?;
        let catalogue = &state.catalogue;
        catalogue.live_slots(from).chain(catalogue.live_slots(0)).next().map(|slot| slot.index)
    }

    /// Nearly normal: the sum of twelve uniform draws less six.
    fn normal(&mut self) -> f32 {
        let uniform = |_| {
            let [a, b, ..] = self.next().to_le_bytes();
            f32::from(u16::from_le_bytes([a, b])) / 65_536.0
        };
        (0..12).map(uniform).sum::<f32>() - 6.0
    }
}
