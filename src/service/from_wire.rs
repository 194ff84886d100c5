//! Wire -> domain. What the wire says is moved, not copied, into buffers that are zeroised.

use std::time::Instant;

use prost_types::Timestamp as WireTime;
use zeroize::Zeroizing;

use super::caller::Caller;
use super::fault::{Fault, text};
use super::proto;
use crate::consent::{
    AlternativeMethod, ConsentDraft, ConsentForm, GuardianDraft, Intent, LawfulBasis, SubjectClass,
};
use crate::engine::{
    EnrolCommand, EvidenceAbout, PadReport, PadVerdict, Probe, RevokeTarget, VerifyCommand, Way,
};
use crate::pipeline::{Frame, PixelFormat, RawFrame};
use crate::types::{
    ConsentId, ControllerId, GateId, IdempotencyKey, ModelContract, ShortText, SubjectRef,
    Timestamp,
};

/// A verification as asked for.
pub(super) struct VerifyParts {
    pub(super) command: VerifyCommand,
    /// Whether the probe is an embedding: not every caller may send one.
    pub(super) embedding: bool,
}

pub(super) fn verify(
    request: proto::VerifyRequest,
    caller: &Caller,
    deadline: Instant,
) -> Result<VerifyParts, Fault> {
    use proto::verify_request::Probe as Wire;
    let probe = match request.probe {
        None => return Err(Fault::field("probe", "is missing")),
        Some(Wire::Encoded(frame)) => encoded(frame),
        Some(Wire::Raw(frame)) => raw("raw", frame)?,
        Some(Wire::Aligned(face)) => aligned(face),
        Some(Wire::Embedding(vector)) => embedding("embedding.model_contract", vector)?,
    };
    let claimed = match request.claimed_subject.as_str() {
        "" => None,
        _ => Some(SubjectRef::parse(request.claimed_subject).map_err(text("claimed_subject"))?),
    };
    let command = VerifyCommand {
        caller: caller.name().to_owned(),
        gate: GateId::parse(request.gate_id).map_err(text("gate_id"))?,
        intent: intent(request.intent)?,
        captured_at: optional_time("captured_at", request.captured_at)?,
        claimed,
        pad: pad(request.pad, request.pad_report)?,
        deadline: Some(deadline),
        probe,
    };
    let embedding = matches!(command.probe, Probe::Embedding { .. });
    Ok(VerifyParts { command, embedding })
}

/// What evidence is asked for.
pub(super) fn evidence(request: proto::CollectEvidenceRequest) -> Result<EvidenceAbout, Fault> {
    use proto::collect_evidence_request::About;
    match request.about {
        None => Err(Fault::field("about", "is missing")),
        Some(About::Subject(proto::SubjectEvidence { controller_id, subject_ref })) => {
            let controller =
                ControllerId::parse(controller_id).map_err(text("subject.controller_id"))?;
            let subject = SubjectRef::parse(subject_ref).map_err(text("subject.subject_ref"))?;
            Ok(EvidenceAbout::Subject { controller, subject })
        }
        Some(About::Period(proto::PeriodEvidence { from, until })) => {
            let time = |path, wire| {
                optional_time(path, wire)?.ok_or_else(|| Fault::field(path, "is missing"))
            };
            let (from, until) = (time("period.from", from)?, time("period.until", until)?);
            if until <= from {
                return Err(Fault::field("period.until", "is not after period.from"));
            }
            Ok(EvidenceAbout::Period { from, until })
        }
    }
}

/// The enrolment, and whether any of its frames is an embedding.
pub(super) fn enroll(
    request: proto::EnrollRequest,
    deadline: Instant,
    bulk: bool,
) -> Result<(EnrolCommand, bool), Fault> {
    use proto::probe::Form as Wire;
    // Frames first: from here on they lie in buffers that are zeroised, whatever else is refused.
    let frames = request.frames.into_iter().enumerate().map(|(i, frame)| match frame.form {
        None => Err(Fault::field(format!("frames[{i}]"), "is missing")),
        Some(Wire::Encoded(frame)) => Ok(encoded(frame)),
        Some(Wire::Raw(frame)) => raw(&format!("frames[{i}].raw"), frame),
        Some(Wire::Aligned(face)) => Ok(aligned(face)),
        Some(Wire::Embedding(vector)) => {
            embedding(&format!("frames[{i}].embedding.model_contract"), vector)
        }
    });
    let frames: Vec<Result<Probe, Fault>> = frames.collect();
    let frames = frames.into_iter().collect::<Result<Vec<Probe>, Fault>>()?;
    // The subject before the key: tools make the key of it, and the refusal should name the cause.
    SubjectRef::parse(request.subject_ref.as_str()).map_err(text("subject_ref"))?;
    let idempotency_key =
        IdempotencyKey::parse(request.idempotency_key).map_err(text("idempotency_key"))?;
    let consent = request.consent.ok_or_else(|| Fault::field("consent", "is missing"))?;
    let embeddings = frames.iter().any(|frame| matches!(frame, Probe::Embedding { .. }));
    let command = EnrolCommand {
        idempotency_key,
        subject: request.subject_ref,
        controller: request.controller_id,
        consent: draft(consent)?,
        frames,
        deadline: Some(deadline),
        bulk,
    };
    Ok((command, embeddings))
}

