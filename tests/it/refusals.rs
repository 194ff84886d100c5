//! Every bad input of REQUIREMENTS, through gRPC: a refusal that names the field, and a store that
//! is afterwards, byte for byte, what it was.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use assent::consent::{PlaceRule, PlaceType};
use assent::service::client::{Client, ClientError};
use assent::service::{WireTime, proto};
use assent::types::Timestamp;
use futures_util::future::join_all;
use futures_util::{StreamExt as _, stream};
use prost::Message as _;
use prost_types::{DescriptorProto, FileDescriptorSet, field_descriptor_proto};

use crate::harness::{
    CONTROLLER, GATE, OTHER_GATE, PATIENCE, POLICY, Place, Service, embedded, encoded,
    enrolment_under, face, matched, photo, probe, revoke_subject, verify, verify_face,
    verify_photo,
};

/// A refusal that a request earned.
const FIELD: &str = "INVALID_ARGUMENT";
const STATE: &str = "FAILED_PRECONDITION";
/// One of each kind of personal identifier (GB 11643 with its checksum; the number is nobody's).
const PERSONAL: [&str; 3] = ["11010519491231002X", "138-1234-5678", "someone@example.org"];

/// A service, and how to show that a request left no trace in its store.
struct Ground {
    service: Service,
    notice: proto::Notice,
}

impl Ground {
    async fn new() -> Self {
        let service = Service::start().await;
        let notice = service.notice().await;
        Self { service, notice }
    }

    fn client(&self) -> &Client {
        &self.service.client
    }

    /// A good enrolment in scope `north-gate`.
    fn good(&self, subject: &str, seed: u64) -> proto::EnrollRequest {
        enrolment_under(&self.notice, subject, "north-gate", vec![embedded(seed)])
    }

    async fn enrol(&self, request: proto::EnrollRequest) -> proto::EnrollResponse {
        self.client().enroll(request).await.unwrap()
    }

    /// The refusal of `request`, which must leave the store as it is.
    async fn refusal(&self, request: proto::EnrollRequest) -> ClientError {
        let before = self.trace().await;
        let refusal = self.client().enroll(request.clone()).await;
        let refusal = refusal.expect_err(&format!("enrolled: {request:?}"));
        assert!(before == self.trace().await, "{refusal} left a trace in the store");
        refusal
    }

    async fn refused(&self, request: proto::EnrollRequest, code: &str, field: &str) {
        let refusal = self.refusal(request).await;
        assert_eq!(
            (refusal.code.name(), refusal.field.as_deref()),
            (code, Some(field)),
            "{refusal}"
        );
    }

    /// The same with the stable reason.
    async fn refused_as(&self, request: proto::EnrollRequest, reason: &str) {
        let refusal = self.refusal(request).await;
        assert_eq!(
            (refusal.code.name(), refusal.reason.as_deref()),
            (STATE, Some(reason)),
            "{refusal}"
        );
    }

    /// The refusal of a policy document, which must leave the store and the policy as they are.
    async fn policy_refused(&self, policy: &toml::Table, code: &str, words: &[&str]) {
        let before = self.trace().await;
        let request = proto::ApplyPolicyRequest { toml: policy.to_string(), dry_run: false };
        let refusal = self.client().apply_policy(request).await.unwrap_err();
        assert_eq!(refusal.code.name(), code, "{refusal}");
        assert_eq!(refusal.field.as_deref(), Some("toml"));
        for word in words {
            assert!(refusal.message.contains(word), "{word:?} is not in {refusal}");
        }
        assert!(before == self.trace().await, "{refusal} left a trace in the store");
    }

    async fn policy_fits(&self, policy: &toml::Table) {
        let request = proto::ApplyPolicyRequest { toml: policy.to_string(), dry_run: true };
        self.client().apply_policy(request).await.unwrap();
    }

    /// Revision, policy and every byte of the store.
    async fn trace(&self) -> (u64, String, BTreeMap<PathBuf, Vec<u8>>) {
        let policy = self.client().read_policy(proto::ReadPolicyRequest {}).await.unwrap();
        let revision = self.client().status(proto::StatusRequest {}).await.unwrap().revision;
        (revision, policy.toml, files(&self.service.place.data()))
    }

    async fn held(&self, subject: &str) -> Vec<proto::HeldRecord> {
        let request = proto::DescribeSubjectRequest {
            controller_id: CONTROLLER.to_owned(),
            subject_ref: subject.to_owned(),
        };
        self.client().describe_subject(request).await.unwrap().records
    }
}

/// All files below `dir`, less the snapshot, which is written whenever it is due.
fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for path in std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.file_stem().is_none_or(|stem| stem != "snapshot") {
            found.insert(path.clone(), std::fs::read(&path).unwrap());
        }
    }
    found
}

fn consent_of(request: &mut proto::EnrollRequest) -> &mut proto::ConsentRecord {
    request.consent.as_mut().unwrap()
}

#[expect(clippy::unnecessary_wraps, reason = "times on the wire are optional")]
fn in_ms(ms: i64) -> Option<WireTime> {
    Some(WireTime::from(Timestamp::now().plus_ms(ms)))
}

fn guardian() -> proto::Guardian {
    proto::Guardian {
        guardian_ref: "guardian-1".to_owned(),
        relation: "parent".to_owned(),
        evidence_sha256: vec![9; 32],
        minor_rules_version: "2026".to_owned(),
    }
}

fn of_a_child(mut request: proto::EnrollRequest, until: Option<WireTime>) -> proto::EnrollRequest {
    let consent = consent_of(&mut request);
    consent.subject_class = proto::SubjectClass::Under14.into();
    consent.guardian = Some(guardian());
    consent.reconsent_by = until;
    request
}

type Spoil = fn(&mut proto::EnrollRequest);
type SpoilConsent = fn(&mut proto::ConsentRecord);

