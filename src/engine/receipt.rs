//! Statements signed by this deployment. They name no biometric.

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::revoke::Erasure;
use crate::store::{Signer, StoredRecord};

/// A signed JSON statement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// UTF-8 JSON.
    pub body: Vec<u8>,
    /// Ed25519 over `body`, 64 bytes.
    #[serde(with = "hex::serde")]
    pub signature: [u8; 64],
    /// The deployment's key.
    #[serde(with = "hex::serde")]
    pub public_key: [u8; 32],
}

fn sign(signer: &Signer, statement: &serde_json::Value) -> Receipt {
    let body = statement.to_string().into_bytes();
    Receipt { signature: signer.sign(&body), public_key: signer.public_key(), body }
}

/// For the person: what was agreed to, and how to withdraw it.
pub(super) fn consent_receipt(signer: &Signer, record: &StoredRecord) -> Receipt {
    sign(
        signer,
        &json!({
            "type": "assent/consent-receipt/1",
            "record_id": record.id,
            "subject_ref": record.subject,
            "consent": record.consent,
            "model_contract": record.model,
            "enrolled_at": record.enrolled_at,
            "withdrawal": "Enrollment.Revoke with this subject_ref, record_id or consent id",
        }),
    )
}

/// For the person: what was destroyed, and from which revision on it is gone.
pub(super) fn erasure_receipt(signer: &Signer, erasure: &Erasure<'_>) -> Receipt {
    sign(
        signer,
        &json!({
            "type": "assent/erasure-receipt/1",
            "controller_id": erasure.controller,
            "revoked_records": erasure.records,
            "revision": erasure.revision,
            "erased_at": erasure.at,
            "method": "record keys and rows removed in one durable commit; index rows zeroised",
        }),
    )
}
