//! Evidence: complete, provable without the service, and silent about everybody else.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use assent::crypto::cell::RootCell as _;
use assent::service::proto;
use assent::types::Timestamp;
use serde_json::Value;

use crate::harness::{
    CONTROLLER, GATE, POLICY, Service, embedded, face, matched, revoke_subject, verify_face,
};

const PERSON: u64 = 7;
const OTHER: u64 = 9;
const STRANGER: u64 = 8;
const SUBJECT: &str = "resident-7";
const NEIGHBOUR: &str = "resident-9";
const REFUSED: i32 = 65;

/// What an attacker makes of a file.
type Spoil = fn(&str) -> String;

async fn assent(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_assent"));
    command.args(arguments).env_remove("ASSENT_SERVER");
    tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap()
}

#[track_caller]
fn ends(output: &Output, code: i32, word: &str) {
    let text = String::from_utf8([&output.stdout[..], &output.stderr].concat()).unwrap();
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert!(text.contains(word), "{word:?} is missing in: {text}");
}

/// Two neighbours enrolled, both matched, a stranger sent away.
async fn with_history() -> Service {
    let service = Service::start().await;
    for (seed, subject) in [(OTHER, NEIGHBOUR), (PERSON, SUBJECT)] {
        let request = service.enrolment(subject, vec![embedded(seed)]).await;
        service.client.enroll(request).await.unwrap();
    }
    for (seed, who) in [(PERSON, Some(SUBJECT)), (OTHER, Some(NEIGHBOUR)), (STRANGER, None)] {
        let answer = service.client.verify(verify_face(GATE, seed)).await.unwrap();
        assert_eq!(matched(&answer), who);
    }
    service
}

fn statement(folder: &Path) -> Value {
    serde_json::from_slice(&fs::read(folder.join("statement.json")).unwrap()).unwrap()
}

/// The whole entries of the trail.
fn entries(folder: &Path) -> Vec<Value> {
    let trail = fs::read_to_string(folder.join("trail.jsonl")).unwrap();
    let lines = trail.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.map(|line| line["entry"].clone()).filter(Value::is_object).collect()
}

