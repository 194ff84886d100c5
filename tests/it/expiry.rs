//! C7 at scale: ten thousand consents end at the same instant.

use std::time::{Duration, Instant};

use assent::service::client::Client;
use assent::service::{WireTime, proto};
use assent::types::Timestamp;
use futures_util::stream;

use crate::harness::{
    GATE, POLICY, Place, Service, embedded, enrolment_under, matched, verify_face,
};

const PEOPLE: u64 = 10_000;
/// Enrolled first, to learn how fast this machine is.
const PILOT: u64 = 400;
/// Bulk enrolments at once.
const STREAMS: u64 = 4;
/// The rule: all gone within this time.
const ERASED_WITHIN: Duration = Duration::from_mins(1);

#[tokio::test(flavor = "multi_thread")]
async fn c7_ten_thousand_records_that_expire_together_match_no_more_and_are_erased() {
    let service = Service::start_in(Place::new()).await;
    service.apply(&POLICY.replace("duplicates = \"refuse\"", "duplicates = \"flag\"")).await;
    let notice = service.notice().await;

    let begun = Instant::now();
    let far = Timestamp::now().plus_days(30);
    enrol_all(&service.client, &notice, PEOPLE..PEOPLE + PILOT, far).await;
    let pace = begun.elapsed() / u32::try_from(PILOT).unwrap();
    let needed = pace * u32::try_from(PEOPLE).unwrap() * 2 + Duration::from_secs(10);
    let end = Timestamp::now().plus_ms(i64::try_from(needed.as_millis()).unwrap());
    enrol_all(&service.client, &notice, 0..PEOPLE, end).await;
    assert!(Timestamp::now() < end, "the machine became slower while enrolling; run this again");
    for person in (0..PEOPLE).step_by(501) {
        assert_eq!(who(&service.client, person).await.as_deref(), Some(&*name(person)));
    }

    let left = end.ms_since(Timestamp::now()).max(0);
    tokio::time::sleep(Duration::from_millis(u64::try_from(left).unwrap())).await;
    let expired = Instant::now();
    for person in (0..PEOPLE).step_by(101) {
        assert_eq!(who(&service.client, person).await, None, "{person} matched after the end");
    }
    while held(&service.client).await > PILOT && expired.elapsed() < ERASED_WITHIN {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(held(&service.client).await, PILOT, "all expired records are erased, no other is");
    println!(
        "{PEOPLE} expired records erased {:.1} s after their end",
        expired.elapsed().as_secs_f64()
    );
    let stays = PEOPLE + 7;
    assert_eq!(who(&service.client, stays).await.as_deref(), Some(&*name(stays)));

    let service = Service::start_in(service.stop().await).await;
    assert_eq!(held(&service.client).await, PILOT, "a restart brings nobody back");
    service.stop().await;
}

fn name(person: u64) -> String {
    format!("resident-{person:05}")
}

async fn enrol_all(
    client: &Client,
    notice: &proto::Notice,
    people: std::ops::Range<u64>,
    end: Timestamp,
) {
    let wanted = people.end - people.start;
    let lanes = (0..STREAMS).map(|lane| {
        let requests: Vec<_> = people
            .clone()
            .filter(|person| person % STREAMS == lane)
            .map(|person| {
                let frames = vec![embedded(person)];
                let mut request = enrolment_under(notice, &name(person), "north-gate", frames);
                request.consent.as_mut().unwrap().expires_at = Some(WireTime::from(end));
                request
            })
            .collect();
        async move {
            let mut answers = client.enroll_stream(stream::iter(requests)).await.unwrap();
            let mut enrolled = 0_u64;
            while let Some(answer) = answers.next().await.unwrap() {
                use proto::enroll_stream_response::Result as Answer;
                assert!(matches!(answer.result, Some(Answer::Response(_))), "{answer:?}");
                enrolled += 1;
            }
            enrolled
        }
    });
    let enrolled: u64 = futures_util::future::join_all(lanes).await.into_iter().sum();
    assert_eq!(enrolled, wanted);
}

async fn who(client: &Client, person: u64) -> Option<String> {
    let answer = client.verify(verify_face(GATE, person)).await.unwrap();
    matched(&answer).map(str::to_owned)
}

async fn held(client: &Client) -> u64 {
    let status = client.status(proto::StatusRequest {}).await.unwrap();
    status.classes.iter().map(|class| class.templates).sum()
}
