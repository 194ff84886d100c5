//! What the integration tests share: services in this process and as child processes, clients,
//! policies, requests, faces.

use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use assent::config::{self, Overrides, Settings};
use assent::crypto::cell::FileCell;
use assent::pipeline::{Provider, ProviderChoice, fetch};
use assent::server::{self, Running};
use assent::service::client::{Client, Target};
use assent::service::{WireTime, proto};
use assent::types::Timestamp;
use tempfile::TempDir;

/// The controller of the example policy.
pub(crate) const CONTROLLER: &str = "maple-property";
/// Its 1:N gate, in scope `north-gate`.
pub(crate) const GATE: &str = "north-gate-1";
/// Its gate in scope `lobby`.
pub(crate) const OTHER_GATE: &str = "lobby-1";
/// The embedding space of the pack `research`.
pub(crate) const CONTRACT: &str = "w600k_mbf/arcface-112/rgb/1";
/// Its width.
pub(crate) const WIDTH: usize = 512;
/// The same with gate ids that several terminals share: no frame makes another one stale.
pub(crate) fn shared_gates() -> String {
    POLICY.replace("\ncomparison = ", "\nnewest_frame_wins = false\ncomparison = ")
}

/// The policy of the documentation.
pub(crate) const POLICY: &str = include_str!("../../docs/example-policy.toml");
/// Longest wait for a service to serve: a loaded machine may be slow, and no test fails for that.
pub(crate) const PATIENCE: Duration = Duration::from_mins(2);

/// The models, fetched when they are not there.
pub(crate) static MODELS: LazyLock<PathBuf> = LazyLock::new(|| {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
    fetch::ensure(&dir).expect("the models can be fetched");
    dir
});

/// The photos that come with the research models.
pub(crate) fn photo(name: &str) -> Vec<u8> {
    std::fs::read(MODELS.join("research/photos").join(name)).expect("the photo is there")
}

/// The folder of faces for local tests, where there is one.
pub(crate) fn faces() -> Option<PathBuf> {
    let folder = std::env::var_os("ASSENT_FACES").map(PathBuf::from).filter(|f| f.is_dir());
    if folder.is_none() {
        eprintln!("left out: ASSENT_FACES names no folder of faces");
    }
    folder
}

/// A folder with a root key, for one store.
pub(crate) struct Place {
    dir: TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        drop(FileCell::create(&dir.path().join("root.key")).expect("a root key"));
        Self { dir }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub(crate) fn root_key(&self) -> PathBuf {
        self.dir.path().join("root.key")
    }

    /// Settings on a port of the system's choice, with the provider that starts fastest.
    pub(crate) fn overrides(&self) -> Overrides {
        Overrides {
            data_dir: Some(self.data()),
            root_key: Some(self.root_key()),
            listen: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))),
            no_metrics: true,
            plaintext: true,
            models_dir: Some(MODELS.clone()),
            provider: Some(ProviderChoice::Named(Provider::Cpu)),
            ..Overrides::default()
        }
    }
}

/// A gate's frame waits as long as its caller does: a slow machine fails no test.
fn patient(mut settings: Settings) -> Settings {
    settings.pipeline.gate_wait_ms = 60_000;
    settings
}

/// A service in this process, and a client of it.
pub(crate) struct Service {
    pub(crate) place: Place,
    pub(crate) running: Running,
    pub(crate) client: Client,
}

impl Service {
    /// Under profile `cn`, with the example policy applied.
    pub(crate) async fn start() -> Self {
        let service = Self::start_in(Place::new()).await;
        service.apply(POLICY).await;
        service
    }

    /// On an existing place, without applying anything.
    pub(crate) async fn start_in(place: Place) -> Self {
        let overrides = place.overrides();
        Self::start_with(place, overrides).await
    }

    pub(crate) async fn start_with(place: Place, overrides: Overrides) -> Self {
        let settings = patient(config::load(None, overrides).expect("valid settings"));
        let running = server::start(settings).await.expect("the service starts");
        let client = connect(running.address()).await;
        Self { place, running, client }
    }

    /// With this configuration file beside the harness's own settings.
    pub(crate) async fn start_configured(place: Place, toml: &str) -> Self {
        let file = place.path().join("assent.toml");
        std::fs::write(&file, toml).expect("a configuration file");
        let settings = config::load(Some(&file), place.overrides()).expect("valid settings");
        let settings = patient(settings);
        let running = server::start(settings).await.expect("the service starts");
        let client = connect(running.address()).await;
        let service = Self { place, running, client };
        service.apply(POLICY).await;
        service
    }

    /// The notice of the example policy.
    pub(crate) async fn notice(&self) -> proto::Notice {
        notice(&self.client).await
    }

