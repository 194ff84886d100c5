//! What one index promises, one property a test.

use super::planner::{Route, Rung, Tuning};
use super::scan::{Search, Spread};
use super::testkit::{
    PLANS, Random, WAYS, class, consent_of, grant, index, now, planned, quantiser, search,
    settings, template,
};
use super::*;
use crate::types::{Embedding, Similarity};

const WIDTH: usize = 128;

fn fill(index: &Index, random: &mut Random, people: u32, c: u32) -> Vec<(RecordId, Embedding)> {
    let enrol = |n| {
        let (new, face) = (template(n, c), random.embedding(WIDTH));
        let record = new.record;
        index.insert(new, &face).unwrap();
        (record, face)
    };
    (0..people).map(enrol).collect()
}

fn purge(index: &Index, record: RecordId) {
    assert_eq!(index.purge(index.withdraw(record).unwrap()).record(), record);
}

/// Whether any 16 bytes in a row of the stored codes of `face` lie anywhere in the arena.
fn arena_shows(index: &Index, face: &Embedding) -> bool {
    let row = quantiser(face.width()).row(face);
    let codes = &row.codes()[..face.width()];
    let state = index.state.read().unwrap();
    state
        .arena
        .contents()
        .any(|block| block.windows(16).any(|seen| codes.windows(16).any(|code| code == seen)))
}

#[test]
fn everybody_is_found_at_rank_1_through_every_kernel() {
    for kernel in Kernel::ALL.into_iter().filter(|kernel| kernel.kernels().is_some()) {
        let settings = IndexSettings { kernel: Some(kernel), ..settings(130) };
        let (index, mut random) = (Index::new(settings).unwrap(), Random::new(3));
        let faces: Vec<Embedding> = (0..700).map(|_| random.embedding(130)).collect();
        for (n, face) in (0..).zip(&faces) {
            index.insert(template(n, n % 5), face).unwrap();
        }
        assert_eq!(index.status().kernel, kernel);
        for (n, face) in (0..).zip(&faces) {
            let found = search(&index, &grant(0..5), &random.near(face, 0.6), 3, now()).unwrap();
            assert_eq!((found.searched, found.candidates.len()), (700, 3));
            let best = index.confirm(&grant(0..5), &found.candidates[0], now()).unwrap();
            assert_eq!(best.subject().as_str(), format!("subject-{n}"));
            assert_eq!(best.tag().class, class(n % 5));
        }
    }
}

#[test]
fn a_large_scan_spread_over_the_cores_finds_what_a_small_one_finds() {
    let (index, mut random) = (index(WIDTH), Random::new(4));
    let people = fill(&index, &mut random, 60_000, 0);
    for (record, face) in people.iter().step_by(7_001) {
        let found = search(&index, &grant([0]), face, 2, now()).unwrap();
        let best = index.confirm(&grant([0]), &found.candidates[0], now()).unwrap();
        assert_eq!((best.record(), found.searched), (*record, 60_000));
        assert!(best.similarity().get() > 0.99);
    }
}

#[test]
fn c3_no_search_leaves_its_scope_in_100_000_trials() {
    const CLASSES: u32 = 20;
    const TWINS: u32 = 25;
    for (plan, way) in WAYS {
        let (index, mut random) = (planned(WIDTH, plan), Random::new(5));
        let faces: Vec<Embedding> = (0..TWINS).map(|_| random.embedding(WIDTH)).collect();
        for c in 0..CLASSES {
            for (n, face) in (0..).zip(&faces) {
                index.insert(template(n, c), face).unwrap();
            }
        }
        let all = grant(0..CLASSES);
        for _ in 0..100_000 / WAYS.len() {
            let grant = grant((0..=random.below(3)).map(|_| random.below(CLASSES)));
            let face = &faces[random.below(TWINS) as usize];
            let found = search(&index, &grant, face, 5, now()).unwrap();
            assert_eq!((found.searched, found.way), (grant.classes().len() * TWINS as usize, way));
            assert_eq!(found.candidates.len(), 5);
            for candidate in &found.candidates {
                let seen = index.confirm(&all, candidate, now()).unwrap();
                assert!(grant.classes().contains(&seen.tag().class));
            }
        }
    }
}