pub(super) fn revoke(request: proto::RevokeRequest) -> Result<(ControllerId, RevokeTarget), Fault> {
    use proto::revoke_request::Target as Wire;
    let controller = ControllerId::parse(request.controller_id).map_err(text("controller_id"))?;
    let target = match request.target {
        None => return Err(Fault::field("target", "is missing")),
        Some(Wire::SubjectRef(subject)) => {
            RevokeTarget::Subject(SubjectRef::parse(subject).map_err(text("subject_ref"))?)
        }
        Some(Wire::RecordId(record)) => {
            RevokeTarget::Record(record.parse().map_err(text("record_id"))?)
        }
        Some(Wire::ConsentId(consent)) => {
            RevokeTarget::Consent(ConsentId::parse(consent).map_err(text("consent_id"))?)
        }
    };
    Ok((controller, target))
}

fn encoded(frame: proto::EncodedFrame) -> Probe {
    Probe::Frame(Frame::Encoded(Zeroizing::new(frame.data)))
}

fn aligned(face: proto::AlignedFace) -> Probe {
    Probe::Frame(Frame::Aligned(Zeroizing::new(face.rgb)))
}

fn raw(path: &str, frame: proto::RawFrame) -> Result<Probe, Fault> {
    use proto::PixelFormat as Wire;
    let data = Zeroizing::new(frame.data);
    let format = match Wire::try_from(frame.format) {
        Ok(Wire::Rgb8) => PixelFormat::Rgb8,
        Ok(Wire::Bgr8) => PixelFormat::Bgr8,
        Ok(Wire::Gray8) => PixelFormat::Gray8,
        Ok(Wire::Nv12) => PixelFormat::Nv12,
        Ok(Wire::I420) => PixelFormat::I420,
        Ok(Wire::Unspecified) | Err(_) => return Err(unspecified(&format!("{path}.format"))),
    };
    let proto::RawFrame { width, height, stride, .. } = frame;
    Ok(Probe::Frame(Frame::Raw(RawFrame { format, width, height, stride, data })))
}

fn embedding(path: &str, vector: proto::EmbeddingProbe) -> Result<Probe, Fault> {
    let proto::EmbeddingProbe { values, model_contract } = vector;
    let values = Zeroizing::new(values);
    let contract =
        ModelContract::parse(model_contract).map_err(|fault| Fault::field(path, fault))?;
    Ok(Probe::Embedding { values, contract })
}

fn unspecified(path: &str) -> Fault {
    Fault::field(path, "is missing or not a value of this version")
}

fn intent(wire: i32) -> Result<Option<Intent>, Fault> {
    use proto::Intent as Wire;
    match Wire::try_from(wire) {
        Ok(Wire::Unspecified) => Ok(None),
        Ok(Wire::Button) => Ok(Some(Intent::Button)),
        Ok(Wire::Card) => Ok(Some(Intent::Card)),
        Ok(Wire::Qr) => Ok(Some(Intent::Qr)),
        Ok(Wire::PresenceConfirmed) => Ok(Some(Intent::PresenceConfirmed)),
        Err(_) => Err(unspecified("intent")),
    }
}

fn pad(wire: i32, report: Option<proto::PadReport>) -> Result<PadReport, Fault> {
    use proto::PadVerdict as Wire;
    let verdict = match Wire::try_from(wire) {
        Ok(Wire::Unspecified) => PadVerdict::None,
        Ok(Wire::Live) => PadVerdict::Live,
        Ok(Wire::Spoof) => PadVerdict::Spoof,
        Ok(Wire::Unsure) => PadVerdict::Unsure,
        Err(_) => return Err(unspecified("pad")),
    };
    let proto::PadReport { method, score } = report.unwrap_or_default();
    if score.is_some_and(|score| !score.is_finite()) {
        return Err(Fault::field("pad_report.score", "is not a finite number"));
    }
    let method = optional_text("pad_report.method", method)?;
    Ok(PadReport { verdict, method, score })
}

fn optional_text(path: &'static str, wire: String) -> Result<Option<ShortText>, Fault> {
    if wire.is_empty() {
        return Ok(None);
    }
    ShortText::parse(wire).map(Some).map_err(text(path))
}

/// An alternative as reported.
pub(super) struct ReportParts {
    pub(super) gate: GateId,
    pub(super) way: Way,
    pub(super) up: bool,
    pub(super) note: Option<ShortText>,
}

