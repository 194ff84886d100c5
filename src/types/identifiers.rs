//! Names of things. Every free string of the API becomes one of these types, and none of them can
//! hold a personal identifier (REQUIREMENTS D1).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use uuid::Uuid;

use super::personal::{PersonalIdentifier, personal_identifier};

/// Longest identifier, bytes.
const ID_BYTES: usize = 64;
/// Longest short free text, bytes.
const TEXT_BYTES: usize = 256;

/// A string that is not a valid identifier; never repeats the string.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{what} {fault}")]
pub struct InvalidText {
    /// What the string was to be, such as "subject reference".
    pub what: &'static str,
    /// What is wrong with it.
    pub fault: TextFault,
}

/// What is wrong with a string.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum TextFault {
    /// Nothing there.
    #[error("is missing")]
    Empty,
    /// Too long.
    #[error("is longer than {limit} bytes")]
    TooLong {
        /// The limit, bytes.
        limit: usize,
    },
    /// Control or other unprintable characters.
    #[error("holds a control character")]
    Control,
    /// A personal identifier.
    #[error("looks like {0}; use an opaque reference instead")]
    Personal(PersonalIdentifier),
    /// Not a UUID.
    #[error("is not a UUID")]
    NotUuid,
}

fn check(what: &'static str, text: &str, limit: usize) -> Result<(), InvalidText> {
    let fault = if text.trim().is_empty() {
        Some(TextFault::Empty)
    } else if text.len() > limit {
        Some(TextFault::TooLong { limit })
    } else if text.chars().any(char::is_control) {
        Some(TextFault::Control)
    } else {
        personal_identifier(text).map(TextFault::Personal)
    };
    fault.map_or(Ok(()), |fault| Err(InvalidText { what, fault }))
}

macro_rules! text_type {
    ($(#[$doc:meta])* $name:ident, $what:literal, $limit:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Box<str>);

        impl $name {
            /// Parses the text.
            ///
            /// # Errors
            /// Empty, too long, control characters, or a personal identifier.
            pub fn parse(text: impl Into<String>) -> Result<Self, InvalidText> {
                let text = text.into();
                check($what, &text, $limit)?;
                Ok(Self(text.into_boxed_str()))
            }

            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidText;

            fn try_from(text: String) -> Result<Self, InvalidText> {
                Self::parse(text)
            }
        }

        impl FromStr for $name {
            type Err = InvalidText;

            fn from_str(text: &str) -> Result<Self, InvalidText> {
                Self::parse(text)
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.0.into()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
    };
}

text_type!(
    /// The enrolment tool's opaque reference to a person, 1 to 64 bytes.
    SubjectRef, "subject reference", ID_BYTES
);
text_type!(
    /// The legal person that runs the gates, 1 to 64 bytes.
    ControllerId, "controller id", ID_BYTES
);
text_type!(
    /// A door or turnstile, 1 to 64 bytes.
    GateId, "gate id", ID_BYTES
);
text_type!(
    /// A consent record's id, 1 to 64 bytes.
    ConsentId, "consent id", ID_BYTES
);
text_type!(
    /// Why a face is processed, 1 to 64 bytes.
    Purpose, "purpose", ID_BYTES
);
text_type!(
    /// The place or group of doors that a consent covers, 1 to 64 bytes.
    Scope, "scope", ID_BYTES
);
text_type!(
    /// A notice, all versions of it, 1 to 64 bytes.
    NoticeId, "notice id", ID_BYTES
);
text_type!(
    /// A version of a notice, 1 to 64 bytes.
    NoticeVersion, "notice version", ID_BYTES
);
text_type!(
    /// The caller's key for repeating one enrolment safely, 1 to 64 bytes.
    IdempotencyKey, "idempotency key", ID_BYTES
);
text_type!(
    /// The embedding space of a model; templates of different contracts are never compared.
    ModelContract, "model contract", ID_BYTES
);
text_type!(
    /// The configured name of a caller, 1 to 64 bytes.
    CallerName, "caller name", ID_BYTES
);
text_type!(
    /// A free text of 1 to 256 bytes.
    ShortText, "text", TEXT_BYTES
);

/// The id of one template's record.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RecordId(Uuid);

impl RecordId {
    /// A fresh random id (UUID version 4).
    #[must_use]
    pub fn random() -> Self {
        Self(Uuid::new_v4())
    }

    /// From its 16 bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }

    /// Its 16 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }
}

impl FromStr for RecordId {
    type Err = InvalidText;

    fn from_str(text: &str) -> Result<Self, InvalidText> {
        Uuid::try_parse(text)
            .map(Self)
            .map_err(|_not_a_uuid| InvalidText { what: "record id", fault: TextFault::NotUuid })
    }
}

impl fmt::Display for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// The total order of changes in the store; 0 before the first change.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize,
)]
pub struct Revision(pub u64);

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// The place of a template in the index. A reused place has a higher generation, so that a stale
/// `SlotId` never names another person.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SlotId {
    /// Row in the arena.
    pub index: u32,
    /// How often the row was reused.
    pub generation: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identifier_is_checked_once_and_for_all() {
        assert!(SubjectRef::parse("resident-0017").is_ok());
        for (text, fault) in [
            ("", TextFault::Empty),
            ("   ", TextFault::Empty),
            ("a\nb", TextFault::Control),
            ("13812345678", TextFault::Personal(PersonalIdentifier::MobileNumber)),
        ] {
            assert_eq!(SubjectRef::parse(text).unwrap_err().fault, fault, "{text:?}");
        }
        let long = "x".repeat(65);
        assert_eq!(SubjectRef::parse(long).unwrap_err().fault, TextFault::TooLong { limit: 64 });
    }

    #[test]
    fn a_refusal_does_not_repeat_the_string() {
        let refusal = SubjectRef::parse("someone@example.org").unwrap_err().to_string();
        assert!(!refusal.contains("someone"), "{refusal}");
    }
}
