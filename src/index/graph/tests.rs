//! The graph against brute force, step by step, and what must hold after every step.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use rayon::prelude::*;

use super::testkit::{Dots, Random};
use super::{Graph, GraphSettings, Links, Near};

const SMALL: GraphSettings = GraphSettings { links: 4, effort: 16 };
const USUAL: GraphSettings = GraphSettings { links: 16, effort: 64 };

fn graph_of(space: &Dots, settings: GraphSettings, rows: impl IntoIterator<Item = u32>) -> Graph {
    let mut graph = Graph::new(settings);
    graph.grow(space.rows());
    for row in rows {
        graph.insert(space, row);
    }
    graph
}

fn found(graph: &Graph, space: &Dots, probe: u32, keep: usize) -> Vec<Near> {
    graph.search(64, keep, space.probe(probe), |_| true)
}

/// Mean share of the exact best `keep` that the graph finds, over the probes.
fn recall(graph: &Graph, space: &Dots, live: &[u32], probes: &[u32], keep: usize) -> f32 {
    let hit = |probe: &u32| {
        let truth = space.exact(*probe, live, keep);
        let got = found(graph, space, *probe, keep);
        got.iter().filter(|near| truth.contains(&near.row)).count()
    };
    let (found, wanted) = (probes.par_iter().map(hit).sum::<usize>(), probes.len() * keep);
    f32::from(u16::try_from(found).unwrap()) / f32::from(u16::try_from(wanted).unwrap())
}

#[test]
fn an_empty_graph_finds_nothing_and_forgets_nobody() {
    let space = Dots::scattered(1, 4, 8);
    let mut graph = graph_of(&space, SMALL, []);
    assert_eq!(found(&graph, &space, 0, 3), []);
    graph.remove(&space, 2);
    graph.check(|_| false).unwrap();
}

#[test]
fn one_row_is_found_and_then_is_not() {
    let space = Dots::scattered(1, 4, 8);
    let mut graph = graph_of(&space, SMALL, [2]);
    assert_eq!(found(&graph, &space, 2, 3).iter().map(|n| n.row).collect::<Vec<_>>(), [2]);
    graph.remove(&space, 2);
    assert_eq!(found(&graph, &space, 2, 3), []);
    graph.check(|_| false).unwrap();
    graph.insert(&space, 1);
    graph.check(|row| row == 1).unwrap();
}

#[test]
fn keeping_none_finds_none() {
    let space = Dots::scattered(1, 40, 8);
    let graph = graph_of(&space, SMALL, 0..40);
    assert_eq!(found(&graph, &space, 2, 0), []);
}

#[test]
fn every_step_of_random_sequences_keeps_the_invariants() {
    for seed in 0..40 {
        let mut random = Random::new(seed);
        let rows = [6, 40, 160][usize::try_from(seed % 3).unwrap()];
        // Few places for many rows: equal vectors are common.
        let space = if seed % 4 == 3 {
            Dots::heaped(seed, rows, 8, 3)
        } else {
            Dots::scattered(seed, rows, 8)
        };
        let mut graph = graph_of(&space, SMALL, []);
        let mut live = BTreeSet::new();
        for step in 0..600 {
            let row = random.below(rows);
            // Phases of growth and of decline.
            if random.below(100) < if step / 150 % 2 == 0 { 75 } else { 35 } {
                if live.insert(row) {
                    graph.insert(&space, row);
                }
            } else {
                live.remove(&row);
                graph.remove(&space, row);
            }
            graph.check(|row| live.contains(&row)).unwrap_or_else(|e| panic!("{seed} {step}: {e}"));
            let probe = random.below(rows);
            let got = found(&graph, &space, probe, 1);
            let all: Vec<u32> = live.iter().copied().collect();
            assert_eq!(got.is_empty(), live.is_empty());
            if live.len() <= 64 {
                // The effort is 64, so everything reachable is compared.
                let truth = space.exact(probe, &all, 1);
                let best = truth.first().map(|row| space.similarity(probe, *row));
                assert_eq!(got.first().map(|near| near.similarity), best, "{seed} {step}");
            }
        }
    }
}

