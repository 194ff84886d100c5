//! The rules of REQUIREMENTS sections 1 to 4, shown on the example policy of docs/.

mod admission;
mod document;
mod filing;
mod pass;
mod policy;

use super::*;
use crate::types::{ControllerId, NoticeId, NoticeVersion, Timestamp};

/// What docs/policy.md tells operators to start from.
const EXAMPLE: &str = include_str!("../../../docs/example-policy.toml");

fn now() -> Timestamp {
    "2026-03-01T12:00:00Z".parse().unwrap()
}

fn cn() -> Profile {
    Profile::named("cn").unwrap()
}

/// The policy that `toml` makes of nothing.
fn policy_of(toml: &str, profile: Profile) -> Result<Policy, PolicyError> {
    let document = PolicyDocument::parse(toml)?;
    Ok(Policy::under(profile).apply(&document)?.0)
}

fn example() -> Policy {
    policy_of(EXAMPLE, cn()).unwrap()
}

/// The example with its first `old` replaced.
fn edited(old: &str, new: &str) -> String {
    assert!(EXAMPLE.contains(old), "the example has no {old:?}");
    EXAMPLE.replacen(old, new, 1)
}

fn maple() -> ControllerId {
    ControllerId::parse("maple-property").unwrap()
}

fn face_entry() -> NoticeId {
    NoticeId::parse("face-entry").unwrap()
}

fn version(text: &str) -> NoticeVersion {
    NoticeVersion::parse(text).unwrap()
}

/// A second version of the example's notice, effective from `from`.
fn newer_notice(from: &str) -> String {
    let start = EXAMPLE.find("[[notices]]").unwrap();
    let end = EXAMPLE.find("[[assessments]]").unwrap();
    EXAMPLE[start..end].replace("2026-01\"", "2026-02\"").replace("2026-01-01T00:00:00+08:00", from)
}

/// A consent that the example policy admits.
fn draft() -> ConsentDraft {
    let policy = example();
    let notice = policy.notice(&maple(), &face_entry(), &version("2026-01")).unwrap();
    ConsentDraft {
        consent_id: "consent-0017".into(),
        purpose: "resident-entry".into(),
        scope: "north-gate".into(),
        notice_id: "face-entry".into(),
        notice_version: "2026-01".into(),
        notice_sha256: notice.sha256().0.to_vec(),
        form: Some(ConsentForm::Electronic),
        channel: "front-desk-tablet".into(),
        captured_at: Some(now()),
        expires_at: Some(now().plus_days(365)),
        evidence_sha256: vec![7; 32],
        bundled: Some(false),
        alternative_offered: Some(AlternativeMethod::Card),
        lawful_basis: Some(LawfulBasis::Consent),
        legal_reference: String::new(),
        subject_class: Some(SubjectClass::Adult),
        guardian: None,
        reconsent_by: None,
        offdevice_processing: false,
    }
}

/// A child's consent that the example policy admits.
fn child() -> ConsentDraft {
    ConsentDraft {
        subject_class: Some(SubjectClass::Under14),
        guardian: Some(GuardianDraft {
            guardian_ref: "resident-0016".into(),
            relation: "parent".into(),
            evidence_sha256: vec![8; 32],
            minor_rules_version: "2026-01".into(),
        }),
        reconsent_by: Some(now().plus_days(100)),
        ..draft()
    }
}

fn admit(draft: ConsentDraft) -> Result<Admitted, ConsentRefusal> {
    example().admit("maple-property", "resident-0017", draft, now())
}
