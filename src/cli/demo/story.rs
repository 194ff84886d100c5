//! The story, act by act. Every line that it prints is what the service answered.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::super::exit::{Exit, Failure};
use super::super::output;
use super::cast::{
    Appearance, LEFT, LEFT_AGAIN, PORTRAIT, PORTRAIT_ELSEWHERE, RIGHT, RIGHT_AGAIN, STRANGERS,
};
use crate::config::{self, Overrides};
use crate::crypto::cell::FileCell;
use crate::server::{self, Running};
use crate::service::client::{Client, ClientError, Target};
use crate::service::{WireTime, proto};
use crate::types::Timestamp;

/// The example of the documentation: a community, its notice, its gates.
const POLICY: &str = include_str!("../../../docs/example-policy.toml");
/// The demo shows similarities and uses small faces; a real gate keeps the defaults.
const GATE_FIELD: (&str, &str) = (
    "comparison = \"one_to_many\"",
    "comparison = \"one_to_many\"\nexpose_similarity = true\nmin_eye_distance_px = 12",
);
const CONTROLLER: &str = "maple-property";
const GATE: &str = "north-gate-1";
const OTHER_GATE: &str = "lobby-1";
/// An 18-digit number with a right check digit that belongs to nobody (region 110105, 1949).
const ID_NUMBER: &str = "11010519491231002X";

/// Runs all acts; the service is left running for the caller to stop.
pub(super) async fn tell(models: &Path, place: &Path) -> Result<Running, Failure> {
    let stage = Stage { models: models.to_owned(), place: place.to_owned() };
    drop(FileCell::create(&stage.root_key()).map_err(Failure::internal)?);
    heading("The service starts, sealed until its root key is there");
    let running = stage.open().await?;
    let show = Show::connect(&stage, &running).await?;
    show.policy().await?;
    let residents = show.enrolments().await?;
    show.at_the_gate().await?;
    show.refusals().await?;
    show.withdrawal(&residents[1]).await?;
    heading("The service is stopped and started again from its disk");
    drop(show);
    running.stop().await;
    let running = stage.open().await?;
    let show = Show::connect(&stage, &running).await?;
    show.after_the_withdrawal().await?;
    say!("\nThe withdrawn person matches no more, before and after a restart; the others do.");
    Ok(running)
}

fn heading(text: &str) {
    say!("\n== {text}");
}

/// Where everything lies.
struct Stage {
    models: PathBuf,
    place: PathBuf,
}

impl Stage {
    fn root_key(&self) -> PathBuf {
        self.place.join("root.key")
    }

    async fn open(&self) -> Result<Running, Failure> {
        let begun = Instant::now();
        let overrides = Overrides {
            data_dir: Some(self.place.join("data")),
            root_key: Some(self.root_key()),
            listen: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))),
            no_metrics: true,
            plaintext: true,
            models_dir: Some(self.models.clone()),
            ..Overrides::default()
        };
        let settings = config::load(None, overrides).map_err(Failure::usage)?;
        let running = server::start(settings).await.map_err(Failure::usage)?;
        let status = running.engine().status();
        say!(
            "serving on {} after {:.1} s: models on {}, search with {}, {} template(s)",
            running.address(),
            begun.elapsed().as_secs_f64(),
            status.provider.name(),
            status.index.kernel.name(),
            status.index.live
        );
        Ok(running)
    }
}

/// One enrolled resident.
struct Resident {
    subject: &'static str,
    record: String,
}

/// A client on the stage.
struct Show {
    client: Client,
    photos: PathBuf,
}

impl Show {
    async fn connect(stage: &Stage, running: &Running) -> Result<Self, Failure> {
        let url = format!("http://{}", running.address());
        let client = Client::connect(&Target { url, ..Target::default() }).await?;
        Ok(Self { client, photos: stage.models.join("research").join("photos") })
    }

    async fn policy(&self) -> Result<(), Failure> {
        heading("A community applies its policy: controller, notice, gates");
        let toml = POLICY.replace(GATE_FIELD.0, GATE_FIELD.1);
        let request = proto::ApplyPolicyRequest { toml, dry_run: false };
        for change in self.client.apply_policy(request).await?.changes {
            say!("{} {} {}", output::mark(change.kind()), change.object, change.id);
        }
        let toml = superseded_notice();
        self.client.apply_policy(proto::ApplyPolicyRequest { toml, dry_run: false }).await?;
        let toml = GATE_WITHOUT_ALTERNATIVE.to_owned();
        let refused = self.client.apply_policy(proto::ApplyPolicyRequest { toml, dry_run: false });
        refusal("a gate that would leave the face as the only way in", refused.await)
    }

