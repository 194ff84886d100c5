//! The program's commands against a running service: what they print, how they exit, and what
//! they say to somebody who uses them for the first time.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use assent::types::Timestamp;
use serde_json::Value;

use crate::harness::{CONTROLLER, GATE, MODELS, POLICY, Place, Process, photo};

const MATCH: i32 = 0;
const PARTIAL: i32 = 1;
const NO_MATCH: i32 = 3;
const NO_DECISION: i32 = 4;
const USAGE: i32 = 64;
const REFUSED: i32 = 65;
const UNAVAILABLE: i32 = 69;

/// How a command ended.
#[derive(Debug)]
struct Ended {
    code: i32,
    out: String,
    err: String,
}

impl Ended {
    /// Done; what was printed.
    #[track_caller]
    fn ok(self) -> String {
        self.exits(0)
    }

    #[track_caller]
    fn exits(self, code: i32) -> String {
        assert_eq!(self.code, code, "{self:?}");
        self.out
    }

    /// Failed with `code`, on standard error and with all of `words`.
    #[track_caller]
    fn says(self, code: i32, words: &[&str]) {
        eprintln!("-- exits {}\n{}", self.code, self.err.trim_end());
        assert_eq!(self.code, code, "{self:?}");
        for word in words {
            assert!(self.err.contains(word), "{word:?} is missing in: {}", self.err);
        }
        assert!(!self.err.contains("panicked") && !self.err.contains('\u{1b}'), "{}", self.err);
    }

    #[track_caller]
    fn json(self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|fault| panic!("{fault}: {self:?}"))
    }
}

