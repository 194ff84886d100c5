//! The end of a deployment: papers first, then keys, then files; certified, and for good.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use crate::harness::{MODELS, Place, Service, embedded, revoke_subject};

const REFUSED: i32 = 65;

fn assent(place: &Place, arguments: &[&str]) -> Output {
    assent_until(place, arguments, "")
}

/// The same, killed where it reaches a point.
fn assent_until(place: &Place, arguments: &[&str], failpoint: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_assent"));
    command.args(arguments).env_remove("ASSENT_SERVER");
    if arguments[0] != "receipt" && arguments[0] != "audit" {
        command.args(["--plaintext", "--no-metrics", "--provider", "cpu"]);
        command.args(["--listen", "127.0.0.1:0"]).arg("--data-dir").arg(place.data());
        command.arg("--root-key").arg(place.root_key()).arg("--models-dir").arg(&*MODELS);
    }
    if !failpoint.is_empty() {
        command.env("ASSENT_FAILPOINT", failpoint);
    }
    command.output().unwrap()
}

#[track_caller]
fn ends(output: &Output, code: i32, word: &str) -> String {
    let text = String::from_utf8([&output.stdout[..], &output.stderr].concat()).unwrap();
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert!(text.contains(word), "{word:?} is missing in: {text}");
    text
}