#[test]
fn comparing_looks_at_one_subject_in_the_granted_classes_only() {
    let (index, mut random) = (index(WIDTH), Random::new(6));
    let face = random.embedding(WIDTH);
    for c in [0, 1, 3] {
        index.insert(template(7, c), &face).unwrap();
    }
    index.insert(template(8, 0), &face).unwrap();
    let (seven, nobody) = ("subject-7".parse().unwrap(), "subject-9".parse().unwrap());
    let compare = |granted: &[u32], subject| {
        index.compare(&grant(granted.iter().copied()), subject, &face, now()).unwrap().searched
    };
    assert_eq!(compare(&[0], &seven), 1);
    assert_eq!(compare(&[0, 3], &seven), 2);
    assert_eq!(compare(&[0, 1, 2, 3], &seven), 3);
    assert_eq!(compare(&[2], &seven), 0);
    assert_eq!(compare(&[0, 1, 2, 3], &nobody), 0);
}

#[test]
fn an_empty_grant_finds_nobody() {
    let (index, mut random) = (index(WIDTH), Random::new(7));
    let people = fill(&index, &mut random, 5, 0);
    let found = search(&index, &grant([]), &people[0].1, 3, now()).unwrap();
    assert_eq!((found.candidates, found.searched), (vec![], 0));
}

#[test]
fn a_candidate_is_not_confirmed_under_a_grant_that_lacks_its_class() {
    let (index, mut random) = (index(WIDTH), Random::new(8));
    let people = fill(&index, &mut random, 1, 0);
    let found = search(&index, &grant([0]), &people[0].1, 1, now()).unwrap();
    assert!(index.confirm(&grant([0]), &found.candidates[0], now()).is_some());
    assert!(index.confirm(&grant([1]), &found.candidates[0], now()).is_none());
}

#[test]
fn a_stale_candidate_never_names_the_next_person_in_the_slot() {
    let (index, mut random) = (index(WIDTH), Random::new(9));
    let people = fill(&index, &mut random, 1, 0);
    let stale = search(&index, &grant([0]), &people[0].1, 1, now()).unwrap().candidates[0];
    let pending = index.withdraw(people[0].0).unwrap();
    assert!(index.confirm(&grant([0]), &stale, now()).is_none(), "withdrawn");
    let _purged = index.purge(pending);
    let slot = index.insert(template(2, 0), &random.embedding(WIDTH)).unwrap();
    assert_eq!(slot.index, stale.slot().index, "the slot is reused");
    assert_eq!(slot.generation, stale.slot().generation + 1);
    assert!(index.confirm(&grant([0]), &stale, now()).is_none(), "reused");
}

#[test]
fn a_slot_is_not_reused_before_its_purge() {
    let (index, mut random) = (index(WIDTH), Random::new(10));
    let people = fill(&index, &mut random, 1, 0);
    let pending = index.withdraw(people[0].0).unwrap();
    let slot = index.insert(template(2, 0), &random.embedding(WIDTH)).unwrap();
    assert_eq!(slot.index, 1);
    let _purged = index.purge(pending);
    let slot = index.insert(template(3, 0), &random.embedding(WIDTH)).unwrap();
    assert_eq!((slot.index, slot.generation), (0, 1));
}

#[test]
fn a_slot_at_its_last_generation_is_retired() {
    let (index, mut random) = (index(WIDTH), Random::new(11));
    let people = fill(&index, &mut random, 1, 0);
    index.state.write().unwrap().catalogue.age(0, u32::MAX);
    purge(&index, people[0].0);
    assert_eq!(index.insert(template(2, 0), &random.embedding(WIDTH)).unwrap().index, 1);
}

#[test]
fn expiry_counts_at_the_search_and_again_at_emission() {
    let (index, mut random) = (index(WIDTH), Random::new(12));
    let people = fill(&index, &mut random, 3, 0);
    let (last, over) = (now().plus_days(1).plus_ms(-1), now().plus_days(1));
    let found = search(&index, &grant([0]), &people[0].1, 1, last).unwrap();
    assert_eq!(found.searched, 3);
    assert!(index.confirm(&grant([0]), &found.candidates[0], last).is_some());
    assert!(index.confirm(&grant([0]), &found.candidates[0], over).is_none());
    let late = search(&index, &grant([0]), &people[0].1, 1, over).unwrap();
    assert_eq!((late.candidates, late.searched), (vec![], 3));
    assert_eq!(index.expired(last, 9).len(), 0);
    assert_eq!(index.expired(over, 9).len(), 3);
    assert_eq!(index.expired(over, 2).len(), 2);
}

