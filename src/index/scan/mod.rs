//! The two ways that look at every permitted row: the exact scan and the sketch scan.
//!
//! ```text
//!            groups of the granted classes, cut into pieces of 8,192 rows
//!                  |                                   |
//!   exact:   codes . probes                sketch:  front signs, 256   few rows in 100 pass
//!                  |                                all signs, 512     few rows in 1,000 pass
//!                  |                                signs . probe      few rows in 100,000 pass
//!                  |                                codes . probe
//!                  +------------ >= floor -------------+
//!                                  |
//!                       best k of each probe
//! ```
//!
//! Up to [`MOST_PROBES`] probes go through a piece together, so that a row is fetched from memory once
//! for all of them.
//!
//! # Invariants
//! - Only groups of granted classes are read; permission is decided before, never by a filter
//!   after.
//! - The exact scan misses nothing. The sketch scan misses a row at or above the floor with a
//!   probability of at most 9e-4, see `cuts.rs`. What either returns has been
//!   compared by its codes.
//! - The result does not depend on how groups are cut into pieces or which probes go together.

mod cuts;
mod pieces;
mod tally;

use std::ops::Range;

use rayon::prelude::*;
use zeroize::{Zeroize, Zeroizing};

use super::arena::{Arena, Run};
use super::catalogue::{Catalogue, ClassSet, GROUP_ROWS, rows_of};
use super::kernel::{Kernels, MOST_PROBES, Panel, SKETCH_BYTES, Sifted, SketchProbe, prefetch};
use super::quantise::{BareProbe, Probe};
use crate::types::Timestamp;

use self::pieces::{Part, Piece, Pieces};

pub(super) use self::cuts::{Cut, Cuts};
pub(super) use self::tally::{Hit, Tally};

/// Rows of a group.
const GROUP: usize = GROUP_ROWS as usize;

/// One search, compiled.
pub(super) struct Search {
    /// What is looked for.
    pub(super) probe: Probe,
    /// Where.
    pub(super) classes: ClassSet,
    /// How many rows are wanted.
    pub(super) keep: usize,
    /// The least cosine that is wanted.
    pub(super) floor: f32,
    /// The instant at which rows have to be live.
    pub(super) now: Timestamp,
}

/// What is searched.
#[derive(Clone, Copy)]
pub(super) struct Gallery<'a> {
    /// The rows.
    pub(super) arena: &'a Arena,
    /// Who is where.
    pub(super) catalogue: &'a Catalogue,
    /// How rows are compared.
    pub(super) kernels: Kernels,
}

/// How many cores a scan may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spread {
    /// The caller's.
    Caller,
    /// All of the pool's.
    Pool,
}

impl Gallery<'_> {
    /// Compares every permitted row by its codes: the best of each search, in their order.
    pub(super) fn exact(&self, searches: &[&Search], spread: Spread) -> Vec<Vec<Hit>> {
        let pieces = Pieces::of(self.catalogue, searches);
        over(searches, &pieces.list(), spread, |part, runs, scratch| {
            self.exact_runs(searches, part, runs, scratch);
        })
    }

    /// Sifts permitted rows by their sketches and compares those that are left by their codes.
    /// `cuts` are those of the searches' floors.
    pub(super) fn sketch(
        &self,
        searches: &[&Search],
        cuts: &[Cut],
        spread: Spread,
    ) -> Vec<Vec<Hit>> {
        let pieces = Pieces::of(self.catalogue, searches);
        let probe = |n: usize| SketchProbe {
            words: searches[n].probe.sketch(),
            front_cut: cuts[n].front,
            full_cut: cuts[n].full,
        };
        over(searches, &pieces.list(), spread, |part, runs, scratch| {
            let members: Vec<usize> = part.members().collect();
            let probes: Vec<SketchProbe<'_>> = part.members().map(probe).collect();
            for run in runs.iter().flat_map(|groups| self.arena.runs(groups.clone())) {
                let first = run.row as usize / GROUP;
                let live = &self.catalogue.live_masks()[first..][..run.fronts.len()];
                self.kernels.sift(run.fronts, run.backs, live, &probes, &mut scratch.sifted);
                self.rerank(searches, cuts, &members, run, scratch);
            }
            wipe_stack();
        })
    }

    /// Compares the permitted rows of one spell of a search that is done in many, one piece in
    /// each: half a millisecond or less. Says whether more follow.
    pub(super) fn exact_spell(&self, search: &Search, spell: usize) -> (Vec<Hit>, bool) {
        let pieces = Pieces::of(self.catalogue, &[search]);
        let pieces = pieces.list();
        let piece = pieces.get(spell).map(std::slice::from_ref).unwrap_or_default();
        let hits = over(&[search], piece, Spread::Caller, |part, runs, scratch| {
            self.exact_runs(&[search], part, runs, scratch);
        });
        (hits.concat(), spell + 1 < pieces.len())
    }

    /// The cosine of one row.
    #[inline]
    pub(super) fn score(&self, probe: &BareProbe, row: u32) -> f32 {
        let (codes, scale) = self.arena.row(row);
        probe.score(self.kernels.dot(codes, probe.codes()), scale)
    }

    /// The cosines of rows that lie anywhere, all asked of memory at once.
    pub(super) fn scores(&self, probe: &BareProbe, rows: &[u32], found: &mut [f32]) {
        scores(self.arena, self.kernels, probe, rows, found);
    }

    fn exact_runs(
        &self,
        searches: &[&Search],
        part: Part,
        runs: &[Range<u32>],
        scratch: &mut Scratch,
    ) {
        let members: Vec<usize> = part.members().collect();
        let probes: Vec<&[i8]> =
            members.iter().map(|member| searches[*member].probe.bare().codes()).collect();
        let panel = self.kernels.panel(&probes);
        scratch.dots.resize(members.len() * GROUP, 0);
        for run in runs.iter().flat_map(|groups| self.arena.runs(groups.clone())) {
            self.exact_run(searches, &members, &panel, run, scratch);
        }
    }

    fn exact_run(
        &self,
        searches: &[&Search],
        members: &[usize],
        panel: &Panel<'_>,
        run: Run<'_>,
        scratch: &mut Scratch,
    ) {
        let stride = self.arena.stride();
        let live = &self.catalogue.live_masks()[run.row as usize / GROUP..];
        let groups = run.codes.chunks_exact(GROUP * stride).zip(live).enumerate();
        for (group, (codes, live)) in groups.filter(|(_, (_, live))| **live != 0) {
            self.kernels.dots(codes, panel, &mut scratch.dots);
            for (member, dots) in members.iter().zip(scratch.dots.chunks_exact(GROUP)) {
                let (bare, tally) = (searches[*member].probe.bare(), &mut scratch.tallies[*member]);
                for at in rows_of(*live).map(|row| row as usize) {
                    let similarity = bare.score(dots[at], run.scale(group * GROUP + at));
                    if similarity >= tally.bar() {
                        let row = row_at(run, group * GROUP + at);
                        self.offer(searches[*member], tally, Hit { similarity, row });
                    }
                }
            }
        }
    }

    /// What passed the signs goes through the signs' sum and then through the codes.
    fn rerank(
        &self,
        searches: &[&Search],
        cuts: &[Cut],
        members: &[usize],
        run: Run<'_>,
        scratch: &mut Scratch,
    ) {
        let Scratch { tallies, sifted, near, sketch, .. } = scratch;
        near.clear();
        for Sifted { row, probe, .. } in sifted.drain(..) {
            let member = members[usize::from(probe)];
            let probe = &searches[member].probe;
            run.sketch_into(row as usize, sketch);
            let sum = self.kernels.lean(sketch, probe.lean_codes());
            #[expect(clippy::cast_precision_loss, reason = "at most 512 * 127")]
            if sum as f32 * probe.lean_scale() >= cuts[member].lean {
                let row = row_at(run, row as usize);
                prefetch(self.arena.row(row).0);
                near.push((member, row));
            }
        }
        for (member, row) in near {
            let hit =
                Hit { similarity: self.score(searches[*member].probe.bare(), *row), row: *row };
            self.offer(searches[*member], &mut tallies[*member], hit);
        }
    }

    fn offer(&self, search: &Search, tally: &mut Tally, hit: Hit) {
        if search.now < self.catalogue.matches_until()[hit.row as usize] {
            tally.offer(hit);
        }
    }
}

