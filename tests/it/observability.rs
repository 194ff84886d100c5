//! What operators see of a running process: metrics, logs, health, reflection, a drain that
//! answers what was begun, and starts that fail with a helpful word.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Instant;

use assent::crypto::cell::FileCell;
use assent::service::client::Client;
use assent::service::{Rpc, proto};
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1::{ServerReflectionRequest, ServerReflectionResponse};

use crate::harness::{
    CONTROLLER, GATE, MODELS, PATIENCE, POLICY, Place, connect, embedded, encoded, enrolment,
    free_address, matched, photo, revoke_subject, verify_photo,
};

/// The people of these tests: nothing of them may be seen from outside.
const SUBJECTS: [&str; 3] = ["resident-zebra", "resident-yak", "resident-xenops"];
/// Metrics that dashboards and alerts rely on.
const PROMISED: [&str; 24] = [
    "assent_requests_total",
    "assent_request_seconds",
    "assent_decisions_total",
    "assent_stage_seconds",
    "assent_batch_faces",
    "assent_rejected_total",
    "assent_dropped_total",
    "assent_revocation_seconds",
    "assent_provider_info",
    "assent_scan_kernel_info",
    "assent_queue_depth",
    "assent_requests_in_flight",
    "assent_templates",
    "assent_subjects",
    "assent_controller_subjects",
    "assent_filing_state",
    "assent_filing_deadline_timestamp_seconds",
    "assent_arena_bytes",
    "assent_arena_locked_bytes",
    "assent_catalogue_bytes",
    "assent_gate_operating_point_outgrown",
    "assent_searches_total",
    "assent_revision",
    "assent_serving",
];
const SERVICES: [&str; 4] =
    ["assent.v1.Gate", "assent.v1.Enrollment", "assent.v1.Operator", "assent.v1.Notices"];

/// `assent serve` as a child, with its log read line by line.
struct Watched {
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
    reader: Option<JoinHandle<()>>,
    address: SocketAddr,
    metrics: SocketAddr,
}

