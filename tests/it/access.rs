//! Who may call what, over mutual TLS: every role, every RPC, every kind of bad credential (D7).
//! The service is set up from a configuration file, as operators do it.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use assent::config::{self, Overrides};
use assent::consent::Sha256;
use assent::server::{self, Running};
use assent::service::client::{Client, ClientError, Target};
use assent::service::verify_client::{EncodedVerify, VerifyClient};
use assent::service::{Access, Role, Rpc, access, proto};
use futures_util::stream;
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, SanType,
};

use crate::harness::{
    CONTROLLER, GATE, MODELS, OTHER_GATE, POLICY, Place, embedded, encoded, enrolment_under,
    matched, notice, photo, revoke_subject, verify_face, verify_photo,
};

/// A certificate authority of the test's own.
struct Authority {
    certificate: Certificate,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, PEM.
struct Credential {
    certificate: String,
    key: String,
    sha256: String,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        Self { certificate, issuer: Issuer::new(params, key) }
    }

    fn sign(&self, names: Vec<SanType>, usage: ExtendedKeyUsagePurpose) -> Credential {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names = names;
        params.extended_key_usages = vec![usage];
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let sha256 = String::from(Sha256::of(certificate.der()));
        Credential { certificate: certificate.pem(), key: key.serialize_pem(), sha256 }
    }

    fn server(&self) -> Credential {
        let address = SanType::IpAddress(std::net::Ipv4Addr::LOCALHOST.into());
        self.sign(vec![address], ExtendedKeyUsagePurpose::ServerAuth)
    }

    fn client(&self, name: &str) -> Credential {
        let name = SanType::DnsName(name.try_into().unwrap());
        self.sign(vec![name], ExtendedKeyUsagePurpose::ClientAuth)
    }
}

/// Who calls in these tests.
struct Party {
    who: &'static str,
    role: Option<Role>,
    credential: Option<Credential>,
}

/// A service behind TLS, and those who call it.
struct Site {
    _place: Place,
    running: Running,
    authority: Authority,
    parties: Vec<Party>,
}

/// The known callers: name, how the rule knows the certificate, and the rest of the rule.
const RULES: [(&str, &str); 7] = [
    ("gate", "role = 'gate'\ngates = ['north-gate-1']"),
    ("lobby", "role = 'gate'\ngates = ['lobby-1']\nembeddings = true"),
    ("enroller", "role = 'enroller'\nembeddings = true"),
    ("camera-enroller", "role = 'enroller'"),
    ("other-enroller", "role = 'enroller'\ncontrollers = ['another']\nembeddings = true"),
    ("operator", "role = 'operator'"),
    ("auditor", "role = 'auditor'"),
];

impl Site {
    async fn open() -> Self {
        let place = Place::new();
        let authority = Authority::new();
        let mut parties = Vec::new();
        let mut callers = Vec::new();
        for (name, rule) in RULES {
            let credential = authority.client(&format!("{name}.assent.test"));
            // By name, in whatever case; the auditor by the digest of its certificate.
            let known_as = match name {
                "auditor" => format!("sha256:{}", credential.sha256),
                "operator" => "Operator.Assent.TEST".to_owned(),
                name => format!("{name}.assent.test"),
            };
            callers.push(format!(
                "[[callers]]\nname = '{name}'\ncertificate = '{known_as}'\n{rule}\n"
            ));
            let role = match rule.split('\'').nth(1) {
                Some("gate") => Role::Gate,
                Some("enroller") => Role::Enroller,
                Some("operator") => Role::Operator,
                _ => Role::Auditor,
            };
            parties.push(Party { who: name, role: Some(role), credential: Some(credential) });
        }
        let stranger = authority.client("stranger.assent.test");
        parties.push(Party { who: "stranger", role: None, credential: Some(stranger) });
        parties.push(Party { who: "anonymous", role: None, credential: None });
        write_tls(place.path(), &authority);
        let text = format!("[listen]\ngrpc = '127.0.0.1:0'\n{TLS}{}", callers.concat());
        let file = place.path().join("assent.toml");
        std::fs::write(&file, text).unwrap();
        let settings = config::load(Some(&file), beside(&place)).unwrap();
        let running = server::start(settings).await.unwrap();
        Self { _place: place, running, authority, parties }
    }