    pub(crate) async fn apply(&self, toml: &str) -> proto::ApplyPolicyResponse {
        let request = proto::ApplyPolicyRequest { toml: toml.to_owned(), dry_run: false };
        self.client.apply_policy(request).await.expect("the policy applies")
    }

    /// Stops; the place is left for another start.
    pub(crate) async fn stop(self) -> Place {
        drop(self.client);
        self.running.stop().await;
        self.place
    }

    /// A good enrolment of `subject` in scope `north-gate`.
    pub(crate) async fn enrolment(
        &self,
        subject: &str,
        frames: Vec<proto::Probe>,
    ) -> proto::EnrollRequest {
        enrolment(&self.client, subject, "north-gate", frames).await
    }
}

pub(crate) async fn connect(address: SocketAddr) -> Client {
    let target = Target { url: format!("http://{address}"), ..Target::default() };
    Client::connect(&target).await.expect("the service is there")
}

/// The current notice of the example policy.
pub(crate) async fn notice(client: &Client) -> proto::Notice {
    let request = proto::GetNoticeRequest {
        controller_id: CONTROLLER.to_owned(),
        notice_id: "face-entry".to_owned(),
        version: String::new(),
    };
    client.get_notice(request).await.expect("the notice").notice.expect("the notice")
}

/// A good enrolment of `subject` under a consent of its own for `scope`.
pub(crate) async fn enrolment(
    client: &Client,
    subject: &str,
    scope: &str,
    frames: Vec<proto::Probe>,
) -> proto::EnrollRequest {
    enrolment_under(&notice(client).await, subject, scope, frames)
}

/// The same, with the notice at hand.
pub(crate) fn enrolment_under(
    notice: &proto::Notice,
    subject: &str,
    scope: &str,
    frames: Vec<proto::Probe>,
) -> proto::EnrollRequest {
    proto::EnrollRequest {
        idempotency_key: format!("key-{subject}-{scope}"),
        subject_ref: subject.to_owned(),
        controller_id: CONTROLLER.to_owned(),
        consent: Some(consent(notice, &format!("consent-{subject}-{scope}"), scope)),
        frames,
    }
}

/// A good consent, from a second ago for 180 days.
pub(crate) fn consent(notice: &proto::Notice, id: &str, scope: &str) -> proto::ConsentRecord {
    let now = Timestamp::now();
    proto::ConsentRecord {
        consent_id: id.to_owned(),
        purpose: "resident-entry".to_owned(),
        scope: scope.to_owned(),
        notice_id: notice.notice_id.clone(),
        notice_version: notice.version.clone(),
        notice_sha256: notice.sha256.clone(),
        form: proto::ConsentForm::Electronic.into(),
        channel: "front-desk-tablet".to_owned(),
        captured_at: Some(WireTime::from(now.plus_ms(-1000))),
        expires_at: Some(WireTime::from(now.plus_days(180))),
        evidence_sha256: vec![7; 32],
        bundled: Some(false),
        alternative_offered: proto::AlternativeMethod::Card.into(),
        lawful_basis: proto::LawfulBasis::Consent.into(),
        subject_class: proto::SubjectClass::Adult.into(),
        ..proto::ConsentRecord::default()
    }
}

/// A picture to enrol.
pub(crate) fn encoded(data: Vec<u8>) -> proto::Probe {
    probe(proto::probe::Form::Encoded(proto::EncodedFrame { data }))
}

/// A person that exists only as a direction: the same seed is the same face.
pub(crate) fn face(seed: u64) -> proto::EmbeddingProbe {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let values = (0..WIDTH).map(|_| {
        // xorshift64*, four uniform numbers summed: near enough to normal.
        let sum: f32 = (0..4)
            .map(|_| {
                state ^= state >> 12;
                state ^= state << 25;
                state ^= state >> 27;
                let bits = state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 40;
                f32::from(u16::try_from(bits >> 8).expect("16 bits")) / 65_536.0 - 0.5
            })
            .sum();
        sum
    });
    proto::EmbeddingProbe { values: values.collect(), model_contract: CONTRACT.to_owned() }
}

/// An embedding to enrol.
pub(crate) fn embedded(seed: u64) -> proto::Probe {
    probe(proto::probe::Form::Embedding(face(seed)))
}

/// A frame to enrol, in any form.
pub(crate) fn probe(form: proto::probe::Form) -> proto::Probe {
    proto::Probe { form: Some(form) }
}

/// A 1:N verification of a picture at `gate`.
pub(crate) fn verify_photo(gate: &str, data: Vec<u8>) -> proto::VerifyRequest {
    verify(gate, proto::verify_request::Probe::Encoded(proto::EncodedFrame { data }))
}

/// A 1:N verification of the face `seed` at `gate`.
pub(crate) fn verify_face(gate: &str, seed: u64) -> proto::VerifyRequest {
    verify(gate, proto::verify_request::Probe::Embedding(face(seed)))
}

