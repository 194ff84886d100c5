//! The memory of the templates: rows of codes in locked blocks that never move.
//!
//! ```text
//! block 0     512 rows   +----------------- codes ------------------+---- scales ----+
//! block 1   4,096 rows   | row 0: stride bytes | row 1 | ...        | f32 LE a row   |
//! block 2   4,096 rows   +------------------------------------------+----------------+
//! ...                     stride = width rounded up to 64, the rest of a row is zero
//! ```
//!
//! The first block is small so that a small gallery locks under the common limit of 8 MiB.
//!
//! # Invariants
//! - Nothing of a template lies outside the blocks: scales are template data too.
//! - A zeroised row is zero in every byte, and so is a block when it goes back to the kernel.

mod pages;

use zeroize::Zeroize;

use self::pages::Pages;
use super::error::IndexError;
use super::settings::LockMode;

/// Rows of the first block.
const FIRST_ROWS: usize = 512;
/// Rows of every later block.
const BLOCK_ROWS: usize = 4096;
/// Rows begin at multiples of this, bytes: a cache line, and the widest vector register.
pub(super) const ROW_ALIGN: usize = 64;
/// Bytes of one scale.
const SCALE_BYTES: usize = size_of::<f32>();

/// All rows of one index.
pub(super) struct Arena {
    stride: usize,
    lock: LockMode,
    blocks: Vec<Block>,
}

struct Block {
    pages: Pages,
    rows: usize,
    locked: bool,
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

    /// Rows that fit in the blocks mapped so far.
    pub(super) fn capacity(&self) -> usize {
        self.blocks.iter().map(|block| block.rows).sum()
    }

    /// Adds a block. No row moves.
    ///
    /// # Errors
    /// As for [`Arena::new`]; the arena is unchanged then.
    pub(super) fn grow(&mut self) -> Result<(), IndexError> {
        let rows = if self.blocks.is_empty() { FIRST_ROWS } else { BLOCK_ROWS };
        let len = rows * (self.stride + SCALE_BYTES);
        let mut pages = Pages::map(len).map_err(|errno| IndexError::Memory(errno.into()))?;
        let outcome = pages.protect().map_err(std::io::Error::from);
        let locked = settle(self.lock, self.bytes() + len, outcome)?;
        self.blocks.push(Block { pages, rows, locked });
        Ok(())
    }

    /// Writes a row below [`Arena::capacity`]. `codes` is exactly one stride long.
    pub(super) fn write(&mut self, row: u32, codes: &[u8], scale: f32) {
        let (row_bytes, scale_bytes) = self.row_mut(row);
        row_bytes.copy_from_slice(codes);
        scale_bytes.copy_from_slice(&scale.to_le_bytes());
    }

    /// A row's codes, one stride long, and its scale.
    #[inline]
    pub(super) fn row(&self, row: u32) -> (&[u8], f32) {
        let (block, at) = place(row);
        let block = &self.blocks[block];
        let (codes, scales) = block.pages.split_at(block.rows * self.stride);
        let mut scale = [0; SCALE_BYTES];
        scale.copy_from_slice(&scales[at * SCALE_BYTES..][..SCALE_BYTES]);
        (&codes[at * self.stride..][..self.stride], f32::from_le_bytes(scale))
    }

    /// Overwrites a row with zeros by volatile writes.
    pub(super) fn zeroise(&mut self, row: u32) {
        let (codes, scale) = self.row_mut(row);
        codes.zeroize();
        scale.zeroize();
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

    fn row_mut(&mut self, row: u32) -> (&mut [u8], &mut [u8]) {
        let (block, at) = place(row);
        let block = &mut self.blocks[block];
        let (codes, scales) = block.pages.split_at_mut(block.rows * self.stride);
        let scale = &mut scales[at * SCALE_BYTES..][..SCALE_BYTES];
        (&mut codes[at * self.stride..][..self.stride], scale)
    }
}

/// Block and row in the block.
#[inline]
fn place(row: u32) -> (usize, usize) {
    let row = row as usize;
    match row.checked_sub(FIRST_ROWS) {
        None => (0, row),
        Some(rest) => (1 + rest / BLOCK_ROWS, rest % BLOCK_ROWS),
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
    fn an_arena_larger_than_a_small_limit_serves_and_counts_its_locked_bytes() {
        let mut arena = Arena::new(1024, LockMode::BestEffort).unwrap();
        while arena.bytes() <= 8 << 20 {
            arena.grow().unwrap();
        }
        assert!(arena.locked_bytes() <= arena.bytes());
        let last = u32::try_from(arena.capacity()).unwrap() - 1;
        arena.write(last, &[5; 1024], 0.5);
        assert_eq!(arena.row(last), (&[5_u8; 1024][..], 0.5));
    }

    #[test]
    fn rows_keep_apart_and_zeroising_leaves_nothing() {
        let mut arena = Arena::new(130, LockMode::BestEffort).unwrap();
        arena.grow().unwrap();
        for row in [0, 1, 511, 512, 4607] {
            arena.write(row, &[u8::try_from(row % 250 + 1).unwrap(); 192], 1.5);
        }
        for row in [0, 1, 511, 512, 4607] {
            assert_eq!(arena.row(row).0, [u8::try_from(row % 250 + 1).unwrap(); 192]);
            arena.zeroise(row);
        }
        assert!(arena.contents().all(|block| block.iter().all(|byte| *byte == 0)));
    }
}