/// C1: one field less each.
const C1: [(&str, SpoilConsent); 15] = [
    ("consent.consent_id", |c| c.consent_id.clear()),
    ("consent.purpose", |c| c.purpose.clear()),
    ("consent.scope", |c| c.scope.clear()),
    ("consent.notice_id", |c| c.notice_id.clear()),
    ("consent.notice_version", |c| c.notice_version.clear()),
    ("consent.notice_sha256", |c| c.notice_sha256.clear()),
    ("consent.form", |c| c.form = 0),
    ("consent.channel", |c| c.channel.clear()),
    ("consent.captured_at", |c| c.captured_at = None),
    ("consent.expires_at", |c| c.expires_at = None),
    ("consent.evidence_sha256", |c| c.evidence_sha256.clear()),
    ("consent.bundled", |c| c.bundled = None),
    ("consent.alternative_offered", |c| c.alternative_offered = 0),
    ("consent.lawful_basis", |c| c.lawful_basis = 0),
    ("consent.subject_class", |c| c.subject_class = 0),
];

/// Not missing, but malformed.
const MALFORMED: [(&str, SpoilConsent); 12] = [
    ("consent.consent_id", |c| c.consent_id = "x".repeat(65)),
    ("consent.scope", |c| c.scope = "a\nb".to_owned()),
    ("consent.channel", |c| c.channel = "x".repeat(65)),
    ("consent.notice_sha256", |c| c.notice_sha256 = vec![7; 31]),
    ("consent.evidence_sha256", |c| c.evidence_sha256 = vec![7; 33]),
    ("consent.form", |c| c.form = 99),
    ("consent.alternative_offered", |c| c.alternative_offered = 99),
    ("consent.lawful_basis", |c| c.lawful_basis = 99),
    ("consent.subject_class", |c| c.subject_class = 99),
    ("consent.captured_at", |c| c.captured_at = Some(WireTime { seconds: 1, nanos: -1 })),
    ("consent.expires_at", |c| c.expires_at = Some(WireTime { seconds: i64::MAX, nanos: 0 })),
    ("consent.captured_at", |c| c.captured_at = in_ms(3_600_000)),
];

/// The rest of the request.
const AROUND: [(&str, Spoil); 11] = [
    ("consent", |r| r.consent = None),
    ("subject_ref", |r| r.subject_ref.clear()),
    ("subject_ref", |r| r.subject_ref = "x".repeat(65)),
    ("controller_id", |r| r.controller_id.clear()),
    ("idempotency_key", |r| r.idempotency_key.clear()),
    ("frames", |r| r.frames.clear()),
    ("frames", |r| r.frames = vec![embedded(1); 9]),
    ("frames[0]", |r| r.frames[0].form = None),
    ("frames[1]", |r| r.frames.push(proto::Probe { form: None })),
    ("frames[0]", |r| r.frames = vec![encoded(Vec::new())]),
    ("frames[0]", |r| {
        let crop = proto::AlignedFace { rgb: vec![128; 112 * 112 * 3 - 1] };
        r.frames = vec![probe(proto::probe::Form::Aligned(crop))];
    }),
];

#[tokio::test(flavor = "multi_thread")]
async fn c1_to_c5_a_consent_that_lacks_something_enrols_nobody() {
    let ground = Ground::new().await;
    let good = ground.good("resident-1", 1);
    for (field, spoil) in C1.into_iter().chain(MALFORMED) {
        let mut request = good.clone();
        spoil(consent_of(&mut request));
        ground.refused(request, FIELD, field).await;
    }
    for (field, spoil) in AROUND {
        let mut request = good.clone();
        spoil(&mut request);
        ground.refused(request, FIELD, field).await;
    }
    c2_bundled_consent_is_refused(&ground, &good).await;
    c3_a_scope_or_purpose_that_is_not_served_is_refused(&ground, &good).await;
    c5_a_child_needs_a_guardian_and_a_day(&ground, &good).await;
    c7_an_expiry_too_far_or_past_is_refused(&ground, &good).await;
    c9_another_basis_is_off(&ground, &good).await;
    unusable_embeddings_are_refused(&ground, &good).await;
    pictures_that_make_no_template_are_refused(&ground, &good).await;

    // The control: nothing else was wrong with it, and a success does leave a trace.
    let before = ground.trace().await;
    ground.enrol(good).await;
    let after = ground.trace().await;
    assert!(after.0 > before.0 && after.2 != before.2);
    let child = of_a_child(ground.good("child-1", 2), in_ms(86_400_000));
    ground.enrol(child).await;
    ground.service.stop().await;
}

async fn c2_bundled_consent_is_refused(ground: &Ground, good: &proto::EnrollRequest) {
    let mut request = good.clone();
    consent_of(&mut request).bundled = Some(true);
    ground.refused(request, STATE, "consent.bundled").await;
}

async fn c3_a_scope_or_purpose_that_is_not_served_is_refused(
    ground: &Ground,
    good: &proto::EnrollRequest,
) {
    let cases: [(&str, SpoilConsent); 3] = [
        ("consent.scope", |c| c.scope = "cellar".to_owned()),
        ("consent.scope", |c| c.scope = "North-Gate".to_owned()),
        ("consent.purpose", |c| c.purpose = "advertising".to_owned()),
    ];
    for (field, spoil) in cases {
        let mut request = good.clone();
        spoil(consent_of(&mut request));
        ground.refused(request, STATE, field).await;
    }
    let mut request = good.clone();
    request.controller_id = "nobody".to_owned();
    ground.refused(request, STATE, "controller_id").await;
}

async fn c5_a_child_needs_a_guardian_and_a_day(ground: &Ground, good: &proto::EnrollRequest) {
    let child = of_a_child(good.clone(), in_ms(86_400_000));
    let missing: [(&str, &str, SpoilConsent); 7] = [
        (STATE, "consent.guardian", |c| c.guardian = None),
        (STATE, "consent.reconsent_by", |c| c.reconsent_by = None),
        (STATE, "consent.reconsent_by", |c| c.reconsent_by = in_ms(-1)),
        (FIELD, "consent.guardian.guardian_ref", |c| {
            c.guardian.as_mut().unwrap().guardian_ref.clear();
        }),
        (FIELD, "consent.guardian.relation", |c| c.guardian.as_mut().unwrap().relation.clear()),
        (FIELD, "consent.guardian.evidence_sha256", |c| {
            c.guardian.as_mut().unwrap().evidence_sha256.clear();
        }),
        (FIELD, "consent.guardian.minor_rules_version", |c| {
            c.guardian.as_mut().unwrap().minor_rules_version.clear();
        }),
    ];
    for (code, field, spoil) in missing {
        let mut request = child.clone();
        spoil(consent_of(&mut request));
        ground.refused(request, code, field).await;
    }
    // What would say that an adult is a child.
    let mut request = good.clone();
    consent_of(&mut request).guardian = Some(guardian());
    ground.refused(request, FIELD, "consent.guardian").await;
    let mut request = good.clone();
    consent_of(&mut request).reconsent_by = in_ms(86_400_000);
    ground.refused(request, FIELD, "consent.reconsent_by").await;
}

