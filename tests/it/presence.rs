//! Alternatives that have to be heard of, attacks that have to be looked for, and faces that wait
//! after failed attempts.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use assent::config::Overrides;
use assent::pipeline::Provider;
use assent::service::client::{Client, ClientError};
use assent::service::proto;
use sha2::{Digest, Sha256};
use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;

use crate::harness::{
    CONTROLLER, GATE, MODELS, OTHER_GATE, PATIENCE, POLICY, Place, Process, Service, embedded,
    encoded, enrolment, free_address, matched, photo, revoke_subject, serve_arguments,
    shared_gates, verify, verify_face, verify_photo,
};

/// The north gate's card reader has to be heard of, and no face is compared without it.
fn watched(require: bool) -> String {
    let card = "method = \"card\"\n";
    let watched = POLICY.replacen(card, "method = \"card\"\nheartbeat_s = 10\n", 1);
    let gate = "comparison = \"one_to_many\"\n";
    watched.replacen(gate, &format!("{gate}require_alternative = {require}\n"), 1)
}

/// The lobby, 1:1, with these lines in its policy; the gate's id is shared.
fn lobby(lines: &str) -> String {
    let gate = "comparison = \"both\"\n";
    shared_gates().replacen(gate, &format!("{gate}{lines}\n"), 1)
}

fn beat(index: u32, state: proto::AlternativeState) -> proto::ReportAlternativeRequest {
    proto::ReportAlternativeRequest {
        gate_id: GATE.to_owned(),
        method: proto::AlternativeMethod::Card.into(),
        index,
        state: state.into(),
        note: "reader 7".to_owned(),
    }
}

/// Which of the north gate's ways are down, as a gate hears it.
async fn down_at_gate(client: &Client) -> Vec<bool> {
    let ways = match client.verify(verify_face(GATE, 77)).await {
        Ok(response) => response.alternatives,
        Err(refusal) => refusal.alternatives,
    };
    assert_eq!(ways.len(), 2, "all are named");
    ways.iter().map(|way| way.down).collect()
}