    async fn enrolments(&self) -> Result<Vec<Resident>, Failure> {
        heading("Three residents enrol, each under a consent of their own for the north gate");
        let cast = [("resident-0001", PORTRAIT), ("resident-0002", LEFT), ("resident-0003", RIGHT)];
        let mut residents = Vec::new();
        for (subject, face) in cast {
            let request = self.enrolment(subject, face).await?;
            let response = self.client.enroll(request).await?;
            say!(
                "{subject}: record {}, until {}, receipt signed by {}...",
                response.record_id,
                output::time(response.expires_at.as_ref()),
                signer(response.receipt.as_ref())
            );
            residents.push(Resident { subject, record: response.record_id });
        }
        Ok(residents)
    }

    async fn at_the_gate(&self) -> Result<(), Failure> {
        heading("At the north gate");
        self.verify("resident-0001, in another photo", GATE, PORTRAIT_ELSEWHERE).await?;
        self.verify("resident-0002, cut out anew, brighter", GATE, LEFT_AGAIN).await?;
        self.verify("resident-0003, cut out anew, darker", GATE, RIGHT_AGAIN).await?;
        for stranger in STRANGERS {
            self.verify("somebody whom nobody enrolled", GATE, stranger).await?;
        }
        heading("At the lobby, a scope that nobody consented to");
        self.verify("resident-0001", OTHER_GATE, PORTRAIT).await
    }

    async fn refusals(&self) -> Result<(), Failure> {
        heading("What the service refuses; nothing is stored");
        let good = self.enrolment("resident-0004", RIGHT).await?;
        let mut request = good.clone();
        request.consent = None;
        refusal("an enrolment without consent", self.client.enroll(request).await)?;
        let mut request = good.clone();
        "2025-01".clone_into(&mut consent_of(&mut request).notice_version);
        refusal("consent to a notice that is no longer valid", self.client.enroll(request).await)?;
        let mut request = good.clone();
        consent_of(&mut request).bundled = Some(true);
        refusal("consent bundled with something else", self.client.enroll(request).await)?;
        let mut request = good.clone();
        ID_NUMBER.clone_into(&mut request.subject_ref);
        refusal("an ID number as subject", self.client.enroll(request).await)?;
        let same_face = self.client.enroll(good).await;
        refusal("resident-0003's face under another name", same_face)
    }

    async fn withdrawal(&self, resident: &Resident) -> Result<(), Failure> {
        heading("resident-0002 withdraws: one call, no reason asked");
        let request = proto::RevokeRequest {
            controller_id: CONTROLLER.to_owned(),
            target: Some(proto::revoke_request::Target::SubjectRef(resident.subject.to_owned())),
        };
        let begun = Instant::now();
        let response = self.client.revoke(request).await?;
        let took = begun.elapsed().as_secs_f64() * 1e3;
        if response.revoked_records != [resident.record.clone()] {
            return Err(unexpected("the withdrawn record was not destroyed"));
        }
        say!("destroyed record {} in {took:.1} ms", resident.record);
        say!(
            "gone from revision {} on; erasure receipt signed by {}...",
            response.revision,
            signer(response.receipt.as_ref())
        );
        self.after_the_withdrawal().await
    }

    async fn after_the_withdrawal(&self) -> Result<(), Failure> {
        let request = proto::DescribeSubjectRequest {
            controller_id: CONTROLLER.to_owned(),
            subject_ref: "resident-0002".to_owned(),
        };
        let held = self.client.describe_subject(request).await?.records.len();
        say!("records held about resident-0002: {held}");
        let gone = self.ask(GATE, LEFT_AGAIN).await?;
        line("resident-0002, as before", &gone);
        let first = self.ask(GATE, PORTRAIT_ELSEWHERE).await?;
        line("resident-0001, as before", &first);
        let third = self.ask(GATE, RIGHT_AGAIN).await?;
        line("resident-0003, as before", &third);
        if held == 0
            && gone.decision() == proto::Decision::NoMatch
            && is_match(&first, "resident-0001")
            && is_match(&third, "resident-0003")
        {
            Ok(())
        } else {
            Err(unexpected("the gate's answers after the withdrawal are not what they must be"))
        }
    }