/// Three people, of whom one withdrew.
async fn with_people() -> Place {
    let service = Service::start().await;
    for seed in 1..=3 {
        let subject = format!("resident-{seed}");
        let request = service.enrolment(&subject, vec![embedded(seed)]).await;
        service.client.enroll(request).await.unwrap();
    }
    service.client.revoke(revoke_subject("resident-3")).await.unwrap();
    service.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn o3_a_decommissioned_deployment_is_gone_certified_and_never_served_again() {
    let place = with_people().await;
    let path = |name: &str| place.path().join(name).to_str().unwrap().to_owned();
    let (trail, certificate) = (path("trail.jsonl"), path("certificate.json"));
    let copy = Place::new();
    crate::harness::copy(&place.data(), &copy.data());
    // What is left of the files once their names are gone.
    let inode = path("inode");
    fs::hard_link(place.data().join("assent.redb"), &inode).unwrap();

    // Nothing is destroyed unless it is confirmed, by the right key.
    let told = ends(&assent(&place, &["decommission"]), 0, "nothing was destroyed");
    assert!(told.contains("records     2") && told.contains("maple-property"), "{told}");
    let digits = told.split("--confirm ").nth(1).unwrap().split(' ').next().unwrap().to_owned();
    let order = |confirm: &str| {
        let by = "Li Lei, data protection officer";
        let args = [
            "decommission",
            "--confirm",
            confirm,
            "--by",
            by,
            "--trail",
            &trail,
            "-o",
            &certificate,
        ];
        assent(&place, &args)
    };
    ends(&order("0123456789abcdef"), 64, "names another deployment");
    assert!(place.root_key().exists() && !Path::new(&trail).exists(), "control");
    ends(&assent(&place, &["decommission", "--confirm", &digits]), 64, "--by");

    ends(&order(&digits), 0, "2 records destroyed, keys first");
    assert!(!place.root_key().exists());
    let left: Vec<_> =
        fs::read_dir(place.data()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["decommissioned.json"]);
    assert!(fs::read(&inode).unwrap().iter().all(|byte| *byte == 0), "overwritten, not unlinked");

    // The papers hold without the deployment.
    let receipt = ends(
        &assent(&place, &["receipt", "verify", &certificate, "--json"]),
        0,
        "NIST SP 800-88 Rev. 2",
    );
    let said: Value = serde_json::from_str(&receipt).unwrap();
    assert_eq!(said["records_destroyed"], 2);
    assert_eq!(said["controllers"][0]["id"], "maple-property");
    assert_eq!(said["performed_by"], "Li Lei, data protection officer");
    assert!(said["completed_at"].as_str() > said["begun_at"].as_str());
    let whole = fs::read(&trail).unwrap();
    assert_eq!(said["audit_trail"]["sha256"], hex::encode(assent::crypto::sha256(&whole)));
    ends(&assent(&place, &["audit", "verify", &trail]), 0, "the audit trail holds");
    let text = String::from_utf8(whole).unwrap();
    assert!(text.contains("\"event\":\"decommissioned\"") && text.contains("\"event\":\"erased\""));
    let forged = path("forged.json");
    let altered =
        fs::read_to_string(&certificate).unwrap().replacen("body\": \"ey", "body\": \"fy", 1);
    fs::write(&forged, altered).unwrap();
    ends(&assent(&place, &["receipt", "verify", &forged]), REFUSED, "altered");

    // Never again, with the old key or a new one.
    ends(&assent(&place, &["decommission"]), 64, "was decommissioned already");
    let new = path("new.key");
    drop(assent::crypto::cell::FileCell::create(Path::new(&new)).unwrap());
    fs::rename(&new, place.root_key()).unwrap();
    ends(&assent(&place, &["serve"]), 64, "was decommissioned");

    // A copy of the files from before opens with no key that there is.
    ends(&assent(&copy, &["serve"]), 64, "made with another root key");
}

#[test]
fn decommissioning_where_there_is_nothing_says_so_and_makes_nothing() {
    let place = Place::new();
    ends(&assent(&place, &["decommission"]), 64, "there is no store");
    assert!(!place.data().exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn o3_what_is_behind_a_link_is_wiped_and_papers_among_what_is_wiped_are_refused() {
    let place = with_people().await;
    // The data directory is somewhere else, as where another disk is mounted.
    let real = place.path().join("elsewhere");
    fs::rename(place.data(), &real).unwrap();
    std::os::unix::fs::symlink(&real, place.data()).unwrap();
    let inode = place.path().join("inode");
    fs::hard_link(real.join("assent.redb"), &inode).unwrap();
    let told = ends(&assent(&place, &["decommission"]), 0, "assent.redb");
    let digits = told.split("--confirm ").nth(1).unwrap().split(' ').next().unwrap().to_owned();
    let path = |name: &str| place.path().join(name).to_str().unwrap().to_owned();
    let order = |trail: &str, output: &str| {
        let args = ["decommission", "--confirm", &digits, "--by", "Li Lei", "--trail", trail];
        assent(&place, &[&args[..], &["-o", output]].concat())
    };
    let (inside, trail) = (path("data/trail.jsonl"), path("trail.jsonl"));
    let (within, certificate) = (path("elsewhere/c.json"), path("certificate.json"));
    ends(&order(&inside, &certificate), 64, "which is wiped");
    ends(&order(&trail, &within), 64, "which is wiped");
    assert!(place.root_key().exists() && !Path::new(&certificate).exists(), "control");
    ends(&order(&trail, &certificate), 0, "2 records destroyed");
    let left: Vec<_> = fs::read_dir(&real).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["decommissioned.json"]);
    assert!(fs::read(&inode).unwrap().iter().all(|byte| *byte == 0));
    // The copy in the data directory is a receipt like the other one.
    let kept = real.join("decommissioned.json");
    ends(&assent(&place, &["receipt", "verify", kept.to_str().unwrap()]), 0, "certificate");
}

/// Arguments that destroy, with papers of their own.
fn order(place: &Place, digits: &str, n: u8) -> Vec<String> {
    let path = |name: String| place.path().join(name).to_str().unwrap().to_owned();
    let (trail, output) = (path(format!("trail-{n}.jsonl")), path(format!("c-{n}.json")));
    let by = "Li Lei";
    ["decommission", "--confirm", digits, "--by", by, "--trail", &trail, "-o", &output]
        .map(str::to_owned)
        .to_vec()
}

fn run(place: &Place, arguments: &[String], failpoint: &str) -> Output {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    assent_until(place, &arguments, failpoint)
}

/// A deployment whose decommissioning was killed at that point, and the digits that confirm.
async fn interrupted_at(point: &str) -> (Place, String) {
    let place = with_people().await;
    let told = ends(&assent(&place, &["decommission"]), 0, "nothing was destroyed");
    let digits = told.split("--confirm ").nth(1).unwrap().split(' ').next().unwrap().to_owned();
    let killed = run(&place, &order(&place, &digits, 1), point);
    assert_eq!(killed.status.code(), None, "{point}");
    ends(&assent(&place, &["serve"]), 64, "was begun and did not end");
    (place, digits)
}

fn is_finished(place: &Place, after_the_keys: bool, point: &str) {
    let left: Vec<_> =
        fs::read_dir(place.data()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["decommissioned.json"], "{point}");
    assert!(!place.root_key().exists(), "{point}");
    let certificate = place.path().join("c-2.json");
    let receipt = assent(place, &["receipt", "verify", certificate.to_str().unwrap(), "--json"]);
    let said: Value = serde_json::from_str(&ends(&receipt, 0, "NIST")).unwrap();
    assert_eq!(said["records_destroyed"], 2, "{point}");
    let verified = said["verification"]["en"].as_str().unwrap();
    assert_eq!(verified.contains("interrupted"), after_the_keys, "{point}: {verified}");
    ends(&assent(place, &["decommission"]), 64, "was decommissioned already");
}

#[tokio::test(flavor = "multi_thread")]
async fn o3_an_interrupted_decommissioning_starts_over_while_the_keys_are_there() {
    let point = "decommission.pledged:1";
    let (place, digits) = interrupted_at(point).await;
    // The medium with the root key is not there: nobody may take it for destroyed.
    let elsewhere = place.path().join("elsewhere.key");
    fs::rename(place.root_key(), &elsewhere).unwrap();
    for arguments in [vec!["decommission".to_owned()], order(&place, &digits, 2)] {
        ends(&run(&place, &arguments, ""), 64, "no root key at");
    }
    assert!(place.data().join("assent.redb").exists(), "nothing was wiped");
    fs::rename(&elsewhere, place.root_key()).unwrap();
    ends(&run(&place, &order(&place, &digits, 2), ""), 0, "2 records destroyed, keys first");
    is_finished(&place, false, point);
}

#[tokio::test(flavor = "multi_thread")]
async fn o3_an_interrupted_decommissioning_is_finished_and_certified() {
    for point in ["decommission.destroyed:1", "decommission.noted:1", "decommission.wiped:1"] {
        let (place, digits) = interrupted_at(point).await;
        let zeros = fs::read(place.root_key()).unwrap_or_default();
        assert!(zeros.iter().all(|byte| *byte == 0), "{point}");
        ends(&assent(&place, &["decommission"]), 64, "interrupted after the keys");
        let path = |name: &str| place.path().join(name).to_str().unwrap().to_owned();
        let finish = |digits: &str, output: &str| {
            assent(&place, &["decommission", "--confirm", digits, "-o", output])
        };
        ends(&finish("0123456789abcdef", &path("c-2.json")), 64, "names another deployment");
        ends(&finish(&digits, &path("data/c.json")), 64, "which is wiped");
        // Another deployment's key is none of this one's.
        let other = path("other.key");
        drop(assent::crypto::cell::FileCell::create(Path::new(&other)).unwrap());
        let mut astray = Command::new(env!("CARGO_BIN_EXE_assent"));
        astray.args(["decommission", "--confirm", &digits, "-o", &path("c-2.json")]);
        astray.args(["--plaintext", "--root-key", &other, "--data-dir"]).arg(place.data());
        let said = if point.contains("destroyed") {
            "made with another root key"
        } else {
            "use the settings with which it was begun"
        };
        ends(&astray.output().unwrap(), 64, said);
        assent::crypto::cell::FileCell::open(Path::new(&other)).unwrap();

        ends(&finish(&digits, &path("c-2.json")), 0, "2 records destroyed, keys first");
        is_finished(&place, true, point);
    }
}