    fn address(&self) -> SocketAddr {
        self.running.address()
    }

    async fn client(&self, who: &str) -> Client {
        let party = self.parties.iter().find(|party| party.who == who).unwrap();
        self.connect(party.credential.as_ref()).await.unwrap()
    }

    async fn connect(&self, credential: Option<&Credential>) -> Result<Client, ClientError> {
        connect(self.address(), &self.authority, credential).await
    }
}

/// Paths beside the file: the loader anchors them there.
const TLS: &str = "[tls]\ncertificate = 'server.pem'\nkey = 'server.key'\nclient_ca = 'ca.pem'\n";

fn write_tls(folder: &Path, authority: &Authority) {
    let server = authority.server();
    std::fs::write(folder.join("server.pem"), server.certificate).unwrap();
    std::fs::write(folder.join("server.key"), server.key).unwrap();
    std::fs::write(folder.join("ca.pem"), authority.certificate.pem()).unwrap();
}

/// The harness's settings without plaintext and port, which the file says.
fn beside(place: &Place) -> Overrides {
    Overrides { plaintext: false, listen: None, ..place.overrides() }
}

async fn connect(
    address: SocketAddr,
    authority: &Authority,
    credential: Option<&Credential>,
) -> Result<Client, ClientError> {
    Client::connect(&target(address, authority, credential)).await
}

fn target(address: SocketAddr, authority: &Authority, credential: Option<&Credential>) -> Target {
    let identity =
        credential.map(|c| (c.certificate.clone().into_bytes(), c.key.clone().into_bytes()));
    let ca = Some(authority.certificate.pem().into_bytes());
    Target { url: format!("https://{address}"), ca, identity }
}

/// The code with which an empty request is answered. No wildcard: a new RPC has to be called here.
async fn code_of(client: &Client, rpc: Rpc) -> &'static str {
    let outcome = match rpc {
        Rpc::GateVerify => client.verify(proto::VerifyRequest::default()).await.map(drop),
        Rpc::GateReportAlternative => {
            client.report_alternative(proto::ReportAlternativeRequest::default()).await.map(drop)
        }
        Rpc::OperatorClearLockout => {
            client.clear_lockout(proto::ClearLockoutRequest::default()).await.map(drop)
        }
        Rpc::GateVerifyStream => client.verify_stream(stream::empty()).await.map(drop),
        Rpc::EnrollmentEnroll => client.enroll(proto::EnrollRequest::default()).await.map(drop),
        Rpc::EnrollmentEnrollStream => client.enroll_stream(stream::empty()).await.map(drop),
        Rpc::EnrollmentRevoke => client.revoke(proto::RevokeRequest::default()).await.map(drop),
        Rpc::EnrollmentDescribeSubject => {
            client.describe_subject(proto::DescribeSubjectRequest::default()).await.map(drop)
        }
        Rpc::OperatorApplyPolicy => {
            client.apply_policy(proto::ApplyPolicyRequest::default()).await.map(drop)
        }
        Rpc::OperatorReadPolicy => {
            client.read_policy(proto::ReadPolicyRequest::default()).await.map(drop)
        }
        Rpc::OperatorStatus => client.status(proto::StatusRequest::default()).await.map(drop),
        Rpc::OperatorExportAudit => {
            client.export_audit(proto::ExportAuditRequest::default()).await.map(drop)
        }
        Rpc::OperatorCollectEvidence => {
            client.collect_evidence(proto::CollectEvidenceRequest::default()).await.map(drop)
        }
        Rpc::OperatorConfirmClock => {
            client.confirm_clock(proto::ConfirmClockRequest {}).await.map(drop)
        }
        Rpc::OperatorRotateKeys => client.rotate_keys(proto::RotateKeysRequest {}).await.map(drop),
        Rpc::OperatorBackup => client.backup(proto::BackupRequest {}).await.map(drop),
        Rpc::OperatorFilingStatus => {
            client.filing_status(proto::FilingStatusRequest {}).await.map(drop)
        }
        Rpc::OperatorMarkFiled => {
            client.mark_filed(proto::MarkFiledRequest::default()).await.map(drop)
        }
        Rpc::NoticesGetNotice => {
            client.get_notice(proto::GetNoticeRequest::default()).await.map(drop)
        }
        Rpc::NoticesGetMessages => {
            client.get_messages(proto::GetMessagesRequest {}).await.map(drop)
        }
        Rpc::NoticesGetRetentionPolicy => {
            client.get_retention_policy(proto::GetRetentionPolicyRequest::default()).await.map(drop)
        }
    };
    outcome.map_or_else(|refusal| refusal.code.name(), |()| "OK")
}

