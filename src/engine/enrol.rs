//! Enrol: one subject, one consent, one template.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::arrivals::Arriving;
use super::receipt::{Receipt, consent_receipt};
use super::revoke::Owner;
use super::verify::record_stages;
use super::{Engine, Probe, ProbeFault, VerifyError};
use crate::consent::{
    Admitted, ConsentDraft, ConsentRecord, ConsentRefusal, DuplicatePolicy, ErrorRate,
    ParsedConsent, Sha256,
};
use crate::failpoint;
use crate::index::{IndexError, NewTemplate};
use crate::pipeline::{
    Company, DecodeError, Embedded, FaceDemands, Feed, PipelineError, Ticket, Urgency,
};
use crate::store::{IdempotentWrite, PriorAnswer, RevocationCause, StoreError, StoredRecord};
use crate::telemetry::{self, Stage};
use crate::types::{
    Embedding, IdempotencyKey, Quality, QualityReason, RecordId, Revision, SubjectRef, Timestamp,
};

/// FMR at which two frames of one enrolment must agree to be the same face.
const SAME_FACE_FMR: f64 = 1e-4;
/// Candidates looked at in the duplicate search.
const MOST_DUPLICATES: usize = 4;
/// Smallest distance between the eyes of an enrolment photo, pixels. Larger than a gate's: a
/// template is made once and serves for a year.
const ENROLMENT_EYE_DISTANCE_PX: f32 = 24.0;

/// One enrolment as asked for.
pub struct EnrolCommand {
    /// Same key, same answer.
    pub idempotency_key: IdempotencyKey,
    /// As on the wire, checked by admission.
    pub subject: String,
    /// As on the wire, checked by admission.
    pub controller: String,
    /// As on the wire, checked by admission.
    pub consent: ConsentDraft,
    /// 1 to 8 frames of one face.
    pub frames: Vec<Probe>,
    /// When the caller stops waiting.
    pub deadline: Option<Instant>,
    /// One of many: gates and single enrolments go first.
    pub bulk: bool,
}

/// What was enrolled.
#[derive(Debug, Clone)]
pub struct Enrolled {
    /// The template's record.
    pub record: RecordId,
    /// When the consent ends.
    pub expires_at: Timestamp,
    /// The revision that holds it.
    pub revision: Revision,
    /// For the person.
    pub receipt: Receipt,
    /// One a frame.
    pub quality: Vec<Quality>,
    /// Others who look the same, where policy flags them.
    pub duplicates: Vec<Duplicate>,
}

/// Another subject with the same face in the same scope.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Duplicate {
    /// The other subject.
    pub subject: SubjectRef,
    /// Its record.
    pub record: RecordId,
}

/// The part of [`Enrolled`] that is kept, sealed, for repeats of the call.
#[derive(Serialize, Deserialize)]
struct Answer {
    record: RecordId,
    expires_at: Timestamp,
    receipt: Receipt,
    quality: Vec<Quality>,
    duplicates: Vec<Duplicate>,
}

