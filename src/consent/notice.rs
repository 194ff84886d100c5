//! What a person is told before consenting (C6 of REQUIREMENTS, M5), and who tells it.
//!
//! # Canonical form of a notice
//! The digest that a consent record names is SHA-256 over, in this order:
//!
//! ```text
//! text  "assent notice v1"
//! text  controller, notice id, version, effective_from (RFC 3339, UTC)
//! list  purposes, in the document's order
//! list  texts, in the document's order, each: text language, controller_contact,
//!       purpose_and_method, retention, necessity_and_impact, rights
//!
//! text  = number of bytes (u64, big endian), then the bytes (UTF-8)
//! list  = number of elements (u64, big endian), then the elements
//! ```
//!
//! Lengths come first, so that no two notices have the same form.
//!
//! # Invariants
//! - A notice is immutable: other content under the same version is refused by the policy.
//! - A notice names at least one purpose and has at least one complete text.

use serde::{Deserialize, Serialize};
use sha2::Digest;

use super::profile::DuplicatePolicy;
use super::record::Sha256;
use crate::types::{
    ControllerId, InvalidText, NoticeId, NoticeVersion, Purpose, TextFault, Timestamp,
};

/// Longest public text, bytes.
const PUBLIC_TEXT_BYTES: usize = 16 << 10;
/// First field of the canonical form.
const FORM: &str = "assent notice v1";

/// A text that the controller publishes, 1 to 16,384 bytes. Unlike every other free string it may
/// hold a telephone number or an e-mail address: the law asks for the controller's own (M5).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PublicText(Box<str>);

impl PublicText {
    /// Parses the text. Line breaks become LF, so that an editor's habit is no change of content.
    ///
    /// # Errors
    /// Blank, too long, or control characters other than line breaks and tabs.
    pub fn parse(text: impl Into<String>) -> Result<Self, InvalidText> {
        let text = text.into().replace("\r\n", "\n");
        let fault = if text.trim().is_empty() {
            TextFault::Empty
        } else if text.len() > PUBLIC_TEXT_BYTES {
            TextFault::TooLong { limit: PUBLIC_TEXT_BYTES }
        } else if text.chars().any(|c| c.is_control() && !"\n\t".contains(c)) {
            TextFault::Control
        } else {
            return Ok(Self(text.into_boxed_str()));
        };
        Err(InvalidText { what: "text", fault })
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for PublicText {
    type Error = InvalidText;

    fn try_from(text: String) -> Result<Self, InvalidText> {
        Self::parse(text)
    }
}

impl From<PublicText> for String {
    fn from(text: PublicText) -> Self {
        text.0.into()
    }
}

/// The legal person that runs the gates.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Controller {
    /// Its id.
    pub id: ControllerId,
    /// Its name (M5).
    pub name: PublicText,
    /// How to reach it (M5).
    pub contact: PublicText,
    /// What happens to duplicates; where unset the profile says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duplicates: Option<DuplicatePolicy>,
    /// Records that nobody used for as many calendar months are erased (C7).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inactive_months: Option<u32>,
    /// The last serious security incident: impact assessments of before hold no longer (M9).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub incident_at: Option<Timestamp>,
}

/// A notice in one language: what M5 demands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NoticeText {
    /// BCP 47 language tag, such as "zh-CN".
    pub language: PublicText,
    /// Name and contact of the controller.
    pub controller_contact: PublicText,
    /// Purpose and method of processing.
    pub purpose_and_method: PublicText,
    /// How long the template is held.
    pub retention: PublicText,
    /// Why it is necessary and what it means for the person.
    pub necessity_and_impact: PublicText,
    /// The person's rights and how to use them.
    pub rights: PublicText,
}

/// One immutable version of a notice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Notice {
    /// Who tells.
    pub controller: ControllerId,
    /// The notice, all versions of it.
    pub id: NoticeId,
    /// This version.
    pub version: NoticeVersion,
    /// From when on it may be consented to.
    pub effective_from: Timestamp,
    /// The purposes that it covers, at least one.
    pub purposes: Vec<Purpose>,
    /// The text, in one or more languages.
    pub texts: Vec<NoticeText>,
}

impl Notice {
    /// Digest of the canonical form that this file draws.
    #[must_use]
    pub fn sha256(&self) -> Sha256 {
        let mut form = CanonicalForm::default();
        form.text(FORM);
        form.text(self.controller.as_str());
        form.text(self.id.as_str());
        form.text(self.version.as_str());
        form.text(&self.effective_from.to_string());
        form.count(self.purposes.len());
        for purpose in &self.purposes {
            form.text(purpose.as_str());
        }
        form.count(self.texts.len());
        for field in self.texts.iter().flat_map(NoticeText::fields) {
            form.text(field.as_str());
        }
        form.finish()
    }
}

