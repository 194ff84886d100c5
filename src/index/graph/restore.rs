//! Leaving and coming back: the links of one row, and a graph from the links of many.
//!
//! What comes back is not trusted. A snapshot's rows are sealed one by one, so some may be missing
//! or from another moment; every link is looked at before it is used:
//!
//! 1. Each list keeps what could be in it: rows that are there and have the level, each once.
//! 2. Links that are not mutual are dropped.
//! 3. Ties are chosen anew (union-find): the ends of a link in different trees are tied.
//! 4. Rows that no link reaches are inserted as new ones, rows with few links get more, and trees
//!    that are left are joined.
//!
//! Steps 1, 2 and 4 run on all cores.
//!
//! # Invariants
//! - A restored graph has every row that it was asked for, whatever the links were.

use std::sync::atomic::Ordering::Relaxed;

use rayon::prelude::*;

use super::adjacency::Link;
use super::{Graph, GraphSettings, Near, Space};

/// The links of one row: row numbers, a list a level from level 0 upward.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::index) struct Links(pub(in crate::index) Vec<Vec<u32>>);

impl Graph {
    /// The links of a row.
    #[must_use]
    pub(in crate::index) fn export(&self, row: u32) -> Links {
        let levels = 0..=self.adjacency.level(row);
        Links(levels.map(|level| self.adjacency.list(level, row).rows().collect()).collect())
    }

    /// A graph of the `live` rows below `rows`, from what is known of their links.
    #[must_use]
    pub(in crate::index) fn restore(
        settings: GraphSettings,
        space: &impl Space,
        rows: u32,
        live: impl Fn(u32) -> bool + Sync,
        links: impl Fn(u32) -> Links + Sync,
    ) -> Self {
        let mut graph = Self::new(settings);
        graph.grow(rows as usize);
        let all: Vec<u32> = (0..rows).into_par_iter().filter(|row| live(*row)).collect();
        all.par_iter().for_each(|row| graph.read(*row, &links(*row), rows, &live));
        all.par_iter().for_each(|row| graph.drop_one_sided(*row));
        all.par_iter().for_each(|row| graph.close_gaps(*row));
        // Rows with no link on level 0 are as good as new: their upper links go as well.
        let (new, old): (Vec<u32>, Vec<u32>) =
            all.into_par_iter().partition(|row| graph.adjacency.list(0, *row).is_empty());
        for row in &new {
            graph.unlink_upper(*row);
        }
        let Some(highest) = old.iter().copied().max_by_key(|row| graph.adjacency.level(*row))
        else {
            new.par_iter().for_each(|row| {
                graph.insert(space, *row);
            });
            return graph;
        };
        graph.set_entry(Some(highest));
        graph.len.store(old.len(), Relaxed);
        for level in 0..=graph.adjacency.level(highest) {
            let on: Vec<u32> =
                old.iter().copied().filter(|row| graph.adjacency.level(*row) >= level).collect();
            graph.plant(space, level, highest, &on);
            let few = settings.links / 2;
            on.par_iter()
                .filter(|row| graph.adjacency.list(level, **row).len() < few.min(on.len() - 1))
                .for_each(|row| graph.refresh(space, level, *row));
        }
        new.par_iter().for_each(|row| {
            graph.insert(space, *row);
        });
        graph
    }

    /// Step 1.
    fn read(&self, row: u32, links: &Links, rows: u32, live: &impl Fn(u32) -> bool) {
        for (level, others) in links.0.iter().enumerate().take(self.adjacency.level(row) + 1) {
            let list = self.adjacency.list(level, row);
            for other in others.iter().copied() {
                let may = other < rows && other != row && live(other);
                if may && self.adjacency.level(other) >= level && list.find(other).is_none() {
                    list.push(Link { row: other, tie: false });
                }
            }
        }
    }

    /// Step 2, without moving links, since other threads are looking for theirs: a link that is
    /// dropped is replaced by one to the row itself.
    fn drop_one_sided(&self, row: u32) {
        for level in 0..=self.adjacency.level(row) {
            let list = self.adjacency.list(level, row);
            for other in list.rows().collect::<Vec<_>>() {
                if self.adjacency.list(level, other).find(row).is_none() {
                    list.replace(other, Link { row, tie: false });
                }
            }
        }
    }

    fn close_gaps(&self, row: u32) {
        for level in 0..=self.adjacency.level(row) {
            let list = self.adjacency.list(level, row);
            while list.find(row).is_some() {
                list.remove(row);
            }
        }
    }

    fn unlink_upper(&mut self, row: u32) {
        for level in 1..=self.adjacency.level(row) {
            for other in self.adjacency.list(level, row).rows() {
                self.adjacency.list(level, other).remove(row);
            }
            self.adjacency.clear(level, row);
        }
    }

    /// Step 3, and the trees of step 4: a spanning tree of the rows of a level.
    fn plant(&self, space: &impl Space, level: usize, entry: u32, on: &[u32]) {
        let mut trees = Trees::of(self.adjacency.rows());
        let mut missing = on.len() - 1;
        // First links first: they were the nearest when the rows were new.
        for place in 0..self.adjacency.list(level, entry).capacity() {
            if missing == 0 {
                return;
            }
            for row in on {
                let Some(other) = self.adjacency.list(level, *row).rows().nth(place) else {
                    continue;
                };
                let room = self.may_tie(level, *row) && self.may_tie(level, other);
                if room && trees.unite(*row, other) {
                    self.adjacency.list(level, *row).replace(other, Link { row: other, tie: true });
                    self.adjacency.list(level, other).replace(*row, Link { row: *row, tie: true });
                    missing -= 1;
                }
            }
        }
        for row in on {
            if trees.root(*row) != trees.root(entry) {
                let near = self.near_row(space, level, entry, *row);
                let mut inside = |near: &&Near| trees.root(near.row) == trees.root(entry);
                let nearest = near.iter().find(&mut inside).map_or(entry, |near| near.row);
                self.join(space, level, nearest, *row);
                trees.unite(nearest, *row);
            }
        }
    }

    /// The rows near a row that are found from the entry.
    fn near_row(&self, space: &impl Space, level: usize, entry: u32, row: u32) -> Vec<Near> {
        let compare = |rows: &[u32], found: &mut [f32]| space.similarities(row, rows, found);
        let start = self.descend(entry, level, &compare);
        self.near(level, start, self.settings.effort, &compare)
    }
}

/// Which rows are tied together already (union-find with path halving).
struct Trees(Vec<u32>);

impl Trees {
    #[expect(clippy::cast_possible_truncation, reason = "row numbers have 31 bits")]
    fn of(rows: usize) -> Self {
        Self((0..rows as u32).collect())
    }

    fn root(&mut self, mut row: u32) -> u32 {
        while self.0[row as usize] != row {
            let above = self.0[row as usize];
            self.0[row as usize] = self.0[above as usize];
            row = above;
        }
        row
    }

    /// Puts two trees together; `false` if they were one.
    fn unite(&mut self, a: u32, b: u32) -> bool {
        let (a, b) = (self.root(a), self.root(b));
        self.0[a as usize] = b;
        a != b
    }
}