pub(super) fn report(request: proto::ReportAlternativeRequest) -> Result<ReportParts, Fault> {
    use proto::AlternativeState as Wire;
    let gate = GateId::parse(request.gate_id).map_err(text("gate_id"))?;
    let method = alternative("method", request.method)?.ok_or_else(|| unspecified("method"))?;
    let up = match Wire::try_from(request.state) {
        Ok(Wire::Up) => true,
        Ok(Wire::Down) => false,
        Ok(Wire::Unspecified) | Err(_) => return Err(unspecified("state")),
    };
    let way = Way { method, index: request.index as usize };
    Ok(ReportParts { gate, way, up, note: optional_text("note", request.note)? })
}

/// A controller's subject.
pub(super) fn subject(
    controller: String,
    subject: String,
) -> Result<(ControllerId, SubjectRef), Fault> {
    let controller = ControllerId::parse(controller).map_err(text("controller_id"))?;
    Ok((controller, SubjectRef::parse(subject).map_err(text("subject_ref"))?))
}

/// Unset is for the admission to refuse; out of range is refused here.
fn optional_time(path: &'static str, wire: Option<WireTime>) -> Result<Option<Timestamp>, Fault> {
    let Some(WireTime { seconds, nanos }) = wire else { return Ok(None) };
    let fault = || Fault::field(path, "is not a time between 1970 and 9999");
    if !(0..1_000_000_000).contains(&nanos) {
        return Err(fault());
    }
    let ms = seconds.checked_mul(1000).and_then(|ms| ms.checked_add(i64::from(nanos) / 1_000_000));
    ms.and_then(Timestamp::from_unix_ms).map(Some).ok_or_else(fault)
}

fn draft(wire: proto::ConsentRecord) -> Result<ConsentDraft, Fault> {
    Ok(ConsentDraft {
        form: form(wire.form)?,
        captured_at: optional_time("consent.captured_at", wire.captured_at)?,
        expires_at: optional_time("consent.expires_at", wire.expires_at)?,
        alternative_offered: alternative("consent.alternative_offered", wire.alternative_offered)?,
        lawful_basis: basis(wire.lawful_basis)?,
        subject_class: subject_class(wire.subject_class)?,
        reconsent_by: optional_time("consent.reconsent_by", wire.reconsent_by)?,
        guardian: wire.guardian.map(guardian),
        consent_id: wire.consent_id,
        purpose: wire.purpose,
        scope: wire.scope,
        notice_id: wire.notice_id,
        notice_version: wire.notice_version,
        notice_sha256: wire.notice_sha256,
        channel: wire.channel,
        evidence_sha256: wire.evidence_sha256,
        bundled: wire.bundled,
        legal_reference: wire.legal_reference,
        offdevice_processing: wire.offdevice_processing,
    })
}

fn guardian(wire: proto::Guardian) -> GuardianDraft {
    GuardianDraft {
        guardian_ref: wire.guardian_ref,
        relation: wire.relation,
        evidence_sha256: wire.evidence_sha256,
        minor_rules_version: wire.minor_rules_version,
    }
}

fn form(wire: i32) -> Result<Option<ConsentForm>, Fault> {
    use proto::ConsentForm as Wire;
    match Wire::try_from(wire) {
        Ok(Wire::Unspecified) => Ok(None),
        Ok(Wire::Electronic) => Ok(Some(ConsentForm::Electronic)),
        Ok(Wire::Written) => Ok(Some(ConsentForm::Written)),
        Err(_) => Err(unspecified("consent.form")),
    }
}

fn alternative(path: &'static str, wire: i32) -> Result<Option<AlternativeMethod>, Fault> {
    use proto::AlternativeMethod as Wire;
    match Wire::try_from(wire) {
        Ok(Wire::Unspecified) => Ok(None),
        Ok(Wire::Card) => Ok(Some(AlternativeMethod::Card)),
        Ok(Wire::Code) => Ok(Some(AlternativeMethod::Code)),
        Ok(Wire::Qr) => Ok(Some(AlternativeMethod::Qr)),
        Ok(Wire::Intercom) => Ok(Some(AlternativeMethod::Intercom)),
        Ok(Wire::Staff) => Ok(Some(AlternativeMethod::Staff)),
        Err(_) => Err(unspecified(path)),
    }
}

fn basis(wire: i32) -> Result<Option<LawfulBasis>, Fault> {
    use proto::LawfulBasis as Wire;
    match Wire::try_from(wire) {
        Ok(Wire::Unspecified) => Ok(None),
        Ok(Wire::Consent) => Ok(Some(LawfulBasis::Consent)),
        Ok(Wire::LegalObligation) => Ok(Some(LawfulBasis::LegalObligation)),
        Err(_) => Err(unspecified("consent.lawful_basis")),
    }
}

fn subject_class(wire: i32) -> Result<Option<SubjectClass>, Fault> {
    use proto::SubjectClass as Wire;
    match Wire::try_from(wire) {
        Ok(Wire::Unspecified) => Ok(None),
        Ok(Wire::Adult) => Ok(Some(SubjectClass::Adult)),
        Ok(Wire::Under14) => Ok(Some(SubjectClass::Under14)),
        Err(_) => Err(unspecified("consent.subject_class")),
    }
}
