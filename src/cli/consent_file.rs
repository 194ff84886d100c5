//! The consent file of `assent enroll`: one consent record as TOML, written by people.

use std::path::Path;

use serde::{Deserialize, Deserializer};

use super::exit::{Exit, Failure};
use crate::consent::{AlternativeMethod, ConsentForm, LawfulBasis, Sha256, SubjectClass};
use crate::service::{WireTime, proto};
use crate::types::Timestamp;

use super::files::read;

/// One consent record. Times are RFC 3339, digests 64 hexadecimal digits.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ConsentFile {
    /// Unique per controller. In bulk enrolment "{subject}" in it stands for the subject.
    consent_id: String,
    purpose: String,
    scope: String,
    notice_id: String,
    notice_version: String,
    notice_sha256: Sha256,
    form: ConsentForm,
    channel: String,
    #[serde(deserialize_with = "time")]
    captured_at: Timestamp,
    #[serde(deserialize_with = "time")]
    expires_at: Timestamp,
    evidence_sha256: Sha256,
    bundled: bool,
    alternative_offered: AlternativeMethod,
    #[serde(default = "consent")]
    lawful_basis: LawfulBasis,
    #[serde(default)]
    legal_reference: String,
    #[serde(default = "adult")]
    subject_class: SubjectClass,
    guardian: Option<GuardianFile>,
    #[serde(default, deserialize_with = "optional_time")]
    reconsent_by: Option<Timestamp>,
    #[serde(default)]
    offdevice_processing: bool,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct GuardianFile {
    guardian_ref: String,
    relation: String,
    evidence_sha256: Sha256,
    minor_rules_version: String,
}

/// With quotes or without: TOML has dates of its own.
fn time<'de, D: Deserializer<'de>>(from: D) -> Result<Timestamp, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Text(String),
        Date(toml::value::Datetime),
    }
    let text = match Written::deserialize(from)? {
        Written::Text(text) => text,
        Written::Date(date) => date.to_string(),
    };
    text.parse().map_err(serde::de::Error::custom)
}

fn optional_time<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Timestamp>, D::Error> {
    time(from).map(Some)
}

fn consent() -> LawfulBasis {
    LawfulBasis::Consent
}

fn adult() -> SubjectClass {
    SubjectClass::Adult
}

impl ConsentFile {
    /// Reads the file's text.
    fn parse(text: &str) -> Result<Self, Failure> {
        toml::from_str(text).map_err(|fault| {
            Failure::new(Exit::Usage, format!("the consent file is not valid: {fault}"))
        })
    }

    /// Reads the file at `path`.
    pub(super) fn read(path: &Path) -> Result<Self, Failure> {
        let text = String::from_utf8(read(path)?).map_err(|_not_text| {
            Failure::new(Exit::Usage, "the consent file is not UTF-8 text").about(path)
        })?;
        Self::parse(&text).map_err(|failure| failure.about(path))
    }

    /// Whether the consent id differs from subject to subject.
    pub(super) fn is_for_many(&self) -> bool {
        self.consent_id.contains("{subject}")
    }

    /// The record on the wire, for one subject.
    pub(super) fn for_subject(&self, subject: &str) -> proto::ConsentRecord {
        proto::ConsentRecord {
            consent_id: self.consent_id.replace("{subject}", subject),
            purpose: self.purpose.clone(),
            scope: self.scope.clone(),
            notice_id: self.notice_id.clone(),
            notice_version: self.notice_version.clone(),
            notice_sha256: self.notice_sha256.0.to_vec(),
            form: match self.form {
                ConsentForm::Electronic => proto::ConsentForm::Electronic,
                ConsentForm::Written => proto::ConsentForm::Written,
            }
            .into(),
            channel: self.channel.clone(),
            captured_at: Some(WireTime::from(self.captured_at)),
            expires_at: Some(WireTime::from(self.expires_at)),
            evidence_sha256: self.evidence_sha256.0.to_vec(),
            bundled: Some(self.bundled),
            alternative_offered: proto::AlternativeMethod::from(self.alternative_offered).into(),
            lawful_basis: match self.lawful_basis {
                LawfulBasis::Consent => proto::LawfulBasis::Consent,
                LawfulBasis::LegalObligation => proto::LawfulBasis::LegalObligation,
            }
            .into(),
            legal_reference: self.legal_reference.clone(),
            subject_class: proto::SubjectClass::from(self.subject_class).into(),
            guardian: self.guardian.as_ref().map(GuardianFile::to_wire),
            reconsent_by: self.reconsent_by.map(WireTime::from),
            offdevice_processing: self.offdevice_processing,
        }
    }
}

impl GuardianFile {
    fn to_wire(&self) -> proto::Guardian {
        proto::Guardian {
            guardian_ref: self.guardian_ref.clone(),
            relation: self.relation.clone(),
            evidence_sha256: self.evidence_sha256.0.to_vec(),
            minor_rules_version: self.minor_rules_version.clone(),
        }
    }
}
