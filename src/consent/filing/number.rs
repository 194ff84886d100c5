//! The number of a filing.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::types::personal_identifier;

/// Longest number of a filing, bytes.
const NUMBER_BYTES: usize = 128;

/// The number under which the authority keeps a filing, 1 to 128 bytes of one line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FilingNumber(Box<str>);

/// Not the number of a filing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "must be the number that the authority gave, 1 to 128 bytes without control characters, and no \
     person's number or address"
)]
pub struct InvalidNumber;

impl FilingNumber {
    /// Parses the number; blanks around it do not count.
    ///
    /// # Errors
    /// Blank, too long, control characters, or a person's identifier.
    pub fn parse(text: &str) -> Result<Self, InvalidNumber> {
        let text = text.trim();
        let fits = (1..=NUMBER_BYTES).contains(&text.len()) && !text.chars().any(char::is_control);
        // D1: nobody's telephone number gets into the audit trail as a filing's.
        if fits && personal_identifier(text).is_none() {
            return Ok(Self(text.into()));
        }
        Err(InvalidNumber)
    }

    /// The number.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for FilingNumber {
    type Error = InvalidNumber;

    fn try_from(text: String) -> Result<Self, InvalidNumber> {
        Self::parse(&text)
    }
}

impl From<FilingNumber> for String {
    fn from(number: FilingNumber) -> Self {
        number.0.into()
    }
}
