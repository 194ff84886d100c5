//! Verify: one probe, one gate, one decision.

use std::time::{Duration, Instant};

use thiserror::Error;

use super::operating_point::Outgrown;
use super::{Engine, Probe, ProbeFault};
use crate::consent::{Alternatives, Comparison, GatePass, GateRefusal, Intent};
use crate::index::{Found, IndexError, Match};
use crate::pipeline::{
    Company, DecodeError, Embedded, FaceDemands, Feed, PipelineError, StageTimings, Ticket, Urgency,
};
use crate::store::{AuditEvent, FoundUnder, StoreError};
use crate::telemetry::{self, Stage};
use crate::types::{Embedding, GateId, Quality, Revision, Similarity, SubjectRef, Timestamp};

/// The gate's own liveness verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PadVerdict {
    /// The gate has no liveness check.
    None,
    /// A living person.
    Live,
    /// A photo, screen or mask.
    Spoof,
}

/// What a gate asks.
pub struct VerifyCommand {
    /// Who asks, for the audit trail.
    pub caller: String,
    /// The gate.
    pub gate: GateId,
    /// The person's act.
    pub intent: Option<Intent>,
    /// When the frame was taken.
    pub captured_at: Option<Timestamp>,
    /// 1:1 against this subject, else 1:N.
    pub claimed: Option<SubjectRef>,
    /// The face.
    pub probe: Probe,
    /// The gate's liveness verdict.
    pub pad: PadVerdict,
    /// When the caller stops waiting.
    pub deadline: Option<Instant>,
}

/// The answer to one probe.
pub enum Decision {
    /// Enrolled, under a live consent for this gate.
    Match(Match),
    /// Nobody; withdrawn, expired and unknown look alike.
    NoMatch,
    /// Two subjects look too much alike for the gate's margin: no match, to all but the gate.
    Ambiguous,
    /// No face in the frame.
    NoFace,
    /// Several faces where one is wanted.
    SeveralFaces,
    /// Not good enough.
    LowQuality,
    /// The gate saw a spoof.
    SpoofSuspected,
    /// Too old a frame: by its own time, or because the gate has sent a newer one since.
    StaleFrame,
}

/// Where the time of one request went; a stage that did not run is zero.
#[derive(Debug, Clone, Copy, Default)]
pub struct Timings {
    /// The pipeline's stages.
    pub pipeline: StageTimings,
    /// Searching.
    pub search: Duration,
    /// All of it.
    pub total: Duration,
}

impl Decision {
    /// As the audit trail calls it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Match(_) => "match",
            Self::NoMatch | Self::Ambiguous => "no_match",
            Self::NoFace => "no_face",
            Self::SeveralFaces => "several_faces",
            Self::LowQuality => "low_quality",
            Self::SpoofSuspected => "spoof_suspected",
            Self::StaleFrame => "stale_frame",
        }
    }

    /// Why nobody matched, as the audit trail calls it, where that is known.
    #[must_use]
    pub fn reason(&self) -> Option<&'static str> {
        matches!(self, Self::Ambiguous).then_some("ambiguous")
    }
}

/// A decision and what belongs to it.
pub struct Verdict {
    /// The decision.
    pub decision: Decision,
    /// What was compared.
    pub comparison: Comparison,
    /// Whether the gate may see the similarity.
    pub expose_similarity: bool,
    /// The gate's other ways in.
    pub alternatives: Alternatives,
    /// What was measured about the face.
    pub quality: Option<Quality>,
    /// The revision that the answer rests on.
    pub revision: Revision,
    /// Where the time went.
    pub timings: Timings,
}

