//! Statements signed by this deployment. They name no biometric.

use serde_json::json;

use super::revoke::Erasure;
pub use crate::audit::Receipt;
use crate::audit::ReceiptKind;
use crate::store::{Signer, StoredRecord};

/// For the person: what was agreed to, and how to withdraw it.
pub(super) fn consent_receipt(signer: &Signer, record: &StoredRecord) -> Receipt {
    Receipt::sign(
        signer,
        &json!({
            "type": ReceiptKind::Consent.name(),
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
    Receipt::sign(
        signer,
        &json!({
            "type": ReceiptKind::Erasure.name(),
            "controller_id": erasure.controller,
            "revoked_records": erasure.records,
            "revision": erasure.revision,
            "erased_at": erasure.at,
            "method": "index rows zeroised; record keys destroyed with the key pages and the root key above them; rows removed in one durable commit",
        }),
    )
}
