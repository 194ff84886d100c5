//! Domain -> wire.

use prost_types::Timestamp as WireTime;

use super::proto;
use super::shared::Phase;
use crate::consent::{
    Alternative, AlternativeMethod, Alternatives, Change, ChangeKind, Comparison, ConsentTag, Down,
    Notice, SubjectClass,
};
use crate::engine::{
    Decision, EngineStatus, Enrolled, EvidencePiece, GatePlan, Held, Receipt, RevocationReceipt,
    Timings, Verdict,
};
use crate::store::KeyStatus;
use crate::types::{Quality, QualityReason, Timestamp};

pub(super) fn time(t: Timestamp) -> WireTime {
    t.into()
}

impl From<Timestamp> for WireTime {
    fn from(t: Timestamp) -> Self {
        let ms = t.unix_ms();
        let nanos = i32::try_from(ms.rem_euclid(1000) * 1_000_000).unwrap_or(0);
        Self { seconds: ms.div_euclid(1000), nanos }
    }
}

pub(super) fn decision(decision: &Decision) -> proto::Decision {
    match decision {
        Decision::Match(_) => proto::Decision::Match,
        Decision::NoMatch | Decision::Ambiguous => proto::Decision::NoMatch,
        Decision::NoFace => proto::Decision::NoFace,
        Decision::SeveralFaces => proto::Decision::SeveralFaces,
        Decision::LowQuality => proto::Decision::LowQuality,
        Decision::SpoofSuspected => proto::Decision::SpoofSuspected,
        Decision::StaleFrame => proto::Decision::StaleFrame,
        Decision::LockedOut { .. } => proto::Decision::LockedOut,
        Decision::FaceDisabled => proto::Decision::FaceDisabled,
    }
}

/// All of them; those that are known to be down say so.
pub(super) fn alternatives(ways: &Alternatives, down: Down) -> Vec<proto::Alternative> {
    let ways = ways.as_slice().iter().enumerate();
    ways.map(|(place, way)| alternative(way, down.is_down(place))).collect()
}

fn alternative(way: &Alternative, down: bool) -> proto::Alternative {
    proto::Alternative {
        method: proto::AlternativeMethod::from(way.method).into(),
        hint: way.hint.to_string(),
        accessible: way.accessible,
        down,
    }
}

impl From<AlternativeMethod> for proto::AlternativeMethod {
    fn from(method: AlternativeMethod) -> Self {
        match method {
            AlternativeMethod::Card => Self::Card,
            AlternativeMethod::Code => Self::Code,
            AlternativeMethod::Qr => Self::Qr,
            AlternativeMethod::Intercom => Self::Intercom,
            AlternativeMethod::Staff => Self::Staff,
        }
    }
}

impl From<SubjectClass> for proto::SubjectClass {
    fn from(class: SubjectClass) -> Self {
        match class {
            SubjectClass::Adult => Self::Adult,
            SubjectClass::Under14 => Self::Under14,
        }
    }
}

impl From<Verdict> for proto::VerifyResponse {
    fn from(verdict: Verdict) -> Self {
        let decision = decision(&verdict.decision);
        let found = verdict.decision.found().map(|found| proto::Match {
            subject_ref: found.subject().to_string(),
            record_id: found.record().to_string(),
            consent_tag: Some(found.tag().into()),
            similarity: verdict.expose_similarity.then(|| found.similarity().get()),
            comparison: comparison(verdict.comparison).into(),
        });
        let retry_after_ms = match verdict.decision.retry_after() {
            Some(wait) => u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
            None => 0,
        };
        let reason = if matches!(verdict.decision, Decision::Ambiguous) {
            proto::NoMatchReason::Ambiguous
        } else {
            proto::NoMatchReason::Unspecified
        };
        Self {
            decision: decision.into(),
            no_match_reason: reason.into(),
            r#match: found,
            alternatives: alternatives(&verdict.alternatives, verdict.down),
            quality: verdict.quality.as_ref().map(Into::into),
            index_revision: verdict.revision.0,
            timings: Some((&verdict.timings).into()),
            retry_after_ms,
        }
    }
}

fn comparison(comparison: Comparison) -> proto::Comparison {
    match comparison {
        Comparison::OneToOne => proto::Comparison::OneToOne,
        Comparison::OneToMany => proto::Comparison::OneToMany,
    }
}

impl From<&ConsentTag> for proto::ConsentTag {
    fn from(tag: &ConsentTag) -> Self {
        Self {
            consent_id: tag.consent_id.to_string(),
            controller_id: tag.class.controller.to_string(),
            purpose: tag.class.purpose.to_string(),
            scope: tag.class.scope.to_string(),
            notice_version: tag.notice_version.to_string(),
            granted_at: Some(time(tag.granted_at)),
            expires_at: Some(time(tag.expires_at)),
        }
    }
}