/// Why nobody was enrolled. Nothing was stored.
#[derive(Debug, Error)]
pub enum EnrolError {
    /// The consent does not allow it.
    #[error(transparent)]
    Consent(#[from] ConsentRefusal),
    /// Too few or too many frames.
    #[error("an enrolment takes 1 to {limit} frames, not {found}")]
    Frames {
        /// Frames sent.
        found: usize,
        /// Most frames.
        limit: usize,
    },
    /// A frame cannot be decoded.
    #[error("{fault}")]
    Decode {
        /// Which frame, from 0.
        frame: usize,
        /// Why.
        #[source]
        fault: DecodeError,
    },
    /// An embedding is not usable.
    #[error("{fault}")]
    Probe {
        /// Which frame, from 0.
        frame: usize,
        /// Why.
        #[source]
        fault: ProbeFault,
    },
    /// At least one frame is not good enough for a template.
    #[error("a frame is not good enough for a template")]
    LowQuality {
        /// One a frame.
        quality: Vec<Quality>,
    },
    /// Somebody in the same scope looks the same.
    #[error("this face is already enrolled in this scope under another subject")]
    Duplicate,
    /// The key was used for another enrolment.
    #[error("this idempotency key was used for a different enrolment")]
    KeyReused,
    /// The key's enrolment was revoked since.
    #[error("the record enrolled under this idempotency key has been revoked")]
    Revoked,
    /// The consent record has been used before.
    #[error("this consent id has been used before; every enrolment needs a consent of its own")]
    ConsentUsed,
    /// The caller's deadline passed.
    #[error("the deadline passed before the template was made")]
    Late,
    /// No room.
    #[error("the service is at capacity")]
    Overloaded {
        /// When there may be room.
        retry_after: Duration,
    },
    /// Stopping.
    #[error("the service is not serving")]
    Stopped,
    /// The disk is full.
    #[error(
        "the service's disk is full; free space on it: enrolment goes on by itself then, and \
         revocations are taken all the while"
    )]
    LowOnSpace,
    /// The store.
    #[error("the enrolment could not be stored")]
    Store(#[source] StoreError),
    /// The index.
    #[error("the enrolment could not be indexed")]
    Index(#[source] IndexError),
    /// A fault of ours.
    #[error("internal fault")]
    Internal,
}

impl Engine {
    /// Enrols one subject under one consent. When it returns, the template is durable and
    /// searchable.
    ///
    /// # Errors
    /// See [`EnrolError`]; nothing is stored then.
    pub async fn enrol(self: &Arc<Self>, command: EnrolCommand) -> Result<Enrolled, EnrolError> {
        let EnrolCommand { idempotency_key, subject, controller, consent, frames, deadline, bulk } =
            command;
        let urgency = if bulk { Urgency::Bulk } else { Urgency::Enrolment };
        let feed = Feed { id: self.feed_id(&controller), ..Feed::default() };
        let ticket = Ticket { deadline, urgency, feed };
        let parsed = consent.parse(&controller, &subject)?;
        let digest = request_digest(&parsed, frames.len());
        let request = KeyedRequest { key: idempotency_key, digest };
        // Before the policy is asked: same key, same answer, whatever the rules are by now.
        if let Some(prior) = self.prior(parsed.consent(), &request).await? {
            return Ok(prior);
        }
        self.store.check_space().map_err(unstored)?;
        let admitted = self.policy().admit_parsed(parsed, self.now())?;
        let (parts, quality) = self.embed_all(frames, ticket).await?;
        let template = self.fuse(&parts, &quality)?;
        let record = self.new_record(&admitted, parts.len());
        let arriving = self.arriving.announce(record.id, Owner::of(&record));
        let fresh = Fresh { admitted, record, template, quality, arriving };
        let work = Arc::clone(self).commit(fresh, request);
        // On a task of its own: a caller that goes away does not stop a commit half way.
        match tokio::spawn(self.tasks.track_future(work)).await {
            Ok(outcome) => outcome,
            Err(_panicked) => Err(EnrolError::Internal),
        }
    }

    /// The answer that the key led to before, once its record is in its place.
    async fn prior(
        &self,
        consent: &ConsentRecord,
        request: &KeyedRequest,
    ) -> Result<Option<Enrolled>, EnrolError> {
        let controller = &consent.controller;
        self.arriving.settled_consent(controller, &consent.consent_id).await;
        let prior = self.store.idempotent(controller, &request.key).await;
        match prior.map_err(EnrolError::Store)? {
            None => Ok(None),
            Some(PriorAnswer::Erased) => Err(EnrolError::Revoked),
            Some(PriorAnswer::Answered { request_digest, .. })
                if request_digest != request.digest =>
            {
                Err(EnrolError::KeyReused)
            }
            Some(PriorAnswer::Answered { answer, revision, .. }) => {
                replay(&answer, revision).map(Some)
            }
        }
    }

    /// Embeds all frames; their order is kept.
    async fn embed_all(
        &self,
        frames: Vec<Probe>,
        ticket: Ticket,
    ) -> Result<(Vec<Embedding>, Vec<Quality>), EnrolError> {
        let (found, limit) = (frames.len(), self.limits.frames_per_enrolment);
        if found == 0 || found > limit {
            return Err(EnrolError::Frames { found, limit });
        }
        let looks = frames.into_iter().enumerate().map(|(i, f)| self.embed_one(i, f, ticket));
        let mut parts = Vec::with_capacity(found);
        let mut quality = Vec::with_capacity(found);
        for look in join_all(looks).await {
            let (embedding, measured) = look?;
            parts.extend(embedding);
            quality.push(measured);
        }
        if quality.iter().any(|q| !q.reasons.is_empty()) {
            return Err(EnrolError::LowQuality { quality });
        }
        Ok((parts, quality))
    }

    /// No embedding means that the quality holds a reason.
    async fn embed_one(
        &self,
        frame: usize,
        probe: Probe,
        ticket: Ticket,
    ) -> Result<(Option<Embedding>, Quality), EnrolError> {
        let picture = match probe {
            Probe::Embedding { values, contract } => {
                let embedding = self
                    .embedding_of(values, &contract)
                    .map_err(|fault| EnrolError::Probe { frame, fault })?;
                return Ok((Some(embedding), Quality::default()));
            }
            Probe::Frame(picture) => picture,
        };
        let demands = FaceDemands {
            min_eye_distance_px: ENROLMENT_EYE_DISTANCE_PX,
            company: Company::Aside,
            live: false,
        };
        match self.pipeline.embed(picture, demands, ticket).await {
            Ok(Embedded { embedding, quality, timings, .. }) => {
                record_stages(&timings);
                Ok((Some(embedding), quality))
            }
            Err(PipelineError::NoFace) => Ok((None, without_face())),
            Err(PipelineError::SeveralFaces(quality) | PipelineError::LowQuality(quality)) => {
                Ok((None, quality))
            }
            Err(PipelineError::Decode(fault)) => Err(EnrolError::Decode { frame, fault }),
            Err(PipelineError::Late) => Err(EnrolError::Late),
            Err(PipelineError::Overloaded { retry_after }) => {
                Err(EnrolError::Overloaded { retry_after })
            }
            Err(PipelineError::Stopped) => Err(EnrolError::Stopped),
            // Frames of an enrolment never replace each other, and liveness is not asked of them.
            Err(
                PipelineError::Superseded | PipelineError::NotLive { .. } | PipelineError::Internal,
            ) => Err(EnrolError::Internal),
        }
    }

    /// One template from frames that show one face.
    fn fuse(&self, parts: &[Embedding], quality: &[Quality]) -> Result<Embedding, EnrolError> {
        let same = ErrorRate::new(SAME_FACE_FMR)
            .ok()
            .and_then(|fmr| self.calibration.threshold_for_fmr(fmr).ok())
            .ok_or(EnrolError::Internal)?
            .similarity;
        let (first, rest) = parts.split_first().ok_or(EnrolError::Internal)?;
        if rest.iter().all(|part| first.cosine(part) >= same) {
            return Embedding::fuse(parts).map_err(|_cancelled_out| EnrolError::Internal);
        }
        let mut quality = quality.to_vec();
        for (q, part) in quality.iter_mut().zip(parts).skip(1) {
            if first.cosine(part) < same {
                q.reasons.push(QualityReason::Inconsistent);
            }
        }
        Err(EnrolError::LowQuality { quality })
    }

    async fn commit(
        self: Arc<Self>,
        fresh: Fresh,
        request: KeyedRequest,
    ) -> Result<Enrolled, EnrolError> {
        let Fresh { admitted, record, template, quality, arriving } = fresh;
        let alone = match admitted.duplicates() {
            DuplicatePolicy::Refuse => Some(self.duplicate_check.lock().await),
            DuplicatePolicy::Flag => None,
        };
        let duplicates = self.duplicates(&admitted, &template).await?;
        if alone.is_some() && !duplicates.is_empty() {
            return Err(EnrolError::Duplicate);
        }
        let answer = Answer {
            record: record.id,
            expires_at: record.consent.expires_at,
            receipt: consent_receipt(self.store.signer(), &record, &self.policy()),
            quality,
            duplicates,
        };
        let revision = match self.store_record(&record, &template, &request, &answer).await {
            Ok(revision) => revision,
            // Somebody else won with the same key while this request was embedding. Its answer is
            // waited for without holding what a third one with this key may be waiting for.
            Err(EnrolError::KeyReused) => {
                drop((arriving, alone));
                let prior = self.prior(&record.consent, &request).await?;
                return prior.ok_or(EnrolError::KeyReused);
            }
            Err(other) => return Err(other),
        };
        failpoint::reach("enrol.committed");
        if let Err(fault) = self.index.insert(new_template(&record), &template) {
            self.unstore(&record).await;
            return Err(EnrolError::Index(fault));
        }
        drop(arriving);
        self.advance(revision);
        Ok(answer.at(revision))
    }

    /// Live templates of other subjects in the consent's class that look like `template`.
    async fn duplicates(
        &self,
        admitted: &Admitted,
        template: &Embedding,
    ) -> Result<Vec<Duplicate>, EnrolError> {
        let grant = admitted.enrolment_grant();
        let now = self.now();
        let threshold = self.threshold_among(&grant, admitted.duplicate_fpir());
        let candidates = 2 * MOST_DUPLICATES; // the subject's own templates may be among them
        let search = self.search(&grant, template.clone(), candidates, threshold, now);
        let found = match search.await {
            Ok(found) => found,
            Err(VerifyError::Index(fault)) => return Err(EnrolError::Index(fault)),
            Err(_other) => return Err(EnrolError::Internal),
        };
        Ok(found
            .candidates
            .iter()
            .filter_map(|candidate| self.index.confirm(&grant, candidate, now))
            .filter(|held| held.subject() != admitted.subject())
            .take(MOST_DUPLICATES)
            .map(|held| Duplicate { subject: held.subject().clone(), record: held.record() })
            .collect())
    }

    fn new_record(&self, admitted: &Admitted, frames: usize) -> StoredRecord {
        StoredRecord {
            id: RecordId::random(),
            subject: admitted.subject().clone(),
            consent: admitted.consent().clone(),
            model: self.pipeline.contract().clone(),
            generation: 0,
            frames: u32::try_from(frames).unwrap_or(u32::MAX),
            enrolled_at: self.now(),
        }
    }

    async fn store_record(
        &self,
        record: &StoredRecord,
        template: &Embedding,
        request: &KeyedRequest,
        answer: &Answer,
    ) -> Result<Revision, EnrolError> {
        let begun = Instant::now();
        let write = IdempotentWrite {
            controller: record.consent.controller.clone(),
            key: request.key.clone(),
            request_digest: request.digest,
            answer: serde_json::to_vec(answer).map_err(|_never| EnrolError::Internal)?,
        };
        let outcome = self.store.enrol(record, template, write).await;
        telemetry::stage(Stage::Commit, begun.elapsed());
        outcome.map_err(unstored)
    }

    /// Takes back a record that the index could not hold, so that a restart does not bring it up.
    /// What cannot be taken back now is in limbo, where the next revocation finds it.
    async fn unstore(&self, record: &StoredRecord) {
        let (id, cause) = (record.id, RevocationCause::Withdrawn);
        self.limbo().enter(id, Owner::of(record), cause);
        match self.store.revoke(&[id], self.now(), cause).await {
            Ok(_gone) => self.limbo().leave(id),
            Err(fault) => {
                tracing::error!(record = %id, %fault, "a record without a place stays stored");
            }
        }
    }
}

/// A template on its way into store and index.
struct Fresh {
    admitted: Admitted,
    record: StoredRecord,
    template: Embedding,
    quality: Vec<Quality>,
    arriving: Arriving,
}

/// An idempotency key and the digest of what it was used for.
struct KeyedRequest {
    key: IdempotencyKey,
    digest: [u8; 32],
}

impl Answer {
    fn at(self, revision: Revision) -> Enrolled {
        let Self { record, expires_at, receipt, quality, duplicates } = self;
        Enrolled { record, expires_at, revision, receipt, quality, duplicates }
    }
}

fn unstored(fault: StoreError) -> EnrolError {
    if matches!(fault, StoreError::IdempotencyTaken) {
        EnrolError::KeyReused
    } else if matches!(fault, StoreError::ConsentTaken) {
        EnrolError::ConsentUsed
    } else if matches!(fault, StoreError::LowOnSpace) {
        EnrolError::LowOnSpace
    } else {
        EnrolError::Store(fault)
    }
}

fn replay(answer: &[u8], revision: Revision) -> Result<Enrolled, EnrolError> {
    let answer: Answer =
        serde_json::from_slice(answer).map_err(|_not_ours| EnrolError::Internal)?;
    Ok(answer.at(revision))
}

/// What an idempotency key stands for. Frames are counted, not digested: a digest of a face is
/// derived from a face.
fn request_digest(parsed: &ParsedConsent, frames: usize) -> [u8; 32] {
    let facts = serde_json::json!([parsed.subject(), parsed.consent(), frames]);
    Sha256::of(facts.to_string().as_bytes()).0
}

fn without_face() -> Quality {
    Quality { reasons: vec![QualityReason::NoFace], ..Quality::default() }
}

pub(super) fn new_template(record: &StoredRecord) -> NewTemplate {
    NewTemplate {
        record: record.id,
        subject: record.subject.clone(),
        consent: record.consent.tag(),
        matches_until: record.consent.matches_until(),
    }
}
