//! Verify: one probe, one gate, one decision.

use std::time::Instant;

use super::lockout::Attempt;
use super::verdict::{
    Decision, PadReport, PadVerdict, Timings, Verdict, VerifyCommand, VerifyError,
};
use super::{Engine, Probe};
use crate::consent::{Alternatives, Comparison, Down, GatePass, PadPolicy};
use crate::index::Found;
use crate::pipeline::{
    Company, Embedded, FaceDemands, Feed, PipelineError, StageTimings, Ticket, Urgency,
};
use crate::store::{AuditEvent, FoundUnder, PadNote, StoreError};
use crate::telemetry::{self, Stage};
use crate::types::{Embedding, GateId, Revision, ShortText, Similarity, Timestamp};

/// What a request leaves for its decision and its audit entry.
struct Asked {
    caller: String,
    pass: GatePass,
    pad: PadReport,
}

impl Asked {
    /// Whether the gate's own word already stands against comparing the face.
    fn is_attack(&self) -> bool {
        match self.pad.verdict {
            PadVerdict::Spoof => true,
            PadVerdict::Unsure => self.pass.gate().pad == PadPolicy::Gate,
            PadVerdict::Live | PadVerdict::None => false,
        }
    }

    fn pad_note(&self) -> Option<PadNote<'_>> {
        let result = match self.pad.verdict {
            PadVerdict::None => return None,
            PadVerdict::Live => "live",
            PadVerdict::Spoof => "spoof",
            PadVerdict::Unsure => "unsure",
        };
        let method = self.pad.method.as_ref().map(ShortText::as_str);
        Some(PadNote { result, method, score: self.pad.score })
    }
}

/// How far a request came without a look at its face.
enum Before<'a> {
    Decided(Decision),
    /// With the count of failed attempts, where a subject is claimed.
    Attempt(Option<Attempt<'a>>),
}

impl Engine {
    /// Decides about one probe at one gate. The decision is in the audit trail, durable, when this
    /// returns.
    ///
    /// # Errors
    /// See [`VerifyError`]; what is merely no match is a decision, not an error.
    pub async fn verify(&self, mut command: VerifyCommand) -> Result<Verdict, VerifyError> {
        let begun = Instant::now();
        let standing = self.policy();
        let pass = standing.open_gate(&command.gate)?;
        let comparison = comparison_of(&command);
        let down = self.down(&pass);
        // Where no face is looked at, nothing has to be right about one.
        if pass.gate().face_enabled {
            pass.check_intent(command.intent)?;
            pass.check_comparison(comparison)?;
            let said = command.pad.verdict != PadVerdict::None;
            pass.check_pad(said, command.probe.is_whole_frame())?;
            pass.check_alternatives(down)?;
            self.check_reach(&pass, comparison)?;
        }
        self.store.check_space().map_err(unrecorded)?;
        let asked =
            Asked { caller: std::mem::take(&mut command.caller), pass, pad: command.pad.take() };
        let mut verdict = self.blank(&asked.pass, comparison, down, standing.revision);
        match self.before_looking(&command, &asked)? {
            Before::Decided(decision) => {
                verdict.decision = decision;
                self.record(&asked, &verdict).await?;
            }
            Before::Attempt(attempt) => {
                self.attempt(command, &asked, &mut verdict).await?;
                self.settle(attempt, &verdict.decision).await?;
            }
        }
        if matches!(verdict.decision, Decision::SpoofSuspected) {
            telemetry::presentation_attack(asked.pass.gate().id.as_str());
        }
        Ok(finish(verdict, begun))
    }

