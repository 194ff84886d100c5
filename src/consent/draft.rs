//! A consent record as it arrives: nothing about it is believed yet.
//!
//! # Invariants
//! - Reading a draft looks at its fields alone; what the policy and the clock say about it is
//!   `admission`'s to check.
//! - Every free string is refused when it holds a personal identifier (D1), and no refusal repeats
//!   the string. Drafts have no `Debug`: an unchecked string must not reach a log.

use thiserror::Error;

use super::record::{
    AlternativeMethod, ConsentForm, ConsentRecord, Guardian, LawfulBasis, Sha256, SubjectClass,
};
use super::refusal::RefusalKind;
use crate::types::{ControllerId, InvalidText, ShortText, SubjectRef, TextFault, Timestamp};

/// Longest channel or relation, bytes.
const WORD_BYTES: usize = 64;

/// One separate consent as the wire gives it: unset strings and digests are empty.
///
/// One purpose and one scope: a list of either has no place here (C2).
#[derive(Clone, Default)]
#[expect(missing_docs, reason = "each field is the one of that name in `ConsentRecord`")]
pub struct ConsentDraft {
    pub consent_id: String,
    pub purpose: String,
    pub scope: String,
    pub notice_id: String,
    pub notice_version: String,
    pub notice_sha256: Vec<u8>,
    pub form: Option<ConsentForm>,
    pub channel: String,
    pub captured_at: Option<Timestamp>,
    pub expires_at: Option<Timestamp>,
    pub evidence_sha256: Vec<u8>,
    /// Whether consent was bundled with something else: must be said, must be false (C2, SPC 4).
    pub bundled: Option<bool>,
    pub alternative_offered: Option<AlternativeMethod>,
    pub lawful_basis: Option<LawfulBasis>,
    pub legal_reference: String,
    pub subject_class: Option<SubjectClass>,
    pub guardian: Option<GuardianDraft>,
    pub reconsent_by: Option<Timestamp>,
    pub offdevice_processing: bool,
}

/// A guardian's consent as the wire gives it.
#[derive(Clone, Default)]
#[expect(missing_docs, reason = "each field is the one of that name in `Guardian`")]
pub struct GuardianDraft {
    pub guardian_ref: String,
    pub relation: String,
    pub evidence_sha256: Vec<u8>,
    pub minor_rules_version: String,
}

/// A consent record that was refused. Nothing was stored.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{field}: {fault}")]
pub struct ConsentRefusal {
    /// The field at fault as on the wire, such as "consent.scope" or "subject_ref".
    pub field: &'static str,
    /// What is wrong with it.
    pub fault: ConsentFault,
}

/// What is wrong with a consent record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ConsentFault {
    /// C1: every field is mandatory.
    #[error("is missing")]
    Missing,
    /// Malformed, or a personal identifier (D1).
    #[error("{0}")]
    Text(TextFault),
    /// Not a SHA-256 digest.
    #[error("a SHA-256 digest has 32 bytes, not {length}")]
    Digest {
        /// Bytes found.
        length: usize,
    },
    /// Consent cannot be given in the future.
    #[error("lies in the future")]
    InFuture,
    /// Ends before it begins.
    #[error("is not after the time of consent")]
    NotAfterCapture,
    /// Expired before it was enrolled.
    #[error("is already past")]
    Past,
    /// C7: held for longer than the profile allows.
    #[error("is more than {max_days} days after the time of consent")]
    RetentionTooLong {
        /// The profile's maximum.
        max_days: u32,
    },
    /// C2: agree or no service.
    #[error("consent that was bundled with something else is no consent (SPC 4)")]
    Bundled,
    /// No such controller was applied.
    #[error("there is no such controller")]
    UnknownController,
    /// C6: no such notice was applied.
    #[error("the controller has no such notice in this version")]
    UnknownNotice,
    /// C6: a later version took its place.
    #[error("this version was superseded at {at} and its days of grace are over")]
    NoticeSuperseded {
        /// When the later version became effective.
        at: Timestamp,
    },
    /// C6: consent to what was not yet in force.
    #[error("the notice becomes effective only at {from}")]
    NoticeNotYetEffective {
        /// When it becomes effective.
        from: Timestamp,
    },
    /// C6: the person was shown another text.
    #[error("is not the digest of this notice")]
    NoticeDiffers,
    /// C6: the notice does not speak of it.
    #[error("the notice does not name this purpose")]
    PurposeNotInNotice,
    /// C3: a template that no gate could use must not be held (PIPL 6).
    #[error("no gate of the controller serves this purpose in this scope")]
    NoGate,
    /// C8: the deployment is reached over the Internet.
    #[error(
        "templates are reached over the Internet here, which needs the person's separate consent (M8)"
    )]
    OffdeviceConsentMissing,
    /// O2: nobody thought it through.
    #[error("the controller has no impact assessment in force; apply one first (M9)")]
    AssessmentMissing,
    /// O2: the purpose is new.
    #[error(
        "the controller's impact assessment does not cover this purpose; conclude a new one (M9)"
    )]
    AssessmentForOtherPurpose,
    /// O2: the model is new.
    #[error("the controller's impact assessment is about another model; conclude a new one (M9)")]
    AssessmentForOtherModel,
    /// O2: what was thought through did not hold.
    #[error(
        "the controller's impact assessment was concluded before its last security incident; \
         conclude a new one (M9)"
    )]
    AssessmentBeforeIncident,
    /// C9: the profile accepts consent only.
    #[error("the profile accepts no basis other than consent")]
    BasisNotAllowed,
    /// C9: a statutory duty names its statute.
    #[error("a basis other than consent needs the law that it rests on")]
    LegalReferenceMissing,
    /// C5: the profile does not enrol children.
    #[error("the profile does not allow children to be enrolled")]
    ChildrenNotAllowed,
    /// C5: a child needs it.
    #[error("a child under 14 needs it (M7)")]
    NeededForChild,
    /// C5: it would say that an adult is a child.
    #[error("belongs to a child's consent only; leave it out")]
    ForChildrenOnly,
}

