//! Finding near rows: greedy on the upper levels, best first below.
//!
//! A walk goes through all rows and answers members only. Where members are rare it also looks for
//! them two links away, since among few members the mate stands out as soon as it is looked at:
//! at 1 member in 10 both ways cost the same for one recall, at 1 in 100 the second half as much.
//!
//! # Invariants
//! - What is answered was a member and was linked when the walk met it.
//!
//! # Not here
//! How vectors are compared: a walk is given a closure.

use super::adjacency::Adjacency;
use super::frontier::Notebook;
use super::{Graph, Near};

/// Fewer members than one in so many make a walk look two links ahead.
const RARE: usize = 16;

/// Similarities of rows to what is looked for.
pub(super) trait Compare: Fn(&[u32], &mut [f32]) {}
impl<F: Fn(&[u32], &mut [f32])> Compare for F {}

/// The similarity of one row.
pub(super) fn compared(row: u32, compare: &impl Compare) -> Near {
    let mut similarity = [0.0];
    compare(&[row], &mut similarity);
    Near { similarity: similarity[0], row }
}

impl Graph {
    /// The best `keep` members near what `compare` looks for, best first.
    ///
    /// `effort` (HNSW's ef) is how many rows the walk keeps in sight, members or not.
    pub(in crate::index) fn search(
        &self,
        effort: usize,
        keep: usize,
        compare: impl Fn(&[u32], &mut [f32]),
        member: impl Fn(u32) -> bool,
    ) -> Vec<Near> {
        let Some(entry) = self.entry() else { return Vec::new() };
        let start = self.descend(entry, 0, &compare);
        self.notebooks.with(|notebook| {
            notebook.best.reset(keep);
            if keep > 0 {
                self.adjacency.walk(0, start, effort.max(keep), &compare, &member, notebook);
            }
            notebook.best.iter().collect()
        })
    }

    /// The nearest row that a greedy walk finds from the entry down to a level.
    pub(super) fn descend(&self, entry: u32, to: usize, compare: &impl Compare) -> Near {
        let mut at = compared(entry, compare);
        let (mut rows, mut similarities) = (Vec::new(), Vec::new());
        for level in (to + 1..=self.adjacency.level(entry)).rev() {
            loop {
                rows.clear();
                rows.extend(self.adjacency.list(level, at.row).rows());
                similarities.resize(rows.len(), 0.0);
                compare(&rows, &mut similarities);
                let steps = rows.iter().zip(&similarities);
                let steps = steps.map(|(row, s)| Near { row: *row, similarity: *s });
                match steps.min_by(|a, b| a.rank(*b)) {
                    Some(step) if step.similarity > at.similarity => at = step,
                    Some(_) | None => break,
                }
            }
        }
        at
    }

    /// The rows near what `compare` looks for on one level, best first.
    pub(super) fn near(
        &self,
        level: usize,
        start: Near,
        effort: usize,
        compare: &impl Compare,
    ) -> Vec<Near> {
        self.notebooks.with(|notebook| {
            notebook.best.reset(0);
            self.adjacency.walk(level, start, effort, compare, &|_| true, notebook);
            notebook.frontier.iter().collect()
        })
    }
}

impl Adjacency {
    /// Best-first walk on one level, from `start`, with the best `effort` rows in sight. Leaves
    /// them in the notebook's frontier, and the best members in `best`.
    fn walk(
        &self,
        level: usize,
        start: Near,
        effort: usize,
        compare: &impl Compare,
        member: &impl Fn(u32) -> bool,
        notebook: &mut Notebook,
    ) {
        let Notebook { frontier, best, visited, fresh, similarities } = notebook;
        let mut census = Census::default();
        frontier.reset(effort);
        visited.reset(self.rows());
        visited.meet(start.row);
        frontier.offer(start);
        if member(start.row) {
            best.offer(start);
        }
        while let Some(row) = frontier.expand() {
            let list = self.list(level, row);
            fresh.clear();
            fresh.extend(list.rows().filter(|row| visited.meet(*row)));
            census.count(fresh, member);
            if census.members_are_rare() {
                list.rows().for_each(|next| self.list(level, next).prefetch());
                for next in list.rows() {
                    let beyond = self.list(level, next).rows();
                    fresh.extend(beyond.filter(|row| member(*row) && visited.meet(*row)));
                }
            }
            if let Some(next) = frontier.peek() {
                self.list(level, next).prefetch();
            }
            similarities.resize(fresh.len(), 0.0);
            compare(fresh, similarities);
            for (row, similarity) in fresh.iter().zip(similarities.iter()) {
                let near = Near { similarity: *similarity, row: *row };
                frontier.offer(near);
                if best.would_take(near) && member(near.row) {
                    best.offer(near);
                }
            }
        }
    }
}

/// How common members are on the way.
#[derive(Default)]
struct Census {
    met: usize,
    members: usize,
}

impl Census {
    fn count(&mut self, rows: &[u32], member: &impl Fn(u32) -> bool) {
        self.met += rows.len();
        self.members += rows.iter().filter(|row| member(**row)).count();
    }

    fn members_are_rare(&self) -> bool {
        self.members * RARE < self.met
    }
}
