//! Until when each row matches, and whose time is over.
//!
//! ```text
//! until   by row   [t0] [t1] [t2] [t3] ...       8 bytes
//! heap    rows, a row expires no later than its four children     4 bytes
//! place   by row: where in the heap it is         4 bytes
//! ```
//!
//! A 4-ary heap whose rows know their places (a d-ary heap, Johnson 1975): a row leaves in
//! logarithmic time, and the structure costs half of what a search tree's nodes would.
//!
//! # Invariants
//! - The heap holds every live row once, and `place` names where.
//! - Rows that expire at one instant are ordered by row, so that the order is total.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::Range;

use crate::types::Timestamp;

/// Children of a row in the heap: it is half as deep as a binary one.
const ARITY: usize = 4;
/// A full column grows by one part in so many: doubling would waste half of it.
const GROWTH: usize = 8;
/// The least growth, rows.
const LEAST_GROWTH: usize = 1_024;

/// When rows expire.
#[derive(Default)]
pub(super) struct Expiry {
    until: Vec<Timestamp>,
    place: Vec<u32>,
    heap: Vec<u32>,
}

impl Expiry {
    /// Enters a row that matches until `until`.
    pub(super) fn enter(&mut self, row: u32, until: Timestamp) {
        let at = row as usize;
        if at >= self.until.len() {
            let more = at + 1 - self.until.len();
            make_room(&mut self.until, more);
            make_room(&mut self.place, more);
            self.until.resize(at + 1, until);
            self.place.resize(at + 1, 0);
        }
        self.until[at] = until;
        make_room(&mut self.heap, 1);
        self.heap.push(row);
        self.rise(self.heap.len() - 1);
    }

    /// Strikes a row out; one that is not in the heap leaves it as it is.
    pub(super) fn strike(&mut self, row: u32) {
        let Some(at) = self.place.get(row as usize).map(|at| *at as usize) else { return };
        if self.heap.get(at) != Some(&row) {
            return;
        }
        self.heap.swap_remove(at);
        if at < self.heap.len() {
            self.rise(at);
            self.sink(at);
        }
    }

    /// By row: the instant from which on it does not match. Only rows that were entered count.
    pub(super) fn matches_until(&self) -> &[Timestamp] {
        &self.until
    }

    /// At most `limit` rows that do not match at `now` any more, the longest expired first.
    pub(super) fn due(&self, now: Timestamp, limit: usize) -> Vec<u32> {
        let mut due = Vec::new();
        // What is next in line is the top or a child of what was taken: the whole heap is never
        // walked.
        let mut line = BinaryHeap::new();
        let key = |at: usize| self.heap.get(at).map(|row| Reverse((self.key(*row), at)));
        line.extend(key(0));
        while due.len() < limit
            && let Some(Reverse(((until, row), at))) = line.pop()
            && until <= now
        {
            due.push(row);
            line.extend(children(at).filter_map(key));
        }
        due
    }

    /// Memory of it all.
    pub(super) fn bytes(&self) -> usize {
        self.until.capacity() * size_of::<Timestamp>()
            + (self.place.capacity() + self.heap.capacity()) * size_of::<u32>()
    }

    fn key(&self, row: u32) -> (Timestamp, u32) {
        (self.until[row as usize], row)
    }

    fn rise(&mut self, mut at: usize) {
        let row = self.heap[at];
        while at > 0 {
            let parent = (at - 1) / ARITY;
            if self.key(self.heap[parent]) <= self.key(row) {
                break;
            }
            self.put(at, self.heap[parent]);
            at = parent;
        }
        self.put(at, row);
    }

    fn sink(&mut self, mut at: usize) {
        let row = self.heap[at];
        while let Some(child) = self.first_of(at)
            && self.key(self.heap[child]) < self.key(row)
        {
            self.put(at, self.heap[child]);
            at = child;
        }
        self.put(at, row);
    }

    /// The child that expires first.
    fn first_of(&self, at: usize) -> Option<usize> {
        let present = children(at).take_while(|child| *child < self.heap.len());
        present.min_by_key(|child| self.key(self.heap[*child]))
    }

    fn put(&mut self, at: usize, row: u32) {
        self.heap[at] = row;
        self.place[row as usize] = u32::try_from(at).expect("no more places than rows");
    }
}

fn children(at: usize) -> Range<usize> {
    at * ARITY + 1..at * ARITY + 1 + ARITY
}

fn make_room<T>(column: &mut Vec<T>, more: usize) {
    if column.capacity() - column.len() < more {
        column.reserve_exact(more.max(column.len() / GROWTH).max(LEAST_GROWTH));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::index::testkit::{Random, now};

    #[test]
    fn rows_come_due_as_in_an_ordered_set_whatever_comes_and_goes() {
        let (mut expiry, mut set) = (Expiry::default(), BTreeSet::new());
        let mut random = Random::new(40);
        for step in 0..30_000_u32 {
            let row = random.below(500);
            let held = set.iter().find(|(_, other)| *other == row).copied();
            if let Some(held) = held {
                expiry.strike(row);
                set.remove(&held);
            } else {
                // Few instants, so that many rows share one.
                let until = now().plus_ms(i64::from(random.below(60)));
                expiry.enter(row, until);
                set.insert((until, row));
            }
            let (at, limit) = (now().plus_ms(i64::from(step % 70) - 5), step as usize % 9);
            let due = set.iter().take_while(|(until, _)| *until <= at).map(|(_, row)| *row);
            assert_eq!(expiry.due(at, limit), due.take(limit).collect::<Vec<u32>>());
        }
        for (until, row) in &set {
            assert_eq!(expiry.matches_until()[*row as usize], *until);
        }
        let held: Vec<u32> = set.iter().map(|(_, row)| *row).collect();
        for row in (0..600).filter(|row| !held.contains(row)) {
            expiry.strike(row); // not there: changes nothing
        }
        assert_eq!(expiry.due(now().plus_days(1), usize::MAX), held);
    }
}