async fn down_in_status(client: &Client) -> Vec<(String, String, String)> {
    let status = client.status(proto::StatusRequest {}).await.unwrap();
    let down = status.down_alternatives.into_iter();
    down.map(|way| (way.gate_id, way.name, way.state)).collect()
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !holds().await {
        assert!(begun.elapsed() < PATIENCE, "never: {what}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// The service as a process of its own: the gauges of a process are all its services'.
fn process_with_metrics(place: &Place, metrics: SocketAddr) -> Process {
    let file = place.path().join("assent.toml");
    std::fs::write(&file, format!("[listen]\nmetrics = \"{metrics}\"\n")).unwrap();
    let address = free_address();
    let arguments = serve_arguments(place, Provider::Cpu, address);
    let mut command = Command::new(env!("CARGO_BIN_EXE_assent"));
    command.args(arguments.into_iter().filter(|argument| argument != "--no-metrics"));
    Process::begin(command.arg("--config").arg(file), address)
}

fn scraped(metrics: SocketAddr) -> String {
    let mut stream = TcpStream::connect(metrics).unwrap();
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

/// Ends it in order, so that it stores what it remembers.
async fn ended(mut process: Process) {
    let id = i32::try_from(process.id()).ok().and_then(rustix::process::Pid::from_raw).unwrap();
    rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
    until("the process ends", async || process.has_ended()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn g2_a_lost_heartbeat_shows_in_one_scrape_and_survives_a_restart() {
    let (place, metrics) = (Place::new(), free_address());
    let mut process = process_with_metrics(&place, metrics);
    let client = &process.client().await;
    let request = proto::ApplyPolicyRequest { toml: watched(false), dry_run: false };
    client.apply_policy(request).await.unwrap();
    let up = proto::AlternativeState::Up;
    let answer = client.report_alternative(beat(0, up)).await.unwrap();
    assert_eq!(answer.heartbeat_s, 10);
    let heard = Instant::now();
    assert_eq!(down_at_gate(client).await, [false, false]);
    let series = format!("assent_alternative_up{{gate=\"{GATE}\",method=\"card\"}}");
    let all = format!("assent_gate_alternatives_up{{gate=\"{GATE}\"}}");
    let says = |line: &str| scraped(metrics).lines().any(|said| said == line);
    until("up is scraped", async || says(&format!("{series} 1"))).await;
    assert!(says(&format!("{all} 1")));

    // Silence.
    until("the reader is lost", async || down_at_gate(client).await == [true, false]).await;
    assert!(heard.elapsed() > Duration::from_secs(10), "not before its time");
    // Gauges are a second old at most: the first scrape after that shows it.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert!(says(&format!("{series} 0")) && says(&format!("{all} 0")));
    let lost = [(GATE.to_owned(), "card".to_owned(), "lost".to_owned())];
    assert_eq!(down_in_status(client).await, lost);

    // What was down is down after a restart, until it is heard of.
    ended(process).await;
    let mut process = process_with_metrics(&place, metrics);
    let client = &process.client().await;
    assert_eq!(down_in_status(client).await, lost);
    assert_eq!(down_at_gate(client).await, [true, false]);
    client.report_alternative(beat(0, up)).await.unwrap();
    assert_eq!(down_at_gate(client).await, [false, false]);
    // One that says that it is down is, at once.
    client.report_alternative(beat(0, proto::AlternativeState::Down)).await.unwrap();
    assert_eq!(down_at_gate(client).await, [true, false]);
    assert_eq!(down_in_status(client).await[0].2, "down");
    ended(process).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn g2_without_an_alternative_the_face_waits_where_the_policy_says_so() {
    let service = Service::start().await;
    service.apply(&watched(true)).await;
    let client = &service.client;
    let ask = || client.verify(verify_face(GATE, 1));
    assert!(ask().await.is_ok(), "not heard of, and not overdue");
    client.report_alternative(beat(0, proto::AlternativeState::Down)).await.unwrap();
    let refusal = ask().await.unwrap_err();
    assert_eq!(refusal.code.name(), "FAILED_PRECONDITION");
    assert_eq!(refusal.reason.as_deref(), Some("NO_ALTERNATIVE_UP"));
    assert!(refusal.alternatives[0].down && !refusal.alternatives[1].down);
    client.report_alternative(beat(0, proto::AlternativeState::Up)).await.unwrap();
    assert!(ask().await.is_ok());
    // The same gate without that rule goes on.
    service.apply(&watched(false)).await;
    client.report_alternative(beat(0, proto::AlternativeState::Down)).await.unwrap();
    assert!(ask().await.is_ok());

    // What nobody watches, and what makes no sense, is refused with its field.
    let up = proto::AlternativeState::Up;
    let gone = proto::AlternativeState::Unspecified;
    let intercom = proto::AlternativeMethod::Intercom.into();
    let good = || beat(0, up);
    for (request, field) in [
        (beat(1, up), "method"),
        (proto::ReportAlternativeRequest { method: intercom, ..good() }, "method"),
        (proto::ReportAlternativeRequest { method: 0, ..good() }, "method"),
        (beat(0, gone), "state"),
        (proto::ReportAlternativeRequest { gate_id: "no-such".to_owned(), ..good() }, "gate_id"),
        (proto::ReportAlternativeRequest { note: "138-1234-5678".to_owned(), ..good() }, "note"),
    ] {
        let refusal = client.report_alternative(request).await.unwrap_err();
        assert_eq!(refusal.field.as_deref(), Some(field));
        assert!(!refusal.alternatives.is_empty(), "G1");
    }
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn g1_where_faces_are_switched_off_none_is_looked_at_and_the_other_ways_are_named() {
    let service = Service::start().await;
    let request = service.enrolment("resident-1", vec![embedded(1)]).await;
    service.client.enroll(request).await.unwrap();
    let ask = async |probe: proto::verify_request::Probe| {
        let request = proto::VerifyRequest { probe: Some(probe), ..verify_face(GATE, 1) };
        service.client.verify(request).await
    };
    let own = || verify_face(GATE, 1).probe.unwrap();
    let rubbish = || {
        let data = b"not a picture".to_vec();
        proto::verify_request::Probe::Encoded(proto::EncodedFrame { data })
    };
    assert_eq!(ask(own()).await.unwrap().decision(), proto::Decision::Match, "control");
    assert!(ask(rubbish()).await.is_err(), "control: a frame is looked at");

    let gate = "comparison = \"one_to_many\"\n";
    service.apply(&POLICY.replacen(gate, &format!("{gate}face_enabled = false\n"), 1)).await;
    for probe in [own(), rubbish()] {
        let answer = ask(probe).await.unwrap();
        assert_eq!(answer.decision(), proto::Decision::FaceDisabled);
        assert_eq!((answer.alternatives.len(), &answer.r#match), (2, &None));
    }
    let lines = audit(&service.client).await;
    let last = lines.iter().filter_map(entry).rfind(|entry| entry["event"] == "decision").unwrap();
    assert_eq!(last["decision"], "face_disabled");
    assert!(last["found"].is_null(), "{last}");
    // Who is enrolled stays so.
    service.apply(POLICY).await;
    assert_eq!(ask(own()).await.unwrap().decision(), proto::Decision::Match);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn g2_an_operator_says_at_the_command_line_that_an_alternative_is_down() {
    let service = Service::start().await;
    service.apply(&watched(false)).await;
    let url = format!("http://{}", service.running.address());
    let say = async |state: &str, method: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_assent"));
        command.args(["alternative", state, "--gate", GATE, "--method", method]);
        command.args(["--note", "reader 7", "--server", &url]).env("LC_ALL", "C");
        let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
        let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        (output.status.code(), text)
    };
    let (code, said) = say("down", "card").await;
    assert_eq!((code, said.contains("counts as down")), (Some(0), true), "{said}");
    let down = down_in_status(&service.client).await;
    assert_eq!(down.len(), 1, "{down:?}");
    assert_eq!(down_at_gate(&service.client).await, [true, false]);
    let (code, said) = say("up", "card").await;
    assert_eq!((code, said.contains("within 10 s")), (Some(0), true), "{said}");
    assert_eq!(down_in_status(&service.client).await, []);
    let (code, said) = say("up", "staff").await;
    assert_eq!(code, Some(65), "{said}");
    assert!(said.contains("no such alternative with heartbeat_s"), "{said}");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn presence_policies_out_of_bounds_are_refused_with_field_and_rule() {
    let service = Service::start().await;
    for (toml, words) in [
        (watched(true).replace("heartbeat_s = 10", "heartbeat_s = 9"), "must be from 10 to 86400"),
        (watched(true).replace("heartbeat_s = 10\n", ""), "require_alternative"),
        (lobby("lockout_after = 51"), "must be from 1 to 50"),
        (lobby("lockout_after = 0"), "lockout_after"),
        (lobby("pad = \"sometimes\""), "pad"),
        (lobby("pad = \"model\""), "no liveness model"),
    ] {
        let request = proto::ApplyPolicyRequest { toml, dry_run: false };
        let refusal = service.client.apply_policy(request).await.unwrap_err();
        assert!(refusal.message.contains(words), "{}", refusal.message);
    }
    service.stop().await;
}

/// A 1:1 claim of `subject` with the face `seed`.
fn claim(subject: &str, seed: u64) -> proto::VerifyRequest {
    let claimed_subject = subject.to_owned();
    proto::VerifyRequest { claimed_subject, ..verify_face(OTHER_GATE, seed) }
}

async fn decided(client: &Client, request: proto::VerifyRequest) -> proto::VerifyResponse {
    client.verify(request).await.unwrap()
}

async fn enrol_in_lobby(client: &Client, subject: &str, seed: u64) {
    let request = enrolment(client, subject, "lobby", vec![embedded(seed)]).await;
    client.enroll(request).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn pad_the_gate_s_own_verdict_is_wanted_where_the_policy_says_so() {
    use proto::PadVerdict::{Live, Spoof, Unspecified, Unsure};
    let service = Service::start().await;
    let client = &service.client;
    service.apply(&lobby("pad = \"gate\"")).await;
    enrol_in_lobby(client, "resident-1", 1).await;
    let ask = |pad: proto::PadVerdict| {
        let report = proto::PadReport { method: "infrared-depth".to_owned(), score: Some(0.25) };
        let (pad, pad_report) = (pad.into(), Some(report));
        client.verify(proto::VerifyRequest { pad, pad_report, ..verify_face(OTHER_GATE, 1) })
    };
    assert_eq!(matched(&ask(Live).await.unwrap()), Some("resident-1"));
    for attack in [Spoof, Unsure] {
        let answer = ask(attack).await.unwrap();
        assert_eq!(answer.decision(), proto::Decision::SpoofSuspected);
        assert!(answer.r#match.is_none() && !answer.alternatives.is_empty());
        assert_eq!(answer.timings.unwrap().search_us, 0, "no search");
    }
    let missing: ClientError = ask(Unspecified).await.unwrap_err();
    assert_eq!(missing.code.name(), "INVALID_ARGUMENT");
    assert_eq!(missing.field.as_deref(), Some("pad"));
    assert!(!missing.alternatives.is_empty(), "G1");
    // A gate that need not say is believed when it is sure.
    for (pad, expected) in [
        (Unsure, proto::Decision::NoMatch),
        (Spoof, proto::Decision::SpoofSuspected),
        (Unspecified, proto::Decision::NoMatch),
    ] {
        let request = proto::VerifyRequest { pad: pad.into(), ..verify_face(GATE, 9) };
        assert_eq!(decided(client, request).await.decision(), expected);
    }
    for (report, field) in [
        (proto::PadReport { method: "a@b.example".to_owned(), score: None }, "pad_report.method"),
        (proto::PadReport { method: String::new(), score: Some(f32::NAN) }, "pad_report.score"),
    ] {
        let pad_report = Some(report);
        let request = proto::VerifyRequest { pad_report, ..verify_face(GATE, 9) };
        assert_eq!(client.verify(request).await.unwrap_err().field.as_deref(), Some(field));
    }
    let said = audit(client).await;
    let attack = said.iter().find(|entry| entry["decision"] == "spoof_suspected").unwrap();
    assert_eq!(attack["pad"]["result"], "spoof");
    assert_eq!(attack["pad"]["method"], "infrared-depth");
    assert_eq!(attack["pad"]["score"], 0.25);
    service.stop().await;
}

/// The entries of the audit trail.
async fn audit(client: &Client) -> Vec<serde_json::Value> {
    let request = proto::ExportAuditRequest::default();
    let mut pieces = client.export_audit(request).await.unwrap();
    let mut text = Vec::new();
    while let Some(piece) = pieces.next().await.unwrap() {
        text.extend(piece.lines);
    }
    let lines = String::from_utf8(text).unwrap();
    lines.lines().filter_map(|line| entry(&serde_json::from_str(line).ok()?)).collect()
}

/// The entry of an export's line, which carries it as text.
fn entry(line: &serde_json::Value) -> Option<serde_json::Value> {
    let event = |value: &serde_json::Value| value.get("event").is_some().then(|| value.clone());
    event(line).or_else(|| {
        line.as_object()?.values().find_map(|value| match value.as_str() {
            Some(text) => serde_json::from_str(text).ok().and_then(|value| event(&value)),
            None => event(value),
        })
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn d7_failed_attempts_at_a_subject_close_its_face_and_no_other_way() {
    use proto::Decision::{LockedOut, Match, NoMatch};
    let service = Service::start().await;
    service.apply(&lobby("lockout_after = 3")).await;
    let client = &service.client;
    enrol_in_lobby(client, "resident-1", 1).await;
    enrol_in_lobby(client, "resident-2", 2).await;
    let ask =
        async |client: &Client, subject: &str, seed| decided(client, claim(subject, seed)).await;
    // A match begins the count anew.
    for seed in [9, 9, 1, 9, 9] {
        let expected = if seed == 1 { Match } else { NoMatch };
        assert_eq!(ask(client, "resident-1", seed).await.decision(), expected);
    }
    assert_eq!(ask(client, "resident-1", 9).await.decision(), NoMatch, "the third in a row");
    let closed = ask(client, "resident-1", 1).await;
    assert_eq!(closed.decision(), LockedOut);
    assert!((20_000..=30_000).contains(&closed.retry_after_ms), "{}", closed.retry_after_ms);
    assert_eq!(closed.alternatives.len(), 3, "the other ways stay open");
    assert!(closed.quality.is_none() && closed.r#match.is_none());
    // Others are not concerned, nor is a search, nor the same reference elsewhere.
    assert_eq!(ask(client, "resident-2", 2).await.decision(), Match);
    assert_eq!(matched(&decided(client, verify_face(OTHER_GATE, 1)).await), Some("resident-1"));
    // Who does not exist is locked out alike.
    for expected in [NoMatch, NoMatch, NoMatch, LockedOut] {
        assert_eq!(ask(client, "nobody-at-all", 9).await.decision(), expected);
    }
    assert_eq!(client.status(proto::StatusRequest {}).await.unwrap().locked_subjects, 2);
    let said = audit(client).await;
    assert!(said.iter().any(|entry| entry["decision"] == "locked_out"));

    // A restart forgets nothing.
    let place = service.stop().await;
    let service = Service::start_in(place).await;
    let client = &service.client;
    let closed = ask(client, "resident-1", 1).await;
    assert_eq!(closed.decision(), LockedOut);
    assert!(closed.retry_after_ms <= 30_000);

    // An operator opens it, and the trail says who and for whom.
    let clear = |subject: &str| {
        let (controller_id, subject_ref) = (CONTROLLER.to_owned(), subject.to_owned());
        client.clear_lockout(proto::ClearLockoutRequest { controller_id, subject_ref })
    };
    assert!(clear("resident-1").await.unwrap().cleared);
    assert!(!clear("resident-1").await.unwrap().cleared, "nothing is left");
    assert_eq!(ask(client, "resident-1", 1).await.decision(), Match);
    let said = audit(client).await;
    let cleared = said.iter().find(|entry| entry["event"] == "lockout_cleared").unwrap();
    assert_eq!(
        (&cleared["subject"], &cleared["caller"]),
        (&"resident-1".into(), &"loopback".into())
    );

    // A revoked subject leaves no count: whoever bears the reference next begins anew.
    for expected in [NoMatch, NoMatch, NoMatch, LockedOut] {
        assert_eq!(ask(client, "resident-2", 9).await.decision(), expected);
    }
    client.revoke(revoke_subject("resident-2")).await.unwrap();
    assert_eq!(ask(client, "resident-2", 9).await.decision(), NoMatch);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn d7_attempts_at_once_gain_nothing_over_attempts_in_turn() {
    const AT_ONCE: usize = 64;
    let service = Service::start().await;
    service.apply(&lobby("lockout_after = 5")).await;
    enrol_in_lobby(&service.client, "resident-1", 1).await;
    let asked = (0..AT_ONCE).map(|n| {
        let client = service.client.clone();
        let request = claim("resident-1", 100 + n as u64);
        tokio::spawn(async move { decided(&client, request).await.decision() })
    });
    let mut looked_at = 0;
    for answer in asked.collect::<Vec<_>>() {
        looked_at += usize::from(answer.await.unwrap() == proto::Decision::NoMatch);
    }
    assert!((1..=5).contains(&looked_at), "{looked_at} of {AT_ONCE} were compared");
    service.stop().await;
}

/// `field number`, `bytes`: a length-delimited field of a protobuf message.
fn message(number: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    let mut length = content.len();
    while length >= 0x80 {
        out.push(u8::try_from(length & 0x7F).unwrap() | 0x80);
        length >>= 7;
    }
    out.push(u8::try_from(length).unwrap());
    out.extend_from_slice(content);
    out
}

/// The ONNX model `score = mean of input`, input `[1, 3, side, side]`: the brighter, the livelier.
fn brightness_model(side: u8) -> Vec<u8> {
    let dim = |n: u8| message(1, &[0x08, n]);
    let value = |name: &[u8], shape: &[Vec<u8>]| {
        let tensor = [vec![0x08, 1], message(2, &shape.concat())].concat();
        [message(1, name), message(2, &message(1, &tensor))].concat()
    };
    let axes = [message(1, b"axes"), vec![0x40, 1, 0x40, 2, 0x40, 3], vec![0xA0, 0x01, 7]].concat();
    let flat = [message(1, b"keepdims"), vec![0x18, 0], vec![0xA0, 0x01, 2]].concat();
    let node = [
        message(1, b"frame"),
        message(2, b"score"),
        message(4, b"ReduceMean"),
        message(5, &axes),
        message(5, &flat),
    ];
    let graph = [
        message(1, &node.concat()),
        message(2, b"brightness"),
        message(11, &value(b"frame", &[dim(1), dim(3), dim(side), dim(side)])),
        message(12, &value(b"score", &[dim(1)])),
    ];
    // IR version 8, operator set 13.
    [vec![0x08, 8], message(7, &graph.concat()), message(8, &[0x10, 13])].concat()
}

/// The pack `research` with that model in its liveness slot.
fn pack_with_liveness(folder: &Path) {
    let (from, to) = (MODELS.join("research"), folder.join("research"));
    std::fs::create_dir(&to).unwrap();
    for file in std::fs::read_dir(&from).unwrap().map(|file| file.unwrap().file_name()) {
        if file != "manifest.toml" {
            std::os::unix::fs::symlink(from.join(&file), to.join(&file)).unwrap();
        }
    }
    std::os::unix::fs::symlink(MODELS.join("runtime"), folder.join("runtime")).unwrap();
    let model = brightness_model(32);
    std::fs::write(to.join("liveness.onnx"), &model).unwrap();
    let hash = hex::encode(Sha256::digest(&model));
    let manifest = std::fs::read_to_string(from.join("manifest.toml")).unwrap();
    let slot = format!(
        "{manifest}\n[liveness]\nfile = \"liveness.onnx\"\nsha256 = \"{hash}\"\ninput = 32\n\
         crop_scale = 1.0\nmean = 0.0\nstd = 255.0\ncolour = \"rgb\"\noutput = 0\n\
         threshold = {LIVELY}\n"
    );
    std::fs::write(to.join("manifest.toml"), slot).unwrap();
}

/// Between the mean brightness of the photo's face, about 0.5, and half of it.
const LIVELY: f32 = 0.35;

/// The photo unencoded, with `percent` of its light.
fn dimmed(jpeg: &[u8], percent: u16) -> proto::verify_request::Probe {
    let mut decoder = JpegDecoder::new(ZCursor::new(jpeg));
    let pixels = decoder.decode().unwrap();
    let (width, height) = decoder.dimensions().unwrap();
    let dim = |byte: u8| u8::try_from(u16::from(byte) * percent / 100).unwrap();
    proto::verify_request::Probe::Raw(proto::RawFrame {
        data: pixels.into_iter().map(dim).collect(),
        format: proto::PixelFormat::Rgb8.into(),
        width: u32::try_from(width).unwrap(),
        height: u32::try_from(height).unwrap(),
        stride: 0,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn pad_the_pack_s_liveness_model_decides_before_the_face_is_compared() {
    let (place, models) = (Place::new(), tempfile::tempdir().unwrap());
    pack_with_liveness(models.path());
    let overrides =
        Overrides { models_dir: Some(models.path().to_path_buf()), ..place.overrides() };
    let service = Service::start_with(place, overrides).await;
    service.apply(&lobby("pad = \"model\"")).await;
    let client = &service.client;
    let picture = photo("yaoming.jpg");
    let frames = vec![encoded(picture.clone())];
    client.enroll(enrolment(client, "resident-1", "lobby", frames).await).await.unwrap();
    for bright in [dimmed(&picture, 100), dimmed(&picture, 95)] {
        let found = decided(client, verify(OTHER_GATE, bright)).await;
        assert_eq!(matched(&found), Some("resident-1"), "{found:?}");
    }
    let found = decided(client, verify_photo(OTHER_GATE, picture.clone())).await;
    assert_eq!(matched(&found), Some("resident-1"));
    let dark = decided(client, verify(OTHER_GATE, dimmed(&picture, 50))).await;
    assert_eq!(dark.decision(), proto::Decision::SpoofSuspected, "{dark:?}");
    assert!(dark.quality.is_some() && dark.r#match.is_none());
    // The dark one is good enough where nobody looks for attacks.
    let elsewhere = decided(client, verify(GATE, dimmed(&picture, 50))).await;
    assert_eq!(elsewhere.decision(), proto::Decision::NoMatch, "enrolled for the lobby only");
    // The gate's own word counts too, and what has no frame around it cannot be judged.
    let spoof = proto::PadVerdict::Spoof.into();
    let told = proto::VerifyRequest { pad: spoof, ..verify_photo(OTHER_GATE, picture.clone()) };
    assert_eq!(decided(client, told).await.decision(), proto::Decision::SpoofSuspected);
    let refusal = client.verify(verify_face(OTHER_GATE, 1)).await.unwrap_err();
    assert_eq!(
        (refusal.code.name(), refusal.field.as_deref()),
        ("INVALID_ARGUMENT", Some("probe"))
    );
    let said = audit(client).await;
    let attack = said.iter().find(|entry| entry["decision"] == "spoof_suspected").unwrap();
    let score = attack["liveness"].as_f64().unwrap();
    assert!(score > 0.0 && score < f64::from(LIVELY), "{score}");

    // Without the model the stored policy does not open: the service does not start laxer.
    let place = service.stop().await;
    let settings = assent::config::load(None, place.overrides()).unwrap();
    let fault = assent::server::start(settings).await.err().unwrap();
    assert!(fault.to_string().contains("no liveness model"), "{fault}");
}