async fn c7_an_expiry_too_far_or_past_is_refused(ground: &Ground, good: &proto::EnrollRequest) {
    let cases: [(&str, SpoilConsent); 3] = [
        (STATE, |c| c.expires_at = in_ms(366 * 86_400_000)),
        (STATE, |c| {
            c.captured_at = in_ms(-10_000);
            c.expires_at = in_ms(-1);
        }),
        (FIELD, |c| c.expires_at = c.captured_at),
    ];
    for (code, spoil) in cases {
        let mut request = good.clone();
        spoil(consent_of(&mut request));
        ground.refused(request, code, "consent.expires_at").await;
    }
}

async fn c9_another_basis_is_off(ground: &Ground, good: &proto::EnrollRequest) {
    let mut request = good.clone();
    consent_of(&mut request).lawful_basis = proto::LawfulBasis::LegalObligation.into();
    consent_of(&mut request).legal_reference = "Some Act, art. 1".to_owned();
    ground.refused(request, STATE, "consent.lawful_basis").await;
}

async fn unusable_embeddings_are_refused(ground: &Ground, good: &proto::EnrollRequest) {
    let spoil: [fn(&mut Vec<f32>); 6] = [
        |v| v.truncate(511),
        |v| v.resize(1024, 0.5),
        Vec::clear,
        |v| v[7] = f32::NAN,
        |v| v[7] = f32::INFINITY,
        |v| v.fill(0.0),
    ];
    for spoil in spoil {
        let mut bad = face(1);
        spoil(&mut bad.values);
        let mut request = good.clone();
        request.frames.push(probe(proto::probe::Form::Embedding(bad)));
        ground.refused(request, FIELD, "frames[1].embedding.values").await;
    }
    let stranger = proto::EmbeddingProbe { model_contract: "other/1".to_owned(), ..face(1) };
    let mut request = good.clone();
    request.frames = vec![probe(proto::probe::Form::Embedding(stranger))];
    ground.refused_as(request, "MODEL_CONTRACT").await;
}

