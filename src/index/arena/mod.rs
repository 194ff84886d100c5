//! The memory of the templates: rows of codes, scales and sketches in locked blocks that never
//! move.
//!
//! ```text
//! block, R rows = R/32 groups (512, 512, 1,024, ... doubling up to 8,192, then 8,192 each)
//! +----- fronts -----+------ backs ------+------------ codes -------------+--- scales ---+
//! | 1 KiB a group    | 1 KiB a group     | row: stride bytes | row | ...   | f32 LE a row |
//! +------------------+-------------------+--------------------------------+--------------+
//!
//! front of a group: word w (0..4) of row r (0..32) at (32 w + r) 8      32 B a row, interleaved
//! back of a group:  words 4..8 of row r            at 32 r              32 B a row
//! row:              width bytes of codes, the rest up to the next multiple of 64 is zero
//! ```
//!
//! A sketch scan streams through the fronts alone, eight rows to a register, and looks at the
//! back of the few rows whose front resembles the probe: half the memory traffic. The first block
//! is small so that a small gallery locks under the common limit of 8 MiB; blocks of some MiB let
//! the kernel back them with large pages, and waste little where the last is not full.
//!
//! # Invariants
//! - Nothing of a template lies outside the blocks: scales and sketches are template data too.
//! - A zeroised row is zero in every byte, and so is a block when it goes back to the kernel.
//! - A group lies in one block.

mod pages;

use std::ops::Range;

use zeroize::Zeroize;

use self::pages::Pages;
use super::catalogue::GROUP_ROWS;
use super::error::IndexError;
use super::kernel::{GROUP_SKETCH_BYTES, SKETCH_BYTES};
use super::quantise::Row;
use super::settings::LockMode;

/// Rows of the first block.
const FIRST_ROWS: usize = 512;
/// Rows of a group.
const GROUP: usize = GROUP_ROWS as usize;
/// Rows of the largest blocks.
const LAST_ROWS: usize = 8_192;
/// Blocks that are smaller than the largest: 512, 512, 1,024, ... 4,096, which make one together.
const SMALL_BLOCKS: usize = (LAST_ROWS / FIRST_ROWS).ilog2() as usize + 1;
/// Rows begin at multiples of this, bytes: a cache line, and the widest vector register.
pub(super) const ROW_ALIGN: usize = 64;
/// Bytes of one scale.
const SCALE_BYTES: usize = size_of::<f32>();
/// Bytes of a word of a sketch.
const WORD_BYTES: usize = size_of::<u64>();
/// Bytes of half a sketch.
const HALF_BYTES: usize = SKETCH_BYTES / 2;

/// All rows of one index.
pub(super) struct Arena {
    stride: usize,
    lock: LockMode,
    blocks: Vec<Block>,
}

struct Block {
    pages: Pages,
    layout: Layout,
    locked: bool,
}

/// Where the parts of a block begin, bytes.
#[derive(Clone, Copy)]
struct Layout {
    rows: usize,
    stride: usize,
}

impl Layout {
    fn backs(self) -> usize {
        self.rows * HALF_BYTES
    }

    fn codes(self) -> usize {
        self.rows * SKETCH_BYTES
    }

    fn scales(self) -> usize {
        self.codes() + self.rows * self.stride
    }

    fn len(self) -> usize {
        self.scales() + self.rows * SCALE_BYTES
    }
}

/// Contiguous groups of one block.
#[derive(Clone, Copy)]
pub(super) struct Run<'a> {
    /// The first row.
    pub(super) row: u32,
    /// A group's front halves each.
    pub(super) fronts: &'a [[u8; GROUP_SKETCH_BYTES]],
    /// A group's back halves each.
    pub(super) backs: &'a [[u8; GROUP_SKETCH_BYTES]],
    /// The rows' codes.
    pub(super) codes: &'a [u8],
    scales: &'a [[u8; SCALE_BYTES]],
}