impl ConsentRefusal {
    /// Whose turn it is.
    #[must_use]
    pub fn kind(&self) -> RefusalKind {
        self.fault.kind()
    }
}

impl ConsentFault {
    fn kind(self) -> RefusalKind {
        match self {
            Self::Missing
            | Self::Text(_)
            | Self::Digest { .. }
            | Self::InFuture
            | Self::NotAfterCapture
            | Self::ForChildrenOnly => RefusalKind::Field,
            Self::Past
            | Self::RetentionTooLong { .. }
            | Self::Bundled
            | Self::UnknownController
            | Self::UnknownNotice
            | Self::NoticeSuperseded { .. }
            | Self::NoticeNotYetEffective { .. }
            | Self::NoticeDiffers
            | Self::PurposeNotInNotice
            | Self::NoGate
            | Self::OffdeviceConsentMissing
            | Self::AssessmentMissing
            | Self::AssessmentForOtherPurpose
            | Self::AssessmentForOtherModel
            | Self::AssessmentBeforeIncident
            | Self::BasisNotAllowed
            | Self::LegalReferenceMissing
            | Self::ChildrenNotAllowed
            | Self::NeededForChild => RefusalKind::State,
        }
    }
}

pub(super) fn refuse(field: &'static str, fault: ConsentFault) -> ConsentRefusal {
    ConsentRefusal { field, fault }
}

impl ConsentDraft {
    /// The record that the draft's fields spell, checked against nothing but themselves.
    pub(super) fn read(self, controller: ControllerId) -> Result<ConsentRecord, ConsentRefusal> {
        refuse_bundled(self.bundled)?;
        Ok(ConsentRecord {
            controller,
            consent_id: text("consent.consent_id", self.consent_id)?,
            purpose: text("consent.purpose", self.purpose)?,
            scope: text("consent.scope", self.scope)?,
            notice_id: text("consent.notice_id", self.notice_id)?,
            notice_version: text("consent.notice_version", self.notice_version)?,
            notice_sha256: digest("consent.notice_sha256", &self.notice_sha256)?,
            form: present("consent.form", self.form)?,
            channel: word("consent.channel", self.channel)?,
            captured_at: present("consent.captured_at", self.captured_at)?,
            expires_at: present("consent.expires_at", self.expires_at)?,
            evidence_sha256: digest("consent.evidence_sha256", &self.evidence_sha256)?,
            alternative_offered: present("consent.alternative_offered", self.alternative_offered)?,
            lawful_basis: present("consent.lawful_basis", self.lawful_basis)?,
            legal_reference: optional_text("consent.legal_reference", self.legal_reference)?,
            subject_class: present("consent.subject_class", self.subject_class)?,
            guardian: self.guardian.map(GuardianDraft::read).transpose()?,
            reconsent_by: self.reconsent_by,
            offdevice_processing: self.offdevice_processing,
        })
    }
}

impl GuardianDraft {
    fn read(self) -> Result<Guardian, ConsentRefusal> {
        let evidence_sha256 = digest("consent.guardian.evidence_sha256", &self.evidence_sha256)?;
        Ok(Guardian {
            guardian_ref: text::<SubjectRef>("consent.guardian.guardian_ref", self.guardian_ref)?,
            relation: word("consent.guardian.relation", self.relation)?,
            evidence_sha256,
            minor_rules_version: text(
                "consent.guardian.minor_rules_version",
                self.minor_rules_version,
            )?,
        })
    }
}

/// C2: silence is not a no.
fn refuse_bundled(bundled: Option<bool>) -> Result<(), ConsentRefusal> {
    if present("consent.bundled", bundled)? {
        return Err(refuse("consent.bundled", ConsentFault::Bundled));
    }
    Ok(())
}

fn present<T>(field: &'static str, value: Option<T>) -> Result<T, ConsentRefusal> {
    value.ok_or(refuse(field, ConsentFault::Missing))
}

/// Parses one of the types that cannot hold a personal identifier.
pub(super) fn text<T>(field: &'static str, value: String) -> Result<T, ConsentRefusal>
where
    T: TryFrom<String, Error = InvalidText>,
{
    T::try_from(value).map_err(|InvalidText { fault, .. }| {
        let missing = fault == TextFault::Empty;
        refuse(field, if missing { ConsentFault::Missing } else { ConsentFault::Text(fault) })
    })
}

fn word(field: &'static str, value: String) -> Result<ShortText, ConsentRefusal> {
    if value.len() > WORD_BYTES {
        return Err(refuse(field, ConsentFault::Text(TextFault::TooLong { limit: WORD_BYTES })));
    }
    text(field, value)
}

fn optional_text(field: &'static str, value: String) -> Result<Option<ShortText>, ConsentRefusal> {
    if value.is_empty() { Ok(None) } else { text(field, value).map(Some) }
}

fn digest(field: &'static str, bytes: &[u8]) -> Result<Sha256, ConsentRefusal> {
    if bytes.is_empty() {
        return Err(refuse(field, ConsentFault::Missing));
    }
    bytes
        .try_into()
        .map(Sha256)
        .map_err(|_not_32_bytes| refuse(field, ConsentFault::Digest { length: bytes.len() }))
}
