//! The one error map: every error of the use cases becomes one gRPC status here.
//!
//! No match in this file has a wildcard arm over our own errors: a new error without a line does
//! not build. What is our own fault leaves as a request id; the log has the rest.

use std::time::Duration;

use prost::Message;
use prost_types::Any;
use tonic::{Code, Status};
use tonic_types::pb;
use uuid::Uuid;

use super::{proto, words};
use crate::consent::{
    ConsentRefusal, GateRefusal, MarkRefusal, PolicyError, RefusalKind, zh_of_text,
};
use crate::engine::{
    ApplyError, EnrolError, FilingError, NoticeError, ProbeFault, RevokeError, VerifyError,
};
use crate::pipeline::DecodeError;
use crate::store::StoreError;
use crate::telemetry::{self, Rejected};
use crate::types::InvalidText;

/// When a caller that found the house full should try again.
const RETRY_AFTER: Duration = Duration::from_millis(100);
/// The reason of refusals for want of space.
const LOW_ON_SPACE: &str = "LOW_ON_SPACE";
/// Where the type URLs of `Any` begin.
const TYPE_URL: &str = "type.googleapis.com/";

/// A refusal on its way to the wire.
#[derive(Debug)]
pub(super) struct Fault {
    code: Code,
    message: String,
    details: Vec<Any>,
    retry_after: Option<Duration>,
    /// The one field at fault, where there is one.
    field: String,
    /// What few refusals have.
    more: Option<Box<More>>,
}

/// What few refusals have.
#[derive(Debug, Default)]
struct More {
    /// What was measured about the frames of a refused enrolment.
    quality: Vec<proto::Quality>,
    /// The stable reason.
    reason: Option<&'static str>,
    /// The message in Chinese, where the refusal has words of its own.
    zh: Option<String>,
}

