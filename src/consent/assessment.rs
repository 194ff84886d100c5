//! Impact assessments: what a controller has to think through before it enrols anybody (O2, M9).
//!
//! # Invariants
//! - An assessment is immutable and never vanishes: M9 wants it kept for three years, and a court
//!   asks what was known then.
//! - It covers the purposes and the model that it names. Another purpose, or another model, makes
//!   it stale, and so does a serious security incident after it: M9 wants a new one then.

use serde::Serialize;

use super::notice::PublicText;
use super::record::Sha256;
use crate::types::{ControllerId, ModelContract, NoticeVersion, Purpose, Timestamp};

/// One impact assessment, with the four parts that M9 names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Assessment {
    /// Whose.
    pub controller: ControllerId,
    /// Its version.
    pub version: NoticeVersion,
    /// When it was concluded.
    pub assessed_at: Timestamp,
    /// The purposes that it covers, at least one.
    pub purposes: Vec<Purpose>,
    /// The model that it is about.
    pub model: ModelContract,
    /// Digest of the signed document that the controller keeps.
    pub document_sha256: Sha256,
    /// Whether purpose and method are lawful, legitimate and necessary.
    pub lawfulness: PublicText,
    /// What it means for people's rights, and what reduces that.
    pub impact: PublicText,
    /// The risk that face data leak, are altered, lost or abused, and what harm that could do.
    pub risks: PublicText,
    /// The measures taken, and why they are lawful, effective and fit for the risk.
    pub safeguards: PublicText,
}

/// Whether a controller may enrol for a purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AssessmentStanding {
    /// One covers the purpose and the model.
    Current,
    /// There are some, but none for this purpose.
    OtherPurpose,
    /// One covers the purpose, but it is about another model.
    OtherModel,
    /// One covers both, but a serious security incident came after it.
    BeforeIncident,
    /// There is none, or none that was concluded yet.
    Missing,
}

impl AssessmentStanding {
    /// "current", "other_purpose", "other_model", "before_incident" or "missing".
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Current => "current",
            Self::OtherPurpose => "other_purpose",
            Self::OtherModel => "other_model",
            Self::BeforeIncident => "before_incident",
            Self::Missing => "missing",
        }
    }

    /// Where a purpose stands with these assessments at `now`, after an `incident` if there was one.
    pub(super) fn of<'a>(
        assessments: impl Iterator<Item = &'a Assessment>,
        purpose: &Purpose,
        model: Option<&ModelContract>,
        incident: Option<Timestamp>,
        now: Timestamp,
    ) -> Self {
        let mut standing = Self::Missing;
        for assessment in assessments.filter(|a| a.assessed_at <= now) {
            let named = assessment.purposes.contains(purpose);
            let of_model = model.is_none_or(|model| *model == assessment.model);
            let holds = incident.is_none_or(|incident| assessment.assessed_at > incident);
            match (named, of_model) {
                (true, true) if holds => return Self::Current,
                (true, true) => standing = Self::BeforeIncident,
                (true, false) if standing != Self::BeforeIncident => standing = Self::OtherModel,
                (false, _) if standing == Self::Missing => standing = Self::OtherPurpose,
                (true, false) | (false, _) => {}
            }
        }
        standing
    }
}