impl Run<'_> {
    /// The sketch of the run's row `at`, gathered from its two halves.
    #[inline]
    pub(super) fn sketch_into(&self, at: usize, sketch: &mut [u8; SKETCH_BYTES]) {
        let (group, row) = (at / GROUP, at % GROUP);
        let words = self.fronts[group].as_chunks::<WORD_BYTES>().0;
        let (front, back) = sketch.split_at_mut(HALF_BYTES);
        for (n, place) in front.as_chunks_mut().0.iter_mut().enumerate() {
            *place = words[n * GROUP + row];
        }
        back.copy_from_slice(&self.backs[group][row * HALF_BYTES..][..HALF_BYTES]);
    }

    /// The scale of the run's row `at`.
    pub(super) fn scale(&self, at: usize) -> f32 {
        f32::from_le_bytes(self.scales[at])
    }
}

impl Arena {
    /// An arena for embeddings of `width` dimensions, with its first block.
    ///
    /// # Errors
    /// No memory, or no right to lock it under [`LockMode::Required`].
    pub(super) fn new(width: usize, lock: LockMode) -> Result<Self, IndexError> {
        let stride = width.next_multiple_of(ROW_ALIGN);
        let mut arena = Self { stride, lock, blocks: Vec::new() };
        arena.grow()?;
        Ok(arena)
    }

    /// Bytes of a row's codes.
    pub(super) fn stride(&self) -> usize {
        self.stride
    }

    /// Rows that fit in the blocks mapped so far.
    pub(super) fn capacity(&self) -> usize {
        self.blocks.iter().map(|block| block.layout.rows).sum()
    }

    /// Adds a block. No row moves.
    ///
    /// # Errors
    /// As for [`Arena::new`]; the arena is unchanged then.
    pub(super) fn grow(&mut self) -> Result<(), IndexError> {
        let layout = Layout { rows: block_rows(self.blocks.len()), stride: self.stride };
        let len = layout.len();
        let mut pages = Pages::map(len).map_err(|errno| IndexError::Memory(errno.into()))?;
        let outcome = pages.protect().map_err(std::io::Error::from);
        let locked = settle(self.lock, self.bytes() + len, outcome)?;
        self.blocks.push(Block { pages, layout, locked });
        Ok(())
    }

    /// Writes a row below [`Arena::capacity`].
    pub(super) fn write(&mut self, row: u32, new: &Row) {
        let parts = self.parts_mut(row);
        parts.codes.copy_from_slice(new.codes());
        *parts.scale = new.scale().to_le_bytes();
        let (front, back) = new.sketch().split_at(HALF_BYTES);
        parts.back.copy_from_slice(back);
        for (place, word) in front_words(parts.front, row).zip(front.as_chunks().0) {
            *place = *word;
        }
    }

    /// A row's codes, one stride long, and its scale.
    #[inline]
    pub(super) fn row(&self, row: u32) -> (&[u8], f32) {
        let (block, at) = place(row);
        let Block { pages, layout, .. } = &self.blocks[block];
        let codes = &pages[layout.codes() + at * self.stride..][..self.stride];
        let mut scale = [0; SCALE_BYTES];
        scale.copy_from_slice(&pages[layout.scales() + at * SCALE_BYTES..][..SCALE_BYTES]);
        (codes, f32::from_le_bytes(scale))
    }

    /// Overwrites a row with zeros by volatile writes.
    pub(super) fn zeroise(&mut self, row: u32) {
        let parts = self.parts_mut(row);
        parts.codes.zeroize();
        parts.scale.zeroize();
        parts.back.zeroize();
        for word in front_words(parts.front, row) {
            word.zeroize();
        }
    }