impl From<&Quality> for proto::Quality {
    fn from(quality: &Quality) -> Self {
        let reasons = quality.reasons.iter().map(|reason| reason_of(*reason).into()).collect();
        Self {
            detector_score: quality.detector_score,
            eye_distance_px: quality.eye_distance_px,
            sharpness: quality.sharpness,
            brightness: quality.brightness,
            yaw_degrees: quality.yaw_degrees,
            faces: quality.faces,
            reasons,
        }
    }
}

pub(super) fn reason_of(reason: QualityReason) -> proto::QualityReason {
    match reason {
        QualityReason::TooSmall => proto::QualityReason::TooSmall,
        QualityReason::Blurred => proto::QualityReason::Blurred,
        QualityReason::Turned => proto::QualityReason::Turned,
        QualityReason::Dark => proto::QualityReason::Dark,
        QualityReason::Overexposed => proto::QualityReason::Overexposed,
        QualityReason::SeveralFaces => proto::QualityReason::SeveralFaces,
        QualityReason::CutOff => proto::QualityReason::CutOff,
        QualityReason::NoFace => proto::QualityReason::NoFace,
        QualityReason::Inconsistent => proto::QualityReason::Inconsistent,
    }
}

impl From<&Timings> for proto::Timings {
    fn from(timings: &Timings) -> Self {
        let us = |d: std::time::Duration| u32::try_from(d.as_micros()).unwrap_or(u32::MAX);
        Self {
            queue_us: us(timings.pipeline.queue),
            decode_us: us(timings.pipeline.decode),
            detect_us: us(timings.pipeline.detect),
            align_us: us(timings.pipeline.align),
            embed_us: us(timings.pipeline.embed),
            search_us: us(timings.search),
            total_us: us(timings.total),
            batch_size: timings.pipeline.batch_size,
        }
    }
}

impl From<EvidencePiece> for proto::CollectEvidenceResponse {
    fn from(piece: EvidencePiece) -> Self {
        use proto::collect_evidence_response::Piece;
        let piece = match piece {
            EvidencePiece::Trail(lines) => Piece::Trail(lines),
            EvidencePiece::Policy { revision, document } => {
                let document = String::from_utf8_lossy(&document).into_owned();
                Piece::Policy(proto::KeptPolicy { revision: revision.0, document })
            }
            EvidencePiece::Statement(statement) => Piece::Statement((&statement).into()),
        };
        Self { piece: Some(piece) }
    }
}

impl From<&Receipt> for proto::Receipt {
    fn from(receipt: &Receipt) -> Self {
        Self {
            media_type: "application/json".to_owned(),
            body: receipt.body.clone(),
            signature: receipt.signature.to_vec(),
            public_key: receipt.public_key.to_vec(),
        }
    }
}

impl From<Enrolled> for proto::EnrollResponse {
    fn from(enrolled: Enrolled) -> Self {
        let duplicates = enrolled.duplicates.iter().map(|twin| proto::Duplicate {
            subject_ref: twin.subject.to_string(),
            record_id: twin.record.to_string(),
        });
        Self {
            record_id: enrolled.record.to_string(),
            expires_at: Some(time(enrolled.expires_at)),
            revision: enrolled.revision.0,
            receipt: Some((&enrolled.receipt).into()),
            quality: enrolled.quality.iter().map(Into::into).collect(),
            duplicates: duplicates.collect(),
        }
    }
}

impl From<RevocationReceipt> for proto::RevokeResponse {
    fn from(revocation: RevocationReceipt) -> Self {
        Self {
            revoked_records: revocation.records().iter().map(ToString::to_string).collect(),
            revision: revocation.revision().0,
            receipt: Some(revocation.receipt().into()),
        }
    }
}

impl From<Held> for proto::HeldRecord {
    fn from(held: Held) -> Self {
        Self {
            record_id: held.record.to_string(),
            consent_tag: Some((&held.tag).into()),
            subject_class: proto::SubjectClass::from(held.subject_class).into(),
            reconsent_by: held.reconsent_by.map(time),
            frames: held.frames,
            model_contract: held.model.to_string(),
            live: held.live,
            last_used_month: held.last_used_month.unwrap_or_default(),
        }
    }
}

impl From<Change> for proto::PolicyChange {
    fn from(change: Change) -> Self {
        let kind = match change.kind {
            ChangeKind::Added => proto::ChangeKind::Added,
            ChangeKind::Changed => proto::ChangeKind::Changed,
            ChangeKind::Unchanged => proto::ChangeKind::Unchanged,
        };
        Self {
            object: change.object.as_str().to_owned(),
            id: change.id,
            kind: kind.into(),
            fields: change.fields,
        }
    }
}