fn all_of(folder: &Path) -> String {
    let names = ["statement.json", "statement.signature.json", "trail.jsonl", "index.html"];
    names.map(|name| fs::read_to_string(folder.join(name)).unwrap()).concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn o4_evidence_about_a_subject_is_whole_and_silent_about_others_before_and_after_erasure() {
    let service = with_history().await;
    let place = tempfile::tempdir().unwrap();
    let url = format!("http://{}", service.running.address());
    let (before, after) = (place.path().join("before"), place.path().join("after"));
    let collect = |folder: &Path| {
        let (folder, url) = (folder.to_str().unwrap().to_owned(), url.clone());
        async move {
            let args = ["evidence", SUBJECT, "--controller", CONTROLLER, "-o", &folder];
            assent(&[&args[..], &["--server", &url]].concat()).await
        }
    };
    ends(&collect(&before).await, 0, "held now   1 record(s)");
    ends(&collect(&before).await, 64, "is not empty");
    service.client.revoke(revoke_subject(SUBJECT)).await.unwrap();
    ends(&collect(&after).await, 0, "held now   0 record(s)");

    let (held, gone) = (statement(&before), statement(&after));
    let receipt = &held["held"][0]["consent_receipt"];
    assert_eq!(receipt["subject_ref"], SUBJECT);
    assert_eq!(gone["held"], serde_json::json!([]));
    // What was agreed to, and the notice word for word, outlive the template.
    for statement in [&held, &gone] {
        assert_eq!(statement["consents"][0]["consent"]["scope"], "north-gate");
        let notice = &statement["notices"][0];
        assert_eq!(notice["sha256"], statement["consents"][0]["consent"]["notice_sha256"]);
        let rights = notice["notice"]["texts"][1]["rights"].as_str().unwrap();
        assert!(rights.contains("withdraw at any time"), "{rights}");
        assert_eq!(statement["controllers"][0]["id"], CONTROLLER);
        assert_eq!(statement["assessments"][0]["controller"], CONTROLLER);
    }
    assert_eq!(held["events"], serde_json::json!({ "decision match": 1, "enrolled": 1 }));
    let all = serde_json::json!({ "decision match": 1, "enrolled": 1, "erased": 1 });
    assert_eq!(gone["events"], all);
    let named = |name: &str| {
        entries(&after).into_iter().filter(|entry| entry["event"] == name).collect::<Vec<_>>()
    };
    assert_eq!(named("enrolled").len(), 1);
    assert_eq!(named("decision").len(), 1);
    assert_eq!(named("erased")[0]["cause"], "withdrawn");

    // Nothing of the neighbour, nothing of a face.
    for folder in [&before, &after] {
        let text = all_of(folder);
        assert!(text.contains(SUBJECT), "control");
        assert!(!text.contains(NEIGHBOUR));
        for value in &face(PERSON).values {
            assert!(!text.contains(&value.to_string()), "{value}");
        }
    }
    let page = fs::read_to_string(after.join("index.html")).unwrap();
    for word in ["没有保存任何模板", "本人撤回同意", "face-entry@2026-01", "您可以随时"]
    {
        assert!(page.contains(word), "{word}");
    }

    // Somebody of whom nothing was ever known.
    let nobody = place.path().join("nobody");
    let folder = nobody.to_str().unwrap();
    let args = ["evidence", "resident-404", "--controller", CONTROLLER, "-o", folder];
    ends(&assent(&[&args[..], &["--server", &url]].concat()).await, 0, "held now   0 record(s)");
    assert_eq!(statement(&nobody)["events"], serde_json::json!({}));
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn o4_evidence_verifies_offline_and_altered_evidence_does_not() {
    let service = with_history().await;
    let place = tempfile::tempdir().unwrap();
    let url = format!("http://{}", service.running.address());
    let (good, kept) = (place.path().join("good"), place.path().join("witness.jsonl"));
    let (folder, witness) = (good.to_str().unwrap(), kept.to_str().unwrap());
    let args = ["evidence", SUBJECT, "--controller", CONTROLLER, "-o", folder, "--server", &url];
    ends(&assent(&args).await, 0, "holds");
    ends(&assent(&["audit", "witness", "--file", witness, "--server", &url]).await, 0, "witnessed");
    // The service is not there any more.
    service.stop().await;
    let key = fs::read_to_string(good.join("statement.signature.json")).unwrap();
    let key =
        serde_json::from_str::<Value>(&key).unwrap()["public_key"].as_str().unwrap().to_owned();
    let verify = ["evidence", "verify", folder, "--public-key", &key];
    ends(&assent(&verify).await, 0, "every link checked");
    let with_witness = [&verify[..], &["--witness", witness]].concat();
    ends(&assent(&with_witness).await, 0, "agrees with 1 checkpoint(s)");
    let wrong = "11".repeat(32);
    let other_key = ["evidence", "verify", folder, "--public-key", &wrong];
    ends(&assent(&other_key).await, REFUSED, "signed by");

    let attacks: [(&str, Spoil, &str); 6] = [
        ("index.html", |text| text.replacen("withdraw", "with draw", 1), "not the page"),
        ("statement.json", |text| text.replacen("resident-7", "resident-8", 1), "altered"),
        ("trail.jsonl", |text| text.replacen("\"match\"", "\"no_match\"", 1), "not the trail"),
        ("trail.jsonl", |text| text.lines().skip(1).collect(), "not the trail"),
        ("trail.jsonl", |_| String::new(), "not the trail"),
        ("statement.signature.json", |_| "{}".to_owned(), "signature"),
    ];
    for (n, (name, spoil, said)) in attacks.into_iter().enumerate() {
        let spoilt = place.path().join(format!("spoilt-{n}"));
        crate::harness::copy(&good, &spoilt);
        let text = fs::read_to_string(spoilt.join(name)).unwrap();
        assert_ne!(spoil(&text), text, "the spoiling spoils");
        fs::write(spoilt.join(name), spoil(&text)).unwrap();
        let output = assent(&["evidence", "verify", spoilt.to_str().unwrap()]).await;
        assert_ne!(output.status.code(), Some(0));
        ends(&output, output.status.code().unwrap(), said);
    }
}

/// What a gate did is judged by the rules of that day, though they were replaced since.
#[tokio::test(flavor = "multi_thread")]
async fn o4_evidence_shows_the_rules_under_which_each_decision_was_made() {
    let service = with_history().await;
    let hint = "Hold your card to the reader";
    assert!(POLICY.contains(hint), "control");
    service.apply(&POLICY.replace(hint, "Show your card to the guard")).await;
    // Under this one nothing is done about the person.
    service.apply(&POLICY.replace(hint, "Ring the bell")).await;
    service.client.verify(verify_face(GATE, STRANGER)).await.unwrap();
    service.apply(&POLICY.replace(hint, "Show your card to the porter")).await;
    service.client.verify(verify_face(GATE, PERSON)).await.unwrap();
    let place = tempfile::tempdir().unwrap();
    let url = format!("http://{}", service.running.address());
    let good = place.path().join("good");
    let folder = good.to_str().unwrap();
    let args = ["evidence", SUBJECT, "--controller", CONTROLLER, "-o", folder, "--server", &url];
    ends(&assent(&args).await, 0, "holds");
    let key_file = service.stop().await;
    let mut said = statement(&good);
    let policies = said["policies"].as_array().unwrap();
    let file = |policy: &Value| good.join(format!("policy-{}.toml", policy["revision"]));
    let documents: Vec<_> =
        policies.iter().map(|policy| fs::read_to_string(file(policy)).unwrap()).collect();
    assert_eq!(documents.len(), 2, "{documents:?}");
    assert!(documents[0].contains(hint) && documents[1].contains("to the porter"));
    let page = fs::read_to_string(good.join("index.html")).unwrap();
    assert!(page.contains(hint) && page.contains("to the porter"));
    assert!(!page.contains("Ring the bell") && !page.contains("to the guard"));

    // Whoever has the key can sign another past; the trail, which a witness saw, says otherwise.
    let forged = documents[1].replace("to the porter", "to nobody");
    let path = file(&policies[1]);
    fs::write(&path, &forged).unwrap();
    ends(&assent(&["evidence", "verify", folder]).await, REFUSED, "is not the policy");
    said["policies"][1]["sha256"] = hex::encode(assent::crypto::sha256(forged.as_bytes())).into();
    let cell = assent::crypto::cell::FileCell::open(&key_file.root_key()).unwrap();
    let receipt = assent::audit::Receipt::sign(&cell.deployment().signer(), &said);
    fs::write(good.join("statement.json"), &receipt.body).unwrap();
    let signature = serde_json::json!({
        "public_key": hex::encode(receipt.public_key),
        "signature": hex::encode(receipt.signature),
    });
    fs::write(good.join("statement.signature.json"), signature.to_string()).unwrap();
    let verify = ["evidence", "verify", folder];
    ends(&assent(&verify).await, REFUSED, "is not the policy that was applied");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_incident_export_holds_what_was_done_in_that_time_and_nothing_else() {
    let service = with_history().await;
    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    let from = Timestamp::now();
    service.client.verify(verify_face(GATE, STRANGER)).await.unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    let until = Timestamp::now();
    service.client.verify(verify_face(GATE, PERSON)).await.unwrap();
    let place = tempfile::tempdir().unwrap();
    let url = format!("http://{}", service.running.address());
    let folder = place.path().join("incident");
    let (from, until) = (from.to_string(), until.to_string());
    let args = ["incident", "--from", &from, "--until", &until, "-o", folder.to_str().unwrap()];
    ends(&assent(&[&args[..], &["--server", &url]].concat()).await, 0, "decision no_match");
    let said = statement(&folder);
    assert_eq!(said["events"], serde_json::json!({ "decision no_match": 1 }));
    assert_eq!(said["subjects_held_in_all"], 2);
    assert!(!all_of(&folder).contains(SUBJECT));
    let backwards = ["incident", "--from", &until, "--until", &from, "-o", "nowhere"];
    let output = assent(&[&backwards[..], &["--server", &url]].concat()).await;
    ends(&output, REFUSED, "period.until");
    assert!(!Path::new("nowhere").exists(), "a refusal leaves nothing behind");
    service.stop().await;
}

/// C10: the fields of ISO/IEC TS 27560:2023, by name and kind, read back from the signed bytes.
#[tokio::test(flavor = "multi_thread")]
async fn c10_the_consent_receipt_has_the_fields_of_ts_27560_and_its_signature_holds() {
    let service = Service::start().await;
    let request = service.enrolment(SUBJECT, vec![embedded(PERSON)]).await;
    let signed = service.client.enroll(request).await.unwrap().receipt.unwrap();
    let receipt = assent::audit::Receipt {
        body: signed.body.clone(),
        signature: signed.signature.try_into().unwrap(),
        public_key: signed.public_key.try_into().unwrap(),
    };
    let said = receipt.verify(None).unwrap().body;
    assert!(signed.body.len() <= 16 << 10, "{} bytes", signed.body.len());
    for field in ["schema_version", "record_id", "pii_principal_id"] {
        assert!(said[field].is_string(), "{field}");
    }
    let processing = &said["pii_processing"][0];
    for field in ["privacy_notice", "privacy_notice_sha256"] {
        assert!(processing[field].is_string(), "{field}");
    }
    assert_eq!(processing["language"], serde_json::json!(["zh-CN", "en"]));
    let purpose = &processing["purposes"][0];
    for (field, value) in [
        ("purpose", "resident-entry"),
        ("lawful_basis", "consent"),
        ("collection_method", "front-desk-tablet"),
        ("jurisdiction", "cn"),
        ("alternative", "card"),
    ] {
        assert_eq!(purpose[field], value, "{field}");
    }
    assert_eq!(purpose["pii_controllers"], serde_json::json!([CONTROLLER]));
    assert_eq!(purpose["recipient_third_parties"], serde_json::json!([]));
    assert_eq!(purpose["storage_locations"], serde_json::json!(["site_lan"]));
    assert_eq!(purpose["impact_assessment"]["version"], "2026-01");
    assert_eq!(purpose["pii_information"][0]["special_pii_category"], true);
    assert!(purpose["withdrawal_method"]["en"].as_str().unwrap().contains("at any time"));
    assert!(purpose["retention_period"]["until"].is_string());
    let given = &said["event"][0];
    for field in ["event_time", "event_type", "event_state", "entity_id"] {
        assert!(given[field].is_string(), "{field}");
    }
    let party = &said["party_identification"][0];
    assert_eq!(
        (&party["party_id"], &party["party_role"]),
        (&CONTROLLER.into(), &"PII controller".into())
    );
    assert!(party["party_contact"].as_str().unwrap().contains("front desk"));
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn o4_the_evidence_of_one_names_no_record_of_another_who_expired_with_them() {
    let service = Service::start().await;
    let ends_at = Timestamp::now().plus_ms(2_500);
    let mut records = Vec::new();
    for (seed, subject) in [(PERSON, SUBJECT), (OTHER, NEIGHBOUR)] {
        let mut request = service.enrolment(subject, vec![embedded(seed)]).await;
        request.consent.as_mut().unwrap().expires_at = Some(ends_at.into());
        records.push(service.client.enroll(request).await.unwrap().record_id);
    }
    while service.client.status(proto::StatusRequest {}).await.unwrap().subjects > 0 {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("evidence");
    let url = format!("http://{}", service.running.address());
    let args = ["evidence", SUBJECT, "--controller", CONTROLLER, "--server", &url];
    let output = ["-o", folder.to_str().unwrap()];
    ends(&assent(&[&args[..], &output].concat()).await, 0, "1  erased");
    let text = all_of(&folder);
    assert!(text.contains(&records[0]) && !text.contains(&records[1]));
    let nobody = ["evidence", SUBJECT, "--controller", "nobody", "-o", "nowhere", "--server", &url];
    ends(&assent(&nobody).await, REFUSED, "no such controller");
    service.stop().await;
}
