//! The index against a plain map, and under concurrent use.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use proptest::prelude::*;

use super::testkit::{PLANS, Random, class, grant, is_forced, now, planned, template};
use super::*;
use crate::consent::Grant;
use crate::types::Similarity;

const WIDTH: usize = 128;
const CLASSES: u32 = 4;
const FACES: usize = 16;
/// Largest error of a quantised cosine at this width.
const TOLERANCE: f32 = 0.01;

#[derive(Debug, Clone)]
enum Step {
    Insert {
        face: usize,
        class: u32,
        days: u32,
    },
    Withdraw {
        nth: usize,
    },
    Purge,
    Abandon,
    Search {
        face: usize,
        classes: u32,
        k: usize,
        floor: Floor,
        days: u32,
    },
    Compare {
        face: usize,
        classes: u32,
    },
    /// Out into a snapshot and back into a new index.
    Reload {
        damaged: usize,
    },
}

/// What a search wants at least. Strangers are below either floor or above both by far.
#[derive(Debug, Clone, Copy)]
enum Floor {
    /// Everybody.
    Least,
    /// The same face alone.
    Mates,
}

impl Floor {
    fn cosine(self) -> f32 {
        match self {
            Self::Least => -1.0,
            Self::Mates => 0.7,
        }
    }
}

fn step() -> impl Strategy<Value = Step> {
    let (face, class, classes) = (0..FACES, 0..CLASSES, 0..1_u32 << CLASSES);
    prop_oneof![
        4 => (face.clone(), class, 0..3_u32)
            .prop_map(|(face, class, days)| Step::Insert { face, class, days }),
        2 => (0..32_usize).prop_map(|nth| Step::Withdraw { nth }),
        2 => Just(Step::Purge),
        1 => Just(Step::Abandon),
        4 => (face.clone(), classes.clone(), 0..6_usize, prop::bool::ANY, 0..3_u32)
            .prop_map(|(face, classes, k, mates, days)| {
                let floor = if mates { Floor::Mates } else { Floor::Least };
                Step::Search { face, classes, k, floor, days }
            }),
        1 => (face, classes).prop_map(|(face, classes)| Step::Compare { face, classes }),
        1 => (0..40_usize).prop_map(|damaged| Step::Reload { damaged }),
    ]
}

/// What a template is to the model.
struct Held {
    face: usize,
    template: NewTemplate,
}

/// The index beside the plain map that it must agree with.
struct Pair {
    plan: PlanSetting,
    index: Index,
    faces: Vec<Embedding>,
    held: HashMap<RecordId, Held>,
    order: Vec<RecordId>,
    pending: Vec<PendingPurge>,
}