/// A verification of any probe at `gate`.
pub(crate) fn verify(gate: &str, probe: proto::verify_request::Probe) -> proto::VerifyRequest {
    proto::VerifyRequest {
        gate_id: gate.to_owned(),
        intent: proto::Intent::Button.into(),
        probe: Some(probe),
        ..proto::VerifyRequest::default()
    }
}

/// A withdrawal of all that a subject has.
pub(crate) fn revoke_subject(subject: &str) -> proto::RevokeRequest {
    proto::RevokeRequest {
        controller_id: CONTROLLER.to_owned(),
        target: Some(proto::revoke_request::Target::SubjectRef(subject.to_owned())),
    }
}

/// Who matched, if anybody did.
pub(crate) fn matched(response: &proto::VerifyResponse) -> Option<&str> {
    response.r#match.as_ref().map(|found| found.subject_ref.as_str())
}

/// The program as a child process on a place; killed when dropped.
pub(crate) struct Process {
    child: Child,
    address: SocketAddr,
}

impl Process {
    /// Starts `assent serve`; it is not serving yet.
    pub(crate) fn spawn(place: &Place) -> Self {
        Self::spawn_with(place, &[])
    }

    /// The same, with further arguments.
    pub(crate) fn spawn_with(place: &Place, arguments: &[&str]) -> Self {
        Self::spawn_on(place, Provider::Cpu, arguments)
    }

    /// The same, with what computes.
    pub(crate) fn spawn_on(place: &Place, provider: Provider, arguments: &[&str]) -> Self {
        Self::spawn_in(place, provider, arguments, &[])
    }

    /// On the CPU, to be killed by itself at a point of `src/failpoint.rs`: `name:count`.
    pub(crate) fn spawn_failing(place: &Place, arguments: &[&str], failpoint: &str) -> Self {
        Self::spawn_in(place, Provider::Cpu, arguments, &[("ASSENT_FAILPOINT", failpoint)])
    }

    /// On the CPU, with a clock that is as many milliseconds ahead as `clock` says.
    pub(crate) fn spawn_at(place: &Place, clock: &Path) -> Self {
        let clock = clock.to_str().expect("a path in UTF-8");
        Self::spawn_in(place, Provider::Cpu, &[], &[("ASSENT_CLOCK", clock)])
    }

    fn spawn_in(
        place: &Place,
        provider: Provider,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Self {
        let address = free_address();
        let mut command = Command::new(env!("CARGO_BIN_EXE_assent"));
        command
            .args(serve_arguments(place, provider, address))
            .args(arguments)
            .envs(environment.iter().copied());
        Self::begin(&mut command, address)
    }

    /// A command that makes the program listen at `address`.
    pub(crate) fn begin(command: &mut Command, address: SocketAddr) -> Self {
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the program starts");
        Self { child, address }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it is no more.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("the child can be asked").is_some()
    }

    /// A client, once health says SERVING.
    pub(crate) async fn client(&mut self) -> Client {
        self.client_or_end().await.expect("the program ended while it was starting")
    }

    /// The same; `None` where the program ends before.
    pub(crate) async fn client_or_end(&mut self) -> Option<Client> {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            if self.has_ended() {
                return None;
            }
            if let Some(client) = serving_at(self.address).await {
                return Some(client);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the program did not serve within {PATIENCE:?}");
    }

    /// SIGTERM, and its orderly end.
    pub(crate) fn stop(mut self) {
        let told = Command::new("kill").arg(self.id().to_string()).status();
        assert!(told.expect("kill runs").success());
        self.child.wait().expect("the child ends");
    }

    /// kill -9, and its end.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("the child can be killed");
        self.child.wait().expect("the child ends");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What `assent serve` is told on a place.
pub(crate) fn serve_arguments(
    place: &Place,
    provider: Provider,
    address: SocketAddr,
) -> Vec<OsString> {
    let mut arguments: Vec<OsString> =
        ["serve", "--plaintext", "--no-metrics", "--provider", provider.name(), "--listen"]
            .map(OsString::from)
            .into();
    arguments.push(address.to_string().into());
    for (flag, path) in [
        ("--data-dir", place.data()),
        ("--root-key", place.root_key()),
        ("--models-dir", MODELS.clone()),
    ] {
        arguments.extend([flag.into(), path.into()]);
    }
    arguments
}

/// A client of the service there, if it says SERVING.
pub(crate) async fn serving_at(address: SocketAddr) -> Option<Client> {
    let target = Target { url: format!("http://{address}"), ..Target::default() };
    let client = Client::connect(&target).await.ok()?;
    client.is_serving("").await.unwrap_or(false).then_some(client)
}

/// An address on loopback that was free a moment ago.
pub(crate) fn free_address() -> SocketAddr {
    let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    socket.local_addr().expect("its address")
}

/// Copies a folder and all in it.
pub(crate) fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