    /// Contiguous groups, cut where blocks meet.
    pub(super) fn runs(&self, groups: Range<u32>) -> impl Iterator<Item = Run<'_>> {
        let mut rest = groups;
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let row = first_row(rest.start);
            let (block, at) = place(row);
            let Block { pages, layout, .. } = &self.blocks[block];
            let groups = (layout.rows - at).div_ceil(GROUP).min(rest.len());
            let rows = groups * GROUP;
            rest.start += u32::try_from(groups).expect("no more than what is left of a u32 range");
            let half = |from: usize| {
                let bytes = &pages[from + at * HALF_BYTES..][..groups * GROUP_SKETCH_BYTES];
                bytes.as_chunks().0
            };
            let scales = &pages[layout.scales() + at * SCALE_BYTES..][..rows * SCALE_BYTES];
            Some(Run {
                row,
                fronts: half(0),
                backs: half(layout.backs()),
                codes: &pages[layout.codes() + at * self.stride..][..rows * self.stride],
                scales: scales.as_chunks().0,
            })
        })
    }

    /// Bytes in all blocks.
    pub(super) fn bytes(&self) -> usize {
        self.blocks.iter().map(|block| block.pages.len()).sum()
    }

    /// Bytes in blocks that are locked, out of dumps and out of child processes.
    pub(super) fn locked_bytes(&self) -> usize {
        self.blocks.iter().filter(|block| block.locked).map(|block| block.pages.len()).sum()
    }

    /// Every byte of the arena, for tests that search it.
    #[cfg(test)]
    pub(super) fn contents(&self) -> impl Iterator<Item = &[u8]> {
        self.blocks.iter().map(|block| &*block.pages)
    }

    fn parts_mut(&mut self, row: u32) -> Parts<'_> {
        let (block, at) = place(row);
        let Block { pages, layout, .. } = &mut self.blocks[block];
        let (fronts, rest) = pages.split_at_mut(layout.backs());
        let (backs, rest) = rest.split_at_mut(layout.backs());
        let (codes, scales) = rest.split_at_mut(layout.scales() - layout.codes());
        Parts {
            front: &mut fronts[at / GROUP * GROUP_SKETCH_BYTES..][..GROUP_SKETCH_BYTES],
            back: &mut backs[at * HALF_BYTES..][..HALF_BYTES],
            codes: &mut codes[at * self.stride..][..self.stride],
            scale: &mut scales.as_chunks_mut().0[at],
        }
    }
}

/// All of a block that belongs to one row, and the front of its group.
struct Parts<'a> {
    front: &'a mut [u8],
    back: &'a mut [u8],
    codes: &'a mut [u8],
    scale: &'a mut [u8; SCALE_BYTES],
}

/// The words of one row in the front of its group.
fn front_words(front: &mut [u8], row: u32) -> impl Iterator<Item = &mut [u8; WORD_BYTES]> {
    let words = front.as_chunks_mut().0.iter_mut();
    words.skip(row as usize % GROUP).step_by(GROUP)
}

/// The first row of a group.
fn first_row(group: u32) -> u32 {
    group * GROUP_ROWS
}

/// Rows of the block numbered `block`.
fn block_rows(block: usize) -> usize {
    if block == 0 { FIRST_ROWS } else { LAST_ROWS.min(FIRST_ROWS << (block - 1)) }
}

/// Block and row in the block.
#[inline]
fn place(row: u32) -> (usize, usize) {
    let row = row as usize;
    if row >= LAST_ROWS {
        return (SMALL_BLOCKS - 1 + row / LAST_ROWS, row % LAST_ROWS);
    }
    match (row / FIRST_ROWS).checked_ilog2() {
        None => (0, row),
        Some(doubled) => (1 + doubled as usize, row - (FIRST_ROWS << doubled)),
    }
}

