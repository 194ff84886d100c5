//! Backups by the program itself: fetched while it serves, restored after the disk was lost, and
//! what stays revoked whatever is brought back.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use assent::service::client::Client;
use serde_json::Value;

use crate::harness::{
    GATE, Place, Service, embedded, enrolment, matched, revoke_subject, verify_face,
};

const PEOPLE: u64 = 5;
const USAGE: i32 = 64;

fn assent(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_assent")).args(arguments).output().unwrap()
}

#[track_caller]
fn done(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[track_caller]
fn refused(output: &Output, words: &[&str]) {
    let said = String::from_utf8_lossy(&output.stderr);
    eprintln!("-- {}", said.trim_end());
    assert_eq!(output.status.code(), Some(USAGE), "{output:?}");
    for word in words {
        assert!(said.contains(word), "{word:?} is missing in: {said}");
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn name(person: u64) -> String {
    format!("resident-{person}")
}

async fn enrol(service: &Service, person: u64) {
    let frames = vec![embedded(person)];
    let request = enrolment(&service.client, &name(person), "north-gate", frames).await;
    service.client.enroll(request).await.unwrap();
}

async fn let_in(client: &Client) -> Vec<u64> {
    let mut found = Vec::new();
    for person in 0..=PEOPLE {
        let verdict = client.verify(verify_face(GATE, person)).await.unwrap();
        if let Some(who) = matched(&verdict) {
            assert_eq!(who, name(person));
            found.push(person);
        }
    }
    found
}

/// Restores into the place's data directory.
fn restore(place: &Place, file: &Path, identity: &Path, mirror: Option<&Path>) -> Output {
    let (data, key) = (place.data(), place.root_key());
    let mut arguments = vec!["--json", "restore", text(file), "--identity", text(identity)];
    arguments.extend(["--plaintext", "--data-dir", text(&data), "--root-key", text(&key)]);
    arguments.extend(mirror.into_iter().flat_map(|mirror| ["--mirror", text(mirror)]));
    assent(&arguments)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_disk_comes_back_from_a_backup_and_nobody_revoked_comes_with_it() {
    let service = Service::start().await;
    for person in 0..PEOPLE {
        enrol(&service, person).await;
    }
    service.client.revoke(revoke_subject(&name(0))).await.unwrap();

    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let (identity, file) = (path("identity"), path("backup.age"));
    let recipient = done(&assent(&["keys", "backup-identity", text(&identity)]));
    let server = format!("http://{}", service.running.address());
    let take = |output: &Path| {
        let to = ["--recipient", recipient.trim(), "--server", &server];
        assent(&[&["backup", "--output", text(output)][..], &to].concat())
    };
    done(&take(&file));
    let sealed = fs::read(&file).unwrap();
    assert!(sealed.starts_with(b"age-encryption.org/v1"));
    refused(&take(&file), &["backup.age", "exists"]);
    assert_eq!(fs::read(&file).unwrap(), sealed, "it is left as it was");

    // After the backup: one leaves, one comes.
    service.client.revoke(revoke_subject(&name(3))).await.unwrap();
    enrol(&service, PEOPLE).await;
    let place = service.stop().await;
    refused(&restore(&place, &file, &identity, None), &["not empty", "move it away"]);

    // The disk is lost; the mirror was on another one.
    let lost = path("lost");
    fs::rename(place.data(), &lost).unwrap();
    let mirror = lost.join("key-mirror");
    refused(&restore(&place, &file, &identity, None), &["epoch", "--mirror"]);
    let other = path("other");
    done(&assent(&["keys", "backup-identity", text(&other)]));
    refused(&restore(&place, &file, &other, Some(&mirror)), &["not addressed"]);
    let mut torn = sealed.clone();
    let middle = torn.len() / 2;
    torn[middle] ^= 1;
    fs::write(path("torn.age"), torn).unwrap();
    refused(&restore(&place, &path("torn.age"), &identity, Some(&mirror)), &["torn.age"]);
    assert!(!place.data().exists(), "what failed leaves nothing");

    let said = done(&restore(&place, &file, &identity, Some(&mirror)));
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(said["records"], 3);
    assert_eq!(said["revoked_since"].as_array().unwrap().len(), 1);

    let service = Service::start_in(place).await;
    assert_eq!(let_in(&service.client).await, [1, 2, 4]);
    assert_eq!(service.running.engine().status().quarantined, []);
    evidence_is_whole(&service, folder.path());
    enrol(&service, PEOPLE).await;
    service.client.revoke(revoke_subject(&name(1))).await.unwrap();
    let service = Service::start_in(service.stop().await).await;
    assert_eq!(let_in(&service.client).await, [2, 4, 5]);
    service.stop().await;
}

/// The evidence about somebody, and about the whole time, reaches over the restoration.
fn evidence_is_whole(service: &Service, folder: &Path) {
    let server = format!("http://{}", service.running.address());
    let (about, incident) = (folder.join("evidence"), folder.join("incident"));
    let subject = ["evidence", "resident-1", "--controller", "maple-property"];
    let period = ["incident", "--from", "2020-01-01T00:00:00Z"];
    for (what, output) in [(&subject[..], &about), (&period[..], &incident)] {
        let to = ["-o", text(output), "--server", &server];
        done(&assent(&[what, &to].concat()));
        done(&assent(&["evidence", "verify", text(output)]));
        let statement = fs::read(output.join("statement.json")).unwrap();
        let said: Value = serde_json::from_slice(&statement).unwrap();
        assert!(said["events"]["decision match"].is_u64(), "{said}");
        let [policy] = &said["policies"].as_array().unwrap()[..] else { panic!("{said}") };
        assert!(output.join(format!("policy-{}.toml", policy["revision"])).exists());
    }
    let page = fs::read_to_string(incident.join("index.html")).unwrap();
    assert!(page.contains("自备份恢复"), "the restoration is in it");
}