/// Why there is no decision.
#[derive(Debug, Error)]
pub enum VerifyError {
    /// The gate is unknown or may not ask this.
    #[error(transparent)]
    Gate(#[from] GateRefusal),
    /// The frame is from the future.
    #[error("the frame was taken more than {limit_ms} ms in the future; check the gate's clock")]
    FutureFrame {
        /// The tolerance.
        limit_ms: u64,
    },
    /// The frame cannot be decoded.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The embedding is not usable.
    #[error(transparent)]
    Probe(#[from] ProbeFault),
    /// The gallery has outgrown the gate's operating point, and its policy refuses then.
    #[error(transparent)]
    Outgrown(#[from] Outgrown),
    /// The caller's deadline passed.
    #[error("the deadline passed before there was a decision")]
    Late,
    /// No room in the pipeline.
    #[error("the service is at capacity")]
    Overloaded {
        /// When there may be room.
        retry_after: Duration,
    },
    /// The service is stopping.
    #[error("the service is not serving")]
    Stopped,
    /// There is no decision without an audit entry.
    #[error("the decision could not be recorded")]
    Unrecorded(#[source] StoreError),
    /// There is no room for an audit entry.
    #[error("no decision can be recorded: the service's disk is full")]
    LowOnSpace,
    /// A fault of ours.
    #[error("the search failed")]
    Index(#[from] IndexError),
    /// A fault of ours.
    #[error("internal fault")]
    Internal,
}

/// What the pipeline said about a probe.
enum Seen {
    Face(Embedding, Option<Quality>, StageTimings),
    Nothing(Decision, Option<Quality>),
}

impl Engine {
    /// Decides about one probe at one gate. The decision is in the audit trail, durable, when this
    /// returns.
    ///
    /// # Errors
    /// See [`VerifyError`]; what is merely no match is a decision, not an error.
    pub async fn verify(&self, mut command: VerifyCommand) -> Result<Verdict, VerifyError> {
        let begun = Instant::now();
        let caller = std::mem::take(&mut command.caller);
        let pass = self.policy().open_gate(&command.gate)?;
        pass.check_intent(command.intent)?;
        let comparison = comparison_of(&command);
        pass.check_comparison(comparison)?;
        self.check_reach(&pass, comparison)?;
        self.store.check_space().map_err(unrecorded)?;
        let mut verdict = self.blank(&pass, comparison);
        if let Some(decision) = self.before_looking(&command)? {
            verdict.decision = decision;
            self.record(&caller, &pass, &verdict).await?;
            return Ok(finish(verdict, begun));
        }
        let deadline = command.deadline;
        let feed = self.feed(&pass, &command);
        let ticket = Ticket { deadline, urgency: Urgency::Gate, feed };
        match self.look(command.probe, &pass, ticket).await? {
            Seen::Nothing(decision, quality) => {
                (verdict.decision, verdict.quality) = (decision, quality);
                self.record(&caller, &pass, &verdict).await?;
            }
            Seen::Face(embedding, quality, stages) => {
                verdict.quality = quality;
                verdict.timings.pipeline = stages;
                if is_past(deadline) {
                    return Err(VerifyError::Late);
                }
                let searched = Instant::now();
                let claimed = command.claimed.as_ref();
                let threshold = self.threshold(&pass, comparison);
                let found = self.find(&pass, claimed, embedding, threshold).await?;
                verdict.timings.search = searched.elapsed();
                telemetry::stage(Stage::Search, verdict.timings.search);
                self.decide_and_record(&caller, &pass, threshold, &found, &mut verdict).await?;
            }
        }
        Ok(finish(verdict, begun))
    }

    /// Decides, records, and decides again where the match did not outlive the recording: what
    /// leaves was live after its entry was durable.
    async fn decide_and_record(
        &self,
        caller: &str,
        pass: &GatePass,
        threshold: Similarity,
        found: &Found,
        verdict: &mut Verdict,
    ) -> Result<(), VerifyError> {
        verdict.decision = self.decide(pass, threshold, found);
        loop {
            self.record(caller, pass, verdict).await?;
            let again = self.decide(pass, threshold, found);
            let stands = matches!(
                (&verdict.decision, &again),
                (Decision::Match(said), Decision::Match(now)) if said.record() == now.record()
            );
            if stands || !matches!(verdict.decision, Decision::Match(_)) {
                return Ok(());
            }
            verdict.decision = again;
        }
    }

    async fn record(
        &self,
        caller: &str,
        pass: &GatePass,
        verdict: &Verdict,
    ) -> Result<(), VerifyError> {
        let found = match &verdict.decision {
            Decision::Match(found) => Some(FoundUnder {
                record: found.record(),
                consent_id: &found.tag().consent_id,
                purpose: &found.tag().class.purpose,
                scope: &found.tag().class.scope,
            }),
            Decision::NoMatch
            | Decision::Ambiguous
            | Decision::NoFace
            | Decision::SeveralFaces
            | Decision::LowQuality
            | Decision::SpoofSuspected
            | Decision::StaleFrame => None,
        };
        let event = AuditEvent::Decision {
            at: Timestamp::now(),
            caller,
            gate: &pass.gate().id,
            comparison: verdict.comparison,
            decision: verdict.decision.name(),
            reason: verdict.decision.reason(),
            found,
            revision: verdict.revision,
        };
        let begun = Instant::now();
        let recorded = self.store.note(&event).await;
        telemetry::stage(Stage::Audit, begun.elapsed());
        recorded.map_err(unrecorded)
    }

    /// The ways past a gate that do not use the face; the deployment's fallback where the gate is
    /// unknown. Never empty.
    #[must_use]
    pub fn alternatives(&self, gate: Option<&GateId>) -> Alternatives {
        gate.and_then(|gate| self.policy().open_gate(gate).ok())
            .map_or_else(Alternatives::fallback, |pass| pass.gate().alternatives.clone())
    }

    fn blank(&self, pass: &GatePass, comparison: Comparison) -> Verdict {
        Verdict {
            decision: Decision::NoMatch,
            comparison,
            expose_similarity: pass.gate().expose_similarity,
            alternatives: pass.gate().alternatives.clone(),
            quality: None,
            revision: self.revision(),
            timings: Timings::default(),
        }
    }

    /// Decisions that need no look at the face.
    fn before_looking(&self, command: &VerifyCommand) -> Result<Option<Decision>, VerifyError> {
        let limit_ms = self.limits.frame_age_ms;
        let limit = i64::try_from(limit_ms).unwrap_or(i64::MAX);
        let age = command.captured_at.map_or(0, |at| Timestamp::now().ms_since(at));
        if age < -limit {
            return Err(VerifyError::FutureFrame { limit_ms });
        }
        if age > limit {
            return Ok(Some(Decision::StaleFrame));
        }
        Ok((command.pad == PadVerdict::Spoof).then_some(Decision::SpoofSuspected))
    }

    /// A gate is a feed; where subjects are claimed, each of them at each gate, because the next
    /// person's frame is no newer frame of this one's.
    fn feed(&self, pass: &GatePass, command: &VerifyCommand) -> Feed {
        Feed {
            id: self.feed_id((&command.gate, &command.claimed)),
            newest_wins: pass.gate().newest_frame_wins,
            taken_ms: command.captured_at.map(Timestamp::unix_ms),
        }
    }

    async fn look(
        &self,
        probe: Probe,
        pass: &GatePass,
        ticket: Ticket,
    ) -> Result<Seen, VerifyError> {
        let frame = match probe {
            Probe::Embedding { values, contract } => {
                let embedding = self.embedding_of(values, &contract)?;
                return Ok(Seen::Face(embedding, None, StageTimings::default()));
            }
            Probe::Frame(frame) => frame,
        };
        let demands = FaceDemands {
            min_eye_distance_px: pixels(pass.gate().min_eye_distance_px),
            company: if pass.gate().single_face { Company::Smaller } else { Company::Any },
        };
        match self.pipeline.embed(frame, demands, ticket).await {
            Ok(Embedded { embedding, quality, timings }) => {
                record_stages(&timings);
                Ok(Seen::Face(embedding, Some(quality), timings))
            }
            Err(fault) => unseen(fault),
        }
    }
}

/// Exact: a frame has fewer pixels on a side than 65,536.
fn pixels(n: u32) -> f32 {
    f32::from(u16::try_from(n).unwrap_or(u16::MAX))
}

fn comparison_of(command: &VerifyCommand) -> Comparison {
    if command.claimed.is_some() { Comparison::OneToOne } else { Comparison::OneToMany }
}

fn unrecorded(fault: StoreError) -> VerifyError {
    if matches!(fault, StoreError::LowOnSpace) {
        VerifyError::LowOnSpace
    } else {
        VerifyError::Unrecorded(fault)
    }
}

fn is_past(deadline: Option<Instant>) -> bool {
    deadline.is_some_and(|at| Instant::now() >= at)
}

fn finish(mut verdict: Verdict, begun: Instant) -> Verdict {
    verdict.timings.total = begun.elapsed();
    verdict
}

/// What a pipeline that made no embedding means to the gate.
fn unseen(fault: PipelineError) -> Result<Seen, VerifyError> {
    match fault {
        PipelineError::NoFace => Ok(Seen::Nothing(Decision::NoFace, None)),
        PipelineError::SeveralFaces(quality) => {
            Ok(Seen::Nothing(Decision::SeveralFaces, Some(quality)))
        }
        PipelineError::LowQuality(quality) => {
            Ok(Seen::Nothing(Decision::LowQuality, Some(quality)))
        }
        PipelineError::Decode(fault) => Err(fault.into()),
        PipelineError::Late => Err(VerifyError::Late),
        PipelineError::Superseded => Ok(Seen::Nothing(Decision::StaleFrame, None)),
        PipelineError::Overloaded { retry_after } => Err(VerifyError::Overloaded { retry_after }),
        PipelineError::Stopped => Err(VerifyError::Stopped),
        PipelineError::Internal => Err(VerifyError::Internal),
    }
}

pub(super) fn record_stages(timings: &StageTimings) {
    telemetry::stage(Stage::Queue, timings.queue);
    telemetry::stage(Stage::Decode, timings.decode);
    telemetry::stage(Stage::Detect, timings.detect);
    telemetry::stage(Stage::Align, timings.align);
    telemetry::stage(Stage::Embed, timings.embed);
    telemetry::batch(timings.batch_size);
}