impl Fault {
    fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            details: Vec::new(),
            retry_after: None,
            field: String::new(),
            more: None,
        }
    }

    fn more(&mut self) -> &mut More {
        self.more.get_or_insert_default()
    }

    /// The same with its words in Chinese.
    fn in_chinese(mut self, zh: String) -> Self {
        self.more().zh = Some(zh);
        self
    }

    /// A field of the request is wrong.
    pub(super) fn field(path: impl Into<String>, fault: impl std::fmt::Display) -> Self {
        let path = path.into();
        let violation = pb::bad_request::FieldViolation {
            field: path.clone(),
            description: fault.to_string(),
            ..Default::default()
        };
        let bad = pb::BadRequest { field_violations: vec![violation] };
        let mut this = Self::new(Code::InvalidArgument, format!("{path}: {fault}"));
        this.details.push(any("google.rpc.BadRequest", &bad));
        this.field = path;
        this
    }

    /// The request is well formed, the state of things forbids it. `reason` is stable.
    pub(super) fn precondition(
        reason: &'static str,
        subject: impl Into<String>,
        fault: impl std::fmt::Display,
    ) -> Self {
        let subject = subject.into();
        let mut this = Self::new(Code::FailedPrecondition, format!("{subject}: {fault}"));
        let violation = pb::precondition_failure::Violation {
            r#type: reason.to_owned(),
            subject: subject.clone(),
            description: fault.to_string(),
        };
        let failure = pb::PreconditionFailure { violations: vec![violation] };
        this.details.push(any("google.rpc.PreconditionFailure", &failure));
        this.field = subject;
        this.more().reason = Some(reason);
        this
    }

    /// As the domain's own kind of refusal says.
    fn refusal(
        kind: RefusalKind,
        reason: &'static str,
        path: &'static str,
        fault: &dyn std::fmt::Display,
    ) -> Self {
        match kind {
            RefusalKind::Field => Self::field(path, fault),
            RefusalKind::State => Self::precondition(reason, path, fault),
        }
    }

    pub(super) fn unauthenticated(message: &'static str) -> Self {
        Self::new(Code::Unauthenticated, message)
    }

    pub(super) fn forbidden(message: &'static str) -> Self {
        Self::new(Code::PermissionDenied, message)
    }

    pub(super) fn not_serving(message: &'static str) -> Self {
        Self::new(Code::Unavailable, message)
    }

    pub(super) fn late() -> Self {
        Self::new(Code::DeadlineExceeded, "the deadline passed")
    }

    /// Every place is taken.
    pub(super) fn full() -> Self {
        Self::overloaded(RETRY_AFTER)
    }

    /// No room: when to try again is said twice, as google.rpc.RetryInfo and as pushback. Counted
    /// here, so that no refusal for want of room goes uncounted.
    fn overloaded(retry_after: Duration) -> Self {
        telemetry::rejected(Rejected::Overload);
        let mut this = Self::new(Code::ResourceExhausted, "the service is at capacity; try again");
        let retry_delay = prost_types::Duration::try_from(retry_after).ok();
        this.details.push(any("google.rpc.RetryInfo", &pb::RetryInfo { retry_delay }));
        this.retry_after = Some(retry_after);
        this
    }

    /// Our own fault: the caller learns a request id, the log the rest.
    pub(super) fn internal(fault: &dyn std::error::Error) -> Self {
        let id = Uuid::new_v4();
        tracing::error!(request = %id, fault = %chain(fault), "internal fault");
        Self::new(Code::Internal, format!("internal fault; the service's log names request {id}"))
    }

    /// An error of the transport, for messages that did not reach a handler.
    pub(super) fn of_transport(status: &Status) -> Self {
        Self::new(status.code(), status.message())
    }

    /// Adds the ways in that need no face.
    pub(super) fn with_alternatives(mut self, alternatives: Vec<proto::Alternative>) -> Self {
        self.details.push(any("assent.v1.Alternatives", &proto::Alternatives { alternatives }));
        self
    }

    pub(super) fn code(&self) -> Code {
        self.code
    }

    pub(super) fn into_status(mut self) -> Status {
        if let Some(message) = self.zh() {
            let locale = words::LANGUAGE.to_owned();
            let words = pb::LocalizedMessage { locale, message };
            self.details.push(any("google.rpc.LocalizedMessage", &words));
        }
        let mut status = if self.details.is_empty() {
            Status::new(self.code, self.message)
        } else {
            let (code, message) = (i32::from(self.code), self.message.clone());
            let rpc = pb::Status { code, message, details: self.details };
            Status::with_details(self.code, self.message, rpc.encode_to_vec().into())
        };
        let pushback = self.retry_after.and_then(|wait| wait.as_millis().to_string().parse().ok());
        if let Some(ms) = pushback {
            status.metadata_mut().insert("grpc-retry-pushback-ms", ms);
        }
        status
    }

    /// The message in Chinese: words of its own, those of its reason, or which field it is about.
    fn zh(&self) -> Option<String> {
        let more = self.more.as_deref();
        let own = more.and_then(|more| more.zh.clone());
        let of_reason = || words::zh(more.and_then(|more| more.reason), self.code);
        let of_field = || {
            let (said, field) = (self.message.as_str(), self.field.as_str());
            (!field.is_empty()).then(|| format!("{field}：不合要求（{said}）"))
        };
        own.or_else(|| of_reason().map(str::to_owned)).or_else(of_field)
    }

    /// As one answer of a verification stream.
    pub(super) fn into_verify_error(
        self,
        alternatives: Vec<proto::Alternative>,
    ) -> proto::VerifyError {
        let message_zh = self.zh().unwrap_or_default();
        let (code, message) = (i32::from(self.code), self.message);
        proto::VerifyError { code, message, alternatives, message_zh }
    }

    /// As one answer of a bulk enrolment, and in the details of a refused single one.
    pub(super) fn enroll_error(&self) -> proto::EnrollError {
        proto::EnrollError {
            code: i32::from(self.code),
            message_zh: self.zh().unwrap_or_default(),
            message: self.message.clone(),
            field: self.field.clone(),
            quality: self.more.as_ref().map(|more| more.quality.clone()).unwrap_or_default(),
        }
    }
}

fn any(name: &str, message: &impl Message) -> Any {
    Any { type_url: format!("{TYPE_URL}{name}"), value: message.encode_to_vec() }
}