    /// Looks at the face, compares it and decides; the decision is recorded.
    async fn attempt(
        &self,
        command: VerifyCommand,
        asked: &Asked,
        verdict: &mut Verdict,
    ) -> Result<(), VerifyError> {
        if asked.is_attack() {
            verdict.decision = Decision::SpoofSuspected;
            return self.record(asked, verdict).await;
        }
        let (pass, deadline) = (&asked.pass, command.deadline);
        let feed = self.feed(pass, &command);
        let ticket = Ticket { deadline, urgency: Urgency::Gate, feed };
        let Some(embedding) = self.look(command.probe, pass, ticket, verdict).await? else {
            return self.record(asked, verdict).await;
        };
        if is_past(deadline) {
            return Err(VerifyError::Late);
        }
        let searched = Instant::now();
        let claimed = command.claimed.as_ref();
        let threshold = self.threshold(pass, verdict.comparison);
        let found = self.find(pass, claimed, embedding, threshold).await?;
        verdict.timings.search = searched.elapsed();
        telemetry::stage(Stage::Search, verdict.timings.search);
        self.decide_and_record(asked, threshold, &found, verdict).await?;
        if let Some(found) = verdict.decision.found() {
            self.note_use(found);
        }
        Ok(())
    }

    /// Counts what came of an attempt at a claimed subject. Where that closes the subject's face,
    /// it is durable before anybody hears of it.
    async fn settle(
        &self,
        attempt: Option<Attempt<'_>>,
        decision: &Decision,
    ) -> Result<(), VerifyError> {
        let Some(attempt) = attempt else { return Ok(()) };
        match decision {
            Decision::Match(_) => attempt.succeeded(),
            Decision::NoMatch | Decision::Ambiguous | Decision::SpoofSuspected => {
                if attempt.failed(self.trusted_now()) {
                    telemetry::locked_out();
                    self.save_lockouts().await.map_err(unrecorded)?;
                }
            }
            // No word about the person: it is as if nobody had tried.
            Decision::NoFace
            | Decision::SeveralFaces
            | Decision::LowQuality
            | Decision::StaleFrame
            | Decision::LockedOut { .. }
            | Decision::FaceDisabled => {}
        }
        Ok(())
    }

    /// Decides, records, and decides again where the match did not outlive the recording: what
    /// leaves was live after its entry was durable.
    async fn decide_and_record(
        &self,
        asked: &Asked,
        threshold: Similarity,
        found: &Found,
        verdict: &mut Verdict,
    ) -> Result<(), VerifyError> {
        (verdict.decision, verdict.policy) = self.decide(&asked.pass, threshold, found);
        loop {
            verdict.revision = verdict.revision.max(verdict.policy);
            self.record(asked, verdict).await?;
            let (again, policy) = self.decide(&asked.pass, threshold, found);
            let stands = matches!(
                (&verdict.decision, &again),
                (Decision::Match(said), Decision::Match(now)) if said.record() == now.record()
            );
            if stands || !matches!(verdict.decision, Decision::Match(_)) {
                return Ok(());
            }
            (verdict.decision, verdict.policy) = (again, policy);
        }
    }

    async fn record(&self, asked: &Asked, verdict: &Verdict) -> Result<(), VerifyError> {
        let found = verdict.decision.found().map(|found| FoundUnder {
            record: found.record(),
            consent_id: &found.tag().consent_id,
            purpose: &found.tag().class.purpose,
            scope: &found.tag().class.scope,
        });
        let event = AuditEvent::Decision {
            at: self.now(),
            caller: &asked.caller,
            gate: &asked.pass.gate().id,
            comparison: verdict.comparison,
            decision: verdict.decision.name(),
            reason: verdict.decision.reason(),
            found,
            pad: asked.pad_note(),
            liveness: verdict.liveness,
            revision: verdict.revision,
            policy: verdict.policy,
        };
        let begun = Instant::now();
        let recorded = self.store.note(&event).await;
        telemetry::stage(Stage::Audit, begun.elapsed());
        recorded.map_err(unrecorded)
    }

    /// The ways past a gate that do not use the face, and which of them are known to be down; the
    /// deployment's fallback where the gate is unknown. Never empty.
    #[must_use]
    pub fn alternatives(&self, gate: Option<&GateId>) -> (Alternatives, Down) {
        let pass = gate.and_then(|gate| self.policy().open_gate(gate).ok());
        let known = pass.map(|pass| (pass.gate().alternatives.clone(), self.down(&pass)));
        known.unwrap_or_else(|| (Alternatives::fallback(), Down::default()))
    }

