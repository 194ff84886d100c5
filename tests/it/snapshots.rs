//! Starts from a sealed snapshot: who is there, who is not, and what a bad one costs (nothing).

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use assent::config;
use assent::service::client::Client;
use assent::service::proto;

use crate::harness::{
    GATE, PATIENCE, POLICY, Place, Process, Service, embedded, enrolment, matched, revoke_subject,
    verify_face,
};

const PEOPLE: u64 = 6;
/// Snapshots are asked for by the test.
const RARELY: &str = "[snapshot]\nevery_s = 86400\n";
const OFTEN: &str = "[snapshot]\nevery_s = 1\n";

fn name(person: u64) -> String {
    format!("resident-{person}")
}

async fn enrol(service: &Service, person: u64) {
    let frames = vec![embedded(person)];
    let request = enrolment(&service.client, &name(person), "north-gate", frames).await;
    service.client.enroll(request).await.unwrap();
}

/// Who of the people is let in.
async fn let_in(client: &Client) -> Vec<u64> {
    let mut found = Vec::new();
    for person in 0..PEOPLE {
        let verdict = client.verify(verify_face(GATE, person)).await.unwrap();
        match matched(&verdict) {
            Some(who) if who == name(person) => found.push(person),
            Some(who) => panic!("{person} was taken for {who}"),
            None => {}
        }
    }
    found
}

fn file(place: &Place) -> PathBuf {
    place.data().join("snapshot")
}

async fn write(service: &Service) {
    let toml = service.place.path().join("assent.toml");
    let settings = config::load(Some(&toml), service.place.overrides()).unwrap();
    let snapshots = settings.snapshots.unwrap();
    let written = service.running.engine().write_snapshot(&snapshots.settings).await.unwrap();
    assert_eq!(written.revision, service.running.engine().revision());
}

/// The state of a service on its way: five people, of whom one was revoked after the snapshot, and
/// a sixth who came after it.
async fn after_a_snapshot() -> Place {
    let service = Service::start_configured(Place::new(), RARELY).await;
    assert!(service.running.engine().snapshot_revision().is_none(), "control");
    assert!(service.running.engine().is_scrubbed(), "control");
    for person in 0..PEOPLE - 1 {
        enrol(&service, person).await;
    }
    write(&service).await;
    service.client.revoke(revoke_subject(&name(2))).await.unwrap();
    enrol(&service, PEOPLE - 1).await;
    service.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_from_a_snapshot_knows_who_left_and_who_came_since() {
    let place = after_a_snapshot().await;
    let service = Service::start_configured(place, RARELY).await;
    assert!(service.running.engine().snapshot_revision().is_some(), "the snapshot was read");
    assert_eq!(let_in(&service.client).await, [0, 1, 3, 4, 5]);

    // What came from the snapshot is revoked, and enrolled again, like everything else.
    service.client.revoke(revoke_subject(&name(4))).await.unwrap();
    assert_eq!(let_in(&service.client).await, [0, 1, 3, 5]);
    let begun = Instant::now();
    while !service.running.engine().is_scrubbed() && begun.elapsed() < PATIENCE {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(service.running.engine().is_scrubbed(), "every record is opened in the end");
    assert_eq!(service.running.engine().status().quarantined, []);

    // The snapshot is older still by now.
    let service = Service::start_configured(service.stop().await, RARELY).await;
    assert_eq!(let_in(&service.client).await, [0, 1, 3, 5]);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_wrong_with_a_snapshot_the_service_starts_with_everybody() {
    let mut place = after_a_snapshot().await;
    let good = fs::read(file(&place)).unwrap();
    let mut torn = good.clone();
    let middle = torn.len() / 2;
    torn[middle] ^= 1;
    for (what, bytes) in [
        ("one bit", torn),
        ("cut", good[..good.len() - 100].to_vec()),
        ("words", b"not a snapshot".to_vec()),
        ("nothing", Vec::new()),
        ("good", good),
    ] {
        fs::write(file(&place), bytes).unwrap();
        let service = Service::start_configured(place, RARELY).await;
        assert_eq!(let_in(&service.client).await, [0, 1, 3, 4, 5], "{what}");
        place = service.stop().await;
    }
}

/// kill -9 while a snapshot is being written, with a revocation acknowledged in the middle of it.
#[tokio::test(flavor = "multi_thread")]
async fn kills_in_the_middle_of_a_snapshot_lose_nobody_and_bring_nobody_back() {
    const KILLS: u64 = 20;
    const CROWD: u64 = 120;
    let place = Place::new();
    let config = place.path().join("slow.toml");
    // Slowly enough to be in the middle of it for more than a second.
    std::fs::write(&config, "[snapshot]\nevery_s = 1\nrows_per_second = 100\n").unwrap();
    let start = || Process::spawn_with(&place, &["--config", config.to_str().unwrap()]);
    let mut process = start();
    let client = process.client().await;
    let policy = proto::ApplyPolicyRequest { toml: POLICY.to_owned(), dry_run: false };
    client.apply_policy(policy).await.unwrap();
    for person in 0..CROWD {
        let frames = vec![embedded(person)];
        client.enroll(enrolment(&client, &name(person), "north-gate", frames).await).await.unwrap();
    }
    let unfinished = place.data().join("snapshot.new");
    let mut in_the_middle = 0;
    for kill in 0..KILLS {
        let client = process.client().await;
        let begun = Instant::now();
        while !unfinished.exists() && begun.elapsed() < PATIENCE {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        client.revoke(revoke_subject(&name(kill))).await.unwrap();
        in_the_middle += u64::from(unfinished.exists());
        process.kill();
        process = start();
        let client = process.client().await;
        for person in (0..=kill).chain([kill + 1, CROWD - 1]) {
            let verdict = client.verify(verify_face(GATE, person)).await.unwrap();
            let expected = (person > kill).then(|| name(person));
            assert_eq!(matched(&verdict), expected.as_deref(), "kill {kill}, person {person}");
        }
        let newcomer = CROWD + kill;
        let frames = vec![embedded(newcomer)];
        let request = enrolment(&client, &name(newcomer), "north-gate", frames).await;
        client.enroll(request).await.unwrap();
    }
    println!("{KILLS} kills, {in_the_middle} in the middle of a snapshot: 0 lost, 0 revived");
    assert!(in_the_middle > KILLS / 2, "control: the kills met snapshots");
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_are_written_beside_the_requests() {
    let service = Service::start_configured(Place::new(), OFTEN).await;
    let path = file(&service.place);
    for person in 0..PEOPLE {
        enrol(&service, person).await;
    }
    let begun = Instant::now();
    while !path.exists() && begun.elapsed() < PATIENCE {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let service = Service::start_configured(service.stop().await, OFTEN).await;
    assert!(service.running.engine().snapshot_revision().is_some());
    assert_eq!(let_in(&service.client).await, (0..PEOPLE).collect::<Vec<_>>());
    service.stop().await;
}
