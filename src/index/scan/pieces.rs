//! What searches may read, cut into pieces of work.
//!
//! # Invariants
//! - A group is in one piece, with all searches that are granted its class and no other; a group
//!   that no search is granted is in none.

use std::ops::Range;

use super::super::catalogue::Catalogue;
use super::super::kernel::MOST_PROBES;
use super::Search;

/// Groups of one piece, about: 8,192 rows.
const PIECE_GROUPS: u32 = 256;

/// Permitted groups, in pieces.
pub(super) struct Pieces {
    /// Stretches of groups, those of a piece together.
    runs: Vec<Range<u32>>,
    /// The searches of each piece, and where its runs end.
    ends: Vec<(Part, usize)>,
}

/// Groups that the same searches may read.
#[derive(Clone, Copy)]
pub(super) struct Piece<'a> {
    /// The searches.
    pub(super) part: Part,
    /// The groups, as stretches of neighbours.
    pub(super) runs: &'a [Range<u32>],
}

impl Pieces {
    /// All groups that any of the searches may read.
    pub(super) fn of(catalogue: &Catalogue, searches: &[&Search]) -> Self {
        let mut pieces = Self { runs: Vec::new(), ends: Vec::new() };
        let [first, rest @ ..] = searches else { return pieces };
        let mut classes = first.classes.clone();
        for search in rest {
            classes.extend(&search.classes);
        }
        let mut parts: Vec<(Part, Vec<Range<u32>>)> = Vec::new();
        for class in classes.iter() {
            let part = Part::of(searches.iter().map(|search| search.classes.contains(class)));
            let runs = catalogue.runs(class);
            match parts.iter_mut().find(|(other, _)| *other == part) {
                Some((_, all)) => all.extend(runs),
                None => parts.push((part, runs.collect())),
            }
        }
        for (part, mut runs) in parts {
            // Classes side by side make one stretch. Each class's runs are sorted already.
            runs.sort_by_key(|run| run.start);
            pieces.cut(part, runs);
        }
        pieces
    }

    /// The pieces.
    pub(super) fn list(&self) -> Vec<Piece<'_>> {
        let starts = std::iter::once(0).chain(self.ends.iter().map(|(_, end)| *end));
        let pieces = starts.zip(&self.ends);
        pieces
            .map(|(start, (part, end))| Piece { part: *part, runs: &self.runs[start..*end] })
            .collect()
    }

    fn cut(&mut self, part: Part, runs: Vec<Range<u32>>) {
        let mut room = PIECE_GROUPS;
        let mut rest = runs.into_iter().peekable();
        while let Some(mut run) = rest.next() {
            while let Some(next) = rest.next_if(|next| next.start == run.end) {
                run.end = next.end;
            }
            while !run.is_empty() {
                let end = run.end.min(run.start.saturating_add(room));
                room -= end - run.start;
                self.runs.push(run.start..end);
                run.start = end;
                if room == 0 {
                    self.ends.push((part, self.runs.len()));
                    room = PIECE_GROUPS;
                }
            }
        }
        if room < PIECE_GROUPS {
            self.ends.push((part, self.runs.len()));
        }
    }
}

/// The searches that may read a group: one bit each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Part(u16);

impl Part {
    /// The searches of which it is true.
    pub(super) fn of(granted: impl Iterator<Item = bool>) -> Self {
        Self(granted.enumerate().fold(0, |bits, (n, granted)| bits | u16::from(granted) << n))
    }

    /// Their numbers.
    pub(super) fn members(self) -> impl Iterator<Item = usize> {
        (0..MOST_PROBES).filter(move |n| self.0 >> n & 1 == 1)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::single_range_in_vec_init, reason = "runs of one stretch are meant")]

    use super::*;

    fn pieces(runs: &[Range<u32>]) -> Vec<Vec<Range<u32>>> {
        let mut pieces = Pieces { runs: Vec::new(), ends: Vec::new() };
        pieces.cut(Part(1), runs.to_vec());
        pieces.list().iter().map(|piece| piece.runs.to_vec()).collect()
    }

    #[test]
    fn neighbours_make_one_run_and_long_runs_several_pieces() {
        assert_eq!(pieces(&[]), Vec::<Vec<Range<u32>>>::new());
        assert_eq!(pieces(&[0..1, 1..3, 5..6]), [vec![0..3, 5..6]]);
        assert_eq!(pieces(&[0..600]), [vec![0..256], vec![256..512], vec![512..600]]);
        assert_eq!(pieces(&[0..200, 300..456]), [vec![0..200, 300..356], vec![356..456]]);
    }

    #[test]
    fn members_are_the_numbers_whose_bit_is_set() {
        let part = Part::of([true, false, true].into_iter());
        assert_eq!(part.members().collect::<Vec<_>>(), [0, 2]);
    }
}
