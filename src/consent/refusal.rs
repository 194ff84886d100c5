//! Why a policy document is refused: the object, the field, the line and the rule.

use thiserror::Error;

use super::gate::{NoAlternative, PlaceType};
use super::operating_point::RateOutsideTable;
use crate::types::Timestamp;

/// Whose turn it is after a refusal; `service` makes gRPC codes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RefusalKind {
    /// A value is missing or malformed, whatever the state: INVALID_ARGUMENT.
    Field,
    /// A rule or the applied policy stands against it: FAILED_PRECONDITION.
    State,
}

/// A policy document that was refused. Nothing of it was applied.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum PolicyError {
    /// Not TOML.
    #[error("line {line}: {message}")]
    Syntax {
        /// Line of the document, from 1.
        line: usize,
        /// What the TOML parser says.
        message: String,
    },
    /// A table that the document does not have.
    #[error("line {line}: {name:?} is none of controllers, notices, assessments, gates")]
    UnknownTable {
        /// Line of the document, from 1.
        line: usize,
        /// The key.
        name: String,
    },
    /// One object is wrong.
    #[error("line {line}: {table} {id:?}: {field}: {fault}")]
    Object {
        /// Line of the document, from 1: of the field where it is there, else of the object.
        line: usize,
        /// "controllers", "notices", "assessments" or "gates".
        table: &'static str,
        /// The object's id; empty where it has none.
        id: String,
        /// The field, such as `texts[0].rights`.
        field: String,
        /// What is wrong with it.
        fault: PolicyFault,
    },
}

/// What is wrong with one field of a policy document.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum PolicyFault {
    /// A mandatory field is not there.
    #[error("is missing")]
    Missing,
    /// The object has no such field.
    #[error("is not a field here")]
    Unknown,
    /// The value does not fit.
    #[error("{message}")]
    Invalid {
        /// What was expected.
        message: String,
    },
    /// A number that is too small or too large.
    #[error("must be from {least} to {most}")]
    OutOfRange {
        /// The least.
        least: u32,
        /// The most.
        most: u32,
    },
    /// The model's calibration has no threshold for it.
    #[error("{0}")]
    RateOutsideTable(RateOutsideTable),
    /// Liveness is to be judged by a model that the pack does not have.
    #[error(
        "the model pack has no liveness model; use pad = \"gate\", or a pack whose manifest has \
         [liveness]"
    )]
    NoLivenessModel,
    /// What came to pass cannot be taken back, nor become earlier.
    #[error("an incident of {at} is applied: it can become later, but not earlier or unset (M9)")]
    IncidentTakenBack {
        /// When it was.
        at: Timestamp,
    },
    /// What did not come to pass.
    #[error("has not come: now it is {now}")]
    InFuture {
        /// Now.
        now: Timestamp,
    },
    /// A list without elements.
    #[error("needs at least one entry")]
    Empty,
    /// A list that is too long.
    #[error("has more than {limit} entries")]
    TooMany {
        /// The limit.
        limit: usize,
    },
    /// The document has this object twice.
    #[error("appears twice in the document")]
    Repeated,
    /// G1: the face would be the only way in.
    #[error(transparent)]
    NoAlternative(#[from] NoAlternative),
    /// G5: no alternative suits disabled and elderly people.
    #[error("needs at least one entry with accessible = true (M5)")]
    NoAccessibleAlternative,
    /// G3: a private room, or nobody said what place it is.
    #[error("faces are never compared in private rooms, nor where the place is unspecified (M13)")]
    ForbiddenPlace(PlaceType),
    /// G4: the profile does not allow public places.
    #[error("the profile does not allow gates in public places (M13)")]
    PublicPlace,
    /// G4: a public place is for public safety alone.
    #[error("in a public place the profile allows only: {} (M13)", .allowed.join(", "))]
    PublicPurpose {
        /// The profile's purposes.
        allowed: Vec<String>,
    },
    /// G4: sign, capture area and necessity are not stated.
    #[error(
        "a gate in a public place needs public_place with signage, capture_area and necessity (M13)"
    )]
    PublicConditions,
    /// C7: a limit that is none, or longer than the profile allows.
    #[error("is between 2 and {most} months")]
    InactiveMonths {
        /// The profile's limit.
        most: u32,
    },
    /// G1: nothing is known of the alternatives that the gate relies on.
    #[error("needs at least one alternative with heartbeat_s")]
    NothingWatched,
    /// More failed attempts than the profile allows, or none.
    #[error(
        "must be from 1 to {most}: the profile's lockout_attempts, and 50 at most where pad is none"
    )]
    LockoutTooLax {
        /// The most.
        most: u32,
    },
    /// O2: other content under the same version.
    #[error("this version was applied with other content; conclude a new version instead (M9)")]
    AssessmentIsImmutable,
    /// Neither the document nor the applied policy has this controller.
    #[error("there is no such controller")]
    UnknownController,
    /// C6: other content under the same version.
    #[error("this version was applied with other content; publish a new version instead")]
    NoticeIsImmutable,
    /// Two versions would be current at once.
    #[error("another version of this notice becomes effective at the same instant")]
    SameEffectiveDate,
}

impl PolicyError {
    /// Whose turn it is.
    #[must_use]
    pub fn kind(&self) -> RefusalKind {
        match self {
            Self::Syntax { .. } | Self::UnknownTable { .. } => RefusalKind::Field,
            Self::Object { fault, .. } => fault.kind(),
        }
    }

    /// Line of the document, from 1.
    #[must_use]
    pub fn line(&self) -> usize {
        match self {
            Self::Syntax { line, .. }
            | Self::UnknownTable { line, .. }
            | Self::Object { line, .. } => *line,
        }
    }
}

impl PolicyFault {
    fn kind(&self) -> RefusalKind {
        match self {
            Self::Missing
            | Self::Unknown
            | Self::Invalid { .. }
            | Self::OutOfRange { .. }
            | Self::Empty
            | Self::TooMany { .. }
            | Self::InactiveMonths { .. }
            | Self::RateOutsideTable(_)
            | Self::InFuture { .. }
            | Self::Repeated => RefusalKind::Field,
            Self::NoAlternative(_)
            | Self::NoAccessibleAlternative
            | Self::NothingWatched
            | Self::LockoutTooLax { .. }
            | Self::ForbiddenPlace(_)
            | Self::PublicPlace
            | Self::PublicPurpose { .. }
            | Self::PublicConditions
            | Self::AssessmentIsImmutable
            | Self::UnknownController
            | Self::NoticeIsImmutable
            | Self::NoLivenessModel
            | Self::IncidentTakenBack { .. }
            | Self::SameEffectiveDate => RefusalKind::State,
        }
    }
}
