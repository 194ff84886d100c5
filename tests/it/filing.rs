//! O1: a controller that holds many people is told to file, by when, and what was filed is
//! remembered; from the first person to the cancelled filing, over restarts.

use std::path::Path;
use std::process::Command;

use assent::consent::{BeijingDay, Calendar};
use assent::service::proto;
use assent::types::Timestamp;
use serde_json::Value;

use crate::harness::{CONTROLLER, POLICY, Place, Service, embedded, enrolment, revoke_subject};

const USAGE: i32 = 64;
const REFUSED: i32 = 65;
/// Persons; the warning comes at four fifths.
const THRESHOLD: u64 = 5;
const CONFIG: &str = "[filing]\nthreshold = 5\ncalendar = \"further-years.toml\"\n";

/// Years for which nothing is published yet, so that the test runs in any year.
fn further_years() -> String {
    let this = BeijingDay::of(Timestamp::now()).year();
    let from = Calendar::shipped().covers().1 + 1;
    let year = |year: i32| {
        format!("[[years]]\nyear = {year}\nsource = \"a test\"\nworkdays = []\nholidays = []\n")
    };
    (from..=from.max(this + 1)).map(year).collect()
}

async fn open(place: Place) -> Service {
    std::fs::write(place.path().join("further-years.toml"), further_years()).unwrap();
    Service::start_configured(place, CONFIG).await
}

async fn standing(service: &Service) -> proto::ControllerFiling {
    let response = service.client.filing_status(proto::FilingStatusRequest {}).await.unwrap();
    let [filing] = response.controllers.try_into().unwrap();
    filing
}

async fn enrol(service: &Service, person: u64, scope: &str) {
    let subject = format!("resident-{person}");
    let request = enrolment(&service.client, &subject, scope, vec![embedded(person)]).await;
    service.client.enroll(request).await.unwrap();
}

async fn mark(service: &Service, mark: proto::FilingMark, date: &str) -> Result<(), String> {
    let request = proto::MarkFiledRequest {
        controller_id: CONTROLLER.to_owned(),
        mark: mark.into(),
        number: "N-1".to_owned(),
        date: date.to_owned(),
    };
    let marked = service.client.mark_filed(request).await;
    marked.map(drop).map_err(|refusal| format!("{} {}", refusal.code.name(), refusal.message))
}

/// What a command prints where the user speaks Chinese.
async fn in_chinese(service: &Service, arguments: &[&str]) -> String {
    let (_, said, complaint) = run_in(service, arguments, "zh_CN.UTF-8").await;
    said + &complaint
}

/// A command of the program against the service: exit code, output, complaints.
async fn run(service: &Service, arguments: &[&str]) -> (i32, String, String) {
    run_in(service, arguments, "C").await
}

async fn run_in(service: &Service, arguments: &[&str], language: &str) -> (i32, String, String) {
    let url = format!("http://{}", service.running.address());
    let mut command = Command::new(env!("CARGO_BIN_EXE_assent"));
    command.args(arguments).args(["--server", &url]).env("LC_ALL", language);
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    (
        output.status.code().unwrap_or(-1),
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    )
}

#[track_caller]
fn has(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "{word:?} is not in\n{text}");
    }
}

