//! Taking a row away and closing the hole.
//!
//! What is left behind are *orphans*, each one link short. They are near each other, so they find
//! new neighbours among themselves: diverse pairs first, which may take the place of worse links,
//! then any for which there is room. Who is left with few links looks further, as a new row does.
//!
//! # Invariants
//! - The trees that the row held together are one again before it is forgotten (`tree.rs`).
//! - The entry goes to a row of the highest level that is left. Ties span every level, so the
//!   highest level on which the row has a link is the highest level of the other rows.
//! - The row's words are zeroised with writes that the compiler may not leave out.

use std::sync::atomic::Ordering::Relaxed;

use super::link::Kind;
use super::walk::compared;
use super::{Graph, Space};

/// New links that a removal gives an orphan: it has lost one. Measured: a second one costs 2.5 times
/// as much time, and without it ten turnovers cost 0.1 points of recall at ef 64.
const PAIRINGS: usize = 1;
/// Rows in sight while a row with few links looks for more.
const SEEK_EFFORT: usize = 32;

impl Graph {
    /// Takes a row away. A row that is not held stays away.
    pub(in crate::index) fn remove(&mut self, space: &impl Space, row: u32) {
        if !self.holds(row) {
            return;
        }
        self.len.fetch_sub(1, Relaxed);
        for level in (0..=self.adjacency.level(row)).rev() {
            let links: Vec<_> = self.adjacency.list(level, row).iter().collect();
            let orphans: Vec<u32> = links.iter().map(|link| link.row).collect();
            let tied: Vec<u32> =
                links.iter().filter(|link| link.tie).map(|link| link.row).collect();
            if self.entry() == Some(row)
                && let Some(heir) = orphans.first()
            {
                self.set_entry(Some(*heir));
            }
            for orphan in &orphans {
                self.adjacency.list(level, *orphan).remove(row);
            }
            self.adjacency.clear(level, row);
            self.join_all(space, level, &tied);
            self.pair(space, level, &orphans);
            self.seek(space, level, &orphans);
        }
        if self.entry() == Some(row) {
            self.set_entry(None);
        }
    }

    /// Links orphans with each other.
    fn pair(&self, space: &impl Space, level: usize, orphans: &[u32]) {
        let mut circle = Circle::of(self, space, level, orphans);
        let mut gained = vec![0; orphans.len()];
        for pass in [Pass::Diverse, Pass::Room] {
            for (a, b) in circle.pairs.clone() {
                let (one, other) = (orphans[a], orphans[b]);
                let fits = gained[a] < PAIRINGS && gained[b] < PAIRINGS && !circle.are_linked(a, b);
                let wanted = match pass {
                    Pass::Diverse => !circle.covered(a, b),
                    Pass::Room => self.has_room(level, one) && self.has_room(level, other),
                };
                if fits && wanted && self.link(space, level, (one, other), Kind::Ordinary) {
                    circle.note(a, b);
                    gained[a] += 1;
                    gained[b] += 1;
                }
            }
        }
    }

    fn has_room(&self, level: usize, row: u32) -> bool {
        self.adjacency.list(level, row).has_room()
    }

    fn seek(&self, space: &impl Space, level: usize, orphans: &[u32]) {
        for orphan in orphans {
            if self.adjacency.list(level, *orphan).len() < self.settings.links / 2 {
                self.refresh(space, level, *orphan);
            }
        }
    }

    /// Links a row with rows that a walk from itself finds, in place of worse links.
    pub(super) fn refresh(&self, space: &impl Space, level: usize, row: u32) {
        let compare = |rows: &[u32], found: &mut [f32]| space.similarities(row, rows, found);
        let mut near = self.near(level, compared(row, &compare), SEEK_EFFORT, &compare);
        near.retain(|near| near.row != row);
        self.renew(space, level, row, &near);
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Pass {
    Diverse,
    Room,
}

/// Orphans, by their place: how similar they are and which of them are linked.
struct Circle {
    size: usize,
    similarities: Vec<f32>,
    linked: Vec<bool>,
    /// Those not linked, most similar first.
    pairs: Vec<(usize, usize)>,
}

impl Circle {
    fn of(graph: &Graph, space: &impl Space, level: usize, orphans: &[u32]) -> Self {
        let size = orphans.len();
        let mut similarities = vec![0.0; size * size];
        let mut linked = vec![false; size * size];
        for (a, row) in orphans.iter().enumerate() {
            space.similarities(*row, orphans, &mut similarities[a * size..][..size]);
            for other in graph.adjacency.list(level, *row).rows() {
                if let Some(b) = orphans.iter().position(|orphan| *orphan == other) {
                    linked[a * size + b] = true;
                }
            }
        }
        let mut pairs: Vec<_> = (0..size)
            .flat_map(|a| (a + 1..size).map(move |b| (a, b)))
            .filter(|(a, b)| !linked[a * size + b])
            .collect();
        let at = |(a, b): &(usize, usize)| similarities[a * size + b];
        pairs.sort_unstable_by(|one, other| at(other).total_cmp(&at(one)));
        Self { size, similarities, linked, pairs }
    }

    fn are_linked(&self, a: usize, b: usize) -> bool {
        self.linked[a * self.size + b]
    }

    fn note(&mut self, a: usize, b: usize) {
        self.linked[a * self.size + b] = true;
        self.linked[b * self.size + a] = true;
    }

    /// Whether two orphans reach each other over a third that is linked with one of them and
    /// nearer to both.
    fn covered(&self, a: usize, b: usize) -> bool {
        let at = |a: usize, b: usize| a * self.size + b;
        let near =
            |c: usize, to: usize| self.similarities[at(c, to)] >= self.similarities[at(a, b)];
        (0..self.size)
            .filter(|c| *c != a && *c != b)
            .any(|c| (self.are_linked(a, c) || self.are_linked(b, c)) && near(c, a) && near(c, b))
    }
}