impl Pair {
    fn new(plan: PlanSetting) -> Self {
        let mut random = Random::new(30);
        Self {
            plan,
            index: planned(WIDTH, plan),
            faces: (0..FACES).map(|_| random.embedding(WIDTH)).collect(),
            held: HashMap::new(),
            order: Vec::new(),
            pending: Vec::new(),
        }
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Insert { face, class, days } => self.insert(face, class, days),
            Step::Withdraw { nth } => self.withdraw(nth),
            Step::Purge => {
                if let Some(pending) = self.pending.pop() {
                    let _purged = self.index.purge(pending);
                }
            }
            Step::Abandon => drop(self.pending.pop()),
            Step::Search { face, classes, k, floor, days } => {
                self.search(face, classes, k, floor, days);
            }
            Step::Compare { face, classes } => self.compare(face, classes),
            Step::Reload { damaged } => self.reload(damaged),
        }
        assert_eq!(self.index.status().live, self.held.len());
        self.index.check();
    }

    fn insert(&mut self, face: usize, class: u32, days: u32) {
        let subject = u32::try_from(face).unwrap();
        let matches_until = now().plus_days(days);
        let template = NewTemplate { matches_until, ..template(subject, class) };
        self.index.insert(template.clone(), &self.faces[face]).unwrap();
        self.order.push(template.record);
        self.held.insert(template.record, Held { face, template });
    }

    fn withdraw(&mut self, nth: usize) {
        if !self.order.is_empty() {
            let record = self.order.swap_remove(nth % self.order.len());
            self.held.remove(&record);
            self.pending.extend(self.index.withdraw(record));
            assert!(!self.index.holds(record));
        }
    }

    /// A damaged row is dropped and named, and inserted anew from the model.
    fn reload(&mut self, damaged: usize) {
        self.pending.clear();
        let head = self.index.snapshot_head();
        let mut rows = self.index.export(0, usize::MAX).unwrap();
        assert_eq!(rows.len(), self.held.len());
        let lost = rows.get_mut(damaged).map(|row| {
            row.body.truncate(WIDTH - 1);
            row.record
        });
        let back = |row: ExportedRow| RestoredRow {
            slot: row.slot,
            template: self.held[&row.record].template.clone(),
            body: row.body,
        };
        let index = planned(WIDTH, self.plan);
        let restored = index.restore(&head, rows.into_iter().map(back)).unwrap();
        assert_eq!(restored.dropped, Vec::from_iter(lost));
        index.relink(&restored.links, 1).unwrap();
        for record in restored.dropped {
            let Held { face, template } = &self.held[&record];
            index.insert(template.clone(), &self.faces[*face]).unwrap();
        }
        self.index = index;
    }

    fn search(&self, face: usize, classes: u32, k: usize, floor: Floor, days: u32) {
        let (grant, at) = (granted(classes), now().plus_days(days));
        let (probe, floor) = (&self.faces[face], floor.cosine());
        let query = Query { probe, k, floor: Similarity::new(floor) };
        let found = self.index.search(&grant, &query, at).unwrap();
        assert!(is_forced(self.plan, &found));
        let mut exact = self.exact(probe, at, |held| permits(&grant, held));
        exact.retain(|cosine| *cosine >= floor);
        self.check(&grant, probe, at, &found, &exact[..k.min(exact.len())]);
        let held = self.held.values().filter(|held| permits(&grant, held));
        assert_eq!(found.searched, held.count());
    }

    fn compare(&self, face: usize, classes: u32) {
        let (grant, probe) = (granted(classes), &self.faces[face]);
        let subject = format!("subject-{face}").parse().unwrap();
        let found = self.index.compare(&grant, &subject, probe, now()).unwrap();
        let exact = self.exact(probe, now(), |held| permits(&grant, held) && held.face == face);
        self.check(&grant, probe, now(), &found, &exact);
    }

    /// Cosines in f32 of all that may be found, best first.
    fn exact(&self, probe: &Embedding, at: Timestamp, may: impl Fn(&Held) -> bool) -> Vec<f32> {
        let live = self.held.values().filter(|held| at < held.template.matches_until && may(held));
        let mut cosines: Vec<f32> =
            live.map(|held| probe.cosine(&self.faces[held.face]).get()).collect();
        cosines.sort_by(|a, b| b.total_cmp(a));
        cosines
    }

    fn check(&self, grant: &Grant, probe: &Embedding, at: Timestamp, found: &Found, best: &[f32]) {
        assert_eq!(found.candidates.len(), best.len());
        let mut seen = Vec::new();
        for (candidate, cosine) in found.candidates.iter().zip(best) {
            let hit = self.index.confirm(grant, candidate, at).unwrap();
            let held = &self.held[&hit.record()];
            assert!(permits(grant, held) && at < held.template.matches_until);
            assert_eq!(
                (hit.subject(), hit.tag()),
                (&held.template.subject, &held.template.consent)
            );
            let own = probe.cosine(&self.faces[held.face]).get();
            assert!((hit.similarity().get() - own).abs() < TOLERANCE);
            assert!((hit.similarity().get() - cosine).abs() < TOLERANCE, "not the best");
            assert!(!seen.contains(&hit.record()), "twice");
            seen.push(hit.record());
        }
    }
}

fn granted(bits: u32) -> Grant {
    grant((0..CLASSES).filter(|c| bits >> c & 1 == 1))
}

fn permits(grant: &Grant, held: &Held) -> bool {
    grant.classes().contains(&held.template.consent.class)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 500,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn the_index_agrees_with_a_plain_map(steps in prop::collection::vec(step(), 1..120)) {
        for plan in PLANS {
            let mut pair = Pair::new(plan);
            for step in &steps {
                pair.take(step);
            }
        }
    }
}

