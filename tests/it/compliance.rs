//! The page of rules is written from the names of the tests, so that it cannot lie; and the rules
//! that no other file shows.
//!
//! `ASSENT_WRITE_DOCS=1 cargo test --test it compliance` writes the page.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use assent::service::proto;
use futures_util::{StreamExt as _, stream};
use prost::Message as _;
use prost_types::field_descriptor_proto::Type;
use prost_types::{DescriptorProto, FileDescriptorSet};
use serde::Deserialize;

use crate::harness::{MODELS, Service, embedded, enrolment_under, verify_face};

const RULES: &str = include_str!("../../docs/compliance.toml");
const HEAD: &str = "# What the law asks for, and what shows that Assent does it

Written by `tests/it/compliance.rs` from [compliance.toml](compliance.toml) and the names of the tests: \
a test whose name begins with a rule's number shows that rule, and a rule that no test shows fails the \
build. `ASSENT_WRITE_DOCS=1 cargo test --test it compliance` writes it anew. This is engineering, not \
legal advice; [policy.md](policy.md) says which profile enforces what.

本页由测试名称自动生成：名称以规则编号开头的测试即为该规则的证明；没有测试证明的规则会使构建失败。本页属于工程说明，不构成法律意见。

| rule / 规则 | source / 依据 | what the service does | shown by |
|---|---|---|---|
";

#[derive(Deserialize)]
struct Rules {
    rules: Vec<Rule>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    id: String,
    #[serde(rename = "rule")]
    asks: String,
    zh: String,
    source: String,
    behaviour: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file below `folder`, in order.
fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    let mut entries: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            found.push(path);
        }
    }
}

/// The tests of a source: functions behind `#[test]` or `#[tokio::test]` or inside `proptest!`,
/// none of them ignored.
fn tests_of(source: &str) -> Vec<String> {
    let (mut found, mut marked, mut ignored) = (Vec::new(), false, false);
    for line in source.lines().map(str::trim) {
        if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
            (marked, ignored) = (true, false);
        } else if line.starts_with("#[ignore") {
            ignored = true;
        } else if let Some(rest) = line.strip_prefix("async fn ").or(line.strip_prefix("fn ")) {
            if marked && !ignored {
                found.push(rest.split('(').next().unwrap_or_default().to_owned());
            }
            (marked, ignored) = (false, false);
        }
    }
    found
}

/// The rules that a test's name begins with, such as C3 and C4 of `c3_c4_a_match_ends`.
fn shown_by_name(name: &str) -> Vec<String> {
    let is_rule = |part: &&str| {
        let number = part.strip_prefix(['c', 'g', 'd', 'o']);
        number.is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
    };
    name.split('_').take_while(is_rule).map(str::to_uppercase).collect()
}

/// Rule -> tests, as `file::name`.
fn shown() -> BTreeMap<String, BTreeSet<String>> {
    let mut files = Vec::new();
    sources(&root().join("src"), &mut files);
    sources(&root().join("tests/it"), &mut files);
    let mut shown: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for file in files {
        let source = std::fs::read_to_string(&file).unwrap();
        let place = file.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
        let place = place.strip_prefix("tests/it/").unwrap_or(&place).to_owned();
        for test in tests_of(&source) {
            for rule in shown_by_name(&test) {
                shown.entry(rule).or_default().insert(format!("`{place}::{test}`"));
            }
        }
    }
    shown
}

#[test]
fn every_rule_has_tests_and_the_page_names_each() {
    let Rules { rules } = toml::from_str(RULES).unwrap();
    let mut shown = shown();
    let mut page = HEAD.to_owned();
    for Rule { id, asks, zh, source, behaviour } in &rules {
        let tests = shown.remove(id).unwrap_or_default();
        assert!(!tests.is_empty(), "no test shows {id}: {asks}");
        let tests = tests.into_iter().collect::<Vec<_>>().join("<br>");
        let _ = writeln!(page, "| **{id}** {asks}<br>{zh} | {source} | {behaviour} | {tests} |");
    }
    assert!(shown.is_empty(), "tests are named after rules that are not listed: {shown:?}");
    let path = root().join("docs/compliance.md");
    if std::env::var_os("ASSENT_WRITE_DOCS").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == page,
        "docs/compliance.md is not what the tests say; write it with \
         `ASSENT_WRITE_DOCS=1 cargo test --test it compliance`"
    );
}

