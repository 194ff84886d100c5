//! An HNSW graph over the rows of the arena, with deletion in place.
//!
//! Malkov and Yashunin 2018 (arXiv 1603.09320), with three changes: links are mutual, a spanning
//! tree of links is never pruned, and a row leaves without a trace.
//!
//! ```text
//! level 2            3 ========= 17                    ==== tie      a tree on every level
//!                    |            |                    ---- link     all mutual
//! level 1     3 ==== 9 ==== 17 -- 40
//!             |      |       |     |
//! level 0   every row: 2M links, two of them ties on average
//!
//! insert    greedy from the entry down, best-first walk, diverse links      from many threads
//! search    the same walk, answers members only                             meanwhile
//! remove    unlink, join the trees, pair the orphans, zeroise               alone
//! ```
//!
//! The graph knows nobody: it holds row numbers only, no vector and no similarity (a similarity
//! an edge would be enough to rebuild an erased vector). It asks a [`Space`] for similarities.
//!
//! # Invariants
//! - Links are mutual on every level, no list names a row twice, itself or a row that is not in
//!   the graph (`link.rs`, `remove.rs`).
//! - The ties of each level form a spanning tree of its rows, so every row can be reached from
//!   every other over ties alone (`tree.rs`). This holds after every operation, and for rows that
//!   are being inserted as soon as anybody can meet them.
//! - The entry has the highest level of all rows.
//! - All words of a row that is not in the graph are zero.
//!
//! # Synchronisation
//! Inserting and searching take `&self` and run at the same time; lists are atomics, changed under
//! striped locks (`link.rs`). Removing and growing take `&mut self`: nobody searches.
//!
//! # Not here
//! Vectors and kernels (arena, kernel), who may be found (catalogue), when the graph is worth
//! asking (planner).

mod adjacency;
mod choose;
mod frontier;
mod link;
mod remove;
mod restore;
mod tree;
mod walk;

#[cfg(test)]
mod check;
#[cfg(test)]
mod testkit;
#[cfg(test)]
mod tests;

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use self::adjacency::Adjacency;
use self::choose::diverse;
use self::frontier::Notebooks;
use self::link::{Kind, Stripes};
use super::settings::GraphSettings;

pub(in crate::index) use self::restore::Links;

/// What levels are drawn from. They say nothing of anybody.
const LEVELS_SEED: u64 = 0x4153_5345_4E54;
/// Fewest links a level: half of them may be ties, and a tree of rows with one tie each has two.
const MIN_LINKS: usize = 4;

/// What the graph asks of the vectors.
pub(in crate::index) trait Space: Sync {
    /// Similarities of a stored row to others, in their order; the same whichever of two rows is
    /// asked about. Worth prefetching: the others lie anywhere.
    fn similarities(&self, row: u32, others: &[u32], found: &mut [f32]);
}

/// A row and how similar it is to what was looked for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::index) struct Near {
    /// The similarity.
    pub(in crate::index) similarity: f32,
    /// The row.
    pub(in crate::index) row: u32,
}

impl Near {
    /// Best first; of equally similar rows the lower number.
    fn rank(self, other: Self) -> Ordering {
        other.similarity.total_cmp(&self.similarity).then(self.row.cmp(&other.row))
    }
}

/// The graph.
pub(in crate::index) struct Graph {
    settings: GraphSettings,
    adjacency: Adjacency,
    /// Row number + 1 of the entry; 0 in an empty graph.
    entry: AtomicU32,
    /// Held while a row is inserted that becomes the entry.
    entry_change: Mutex<()>,
    /// Rows that are being added.
    claims: Mutex<BTreeSet<u32>>,
    /// Rows in the graph.
    len: AtomicUsize,
    stripes: Stripes,
    notebooks: Notebooks,
}

impl Graph {
    /// An empty graph.
    ///
    /// # Panics
    /// Fewer than 4 links.
    #[must_use]
    pub(in crate::index) fn new(settings: GraphSettings) -> Self {
        assert!(settings.links >= MIN_LINKS, "a graph needs {MIN_LINKS} links a level");
        Self {
            settings,
            adjacency: Adjacency::new(settings.links, LEVELS_SEED),
            entry: AtomicU32::new(0),
            entry_change: Mutex::default(),
            claims: Mutex::default(),
            len: AtomicUsize::new(0),
            stripes: Stripes::default(),
            notebooks: Notebooks::default(),
        }
    }

