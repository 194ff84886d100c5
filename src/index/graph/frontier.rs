//! What a search remembers: the best rows so far, and which rows it has met.
//!
//! # Invariants
//! - A frontier is sorted, best first; of equally similar rows the lower number is better.
//! - Similarities of people and probes are zeroised before a notebook is put back: enough of them
//!   would give the vector away.

use std::sync::{Mutex, PoisonError};

use zeroize::Zeroize;

use super::Near;

/// The lowest bit of a key: this row's links were followed.
const EXPANDED: u64 = 1;

/// The best rows so far, at most as many as asked for.
///
/// A key is 32 bits of rank (best is smallest), 31 bits of row number, one of `EXPANDED`: rows are
/// compared and moved as plain integers.
#[derive(Default)]
pub(super) struct Frontier {
    keys: Vec<u64>,
    room: usize,
    cursor: usize,
}

impl Frontier {
    /// Empties the frontier and sets how many rows it holds.
    pub(super) fn reset(&mut self, room: usize) {
        self.wipe();
        self.keys.reserve_exact(room);
        self.room = room;
    }

    /// Whether there is room for a row, or a worse row that would make room.
    #[inline]
    pub(super) fn would_take(&self, near: Near) -> bool {
        self.keys.len() < self.room || self.keys.last().is_some_and(|worst| key_of(near) < *worst)
    }

    /// Takes a row, unless it is full of better ones.
    #[inline]
    pub(super) fn offer(&mut self, near: Near) {
        if !self.would_take(near) {
            return;
        }
        if self.keys.len() == self.room {
            self.keys.pop();
        }
        let key = key_of(near);
        let at = self.keys.partition_point(|other| *other < key);
        self.keys.insert(at, key);
        self.cursor = self.cursor.min(at);
    }

    /// The best row whose links were not followed yet; from now on they were.
    #[inline]
    pub(super) fn expand(&mut self) -> Option<u32> {
        while let Some(key) = self.keys.get_mut(self.cursor) {
            self.cursor += 1;
            if *key & EXPANDED == 0 {
                *key |= EXPANDED;
                return Some(near_of(*key).row);
            }
        }
        None
    }

    /// The row that [`expand`](Self::expand) would give, if it stands right at the cursor.
    #[inline]
    pub(super) fn peek(&self) -> Option<u32> {
        self.keys.get(self.cursor).map(|key| near_of(*key).row)
    }

    /// Best first.
    pub(super) fn iter(&self) -> impl Iterator<Item = Near> + '_ {
        self.keys.iter().map(|key| near_of(*key))
    }

    fn wipe(&mut self) {
        self.keys.zeroize();
        self.cursor = 0;
    }
}

fn key_of(near: Near) -> u64 {
    let bits = near.similarity.to_bits();
    let ascending = if bits >> 31 == 0 { bits | 1 << 31 } else { !bits };
    u64::from(!ascending) << 32 | u64::from(near.row) << 1
}

#[expect(clippy::cast_possible_truncation, reason = "the halves of a key")]
fn near_of(key: u64) -> Near {
    let ascending = !((key >> 32) as u32);
    let bits = if ascending >> 31 == 1 { ascending & !(1 << 31) } else { !ascending };
    Near { similarity: f32::from_bits(bits), row: (key as u32) >> 1 }
}

/// Which rows a search has met: a mark a row, valid for one search.
#[derive(Default)]
pub(super) struct Visited {
    marks: Vec<u8>,
    epoch: u8,
}

impl Visited {
    /// Forgets all rows; there are `rows` of them.
    pub(super) fn reset(&mut self, rows: usize) {
        if self.marks.len() < rows {
            self.marks.resize(rows, 0);
        }
        self.epoch = self.epoch.wrapping_add(1);
        if self.epoch == 0 {
            self.marks.fill(0);
            self.epoch = 1;
        }
    }

    /// Marks a row; says whether it was new.
    #[inline]
    pub(super) fn meet(&mut self, row: u32) -> bool {
        let mark = &mut self.marks[row as usize];
        let new = *mark != self.epoch;
        *mark = self.epoch;
        new
    }
}

/// A search's working memory.
#[derive(Default)]
pub(super) struct Notebook {
    /// Where the walk may go on.
    pub(super) frontier: Frontier,
    /// What is answered.
    pub(super) best: Frontier,
    /// Rows met.
    pub(super) visited: Visited,
    /// Rows about to be compared.
    pub(super) fresh: Vec<u32>,
    /// Their similarities.
    pub(super) similarities: Vec<f32>,
}

/// Notebooks not in use.
#[derive(Default)]
pub(super) struct Notebooks(Mutex<Vec<Notebook>>);

impl Notebooks {
    /// Lends a notebook.
    pub(super) fn with<T>(&self, work: impl FnOnce(&mut Notebook) -> T) -> T {
        // A panic under this lock cannot leave the list half changed.
        let free = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = free().pop();
        let mut notebook = taken.unwrap_or_default();
        let result = work(&mut notebook);
        notebook.frontier.wipe();
        notebook.best.wipe();
        notebook.similarities.zeroize();
        free().push(notebook);
        result
    }

    /// Memory held by notebooks not in use.
    pub(super) fn bytes(&self) -> usize {
        let free = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        free.iter().map(|notebook| notebook.visited.marks.len()).sum()
    }
}