/// Hands each piece to `scan` with the searches that may read it.
fn over(
    searches: &[&Search],
    pieces: &[Piece<'_>],
    spread: Spread,
    scan: impl Fn(Part, &[Range<u32>], &mut Scratch) + Sync,
) -> Vec<Vec<Hit>> {
    debug_assert!(searches.len() <= MOST_PROBES);
    let each = |mut scratch: Scratch, piece: &Piece<'_>| {
        scan(piece.part, piece.runs, &mut scratch);
        scratch
    };
    let fresh = || Scratch::new(searches);
    let scratch = match spread {
        Spread::Caller => pieces.iter().fold(fresh(), each),
        Spread::Pool => pieces.par_iter().fold(fresh, each).reduce(fresh, Scratch::merge),
    };
    scratch.tallies.into_iter().map(Tally::into_best).collect()
}

/// What one core needs while it scans.
struct Scratch {
    tallies: Vec<Tally>,
    dots: Vec<i32>,
    sifted: Vec<Sifted>,
    near: Vec<(usize, u32)>,
    /// The signs of the row at hand; wiped when the scan is over, and never moved.
    sketch: Box<Zeroizing<[u8; SKETCH_BYTES]>>,
}

impl Scratch {
    fn new(searches: &[&Search]) -> Self {
        let tallies = searches.iter().map(|search| Tally::new(search.keep, search.floor)).collect();
        Self {
            tallies,
            dots: Vec::new(),
            sifted: Vec::new(),
            near: Vec::new(),
            sketch: Box::new(Zeroizing::new([0; SKETCH_BYTES])),
        }
    }

    fn merge(mut self, other: Self) -> Self {
        let pairs = self.tallies.into_iter().zip(other.tallies);
        self.tallies = pairs.map(|(one, other)| one.merge(other)).collect();
        self
    }
}

/// The cosines of a probe with rows that lie anywhere.
pub(super) fn scores(
    arena: &Arena,
    kernels: Kernels,
    probe: &BareProbe,
    rows: &[u32],
    found: &mut [f32],
) {
    for row in rows {
        prefetch(arena.row(*row).0);
    }
    for (row, found) in rows.iter().zip(found) {
        let (codes, scale) = arena.row(*row);
        *found = probe.score(kernels.dot(codes, probe.codes()), scale);
    }
}

/// Overwrites what the functions called before have left below the caller's frame: a kernel's
/// registers may have been spilled there, and a row's signs with them.
#[inline(never)]
fn wipe_stack() {
    const WORDS: usize = 1_024;
    std::hint::black_box([0_u64; WORDS]).zeroize();
}

fn row_at(run: Run<'_>, at: usize) -> u32 {
    run.row + u32::try_from(at).expect("a run lies within the rows, which are numbered by u32")
}
