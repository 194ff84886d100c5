//! Who is linked to whom: flat lists of row numbers, level by level.
//!
//! ```text
//! block of 8,192 rows      base    row 0 [. . . 2M words . . .] row 1 [. . .] ...     level 0
//!                          upper   [M words][M words] ...          one list a level above 0
//!                          start   0 0 0 2 2 3 ...     first upper list of each row
//!
//! word   31     30 ............ 0
//!        tie    row number + 1             0: no link; links stand before the first 0
//! ```
//!
//! The level of a row is drawn by a seeded hash of its number, once and for all: slots are handed
//! out without regard to it, so the live rows have the levels that HNSW asks for, and the place of
//! every list is known when its block is made. Nothing moves and nothing is looked up.
//!
//! # Invariants
//! - Words are atomics, read and written `Relaxed`: a reader may meet a list between two writes
//!   and miss a link or see one twice, never a row that was not linked. What a row number leads to
//!   was published before the row was linked (by the index's lock), so no ordering hangs on them.
//! - A removed link leaves zero behind it; blocks are zeroised when dropped.
//!
//! # Not here
//! Whether links are mutual: `link.rs` sees to that.

use crate::index::kernel::prefetch_line;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use zeroize::Zeroize;

/// Rows of a block; few in tests, so that graphs of some hundred rows span several.
const BLOCK_ROWS: usize = if cfg!(test) { 1 << 6 } else { 1 << 13 };
/// Words of a cache line.
const LINE_WORDS: usize = 16;
/// Marks a link that pruning may not drop.
const TIE: u32 = 1 << 31;
/// Highest level of a row.
const MAX_LEVEL: usize = 12;

/// Largest number of rows: a word holds a row number + 1 and one mark.
pub(super) const MAX_ROWS: usize = (TIE - 1) as usize;

/// One end of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Link {
    /// The row at the other end.
    pub(super) row: u32,
    /// Part of the spanning tree.
    pub(super) tie: bool,
}

impl Link {
    fn word(self) -> u32 {
        (self.row + 1) | if self.tie { TIE } else { 0 }
    }

    fn read(word: u32) -> Option<Self> {
        let row = (word & !TIE).checked_sub(1)?;
        Some(Self { row, tie: word & TIE != 0 })
    }
}

/// The links of one row on one level.
#[derive(Clone, Copy)]
pub(super) struct List<'a>(&'a [AtomicU32]);

impl<'a> List<'a> {
    /// The links, in no order.
    #[inline]
    pub(super) fn iter(self) -> impl Iterator<Item = Link> + 'a {
        self.0.iter().map_while(|word| Link::read(word.load(Relaxed)))
    }

    /// The rows at the other ends.
    #[inline]
    pub(super) fn rows(self) -> impl Iterator<Item = u32> + 'a {
        self.iter().map(|link| link.row)
    }

    #[cfg(test)]
    /// The words as they stand.
    pub(super) fn words(self) -> impl Iterator<Item = u32> + 'a {
        self.0.iter().map(|word| word.load(Relaxed))
    }

    /// How many links fit.
    pub(super) fn capacity(self) -> usize {
        self.0.len()
    }

    /// Whether there is no link.
    pub(super) fn is_empty(self) -> bool {
        self.iter().next().is_none()
    }

    /// How many links there are.
    pub(super) fn len(self) -> usize {
        self.iter().count()
    }

    /// How many of them are ties.
    pub(super) fn ties(self) -> usize {
        self.iter().filter(|link| link.tie).count()
    }

    /// Whether one more fits.
    pub(super) fn has_room(self) -> bool {
        self.0.last().is_some_and(|word| word.load(Relaxed) == 0)
    }

    /// The link to a row.
    pub(super) fn find(self, row: u32) -> Option<Link> {
        self.iter().find(|link| link.row == row)
    }

    /// Adds a link; `false` if none fits.
    pub(super) fn push(self, link: Link) -> bool {
        let free = self.0.iter().find(|word| word.load(Relaxed) == 0);
        free.map(|word| word.store(link.word(), Relaxed)).is_some()
    }

    /// Puts another link in the place of the one to a row.
    pub(super) fn replace(self, row: u32, link: Link) {
        if let Some(at) = self.rows().position(|other| other == row) {
            self.0[at].store(link.word(), Relaxed);
        }
    }

    /// Drops the link to a row; the last link takes its place.
    pub(super) fn remove(self, row: u32) {
        let len = self.len();
        let Some(at) = self.rows().position(|other| other == row) else { return };
        let last = &self.0[len - 1];
        self.0[at].store(last.load(Relaxed), Relaxed);
        last.store(0, Relaxed);
    }

    /// Brings the first words into the cache.
    #[inline]
    pub(super) fn prefetch(self) {
        for line in self.0.chunks(LINE_WORDS) {
            prefetch_line(&line[0]);
        }
    }
}

