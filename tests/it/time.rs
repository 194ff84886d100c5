//! Clocks that jump and go back, and records that nobody uses.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use assent::service::client::Client;
use assent::service::proto;

use crate::harness::{
    CONTROLLER, GATE, PATIENCE, POLICY, Place, Process, embedded, enrolment, matched, verify_face,
};

const DAY_MS: i64 = 24 * 60 * 60 * 1_000;
/// Some ticks of the sweeper.
const TICKS: Duration = Duration::from_millis(3_500);

fn set(clock: &Path, days: i64) {
    fs::write(clock, (days * DAY_MS).to_string()).unwrap();
}

async fn apply(client: &Client, toml: &str) {
    let request = proto::ApplyPolicyRequest { toml: toml.to_owned(), dry_run: false };
    client.apply_policy(request).await.unwrap();
}

async fn enrol(client: &Client, seed: u64) {
    let subject = format!("resident-{seed}");
    let request = enrolment(client, &subject, "north-gate", vec![embedded(seed)]).await;
    client.enroll(request).await.unwrap();
}

async fn matches(client: &Client, seed: u64) -> bool {
    let answer = client.verify(verify_face(GATE, seed)).await.unwrap();
    matched(&answer) == Some(format!("resident-{seed}").as_str())
}

async fn held(client: &Client, seed: u64) -> usize {
    let subject_ref = format!("resident-{seed}");
    let request =
        proto::DescribeSubjectRequest { controller_id: CONTROLLER.to_owned(), subject_ref };
    client.describe_subject(request).await.unwrap().records.len()
}

async fn skew_ms(client: &Client) -> i64 {
    client.status(proto::StatusRequest {}).await.unwrap().clock_skew_ms
}