impl Watched {
    /// Logs JSON, as much as there is of our own.
    fn start(place: &Place) -> Self {
        let metrics = free_address();
        let config = format!(
            "[listen]\ngrpc = \"127.0.0.1:0\"\nmetrics = \"{metrics}\"\nplaintext = true\n\
             [log]\nformat = \"json\"\nfilter = \"debug,assent=trace\"\n"
        );
        let file = place.path().join("assent.toml");
        std::fs::write(&file, config).unwrap();
        let mut child = serve(place).arg("--config").arg(&file).spawn().unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let log = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&log);
        let reader = std::thread::spawn(move || {
            lines.map_while(Result::ok).for_each(|line| kept.lock().unwrap().push(line));
        });
        let mut this = Self {
            child,
            log,
            reader: Some(reader),
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            metrics,
        };
        let said = this.wait_for(|line| line["fields"]["address"].as_str().map(str::to_owned));
        this.address = said.parse().unwrap();
        this.wait_for(|line| (line["fields"]["message"] == "serving").then_some(()));
        this
    }

    /// The first line of the log that has what is wanted.
    fn wait_for<T>(&mut self, wanted: impl Fn(&serde_json::Value) -> Option<T>) -> T {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            let lines = self.log.lock().unwrap().clone();
            let read = |line: &String| serde_json::from_str(line).ok();
            if let Some(found) = lines.iter().filter_map(read).find_map(|line| wanted(&line)) {
                return found;
            }
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none(), "the program ended: {}", lines.join("\n"));
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        panic!("the log never said it");
    }

    fn scrape(&self) -> String {
        let mut stream = TcpStream::connect(self.metrics).unwrap();
        write!(stream, "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    }

    /// Scrapes until the metrics say so.
    fn scrape_until(&self, wanted: impl Fn(&str) -> bool) -> String {
        let begun = Instant::now();
        loop {
            let text = self.scrape();
            if wanted(&text) {
                return text;
            }
            assert!(begun.elapsed() < PATIENCE, "{text}");
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
    }

    fn terminate(&self) {
        let id = i32::try_from(self.child.id()).unwrap();
        let process = rustix::process::Pid::from_raw(id).unwrap();
        rustix::process::kill_process(process, rustix::process::Signal::TERM).unwrap();
    }

    /// The exit status, and all that was logged.
    fn ended(mut self) -> (Option<i32>, Vec<String>) {
        let status = self.child.wait().unwrap();
        self.reader.take().unwrap().join().unwrap();
        let lines = self.log.lock().unwrap().clone();
        (status.code(), lines)
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `assent serve` on a place, without a word on how it listens.
fn serve(place: &Place) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_assent"));
    command
        .args(["serve", "--provider", "cpu", "--models-dir"])
        .arg(&*MODELS)
        .arg("--data-dir")
        .arg(place.data())
        .arg("--root-key")
        .arg(place.root_key())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    command
}

/// Every kind of thing that a request can do to people.
async fn lead_a_life(client: &Client) {
    let policy = proto::ApplyPolicyRequest { toml: POLICY.to_owned(), dry_run: false };
    client.apply_policy(policy).await.unwrap();
    let [zebra, yak, xenops] = SUBJECTS;
    let request = enrolment(client, zebra, "north-gate", vec![encoded(photo("yaoming.jpg"))]).await;
    let enrolled = client.enroll(request).await.unwrap();
    let found = client.verify(verify_photo(GATE, photo("yaoming.jpg"))).await.unwrap();
    assert_eq!(matched(&found), Some(zebra));
    // Refused: a duplicate, no such scope, a broken picture, no such gate.
    let twin = enrolment(client, yak, "north-gate", vec![encoded(photo("yaoming.jpg"))]).await;
    client.enroll(twin).await.unwrap_err();
    let nowhere = enrolment(client, yak, "no-such-scope", vec![embedded(1)]).await;
    client.enroll(nowhere).await.unwrap_err();
    let broken = enrolment(client, xenops, "north-gate", vec![encoded(vec![0xFF; 9])]).await;
    client.enroll(broken).await.unwrap_err();
    client.verify(verify_photo("no-such-gate", photo("yaoming.jpg"))).await.unwrap_err();
    let asked = proto::DescribeSubjectRequest {
        controller_id: CONTROLLER.to_owned(),
        subject_ref: zebra.to_owned(),
    };
    assert_eq!(client.describe_subject(asked).await.unwrap().records.len(), 1);
    let revoked = client.revoke(revoke_subject(zebra)).await.unwrap();
    assert_eq!(revoked.revoked_records, [enrolled.record_id]);
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_and_logs_tell_what_happens_and_never_to_whom() {
    let place = Place::new();
    let mut process = Watched::start(&place);
    let client = connect(process.address).await;
    lead_a_life(&client).await;

    let metrics = process.scrape_until(|text| {
        text.contains("assent_serving 1")
            && text.contains("assent_controller_subjects{")
            && !text.contains("assent_revision 0\n")
            && text.contains("assent_gate_operating_point_outgrown{")
    });
    for name in PROMISED {
        assert!(metrics.contains(&format!("# TYPE {name} ")), "{name} is missing in\n{metrics}");
    }
    for line in [
        "assent_requests_total{rpc=\"Gate.Verify\",code=\"OK\"} 1",
        "assent_requests_total{rpc=\"Gate.Verify\",code=\"FAILED_PRECONDITION\"} 1",
        "assent_decisions_total{decision=\"DECISION_MATCH\"} 1",
        "assent_provider_info{provider=\"cpu\"} 1",
        "assent_filing_state{controller=\"maple-property\",state=\"quiet\"} 1",
        "assent_filing_deadline_timestamp_seconds{controller=\"maple-property\"} 0",
        "assent_gate_operating_point_outgrown{gate=\"north-gate-1\"} 0",
    ] {
        assert!(metrics.contains(line), "{line} is missing in\n{metrics}");
    }
    health_is_told_of_each_service(&client).await;
    reflection_lists_the_services(process.address).await;

    drop(client);
    process.wait_for(|line| (line["fields"]["message"] == "serving").then_some(()));
    process.terminate();
    let (status, log) = process.ended();
    assert_eq!(status, Some(0));
    assert!(log.iter().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()));
    let log = log.join("\n");
    assert!(log.contains("\"stopped\""), "the log is complete: {log}");
    for told in [&metrics, &log] {
        for subject in SUBJECTS {
            assert!(!told.contains(subject), "{subject} is in\n{told}");
        }
        assert!(!told.contains("consent-resident"), "a consent id is in\n{told}");
        assert!(!told.contains("key-resident"), "an idempotency key is in\n{told}");
    }
    a_wrong_root_key_is_refused(&place);
}

async fn health_is_told_of_each_service(client: &Client) {
    for service in SERVICES.into_iter().chain([""]) {
        assert!(client.is_serving(service).await.unwrap(), "{service:?}");
    }
    let unknown = client.is_serving("assent.v1.NoSuch").await.unwrap_err();
    assert_eq!(unknown.code.name(), "NOT_FOUND");
}

async fn reflection_lists_the_services(address: SocketAddr) {
    let channel = tonic::transport::Endpoint::from_shared(format!("http://{address}")).unwrap();
    let mut client = ServerReflectionClient::new(channel.connect().await.unwrap());
    let ask = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut answers =
        client.server_reflection_info(tokio_stream::iter([ask])).await.unwrap().into_inner();
    let ServerReflectionResponse { message_response, .. } =
        answers.message().await.unwrap().unwrap();
    let Some(MessageResponse::ListServicesResponse(list)) = message_response else {
        panic!("{message_response:?}");
    };
    let names: Vec<String> = list.service.into_iter().map(|service| service.name).collect();
    for service in SERVICES.into_iter().chain(["grpc.health.v1.Health"]) {
        assert!(names.iter().any(|name| name == service), "{service} is not in {names:?}");
    }
    assert!(Rpc::ALL.iter().all(|rpc| {
        let service = rpc.name().split_once('.').unwrap().0;
        names.iter().any(|name| name.ends_with(service))
    }));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_begun_before_sigterm_is_answered() {
    let place = Place::new();
    let process = Watched::start(&place);
    let client = connect(process.address).await;
    let policy = proto::ApplyPolicyRequest { toml: POLICY.to_owned(), dry_run: false };
    client.apply_policy(policy).await.unwrap();

    let (answered, mut first) = tokio::sync::mpsc::unbounded_channel();
    let requests: Vec<_> = (0..12)
        .map(|_| {
            let (client, answered) = (client.clone(), answered.clone());
            tokio::spawn(async move {
                let answer = client.verify(verify_photo(GATE, photo("players.jpg"))).await;
                let _ = answered.send(());
                answer
            })
        })
        .collect();
    // The first answer shows that the others are on their way.
    first.recv().await.unwrap();
    process.terminate();
    let mut decided = 0;
    for request in requests {
        match request.await.unwrap() {
            Ok(response) => {
                assert!(!response.alternatives.is_empty());
                decided += 1;
            }
            // It arrived after the signal: refused, but answered.
            Err(refusal) => {
                assert_eq!(refusal.code.name(), "UNAVAILABLE", "{refusal}");
                assert!(!refusal.alternatives.is_empty(), "cut off: {refusal}");
            }
        }
    }
    assert!(decided > 1, "nothing that was in flight was finished");
    drop(client);
    let address = process.address;
    let (status, log) = process.ended();
    assert_eq!(status, Some(0), "{}", log.join("\n"));
    assert!(TcpStream::connect(address).is_err(), "the port is closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_stream_does_not_hold_up_the_end() {
    let place = Place::new();
    let process = Watched::start(&place);
    let client = connect(process.address).await;
    let policy = proto::ApplyPolicyRequest { toml: POLICY.to_owned(), dry_run: false };
    client.apply_policy(policy).await.unwrap();

    let (ask, asked) = tokio::sync::mpsc::unbounded_channel();
    let asked = tokio_stream::wrappers::UnboundedReceiverStream::new(asked);
    ask.send(verify_photo(GATE, photo("yaoming.jpg"))).unwrap();
    let mut answers = client.verify_stream(asked).await.unwrap();
    assert!(answers.next().await.unwrap().is_some());
    let idle = tokio_stream::pending::<proto::EnrollRequest>();
    let mut enrolled = client.enroll_stream(idle).await.unwrap();

    // Both are open, nobody asks, nobody hangs up.
    process.terminate();
    assert!(answers.next().await.unwrap().is_none(), "the stream has ended properly");
    assert!(enrolled.next().await.unwrap().is_none());
    let (status, log) = tokio::task::spawn_blocking(|| process.ended()).await.unwrap();
    drop((ask, client));
    let log = log.join("\n");
    assert_eq!(status, Some(0), "{log}");
    assert!(log.contains("\"stopped\"") && !log.contains("cut off"), "{log}");
}

/// Ends by itself; its exit status and standard error.
fn failed(command: &mut Command) -> (Option<i32>, String) {
    let Output { status, stderr, .. } = command.output().unwrap();
    (status.code(), String::from_utf8_lossy(&stderr).into_owned())
}

fn refused_start(command: &mut Command, words: &[&str]) {
    let (status, said) = failed(command);
    assert_eq!(status, Some(64), "{said}");
    for word in words {
        assert!(said.contains(word), "{word:?} is not in {said}");
    }
}

const LOOPBACK: [&str; 4] = ["--plaintext", "--no-metrics", "--listen", "127.0.0.1:0"];

fn a_wrong_root_key_is_refused(place: &Place) {
    std::fs::remove_file(place.root_key()).unwrap();
    drop(FileCell::create(&place.root_key()).unwrap());
    refused_start(serve(place).args(LOOPBACK), &["another root key"]);
}

#[test]
fn a_start_that_cannot_work_says_what_to_do_and_exits_64() {
    let place = Place::new();
    let other = |option: &str, value: &Path| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_assent"));
        let defaults = [
            ("--models-dir", MODELS.clone()),
            ("--data-dir", place.data()),
            ("--root-key", place.root_key()),
        ];
        command.arg("serve").args(LOOPBACK).args(["--provider", "cpu"]);
        for (name, default) in defaults {
            command.arg(name).arg(if name == option { value } else { &default });
        }
        command
    };
    let nowhere = place.path().join("nowhere");
    refused_start(&mut other("--root-key", &nowhere), &["no root key", "assent keys init"]);
    refused_start(&mut other("--models-dir", &nowhere), &["assent models fetch"]);
    let file = place.root_key();
    refused_start(&mut other("--data-dir", &file), &["data directory"]);

    let holder = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let taken = holder.local_addr().unwrap().to_string();
    let plain = ["--plaintext", "--no-metrics"];
    refused_start(serve(&place).args(plain).args(["--listen", &taken]), &["cannot listen", &taken]);
    let ports = ["--plaintext", "--listen", "127.0.0.1:0", "--metrics", &taken];
    refused_start(serve(&place).args(ports), &[&taken, "--no-metrics"]);
    let open = ["--plaintext", "--no-metrics", "--listen", "0.0.0.0:0"];
    refused_start(serve(&place).args(open), &["loopback"]);
    refused_start(serve(&place).args(["--no-metrics"]), &["[tls]", "--plaintext"]);
    refused_start(serve(&place).args(LOOPBACK).args(["--profile", "mars"]), &["mars", "cn"]);

    let config = place.path().join("assent.toml");
    std::fs::write(&config, "[listen]\nplain = true\n").unwrap();
    refused_start(serve(&place).arg("--config").arg(&config), &["assent.toml", "plain", "line 2"]);
    assert!(!place.data().exists(), "a refused start leaves no store");
}