/// The controls of the page's own rules: what is no test, or is left out, shows nothing.
#[test]
fn only_tests_that_run_show_a_rule() {
    let source = "#[test]\nfn c1_a() {}\nfn c2_helper() {}\n#[test]\n#[ignore]\nfn c3_b() {}\n\
                  #[tokio::test(flavor = \"x\")]\nasync fn c4_d1_c() {}\n";
    assert_eq!(tests_of(source), ["c1_a", "c4_d1_c"]);
    assert_eq!(shown_by_name("c4_d1_c"), ["C4", "D1"]);
    for none in ["a_c1_b", "cow_1", "c_1", "p2_x", "x"] {
        assert_eq!(shown_by_name(none), [""; 0], "{none}");
    }
}

fn messages() -> Vec<(String, DescriptorProto)> {
    let set = FileDescriptorSet::decode(proto::DESCRIPTORS).unwrap();
    let files = set.file.into_iter().filter(|file| file.package() == "assent.v1");
    let named = |message: DescriptorProto| (format!(".assent.v1.{}", message.name()), message);
    files.flat_map(|file| file.message_type).map(named).collect()
}

#[test]
fn c4_withdrawing_asks_for_less_than_consenting_and_for_no_reason() {
    let messages: BTreeMap<String, DescriptorProto> = messages().into_iter().collect();
    let fields = |name: &str| {
        let message = &messages[&format!(".assent.v1.{name}")];
        message.field.iter().map(|field| field.name().to_owned()).collect::<BTreeSet<_>>()
    };
    let revoke = fields("RevokeRequest");
    // One of the three targets at a time.
    let targets = ["subject_ref", "record_id", "consent_id"];
    assert!(targets.iter().all(|target| revoke.contains(*target)), "{revoke:?}");
    let asked: Vec<_> = revoke.iter().filter(|field| !targets.contains(&field.as_str())).collect();
    assert_eq!(asked, ["controller_id"]);
    assert!(fields("EnrollRequest").len() > asked.len() + 1);
}