/// An error and its sources in one line.
fn chain(fault: &dyn std::error::Error) -> String {
    let mut text = fault.to_string();
    let mut source = fault.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// A string field that is no valid identifier.
pub(super) fn text(path: &'static str) -> impl Fn(InvalidText) -> Fault {
    move |fault| {
        let zh = format!("{path}：{}", zh_of_text(fault.fault));
        Fault::field(path, fault).in_chinese(zh)
    }
}

impl From<GateRefusal> for Fault {
    fn from(refusal: GateRefusal) -> Self {
        let reason = match refusal {
            GateRefusal::UnknownGate => "GATE_UNKNOWN",
            GateRefusal::IntentMissing => "INTENT_MISSING",
            GateRefusal::PadMissing => "PAD_MISSING",
            GateRefusal::PadNeedsFrame => "PAD_NEEDS_FRAME",
            GateRefusal::NoAlternativeUp => "NO_ALTERNATIVE_UP",
            GateRefusal::NotWatched => "NOT_WATCHED",
            GateRefusal::Comparison(_) => "COMPARISON_FORBIDDEN",
        };
        Self::refusal(refusal.kind(), reason, refusal.field(), &refusal).in_chinese(refusal.zh())
    }
}

impl From<ConsentRefusal> for Fault {
    fn from(refusal: ConsentRefusal) -> Self {
        Self::refusal(refusal.kind(), "CONSENT", refusal.field, &refusal.fault)
            .in_chinese(refusal.zh())
    }
}

fn undecodable(path: &str, fault: &DecodeError) -> Fault {
    let zh = format!("{path}：{}", words::zh_of_frame_fault(fault));
    Fault::field(path, fault).in_chinese(zh)
}

fn unusable(path: &str, fault: &ProbeFault) -> Fault {
    match fault {
        ProbeFault::Embedding(fault) => Fault::field(format!("{path}.values"), fault),
        ProbeFault::Contract { .. } => {
            Fault::precondition("MODEL_CONTRACT", format!("{path}.model_contract"), fault)
        }
    }
}

impl From<VerifyError> for Fault {
    fn from(error: VerifyError) -> Self {
        match &error {
            VerifyError::Gate(refusal) => (*refusal).into(),
            VerifyError::Outgrown(outgrown) => {
                Self::precondition("OPERATING_POINT_OUTGROWN", "gate_id", outgrown)
            }
            VerifyError::FutureFrame { .. } => Self::field("captured_at", error),
            VerifyError::Decode(fault) => undecodable("probe", fault),
            VerifyError::Probe(fault) => unusable("embedding", fault),
            VerifyError::Late => Self::late(),
            VerifyError::Overloaded { retry_after } => Self::overloaded(*retry_after),
            VerifyError::Stopped => Self::not_serving("the service is not serving"),
            VerifyError::Unrecorded(_) => {
                tracing::error!(fault = %chain(&error), "no decision without an audit entry");
                Self::new(Code::Unavailable, error.to_string())
            }
            VerifyError::LowOnSpace => Self::new(Code::Unavailable, error.to_string()),
            VerifyError::Index(_) | VerifyError::Internal => Self::internal(&error),
        }
    }
}

impl From<EnrolError> for Fault {
    fn from(error: EnrolError) -> Self {
        match error {
            EnrolError::Consent(refusal) => refusal.into(),
            EnrolError::Frames { .. } => Self::field("frames", error),
            EnrolError::Decode { frame, fault } => undecodable(&format!("frames[{frame}]"), &fault),
            EnrolError::Probe { frame, fault } => {
                unusable(&format!("frames[{frame}].embedding"), &fault)
            }
            EnrolError::LowQuality { quality } => low_quality(&quality),
            EnrolError::Duplicate => Self::precondition("DUPLICATE", "frames", error),
            EnrolError::KeyReused => Self::precondition("KEY_REUSED", "idempotency_key", error),
            EnrolError::Revoked => Self::precondition("REVOKED", "idempotency_key", error),
            EnrolError::ConsentUsed => {
                Self::precondition("CONSENT_USED", "consent.consent_id", error)
            }
            EnrolError::LowOnSpace => Self::precondition(LOW_ON_SPACE, "store", error),
            EnrolError::Late => Self::late(),
            EnrolError::Overloaded { retry_after } => Self::overloaded(retry_after),
            EnrolError::Stopped => Self::not_serving("the service is not serving"),
            EnrolError::Store(_) | EnrolError::Index(_) | EnrolError::Internal => {
                Self::internal(&error)
            }
        }
    }
}

/// Names the frames and their reasons, and carries all that was measured.
fn low_quality(quality: &[crate::types::Quality]) -> Fault {
    let frames: Vec<String> = quality
        .iter()
        .enumerate()
        .filter(|(_, q)| !q.reasons.is_empty())
        .map(|(i, q)| {
            let reasons: Vec<&str> = q.reasons.iter().map(|r| r.explanation()).collect();
            format!("frame {i}: {}", reasons.join(", "))
        })
        .collect();
    let zh: Vec<String> = quality.iter().enumerate().filter_map(words::zh_of_frame).collect();
    let fault = Fault::precondition("LOW_QUALITY", "frames", frames.join("; "));
    let mut fault = fault.in_chinese(zh.join("；"));
    fault.more().quality = quality.iter().map(proto::Quality::from).collect();
    let detail = fault.enroll_error();
    fault.details.push(any("assent.v1.EnrollError", &detail));
    fault
}

impl From<RevokeError> for Fault {
    fn from(error: RevokeError) -> Self {
        match &error {
            RevokeError::Store(_) | RevokeError::Unread(_) | RevokeError::InDoubt => {
                tracing::error!(fault = %chain(&error), "revocation not acknowledged");
                Self::new(Code::Unavailable, error.to_string())
            }
            RevokeError::Internal => Self::internal(&error),
        }
    }
}

impl From<ApplyError> for Fault {
    fn from(error: ApplyError) -> Self {
        match error {
            ApplyError::Policy(fault) => fault.into(),
            ApplyError::OperatingPoint(fault) => {
                Self::precondition("OPERATING_POINT", "toml", fault)
            }
            ApplyError::Liveness(fault) => Self::precondition("LIVENESS_MODEL", "toml", fault),
            ApplyError::LowOnSpace => Self::precondition(LOW_ON_SPACE, "store", error),
            ApplyError::Store(_) | ApplyError::Internal => Self::internal(&error),
        }
    }
}

impl From<FilingError> for Fault {
    fn from(error: FilingError) -> Self {
        match error {
            FilingError::UnknownController => {
                Self::precondition("CONTROLLER_UNKNOWN", "controller_id", error)
            }
            FilingError::Refused(refusal) => refusal.into(),
            FilingError::LowOnSpace => Self::precondition(LOW_ON_SPACE, "store", error),
            FilingError::Store(_) | FilingError::Internal => Self::internal(&error),
        }
    }
}

impl From<MarkRefusal> for Fault {
    fn from(refusal: MarkRefusal) -> Self {
        let zh = refusal.zh();
        let fault = match &refusal {
            MarkRefusal::Future { .. } | MarkRefusal::TooEarly { .. } => {
                Self::field("date", refusal)
            }
            MarkRefusal::OtherNumber(_) => Self::field("number", refusal),
            MarkRefusal::NoSuchDuty(_)
            | MarkRefusal::AlreadyFiled(_)
            | MarkRefusal::NotFiled
            | MarkRefusal::NoMark
            | MarkRefusal::StillHolds { .. } => {
                Self::precondition("FILING", "controller_id", refusal)
            }
        };
        fault.in_chinese(zh)
    }
}

impl From<PolicyError> for Fault {
    fn from(error: PolicyError) -> Self {
        Self::refusal(error.kind(), "POLICY", "toml", &error).in_chinese(error.zh())
    }
}

impl From<NoticeError> for Fault {
    fn from(error: NoticeError) -> Self {
        match error {
            NoticeError::Unknown => Self::new(Code::NotFound, error.to_string())
                .in_chinese("没有这份告知书，或没有这个版本".to_owned()),
        }
    }
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        if matches!(error, StoreError::LowOnSpace) {
            return Self::precondition(LOW_ON_SPACE, "store", error);
        }
        Self::internal(&error)
    }
}