#[test]
fn removing_the_entry_and_the_top_rows_leaves_the_highest_row_as_entry() {
    let space = Dots::scattered(3, 300, 8);
    let mut graph = graph_of(&space, SMALL, 0..300);
    let mut live: BTreeSet<u32> = (0..300).collect();
    while let Some(entry) = graph.entry() {
        live.remove(&entry);
        graph.remove(&space, entry);
        graph.check(|row| live.contains(&row)).unwrap();
    }
    assert!(live.is_empty());
}

#[test]
fn equal_vectors_are_all_linked_and_found() {
    let space = Dots::heaped(5, 2_000, 16, 1);
    let mut graph = graph_of(&space, USUAL, 0..2_000);
    graph.check(|row| row < 2_000).unwrap();
    assert_eq!(found(&graph, &space, 0, 10).len(), 10);
    for row in 0..1_990 {
        graph.remove(&space, row);
    }
    graph.check(|row| (1_990..2_000).contains(&row)).unwrap();
    assert_eq!(found(&graph, &space, 0, 20).len(), 10);
}

#[test]
fn removed_rows_leave_only_zeros() {
    let space = Dots::scattered(3, 500, 16);
    let mut graph = graph_of(&space, USUAL, 0..500);
    for row in (0..500).step_by(3) {
        graph.remove(&space, row);
    }
    // `check` demands zero words of every row that is not live.
    graph.check(|row| row < 500 && row % 3 != 0).unwrap();
}

#[test]
fn inserting_twice_changes_nothing() {
    let space = Dots::scattered(3, 50, 16);
    let graph = graph_of(&space, SMALL, (0..50).chain(0..50));
    graph.check(|row| row < 50).unwrap();
}

#[test]
fn a_filtered_search_finds_members_only() {
    let space = Dots::scattered(4, 3_000, 16);
    let graph = graph_of(&space, USUAL, 0..3_000);
    for share in [1, 2, 10, 100, 1_000] {
        let member = |row: u32| row.wrapping_mul(2_654_435_761) >> 8 & 0xfff < 4_096 / share;
        let members: Vec<u32> = (0..3_000).filter(|row| member(*row)).collect();
        let mut right = 0;
        for probe in 0..200 {
            let got = graph.search(64, 5, space.probe(probe), member);
            assert!(got.iter().all(|near| member(near.row)));
            assert!(got.is_sorted_by(|a, b| a.similarity >= b.similarity));
            let truth = space.exact(probe, &members, 1);
            right += usize::from(got.first().map(|near| near.row) == truth.first().copied());
        }
        assert!(right >= 195, "1/{share}: {right} of 200");
    }
}

#[test]
fn rows_inserted_from_many_threads_are_all_linked_while_others_search() {
    let space = Dots::scattered(6, 4_000, 16);
    for settings in [SMALL, USUAL] {
        let graph = graph_of(&space, settings, []);
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let searcher = scope.spawn(|| {
                let mut random = Random::new(9);
                while !done.load(Relaxed) {
                    let probe = random.below(4_000);
                    for near in found(&graph, &space, probe, 5) {
                        let similarity = space.similarity(probe, near.row);
                        assert!((near.similarity - similarity).abs() < f32::EPSILON);
                    }
                }
            });
            let writers: Vec<_> = (0..4_u32)
                .map(|part| {
                    let (graph, space) = (&graph, &space);
                    scope.spawn(move || {
                        for row in (part..4_000).step_by(4) {
                            graph.insert(space, row);
                        }
                    })
                })
                .collect();
            for writer in writers {
                writer.join().unwrap();
            }
            done.store(true, Relaxed);
            searcher.join().unwrap();
        });
        graph.check(|row| row < 4_000).unwrap();
    }
}