    async fn verify(&self, who: &str, gate: &str, face: Appearance) -> Result<(), Failure> {
        let response = self.ask(gate, face).await?;
        line(who, &response);
        if let Some(tag) = response.r#match.as_ref().and_then(|m| m.consent_tag.as_ref()) {
            say!("    covered by {}", output::tag(tag));
        } else if let Some(way) = response.alternatives.first() {
            say!("    other ways in, first: {}", output::way(way));
        }
        Ok(())
    }

    async fn ask(&self, gate: &str, face: Appearance) -> Result<proto::VerifyResponse, Failure> {
        let request = proto::VerifyRequest {
            gate_id: gate.to_owned(),
            intent: proto::Intent::Button.into(),
            probe: Some(face.frame(&self.photos)?.into()),
            ..proto::VerifyRequest::default()
        };
        Ok(self.client.verify(request).await?)
    }

    async fn enrolment(
        &self,
        subject: &str,
        face: Appearance,
    ) -> Result<proto::EnrollRequest, Failure> {
        let request = proto::GetNoticeRequest {
            controller_id: CONTROLLER.to_owned(),
            notice_id: "face-entry".to_owned(),
            version: String::new(),
        };
        let notice = self.client.get_notice(request).await?.notice.unwrap_or_default();
        Ok(proto::EnrollRequest {
            idempotency_key: format!("enrol-{subject}"),
            subject_ref: subject.to_owned(),
            controller_id: CONTROLLER.to_owned(),
            consent: Some(consent(subject, &notice)),
            frames: vec![face.frame(&self.photos)?.into()],
        })
    }
}

fn consent(subject: &str, notice: &proto::Notice) -> proto::ConsentRecord {
    let now = Timestamp::now();
    proto::ConsentRecord {
        consent_id: format!("consent-{subject}"),
        purpose: "resident-entry".to_owned(),
        scope: "north-gate".to_owned(),
        notice_id: notice.notice_id.clone(),
        notice_version: notice.version.clone(),
        notice_sha256: notice.sha256.clone(),
        form: proto::ConsentForm::Electronic.into(),
        channel: "front-desk-tablet".to_owned(),
        captured_at: Some(WireTime::from(now)),
        expires_at: Some(WireTime::from(now.plus_days(180))),
        evidence_sha256: notice.sha256.clone(),
        bundled: Some(false),
        alternative_offered: proto::AlternativeMethod::Card.into(),
        lawful_basis: proto::LawfulBasis::Consent.into(),
        subject_class: proto::SubjectClass::Adult.into(),
        ..proto::ConsentRecord::default()
    }
}

fn consent_of(request: &mut proto::EnrollRequest) -> &mut proto::ConsentRecord {
    request.consent.get_or_insert_default()
}

/// Last year's version of the example's notice.
fn superseded_notice() -> String {
    let begin = POLICY.find("[[notices]]").unwrap_or(0);
    let end = POLICY.find("[[gates]]").unwrap_or(POLICY.len());
    POLICY[begin..end].replace("2026-01", "2025-01")
}

const GATE_WITHOUT_ALTERNATIVE: &str = r#"
[[gates]]
id = "back-door"
controller = "maple-property"
label = "Back door"
place_type = "entrance"
purposes = ["resident-entry"]
scopes = ["north-gate"]
comparison = "one_to_many"
fpir = 0.01
alternatives = []
"#;

fn line(who: &str, response: &proto::VerifyResponse) {
    let decision = output::decision(response.decision());
    let total = response.timings.map_or(0.0, |t| f64::from(t.total_us) / 1e3);
    let found = response.r#match.as_ref();
    let subject = found.map(|m| format!(" {}", m.subject_ref)).unwrap_or_default();
    let similarity = found.and_then(|m| m.similarity);
    let similarity = similarity.map(|s| format!(", similarity {s:.2}")).unwrap_or_default();
    say!("{who}: {decision}{subject}{similarity} ({total:.1} ms)");
}

fn is_match(response: &proto::VerifyResponse, subject: &str) -> bool {
    response.r#match.as_ref().is_some_and(|found| found.subject_ref == subject)
}

/// Shows a refusal; an acceptance ends the demo.
fn refusal<T>(what: &str, outcome: Result<T, ClientError>) -> Result<(), Failure> {
    match outcome {
        Ok(_) => Err(unexpected(&format!("{what} was accepted"))),
        Err(error) => {
            say!("{what}:\n    {}: {}", error.code.name(), error.message);
            Ok(())
        }
    }
}

/// The first digits of the deployment's public key.
fn signer(receipt: Option<&proto::Receipt>) -> String {
    let key = receipt.map(|receipt| receipt.public_key.as_slice()).unwrap_or_default();
    hex::encode(&key[..key.len().min(4)])
}

fn unexpected(what: &str) -> Failure {
    Failure::new(Exit::Internal, format!("{what}: this is a fault of the service"))
}