/// Waits until `what` is so.
async fn until<F: Future<Output = bool>>(what: &str, mut is_so: impl FnMut() -> F) {
    let begun = Instant::now();
    while !is_so().await {
        assert!(begun.elapsed() < PATIENCE, "{what} never came");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn c7_a_clock_that_jumps_ahead_stops_matching_and_destroys_nothing_until_it_is_confirmed() {
    let place = Place::new();
    let clock = place.path().join("clock");
    set(&clock, 0);
    let mut process = Process::spawn_at(&place, &clock);
    let client = process.client().await;
    apply(&client, POLICY).await;
    enrol(&client, 1).await;
    assert!(matches(&client, 1).await, "control");
    assert_eq!(skew_ms(&client).await, 0);

    // The consent is for 180 days.
    set(&clock, 200);
    assert!(!matches(&client, 1).await, "at once");
    until("the skew", || async { skew_ms(&client).await > 190 * DAY_MS }).await;
    tokio::time::sleep(TICKS).await;
    assert_eq!(held(&client, 1).await, 1, "nothing is destroyed");

    // Corrected: everything is as it was.
    set(&clock, 0);
    until("trust", || async { skew_ms(&client).await == 0 }).await;
    assert!(matches(&client, 1).await);

    // Not even a restart destroys anything by a clock that nobody confirmed.
    process.stop();
    set(&clock, 200);
    let mut process = Process::spawn_at(&place, &clock);
    let client = process.client().await;
    assert!(!matches(&client, 1).await);
    tokio::time::sleep(TICKS).await;
    assert_eq!(held(&client, 1).await, 1);

    let confirmed = client.confirm_clock(proto::ConfirmClockRequest {}).await.unwrap();
    assert!(confirmed.skew_ms > 190 * DAY_MS);
    until("erasure", || async { held(&client, 1).await == 0 }).await;

    // Going back revives nobody.
    set(&clock, 0);
    assert!(!matches(&client, 1).await);
    until("the skew", || async { skew_ms(&client).await < -190 * DAY_MS }).await;
    process.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn c7_a_clock_that_goes_back_does_not_revive_what_has_expired() {
    let place = Place::new();
    let clock = place.path().join("clock");
    set(&clock, 0);
    let mut process = Process::spawn_at(&place, &clock);
    let client = process.client().await;
    apply(&client, POLICY).await;
    // Expires in five seconds.
    let mut request = enrolment(&client, "resident-1", "north-gate", vec![embedded(1)]).await;
    let consent = request.consent.as_mut().unwrap();
    consent.expires_at = Some(assent::types::Timestamp::now().plus_ms(5_000).into());
    client.enroll(request).await.unwrap();
    assert!(matches(&client, 1).await, "control");
    // Long before its end, so that nothing is swept by the wrong clock; ten days after it by the
    // right one.
    set(&clock, -10);
    until("the skew", || async { skew_ms(&client).await < -9 * DAY_MS }).await;
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert!(!matches(&client, 1).await, "it has expired, whatever the clock says");
    process.stop();
    let mut process = Process::spawn_at(&place, &clock);
    let client = process.client().await;
    assert!(!matches(&client, 1).await, "nor after a restart");
    process.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn c7_what_nobody_uses_is_erased_when_the_controller_says_so() {
    let place = Place::new();
    let clock = place.path().join("clock");
    let limited = POLICY.replacen("duplicates =", "inactive_months = 4\nduplicates =", 1);
    // Enrolled, then used by one of them after two months, then two months more.
    for (days, step) in [(0, 0), (62, 1), (125, 2)] {
        set(&clock, days);
        let mut process = Process::spawn_at(&place, &clock);
        let client = process.client().await;
        client.confirm_clock(proto::ConfirmClockRequest {}).await.unwrap();
        match step {
            0 => {
                apply(&client, &limited).await;
                enrol(&client, 1).await;
                enrol(&client, 2).await;
            }
            1 => {
                assert!(matches(&client, 1).await);
                // The person may know what is kept of her.
                let subject_ref = "resident-1".to_owned();
                let controller_id = CONTROLLER.to_owned();
                let request = proto::DescribeSubjectRequest { controller_id, subject_ref };
                let described = client.describe_subject(request).await.unwrap();
                assert_eq!(described.records[0].last_used_month.len(), 7, "{described:?}");
                tokio::time::sleep(TICKS).await;
                assert_eq!((held(&client, 1).await, held(&client, 2).await), (1, 1));
            }
            _ => {
                until("erasure", || async { held(&client, 2).await == 0 }).await;
                assert!(matches(&client, 1).await, "used within the limit");
            }
        }
        process.stop();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn c7_an_inactivity_limit_that_is_none_is_refused_with_its_line() {
    let service = crate::harness::Service::start().await;
    for months in ["0", "1", "121"] {
        let toml = POLICY.replacen("duplicates =", &format!("inactive_months = {months}\nd="), 1);
        let toml = toml.replace("\nd= \"refuse\"", "\nduplicates = \"refuse\"");
        let request = proto::ApplyPolicyRequest { toml, dry_run: true };
        let refusal = service.client.apply_policy(request).await.unwrap_err();
        assert!(refusal.message.contains("inactive_months: is between 2 and 120"), "{refusal}");
    }
    service.stop().await;
}

/// A limit that is new counts from the day it is there: nobody's use was noted before.
#[tokio::test(flavor = "multi_thread")]
async fn c7_a_new_limit_erases_nobody_who_is_in_use() {
    let place = Place::new();
    let clock = place.path().join("clock");
    let limited = POLICY.replacen("duplicates =", "inactive_months = 2\nduplicates =", 1);
    for (days, policy) in [(0, POLICY), (95, limited.as_str()), (96, limited.as_str())] {
        set(&clock, days);
        let mut process = Process::spawn_at(&place, &clock);
        let client = process.client().await;
        client.confirm_clock(proto::ConfirmClockRequest {}).await.unwrap();
        apply(&client, policy).await;
        if days == 0 {
            enrol(&client, 1).await;
        }
        tokio::time::sleep(TICKS).await;
        assert_eq!(held(&client, 1).await, 1, "after {days} days");
        process.stop();
    }
}
