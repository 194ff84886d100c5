//! Which links are worth having: near ones that lead different ways.
//!
//! The diversity heuristic of HNSW (Malkov and Yashunin 2018, algorithm 4): a candidate is
//! *covered* when a nearer link is at least as similar to it as the row itself is, because the
//! walk gets there over that link anyway.

use super::adjacency::List;
use super::{Near, Space};

/// Orders candidates, given best first: those that nothing covers, then the rest; `enough`
/// uncovered ones end the choice.
pub(super) fn diverse(space: &impl Space, candidates: &[Near], enough: usize) -> Vec<Near> {
    let (mut kept, mut covered): (Vec<Near>, Vec<Near>) = (Vec::new(), Vec::new());
    let (mut rows, mut similarities) = (Vec::new(), Vec::new());
    for candidate in candidates {
        if kept.len() == enough {
            break;
        }
        similarities.resize(rows.len(), 0.0);
        space.similarities(candidate.row, &rows, &mut similarities);
        if similarities.iter().any(|similarity| *similarity >= candidate.similarity) {
            covered.push(*candidate);
        } else {
            kept.push(*candidate);
            rows.push(candidate.row);
        }
    }
    kept.extend(covered);
    kept
}

/// The link of a full list that it can best do without: the farthest covered one, or else the
/// farthest. `newcomer` is looked at as if it were in the list. `None` if all links are ties.
pub(super) fn redundant(
    space: &impl Space,
    at: u32,
    list: List<'_>,
    newcomer: Option<u32>,
) -> Option<u32> {
    let ties: Vec<u32> = list.iter().filter(|link| link.tie).map(|link| link.row).collect();
    let mut rows: Vec<u32> = list.rows().chain(newcomer).collect();
    let mut similarities = vec![0.0; rows.len()];
    space.similarities(at, &rows, &mut similarities);
    let mut order: Vec<Near> = rows
        .iter()
        .zip(&similarities)
        .map(|(row, similarity)| Near { row: *row, similarity: *similarity })
        .collect();
    order.sort_unstable_by(|a, b| a.rank(*b));
    rows.clear();
    rows.extend(order.iter().map(|near| near.row));
    let free = |near: &Near| !ties.contains(&near.row);
    for place in (1..order.len()).rev().filter(|place| free(&order[*place])) {
        let Near { row, similarity } = order[place];
        let nearer = &mut similarities[..place];
        space.similarities(row, &rows[..place], nearer);
        if nearer.iter().any(|other| *other >= similarity) {
            return Some(row);
        }
    }
    order.iter().rev().find(|near| free(near)).map(|near| near.row)
}