impl From<Notice> for proto::Notice {
    fn from(notice: Notice) -> Self {
        let texts = notice.texts.iter().map(|text| proto::NoticeText {
            language: text.language.as_str().to_owned(),
            controller_contact: text.controller_contact.as_str().to_owned(),
            purpose_and_method: text.purpose_and_method.as_str().to_owned(),
            retention: text.retention.as_str().to_owned(),
            necessity_and_impact: text.necessity_and_impact.as_str().to_owned(),
            rights: text.rights.as_str().to_owned(),
        });
        Self {
            controller_id: notice.controller.to_string(),
            notice_id: notice.id.to_string(),
            version: notice.version.to_string(),
            purposes: notice.purposes.iter().map(ToString::to_string).collect(),
            effective_from: Some(time(notice.effective_from)),
            texts: texts.collect(),
            sha256: notice.sha256().0.to_vec(),
        }
    }
}

pub(super) fn key_status(keys: KeyStatus) -> proto::KeyStatus {
    let KeyStatus { epoch, cell, memory, mirrored } = keys;
    let (root_cell, memory) = (cell.to_owned(), memory.to_owned());
    proto::KeyStatus { epoch: epoch.0, root_cell, memory, mirrored }
}

fn gate_plan(of: &GatePlan) -> proto::GatePlan {
    let GatePlan { gate, plan, reach } = of;
    proto::GatePlan {
        gate_id: gate.to_string(),
        plan: plan.way.name().to_owned(),
        templates: plan.templates as u64,
        reason: plan.to_string(),
        fpir: reach.fpir.get(),
        measured_templates: reach.reach.measured,
        calibrated_templates: reach.reach.calibrated,
        outgrown: reach.is_outgrown(),
        when_outgrown: reach.rule.as_str().to_owned(),
    }
}

pub(super) fn status(
    status: &EngineStatus,
    plans: &[GatePlan],
    phase: Phase,
) -> proto::StatusResponse {
    let classes = status.index.classes.iter().map(|class| proto::ClassStatus {
        controller_id: class.class.controller.to_string(),
        purpose: class.class.purpose.to_string(),
        scope: class.class.scope.to_string(),
        templates: class.live as u64,
    });
    let gate_plans = plans.iter().map(gate_plan);
    let repeated = status.index.recall.iter().filter(|(_, recall)| recall.share().is_some());
    let recall = repeated.map(|(way, recall)| proto::PlanRecall {
        plan: way.name().to_owned(),
        found: recall.found,
        missed: recall.missed,
    });
    let unassessed =
        status.unassessed.iter().map(|(controller, purpose, standing)| proto::UnassessedPurpose {
            controller_id: controller.to_string(),
            purpose: purpose.to_string(),
            standing: standing.as_str().to_owned(),
        });
    let down = status.alternatives.iter().filter(|way| way.state.is_down());
    let down_alternatives = down.map(|way| proto::DownAlternative {
        gate_id: way.gate.to_string(),
        name: way.name.clone(),
        state: way.state.name().to_owned(),
        heard_at: way.heard_at.map(time),
        note: way.note.as_ref().map(ToString::to_string).unwrap_or_default(),
    });
    proto::StatusResponse {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        state: phase.name().to_owned(),
        started_at: Some(time(status.started_at)),
        revision: status.revision.0,
        profile: status.profile.clone(),
        deployment: status.deployment.as_str().to_owned(),
        unassessed: unassessed.collect(),
        clock_skew_ms: status.clock_skew_ms,
        model_pack: status.pack.name.clone(),
        model_contract: status.pack.contract.to_string(),
        provider: status.provider.name().to_owned(),
        scan_kernel: status.index.kernel.name().to_owned(),
        classes: classes.collect(),
        subjects: status.index.subjects as u64,
        arena_bytes: status.index.arena_bytes as u64,
        arena_locked: status.index.arena_locked,
        quarantined_records: status.quarantined.iter().map(ToString::to_string).collect(),
        gate_plans: gate_plans.collect(),
        resting_gates: status.resting.iter().map(ToString::to_string).collect(),
        recall: recall.collect(),
        catalogue_bytes: status.index.catalogue_bytes as u64,
        graph_bytes: status.index.graph.map_or(0, |graph| graph.bytes) as u64,
        store_low_on_space: status.low_on_space,
        keys: Some(key_status(status.keys)),
        graph_templates: status.index.graph.map_or(0, |graph| graph.linked) as u64,
        down_alternatives: down_alternatives.collect(),
        locked_subjects: status.locked_subjects as u64,
    }
}
