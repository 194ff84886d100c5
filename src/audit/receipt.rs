//! Statements signed by the deployment, for a person to keep and anybody to check.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::crypto::{PUBLIC_KEY_BYTES, SIGNATURE_BYTES, SignatureFault, Signer, verify};

/// How a statement says what it is.
const ERASURE: &str = "assent/erasure-receipt/1";
const CONSENT: &str = "assent/consent-receipt/2";
const EVIDENCE: &str = "assent/evidence/1";
const DECOMMISSION: &str = "assent/decommission-certificate/1";

/// A signed JSON statement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// UTF-8 JSON.
    #[serde(with = "as_text")]
    pub body: Vec<u8>,
    /// Ed25519 over `body`, 64 bytes.
    #[serde(with = "hex::serde")]
    pub signature: [u8; SIGNATURE_BYTES],
    /// The deployment's key.
    #[serde(with = "hex::serde")]
    pub public_key: [u8; PUBLIC_KEY_BYTES],
}

/// The body as the text that it is: a list of numbers would take three times the space.
mod as_text {
    use serde::{Deserialize, Deserializer, Serializer, ser};

    pub(super) fn serialize<S: Serializer>(body: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(std::str::from_utf8(body).map_err(ser::Error::custom)?)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        String::deserialize(from).map(String::into_bytes)
    }
}

/// What a receipt is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ReceiptKind {
    /// What was agreed to.
    Consent,
    /// What was destroyed.
    Erasure,
    /// What the service did, with the part of the audit trail that shows it.
    Evidence,
    /// That the whole deployment was destroyed.
    Decommission,
}

impl ReceiptKind {
    /// As a statement names it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Consent => CONSENT,
            Self::Erasure => ERASURE,
            Self::Evidence => EVIDENCE,
            Self::Decommission => DECOMMISSION,
        }
    }
}

/// What a receipt says, once it was verified.
#[derive(Debug, Clone, PartialEq)]
pub struct Statement {
    /// What it is about.
    pub kind: ReceiptKind,
    /// All of it.
    pub body: serde_json::Value,
}

/// Why a receipt does not hold.
#[derive(Debug, Error)]
pub enum ReceiptFault {
    /// Another deployment's.
    #[error("it is signed by {found}, not by {expected}")]
    OtherKey {
        /// The key in the receipt, hexadecimal.
        found: String,
        /// The key asked for.
        expected: String,
    },
    /// Altered.
    #[error("its signature does not hold: it was altered, or is no receipt of this key")]
    Signature(#[source] SignatureFault),
    /// Signed, but nothing that this program knows.
    #[error("what was signed is no receipt")]
    NotAReceipt,
}

impl Receipt {
    /// Signs a statement.
    #[must_use]
    pub fn sign(signer: &Signer, statement: &serde_json::Value) -> Self {
        let body = statement.to_string().into_bytes();
        Self { signature: signer.sign(&body), public_key: signer.public_key(), body }
    }

    /// What it says, if its signature holds, and is of the expected key where one is given.
    ///
    /// # Errors
    /// See [`ReceiptFault`].
    pub fn verify(
        &self,
        expected: Option<&[u8; PUBLIC_KEY_BYTES]>,
    ) -> Result<Statement, ReceiptFault> {
        if let Some(expected) = expected.filter(|expected| **expected != self.public_key) {
            let (found, expected) = (hex::encode(self.public_key), hex::encode(expected));
            return Err(ReceiptFault::OtherKey { found, expected });
        }
        verify(&self.public_key, &self.body, &self.signature).map_err(ReceiptFault::Signature)?;
        let body: serde_json::Value =
            serde_json::from_slice(&self.body).map_err(|_no_json| ReceiptFault::NotAReceipt)?;
        let kind = match body["type"].as_str() {
            Some(CONSENT) => ReceiptKind::Consent,
            Some(ERASURE) => ReceiptKind::Erasure,
            Some(EVIDENCE) => ReceiptKind::Evidence,
            Some(DECOMMISSION) => ReceiptKind::Decommission,
            Some(_) | None => return Err(ReceiptFault::NotAReceipt),
        };
        Ok(Statement { kind, body })
    }
}
