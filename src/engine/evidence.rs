//! Evidence for courts, regulators and the person: what was done, provably, and nothing of a face.
//!
//! Evidence is an export of the audit trail (`audit/export.rs`) in which the entries that concern
//! the question are whole and all others are digests, so that it verifies like any export and tells
//! nothing of other people; and a signed statement that names the trail's digest.
//!
//! # Invariants
//! - The trail begins with the first entry that concerns the question and ends with what was
//!   durable when it was asked for.
//! - A record belongs to a subject because an entry of its enrolment says so, or because it is held
//!   for it now.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use futures_util::{Stream, stream};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use super::Engine;
use super::receipt::{Receipt, consent_statement};
use crate::audit::{ExportWriter, Leaf, ReceiptKind};
use crate::consent::{ConsentRecord, GatePass, Policy};
use crate::crypto::{Hasher, sha256};
use crate::store::StoreError;
use crate::types::{
    ControllerId, NoticeId, NoticeVersion, RecordId, Revision, SubjectRef, Timestamp,
};

/// Events that say what rules and keys were in force: whole in every trail.
const COMMON_EVENTS: [&str; 5] =
    ["checkpoint", "policy_applied", "pruned", "restored", "store_created"];

/// What evidence is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EvidenceAbout {
    /// All that was done about a subject.
    Subject {
        /// Whose subject.
        controller: ControllerId,
        /// Who.
        subject: SubjectRef,
    },
    /// All that was done in a stretch of time.
    Period {
        /// From this instant on.
        from: Timestamp,
        /// Up to this instant, which is not part of it.
        until: Timestamp,
    },
}

/// A piece of the evidence, in order: the trail, policies, then one statement.
#[derive(Debug)]
pub enum EvidencePiece {
    /// Whole lines of the trail.
    Trail(Vec<u8>),
    /// A policy under which something was done.
    Policy {
        /// The revision that put it in force.
        revision: Revision,
        /// TOML.
        document: Vec<u8>,
    },
    /// The signed statement.
    Statement(Receipt),
}

/// As much of an entry as decides whether it concerns the question.
#[derive(Deserialize)]
struct Entry<'a> {
    #[serde(borrow)]
    event: Cow<'a, str>,
    at: Option<Timestamp>,
    subject: Option<SubjectRef>,
    controller: Option<ControllerId>,
    consent: Option<ConsentRecord>,
    record: Option<RecordId>,
    #[serde(default)]
    records: Records,
    #[serde(borrow)]
    decision: Option<Cow<'a, str>>,
    /// The newest revision then; of the policy, where the entry says it.
    revision: Option<Revision>,
    policy: Option<Revision>,
}

/// Some entries name records, some count them.
#[derive(Deserialize)]
#[serde(untagged)]
enum Records {
    Named(Vec<RecordId>),
    Counted(IgnoredAny),
}

impl Default for Records {
    fn default() -> Self {
        Self::Counted(IgnoredAny)
    }
}

impl Records {
    fn named(&self) -> &[RecordId] {
        if let Self::Named(records) = self { records } else { &[] }
    }
}

/// What was seen on the way.
struct Seen {
    about: EvidenceAbout,
    records: HashSet<RecordId>,
    consents: BTreeMap<RecordId, ConsentRecord>,
    events: BTreeMap<String, u64>,
    /// Policies under which something was done, until they are handed out: revision, document.
    policies: BTreeMap<Revision, Vec<u8>>,
    /// The newest policy of which the trail tells so far.
    applied: Revision,
    /// Whether that one is among them.
    is_noted: bool,
}

impl Seen {
    /// Whether the entry concerns the question.
    fn concerns(&mut self, entry: &Entry<'_>) -> bool {
        match &self.about {
            EvidenceAbout::Period { from, until } => {
                entry.at.is_some_and(|at| (*from <= at) && (at < *until))
            }
            EvidenceAbout::Subject { controller, subject } => {
                let of = entry.consent.as_ref().map(|consent| &consent.controller);
                let own = entry.subject.as_ref() == Some(subject)
                    && of.or(entry.controller.as_ref()) == Some(controller);
                if let (true, Some(record), Some(consent)) = (own, entry.record, &entry.consent) {
                    self.records.insert(record);
                    self.consents.insert(record, consent.clone());
                }
                let mut named = entry.record.iter().chain(entry.records.named());
                own || named.any(|record| self.records.contains(record))
            }
        }
    }

    fn count(&mut self, entry: &Entry<'_>) {
        let answer = entry.decision.as_ref().map(|decision| format!(" {decision}"));
        let event = format!("{}{}", entry.event, answer.unwrap_or_default());
        *self.events.entry(event).or_default() += 1;
    }
}

