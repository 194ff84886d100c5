//! What the caller chose to call a person and a consent, in few bytes.
//!
//! ```text
//! texts   | subject reference | consent id |     a UUID is its 16 bytes, any other text itself
//! form    bits 0..7: bytes of the subject reference, 0 when it is a UUID
//!         bit 7:     the consent id is a UUID
//! ```
//!
//! # Invariants
//! - Packing loses nothing: only a text that is just as a UUID is written (hyphens, lower case)
//!   becomes one. Names are therefore equal if and only if their texts are.

use uuid::Uuid;
use uuid::fmt::Hyphenated;

use crate::types::{ConsentId, SubjectRef};

/// Bytes of a UUID.
const UUID_BYTES: usize = 16;
/// In the form: the consent id is a UUID.
const CONSENT_IS_UUID: u8 = 1 << 7;
/// In the form: the length of the subject reference.
const SUBJECT_BYTES: u8 = CONSENT_IS_UUID - 1;

/// A name as it is compared and hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Name<'a> {
    /// A UUID.
    Uuid([u8; UUID_BYTES]),
    /// Any other text.
    Text(&'a [u8]),
}

impl<'a> Name<'a> {
    /// The name that `text` is.
    pub(super) fn of(text: &'a str) -> Self {
        let mut written = [0; Hyphenated::LENGTH];
        match Uuid::try_parse(text) {
            Ok(uuid) if uuid.hyphenated().encode_lower(&mut written) == text => {
                Self::Uuid(uuid.into_bytes())
            }
            Ok(_) | Err(_) => Self::Text(text.as_bytes()),
        }
    }

    fn stored(bytes: &'a [u8], is_uuid: bool) -> Self {
        match bytes.try_into() {
            Ok(uuid) if is_uuid => Self::Uuid(uuid),
            Ok(_) | Err(_) => Self::Text(bytes),
        }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Self::Uuid(bytes) => bytes,
            Self::Text(bytes) => bytes,
        }
    }

    fn text(self) -> String {
        match self {
            Self::Uuid(bytes) => Uuid::from_bytes(bytes).to_string(),
            Self::Text(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        }
    }
}

/// The names of one record.
pub(super) struct Names {
    texts: Box<[u8]>,
    notice: u32,
    form: u8,
}

impl Names {
    /// Packs subject reference and consent id, and keeps the number of the notice's version with
    /// them, where it fills room that alignment would leave empty.
    pub(super) fn new(subject: &SubjectRef, consent: &ConsentId, notice: u32) -> Self {
        let (subject, consent) = (Name::of(subject.as_str()), Name::of(consent.as_str()));
        let texts = [subject.bytes(), consent.bytes()].concat().into_boxed_slice();
        let length = match subject {
            Name::Uuid(_) => 0,
            Name::Text(text) => u8::try_from(text.len()).expect("at most 64 bytes by its type"),
        };
        let consent_is_uuid = matches!(consent, Name::Uuid(_));
        Self { texts, notice, form: length | if consent_is_uuid { CONSENT_IS_UUID } else { 0 } }
    }

    /// The number of the notice's version.
    pub(super) fn notice(&self) -> u32 {
        self.notice
    }

    /// The subject reference as it is compared.
    pub(super) fn subject(&self) -> Name<'_> {
        self.parts().0
    }

    /// The consent id as it is compared.
    pub(super) fn consent(&self) -> Name<'_> {
        self.parts().1
    }

    /// The subject reference.
    pub(super) fn subject_ref(&self) -> SubjectRef {
        SubjectRef::parse(self.subject().text()).expect("packed from a subject reference")
    }

    /// The consent id.
    pub(super) fn consent_id(&self) -> ConsentId {
        ConsentId::parse(self.consent().text()).expect("packed from a consent id")
    }

    /// Memory beside the struct's own.
    pub(super) fn bytes(&self) -> usize {
        self.texts.len()
    }

    fn parts(&self) -> (Name<'_>, Name<'_>) {
        let length = usize::from(self.form & SUBJECT_BYTES);
        let split = if length == 0 { UUID_BYTES } else { length };
        let (subject, consent) = self.texts.split_at(split);
        (
            Name::stored(subject, length == 0),
            Name::stored(consent, self.form & CONSENT_IS_UUID != 0),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UUID: &str = "67e55044-10b1-426f-9247-bb680e5fe0c8";

    #[test]
    fn names_come_back_as_they_went_in() {
        let long = "m".repeat(64);
        let texts = [
            UUID,
            "67E55044-10b1-426f-9247-bb680e5fe0c8",
            "67e5504410b1426f9247bb680e5fe0c8",
            "{67e55044-10b1-426f-9247-bb680e5fe0c8}",
            "r",
            "\u{5317}\u{95e8}-17",
            &long,
        ];
        for (subject, consent) in texts.iter().flat_map(|a| texts.iter().map(move |b| (*a, *b))) {
            let names = Names::new(&subject.parse().unwrap(), &consent.parse().unwrap(), 7);
            assert_eq!(names.subject_ref().as_str(), subject);
            assert_eq!(names.consent_id().as_str(), consent);
            assert_eq!((names.subject(), names.consent()), (Name::of(subject), Name::of(consent)));
            assert_eq!(names.notice(), 7);
        }
    }

    #[test]
    fn only_the_usual_spelling_of_a_uuid_is_packed_so_that_different_texts_stay_different() {
        assert!(matches!(Name::of(UUID), Name::Uuid(_)));
        for other in [UUID.to_uppercase(), UUID.replace('-', ""), format!("urn:uuid:{UUID}")] {
            assert!(matches!(Name::of(&other), Name::Text(_)), "{other}");
        }
        let packed = Names::new(&UUID.parse().unwrap(), &UUID.parse().unwrap(), 0);
        assert_eq!(packed.bytes(), 2 * UUID_BYTES);
    }
}