impl NoticeText {
    fn fields(&self) -> [&PublicText; 6] {
        [
            &self.language,
            &self.controller_contact,
            &self.purpose_and_method,
            &self.retention,
            &self.necessity_and_impact,
            &self.rights,
        ]
    }
}

#[derive(Default)]
struct CanonicalForm(sha2::Sha256);

impl CanonicalForm {
    fn count(&mut self, n: usize) {
        self.0.update((n as u64).to_be_bytes());
    }

    fn text(&mut self, text: &str) {
        self.count(text.len());
        self.0.update(text);
    }

    fn finish(self) -> Sha256 {
        Sha256(self.0.finalize().into())
    }
}

/// Where a version of a notice stands at some instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoticeStanding {
    /// Its time has not come.
    NotYetEffective,
    /// It is the version to consent to.
    Current,
    /// A later version took its place.
    Superseded {
        /// When the later version became effective.
        at: Timestamp,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(value: &str) -> PublicText {
        PublicText::parse(value).unwrap()
    }

    fn notice() -> Notice {
        let words = NoticeText {
            language: text("en"),
            controller_contact: text("Maple, desk@maple.example"),
            purpose_and_method: text("doors"),
            retention: text("a year"),
            necessity_and_impact: text("no queue"),
            rights: text("withdraw at the desk"),
        };
        Notice {
            controller: ControllerId::parse("maple").unwrap(),
            id: NoticeId::parse("entry").unwrap(),
            version: NoticeVersion::parse("1").unwrap(),
            effective_from: "2026-01-01T00:00:00Z".parse().unwrap(),
            purposes: vec![Purpose::parse("a").unwrap(), Purpose::parse("bc").unwrap()],
            texts: vec![words],
        }
    }

    /// The form written out by hand, so that another program can be checked against it.
    #[test]
    fn the_digest_is_that_of_the_documented_form() {
        let mut form = Vec::new();
        let put = |form: &mut Vec<u8>, text: &str| {
            form.extend((text.len() as u64).to_be_bytes());
            form.extend(text.bytes());
        };
        for text in ["assent notice v1", "maple", "entry", "1", "2026-01-01T00:00:00Z"] {
            put(&mut form, text);
        }
        form.extend(2_u64.to_be_bytes());
        for purpose in ["a", "bc"] {
            put(&mut form, purpose);
        }
        form.extend(1_u64.to_be_bytes());
        for field in notice().texts[0].fields() {
            put(&mut form, field.as_str());
        }
        assert_eq!(notice().sha256().0, <[u8; 32]>::from(sha2::Sha256::digest(&form)));
    }

    #[test]
    fn every_part_of_a_notice_changes_its_digest() {
        let changes: [fn(&mut Notice); 11] = [
            |n| n.controller = ControllerId::parse("other").unwrap(),
            |n| n.id = NoticeId::parse("other").unwrap(),
            |n| n.version = NoticeVersion::parse("2").unwrap(),
            |n| n.effective_from = n.effective_from.plus_ms(1),
            |n| n.purposes = vec![Purpose::parse("abc").unwrap()],
            |n| n.texts[0].language = text("fr"),
            |n| n.texts[0].controller_contact = text("x"),
            |n| n.texts[0].purpose_and_method = text("x"),
            |n| n.texts[0].retention = text("x"),
            |n| n.texts[0].necessity_and_impact = text("x"),
            |n| n.texts[0].rights = text("x"),
        ];
        for (i, change) in changes.into_iter().enumerate() {
            let mut other = notice();
            change(&mut other);
            assert_ne!(other.sha256(), notice().sha256(), "change {i}");
        }
    }

    #[test]
    fn text_moved_from_one_field_to_the_next_changes_the_digest() {
        let mut other = notice();
        other.purposes = vec![Purpose::parse("ab").unwrap(), Purpose::parse("c").unwrap()];
        assert_ne!(other.sha256(), notice().sha256());
    }

    #[test]
    fn a_public_text_is_printable_and_there() {
        assert!(PublicText::parse("a\nb\t13812345678").is_ok());
        for bad in [String::new(), " \n".into(), "a\0".into(), "x".repeat(PUBLIC_TEXT_BYTES + 1)] {
            assert!(PublicText::parse(bad).is_err());
        }
    }
}