#[test]
fn no_16_bytes_of_a_purged_template_stay_in_the_arena() {
    let (index, mut random) = (index(WIDTH), Random::new(13));
    let people = fill(&index, &mut random, 20, 0);
    for (record, face) in &people {
        assert!(arena_shows(&index, face), "the search itself works");
        purge(&index, *record);
        assert!(!arena_shows(&index, face));
    }
    let state = index.state.read().unwrap();
    assert!(state.arena.contents().all(|block| block.iter().all(|byte| *byte == 0)));
}

#[test]
fn an_abandoned_purge_still_zeroises_and_retires_the_slot() {
    let (index, mut random) = (index(WIDTH), Random::new(14));
    let people = fill(&index, &mut random, 1, 0);
    drop(index.withdraw(people[0].0));
    assert!(!arena_shows(&index, &people[0].1));
    assert!(!index.holds(people[0].0));
    assert_eq!(index.insert(template(2, 0), &random.embedding(WIDTH)).unwrap().index, 1);
}

#[test]
fn a_pending_purge_outlives_its_index() {
    let (index, mut random) = (index(WIDTH), Random::new(15));
    let people = fill(&index, &mut random, 1, 0);
    let pending = index.withdraw(people[0].0).unwrap();
    drop(index);
    assert_eq!(pending.record(), people[0].0);
}

#[test]
fn a_record_is_found_by_subject_and_by_consent_until_it_is_withdrawn() {
    let (index, mut random) = (index(WIDTH), Random::new(16));
    let (first, second) = (template(7, 0), template(7, 3));
    let records = [first.record, second.record];
    let (controller, subject) = (class(0).controller, first.subject.clone());
    for new in [first, second] {
        index.insert(new, &random.embedding(WIDTH)).unwrap();
    }
    assert_eq!(index.records_of_subject(&controller, &subject), records);
    assert_eq!(index.record_of_consent(&controller, &consent_of(records[1])), Some(records[1]));
    assert_eq!(index.records_of_subject(&class(1).controller, &subject), []);
    purge(&index, records[0]);
    assert_eq!(index.records_of_subject(&controller, &subject), [records[1]]);
    assert_eq!(index.record_of_consent(&controller, &consent_of(records[0])), None);
    assert!(index.withdraw(records[0]).is_none());
}

#[test]
fn a_record_or_consent_held_already_is_refused_and_changes_nothing() {
    let (index, mut random) = (index(WIDTH), Random::new(17));
    let (first, face) = (template(1, 0), random.embedding(WIDTH));
    index.insert(first.clone(), &face).unwrap();
    let again = index.insert(first.clone(), &face);
    assert!(matches!(again, Err(IndexError::RecordHeld { record }) if record == first.record));
    let second = NewTemplate { consent: first.consent.clone(), ..template(2, 0) };
    let again = index.insert(second, &face);
    assert!(matches!(again, Err(IndexError::ConsentHeld { record }) if record == first.record));
    assert_eq!(index.status().live, 1);
}

#[test]
fn the_status_counts_classes_subjects_and_bytes() {
    let (index, mut random) = (index(WIDTH), Random::new(18));
    for (n, c) in [(1, 0), (1, 3), (2, 0), (1, 1)] {
        index.insert(template(n, c), &random.embedding(WIDTH)).unwrap();
    }
    let status = index.status();
    assert_eq!((status.live, status.subjects, status.controllers.len()), (4, 3, 2));
    let live = |c| status.classes.iter().find(|s| s.class == class(c)).map(|s| s.live);
    assert_eq!([live(0), live(1), live(2), live(3)], [Some(2), Some(1), None, Some(1)]);
    assert_eq!(index.live_templates(&grant([0, 1])), 3);
    assert_eq!(status.arena_locked, status.locked_bytes == status.arena_bytes);
    assert_eq!(status.arena_bytes, 512 * (128 + 64 + 4));
}

#[test]
fn what_does_not_fit_is_refused() {
    let (index, mut random) = (index(WIDTH), Random::new(19));
    let wide = random.embedding(512);
    let refused = |found: Result<(), IndexError>| {
        matches!(found, Err(IndexError::Width { expected: 128, found: 512 }))
    };
    assert!(refused(index.insert(template(1, 0), &wide).map(drop)));
    assert!(refused(search(&index, &grant([0]), &wide, 1, now()).map(drop)));
    let nobody = "subject-1".parse().unwrap();
    assert!(refused(index.compare(&grant([0]), &nobody, &wide, now()).map(drop)));
    for width in [0, 127, 1025] {
        assert!(matches!(Index::new(settings(width)), Err(IndexError::UnsupportedWidth { .. })));
    }
}