    /// Makes room for rows `0..rows`.
    ///
    /// # Panics
    /// More rows than 31 bits can number.
    pub(in crate::index) fn grow(&mut self, rows: usize) {
        self.adjacency.grow(rows);
    }

    /// Whether a row is in the graph.
    #[must_use]
    pub(in crate::index) fn holds(&self, row: u32) -> bool {
        self.entry() == Some(row) || !self.adjacency.list(0, row).is_empty()
    }

    /// Adds a row, for which [`grow`](Self::grow) has made room; searches find it once this has
    /// returned. A row that is held already stays as it is, and one that another thread is adding is
    /// waited for. Says whether this call added it.
    pub(in crate::index) fn insert(&self, space: &impl Space, row: u32) -> bool {
        let Some(_claim) = self.claim(row) else { return false };
        let level = self.adjacency.level(row);
        let below = |entry: &u32| level <= self.adjacency.level(*entry);
        if let Some(entry) = self.entry().filter(below) {
            self.insert_from(space, row, entry);
        } else {
            // Nothing that is done under this lock leaves the graph half changed by a panic.
            let _change = self.entry_change.lock().unwrap_or_else(PoisonError::into_inner);
            let entry = self.entry();
            if let Some(entry) = entry {
                self.insert_from(space, row, entry);
            }
            if !entry.is_some_and(|entry| below(&entry)) {
                self.set_entry(Some(row));
            }
        }
        self.len.fetch_add(1, Relaxed);
        true
    }

    /// The right to add a row; `None` once it is in.
    fn claim(&self, row: u32) -> Option<Claim<'_>> {
        loop {
            let mut claims = self.claims.lock().unwrap_or_else(PoisonError::into_inner);
            if self.holds(row) && !claims.contains(&row) {
                return None;
            }
            if claims.insert(row) {
                return Some(Claim { claims: &self.claims, row });
            }
            drop(claims);
            std::thread::yield_now();
        }
    }

    fn insert_from(&self, space: &impl Space, row: u32, entry: u32) {
        let compare = |rows: &[u32], found: &mut [f32]| space.similarities(row, rows, found);
        let top = self.adjacency.level(row).min(self.adjacency.level(entry));
        let mut start = self.descend(entry, top, &compare);
        let mut found = Vec::new();
        for level in (0..=top).rev() {
            let near = self.near(level, start, self.settings.effort, &compare);
            start = near.first().copied().unwrap_or(start);
            found.push(near);
        }
        // From the bottom up: whoever meets the row on a level finds it linked below.
        for (level, near) in found.iter().rev().enumerate() {
            self.attach(space, level, row, near);
            self.enrich(space, level, row, near);
        }
    }

    /// Links a row with rows near it, given best first, until it has as many links as a new row
    /// should.
    fn enrich(&self, space: &impl Space, level: usize, row: u32, near: &[Near]) {
        let wanted = self.wanted(level);
        for near in diverse(space, near, wanted) {
            if self.adjacency.list(level, row).len() >= wanted {
                break;
            }
            self.link(space, level, (row, near.row), Kind::Ordinary);
        }
    }

    /// Links a row with the diverse ones of some rows near it, in place of worse links.
    fn renew(&self, space: &impl Space, level: usize, row: u32, near: &[Near]) {
        for near in diverse(space, near, self.wanted(level)) {
            self.link(space, level, (row, near.row), Kind::Ordinary);
        }
    }

    /// Links that a new row makes: M above level 0, and there 1.5 M of the 2 M that fit. With M,
    /// as in the paper, lists stay a quarter empty for good.
    fn wanted(&self, level: usize) -> usize {
        if level == 0 { self.settings.links * 3 / 2 } else { self.settings.links }
    }

    fn entry(&self) -> Option<u32> {
        self.entry.load(Relaxed).checked_sub(1)
    }

    fn set_entry(&self, row: Option<u32>) {
        self.entry.store(row.map_or(0, |row| row + 1), Relaxed);
    }

    /// Rows in the graph.
    #[must_use]
    pub(in crate::index) fn len(&self) -> usize {
        self.len.load(Relaxed)
    }

    /// Memory held, bytes.
    #[must_use]
    pub(in crate::index) fn bytes(&self) -> usize {
        self.adjacency.bytes() + self.notebooks.bytes()
    }
}

/// A row that one thread is adding.
struct Claim<'a> {
    claims: &'a Mutex<BTreeSet<u32>>,
    row: u32,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.claims.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.row);
    }
}
