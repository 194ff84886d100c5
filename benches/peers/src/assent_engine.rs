//! Assent's index, through the door that the service uses: a grant from an applied policy.
//!
//! All that the bench knows of the index's interface is in this file.

use std::sync::atomic::{AtomicU32, Ordering};

use assent::consent::{ConsentTag, Grant, Policy, PolicyDocument, Profile};
use assent::index::{Care, Index, IndexOptions, NewTemplate, PlanSetting, Query, RotationKey};
use assent::types::{Embedding, RecordId, Similarity, Timestamp};

use crate::engine::{Engine, insert_all};
use crate::gallery::Gallery;
use crate::{Options, Outcome};

const POLICY: &str = include_str!("../../../docs/example-policy.toml");
const GATE: &str = "north-gate-1";
/// Probes in flight, each from a caller of its own: the index may answer them together.
const CALLERS: usize = 16;

pub(crate) struct Assent {
    is_graph: bool,
    index: Index,
    grant: Grant,
    now: Timestamp,
    /// The template in each slot.
    templates: Vec<AtomicU32>,
}

pub(crate) fn build(plan: PlanSetting, gallery: &Gallery, options: &Options) -> Outcome<Assent> {
    let (policy, _) =
        Policy::under(Profile::named("cn")?).apply(&PolicyDocument::parse(POLICY)?)?;
    let grant = policy.open_gate(&GATE.parse()?)?.grant().clone();
    let class = grant.classes().first().ok_or("the gate grants nothing")?.clone();
    let now = Timestamp::now();
    let options_of_index = IndexOptions {
        plan,
        graph: plan == PlanSetting::Graph,
        canary_every: 0,
        graph_links: options.m,
        graph_effort: options.ef_construction,
        ..IndexOptions::default()
    };
    let key = RotationKey::new(&[7; 32]);
    let index = Index::new(options_of_index.settings(gallery.width(), key))?;
    // Slots are handed out in groups and stretches, a little further than there are templates.
    let slots = gallery.len() + gallery.len() / 8 + (1 << 14);
    let templates: Vec<_> = (0..slots).map(|_| AtomicU32::new(u32::MAX)).collect();
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
        let slot = index.load(template, &Embedding::normalise(gallery.template(i).to_vec())?)?;
        let at = templates.get(slot.index as usize).ok_or("a slot beyond the gallery")?;
        at.store(u32::try_from(i)?, Ordering::Relaxed);
        Ok(())
    })?;
    // Links what was loaded; when all is linked the index would go on to choose an `ef`, which the
    // bench does itself.
    while let Care::Linked { linked, of } = index.care(options.threads)?
        && linked < of
    {}
    Ok(Assent { is_graph: plan == PlanSetting::Graph, index, grant, now, templates })
}

impl Engine for Assent {
    fn nearest(&self, probe: &[f32], ef: usize, floor: f32) -> Outcome<Option<usize>> {
        let probe = Embedding::normalise(probe.to_vec())?;
        let query = Query { probe: &probe, k: 1, floor: Similarity::new(floor) };
        let found = if self.is_graph {
            self.index.search_graph(&self.grant, &query, ef, self.now)?
        } else {
            self.index.search(&self.grant, &query, self.now)?
        };
        let best = found.candidates.first();
        let template = best.map(|best| &self.templates[best.slot().index as usize]);
        Ok(template.map(|template| template.load(Ordering::Relaxed) as usize))
    }

    fn is_graph(&self) -> bool {
        self.is_graph
    }

    fn heeds_floor(&self) -> bool {
        true
    }

    fn callers(&self, _threads: usize) -> usize {
        CALLERS
    }
}
