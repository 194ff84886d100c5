//! The spanning tree that no pruning may cut: why every row is always reachable.
//!
//! On every level some links are *ties*. The ties of a level form a spanning tree of its rows:
//!
//! - A new row has no links. It makes one tie, to a row of the tree: still a tree, one row larger.
//! - Displacing a link never displaces a tie, so pruning changes no tree.
//! - Taking a row with d ties away leaves d trees. They are joined by d - 1 ties between different
//!   trees: a tree again.
//! - A row may not have room for a tie: half its links at most are ties. Then the walk goes outward
//!   along the ties, never back: in a finite tree it ends at a leaf at the latest, and a leaf has
//!   one tie. What is found lies in the same tree, so it may stand in for the row.
//!
//! With n rows a level has n - 1 ties: two of a row's links on average, and mostly links that it
//! would have anyway (a new row is tied to the nearest).

use super::link::Kind;
use super::{Graph, Near, Space};

impl Graph {
    /// Ties a row that has no links to the nearest row that may have one more tie.
    pub(super) fn attach(&self, space: &impl Space, level: usize, row: u32, near: &[Near]) {
        let tied = near.iter().any(|near| self.link(space, level, (row, near.row), Kind::Tie));
        if let Some(nearest) = near.first().filter(|_| !tied) {
            self.join(space, level, row, nearest.row);
        }
    }

    /// Ties two trees together, as near to these two of their rows as there is room.
    pub(super) fn join(&self, space: &impl Space, level: usize, a: u32, b: u32) {
        while !self.link(space, level, (self.outward(level, a), self.outward(level, b)), Kind::Tie)
        {
        }
    }

    /// Ties rows of different trees together, nearest first.
    pub(super) fn join_all(&self, space: &impl Space, level: usize, rows: &[u32]) {
        let Some((first, rest)) = rows.split_first() else { return };
        let mut inside = vec![*first];
        let mut outside = rest.to_vec();
        let mut similarities = vec![0.0; rows.len()];
        while !outside.is_empty() {
            let mut best: Option<(f32, u32, usize)> = None;
            for (place, row) in outside.iter().enumerate() {
                let found = &mut similarities[..inside.len()];
                space.similarities(*row, &inside, found);
                for (other, similarity) in inside.iter().zip(found.iter()) {
                    if best.is_none_or(|(most, ..)| *similarity > most) {
                        best = Some((*similarity, *other, place));
                    }
                }
            }
            let Some((_, other, place)) = best else { return };
            let row = outside.swap_remove(place);
            self.join(space, level, other, row);
            inside.push(row);
        }
    }

    /// The row itself if it may have one more tie, or else one of its tree that may.
    fn outward(&self, level: usize, row: u32) -> u32 {
        let (mut at, mut from) = (row, row);
        while !self.may_tie(level, at) {
            let ties = self.adjacency.list(level, at).iter().filter(|link| link.tie);
            let Some(next) = ties.map(|link| link.row).find(|next| *next != from) else { break };
            (from, at) = (at, next);
        }
        at
    }
}