/// Where the collection is.
enum Collection {
    Seek {
        seen: Seen,
        at: u64,
        until: u64,
    },
    Going {
        seen: Seen,
        trail: Trail,
        until: u64,
    },
    /// With what the statement says of the policies that were handed out.
    Policies {
        seen: Seen,
        trail: Value,
        said: Vec<Value>,
    },
    Done,
}

/// The trail as far as it was written.
struct Trail {
    writer: ExportWriter<Vec<u8>>,
    digest: Hasher,
    first: u64,
    whole: u64,
}

impl Trail {
    fn piece(&mut self) -> EvidencePiece {
        let piece = std::mem::take(self.writer.get_mut());
        self.digest.update(&piece);
        EvidencePiece::Trail(piece)
    }
}

impl Engine {
    /// The evidence: pieces of the trail, then the statement.
    pub fn collect_evidence(
        self: &Arc<Self>,
        about: EvidenceAbout,
    ) -> impl Stream<Item = Result<EvidencePiece, StoreError>> + Send + use<> {
        let engine = Arc::clone(self);
        let records = match &about {
            EvidenceAbout::Subject { controller, subject } => {
                self.index.records_of_subject(controller, subject).into_iter().collect()
            }
            EvidenceAbout::Period { .. } => HashSet::new(),
        };
        let seen = Seen {
            about,
            records,
            consents: BTreeMap::new(),
            events: BTreeMap::new(),
            policies: BTreeMap::new(),
            applied: Revision::default(),
            is_noted: false,
        };
        let begin = Collection::Seek { seen, at: 0, until: self.store.audit_head().seq };
        stream::try_unfold(begin, move |collection| {
            let engine = Arc::clone(&engine);
            async move { engine.evidence_piece(collection).await }
        })
    }

    async fn evidence_piece(
        &self,
        collection: Collection,
    ) -> Result<Option<(EvidencePiece, Collection)>, StoreError> {
        match collection {
            Collection::Seek { seen, at, until } => self.seek(seen, at, until).await.map(Some),
            Collection::Going { seen, trail, until } => {
                self.follow(seen, trail, until).await.map(Some)
            }
            Collection::Policies { mut seen, trail, mut said } => {
                if let Some((revision, document)) = seen.policies.pop_first() {
                    let sha256 = hex::encode(sha256(&document));
                    said.push(json!({ "revision": revision, "sha256": sha256 }));
                    let piece = EvidencePiece::Policy { revision, document };
                    return Ok(Some((piece, Collection::Policies { seen, trail, said })));
                }
                let statement = self.evidence_statement(seen, &trail, &said).await?;
                Ok(Some((EvidencePiece::Statement(statement), Collection::Done)))
            }
            Collection::Done => Ok(None),
        }
    }

