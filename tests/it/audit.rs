//! What the service says it did, checked without it; and what an old copy of its disk gives.

use std::fs;
use std::process::{Command, Output};

use assent::audit::{Leaf, Receipt};
use assent::service::{json, proto};

use crate::harness::{
    GATE, Place, Process, Service, copy, embedded, enrolment, face, matched, revoke_subject,
    verify_face,
};

const PERSON: u64 = 7;
const STRANGER: u64 = 8;
const SUBJECT: &str = "resident-7";
const REFUSED: i32 = 65;

fn assent(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_assent"))
        .args(arguments)
        .env_remove("ASSENT_SERVER")
        .output()
        .unwrap()
}

#[track_caller]
fn ends(output: &Output, code: i32, word: &str) {
    let text = [&output.stdout[..], &output.stderr].concat();
    let text = String::from_utf8(text).unwrap();
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert!(text.contains(word), "{word:?} is missing in: {text}");
}

/// A service with a history: enrolled, matched, a stranger sent away, revoked.
async fn with_history() -> Service {
    let service = Service::start().await;
    let enrolled = service.client.enroll(service.enrolment(SUBJECT, vec![embedded(PERSON)]).await);
    enrolled.await.unwrap();
    for (seed, who) in [(PERSON, Some(SUBJECT)), (STRANGER, None)] {
        let answer = service.client.verify(verify_face(GATE, seed)).await.unwrap();
        assert_eq!(matched(&answer), who);
    }
    service.client.revoke(revoke_subject(SUBJECT)).await.unwrap();
    service
}