/// Who may call it, written down once more; `None` is everybody.
fn allowed(rpc: Rpc) -> Option<&'static [Role]> {
    match rpc {
        Rpc::GateVerify | Rpc::GateVerifyStream | Rpc::GateReportAlternative => Some(&[Role::Gate]),
        Rpc::EnrollmentEnroll | Rpc::EnrollmentEnrollStream => Some(&[Role::Enroller]),
        Rpc::EnrollmentRevoke => Some(&[Role::Enroller, Role::Operator]),
        Rpc::EnrollmentDescribeSubject => Some(&[Role::Enroller, Role::Operator, Role::Auditor]),
        Rpc::OperatorApplyPolicy
        | Rpc::OperatorBackup
        | Rpc::OperatorConfirmClock
        | Rpc::OperatorMarkFiled
        | Rpc::OperatorClearLockout
        | Rpc::OperatorRotateKeys => Some(&[Role::Operator]),
        Rpc::OperatorReadPolicy
        | Rpc::OperatorStatus
        | Rpc::OperatorExportAudit
        | Rpc::OperatorFilingStatus
        | Rpc::OperatorCollectEvidence => Some(&[Role::Operator, Role::Auditor]),
        Rpc::NoticesGetNotice | Rpc::NoticesGetRetentionPolicy | Rpc::NoticesGetMessages => None,
    }
}