/// What the outcome of protecting a block means: whether the block counts as locked, or an error.
fn settle(
    mode: LockMode,
    wanted_bytes: usize,
    outcome: std::io::Result<()>,
) -> Result<bool, IndexError> {
    match (mode, outcome) {
        (_, Ok(())) => Ok(true),
        (LockMode::BestEffort, Err(_)) => Ok(false),
        (LockMode::Required, Err(source)) => Err(IndexError::Unlocked { wanted_bytes, source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::testkit::{Random, quantiser};

    fn refused() -> std::io::Result<()> {
        Err(std::io::ErrorKind::OutOfMemory.into())
    }

    #[test]
    fn best_effort_goes_on_without_the_lock_and_says_so() {
        assert!(!settle(LockMode::BestEffort, 1, refused()).unwrap());
        assert!(settle(LockMode::BestEffort, 1, Ok(())).unwrap());
    }

    #[test]
    fn a_required_lock_that_fails_is_an_error_that_says_what_to_do() {
        let text = settle(LockMode::Required, 9 << 20, refused()).unwrap_err().to_string();
        for part in ["RLIMIT_MEMLOCK", "ulimit -l", "best-effort", "9437184"] {
            assert!(text.contains(part), "{part} is missing in {text:?}");
        }
    }

    #[test]
    fn rows_lie_one_after_the_other_through_all_blocks() {
        let mut next = (0, 0);
        for row in 0..200_000 {
            assert_eq!(place(row), next, "{row}");
            next.1 += 1;
            if next.1 == block_rows(next.0) {
                next = (next.0 + 1, 0);
            }
        }
    }

    #[test]
    fn an_arena_larger_than_a_small_limit_serves_and_counts_its_locked_bytes() {
        let mut arena = Arena::new(1024, LockMode::BestEffort).unwrap();
        while arena.bytes() <= 8 << 20 {
            arena.grow().unwrap();
        }
        assert!(arena.locked_bytes() <= arena.bytes());
        let last = u32::try_from(arena.capacity()).unwrap() - 1;
        let row = quantiser(1024).row(&Random::new(50).embedding(1024));
        arena.write(last, &row);
        assert_eq!(arena.row(last), (row.codes(), row.scale()));
    }

    #[test]
    fn rows_keep_apart_and_zeroising_leaves_nothing() {
        let (quantiser, mut random) = (quantiser(130), Random::new(51));
        let mut arena = Arena::new(130, LockMode::BestEffort).unwrap();
        while arena.capacity() < 20_000 {
            arena.grow().unwrap();
        }
        let at = [0, 1, 31, 32, 511, 512, 1023, 1024, 8_191, 8_192, 16_383, 16_384, 19_999];
        let rows: Vec<Row> = at.iter().map(|_| quantiser.row(&random.embedding(130))).collect();
        for (at, row) in at.into_iter().zip(&rows) {
            arena.write(at, row);
        }
        for (at, row) in at.into_iter().zip(&rows) {
            assert_eq!(arena.row(at), (row.codes(), row.scale()), "{at}");
            let mut sketch = [0; SKETCH_BYTES];
            let run = arena.runs(at / GROUP_ROWS..at / GROUP_ROWS + 1).next().unwrap();
            run.sketch_into(at as usize % GROUP, &mut sketch);
            assert_eq!(sketch.as_slice(), row.sketch(), "{at}");
            arena.zeroise(at);
        }
        assert!(arena.contents().all(|block| block.iter().all(|byte| *byte == 0)));
    }

    #[test]
    fn runs_cover_a_range_once_and_show_what_was_written() {
        let (quantiser, mut random) = (quantiser(128), Random::new(52));
        let mut arena = Arena::new(128, LockMode::BestEffort).unwrap();
        for _ in 0..3 {
            arena.grow().unwrap();
        }
        let row = quantiser.row(&random.embedding(128));
        arena.write(1030, &row);
        let mut next = 3 * 32;
        for run in arena.runs(3..60) {
            assert_eq!(run.row, next);
            assert_eq!(
                (run.backs.len(), run.codes.len() / 128),
                (run.fronts.len(), run.scales.len())
            );
            if (run.row..run.row + u32::try_from(run.scales.len()).unwrap()).contains(&1030) {
                let at = (1030 - run.row) as usize;
                assert_eq!(
                    (&run.codes[at * 128..][..128], run.scale(at)),
                    (row.codes(), row.scale())
                );
            }
            next += u32::try_from(run.fronts.len()).unwrap() * 32;
        }
        assert_eq!(next, 60 * 32);
        assert_eq!(arena.runs(5..5).count(), 0);
    }
}
