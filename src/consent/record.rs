//! One separate consent, admitted.

use serde::{Deserialize, Serialize};

use super::tag::{ClassKey, ConsentTag};
use crate::types::{
    ConsentId, ControllerId, NoticeId, NoticeVersion, Purpose, Scope, ShortText, SubjectRef,
    Timestamp,
};

/// A SHA-256 digest; written as 64 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Sha256(pub [u8; 32]);

impl Sha256 {
    /// The digest of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        use sha2::Digest as _;
        Self(sha2::Sha256::digest(bytes).into())
    }
}

impl TryFrom<String> for Sha256 {
    type Error = hex::FromHexError;

    fn try_from(text: String) -> Result<Self, hex::FromHexError> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes)?;
        Ok(Self(bytes))
    }
}

impl From<Sha256> for String {
    fn from(digest: Sha256) -> Self {
        hex::encode(digest.0)
    }
}

/// The form in which consent was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConsentForm {
    /// By an electronic act of the person.
    Electronic,
    /// On paper.
    Written,
}

/// The legal basis of processing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LawfulBasis {
    /// Separate consent.
    Consent,
    /// A statutory duty; needs a legal reference and a profile that allows it.
    LegalObligation,
}

/// Who the person is before the law. Never a birth date.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SubjectClass {
    /// 14 years or older.
    Adult,
    /// Under 14.
    Under14,
}

/// A way past a gate that does not use the face.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AlternativeMethod {
    /// A card or key fob.
    Card,
    /// A number code.
    Code,
    /// A QR code.
    Qr,
    /// An intercom.
    Intercom,
    /// A person at the door.
    Staff,
}

impl AlternativeMethod {
    /// As a policy writes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Card => "card",
            Self::Code => "code",
            Self::Qr => "qr",
            Self::Intercom => "intercom",
            Self::Staff => "staff",
        }
    }
}

/// The guardian's consent for a child.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guardian {
    /// Opaque reference of the guardian.
    pub guardian_ref: SubjectRef,
    /// Relation to the child.
    pub relation: ShortText,
    /// Evidence of the guardian's consent.
    pub evidence_sha256: Sha256,
    /// Version of the rules for minors that applied.
    pub minor_rules_version: NoticeVersion,
}

/// An admitted consent record: one purpose, one scope, one notice version, one expiry.
///
/// Made by the policy's admission or read back from the sealed store, nowhere else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsentRecord {
    /// The controller.
    pub controller: ControllerId,
    /// The record's id, unique per controller.
    pub consent_id: ConsentId,
    /// The one purpose.
    pub purpose: Purpose,
    /// The one scope.
    pub scope: Scope,
    /// The notice.
    pub notice_id: NoticeId,
    /// Its version.
    pub notice_version: NoticeVersion,
    /// Its digest.
    pub notice_sha256: Sha256,
    /// The form.
    pub form: ConsentForm,
    /// Where it was given.
    pub channel: ShortText,
    /// When it was given.
    pub captured_at: Timestamp,
    /// When it ends.
    pub expires_at: Timestamp,
    /// Digest of the evidence that the enrolment tool keeps.
    pub evidence_sha256: Sha256,
    /// The way in that was offered instead of the face.
    pub alternative_offered: AlternativeMethod,
    /// The legal basis.
    pub lawful_basis: LawfulBasis,
    /// The law, for a basis other than consent.
    pub legal_reference: Option<ShortText>,
    /// Adult or child.
    pub subject_class: SubjectClass,
    /// For children.
    pub guardian: Option<Guardian>,
    /// For children: no match from this instant on.
    pub reconsent_by: Option<Timestamp>,
    /// Separate consent to processing away from the device.
    pub offdevice_processing: bool,
}

impl ConsentRecord {
    /// What the template may be searched for.
    #[must_use]
    pub fn class(&self) -> ClassKey {
        ClassKey {
            controller: self.controller.clone(),
            purpose: self.purpose.clone(),
            scope: self.scope.clone(),
        }
    }

    /// What rides on every match.
    #[must_use]
    pub fn tag(&self) -> ConsentTag {
        ConsentTag {
            consent_id: self.consent_id.clone(),
            class: self.class(),
            notice_version: self.notice_version.clone(),
            granted_at: self.captured_at,
            expires_at: self.expires_at,
        }
    }

    /// The instant from which on the template never matches: expiry, or the child's re-consent if
    /// that comes first.
    #[must_use]
    pub fn matches_until(&self) -> Timestamp {
        self.reconsent_by.map_or(self.expires_at, |by| by.min(self.expires_at))
    }
}
