//! Assent's index, through the door that the service uses: a grant from an applied policy.
//!
//! All that the bench knows of the index's interface is in this file.

use std::sync::atomic::{AtomicU32, Ordering};

use assent::consent::{ConsentTag, Grant, Policy, PolicyDocument, Profile};
use assent::index::{Index, IndexSettings, LockMode, NewTemplate};
use assent::types::{Embedding, RecordId, Timestamp};

use crate::engine::{Engine, insert_all};
use crate::gallery::Gallery;
use crate::{Options, Outcome};

const POLICY: &str = include_str!("../../../docs/example-policy.toml");
const GATE: &str = "north-gate-1";
/// Probes in flight, each from a caller of its own: the index may answer them together.
const CALLERS: usize = 16;

/// Which of its ways to search the index is held to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Plan {
    Exact,
}

pub(crate) struct Assent {
    plan: Plan,
    index: Index,
    grant: Grant,
    now: Timestamp,
    /// The template in each slot.
    templates: Vec<AtomicU32>,
}

pub(crate) fn build(plan: Plan, gallery: &Gallery, options: &Options) -> Outcome<Assent> {
    let (policy, _) =
        Policy::under(Profile::named("cn")?).apply(&PolicyDocument::parse(POLICY)?)?;
    let grant = policy.open_gate(&GATE.parse()?)?.grant().clone();
    let class = grant.classes().first().ok_or("the gate grants nothing")?.clone();
    let now = Timestamp::now();
    let settings =
        IndexSettings { width: gallery.width(), lock: LockMode::BestEffort, kernel: None };
    let index = Index::new(&settings)?;
    let templates: Vec<_> = (0..gallery.len()).map(|_| AtomicU32::new(u32::MAX)).collect();
    insert_all(gallery.len(), options.threads, |i| {
        let record = RecordId::random();
        let consent = ConsentTag {
            consent_id: record.to_string().parse()?,
            class: class.clone(),
            notice_version: "2026-01".parse()?,
            granted_at: now,
            expires_at: now.plus_days(1),
        };
        let subject = format!("person-{}", gallery.person_of(i)).parse()?;
        let template = NewTemplate { record, subject, matches_until: consent.expires_at, consent };
        let slot = index.insert(template, &Embedding::normalise(gallery.template(i).to_vec())?)?;
        let at = templates.get(slot.index as usize).ok_or("a slot beyond the gallery")?;
        at.store(u32::try_from(i)?, Ordering::Relaxed);
        Ok(())
    })?;
    Ok(Assent { plan, index, grant, now, templates })
}

impl Engine for Assent {
    fn nearest(&self, probe: &[f32], _ef: usize, floor: f32) -> Outcome<Option<usize>> {
        let probe = Embedding::normalise(probe.to_vec())?;
        let Plan::Exact = self.plan;
        let found = self.index.search(&self.grant, &probe, 1, self.now)?;
        let best = found.candidates.first().filter(|best| best.similarity().get() >= floor);
        let template = best.map(|best| &self.templates[best.slot().index as usize]);
        Ok(template.map(|template| template.load(Ordering::Relaxed) as usize))
    }

    fn is_graph(&self) -> bool {
        false
    }

    fn heeds_floor(&self) -> bool {
        true
    }

    fn callers(&self, _threads: usize) -> usize {
        CALLERS
    }
}