#[test]
fn equal_vectors_inserted_from_many_threads_make_one_tree() {
    let space = Dots::heaped(6, 1_000, 16, 2);
    for _round in 0..5 {
        let graph = graph_of(&space, SMALL, []);
        (0..1_000_u32).into_par_iter().with_max_len(1).for_each(|row| {
            graph.insert(&space, row);
        });
        graph.check(|row| row < 1_000).unwrap();
    }
}

#[test]
fn a_graph_that_has_lost_and_gained_rows_is_as_good_as_a_new_one() {
    let space = Dots::scattered(8, 6_000, 24);
    let probes: Vec<u32> = (0..500).collect();
    let mut random = Random::new(2);
    let mut live: Vec<u32> = (0..3_000).collect();
    let mut dead: Vec<u32> = (3_000..6_000).collect();
    let mut graph = graph_of(&space, USUAL, live.iter().copied());
    for _ in 0..4 * 3_000 {
        let (out, into) = (random.below(3_000) as usize, random.below(3_000) as usize);
        graph.remove(&space, live[out]);
        graph.insert(&space, dead[into]);
        std::mem::swap(&mut live[out], &mut dead[into]);
    }
    graph.check(|row| live.contains(&row)).unwrap();
    let fresh = graph_of(&space, USUAL, live.iter().copied());
    let (aged, fresh) =
        (recall(&graph, &space, &live, &probes, 10), recall(&fresh, &space, &live, &probes, 10));
    assert!(aged > fresh - 0.01, "aged {aged}, fresh {fresh}");
    let half: Vec<u32> = live.split_off(1_500);
    for row in half {
        graph.remove(&space, row);
    }
    let aged = recall(&graph, &space, &live, &probes, 10);
    let fresh = recall(&graph_of(&space, USUAL, live.iter().copied()), &space, &live, &probes, 10);
    assert!(aged > fresh - 0.005, "after losing half: aged {aged}, fresh {fresh}");
}

#[test]
fn what_was_exported_comes_back_the_same() {
    let space = Dots::scattered(9, 2_000, 16);
    let mut graph = graph_of(&space, USUAL, 0..2_000);
    (0..2_000).step_by(7).for_each(|row| graph.remove(&space, row));
    let live = |row: u32| !row.is_multiple_of(7);
    let back = Graph::restore(USUAL, &space, 2_000, live, |row| graph.export(row));
    back.check(|row| row < 2_000 && live(row)).unwrap();
    for row in 0..2_000 {
        assert_eq!(back.export(row), graph.export(row));
    }
}

#[test]
fn damaged_rows_come_back_linked() {
    for (settings, rows, heaps) in [(SMALL, 300, 300), (USUAL, 1_500, 1_500), (SMALL, 200, 2)] {
        let space = Dots::heaped(9, rows, 16, heaps);
        let all = u32::try_from(rows).unwrap();
        let graph = graph_of(&space, settings, 0..all);
        for damage in 0..8 {
            // Half of the rows have lost all links or some, name rows that are not there,
            // themselves, one row twice, or whatever; some rows are gone.
            let links = |row: u32| {
                let mut random = Random::new(u64::from(damage * 10_000 + row));
                let mut links = graph.export(row);
                for list in &mut links.0 {
                    match random.below(16) {
                        0 | 1 => list.clear(),
                        2 => list.push(all + 5),
                        3 => list.push(row),
                        4 => list.extend_from_within(..),
                        5 => list.iter_mut().for_each(|other| *other = random.below(2 * rows)),
                        6 => list.truncate(1),
                        7 => list.extend([u32::MAX, 1 << 31, (1 << 31) - 1]),
                        _ => {}
                    }
                }
                if damage == 7 { Links::default() } else { links }
            };
            let live = |row: u32| damage % 2 == 0 || !row.is_multiple_of(5);
            let back = Graph::restore(settings, &space, all, live, links);
            back.check(|row| row < all && live(row)).unwrap();
            if heaps > 1_000 {
                let live: Vec<u32> = (0..all).filter(|row| live(*row)).collect();
                let recall = recall(&back, &space, &live, &live[..200], 5);
                assert!(recall > 0.98, "{damage}: {recall}");
            }
        }
    }
}