    /// Passes over what stands before the first entry that concerns the question.
    async fn seek(
        &self,
        mut seen: Seen,
        mut at: u64,
        until: u64,
    ) -> Result<(EvidencePiece, Collection), StoreError> {
        'blocks: while at < until {
            let Some((before, entries)) = self.store.audit(at).await? else { break };
            at = before.seq;
            for bytes in entries {
                // Counted when it is written.
                if seen.concerns(&parsed(&bytes)?) {
                    break 'blocks;
                }
                at += 1;
            }
        }
        let start = self.store.audit_at(at).await?;
        let writer = ExportWriter::begin(Vec::new(), self.store.signer(), start, Timestamp::now())?;
        let first = start.seq + 1;
        let mut trail = Trail { writer, digest: Hasher::default(), first, whole: 0 };
        Ok((trail.piece(), Collection::Going { seen, trail, until }))
    }

    /// Writes one block of the trail, or its end.
    async fn follow(
        &self,
        mut seen: Seen,
        mut trail: Trail,
        until: u64,
    ) -> Result<(EvidencePiece, Collection), StoreError> {
        let head = trail.writer.head();
        if head.seq >= until {
            let (first, last, whole) = (trail.first, head.seq, trail.whole);
            let piece = trail.writer.end(self.store.signer(), Timestamp::now())?;
            trail.digest.update(&piece);
            let sha256 = hex::encode(trail.digest.finish());
            let trail = json!({
                "sha256": sha256, "first_entry": first, "last_entry": last, "whole_entries": whole,
            });
            let said = Vec::new();
            return Ok((EvidencePiece::Trail(piece), Collection::Policies { seen, trail, said }));
        }
        for bytes in self.store.audit_behind(head).await? {
            let entry = parsed(&bytes)?;
            let concerns = seen.concerns(&entry);
            if entry.event == "policy_applied" {
                seen.applied = entry.revision.unwrap_or(seen.applied);
                seen.is_noted = false;
            }
            if concerns {
                seen.count(&entry);
                self.note_policy(&mut seen, &entry).await?;
            }
            if concerns || COMMON_EVENTS.contains(&entry.event.as_ref()) {
                trail.whole += 1;
                trail.writer.entry(&bytes)?;
            } else {
                trail.writer.leaf(Leaf::of(&bytes))?;
            }
        }
        let piece = trail.piece();
        Ok((piece, Collection::Going { seen, trail, until }))
    }

    /// Notes the policy under which something was done, unless it is noted. An entry may stand
    /// behind a policy that was applied while it was being decided.
    async fn note_policy(&self, seen: &mut Seen, entry: &Entry<'_>) -> Result<(), StoreError> {
        let is_noted =
            entry.policy.map_or(seen.is_noted, |policy| seen.policies.contains_key(&policy));
        let revision = entry.policy.or(entry.revision).filter(|_| !is_noted);
        let Some(revision) = revision else { return Ok(()) };
        if let Some((document, since)) = self.store.policy_at(revision).await? {
            seen.is_noted = since >= seen.applied;
            seen.policies.entry(since).or_insert(document);
        }
        Ok(())
    }

    async fn evidence_statement(
        &self,
        seen: Seen,
        trail: &Value,
        policies: &[Value],
    ) -> Result<Receipt, StoreError> {
        let Seen { about, mut consents, events, records, .. } = seen;
        let standing = self.policy();
        let is_about_a_subject = matches!(about, EvidenceAbout::Subject { .. });
        let ever = is_about_a_subject.then_some(records.len());
        let (now, status) = (self.now(), self.status());
        let (mut held, mut failed_attempts) = (Vec::new(), None);
        if let EvidenceAbout::Subject { controller, subject } = &about {
            failed_attempts = Some(self.failed_attempts(controller, subject));
            for id in self.index.records_of_subject(controller, subject) {
                let Some(record) = self.store.describe(id).await? else { continue };
                held.push(json!({
                    "record_id": id,
                    "live": record.consent.matches_until() > now,
                    "frames": record.frames,
                    "last_used_month": self.last_used_month(id),
                    "consent_receipt": consent_statement(&record, &standing),
                }));
                consents.insert(id, record.consent);
            }
        }
        let (about, controllers): (_, BTreeSet<ControllerId>) = match about {
            EvidenceAbout::Subject { controller, subject } => (
                json!({ "controller_id": controller, "subject_ref": subject }),
                BTreeSet::from([controller]),
            ),
            EvidenceAbout::Period { from, until } => (
                json!({ "from": from, "until": until }),
                standing.controllers().map(|controller| controller.id.clone()).collect(),
            ),
        };
        let consent = |(record, consent): (&RecordId, &ConsentRecord)| json!({ "record_id": record, "consent": consent });
        let statement = json!({
            "type": ReceiptKind::Evidence.name(),
            "about": about,
            "collected_at": now,
            "revision": self.revision(),
            "program": concat!("assent ", env!("CARGO_PKG_VERSION")),
            "profile": status.profile,
            "deployment": status.deployment,
            "model_contract": status.pack.contract,
            "controllers": controllers.iter().map(|id| standing.controller(id)).collect::<Vec<_>>(),
            "held": held,
            "records_ever": ever,
            "failed_attempts": failed_attempts,
            "consents": consents.iter().map(consent).collect::<Vec<_>>(),
            "notices": notices(&standing, consents.values()),
            "assessments": standing
                .assessments()
                .filter(|assessment| controllers.contains(&assessment.controller))
                .collect::<Vec<_>>(),
            "gates": standing
                .gates()
                .map(GatePass::gate)
                .filter(|gate| controllers.contains(&gate.controller))
                .collect::<Vec<_>>(),
            "policies": policies,
            "templates_held_in_all": status.index.live,
            "subjects_held_in_all": status.index.subjects,
            "events": events,
            "trail": trail,
            "biometrics": "none: neither this statement nor the trail holds a face, a template or a similarity",
        });
        Ok(Receipt::sign(self.store.signer(), &statement))
    }
}

fn parsed(bytes: &[u8]) -> Result<Entry<'_>, StoreError> {
    serde_json::from_slice(bytes)
        .map_err(|_unreadable| StoreError::Malformed { what: "audit trail" })
}

/// Each notice that a consent names, once, whole.
fn notices<'a>(policy: &Policy, consents: impl Iterator<Item = &'a ConsentRecord>) -> Vec<Value> {
    let named: BTreeSet<(&ControllerId, &NoticeId, &NoticeVersion)> =
        consents.map(|c| (&c.controller, &c.notice_id, &c.notice_version)).collect();
    let found = named.into_iter().filter_map(|(controller, id, version)| {
        let notice = policy.notice(controller, id, version)?;
        Some(json!({ "sha256": notice.sha256(), "notice": notice }))
    });
    found.collect()
}
