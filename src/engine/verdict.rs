//! What a gate asks, and what it is answered: the values that go in and out of [`Engine::verify`].
//!
//! [`Engine::verify`]: super::Engine::verify

use std::time::{Duration, Instant};

use thiserror::Error;

use super::operating_point::Outgrown;
use super::{Probe, ProbeFault};
use crate::consent::{Alternatives, Comparison, Down, GateRefusal, Intent};
use crate::index::{IndexError, Match};
use crate::pipeline::{DecodeError, StageTimings};
use crate::store::StoreError;
use crate::types::{GateId, Quality, Revision, ShortText, SubjectRef, Timestamp};

/// The gate's own liveness verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PadVerdict {
    /// The gate has no liveness check.
    None,
    /// A living person.
    Live,
    /// A photo, screen or mask.
    Spoof,
    /// The gate cannot tell.
    Unsure,
}

/// What the gate says about liveness (presentation attack detection, ISO/IEC 30107).
#[derive(Debug, Clone)]
pub struct PadReport {
    /// Its verdict.
    pub verdict: PadVerdict,
    /// How it looked, for the audit trail.
    pub method: Option<ShortText>,
    /// Its own score, for the audit trail.
    pub score: Option<f32>,
}

impl PadReport {
    /// Takes it out, and leaves that the gate says nothing.
    pub(super) fn take(&mut self) -> Self {
        let nothing = Self { verdict: PadVerdict::None, method: None, score: None };
        std::mem::replace(self, nothing)
    }
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
    /// What the gate says about liveness.
    pub pad: PadReport,
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
    /// A photo, screen or mask, or nobody can tell that it is none where the policy wants to know.
    SpoofSuspected,
    /// Too old a frame: by its own time, or because the gate has sent a newer one since.
    StaleFrame,
    /// Too many failed attempts at the claimed subject: nothing was looked at.
    LockedOut {
        /// From when on it may be tried again.
        retry_after: Duration,
    },
    /// The policy has faces switched off at this gate: nothing was looked at.
    FaceDisabled,
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
            Self::LockedOut { .. } => "locked_out",
            Self::FaceDisabled => "face_disabled",
        }
    }

    /// Who matched, if anybody did.
    #[must_use]
    pub fn found(&self) -> Option<&Match> {
        if let Self::Match(found) = self { Some(found) } else { None }
    }

    /// How long the claimed subject's face has to wait, if it has to.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        if let Self::LockedOut { retry_after } = self { Some(*retry_after) } else { None }
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
    /// Those of them that are known to be down.
    pub down: Down,
    /// What was measured about the face.
    pub quality: Option<Quality>,
    /// The liveness model's score, where it was asked.
    pub liveness: Option<f32>,
    /// The revision that the answer rests on.
    pub revision: Revision,
    /// The revision of the policy that it rests on.
    pub policy: Revision,
    /// Where the time went.
    pub timings: Timings,
}

/// Why there is no decision.
#[derive(Debug, Error)]
pub enum VerifyError {
    /// The gate is unknown or may not ask this.
    #[error(transparent)]
    Gate(#[from] GateRefusal),
    /// The gallery has outgrown the gate's operating point, and its policy refuses then.
    #[error(transparent)]
    Outgrown(#[from] Outgrown),
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