async fn export(service: &Service, digests_only: bool) -> Vec<u8> {
    let request = proto::ExportAuditRequest { after_seq: 0, digests_only };
    let mut pieces = service.client.export_audit(request).await.unwrap();
    let mut bytes = Vec::new();
    while let Some(piece) = pieces.next().await.unwrap() {
        bytes.extend_from_slice(&piece.lines);
    }
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn p6_every_decision_and_change_is_in_the_audit_trail_and_no_biometric_is() {
    let service = with_history().await;
    let text = String::from_utf8(export(&service, false).await).unwrap();
    let events: Vec<_> = text
        .lines()
        .filter_map(|line| line.split_once("\"entry\":"))
        .map(|(_, entry)| serde_json::from_str::<serde_json::Value>(&entry[..entry.len() - 1]))
        .map(Result::unwrap)
        .collect();
    let named = |name: &str| {
        events.iter().filter(|event| event["event"] == name).cloned().collect::<Vec<_>>()
    };
    let decisions = named("decision");
    let said: Vec<_> = decisions.iter().map(|event| event["decision"].as_str().unwrap()).collect();
    assert_eq!(said, ["match", "no_match"]);
    let enrolled = named("enrolled");
    assert_eq!(decisions[0]["record"], enrolled[0]["record"]);
    assert_eq!(decisions[0]["scope"], "north-gate");
    assert_eq!(decisions[0]["caller"], "loopback");
    assert_eq!(decisions[1].get("record"), None);
    assert_eq!(named("erased")[0]["records"][0], enrolled[0]["record"]);
    assert_eq!(named("policy_applied").len(), 1);
    // No number of the face's, in any of the ways that it could be written.
    for value in &face(PERSON).values {
        assert!(!text.contains(&value.to_string()), "{value}");
    }
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn d6_an_export_verifies_offline_and_an_altered_or_cut_one_does_not() {
    let service = with_history().await;
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let url = format!("http://{}", service.running.address());
    let (file, kept) = (path("trail.jsonl"), path("witness.jsonl"));
    let client = |arguments: &[&str]| assent(&[arguments, &["--server", &url]].concat());

    ends(&client(&["audit", "witness", "--file", &kept]), 0, "witnessed");
    ends(&client(&["audit", "export", "-o", &file]), 0, "audit verify");
    ends(&client(&["audit", "export", "-o", &file]), 64, "trail.jsonl");
    ends(&client(&["audit", "witness", "--file", &kept]), 0, "0 new");
    ends(&assent(&["audit", "verify", &file, "--witness", &kept]), 0, "1 checkpoint(s)");
    ends(&assent(&["audit", "verify", &file]), 0, "not compared with a witness");
    let wrong = "00".repeat(32);
    ends(&assent(&["audit", "verify", &file, "--public-key", &wrong]), REFUSED, "signed by");
    ends(&assent(&["audit", "verify", &file, "--public-key", "7"]), 64, "64 hexadecimal");

    let good = fs::read_to_string(&file).unwrap();
    let altered = path("altered.jsonl");
    fs::write(&altered, good.replacen("no_match", "match", 1)).unwrap();
    ends(&assent(&["audit", "verify", &altered]), REFUSED, "altered.jsonl");
    let lines: Vec<_> = good.lines().collect();
    fs::write(&altered, lines[..lines.len() - 1].join("\n") + "\n").unwrap();
    ends(&assent(&["audit", "verify", &altered]), REFUSED, "cut short");
    ends(&assent(&["audit", "verify", &path("none")]), 64, "none");

    // Another log under the witness's eyes.
    let other = with_history().await;
    let other_url = format!("http://{}", other.running.address());
    let alarm = assent(&["audit", "witness", "--file", &kept, "--server", &other_url]);
    ends(&alarm, REFUSED, "ALARM");
    let leaf = Leaf::of(b"x");
    let digests = String::from_utf8(export(&service, true).await).unwrap();
    assert!(digests.contains("\"leaf\":") && !digests.contains(SUBJECT), "{leaf:?}");
    other.stop().await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn receipts_verify_offline_and_altered_ones_do_not() {
    let service = Service::start().await;
    let request = service.enrolment(SUBJECT, vec![embedded(PERSON)]).await;
    let enrolled = service.client.enroll(request).await.unwrap();
    let revoked = service.client.revoke(revoke_subject(SUBJECT)).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &serde_json::Value| {
        let path = folder.path().join(name);
        fs::write(&path, text.to_string()).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let consent = file("consent.json", &json::to_json("EnrollResponse", &enrolled).unwrap());
    let answer = json::to_json("RevokeResponse", &revoked).unwrap();
    let erasure = file("erasure.json", &answer);
    let held = revoked.receipt.unwrap();
    let key = hex::encode(&held.public_key);
    let both = assent(&["receipt", "verify", &consent, &erasure, "--public-key", &key]);
    ends(&both, 0, "erasure receipt");
    ends(&both, 0, "consent receipt");
    ends(&both, 0, SUBJECT);
    let alone = file("alone.json", &answer["receipt"]);
    ends(&assent(&["receipt", "verify", &alone]), 0, "compare this key");
    let wrong = "11".repeat(32);
    ends(&assent(&["receipt", "verify", &alone, "--public-key", &wrong]), REFUSED, "signed by");
    let mut altered = Receipt {
        body: held.body,
        signature: held.signature.try_into().unwrap(),
        public_key: held.public_key.try_into().unwrap(),
    };
    assert!(altered.verify(None).is_ok(), "control");
    altered.body[9] ^= 1;
    assert!(altered.verify(None).is_err());
    ends(
        &assent(&["receipt", "verify", &file("odd.json", &serde_json::json!({}))]),
        64,
        "no receipt",
    );
    service.stop().await;
}

/// A folder and all in it, as a thief or a backup copies it.
/// What `assent serve` says of a place that it does not serve.
fn refusal(place: &Place) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_assent"));
    command.args(["serve", "--plaintext", "--no-metrics", "--provider", "cpu"]);
    command.args(["--listen", "127.0.0.1:0"]).arg("--data-dir").arg(place.data());
    command.arg("--root-key").arg(place.root_key());
    command.arg("--models-dir").arg(&*crate::harness::MODELS);
    let output = command.output().unwrap();
    assert!(!output.status.success());
    String::from_utf8(output.stderr).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn d3_a_copy_of_the_disk_from_before_a_revocation_is_refused_with_todays_root() {
    let place = Place::new();
    let mut process = Process::spawn(&place);
    let client = process.client().await;
    let apply =
        proto::ApplyPolicyRequest { toml: crate::harness::POLICY.to_owned(), dry_run: false };
    client.apply_policy(apply).await.unwrap();
    let request = enrolment(&client, SUBJECT, "north-gate", vec![embedded(PERSON)]).await;
    client.enroll(request).await.unwrap();
    let (held, limit) = (Place::new(), Place::new());
    for other in [&held, &limit] {
        copy(&place.data(), &other.data());
        fs::copy(place.root_key(), other.root_key()).unwrap();
    }
    client.revoke(revoke_subject(SUBJECT)).await.unwrap();
    process.kill();

    // The disk of then, the root key of today.
    fs::copy(place.root_key(), held.root_key()).unwrap();
    let said = refusal(&held);
    assert!(said.contains("put back to an older copy"), "{said}");

    // The disk of today, the root key of then.
    let mixed = Place::new();
    copy(&place.data(), &mixed.data());
    fs::copy(limit.root_key(), mixed.root_key()).unwrap();
    let said = refusal(&mixed);
    assert!(said.contains("root key was put back"), "{said}");

    // The limit, and the control: who copied both has all of that day.
    let mut process = Process::spawn(&limit);
    let answer = process.client().await.verify(verify_face(GATE, PERSON)).await.unwrap();
    assert_eq!(matched(&answer), Some(SUBJECT));

    // Today's disk and root key know nobody.
    let mut process = Process::spawn(&place);
    let answer = process.client().await.verify(verify_face(GATE, PERSON)).await.unwrap();
    assert_eq!(matched(&answer), None);
}
