//! Making and dropping links, always at both ends.
//!
//! # Invariants
//! - Links are mutual whenever no lock is held: both ends change under the locks of both rows.
//! - Locks are taken in ascending order of stripe, so no two threads wait for each other.
//! - A tie is never displaced by another link.
//!
//! What to displace is decided before locking, since comparing vectors takes longer than the
//! change itself; under the locks it is checked that the decision still fits.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::adjacency::{Link, List};
use super::choose::redundant;
use super::{Graph, Space};

/// Number of locks; more only make two rows share one less often.
const STRIPES: u32 = 1 << 12;
/// How often an ordinary link is tried again when others changed the lists meanwhile.
const ATTEMPTS: usize = 4;

/// Whether a link may be displaced later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// It may.
    Ordinary,
    /// Part of the spanning tree: it stays, and something else makes room for it.
    Tie,
}

/// Locks, each for the lists of many rows.
pub(super) struct Stripes(Box<[Mutex<()>]>);

impl Default for Stripes {
    fn default() -> Self {
        Self((0..STRIPES).map(|_| Mutex::new(())).collect())
    }
}

impl Stripes {
    /// Locks the lists of all these rows.
    fn lock(&self, rows: [Option<u32>; 4]) -> [Option<MutexGuard<'_, ()>>; 4] {
        let mut stripes = rows.map(|row| row.map(|row| row % STRIPES));
        stripes.sort_unstable();
        let mut last = None;
        stripes.map(|stripe| {
            let stripe = stripe.filter(|_| stripe != last)?;
            last = Some(stripe);
            // Nothing that is done under these locks panics.
            Some(self.0[stripe as usize].lock().unwrap_or_else(PoisonError::into_inner))
        })
    }
}

/// What a list does about one more link.
enum Room {
    /// It has room, or makes it by dropping the link to a row.
    For { displaced: Option<u32> },
    /// The new link is the most redundant one itself.
    No,
}

impl Graph {
    /// Links two rows; `false` if one of them has better links already, or as many ties as it may.
    pub(super) fn link(
        &self,
        space: &impl Space,
        level: usize,
        pair: (u32, u32),
        kind: Kind,
    ) -> bool {
        let (a, b) = pair;
        if a == b {
            return false;
        }
        for attempt in 0.. {
            if kind == Kind::Ordinary && attempt == ATTEMPTS {
                break;
            }
            let Room::For { displaced: from_a } = self.room(space, level, a, b, kind) else {
                return false;
            };
            let Room::For { displaced: from_b } = self.room(space, level, b, a, kind) else {
                return false;
            };
            let _locks = self.stripes.lock([Some(a), Some(b), from_a, from_b]);
            if kind == Kind::Tie && !(self.may_tie(level, a) && self.may_tie(level, b)) {
                return false;
            }
            if self.adjacency.list(level, a).find(b).is_some() {
                self.mark(level, pair, kind);
                return true;
            }
            if self.still_fits(level, a, from_a) && self.still_fits(level, b, from_b) {
                self.displace(level, a, from_a);
                self.displace(level, b, from_b);
                let tie = kind == Kind::Tie;
                self.adjacency.list(level, a).push(Link { row: b, tie });
                self.adjacency.list(level, b).push(Link { row: a, tie });
                return true;
            }
        }
        false
    }

    /// Whether a row may have one more tie. Half its links at most are ties, so that something
    /// can always be displaced.
    pub(super) fn may_tie(&self, level: usize, row: u32) -> bool {
        let list = self.adjacency.list(level, row);
        list.ties() < list.capacity() / 2
    }

    fn room(&self, space: &impl Space, level: usize, at: u32, other: u32, kind: Kind) -> Room {
        let list = self.adjacency.list(level, at);
        if list.has_room() || list.find(other).is_some() {
            return Room::For { displaced: None };
        }
        match redundant(space, at, list, (kind == Kind::Ordinary).then_some(other)) {
            Some(row) if row == other => Room::No,
            displaced => Room::For { displaced },
        }
    }

    fn mark(&self, level: usize, (a, b): (u32, u32), kind: Kind) {
        if kind == Kind::Tie {
            self.adjacency.list(level, a).replace(b, Link { row: b, tie: true });
            self.adjacency.list(level, b).replace(a, Link { row: a, tie: true });
        }
    }

    fn still_fits(&self, level: usize, at: u32, displaced: Option<u32>) -> bool {
        let list: List<'_> = self.adjacency.list(level, at);
        list.has_room() || displaced.and_then(|row| list.find(row)).is_some_and(|link| !link.tie)
    }

    fn displace(&self, level: usize, at: u32, displaced: Option<u32>) {
        let list = self.adjacency.list(level, at);
        if let Some(row) = displaced.filter(|_| !list.has_room()) {
            list.remove(row);
            self.adjacency.list(level, row).remove(at);
        }
    }
}