/// The entries of the audit trail of that kind.
async fn entries(service: &Service, event: &str) -> Vec<Value> {
    let mut pieces =
        service.client.export_audit(proto::ExportAuditRequest::default()).await.unwrap();
    let mut lines = Vec::new();
    while let Some(piece) = pieces.next().await.unwrap() {
        lines.extend(piece.lines);
    }
    let text = String::from_utf8(lines).unwrap();
    let read = |line: &str| serde_json::from_str::<Value>(line).unwrap()["entry"].take();
    text.lines().map(read).filter(|entry| entry["event"] == event).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn o1_from_the_first_person_to_the_cancelled_filing() {
    let service = open(Place::new()).await;
    let first = standing(&service).await;
    assert_eq!((first.state(), first.persons), (proto::FilingState::Quiet, 0));
    assert_eq!((first.threshold, first.warn_from), (THRESHOLD, 4));
    for person in 1..=3 {
        enrol(&service, person, "north-gate").await;
        // The same person in another scope is one person.
        enrol(&service, person, "lobby").await;
    }
    assert_eq!(standing(&service).await.state(), proto::FilingState::Quiet);
    enrol(&service, 4, "lobby").await;
    let warned = standing(&service).await;
    assert_eq!((warned.state(), warned.persons), (proto::FilingState::Warned, 4));

    enrol(&service, 5, "north-gate").await;
    let due = standing(&service).await;
    assert_eq!((due.state(), due.persons, due.overdue), (proto::FilingState::Due, 5, false));
    let calendar = Calendar::shipped().with(&further_years()).unwrap();
    let since = due.due_since.as_ref().unwrap().seconds * 1_000;
    let day = BeijingDay::of(Timestamp::from_unix_ms(since).unwrap());
    assert_eq!(due.deadline, calendar.add_working_days(day, 30).unwrap().to_string());

    // People leave, the service starts again: due all the same, until the same day.
    for person in 1..=4 {
        service.client.revoke(revoke_subject(&format!("resident-{person}"))).await.unwrap();
    }
    let service = open(service.stop().await).await;
    let still = standing(&service).await;
    assert_eq!(still, proto::ControllerFiling { persons: 1, ..due.clone() });
    let arisen = entries(&service, "filing_due").await;
    assert_eq!(arisen.len(), 1, "{arisen:?}");
    assert_eq!((&arisen[0]["duty"], &arisen[0]["persons"]), (&"file".into(), &5.into()));
    assert_eq!(arisen[0]["deadline"], due.deadline);

    what_cannot_have_been_done_is_refused(&service).await;
    the_material_is_collected(&service).await;
    it_is_filed_changed_and_cancelled(&service).await;

    let service = open(service.stop().await).await;
    let ended = standing(&service).await;
    assert_eq!((ended.state(), ended.number.as_str()), (proto::FilingState::Cancelled, "N-2"));
    let marked = entries(&service, "filing_marked").await;
    let marks: Vec<_> = marked.iter().map(|entry| entry["mark"].as_str().unwrap()).collect();
    assert_eq!(marks, ["filed", "mistaken", "filed", "changed", "cancelled"]);
    let duties = entries(&service, "filing_due").await;
    let duties: Vec<_> = duties.iter().map(|entry| entry["duty"].as_str().unwrap()).collect();
    assert_eq!(duties, ["file", "file_change", "cancel"]);
    assert!(marked.iter().all(|entry| entry["caller"].is_string()), "{marked:?}");
    service.stop().await;
}

async fn what_cannot_have_been_done_is_refused(service: &Service) {
    use proto::FilingMark as Mark;
    let changed = mark(service, Mark::Changed, "").await.unwrap_err();
    has(&changed, &["FAILED_PRECONDITION", "mark it as filed first"]);
    let future = mark(service, Mark::Filed, "2999-01-01").await.unwrap_err();
    has(&future, &["INVALID_ARGUMENT", "date: 2999-01-01 has not come"]);
    let no_day = mark(service, Mark::Filed, "yesterday").await.unwrap_err();
    has(&no_day, &["INVALID_ARGUMENT", "date: not a day"]);
    let nothing = mark(service, Mark::Unspecified, "").await.unwrap_err();
    has(&nothing, &["INVALID_ARGUMENT", "mark: "]);
    let stranger = proto::MarkFiledRequest {
        controller_id: "nobody".to_owned(),
        mark: Mark::Filed.into(),
        number: "N".to_owned(),
        date: String::new(),
    };
    let refusal = service.client.mark_filed(stranger.clone()).await.unwrap_err();
    assert_eq!(refusal.reason.as_deref(), Some("CONTROLLER_UNKNOWN"));
    let blank = proto::MarkFiledRequest {
        controller_id: CONTROLLER.to_owned(),
        number: " ".to_owned(),
        ..stranger
    };
    let refusal = service.client.mark_filed(blank).await.unwrap_err();
    assert_eq!(refusal.field.as_deref(), Some("number"));
    assert_eq!(standing(service).await.state(), proto::FilingState::Due, "nothing was marked");
}

async fn the_material_is_collected(service: &Service) {
    let (_, said, _) = run(service, &["filing", "status"]).await;
    has(&said, &["maple-property: DUE since", "1 of 5", "filing pack", "mark-filed"]);
    let said = in_chinese(service, &["filing", "status"]).await;
    has(
        &said,
        &["maple-property: 自 ", "应当备案", "人数      1，标准 5", "filing pack", "网信部门"],
    );
    let folder = service.place.path().join("filing-2026");
    let out = folder.to_str().unwrap();
    let pack = ["filing", "pack", "--controller", CONTROLLER, "--out", out];
    let (code, printed, complaint) = run(service, &pack).await;
    assert_eq!(code, 0, "{complaint}");
    assert_eq!(printed.lines().count(), 11, "{printed}");
    let read = |name: &str| std::fs::read_to_string(Path::new(out).join(name)).unwrap();
    has(
        &read("README.md"),
        &["05-impact-assessment.md", "统一社会信用代码", "To be added by hand"],
    );
    has(&read("01-controller.md"), &["枫林苑物业服务有限公司", "privacy@maple-court.example"]);
    has(&read("02-purpose-and-method.md"), &["resident-entry", "north-gate-1", "both"]);
    has(&read("03-number-and-security.md"), &["Persons: 1", "Threshold: 5", "Root key: file"]);
    let rules = read("04-rules-and-procedures.md");
    let notice = hex::encode(service.notice().await.sha256);
    has(&rules, &[&notice, "门禁卡", "max_retention_days", "M15"]);
    has(&read("05-impact-assessment.md"), &["w600k_mbf/arcface-112/rgb/1", "Safeguards"]);
    has(&read("06-policy.toml"), &["[[controllers]]"]);
    let filing: Value = serde_json::from_str(&read("08-filing.json")).unwrap();
    assert_eq!(filing["state"], "FILING_STATE_DUE");
    for file in std::fs::read_dir(&folder).unwrap() {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        assert!(!text.contains("resident-5"), "nothing of a person is in it");
    }

    let (code, _, complaint) = run(service, &pack).await;
    assert_eq!(code, USAGE, "{complaint}");
    has(&complaint, &["is not empty"]);
    let other = service.place.path().join("other");
    let stranger = ["filing", "pack", "--controller", "nobody", "--out", other.to_str().unwrap()];
    let (code, _, complaint) = run(service, &stranger).await;
    assert_eq!(code, REFUSED, "{complaint}");
    has(&complaint, &["nobody", "assent filing status"]);
}

async fn it_is_filed_changed_and_cancelled(service: &Service) {
    let file = ["filing", "mark-filed", "--controller", CONTROLLER, "--number"];
    let (code, said, complaint) = run(service, &[&file[..], &["N-1"]].concat()).await;
    assert_eq!(code, 0, "{complaint}");
    has(&said, &["maple-property: filed", "N-1, filed 20"]);
    let (code, _, complaint) = run(service, &[&file[..], &["N-1"]].concat()).await;
    assert_eq!(code, REFUSED, "{complaint}");
    has(&complaint, &["was filed under N-1", "mark a change"]);
    has(&in_chinese(service, &[&file[..], &["N-1"]].concat()).await, &["备案号 N-1", "请登记变更"]);

    it_was_a_mistake(service, &file).await;
    let (code, said, complaint) = run(service, &[&file[..], &["N-1"]].concat()).await;
    assert_eq!(code, 0, "{complaint}");
    has(&said, &["maple-property: filed"]);

    // Another address of the controller is another filing.
    service.apply(&POLICY.replace("; privacy@maple-court.example\"", "; new@example\"")).await;
    let changed = standing(service).await;
    assert_eq!(changed.state(), proto::FilingState::ChangeDue);
    assert!(changed.due_since.is_some() && !changed.deadline.is_empty());
    let (_, said, _) = run(service, &["filing", "status"]).await;
    has(&said, &["CHANGE DUE since", "--change"]);
    let (code, said, complaint) = run(service, &[&file[..], &["N-2", "--change"]].concat()).await;
    assert_eq!(code, 0, "{complaint}");
    has(&said, &["maple-property: filed", "N-2"]);

    let cancel = [&file[..], &["N-2", "--cancelled"]].concat();
    let (code, _, complaint) = run(service, &cancel).await;
    assert_eq!(code, REFUSED, "{complaint}");
    has(&complaint, &["still holds 1 persons"]);
    service.client.revoke(revoke_subject("resident-5")).await.unwrap();
    // Nobody is held any more: if that is the end, the authority has to hear of it.
    let (_, said, _) = run(service, &["filing", "status"]).await;
    has(&said, &["NOBODY HELD since", "cancel the filing until", "--cancelled"]);
    assert_eq!(standing(service).await.state(), proto::FilingState::CancelDue);
    let (code, said, complaint) = run(service, &cancel).await;
    assert_eq!(code, 0, "{complaint}");
    has(&said, &["maple-property: cancelled", "cancelled 20"]);
    let (_, json, _) = run(service, &["--json", "filing", "status"]).await;
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["controllers"][0]["state"], "FILING_STATE_CANCELLED");
}

/// What was marked by mistake is taken back by its number, with the last day where it was.
async fn it_was_a_mistake(service: &Service, file: &[&str]) {
    let deadline = entries(service, "filing_due").await[0]["deadline"].clone();
    let (code, _, complaint) = run(service, &[file, &["N-2", "--mistaken"]].concat()).await;
    assert_eq!(code, REFUSED, "{complaint}");
    has(&complaint, &["number: ", "was marked last under N-1"]);
    let (code, _, complaint) =
        run(service, &[file, &["N-1", "--mistaken", "--at", "2026-01-01"]].concat()).await;
    assert_eq!(code, USAGE, "{complaint}");
    let (code, said, complaint) = run(service, &[file, &["N-1", "--mistaken"]].concat()).await;
    assert_eq!(code, 0, "{complaint}");
    has(&said, &["maple-property: DUE since"]);
    assert_eq!(standing(service).await.deadline, deadline);
    let (code, _, complaint) = run(service, &[file, &["N-1", "--mistaken"]].concat()).await;
    assert_eq!(code, REFUSED, "{complaint}");
    has(&complaint, &["no mark that could be taken back"]);
}