#[test]
fn a_kernel_that_does_not_run_here_is_refused() {
    for kernel in Kernel::ALL.into_iter().filter(|kernel| kernel.kernels().is_none()) {
        let settings = IndexSettings { kernel: Some(kernel), ..settings(WIDTH) };
        assert!(matches!(Index::new(settings), Err(IndexError::KernelUnavailable { .. })));
    }
}

#[test]
fn a_poisoned_index_matches_nobody_and_still_erases() {
    let (index, mut random) = (index(WIDTH), Random::new(20));
    let people = fill(&index, &mut random, 1, 0);
    let found = search(&index, &grant([0]), &people[0].1, 1, now()).unwrap();
    let state = Arc::clone(&index.state);
    let poisoner = std::thread::spawn(move || {
        let _guard = state.write().unwrap();
        panic!("a fault while writing, on purpose");
    });
    assert!(poisoner.join().is_err());
    let answer = search(&index, &grant([0]), &people[0].1, 1, now());
    assert!(matches!(answer, Err(IndexError::Poisoned)));
    assert!(index.confirm(&grant([0]), &found.candidates[0], now()).is_none());
    let answer = index.insert(template(2, 0), &people[0].1);
    assert!(matches!(answer, Err(IndexError::Poisoned)));
    purge(&index, people[0].0);
    assert!(!index.holds(people[0].0));
}

/// Groups that are kept for a class to grow into lie in memory that is there.
#[test]
fn every_gallery_size_can_be_searched() {
    for plan in [PlanSetting::Exact, PlanSetting::Sketch] {
        let settings = IndexSettings { plan, canary_every: 3, ..settings(WIDTH) };
        let (index, mut random) = (Index::new(settings).unwrap(), Random::new(21));
        for n in 0..2_100 {
            let (new, face) = (template(n, 0), random.embedding(WIDTH));
            let record = new.record;
            index.insert(new, &face).unwrap();
            let query = Query { probe: &face, k: 1, floor: Similarity::new(0.6) };
            let found = index.search(&grant([0]), &query, now()).unwrap();
            let best = index.confirm(&grant([0]), &found.candidates[0], now()).unwrap();
            assert_eq!(best.record(), record, "{plan:?}, {n}");
        }
    }
}

/// Searches of different grants go through the gallery together, and each sees its own classes.
#[test]
fn a_batch_of_many_grants_finds_for_each_what_it_finds_alone() {
    const CLASSES: u32 = 6;
    let (index, mut random) = (index(WIDTH), Random::new(22));
    let faces: Vec<Embedding> = (0..40).map(|_| random.embedding(WIDTH)).collect();
    for (n, face) in (0..).zip(&faces) {
        for c in 0..CLASSES {
            index.insert(template(n, c), face).unwrap();
        }
    }
    let state = index.state.read().unwrap();
    let gallery = state.gallery(index.kernels);
    for _ in 0..300 {
        let searches: Vec<Search> = (0..=random.below(15))
            .map(|_| {
                let granted = (0..CLASSES).filter(|_| random.below(2) == 0).collect::<Vec<_>>();
                let face = &faces[random.below(40) as usize];
                Search {
                    probe: index.quantiser.probe(&random.near(face, 0.8)),
                    classes: state.catalogue.compile(&grant(granted)),
                    keep: 8,
                    floor: 0.5,
                    now: now(),
                }
            })
            .collect();
        let all: Vec<&Search> = searches.iter().collect();
        let cuts: Vec<_> = all.iter().map(|search| index.planner.cut(search.floor)).collect();
        for spread in [Spread::Caller, Spread::Pool] {
            let (exact, sketch) =
                (gallery.exact(&all, spread), gallery.sketch(&all, &cuts, spread));
            for (n, search) in all.iter().enumerate() {
                let alone = gallery.exact(&[search], Spread::Caller).pop().unwrap();
                assert_eq!((&exact[n], &sketch[n]), (&alone, &alone));
                for hit in &alone {
                    let class = state.catalogue.live_class(hit.row).unwrap();
                    assert!(search.classes.contains(class));
                }
            }
        }
    }
}