/// Words on whole cache lines, zeroised when dropped.
struct Words {
    words: Box<[AtomicU32]>,
    first: usize,
}

impl Words {
    fn zeroed(len: usize) -> Self {
        let words: Box<[AtomicU32]> = (0..len + LINE_WORDS).map(|_| AtomicU32::new(0)).collect();
        let first = words.as_ptr().align_offset(LINE_WORDS * size_of::<u32>()).min(LINE_WORDS);
        Self { words, first }
    }

    #[inline]
    fn list(&self, index: usize, len: usize) -> List<'_> {
        let at = self.first + index * len;
        List(&self.words[at..at + len])
    }

    fn clear(&mut self, index: usize, len: usize) {
        let at = self.first + index * len;
        for word in &mut self.words[at..at + len] {
            word.get_mut().zeroize();
        }
    }
}

impl Drop for Words {
    fn drop(&mut self) {
        for word in &mut self.words {
            word.get_mut().zeroize();
        }
    }
}

/// The lists of `BLOCK_ROWS` rows.
struct Block {
    base: Words,
    upper: Words,
    start: Box<[u32]>,
}

/// The lists of all rows.
pub(super) struct Adjacency {
    links: usize,
    seed: u64,
    blocks: Vec<Block>,
}

impl Adjacency {
    /// No rows; `links` a level above 0, twice as many on level 0.
    pub(super) fn new(links: usize, seed: u64) -> Self {
        Self { links, seed, blocks: Vec::new() }
    }

    /// Makes room for rows `0..rows`. Lists never move.
    pub(super) fn grow(&mut self, rows: usize) {
        assert!(rows <= MAX_ROWS, "row numbers have 31 bits");
        while self.rows() < rows {
            let first = self.rows();
            let mut lists = 0;
            let mut start = vec![0];
            for row in first..first + BLOCK_ROWS {
                lists += drawn_level(self.seed, row as u64, self.links as u64);
                start.push(u32::try_from(lists).expect("8,192 rows of 12 levels at most"));
            }
            self.blocks.push(Block {
                base: Words::zeroed(BLOCK_ROWS * 2 * self.links),
                upper: Words::zeroed(lists * self.links),
                start: start.into(),
            });
        }
    }

    /// How many rows have lists.
    pub(super) fn rows(&self) -> usize {
        self.blocks.len() * BLOCK_ROWS
    }

    /// The highest level of a row.
    #[inline]
    pub(super) fn level(&self, row: u32) -> usize {
        let (block, at) = place(row);
        let start = &self.blocks[block].start;
        (start[at + 1] - start[at]) as usize
    }

    /// The links of a row on a level that it has.
    #[inline]
    pub(super) fn list(&self, level: usize, row: u32) -> List<'_> {
        let (block, at) = place(row);
        let block = &self.blocks[block];
        match level {
            0 => block.base.list(at, 2 * self.links),
            _ => block.upper.list(block.start[at] as usize + level - 1, self.links),
        }
    }

    /// Zeroises the links of a row on a level that it has.
    pub(super) fn clear(&mut self, level: usize, row: u32) {
        let (block, at) = place(row);
        let links = self.links;
        let block = &mut self.blocks[block];
        match level {
            0 => block.base.clear(at, 2 * links),
            _ => block.upper.clear(block.start[at] as usize + level - 1, links),
        }
    }

    /// Memory held.
    pub(super) fn bytes(&self) -> usize {
        let words =
            |block: &Block| block.base.words.len() + block.upper.words.len() + block.start.len();
        self.blocks.iter().map(words).sum::<usize>() * size_of::<u32>()
    }
}

#[inline]
fn place(row: u32) -> (usize, usize) {
    (row as usize / BLOCK_ROWS, row as usize % BLOCK_ROWS)
}

/// Geometric with ratio `1 / links`: HNSW's normalisation, in whole numbers.
fn drawn_level(seed: u64, row: u64, links: u64) -> usize {
    let drawn = mix(seed.wrapping_add(row.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
    let mut bar = u64::MAX / links;
    let mut level = 0;
    while drawn < bar && level < MAX_LEVEL {
        level += 1;
        bar /= links;
    }
    level
}

/// The finaliser of SplitMix64 (Steele, Lea and Flood 2014).
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
