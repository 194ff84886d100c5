//! The root key under a passphrase, and in a PKCS#11 token: SoftHSM, the real module, as users of
//! the program have it.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use assent::service::client::Client;
use assent::service::proto;

use crate::harness::{
    GATE, MODELS, POLICY, Place, Process, copy, embedded, enrolment, free_address, matched,
    revoke_subject, verify_face,
};

const USAGE: i32 = 64;
const TOKEN: &str = "assent-test";
const PIN: &str = "4711-0815";
/// Where Debian's and others' packages put the module.
const MODULES: [&str; 4] = [
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
];

/// Runs a command that must succeed; what it printed.
#[track_caller]
fn done(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{command:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

/// Runs a command that must be refused as a wrong usage, with all of `words`.
#[track_caller]
fn refused(command: &mut Command, words: &[&str]) {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    eprintln!("-- {}", said.trim_end());
    assert_eq!(output.status.code(), Some(USAGE), "{said}");
    for word in words {
        assert!(said.contains(word), "{word:?} is not in {said}");
    }
}

fn assent() -> Command {
    Command::new(env!("CARGO_BIN_EXE_assent"))
}

fn private(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

async fn apply_policy(client: &Client) {
    let request = proto::ApplyPolicyRequest { toml: POLICY.to_owned(), dry_run: false };
    client.apply_policy(request).await.unwrap();
}

async fn enrol(client: &Client, person: u64) {
    let subject = format!("person-{person}");
    let request = enrolment(client, &subject, "north-gate", vec![embedded(person)]).await;
    client.enroll(request).await.unwrap();
}

async fn is_found(client: &Client, person: u64) -> bool {
    let answer = client.verify(verify_face(GATE, person)).await.unwrap();
    matched(&answer) == Some(&format!("person-{person}"))
}

async fn keys(client: &Client) -> proto::KeyStatus {
    client.status(proto::StatusRequest {}).await.unwrap().keys.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_key_under_a_passphrase_opens_with_it_alone() {
    let place = Place::new();
    fs::remove_file(place.root_key()).unwrap();
    let words = |name: &str, text: &str| {
        let path = place.path().join(name);
        private(&path, text);
        path.to_str().unwrap().to_owned()
    };
    let (one, two) = (words("one", "the first passphrase\n"), words("two", "the second one, too"));
    let short = words("short", "short");
    let init = |passphrase: &str| {
        let mut command = assent();
        command.args(["keys", "init"]).arg(place.root_key());
        command.args(["--passphrase-file", passphrase]);
        command
    };
    refused(&mut init(&short), &["shorter than 12 bytes"]);
    assert!(!place.root_key().exists());
    done(&mut init(&one));

    let start = |arguments: &[&str]| {
        let mut command = assent();
        command.args(["serve", "--plaintext", "--no-metrics", "--listen", "127.0.0.1:0"]);
        command.arg("--data-dir").arg(place.data()).arg("--root-key").arg(place.root_key());
        command.arg("--models-dir").arg(&*MODELS).args(arguments);
        command
    };
    refused(&mut start(&[]), &["under a passphrase", "--passphrase-file"]);
    refused(&mut start(&["--passphrase-file", &two]), &["does not open"]);

    let mut process = Process::spawn_with(&place, &["--passphrase-file", &one]);
    let client = process.client().await;
    apply_policy(&client).await;
    enrol(&client, 1).await;
    enrol(&client, 2).await;
    client.revoke(revoke_subject("person-2")).await.unwrap();
    assert_eq!(keys(&client).await.root_cell, "file under a passphrase");
    let change = |arguments: &[&str]| {
        let mut command = assent();
        command.args(["keys", "passphrase"]).arg(place.root_key()).args(arguments);
        command
    };
    refused(&mut change(&["--from", &one, "--to", &two]), &["another assent process"]);
    process.kill();

    refused(&mut change(&["--from", &two, "--to", &one]), &["does not open"]);
    done(&mut change(&["--from", &one, "--to", &two]));
    refused(&mut start(&["--passphrase-file", &one]), &["does not open"]);
    let mut process = Process::spawn_with(&place, &["--passphrase-file", &two]);
    let client = process.client().await;
    assert!(is_found(&client, 1).await && !is_found(&client, 2).await);
    process.kill();

    done(&mut change(&["--from", &two]));
    refused(&mut start(&["--passphrase-file", &two]), &["under no passphrase"]);
    let mut process = Process::spawn(&place);
    assert!(is_found(&process.client().await, 1).await);
}

/// SoftHSM, installed from the distribution where it is missing.
fn module() -> PathBuf {
    let find = || MODULES.iter().map(PathBuf::from).find(|path| path.exists());
    find().unwrap_or_else(|| {
        let mut update = Command::new("apt-get");
        done(update.args(["update", "-qq"]));
        let mut install = Command::new("apt-get");
        done(install.args(["install", "-qq", "-y", "--no-install-recommends", "softhsm2"]));
        find().expect("the package softhsm2 brings its module")
    })
}

/// A folder with a token, a configuration, a store.
struct Site {
    place: Place,
    address: SocketAddr,
}

impl Site {
    fn new() -> Self {
        let site = Self { place: Place::new(), address: free_address() };
        fs::remove_file(site.place.root_key()).unwrap();
        fs::create_dir(site.tokens()).unwrap();
        private(&site.path("pin"), PIN);
        site.write_config(PIN_FILE_SETTING, TOKEN);
        site.write_softhsm_config();
        site
    }

    /// The same site as it is now, elsewhere: disk and token copied.
    fn copied(&self) -> Self {
        let other = Self::new();
        copy(&self.tokens(), &other.tokens());
        copy(&self.place.data(), &other.place.data());
        other
    }

    fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    fn tokens(&self) -> PathBuf {
        self.path("tokens")
    }

    fn write_softhsm_config(&self) {
        let tokens = self.tokens();
        let text = format!("directories.tokendir = {}\nlog.level = ERROR\n", tokens.display());
        fs::write(self.path("softhsm2.conf"), text).unwrap();
    }

    fn write_config(&self, pin: &str, token: &str) {
        let text = format!(
            r#"
data_dir = "data"
[listen]
grpc = "{}"
plaintext = true
[pipeline]
models_dir = "{}"
provider = "cpu"
[keys.pkcs11]
module = "{}"
token = "{token}"
pin_file = "{pin}"
"#,
            self.address,
            MODELS.display(),
            module().display()
        );
        fs::write(self.path("assent.toml"), text).unwrap();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = assent();
        command.env("SOFTHSM2_CONF", self.path("softhsm2.conf"));
        command.args(arguments).arg("--config").arg(self.path("assent.toml"));
        command
    }

    fn init_token(&self) {
        let mut command = Command::new("softhsm2-util");
        command.env("SOFTHSM2_CONF", self.path("softhsm2.conf"));
        command.args(["--init-token", "--free", "--label", TOKEN, "--pin", PIN]);
        done(command.args(["--so-pin", "31415926"]));
    }

    fn serve(&self, failpoint: Option<&str>) -> Process {
        let mut command = self.command(&["serve", "--no-metrics"]);
        command.envs(failpoint.map(|point| ("ASSENT_FAILPOINT", point)));
        Process::begin(&mut command, self.address)
    }
}

const PIN_FILE_SETTING: &str = "pin";

#[tokio::test(flavor = "multi_thread")]
async fn a_root_key_in_a_token_is_destroyed_there() {
    let site = Site::new();
    refused(&mut site.command(&["serve", "--no-metrics"]), &["no token of that label"]);
    site.init_token();
    refused(&mut site.command(&["serve", "--no-metrics"]), &["assent keys init --config"]);
    private(&site.path("wrong"), "0000-0000");
    site.write_config("wrong", TOKEN);
    refused(&mut site.command(&["keys", "init"]), &["logging in with the PIN failed"]);
    site.write_config("nowhere", TOKEN);
    refused(&mut site.command(&["keys", "init"]), &["nowhere", "cannot be read"]);
    site.write_config(PIN_FILE_SETTING, TOKEN);
    let said = done(&mut site.command(&["keys", "init"]));
    assert!(said.contains("never leaves the token"), "{said}");
    refused(&mut site.command(&["keys", "init"]), &["holds keys of that name already"]);
    let said = done(&mut site.command(&["check-config"]));
    assert!(said.contains("PKCS#11 token"), "{said}");

    let mut process = site.serve(None);
    let client = process.client().await;
    apply_policy(&client).await;
    for person in 0..8 {
        enrol(&client, person).await;
    }
    let before = keys(&client).await;
    assert_eq!(before.root_cell, "pkcs11");
    let (held, limit) = (site.copied(), site.copied());
    client.revoke(revoke_subject("person-0")).await.unwrap();
    let after = keys(&client).await;
    assert!(after.epoch > before.epoch, "{before:?} {after:?}");
    process.kill();

    // The disk of then with the token of today opens nothing; with the token of then, all of that
    // day: the stated limit, and the control.
    fs::remove_dir_all(held.tokens()).unwrap();
    copy(&site.tokens(), &held.tokens());
    refused(&mut held.command(&["serve", "--no-metrics"]), &["put back to an older copy"]);
    let mut process = limit.serve(None);
    assert!(is_found(&process.client().await, 0).await);
    drop(process);

    // Killed wherever a replacement of ROOT can be cut in two; the first one is the start's own.
    let points = ["root.prepared:2", "root.committed:2", "root.retired:2"];
    for (person, point) in (1..).zip(points) {
        let mut process = site.serve(Some(point));
        let client = process.client().await;
        assert!(client.revoke(revoke_subject(&format!("person-{person}"))).await.is_err());
        drop(process);
        let mut process = site.serve(None);
        let client = process.client().await;
        let outlived = is_found(&client, person).await;
        eprintln!("killed at {point}: the person is {}", if outlived { "there" } else { "gone" });
        assert!(!outlived || point == points[0], "committed, and back again");
        assert!(!is_found(&client, 0).await);
        for other in 4..8 {
            assert!(is_found(&client, other).await, "{other}");
        }
        process.kill();
    }
}

#[test]
fn a_token_and_a_file_exclude_each_other() {
    let site = Site::new();
    refused(
        &mut site.command(&["check-config", "--root-key", "root.key"]),
        &["keys.pkcs11 and root_key exclude each other"],
    );
    refused(
        &mut site.command(&["check-config", "--passphrase-file", "pin"]),
        &["keys.pkcs11 and keys.passphrase_file exclude each other"],
    );
}

/// Object files of a SoftHSM token: one each key.
fn objects(site: &Site) -> Vec<PathBuf> {
    let tokens = fs::read_dir(site.tokens()).unwrap().map(|entry| entry.unwrap().path());
    let files = tokens.flat_map(|token| fs::read_dir(token).unwrap());
    let files = files.map(|entry| entry.unwrap().path());
    let is_key = |path: &PathBuf| {
        path.extension().is_some_and(|end| end == "object")
            && path.file_stem().is_some_and(|name| name != "token")
    };
    files.filter(is_key).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn o3_a_token_that_was_half_destroyed_is_destroyed_to_its_end() {
    let site = Site::new();
    site.init_token();
    done(&mut site.command(&["keys", "init"]));
    let mut process = site.serve(None);
    let client = process.client().await;
    apply_policy(&client).await;
    enrol(&client, 1).await;
    process.kill();
    let told = done(&mut site.command(&["decommission"]));
    let digits = told.split("--confirm ").nth(1).unwrap().split(' ').next().unwrap().to_owned();
    let (trail, output) = (site.path("trail.jsonl"), site.path("certificate.json"));
    let mut order = site.command(&["decommission", "--confirm", &digits, "--by", "Li Lei"]);
    order.arg("--trail").arg(trail).arg("-o").arg(site.path("first.json"));
    let killed = order.env("ASSENT_FAILPOINT", "decommission.pledged:1").output().unwrap();
    assert_eq!(killed.status.code(), None, "{killed:?}");
    // The power went between one key and the next.
    let keys = objects(&site);
    assert_eq!(keys.len(), 2, "{keys:?}");
    fs::remove_file(&keys[0]).unwrap();

    refused(&mut site.command(&["serve", "--no-metrics"]), &["was begun and did not end"]);
    refused(&mut site.command(&["decommission"]), &["interrupted", &digits]);
    let mut finish = site.command(&["decommission", "--confirm", &digits]);
    let said = done(finish.arg("-o").arg(&output));
    assert!(said.contains("1 records destroyed"), "{said}");
    assert_eq!(objects(&site), Vec::<PathBuf>::new());
    let left = fs::read_dir(site.place.data()).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(left.collect::<Vec<_>>(), ["decommissioned.json"]);
    done(assent().args(["receipt", "verify"]).arg(output));
}