/// Rows are linked by whoever inserts them and by care, at the same time, while others leave.
#[test]
fn care_beside_insertions_and_erasures_links_every_row_once() {
    let graph = Some(GraphSettings { links: 8, effort: 32 });
    let index = Index::new(IndexSettings { graph, ..settings(WIDTH) }).unwrap();
    let mut random = Random::new(23);
    for n in 0..300 {
        index.load(template(n, 0), &random.embedding(WIDTH)).unwrap();
    }
    std::thread::scope(|threads| {
        for seed in [24, 25] {
            let index = &index;
            threads.spawn(move || {
                let mut random = Random::new(seed);
                for n in 0..300 {
                    let new = template(n, 1);
                    let record = new.record;
                    index.insert(new, &random.embedding(WIDTH)).unwrap();
                    if n % 3 == 0 {
                        purge(index, record);
                    }
                }
            });
        }
        threads.spawn(|| {
            for _ in 0..40 {
                index.care(2).unwrap();
            }
        });
    });
    while index.care(2).unwrap() != Care::Idle {}
    index.check();
    let status = index.status();
    assert_eq!(status.graph.unwrap().linked, status.live);
    assert!(index.state.read().unwrap().graph_is_complete());
    let plan = index.plan(&grant([0, 1]), Similarity::new(0.5));
    assert!(matches!(plan.graph, GraphOutlook::Able { .. }), "{plan}");
}

/// A slot far off, a foreign head and a body that was altered lose their row and nothing else.
#[test]
fn a_hostile_snapshot_is_refused_row_by_row() {
    let (index, mut random) = (index(WIDTH), Random::new(26));
    let people = fill(&index, &mut random, 8, 0);
    let head = index.snapshot_head();
    let rows = || {
        let back = |row: ExportedRow| RestoredRow {
            slot: row.slot,
            template: index.describe(row.record).unwrap(),
            body: row.body,
        };
        index.export(0, 99).unwrap().into_iter().map(back).collect::<Vec<_>>()
    };
    let fresh = || Index::new(settings(WIDTH)).unwrap();
    let mut foreign = head;
    foreign[12] ^= 1;
    let mut vast = head;
    vast[HEAD_BYTES - 4..].fill(0xFF);
    for wrong in [&foreign[..], &vast, &head[..5], &[]] {
        let refused = fresh().restore(wrong, rows());
        assert!(matches!(refused, Err(IndexError::ForeignSnapshot)));
    }
    let mut damaged = rows();
    damaged[1].slot.index = u32::MAX;
    damaged[2].slot.index = damaged[3].slot.index;
    damaged[4].body.truncate(3);
    damaged[5].body[WIDTH + 3] = 0x7E; // the scale's exponent
    damaged[6].body.extend_from_slice(&[250, 1, 2]); // links that end too early
    let lost: Vec<RecordId> = [1, 3, 4, 5].map(|n| damaged[n].template.record).to_vec();
    let restored = fresh();
    let outcome = restored.restore(&head, damaged).unwrap();
    assert_eq!((outcome.rows, &outcome.dropped), (4, &lost));
    restored.relink(&outcome.links, 1).unwrap();
    for (record, face) in &people {
        let found = search(&restored, &grant([0]), face, 1, now()).unwrap();
        let best = restored.confirm(&grant([0]), &found.candidates[0], now()).unwrap();
        let is_own = best.record() == *record && best.similarity().get() > 0.99;
        assert!(is_own || lost.contains(record));
    }
}

#[test]
fn settings_that_make_no_graph_are_refused_and_any_k_is_served() {
    for (links, effort) in [(3, 64), (65, 64), (16, 15), (16, 5_000)] {
        let graph = Some(GraphSettings { links, effort });
        let made = Index::new(IndexSettings { graph, ..settings(WIDTH) });
        assert!(matches!(made, Err(IndexError::UnsupportedGraph { .. })));
    }
    for plan in PLANS {
        let (index, mut random) = (planned(WIDTH, plan), Random::new(27));
        let people = fill(&index, &mut random, 4, 0);
        let found = search(&index, &grant([0]), &people[0].1, usize::MAX, now()).unwrap();
        assert_eq!(found.candidates.len(), 4);
    }
}

/// A graph that misses more than the target allows does not go on as it was.
#[test]
fn a_graph_that_is_caught_is_not_trusted_again() {
    let index = planned(WIDTH, PlanSetting::Auto);
    let mut random = Random::new(28);
    fill(&index, &mut random, 100, 0);
    let way = || index.plan(&grant([0]), Similarity::new(0.5)).way;
    assert_eq!(way(), Way::Graph);
    index.planner.distrust(Route::Graph { ef: 512 });
    assert_eq!(way(), Way::Sketch);
    let rung = Rung { ef: 512, recall: 1.0, cost: std::time::Duration::ZERO };
    index.planner.tuned(Tuning::new(vec![rung], 100));
    assert_eq!(way(), Way::Sketch, "what was ruled out stays so when it is measured again");
}