/// What one who may call hears of an empty request.
fn answer_to_nothing(rpc: Rpc) -> &'static str {
    match rpc {
        Rpc::GateVerifyStream
        | Rpc::EnrollmentEnrollStream
        | Rpc::OperatorApplyPolicy
        | Rpc::OperatorReadPolicy
        | Rpc::OperatorStatus
        | Rpc::OperatorExportAudit
        | Rpc::OperatorBackup
        | Rpc::OperatorConfirmClock
        | Rpc::OperatorFilingStatus
        | Rpc::OperatorRotateKeys
        | Rpc::NoticesGetMessages => "OK",
        Rpc::GateVerify
        | Rpc::GateReportAlternative
        | Rpc::OperatorClearLockout
        | Rpc::EnrollmentEnroll
        | Rpc::EnrollmentRevoke
        | Rpc::EnrollmentDescribeSubject
        | Rpc::OperatorCollectEvidence
        | Rpc::OperatorMarkFiled
        | Rpc::NoticesGetNotice
        | Rpc::NoticesGetRetentionPolicy => "INVALID_ARGUMENT",
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn d7_every_role_may_do_what_its_line_says_and_nothing_else() {
    let site = Site::open().await;
    for party in &site.parties {
        let client = site.connect(party.credential.as_ref()).await.unwrap();
        for rpc in Rpc::ALL.iter().copied() {
            let expected = match (allowed(rpc), party.role) {
                (None, _) => answer_to_nothing(rpc),
                // An enrolment for no controller is one for a controller that is not its own.
                _ if (party.who, rpc) == ("other-enroller", Rpc::EnrollmentEnroll) => {
                    "PERMISSION_DENIED"
                }
                (Some(roles), Some(role)) if roles.contains(&role) => answer_to_nothing(rpc),
                // Known, and not allowed to.
                (Some(_), Some(_)) => "PERMISSION_DENIED",
                // Whom we do not know.
                (Some(_), None) => "UNAUTHENTICATED",
            };
            assert_eq!(code_of(&client, rpc).await, expected, "{} calls {}", party.who, rpc.name());
        }
        assert!(client.is_serving("").await.unwrap(), "health is for everybody");
    }
    for rpc in Rpc::ALL.iter().copied() {
        let line = allowed(rpc).map_or(Access::Public, Access::Roles);
        assert_eq!(access(rpc), line, "{}", rpc.name());
    }
    nobody_comes_in_with_a_foreign_certificate(&site).await;
    plaintext_is_not_understood(&site).await;
    site.running.stop().await;
}

/// Whatever the handshake lets through, nothing is answered, not even what is public.
async fn nobody_comes_in_with_a_foreign_certificate(site: &Site) {
    let elsewhere = Authority::new();
    let usage = ExtendedKeyUsagePurpose::ServerAuth;
    let name = || vec![SanType::DnsName("operator.assent.test".try_into().unwrap())];
    let foreign = elsewhere.client("operator.assent.test");
    let for_servers = site.authority.sign(name(), usage);
    for credential in [foreign, for_servers] {
        // TLS 1.3 may tell the client of the refusal only when it first reads.
        let Ok(client) = site.connect(Some(&credential)).await else { continue };
        for rpc in Rpc::ALL.iter().copied() {
            let code = code_of(&client, rpc).await;
            assert!(["UNAVAILABLE", "UNKNOWN", "CANCELLED"].contains(&code), "{code}");
        }
    }
    // And nobody trusts this service who does not know its authority.
    let misled = connect(site.address(), &elsewhere, None).await.unwrap_err();
    assert_eq!(misled.code.name(), "UNAVAILABLE");
}

async fn plaintext_is_not_understood(site: &Site) {
    let url = format!("http://{}", site.address());
    let Ok(client) = Client::connect(&Target { url, ..Target::default() }).await else { return };
    for rpc in Rpc::ALL.iter().copied() {
        let code = code_of(&client, rpc).await;
        assert!(["UNAVAILABLE", "UNKNOWN", "INTERNAL", "CANCELLED"].contains(&code), "{code}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn d7_a_caller_uses_its_own_gates_controllers_and_kinds_of_probe() {
    let site = Site::open().await;
    let operator = site.client("operator").await;
    let policy = proto::ApplyPolicyRequest { toml: POLICY.to_owned(), dry_run: false };
    operator.apply_policy(policy).await.unwrap();
    let notice = notice(&site.client("anonymous").await).await;

    // Gates: its own, with pictures; embeddings only where the rule says so.
    let (gate, lobby) = (site.client("gate").await, site.client("lobby").await);
    let picture = || photo("yaoming.jpg");
    gate.verify(verify_photo(GATE, picture())).await.unwrap();
    lobby.verify(verify_face(OTHER_GATE, 1)).await.unwrap();
    for (client, request) in [
        (&gate, verify_photo(OTHER_GATE, picture())),
        (&gate, verify_photo("no-such-gate", picture())),
        (&gate, verify_face(GATE, 1)),
        (&lobby, verify_face(GATE, 1)),
    ] {
        let refusal = client.verify(request.clone()).await.unwrap_err();
        assert_eq!(refusal.code.name(), "PERMISSION_DENIED");
        assert!(!refusal.alternatives.is_empty(), "a refused gate names other ways too");
        let mut answers = client.verify_stream(stream::iter([request])).await.unwrap();
        let answer = answers.next().await.unwrap().unwrap().result.unwrap();
        let proto::verify_stream_response::Result::Error(refusal) = answer else {
            panic!("{answer:?}");
        };
        assert_eq!(refusal.code, 7, "PERMISSION_DENIED");
        assert!(!refusal.alternatives.is_empty());
    }
    // Whoever may not use a gate hears nothing of its own ways in; whoever may does.
    let own = gate.verify(verify_photo(GATE, picture())).await.unwrap().alternatives;
    let refusal = gate.verify(verify_face(GATE, 1)).await.unwrap_err();
    assert_eq!(refusal.alternatives, own, "its own gate, and not its own kind of probe");
    let empty = proto::VerifyRequest { gate_id: GATE.to_owned(), ..Default::default() };
    for who in ["lobby", "operator", "stranger", "anonymous"] {
        let client = site.client(who).await;
        for request in [verify_photo(GATE, picture()), empty.clone()] {
            let refusal = client.verify(request).await.unwrap_err();
            assert!(!refusal.alternatives.is_empty(), "{who}");
            assert_ne!(refusal.alternatives, own, "{who}");
        }
    }

    // Enrollers: pictures, or embeddings where the rule says so, for their controllers.
    let enroller = site.client("enroller").await;
    let good =
        |subject: &str, seed| enrolment_under(&notice, subject, "north-gate", vec![embedded(seed)]);
    enroller.enroll(good("resident-1", 1)).await.unwrap();
    let camera = site.client("camera-enroller").await;
    let seen = enrolment_under(&notice, "resident-2", "north-gate", vec![encoded(picture())]);
    camera.enroll(seen).await.unwrap();
    let (other, refused) = (site.client("other-enroller").await, "PERMISSION_DENIED");
    for client in [&camera, &other] {
        let refusal = client.enroll(good("resident-3", 3)).await.unwrap_err();
        assert_eq!(refusal.code.name(), refused);
        let requests = stream::iter([good("resident-3", 3)]);
        let answer = client.enroll_stream(requests).await.unwrap().next().await.unwrap().unwrap();
        let proto::enroll_stream_response::Result::Error(refusal) = answer.result.unwrap() else {
            panic!("enrolled");
        };
        assert_eq!(refusal.code, 7, "PERMISSION_DENIED");
    }
    let asked = proto::DescribeSubjectRequest {
        controller_id: CONTROLLER.to_owned(),
        subject_ref: "resident-1".to_owned(),
    };
    assert_eq!(other.describe_subject(asked.clone()).await.unwrap_err().code.name(), refused);
    assert_eq!(other.revoke(revoke_subject("resident-1")).await.unwrap_err().code.name(), refused);
    // What was refused had no effect, and what is allowed has.
    assert_eq!(enroller.describe_subject(asked).await.unwrap().records.len(), 1);
    let found = gate.verify(verify_photo(GATE, picture())).await.unwrap();
    assert_eq!(matched(&found), Some("resident-2"));
    let status = operator.status(proto::StatusRequest {}).await.unwrap();
    assert_eq!(status.subjects, 2);
    let revoked = operator.revoke(revoke_subject("resident-1")).await.unwrap();
    assert_eq!(revoked.revoked_records.len(), 1);
    site.running.stop().await;
}

/// The client of `assent bench` speaks HTTP/2 and TLS itself: it hears what the general one hears.
#[tokio::test(flavor = "multi_thread")]
async fn the_client_for_load_hears_what_the_general_one_does() {
    const DEADLINE: Duration = Duration::from_secs(20);
    let site = Site::open().await;
    let operator = site.client("operator").await;
    let policy = proto::ApplyPolicyRequest { toml: POLICY.to_owned(), dry_run: false };
    operator.apply_policy(policy).await.unwrap();
    let notice = notice(&operator).await;
    let enrolment = enrolment_under(&notice, "resident-1", "lobby", vec![embedded(1)]);
    site.client("enroller").await.enroll(enrolment).await.unwrap();

    let general = site.client("lobby").await;
    let party = site.parties.iter().find(|party| party.who == "lobby").unwrap();
    let its = |credential| target(site.address(), &site.authority, credential);
    let for_load = VerifyClient::connect(&its(party.credential.as_ref())).await.unwrap();
    let verify = async |request: &proto::VerifyRequest| {
        let gate = proto::VerifyRequest { probe: None, ..request.clone() };
        let probe = proto::VerifyRequest { probe: request.probe.clone(), ..Default::default() };
        for_load.verify([&gate, &probe].map(EncodedVerify::of), DEADLINE).await
    };
    for seed in [1, 2] {
        let request = verify_face(OTHER_GATE, seed);
        let mut answers = [verify(&request).await.unwrap(), general.verify(request).await.unwrap()];
        assert_eq!(matched(&answers[0]), (seed == 1).then_some("resident-1"));
        for answer in &mut answers {
            answer.timings = None;
        }
        assert_eq!(answers[0], answers[1]);
    }
    for request in [verify_face(GATE, 1), proto::VerifyRequest::default()] {
        let (one, other) =
            (verify(&request).await.unwrap_err(), general.verify(request).await.unwrap_err());
        assert_eq!(format!("{one:?}"), format!("{other:?}"));
        assert!(!one.alternatives.is_empty());
    }
    // Many at once on one connection, past its window.
    let request = verify_face(OTHER_GATE, 1);
    for _ in 0..40 {
        let many = futures_util::future::join_all((0..32).map(|_| verify(&request))).await;
        assert!(many.iter().all(|answer| matched(answer.as_ref().unwrap()) == Some("resident-1")));
    }

    let misled = target(site.address(), &Authority::new(), None);
    let unknown = VerifyClient::connect(&misled).await.unwrap_err();
    assert_eq!(unknown.code.name(), "UNAVAILABLE");
    let anonymous = VerifyClient::connect(&its(None)).await.unwrap();
    let twice = [&request, &proto::VerifyRequest::default()].map(EncodedVerify::of);
    let refusal = anonymous.verify(twice.clone(), DEADLINE).await.unwrap_err();
    assert_eq!(refusal.code.name(), "UNAUTHENTICATED");
    site.running.stop().await;
    assert_eq!(for_load.verify(twice, DEADLINE).await.unwrap_err().code.name(), "UNAVAILABLE");
}

/// What the loader says of a file; nothing where it is content.
fn fault(folder: &Path, text: &str) -> String {
    let file = folder.join("assent.toml");
    std::fs::write(&file, text).unwrap();
    let overrides = Overrides { models_dir: Some(MODELS.clone()), ..Overrides::default() };
    config::load(Some(&file), overrides).err().map(|e| e.to_string()).unwrap_or_default()
}

#[test]
fn a_configuration_that_would_leave_a_door_open_is_refused() {
    let place = Place::new();
    let folder = place.path();
    write_tls(folder, &Authority::new());
    let caller = |name: &str, certificate: &str, rest: &str| {
        format!("[[callers]]\nname = '{name}'\ncertificate = '{certificate}'\n{rest}\n")
    };
    let operator = caller("a", "a.test", "role = 'operator'");
    let good = format!("{TLS}{operator}");
    assert_eq!(fault(folder, &good), "", "the control");
    let operator_with = |bound: &str| format!("{good}{bound}\n");
    assert_eq!(fault(folder, "[listen]\nplaintext = true"), "", "the control");

    let open = |address: &str| format!("[listen]\nplaintext = true\ngrpc = '{address}'");
    for address in ["0.0.0.0:7400", "192.0.2.1:7400", "[::]:7400", "[2001:db8::1]:7400"] {
        assert!(fault(folder, &open(address)).contains("loopback"), "{address}");
    }
    assert_eq!(fault(folder, &open("[::1]:7400")), "");
    for (text, word) in [
        (String::new(), "[tls]"),
        (format!("[listen]\nplaintext = true\n{good}"), "exclude"),
        (TLS.to_owned(), "[[callers]]"),
        (good.replace("server.key", "no.key"), "no.key"),
        (good.replace("ca.pem", "no.pem"), "no.pem"),
        (format!("{good}{}", caller("b", "a.test", "role = 'auditor'")), "same certificate"),
        (format!("{good}{}", caller("b", "A.TEST", "role = 'auditor'")), "same certificate"),
        (format!("{good}{}", caller("g", "g.test", "role = 'gate'")), "gates"),
        (operator_with("controllers = ['c']"), "controllers means nothing for role operator"),
        (operator_with("gates = ['north-gate-1']"), "gates means nothing for role operator"),
        (operator_with("embeddings = true"), "embeddings means nothing for role operator"),
        (format!("{good}{}", caller("g", "sha256:12", "role = 'auditor'")), "64 hexadecimal"),
        (format!("{good}{}", caller("g", " ", "role = 'auditor'")), "certificate"),
        (format!("{good}{}", caller("g", "g.test", "role = 'root'")), "root"),
        (format!("{good}{}", caller("138-1234-5678", "g.test", "role = 'auditor'")), "mobile"),
        (format!("{good}{}", caller("g", "g.test", "role = 'auditor'\nadmin = true")), "admin"),
    ] {
        let fault = fault(folder, &text);
        assert!(fault.contains(word), "{word:?} is not in {fault:?}");
    }
}