#[test]
fn d5_no_answer_has_room_for_a_template() {
    let set = FileDescriptorSet::decode(proto::DESCRIPTORS).unwrap();
    let messages: BTreeMap<String, DescriptorProto> = messages().into_iter().collect();
    let services = set.file.iter().filter(|file| file.package() == "assent.v1");
    let mut waiting: Vec<String> = services
        .flat_map(|file| &file.service)
        .flat_map(|service| &service.method)
        .map(|method| method.output_type().to_owned())
        .collect();
    assert!(waiting.len() > 10, "the schema was read");
    let (mut seen, mut bytes) = (BTreeSet::new(), BTreeSet::new());
    while let Some(name) = waiting.pop() {
        let Some(message) = messages.get(&name).filter(|_| seen.insert(name.clone())) else {
            continue;
        };
        for field in &message.field {
            let repeated = field.label() == prost_types::field_descriptor_proto::Label::Repeated;
            let number = matches!(field.r#type(), Type::Float | Type::Double);
            assert!(!(repeated && number), "{name}.{}: a list of numbers", field.name());
            if field.r#type() == Type::Bytes {
                bytes.insert(format!("{}.{}", message.name(), field.name()));
            }
            waiting.push(field.type_name().to_owned());
        }
    }
    // Digests, signatures, statements, the sealed backup and the trail: each of them is looked
    // through for templates by other tests.
    let known = [
        "BackupResponse.piece",
        "CollectEvidenceResponse.trail",
        "ExportAuditResponse.lines",
        "Notice.sha256",
        "Receipt.body",
        "Receipt.public_key",
        "Receipt.signature",
    ];
    assert_eq!(bytes, known.map(str::to_owned).into());
    // The control: requests do have room for one.
    let probe = &messages[".assent.v1.EmbeddingProbe"];
    assert!(probe.field.iter().any(|field| field.r#type() == Type::Float));
}

/// The main job in a network namespace that has its loopback and nothing else.
#[test]
fn d5_the_whole_story_runs_without_a_network() {
    let inside = |script: &str| {
        let mut command = Command::new("unshare");
        command.args(["--net", "--map-root-user", "bash", "-c", script]);
        command.env("ASSENT", env!("CARGO_BIN_EXE_assent")).env("MODELS", &*MODELS);
        command.output()
    };
    let lone =
        inside("ip link set lo up && test \"$(ls /sys/class/net 2>/dev/null | wc -l)\" -ge 1");
    if !lone.is_ok_and(|output| output.status.success()) {
        eprintln!("left out: this machine lets nobody make a network namespace");
        return;
    }
    let egress = inside("ip link set lo up; exec 3<>/dev/tcp/192.0.2.1/80").unwrap();
    let said = String::from_utf8_lossy(&egress.stderr);
    assert!(said.contains("unreachable"), "control: there is no way out: {said}");
    let output =
        inside("ip link set lo up && exec \"$ASSENT\" demo --models-dir \"$MODELS\"").unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{told}{}", String::from_utf8_lossy(&output.stderr));
    assert!(told.contains("matches no more"), "{told}");
}

/// Scopes of the trials, each with a gate of its own.
const SCOPES: u64 = 8;
const PEOPLE: u64 = 200;
const TRIALS: u64 = 100_000;
const AT_ONCE: usize = 64;

/// The example policy with a gate for each scope, their ids and scopes numbered.
fn scoped_policy() -> String {
    let policy = crate::harness::shared_gates();
    let start = policy.find("[[gates]]").unwrap();
    let end = start + policy[start + 1..].find("[[gates]]").unwrap() + 1;
    let gates = (0..SCOPES).map(|n| {
        let gate = policy[start..end].replace("north-gate-1", &format!("gate-{n}"));
        gate.replace("\"north-gate\"", &format!("\"scope-{n}\""))
    });
    format!("{}{}", &policy[..start], gates.collect::<String>())
}

/// Whether a person agreed to a scope: each to two of eight.
fn agreed(person: u64, scope: u64) -> bool {
    [person % SCOPES, (person / SCOPES + 3) % SCOPES].contains(&scope)
}

#[tokio::test(flavor = "multi_thread")]
async fn c3_no_answer_leaves_its_scope_in_100_000_random_calls() {
    let service = Service::start_in(crate::harness::Place::new()).await;
    service.apply(&scoped_policy()).await;
    let notice = service.notice().await;
    let client = &service.client;
    for person in 0..PEOPLE {
        for scope in (0..SCOPES).filter(|scope| agreed(person, *scope)) {
            let (subject, scope) = (format!("resident-{person}"), format!("scope-{scope}"));
            let request = enrolment_under(&notice, &subject, &scope, vec![embedded(person)]);
            client.enroll(request).await.unwrap();
        }
    }
    let trial = |n: u64| async move {
        // splitmix64: the same trials in every run.
        let mut h = n.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        h = (h ^ (h >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        h = (h ^ (h >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        let (person, scope) = ((h >> 8) % PEOPLE, (h >> 40) % SCOPES);
        let answer = client.verify(verify_face(&format!("gate-{scope}"), person)).await.unwrap();
        let found = answer.r#match.map(|found| {
            let tag = found.consent_tag.unwrap();
            (found.subject_ref, tag.scope, tag.purpose)
        });
        let due = agreed(person, scope).then(|| {
            (format!("resident-{person}"), format!("scope-{scope}"), "resident-entry".to_owned())
        });
        assert_eq!(found, due, "trial {n}");
        u64::from(due.is_some())
    };
    let matches: u64 = stream::iter(0..TRIALS)
        .map(trial)
        .buffer_unordered(AT_ONCE)
        .fold(0, |sum, n| async move { sum + n })
        .await;
    println!("{TRIALS} calls over {SCOPES} scopes: {matches} matches, no answer outside its scope");
    assert!(matches > TRIALS / 8 && matches < TRIALS / 3, "both kinds were tried");
    service.stop().await;
}
