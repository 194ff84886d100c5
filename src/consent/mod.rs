//! The law as a pure state machine: notices, gates, consent records, grants, profiles.
//!
//! # Invariants
//! - No I/O and no clock: every function is given `now`.
//! - A [`Grant`] comes from a gate's policy or an admitted consent and from nowhere else; the
//!   index is searched with one or not at all.
//! - Nothing is admitted by default: what a rule does not allow is refused, with the field and the
//!   rule.

mod admission;
mod assessment;
mod calendar;
mod deployment;
mod document;
mod draft;
mod explain;
mod fields;
mod filing;
mod gate;
mod grant;
mod notice;
mod operating_point;
mod pass;
mod policy;
mod profile;
mod record;
mod refusal;
mod tag;
#[cfg(test)]
mod tests;
mod words;

pub use admission::{Admitted, ParsedConsent};
pub use assessment::{Assessment, AssessmentStanding};
pub use calendar::{BeijingDay, Calendar, CalendarFault, InvalidDay, PastCalendar};
pub use deployment::{Deployment, DeploymentMode};
pub use document::PolicyDocument;
pub use draft::{ConsentDraft, ConsentFault, ConsentRefusal, GuardianDraft};
pub use explain::Explanation;
pub use filing::{
    Cancelled, Deadline, Filed, FilingDuty, FilingMark, FilingNumber, FilingRecord, FilingRules,
    FilingState, Holding, InvalidNumber, MarkRefusal, material,
};
pub use gate::{
    AllowedComparison, Alternative, Alternatives, Comparison, DEFAULT_MIN_EYE_DISTANCE_PX, Down,
    Gate, HEARTBEAT_S, Intent, InvalidMargin, Margin, NoAlternative, PadPolicy, PlaceRule,
    PlaceType, PublicPlace, WhenOutgrown,
};
pub use grant::Grant;
pub use notice::{Controller, Notice, NoticeStanding, NoticeText, PublicText};
pub use operating_point::{
    Calibration, CalibrationError, ErrorRate, InvalidRate, RateOutsideTable, Reach, Threshold,
    ThresholdBasis,
};
pub use pass::{GatePass, GateRefusal};
pub use policy::{Change, ChangeKind, Policy, PolicyObject};
pub use profile::{DuplicatePolicy, Profile, UnknownProfile};
pub use record::{
    AlternativeMethod, ConsentForm, ConsentRecord, Guardian, LawfulBasis, Sha256, SubjectClass,
};
pub use refusal::{PolicyError, PolicyFault, RefusalKind};
pub use tag::{ClassKey, ConsentTag};
pub use words::zh_of_text;