fn assent(arguments: &[&str]) -> Ended {
    let output = Command::new(env!("CARGO_BIN_EXE_assent"))
        .args(arguments)
        .env_remove("ASSENT_SERVER")
        .output()
        .unwrap();
    Ended {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

fn write(folder: &Path, name: &str, content: impl AsRef<[u8]>) -> String {
    let path = folder.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, content).unwrap();
    path.to_str().unwrap().to_owned()
}

/// The program as a service, and a folder to work in.
struct Desk {
    server: String,
    _process: Process,
    place: Place,
}

impl Desk {
    async fn open() -> Self {
        let place = Place::new();
        let mut process = Process::spawn(&place);
        process.client().await;
        Self { server: format!("http://{}", process.address()), _process: process, place }
    }

    /// A client command of the program.
    fn run(&self, arguments: &[&str]) -> Ended {
        assent(&[arguments, &["--server", &self.server]].concat())
    }

    /// A file in the folder; its path.
    fn file(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        write(self.place.path(), name, content)
    }

    /// The documentation's policy, applied.
    fn apply(&self) {
        let policy = self.file("policy.toml", POLICY);
        self.run(&["apply", &policy]).ok();
    }

    /// A consent file for `id` in scope `north-gate`, with the digest that `notice` prints.
    fn consent(&self, id: &str) -> String {
        let printed = self.run(&["notice", CONTROLLER, "face-entry"]).ok();
        let digest = printed.lines().find_map(|line| line.strip_prefix("sha256")).unwrap().trim();
        let now = Timestamp::now();
        let text = format!(
            r#"consent_id = "{id}"
purpose = "resident-entry"
scope = "north-gate"
notice_id = "face-entry"
notice_version = "2026-01"
notice_sha256 = "{digest}"
form = "electronic"
channel = "front-desk-tablet"
captured_at = "{}"
expires_at = "{}"
evidence_sha256 = "{}"
bundled = false
alternative_offered = "card"
"#,
            now.plus_ms(-1000),
            now.plus_days(180),
            "07".repeat(32),
        );
        self.file("consent.toml", text)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn apply_shows_what_changes_and_a_second_time_nothing_does() {
    let desk = Desk::open().await;
    let policy = desk.file("policy.toml", POLICY);
    let plan = desk.run(&["apply", "--dry-run", &policy]).ok();
    assert!(
        plan.contains("+ gates north-gate-1") || plan.contains("+ gate north-gate-1"),
        "{plan}"
    );
    let status = || desk.run(&["status", "--json"]).json();
    let before = status();
    desk.run(&["apply", "--dry-run", &policy]).ok();
    assert_eq!(status()["revision"], before["revision"], "a dry run changes nothing");
    desk.run(&["notice", CONTROLLER, "face-entry"]).says(REFUSED, &["notice"]);

    let applied = desk.run(&["apply", &policy]).ok();
    assert_eq!(marks(&applied), marks(&plan), "the dry run said what would happen");
    assert_ne!(status()["revision"], before["revision"]);
    let revision = status()["revision"].clone();
    let again = desk.run(&["apply", &policy]).ok();
    assert!(!marks(&again).is_empty() && marks(&again).iter().all(|mark| mark.starts_with('=')));
    assert_eq!(status()["revision"], revision);

    let stricter = desk.file("stricter.toml", POLICY.replace("fpir = 0.01", "fpir = 0.001"));
    let told = desk.run(&["apply", &stricter]).ok();
    assert!(told.contains("~ gate") && told.contains("0.01 -> 0.001"), "{told}");
    let json = desk.run(&["apply", "--json", &stricter]).json();
    assert_eq!(json["changes"][0]["kind"], "CHANGE_KIND_UNCHANGED");
}

/// The lines that name an object.
fn marks(printed: &str) -> Vec<&str> {
    printed.lines().filter(|line| line.starts_with(['+', '~', '='])).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_person_from_enrolment_to_withdrawal() {
    let desk = Desk::open().await;
    desk.apply();
    let notice = desk.run(&["notice", CONTROLLER, "face-entry", "--json"]).json();
    assert_eq!(notice["notice"]["controllerId"], CONTROLLER);
    assert_eq!(notice["notice"]["noticeVersion"], Value::Null, "the field is called version");
    assert_eq!(notice["notice"]["version"], "2026-01");
    assert!(notice["notice"]["effectiveFrom"].is_string() && notice["current"] == true);

    let consent = desk.consent("consent-1");
    let face = desk.file("face.jpg", photo("yaoming.jpg"));
    let verify = |extra: &[&str]| desk.run(&[&["verify", &face, "--gate", GATE], extra].concat());
    let nobody = verify(&[]).exits(NO_MATCH);
    assert!(nobody.starts_with("NO_MATCH") && nobody.contains("other way"), "{nobody}");

    let enroll = ["enroll", &face, "--subject", "resident-1", "--controller", CONTROLLER];
    let enroll = [&enroll[..], &["--consent", &consent]].concat();
    let enrolled = desk.run(&[&enroll[..], &["--json"]].concat()).json();
    let record = enrolled["recordId"].as_str().unwrap().to_owned();
    assert!(enrolled["expiresAt"].is_string() && enrolled["receipt"]["publicKey"].is_string());
    let again = desk.run(&enroll).ok();
    assert!(again.contains(&record), "same consent, same answer: {again}");

    let found = verify(&[]).exits(MATCH);
    for part in ["MATCH  resident-1", "consent-1", &record, "other way"] {
        assert!(found.contains(part), "{part} is missing in {found}");
    }
    let found = verify(&["--json"]).json();
    assert_eq!(found["decision"], "DECISION_MATCH");
    assert_eq!(found["match"]["subjectRef"], "resident-1");
    assert_eq!(found["match"]["consentTag"]["consentId"], "consent-1");
    assert!(found["timings"]["totalUs"].is_number() && found["indexRevision"].is_string());

    let described = desk.run(&["describe", "resident-1", "--controller", CONTROLLER]).ok();
    assert!(described.contains(&record) && described.contains("live"), "{described}");
    let status = desk.run(&["status"]).ok();
    assert!(status.contains("serving") && status.contains("resident-entry / north-gate"));
    assert_eq!(desk.run(&["status", "--json"]).json()["subjects"], "1");
    assert!(status.contains("ROOT in a file") && status.contains(", mirrored"), "{status}");
    let epoch = |keys: &Value| keys["epoch"].as_str().unwrap().parse::<u64>().unwrap();
    let before = epoch(&desk.run(&["keys", "status", "--json"]).json());
    let rotated = desk.run(&["keys", "rotate", "--json"]).json();
    assert_eq!(epoch(&rotated["keys"]), before + 1);
    assert!(desk.run(&["keys", "rotate"]).ok().contains("older copies"));
    assert_eq!(epoch(&desk.run(&["keys", "status", "--json"]).json()), before + 2);

    let blank = blank_png();
    let blank = desk.file("blank.png", blank);
    let told = desk.run(&["verify", &blank, "--gate", GATE]).exits(NO_DECISION);
    assert!(told.starts_with("NO_FACE"), "{told}");

    let revoke = ["revoke", "--controller", CONTROLLER, "--subject", "resident-1"];
    let revoked = desk.run(&revoke).ok();
    assert!(revoked.contains(&format!("destroyed {record}")), "{revoked}");
    assert!(desk.run(&revoke).ok().contains("nothing was held"), "revoking is idempotent");
    verify(&[]).exits(NO_MATCH);
    let described = desk.run(&["describe", "resident-1", "--controller", CONTROLLER, "--json"]);
    assert_eq!(described.json().get("records"), None);
    desk.run(&enroll).says(REFUSED, &["revoked", "new consent_id"]);
}

/// 64 x 64 pixels of black.
fn blank_png() -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, 64, 64);
    encoder.set_color(png::ColorType::Rgb);
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(&[0; 64 * 64 * 3]).unwrap();
    writer.finish().unwrap();
    file
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_is_enrolled_and_what_is_refused_is_named() {
    let desk = Desk::open().await;
    desk.apply();
    let consent = desk.consent("consent-{subject}");
    let face = photo("yaoming.jpg");
    desk.file("good/resident-1/a.jpg", &face);
    desk.file("good/resident-1/b.JPG", &face);
    desk.file("good/resident-1/notes.txt", "not a photo");
    let folder = |name: &str| desk.place.path().join(name).to_str().unwrap().to_owned();
    let enroll = |from: &str, extra: &[&str]| {
        let command = ["enroll", "--from", from, "--controller", CONTROLLER];
        desk.run(&[&command[..], &["--consent", &consent], extra].concat())
    };
    let ended = enroll(&folder("good"), &[]);
    assert!(ended.err.contains("1 enrolled, 0 refused"), "{ended:?}");
    ended.ok();
    let described = desk.run(&["describe", "resident-1", "--controller", CONTROLLER]).ok();
    assert!(described.contains("2 frame"), "both photos, and only photos: {described}");

    desk.file("mixed/resident-1/a.jpg", &face);
    desk.file("mixed/resident-1/b.jpg", &face);
    desk.file("mixed/resident-2/blank.png", blank_png());
    desk.file("mixed/resident-3/broken.jpg", "not a photo");
    let ended = enroll(&folder("mixed"), &["--json"]);
    let answers: Vec<Value> = serde_json::Deserializer::from_str(&ended.out)
        .into_iter()
        .collect::<Result<_, _>>()
        .unwrap();
    assert_eq!(answers.len(), 3);
    assert!(answers.iter().all(|answer| answer["idempotencyKey"].is_string()));
    ended.says(PARTIAL, &["resident-2", "no face", "resident-3", "1 enrolled, 2 refused"]);
}

#[test]
fn keys_are_made_once_and_for_their_owner_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("root.key");
    let key = path.to_str().unwrap();
    let printed = assent(&["keys", "init", key]).ok();
    assert!(printed.contains("Keep it out of all backups"), "{printed}");
    let made = std::fs::read(&path).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assent(&["keys", "init", key]).says(USAGE, &[key, "exists already"]);
    assert_eq!(std::fs::read(&path).unwrap(), made, "the key is left as it was");
}

#[test]
fn models_are_listed_with_their_licence() {
    let models = MODELS.to_str().unwrap();
    let listed = assent(&["models", "list", "--models-dir", models]).ok();
    assert!(listed.contains("research") && listed.contains("licence"), "{listed}");
    assert!(listed.contains("non-commercial"), "the licence says for what: {listed}");
    let json = assent(&["models", "list", "--json", "--models-dir", models]).json();
    assert_eq!(json[0]["usable"], true);
}

#[test]
fn a_configuration_is_checked_before_anything_starts() {
    let folder = tempfile::tempdir().unwrap();
    let check = |name: &str, text: &str| {
        assent(&["check-config", "--config", &write(folder.path(), name, text)])
    };
    let told = check("good.toml", "[listen]\nplaintext = true\n").ok();
    assert!(told.contains("configuration is valid") && told.contains("plaintext"), "{told}");
    let faults = [
        ("[listen]\nplain = true\n", "plain"),
        ("[listen]\nplaintext = true\ngrpc = \"0.0.0.0:7400\"\n", "listen.plaintext"),
        ("profile = \"us\"\n[listen]\nplaintext = true\n", "profile"),
        ("[listen]\nplaintext = true\n[limits]\nconnections = 0\n", "limits.connections"),
        ("[listen]\nplaintext = true\n[pipeline]\nprovider = \"gpu\"\n", "provider"),
        ("[listen]\nplaintext = true\n[pipeline]\ndetector_size = 300\n", "pipeline.detector_size"),
        ("", "[tls]"),
    ];
    for (text, field) in faults {
        check("bad.toml", text).says(USAGE, &[field]);
    }
    assent(&["check-config", "--config", "/no/such.toml"]).says(USAGE, &["/no/such.toml"]);
}

#[test]
fn ranges_for_eight_bits_are_measured_on_photos() {
    let folder = tempfile::tempdir().unwrap();
    let models = MODELS.to_str().unwrap();
    let (photos, out) = (folder.path().join("photos"), folder.path().join("ranges.f32"));
    let ranges = || {
        let [photos, out] = [&photos, &out].map(|path| path.to_str().unwrap());
        assent(&["models", "ranges", photos, "--out", out, "--models-dir", models])
    };
    let add = |person: &str, photo: &[u8]| {
        std::fs::create_dir_all(photos.join(person)).unwrap();
        std::fs::write(photos.join(person).join("1.jpg"), photo).unwrap();
    };
    add("a", b"no picture");
    add("b", b"no picture either");
    ranges().says(USAGE, &["no face in any of the photos"]);
    add("b", &photo("yaoming.jpg"));
    let said = ranges().ok();
    assert!(said.contains("1 face(s) of 2 photos") && said.contains("Fewer than 300"), "{said}");
    let measured = std::fs::read(&out).unwrap();
    let shipped = MODELS.join("research/ranges.f32");
    assert_eq!(measured.len() as u64, std::fs::metadata(shipped).unwrap().len());
    ranges().says(USAGE, &["ranges.f32", "exists already"]);
}

#[test]
fn what_a_new_operator_gets_wrong_is_told_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (data, key) = (at("data"), at("root.key"));
    let models = MODELS.to_str().unwrap();
    let serve = |extra: &[&str]| {
        let command = ["serve", "--no-metrics", "--provider", "cpu", "--data-dir", &data];
        let listen = ["--root-key", &key, "--listen", "127.0.0.1:0"];
        assent(&[&command[..], &listen, extra].concat())
    };
    serve(&["--models-dir", models]).says(USAGE, &["--plaintext", "[tls]"]);
    serve(&["--plaintext", "--models-dir", models]).says(USAGE, &[&key, "assent keys init"]);
    assent(&["keys", "init", &key]).ok();
    serve(&["--plaintext", "--models-dir", &at("nowhere")]).says(USAGE, &["assent models fetch"]);
    assent(&["serve", "--plaintext", "--provider", "gpu"])
        .says(USAGE, &["unknown provider", "openvino-bf16"]);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let command = ["serve", "--plaintext", "--no-metrics", "--models-dir", models];
    let files = ["--data-dir", &data, "--root-key", &key, "--listen", &address];
    assent(&[&command[..], &files].concat()).says(USAGE, &[&address, "in use"]);
    let open = ["serve", "--plaintext", "--listen", "203.0.113.1:7400"];
    assent(&open).says(USAGE, &["203.0.113.1:7400", "not a loopback address"]);
    assent(&["serv"]).says(USAGE, &["serve"]);
    assent(&[]).says(USAGE, &["Usage"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_new_user_gets_wrong_is_told_with_what_to_do() {
    let desk = Desk::open().await;
    let face = desk.file("face.jpg", photo("yaoming.jpg"));
    let gone = ["status", "--server", "http://127.0.0.1:1"];
    assent(&gone).says(UNAVAILABLE, &["http://127.0.0.1:1", "assent serve", "--server"]);
    assent(&["status", "--server", "127.0.0.1"]).says(USAGE, &["--server", "http://"]);
    let tls = desk.server.replace("http:", "https:");
    assent(&["status", "--server", &tls]).says(UNAVAILABLE, &["http://"]);

    // Before a policy was applied.
    desk.run(&["verify", &face, "--gate", GATE]).says(REFUSED, &["gate", "assent apply"]);
    desk.run(&["notice", CONTROLLER, "face-entry"]).says(REFUSED, &["assent apply"]);
    let nowhere = desk.run(&["apply", "/no/policy.toml"]);
    nowhere.says(USAGE, &["/no/policy.toml", "No such file"]);
    let bad = desk.file("bad.toml", POLICY.replace("fpir =", "fpri ="));
    desk.run(&["apply", &bad]).says(REFUSED, &["bad.toml: line", "north-gate-1", "fpri"]);
    let lonely = desk.file("lonely.toml", POLICY.replace("gates.alternatives", "gates.ways"));
    desk.run(&["apply", &lonely]).says(REFUSED, &["line", "alternatives", "not the face"]);
    desk.apply();

    desk.run(&["verify", "/no/face.jpg", "--gate", GATE]).says(USAGE, &["/no/face.jpg"]);
    let text = desk.file("letter.jpg", "dear sirs");
    desk.run(&["verify", &text, "--gate", GATE]).says(REFUSED, &["letter.jpg", "JPEG", "PNG"]);
    desk.run(&["verify", &face]).says(USAGE, &["--gate"]);
    desk.run(&["verify", &face, "--gate", GATE, "--intent", "none"]).says(REFUSED, &["intent"]);
    desk.run(&["verify", &face, "--gate", GATE, "--subject", "resident-1"])
        .says(REFUSED, &["claimed_subject", "1:1"]);
    desk.run(&["revoke", "--controller", CONTROLLER])
        .says(USAGE, &["--subject", "--record", "--consent-id"]);
    desk.run(&["revoke", "--controller", CONTROLLER, "--record", "seven"])
        .says(REFUSED, &["record"]);

    let consent = desk.consent("consent-1");
    let enroll = |consent: &str, extra: &[&str]| {
        let command = ["enroll", "--controller", CONTROLLER, "--consent", consent];
        desk.run(&[&command[..], extra].concat())
    };
    enroll(&consent, &[]).says(USAGE, &["--subject"]);
    let one = [face.as_str(), "--subject", "resident-1"];
    enroll("/no/consent.toml", &one).says(USAGE, &["/no/consent.toml"]);
    let folder = desk.place.path().join("nobody");
    std::fs::create_dir(&folder).unwrap();
    let many = desk.file("many.toml", written(&consent, "consent-1", "consent-{subject}"));
    let from = ["--from", folder.to_str().unwrap()];
    enroll(&many, &from).says(USAGE, &["nobody", "SUBJECT/PHOTO.jpg"]);
    enroll(&consent, &from).says(USAGE, &["consent_id", "{subject}"]);
    let mistakes: [(&str, &str, i32, &[&str]); 7] = [
        ("purpose", "porpoise", USAGE, &["mistake.toml", "porpoise", "consent file"]),
        ("bundled = false", "", USAGE, &["bundled"]),
        ("bundled = false", "bundled = true", REFUSED, &["consent.bundled"]),
        ("north-gate", "moon", REFUSED, &["consent.scope"]),
        ("2026-01\"", "2025-01\"", REFUSED, &["consent.notice_version"]),
        ("\"electronic\"", "\"oral\"", USAGE, &["oral", "electronic"]),
        ("evidence_sha256 = \"07", "evidence_sha256 = \"7", USAGE, &["evidence_sha256"]),
    ];
    for (right, wrong, code, words) in mistakes {
        let file = desk.file("mistake.toml", written(&consent, right, wrong));
        enroll(&file, &one).says(code, words);
    }
    let ident = [face.as_str(), "--subject", "11010519491231002X"];
    enroll(&consent, &ident).says(REFUSED, &["subject_ref"]);
    enroll(&consent, &[&text, "--subject", "resident-1"]).says(REFUSED, &["frames[0]", "JPEG"]);
    // None of these left anything behind.
    assert!(!desk.run(&["status"]).ok().contains("/ north-gate"));
}

/// The file's text with `right` replaced once.
fn written(file: &str, right: &str, wrong: &str) -> String {
    let text = std::fs::read_to_string(file).unwrap();
    assert!(text.contains(right));
    text.replacen(right, wrong, 1)
}

#[tokio::test(flavor = "multi_thread")]
async fn bench_measures_and_leaves_nobody_behind() {
    let desk = Desk::open().await;
    desk.apply();
    let consent = desk.consent("{subject}");
    let plot = desk.place.path().join("plot.svg");
    let (gate, enrolling) = (["--gate", GATE], ["--controller", CONTROLLER, "--consent", &consent]);
    let probes = ["bench", "--probes", "embeddings", "--seconds", "2", "--warm-up", "0.2"];
    let shares = ["--enrol", "0.2", "--revoke", "0.1", "--rate", "100,50"];
    let out = ["--json", "--plot", plot.to_str().unwrap()];
    let open = [&probes[..], &gate, &enrolling, &shares, &out].concat();
    let report = desk.run(&open);
    let report = report.json();
    let steps = report["steps"].as_array().unwrap();
    assert_eq!(steps.len(), 2);
    for step in steps {
        assert_eq!(step["loop"], "open");
        for kind in ["verify", "enrol", "revoke"] {
            let report = &step["kinds"][kind];
            let (due, unsent) =
                (report["due"].as_u64().unwrap(), report["unsent"].as_u64().unwrap());
            let codes = report["codes"].as_object().unwrap();
            let answered: u64 = codes.values().map(|count| count.as_u64().unwrap()).sum();
            assert_eq!(due, answered + unsent, "{kind}: {report}");
            assert!(codes["OK"].as_u64().unwrap() > 0, "{kind}: {report}");
            let at = |name: &str| report["latency_ms"][name].as_f64().unwrap();
            assert!(0.0 < at("p50") && at("p50") <= at("p99") && at("p99") <= at("max"));
        }
    }
    assert!(std::fs::read_to_string(&plot).unwrap().contains("<svg"));
    // A revocation has an audit entry; what is left of the people is only that.
    assert_eq!(desk.run(&["status", "--json"]).json().get("subjects"), None, "nobody is held");

    let photos = desk.file("photos/one/face.jpg", photo("yaoming.jpg"));
    let folder = Path::new(&photos).parent().unwrap().parent().unwrap().to_str().unwrap();
    for probes in ["photos", "crops"] {
        let closed = ["bench", folder, "--probes", probes, "--callers", "2", "--seconds", "1"];
        let told = desk.run(&[&closed[..], &gate].concat()).ok();
        assert!(told.contains("2 callers verify") && told.contains("embed "), "{told}");
    }

    let few = ["--rate", "20", "--seconds", "0.5", "--warm-up", "0"];
    let embeddings = ["bench", "--probes", "embeddings", "--gate", "nowhere"];
    let told = desk.run(&[&embeddings[..], &few].concat()).ok();
    assert!(told.contains("refused, for one") && told.contains("gate"), "{told}");
    let bench = |rest: &[&str]| desk.run(&[&["bench"], &gate[..], rest].concat());
    bench(&few).says(USAGE, &["folder of photos", "--probes embeddings"]);
    bench(&["--rate", "0"]).says(USAGE, &["--rate"]);
    bench(&["--rate", "5", "--enrol", "2", "--controller", "c", "--consent", &consent])
        .says(USAGE, &["shares"]);
    bench(&["--rate", "5", "--enrol", "0.5"]).says(USAGE, &["--consent"]);
    bench(&[]).says(USAGE, &["--callers"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_and_decisions_are_said_in_chinese_too() {
    let desk = Desk::open().await;
    desk.apply();
    let alone = POLICY.split("[[gates.alternatives]]").next().unwrap();
    let alone = desk.file("alone.toml", alone);
    let said = |language: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_assent"));
        command.args(["apply", &alone, "--server", &desk.server]).env("LC_ALL", language);
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(REFUSED));
        String::from_utf8(output.stderr).unwrap()
    };
    let (zh, en) = (said("zh_CN.UTF-8"), said("C.UTF-8"));
    assert!(zh.contains("行：gates \"north-gate-1\"") && zh.contains("非人脸的通行方式"), "{zh}");
    assert!(en.contains("\"north-gate-1\": alternatives: a gate needs at least one"), "{en}");

    let target = assent::service::client::Target { url: desk.server.clone(), ..Default::default() };
    let client = assent::service::client::Client::connect(&target).await.unwrap();
    let request = assent::service::proto::GetMessagesRequest {};
    let messages = client.get_messages(request).await.unwrap().messages;
    let text = |name: &str, language: &str| {
        let message = messages.iter().find(|message| message.name == name).unwrap();
        message.texts.iter().find(|text| text.language == language).unwrap().text.clone()
    };
    assert!(text("DECISION_NO_MATCH", "en").contains("another way in"));
    assert!(text("DECISION_NO_MATCH", "zh-CN").contains("其他方式"));
    // A refusal without words of its own has those of its reason, and the ways in are there too.
    let wrong = assent::service::proto::VerifyRequest {
        gate_id: "no-such-gate".to_owned(),
        ..crate::harness::verify_face(GATE, 1)
    };
    let refusal = client.verify(wrong).await.unwrap_err();
    assert!(refusal.zh.unwrap().contains("没有这个通道"));
    assert!(!refusal.alternatives.is_empty());
}