async fn pictures_that_make_no_template_are_refused(ground: &Ground, good: &proto::EnrollRequest) {
    let crowd = encoded(photo("players.jpg"));
    let wall = proto::RawFrame {
        data: vec![128; 320 * 240],
        format: proto::PixelFormat::Gray8.into(),
        width: 320,
        height: 240,
        stride: 0,
    };
    let wall = probe(proto::probe::Form::Raw(wall));
    let strangers = vec![embedded(1), embedded(2)];
    for frames in [vec![crowd], vec![wall], strangers] {
        let request = proto::EnrollRequest { frames, ..good.clone() };
        ground.refused_as(request, "LOW_QUALITY").await;
    }
    let request =
        proto::EnrollRequest { frames: vec![encoded(b"GIF89a".to_vec())], ..good.clone() };
    ground.refused(request, FIELD, "frames[0]").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_key_one_consent_one_face_enrol_one_record() {
    let ground = Ground::new().await;
    the_same_key_gives_the_same_answer(&ground).await;
    a_consent_is_used_once(&ground).await;
    a_face_is_enrolled_once_in_a_scope(&ground).await;
    of_two_that_race_with_one_face_one_is_enrolled(&ground).await;
    c3_no_match_crosses_scopes(&ground).await;
    a_duplicate_is_flagged_where_the_controller_says_so(&ground).await;
    ground.service.stop().await;
}

async fn the_same_key_gives_the_same_answer(ground: &Ground) {
    let request = ground.good("key-1", 10);
    let calls = (0..8).map(|_| ground.client().enroll(request.clone()));
    let answers: Vec<_> = join_all(calls).await.into_iter().map(Result::unwrap).collect();
    let before = ground.trace().await;
    let again = ground.enrol(request.clone()).await;
    assert!(answers.iter().all(|answer| *answer == again), "one key, two answers");
    assert!(before == ground.trace().await, "a repeat was stored");
    assert_eq!(ground.held("key-1").await.len(), 1);

    let other: [Spoil; 3] = [
        |r| r.subject_ref = "key-2".to_owned(),
        |r| consent_of(r).consent_id = "another-consent".to_owned(),
        |r| r.frames.push(embedded(10)),
    ];
    for spoil in other {
        let mut request = request.clone();
        spoil(&mut request);
        ground.refused_as(request, "KEY_REUSED").await;
    }
    ground.client().revoke(revoke_subject("key-1")).await.unwrap();
    ground.refused_as(request, "REVOKED").await;
}

async fn a_consent_is_used_once(ground: &Ground) {
    let first = ground.good("once-1", 20);
    ground.enrol(first.clone()).await;
    let again = proto::EnrollRequest { idempotency_key: "another-key".to_owned(), ..first.clone() };
    ground.refused_as(again.clone(), "CONSENT_USED").await;
    ground.client().revoke(revoke_subject("once-1")).await.unwrap();
    // A withdrawn consent is no consent any more.
    ground.refused_as(again.clone(), "CONSENT_USED").await;
    let mut anew = again;
    consent_of(&mut anew).consent_id = "consent-anew".to_owned();
    ground.enrol(anew).await;
}

async fn a_face_is_enrolled_once_in_a_scope(ground: &Ground) {
    ground.enrol(ground.good("face-1", 30)).await;
    ground.refused_as(ground.good("face-2", 30), "DUPLICATE").await;
    // Another scope is another matter, and so is the same person's next consent.
    let elsewhere = enrolment_under(&ground.notice, "face-2", "lobby", vec![embedded(30)]);
    ground.enrol(elsewhere).await;
    let mut anew = ground.good("face-1", 30);
    anew.idempotency_key = "key-face-1-anew".to_owned();
    consent_of(&mut anew).consent_id = "consent-face-1-anew".to_owned();
    ground.enrol(anew).await;
}

async fn of_two_that_race_with_one_face_one_is_enrolled(ground: &Ground) {
    let racers = (0..8).map(|i| ground.client().enroll(ground.good(&format!("race-{i}"), 40)));
    let outcomes = join_all(racers).await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
    for refusal in outcomes.into_iter().filter_map(Result::err) {
        assert_eq!(refusal.reason.as_deref(), Some("DUPLICATE"), "{refusal}");
    }
}

/// Each face in one scope or the other or in both; every gate sees its own alone.
async fn c3_no_match_crosses_scopes(ground: &Ground) {
    let scopes = [(GATE, "north-gate"), (OTHER_GATE, "lobby")];
    let mut enrolled = BTreeSet::new();
    for person in 0..48_u64 {
        for (at, (gate, scope)) in scopes.iter().enumerate() {
            if person % 3 != at as u64 {
                let frames = vec![embedded(1000 + person)];
                let subject = format!("scope-{person}");
                ground.enrol(enrolment_under(&ground.notice, &subject, scope, frames)).await;
                enrolled.insert((person, *gate));
            }
        }
    }
    let mut matches = 0;
    for person in 0..48 {
        for (gate, scope) in scopes {
            let response = ground.client().verify(verify_face(gate, 1000 + person)).await.unwrap();
            let expected = enrolled.contains(&(person, gate)).then(|| format!("scope-{person}"));
            assert_eq!(matched(&response), expected.as_deref(), "{person} at {gate}");
            let tag = response.r#match.and_then(|found| found.consent_tag);
            assert!(tag.is_none_or(|tag| tag.scope == scope));
            matches += usize::from(expected.is_some());
        }
    }
    assert_eq!(matches, 64, "the control: they do match in their own scope");
}

async fn a_duplicate_is_flagged_where_the_controller_says_so(ground: &Ground) {
    ground.enrol(ground.good("twin-1", 50)).await;
    ground.refused_as(ground.good("twin-2", 50), "DUPLICATE").await;
    let mut policy: toml::Table = POLICY.parse().unwrap();
    policy["controllers"][0]["duplicates"] = "flag".into();
    ground.service.apply(&policy.to_string()).await;
    let answer = ground.enrol(ground.good("twin-2", 50)).await;
    let named: Vec<&str> = answer.duplicates.iter().map(|twin| twin.subject_ref.as_str()).collect();
    assert_eq!(named, ["twin-1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn c6_consent_to_a_notice_that_is_not_in_force_enrols_nobody() {
    let ground = Ground::new().await;
    let good = ground.good("resident-1", 1);
    c6_a_notice_without_one_of_its_parts_is_refused(&ground).await;

    let unknown: [(&str, SpoilConsent); 3] = [
        ("consent.notice_version", |c| c.notice_version = "1999-01".to_owned()),
        ("consent.notice_version", |c| c.notice_id = "another".to_owned()),
        ("consent.notice_sha256", |c| c.notice_sha256[0] ^= 1),
    ];
    for (field, spoil) in unknown {
        let mut request = good.clone();
        spoil(consent_of(&mut request));
        ground.refused(request, STATE, field).await;
    }
    // A version to come, and one that has taken the place of the first.
    publish(&ground, "2099-01", "2099-01-01T00:00:00Z").await;
    let coming = version(&ground, "2099-01").await;
    let request = enrolment_under(&coming, "resident-1", "north-gate", vec![embedded(1)]);
    ground.refused(request, STATE, "consent.notice_version").await;
    assert_eq!(ground.service.notice().await.version, "2026-01", "it is not current yet");

    // Within the days of grace the superseded version still does.
    let yesterday = Timestamp::now().plus_ms(-86_400_000).to_string();
    publish(&ground, "grace", &yesterday).await;
    ground.enrol(ground.good("in-grace", 2)).await;
    publish(&ground, "2026-02", "2026-02-01T00:00:00Z").await;
    ground.refused(good, STATE, "consent.notice_version").await;
    let current = ground.service.notice().await;
    assert_eq!(current.version, "grace");
    let anew = enrolment_under(&current, "resident-1", "north-gate", vec![embedded(1)]);
    // Nobody agreed to it before it was in force.
    let mut early = anew.clone();
    consent_of(&mut early).captured_at = in_ms(-2 * 86_400_000);
    ground.refused(early, STATE, "consent.captured_at").await;
    ground.enrol(anew).await;
    ground.service.stop().await;
}

/// The example's notice alone, under another version.
async fn publish(ground: &Ground, version: &str, effective_from: &str) {
    let mut policy: toml::Table = POLICY.parse().unwrap();
    policy.remove("gates");
    policy["notices"][0]["version"] = version.into();
    policy["notices"][0]["effective_from"] = effective_from.into();
    ground.service.apply(&policy.to_string()).await;
}

async fn version(ground: &Ground, version: &str) -> proto::Notice {
    let request = proto::GetNoticeRequest {
        controller_id: CONTROLLER.to_owned(),
        notice_id: "face-entry".to_owned(),
        version: version.to_owned(),
    };
    ground.client().get_notice(request).await.unwrap().notice.unwrap()
}

async fn c6_a_notice_without_one_of_its_parts_is_refused(ground: &Ground) {
    let mut policy: toml::Table = POLICY.parse().unwrap();
    policy["notices"][0]["version"] = "new".into();
    policy["notices"][0]["effective_from"] = "2026-03-01T00:00:00Z".into();
    ground.policy_fits(&policy).await;
    let notice = &policy["notices"][0].as_table().unwrap().clone();
    for field in notice.keys() {
        let mut less = policy.clone();
        less["notices"][0].as_table_mut().unwrap().remove(field);
        ground.policy_refused(&less, FIELD, &[field]).await;
    }
    for field in notice["texts"][0].as_table().unwrap().keys() {
        for blank in [false, true] {
            let mut less = policy.clone();
            let text = less["notices"][0]["texts"][1].as_table_mut().unwrap();
            if blank {
                text.insert(field.clone(), " ".into());
            } else {
                text.remove(field);
            }
            ground.policy_refused(&less, FIELD, &[&format!("texts[1].{field}")]).await;
        }
    }
    let mut changed: toml::Table = POLICY.parse().unwrap();
    changed["notices"][0]["texts"][0]["rights"] = "none".into();
    ground.policy_refused(&changed, STATE, &["version"]).await;
}

/// C7 and C5: held, they match until their instant, not from it on, and are erased by themselves.
#[tokio::test(flavor = "multi_thread")]
async fn c5_c7_a_template_matches_until_its_instant_and_is_then_erased() {
    let ground = Ground::new().await;
    let expiring = |n: u64, until: Timestamp| {
        let mut request = ground.good(&format!("expiring-{n}"), 100 + n);
        consent_of(&mut request).expires_at = Some(WireTime::from(until));
        request
    };
    let child = |n: u64, until: Timestamp| {
        let request = ground.good(&format!("child-{n}"), 200 + n);
        of_a_child(request, Some(WireTime::from(until)))
    };
    ground.enrol(ground.good("staying", 300)).await;
    ends_at_its_instant(&ground, expiring).await;
    ends_at_its_instant(&ground, child).await;
    let stays = ground.client().verify(verify_face(GATE, 300)).await.unwrap();
    assert_eq!(matched(&stays), Some("staying"), "the control");
    // What is gone stays gone: the store has forgotten it too.
    let service = Service::start_in(ground.service.stop().await).await;
    let status = service.client.status(proto::StatusRequest {}).await.unwrap();
    assert_eq!(status.subjects, 1);
    service.stop().await;
}

/// A slow machine may not see the match before the instant; then the instant is put further off.
async fn ends_at_its_instant(
    ground: &Ground,
    enrolment: impl Fn(u64, Timestamp) -> proto::EnrollRequest,
) {
    for attempt in 0..6_u64 {
        let until = Timestamp::now().plus_ms(1500 << attempt);
        let request = enrolment(attempt, until);
        let Some(proto::probe::Form::Embedding(face)) = request.frames[0].form.clone() else {
            unreachable!("the enrolments here are embeddings")
        };
        let subject = request.subject_ref.clone();
        let probe = verify(GATE, proto::verify_request::Probe::Embedding(face));
        if ground.client().enroll(request).await.is_err() {
            continue;
        }
        let before = ground.client().verify(probe.clone()).await.unwrap();
        if Timestamp::now() >= until {
            continue;
        }
        assert_eq!(matched(&before), Some(subject.as_str()));
        while Timestamp::now() < until {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let after = ground.client().verify(probe).await.unwrap();
        assert_eq!(matched(&after), None, "it matched after its instant");
        let begun = Instant::now();
        while !ground.held(&subject).await.is_empty() {
            assert!(begun.elapsed() < PATIENCE, "expired and not erased");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        return;
    }
    panic!("this machine is too slow to see a template before it expires");
}

#[tokio::test(flavor = "multi_thread")]
async fn g1_g3_g5_a_gate_that_may_not_be_is_never_applied() {
    let ground = Ground::new().await;
    let policy: toml::Table = POLICY.parse().unwrap();
    let gate = |change: &dyn Fn(&mut toml::Table)| {
        let mut policy = policy.clone();
        change(policy["gates"][0].as_table_mut().unwrap());
        policy
    };
    // G1: the face as the only way in.
    let none = gate(&|gate| drop(gate.remove("alternatives")));
    ground.policy_refused(&none, STATE, &["alternatives", "not the face"]).await;
    let empty = gate(&|gate| drop(gate.insert("alternatives".into(), toml::Value::Array(vec![]))));
    ground.policy_refused(&empty, STATE, &["alternatives", "not the face"]).await;
    // G5: none that suits everybody.
    let stairs = gate(&|gate| {
        gate["alternatives"].as_array_mut().unwrap().retain(|way| way.get("accessible").is_none());
    });
    ground.policy_refused(&stairs, STATE, &["alternatives", "accessible"]).await;
    // G3: every kind of place there is.
    for place in PlaceType::ALL {
        let name = serde_json::to_value(place).unwrap().as_str().unwrap().to_owned();
        let there = gate(&|gate| drop(gate.insert("place_type".into(), name.clone().into())));
        match place.rule() {
            PlaceRule::Ordinary => ground.policy_fits(&there).await,
            PlaceRule::Public => {
                ground.policy_refused(&there, STATE, &["purposes", "public-safety", "M13"]).await;
            }
            PlaceRule::Never => {
                ground.policy_refused(&there, STATE, &["place_type", "M13"]).await;
            }
        }
    }
    let private = ["hotel_room", "bathroom", "changing_room", "toilet", "unspecified"];
    for name in private {
        let there = gate(&|gate| drop(gate.insert("place_type".into(), name.into())));
        ground.policy_refused(&there, STATE, &["place_type"]).await;
    }
    let unsaid = gate(&|gate| drop(gate.remove("place_type")));
    ground.policy_refused(&unsaid, FIELD, &["place_type"]).await;
    for field in ["id", "controller", "label", "purposes", "scopes", "comparison"] {
        let less = gate(&|gate| drop(gate.remove(field)));
        ground.policy_refused(&less, FIELD, &[field]).await;
    }
    g6_g7_a_gate_asks_only_what_it_may(&ground).await;
    ground.service.stop().await;
}

async fn g6_g7_a_gate_asks_only_what_it_may(ground: &Ground) {
    ground.enrol(ground.good("north", 1)).await;
    let lobby = enrolment_under(&ground.notice, "lobby", "lobby", vec![embedded(2)]);
    ground.enrol(lobby).await;
    // G7: north-gate-1 is for 1:N alone, lobby-1 for both; the reply says which it was.
    let claim = |gate, seed, subject: &str| proto::VerifyRequest {
        claimed_subject: subject.to_owned(),
        ..verify_face(gate, seed)
    };
    let refusal = ground.client().verify(claim(GATE, 1, "north")).await.unwrap_err();
    assert_eq!(refusal.reason.as_deref(), Some("COMPARISON_FORBIDDEN"));
    assert_eq!(refusal.field.as_deref(), Some("claimed_subject"));
    for (request, comparison) in [
        (verify_face(GATE, 1), proto::Comparison::OneToMany),
        (verify_face(OTHER_GATE, 2), proto::Comparison::OneToMany),
        (claim(OTHER_GATE, 2, "lobby"), proto::Comparison::OneToOne),
    ] {
        let found = ground.client().verify(request).await.unwrap().r#match.unwrap();
        assert_eq!(found.comparison(), comparison);
    }
    // Another's claim, a stranger's, one of another scope: all the same answer.
    for subject in ["north", "nobody"] {
        let response = ground.client().verify(claim(OTHER_GATE, 1, subject)).await.unwrap();
        assert_eq!(response.decision(), proto::Decision::NoMatch);
    }
    let only: toml::Table = POLICY.replace("\"both\"", "\"one_to_one\"").parse().unwrap();
    ground.service.apply(&only.to_string()).await;
    let refusal = ground.client().verify(verify_face(OTHER_GATE, 2)).await.unwrap_err();
    assert_eq!(refusal.reason.as_deref(), Some("COMPARISON_FORBIDDEN"));
    let response = ground.client().verify(claim(OTHER_GATE, 2, "lobby")).await.unwrap();
    assert_eq!(matched(&response), Some("lobby"));
    // G6: nobody asked to be recognised.
    for intent in [0, 99] {
        let passive = proto::VerifyRequest { intent, ..verify_face(GATE, 1) };
        let refusal = ground.client().verify(passive).await.unwrap_err();
        assert_eq!((refusal.code.name(), refusal.field.as_deref()), (FIELD, Some("intent")));
    }
}

/// A generator that needs no more than to be repeatable.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }

    fn bytes(&mut self, most: u64) -> Vec<u8> {
        let length = self.below(most);
        (0..length).map(|_| u8::try_from(self.below(256)).unwrap()).collect()
    }

    fn request(&mut self, picture: &[u8]) -> proto::VerifyRequest {
        const GATES: [&str; 8] =
            [GATE, OTHER_GATE, GATE, "", "no-such-gate", "138-1234-5678", "a\u{7}b", "门"];
        const CLAIMS: [&str; 6] = ["", "", "", "somebody", "11010519491231002X", "x\ny"];
        let claim = CLAIMS[usize::try_from(self.below(6)).unwrap()];
        proto::VerifyRequest {
            gate_id: GATES[usize::try_from(self.below(8)).unwrap()].to_owned(),
            intent: i32::try_from(self.below(6)).unwrap(),
            captured_at: match self.below(6) {
                0 => in_ms(-60_000),
                1 => in_ms(60_000),
                2 => Some(WireTime { seconds: -1, nanos: 7 }),
                _ => None,
            },
            claimed_subject: claim.to_owned(),
            pad: i32::try_from(self.below(12)).unwrap().saturating_sub(8).max(0),
            probe: self.probe(picture),
            pad_report: None,
        }
    }

    fn probe(&mut self, picture: &[u8]) -> Option<proto::verify_request::Probe> {
        use proto::verify_request::Probe;
        let number = |random: &mut Self| u32::try_from(random.below(40)).unwrap();
        Some(match self.below(200) {
            0 => Probe::Encoded(proto::EncodedFrame { data: picture.to_vec() }),
            1..=20 => return None,
            21..=50 => Probe::Encoded(proto::EncodedFrame { data: self.bytes(64) }),
            51..=70 => {
                let cut = usize::try_from(self.below(600)).unwrap();
                Probe::Encoded(proto::EncodedFrame { data: picture[..cut].to_vec() })
            }
            71..=100 => Probe::Raw(proto::RawFrame {
                data: self.bytes(2000),
                format: i32::try_from(self.below(7)).unwrap(),
                width: number(self),
                height: number(self),
                stride: number(self),
            }),
            101..=120 => Probe::Aligned(proto::AlignedFace { rgb: self.bytes(400) }),
            121..=140 => {
                let mut face = face(self.below(9));
                face.values.truncate(usize::try_from(self.below(512)).unwrap());
                Probe::Embedding(face)
            }
            _ => Probe::Embedding(face(self.below(9))),
        })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn g1_every_one_of_10_000_random_calls_names_another_way_in() {
    const CALLS: usize = 10_000;
    let ground = Ground::new().await;
    ground.enrol(ground.good("resident-1", 1)).await;
    let client = ground.client();
    let picture = photo("yaoming.jpg");
    let mut random = Random(0x5EED);
    let requests: Vec<_> = (0..CALLS).map(|_| random.request(&picture)).collect();
    let answers = stream::iter(requests.clone())
        .map(|request| async move { (request.clone(), client.verify(request).await) })
        .buffer_unordered(32)
        .collect::<Vec<_>>()
        .await;
    let mut outcomes: BTreeMap<String, usize> = BTreeMap::new();
    for (request, answer) in answers {
        let (outcome, ways) = match answer {
            Ok(response) => (response.decision().as_str_name().to_owned(), response.alternatives),
            Err(refusal) => (refusal.code.name().to_owned(), refusal.alternatives),
        };
        assert!(!ways.is_empty(), "{outcome} for {request:?}");
        assert!(ways.iter().all(|way| way.method != 0 && !way.hint.is_empty()));
        *outcomes.entry(outcome).or_default() += 1;
    }
    assert_eq!(outcomes.values().sum::<usize>(), CALLS);
    for expected in
        ["DECISION_MATCH", "DECISION_NO_MATCH", "DECISION_STALE_FRAME", "DECISION_SPOOF_SUSPECTED"]
    {
        assert!(outcomes.contains_key(expected), "{expected} is not among {outcomes:?}");
    }
    assert!(outcomes.contains_key(FIELD) && outcomes.contains_key(STATE), "{outcomes:?}");
    assert!(!outcomes.contains_key("INTERNAL"), "{outcomes:?}");

    let sent = requests.len().min(1000);
    let mut answers = client.verify_stream(stream::iter(requests).take(sent)).await.unwrap();
    let mut count = 0;
    while let Some(answer) = answers.next().await.unwrap() {
        let ways = match answer.result.unwrap() {
            proto::verify_stream_response::Result::Response(response) => response.alternatives,
            proto::verify_stream_response::Result::Error(refusal) => refusal.alternatives,
        };
        assert!(!ways.is_empty());
        assert_eq!(answer.sequence, count);
        count += 1;
    }
    assert_eq!(count, sent as u64);
    ground.service.stop().await;
}

/// Where a free string stands in a message, and how to put one there.
type Strings<T> = &'static [(&'static str, fn(&mut T, String))];

const ENROLL: Strings<proto::EnrollRequest> = &[
    ("idempotency_key", |r, s| r.idempotency_key = s),
    ("subject_ref", |r, s| r.subject_ref = s),
    ("controller_id", |r, s| r.controller_id = s),
    ("consent.consent_id", |r, s| consent_of(r).consent_id = s),
    ("consent.purpose", |r, s| consent_of(r).purpose = s),
    ("consent.scope", |r, s| consent_of(r).scope = s),
    ("consent.notice_id", |r, s| consent_of(r).notice_id = s),
    ("consent.notice_version", |r, s| consent_of(r).notice_version = s),
    ("consent.channel", |r, s| consent_of(r).channel = s),
    ("consent.legal_reference", |r, s| consent_of(r).legal_reference = s),
    ("consent.guardian.guardian_ref", |r, s| {
        consent_of(r).guardian.get_or_insert_with(guardian).guardian_ref = s;
    }),
    ("consent.guardian.relation", |r, s| {
        consent_of(r).guardian.get_or_insert_with(guardian).relation = s;
    }),
    ("consent.guardian.minor_rules_version", |r, s| {
        consent_of(r).guardian.get_or_insert_with(guardian).minor_rules_version = s;
    }),
    ("frames[0].embedding.model_contract", |r, s| {
        let face = proto::EmbeddingProbe { model_contract: s, ..face(1) };
        r.frames = vec![probe(proto::probe::Form::Embedding(face))];
    }),
];

const VERIFY: Strings<proto::VerifyRequest> = &[
    ("gate_id", |r, s| r.gate_id = s),
    ("claimed_subject", |r, s| r.claimed_subject = s),
    ("pad_report.method", |r, s| {
        r.pad_report = Some(proto::PadReport { method: s, score: None });
    }),
    ("embedding.model_contract", |r, s| {
        let face = proto::EmbeddingProbe { model_contract: s, ..face(1) };
        r.probe = Some(proto::verify_request::Probe::Embedding(face));
    }),
];

const REVOKE: Strings<proto::RevokeRequest> = &[
    ("subject_ref", |r, s| r.target = Some(proto::revoke_request::Target::SubjectRef(s))),
    ("record_id", |r, s| r.target = Some(proto::revoke_request::Target::RecordId(s))),
    ("consent_id", |r, s| r.target = Some(proto::revoke_request::Target::ConsentId(s))),
    ("controller_id", |r, s| r.controller_id = s),
];

const DESCRIBE: Strings<proto::DescribeSubjectRequest> =
    &[("controller_id", |r, s| r.controller_id = s), ("subject_ref", |r, s| r.subject_ref = s)];

const REPORT: Strings<proto::ReportAlternativeRequest> =
    &[("gate_id", |r, s| r.gate_id = s), ("note", |r, s| r.note = s)];

const CLEAR: Strings<proto::ClearLockoutRequest> =
    &[("controller_id", |r, s| r.controller_id = s), ("subject_ref", |r, s| r.subject_ref = s)];

fn names<T>(strings: Strings<T>) -> BTreeSet<String> {
    strings.iter().map(|(path, _)| path.replace("[0]", "")).collect()
}

/// The descriptors of the package.
fn messages() -> Vec<DescriptorProto> {
    let set = FileDescriptorSet::decode(proto::DESCRIPTORS).unwrap();
    set.file.into_iter().flat_map(|file| file.message_type).collect()
}

/// The paths of all strings in a message, as the proto declares them.
fn strings_of(message: &str) -> BTreeSet<String> {
    use field_descriptor_proto::Type;
    let all = messages();
    let Some(message) = all.iter().find(|m| message.ends_with(m.name())) else {
        return BTreeSet::new();
    };
    let mut paths = BTreeSet::new();
    for field in &message.field {
        if field.r#type() == Type::String {
            paths.insert(field.name().to_owned());
        } else if field.r#type() == Type::Message {
            let inner = strings_of(field.type_name());
            paths.extend(inner.iter().map(|path| format!("{}.{path}", field.name())));
        }
    }
    paths
}

/// The proto has no string that the test below forgets, and no place for a list of purposes.
#[test]
fn c2_d1_the_schema_has_no_other_strings_and_no_lists_of_purposes() {
    assert_eq!(names(ENROLL), strings_of("EnrollRequest"));
    assert_eq!(names(VERIFY), strings_of("VerifyRequest"));
    assert_eq!(names(REVOKE), strings_of("RevokeRequest"));
    assert_eq!(names(DESCRIBE), strings_of("DescribeSubjectRequest"));
    assert_eq!(names(REPORT), strings_of("ReportAlternativeRequest"));
    assert_eq!(names(CLEAR), strings_of("ClearLockoutRequest"));
    let all = messages();
    let consent = all.iter().find(|m| m.name() == "ConsentRecord").unwrap();
    let repeated = field_descriptor_proto::Label::Repeated;
    assert!(consent.field.iter().all(|field| field.label() != repeated));
    assert!(consent.field.iter().any(|field| field.name() == "bundled"));
}

fn is_refused_without_repeating<T>(outcome: Result<T, ClientError>, path: &str, id: &str) {
    let Err(refusal) = outcome else { panic!("{path} took {id}") };
    assert_eq!((refusal.code.name(), refusal.field.as_deref()), (FIELD, Some(path)), "{refusal}");
    assert!(!refusal.message.contains(id), "{refusal}");
}

#[tokio::test(flavor = "multi_thread")]
async fn d1_no_string_of_a_request_takes_a_personal_identifier() {
    let ground = Ground::new().await;
    let client = ground.client();
    for id in PERSONAL {
        for (path, put) in ENROLL {
            let mut request = ground.good("resident-1", 1);
            put(&mut request, id.to_owned());
            let refusal = ground.refusal(request).await;
            is_refused_without_repeating::<()>(Err(refusal), path, id);
        }
        for (path, put) in VERIFY {
            let mut request = verify_face(OTHER_GATE, 1);
            put(&mut request, id.to_owned());
            is_refused_without_repeating(client.verify(request).await, path, id);
        }
        for (path, put) in REVOKE {
            let mut request = revoke_subject("resident-1");
            put(&mut request, id.to_owned());
            is_refused_without_repeating(client.revoke(request).await, path, id);
        }
        for (path, put) in DESCRIBE {
            let mut request = proto::DescribeSubjectRequest {
                controller_id: CONTROLLER.to_owned(),
                subject_ref: "resident-1".to_owned(),
            };
            put(&mut request, id.to_owned());
            is_refused_without_repeating(client.describe_subject(request).await, path, id);
        }
        for (path, put) in REPORT {
            let mut request = proto::ReportAlternativeRequest {
                gate_id: OTHER_GATE.to_owned(),
                method: proto::AlternativeMethod::Card.into(),
                state: proto::AlternativeState::Up.into(),
                ..proto::ReportAlternativeRequest::default()
            };
            put(&mut request, id.to_owned());
            is_refused_without_repeating(client.report_alternative(request).await, path, id);
        }
        for (path, put) in CLEAR {
            let mut request = proto::ClearLockoutRequest {
                controller_id: CONTROLLER.to_owned(),
                subject_ref: "resident-1".to_owned(),
            };
            put(&mut request, id.to_owned());
            is_refused_without_repeating(client.clear_lockout(request).await, path, id);
        }
    }
    // The control: opaque references pass, those full of digits too.
    let opaque = ground.good("67e55044-10b1-426f-9247-bb680e5fe0c8", 1);
    ground.enrol(opaque).await;
    ground.enrol(ground.good("B3-1204-2-2025-06-01", 2)).await;
    ground.service.stop().await;
}

/// Profile `open` flags duplicates and holds longer: the rules above are the profile's, not code's.
#[tokio::test(flavor = "multi_thread")]
async fn under_another_profile_other_rules_hold() {
    let place = Place::new();
    let service = Service::start_configured(place, "profile = \"open\"\n").await;
    let notice = service.notice().await;
    let mut long = enrolment_under(&notice, "resident-1", "north-gate", vec![embedded(1)]);
    consent_of(&mut long).expires_at = in_ms(366 * 86_400_000);
    service.client.enroll(long).await.unwrap();
    let passive = proto::VerifyRequest { intent: 0, ..verify_face(GATE, 1) };
    let response = service.client.verify(passive).await.unwrap();
    assert_eq!(matched(&response), Some("resident-1"));
    // What holds everywhere holds here.
    let mut bundled = enrolment_under(&notice, "resident-2", "north-gate", vec![embedded(2)]);
    consent_of(&mut bundled).bundled = Some(true);
    let refusal = service.client.enroll(bundled).await.unwrap_err();
    assert_eq!(refusal.field.as_deref(), Some("consent.bundled"));
    let nobody = service.client.verify(verify_photo(GATE, photo("yaoming.jpg"))).await.unwrap();
    assert_eq!(matched(&nobody), None);
    service.stop().await;
}

/// The rules change while the service is down: nobody matches who may not be held under the new ones.
#[tokio::test(flavor = "multi_thread")]
async fn c7_c8_c9_a_service_does_not_start_over_records_that_its_rules_do_not_allow() {
    let service = Service::start_configured(Place::new(), "profile = \"open\"\n").await;
    let notice = service.notice().await;
    let enrol = |subject: &'static str, seed| {
        enrolment_under(&notice, subject, "north-gate", vec![embedded(seed)])
    };
    let mut long = enrol("resident-1", 1);
    consent_of(&mut long).expires_at = in_ms(900 * 86_400_000);
    let mut duty = enrol("resident-2", 2);
    consent_of(&mut duty).lawful_basis = proto::LawfulBasis::LegalObligation.into();
    consent_of(&mut duty).legal_reference = "Act 7, article 3".to_owned();
    let fine = enrol("resident-3", 3);
    for request in [long, duty, fine] {
        service.client.enroll(request).await.unwrap();
    }
    let mut place = service.stop().await;
    let refused = |place: &Place, toml: &str| {
        let config = place.path().join("other.toml");
        std::fs::write(&config, toml).unwrap();
        assent::config::load(Some(&config), place.overrides()).unwrap()
    };
    for (toml, records) in [
        ("profile = \"cn\"\n", "2 of the records"),
        ("profile = \"cn\"\ndeployment = \"internet\"\n", "3 of the records"),
    ] {
        let Err(fault) = assent::server::start(refused(&place, toml)).await else {
            panic!("it starts under {toml}")
        };
        let fault = fault.to_string();
        assert!(fault.contains(records) && fault.contains("withdraw them"), "{fault}");
    }
    // Under the old rules they are withdrawn, and the new ones are fine then.
    let service = Service::start_configured(place, "profile = \"open\"\n").await;
    for subject in ["resident-1", "resident-2"] {
        service.client.revoke(revoke_subject(subject)).await.unwrap();
    }
    place = service.stop().await;
    let service = Service::start_configured(place, "profile = \"cn\"\n").await;
    let response = service.client.verify(verify_face(GATE, 3)).await.unwrap();
    assert_eq!(matched(&response), Some("resident-3"), "control");
    service.stop().await;
}