/// People of the concurrent test; half of them leave while it runs.
const PEOPLE: usize = 400;
/// Rounds of enrolment and withdrawal of passers-by.
const ROUNDS: u32 = 2_000;

/// A crowd that is searched while people come and go.
struct Crowd {
    plan: PlanSetting,
    index: Index,
    faces: Vec<Embedding>,
    records: Vec<RecordId>,
    gone: Vec<AtomicBool>,
    /// Searches that went the way of the plan: while a row is not linked yet, the scans serve.
    forced: AtomicUsize,
    over: AtomicBool,
}

impl Crowd {
    fn new(plan: PlanSetting) -> Self {
        let (index, mut random) = (planned(WIDTH, plan), Random::new(31));
        let faces: Vec<Embedding> = (0..PEOPLE).map(|_| random.embedding(WIDTH)).collect();
        let enrol = |(n, face)| {
            let new = template(n, n % 2);
            let record = new.record;
            index.insert(new, face).unwrap();
            record
        };
        let records = (0..).zip(&faces).map(enrol).collect();
        let gone = (0..PEOPLE).map(|_| AtomicBool::new(false)).collect();
        Self {
            plan,
            index,
            faces,
            records,
            gone,
            forced: AtomicUsize::new(0),
            over: AtomicBool::new(false),
        }
    }

    /// Enrols and withdraws passers-by in reused slots, and withdraws every second resident.
    fn change(&self) {
        let mut random = Random::new(32);
        for round in 0..ROUNDS {
            let new = template(1_000_000 + round, round % 2);
            let record = new.record;
            self.index.insert(new, &random.embedding(WIDTH)).unwrap();
            let resident = round as usize / 5;
            if round % 10 == 0 {
                let pending = self.index.withdraw(self.records[resident]).unwrap();
                self.gone[resident].store(true, Ordering::SeqCst);
                let _purged = self.index.purge(pending);
            }
            let _purged = self.index.purge(self.index.withdraw(record).unwrap());
        }
        self.over.store(true, Ordering::SeqCst);
    }

    fn visit(&self, seed: u64) {
        let mut random = Random::new(seed);
        while !self.over.load(Ordering::SeqCst) {
            let person = random.below(u32::try_from(PEOPLE).unwrap()) as usize;
            let gone_before = self.gone[person].load(Ordering::SeqCst);
            let hit = self.best(person);
            let gone_after = self.gone[person].load(Ordering::SeqCst);
            assert!(hit.is_none() || !gone_before, "a withdrawn person matched");
            let in_doubt = person.is_multiple_of(2) && !gone_before;
            assert!(hit.is_some() || gone_after || in_doubt, "a live person was missed");
        }
    }

    /// The person's confirmed match, checked for naming the right person and class.
    fn best(&self, person: usize) -> Option<Match> {
        let scope = u32::try_from(person % 2).unwrap();
        let grant = grant([scope]);
        let query = Query { probe: &self.faces[person], k: 1, floor: Similarity::new(0.9) };
        let found = self.index.search(&grant, &query, now()).unwrap();
        if is_forced(self.plan, &found) {
            self.forced.fetch_add(1, Ordering::Relaxed);
        }
        let best = found.candidates.first()?;
        let hit = self.index.confirm(&grant, best, now())?;
        assert_eq!(hit.subject().as_str(), format!("subject-{person}"));
        assert_eq!(hit.tag().class, class(scope));
        Some(hit)
    }
}

#[test]
fn searches_beside_inserts_and_removals_never_name_a_wrong_or_withdrawn_person() {
    for plan in PLANS {
        let crowd = Crowd::new(plan);
        std::thread::scope(|threads| {
            threads.spawn(|| crowd.change());
            threads.spawn(|| crowd.visit(33));
            threads.spawn(|| crowd.visit(34));
        });
        assert_eq!(crowd.index.status().live, PEOPLE / 2);
        crowd.index.check();
        assert!(crowd.forced.into_inner() > 100, "{plan:?}");
    }
}
