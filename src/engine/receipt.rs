//! Statements signed by this deployment. They name no biometric.

use serde::Serialize;
use serde_json::{Value, json};

use super::revoke::Erasure;
pub use crate::audit::Receipt;
use crate::audit::ReceiptKind;
use crate::consent::Policy;
use crate::store::{Signer, StoredRecord};

/// How a person withdraws; said in every receipt.
const WITHDRAWAL: Words = Words {
    en: "at any time, without a reason, at the controller's contact; the template is destroyed at \
         once",
    zh: "可随时向处理者的联系方式提出撤回，无需理由；模板立即销毁",
};
const RIGHTS: [Words; 4] = [
    Words { en: "see what is held", zh: "查阅" },
    Words { en: "withdraw", zh: "撤回同意" },
    Words { en: "have it erased", zh: "要求删除" },
    Words { en: "complain to the authority", zh: "向主管部门投诉" },
];
const ERASURE: Words = Words {
    en: "index rows zeroised; record keys destroyed with the key pages and the root key above \
         them; rows removed in one durable commit",
    zh: "索引中的数据已清零；记录密钥及其上级密钥页、根密钥已销毁；数据行已在一次持久提交中删除",
};

/// A text in both languages.
#[derive(Serialize)]
struct Words {
    en: &'static str,
    zh: &'static str,
}

/// For the person: what was agreed to, and how to withdraw it.
pub(super) fn consent_receipt(signer: &Signer, record: &StoredRecord, policy: &Policy) -> Receipt {
    Receipt::sign(signer, &consent_statement(record, policy))
}

/// What a consent receipt says: the consent as it was admitted, and the fields of ISO/IEC TS
/// 27560:2023 (C10).
pub(super) fn consent_statement(record: &StoredRecord, policy: &Policy) -> Value {
    let consent = &record.consent;
    let controller = policy.controller(&consent.controller);
    let notice = policy.notice(&consent.controller, &consent.notice_id, &consent.notice_version);
    let languages = notice.map(|notice| notice.texts.iter().map(|text| &text.language));
    let assessment =
        policy.assessment_of(&consent.controller, &consent.purpose, record.enrolled_at);
    let given_by = consent.guardian.as_ref().map_or(&record.subject, |g| &g.guardian_ref);
    json!({
        "type": ReceiptKind::Consent.name(),
        "schema_version": "ISO/IEC TS 27560:2023",
        "record_id": record.id,
        "pii_principal_id": record.subject,
        "pii_processing": [{
            "privacy_notice": format!("{}@{}", consent.notice_id, consent.notice_version),
            "privacy_notice_sha256": consent.notice_sha256,
            "language": languages.map(Iterator::collect::<Vec<_>>),
            "purposes": [{
                "purpose": consent.purpose,
                "purpose_type": "access control",
                "lawful_basis": consent.lawful_basis,
                "legal_reference": consent.legal_reference,
                "pii_information": [{
                    "pii_type": "face template",
                    "pii_optional": true,
                    "sensitive_pii_category": true,
                    "special_pii_category": true,
                }],
                "pii_controllers": [consent.controller],
                "collection_method": consent.channel,
                "processing_method": format!("comparison of face templates, {}", record.model),
                "storage_locations": [policy.deployment().mode],
                "retention_period": { "until": consent.matches_until() },
                "services": [consent.scope],
                "jurisdiction": policy.profile().name,
                "recipient_third_parties": [],
                "withdrawal_method": WITHDRAWAL,
                "privacy_rights": RIGHTS,
                "impact_assessment": assessment.map(|a| json!({
                    "version": a.version, "sha256": a.document_sha256,
                })),
                "alternative": consent.alternative_offered,
            }],
        }],
        "event": [
            {
                "event_time": consent.captured_at,
                "event_type": "explicit consent",
                "event_state": "consent given",
                "entity_id": given_by,
                "validity_duration": { "until": consent.matches_until() },
            },
            {
                "event_time": record.enrolled_at,
                "event_type": "enrolment",
                "event_state": "processing begun",
                "entity_id": consent.controller,
            },
        ],
        "party_identification": [{
            "party_id": consent.controller,
            "party_role": "PII controller",
            "party_name": controller.map(|controller| &controller.name),
            "party_contact": controller.map(|controller| &controller.contact),
        }],
        "subject_ref": record.subject,
        "consent": consent,
        "model_contract": record.model,
        "enrolled_at": record.enrolled_at,
    })
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
            "method": ERASURE,
        }),
    )
}