    fn blank(
        &self,
        pass: &GatePass,
        comparison: Comparison,
        down: Down,
        policy: Revision,
    ) -> Verdict {
        Verdict {
            decision: Decision::NoMatch,
            comparison,
            expose_similarity: pass.gate().expose_similarity,
            alternatives: pass.gate().alternatives.clone(),
            down,
            quality: None,
            liveness: None,
            revision: self.revision().max(policy),
            policy,
            timings: Timings::default(),
        }
    }

    /// Decisions that need no look at the face; else the attempt that begins.
    fn before_looking(
        &self,
        command: &VerifyCommand,
        asked: &Asked,
    ) -> Result<Before<'_>, VerifyError> {
        if !asked.pass.gate().face_enabled {
            return Ok(Before::Decided(Decision::FaceDisabled));
        }
        let limit_ms = self.limits.frame_age_ms;
        let limit = i64::try_from(limit_ms).unwrap_or(i64::MAX);
        let age = command.captured_at.map_or(0, |at| self.now().ms_since(at));
        if age < -limit {
            return Err(VerifyError::FutureFrame { limit_ms });
        }
        if age > limit {
            return Ok(Before::Decided(Decision::StaleFrame));
        }
        let Some(subject) = &command.claimed else { return Ok(Before::Attempt(None)) };
        Ok(match self.begin_attempt(&asked.pass, subject) {
            Ok(attempt) => Before::Attempt(Some(attempt)),
            Err(retry_after) => Before::Decided(Decision::LockedOut { retry_after }),
        })
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

    /// The embedding of the probe and what was measured about it, into the verdict; none where the
    /// verdict has its decision already.
    async fn look(
        &self,
        probe: Probe,
        pass: &GatePass,
        ticket: Ticket,
        verdict: &mut Verdict,
    ) -> Result<Option<Embedding>, VerifyError> {
        let frame = match probe {
            Probe::Embedding { values, contract } => {
                return Ok(Some(self.embedding_of(values, &contract)?));
            }
            Probe::Frame(frame) => frame,
        };
        let demands = FaceDemands {
            min_eye_distance_px: pixels(pass.gate().min_eye_distance_px),
            company: if pass.gate().single_face { Company::Smaller } else { Company::Any },
            live: pass.gate().pad == PadPolicy::Model,
        };
        match self.pipeline.embed(frame, demands, ticket).await {
            Ok(Embedded { embedding, quality, liveness, timings }) => {
                record_stages(&timings);
                verdict.liveness = liveness;
                (verdict.quality, verdict.timings.pipeline) = (Some(quality), timings);
                Ok(Some(embedding))
            }
            Err(fault) => {
                unseen(fault, verdict)?;
                Ok(None)
            }
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
fn unseen(fault: PipelineError, verdict: &mut Verdict) -> Result<(), VerifyError> {
    (verdict.decision, verdict.quality) = match fault {
        PipelineError::NoFace => (Decision::NoFace, None),
        PipelineError::SeveralFaces(quality) => (Decision::SeveralFaces, Some(quality)),
        PipelineError::LowQuality(quality) => (Decision::LowQuality, Some(quality)),
        PipelineError::NotLive { quality, score } => {
            verdict.liveness = Some(score);
            (Decision::SpoofSuspected, Some(quality))
        }
        PipelineError::Superseded => (Decision::StaleFrame, None),
        PipelineError::Decode(fault) => return Err(fault.into()),
        PipelineError::Late => return Err(VerifyError::Late),
        PipelineError::Overloaded { retry_after } => {
            return Err(VerifyError::Overloaded { retry_after });
        }
        PipelineError::Stopped => return Err(VerifyError::Stopped),
        PipelineError::Internal => return Err(VerifyError::Internal),
    };
    Ok(())
}

pub(super) fn record_stages(timings: &StageTimings) {
    telemetry::stage(Stage::Queue, timings.queue);
    telemetry::stage(Stage::Decode, timings.decode);
    telemetry::stage(Stage::Detect, timings.detect);
    telemetry::stage(Stage::Align, timings.align);
    telemetry::stage(Stage::Embed, timings.embed);
    telemetry::batch(timings.batch_size);
}
