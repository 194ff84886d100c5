//! The streams: answers in order, a bad request answered in its place, clients that disappear,
//! and batches that callers share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use assent::service::client::Client;
use assent::service::proto;
use assent::service::proto::enroll_stream_response::Result as EnrolAnswer;
use assent::service::proto::verify_stream_response::Result as Answer;
use futures_util::future::join_all;
use futures_util::{StreamExt, stream};

use crate::harness::{
    CONTROLLER, GATE, OTHER_GATE, PATIENCE, POLICY, Place, Service, connect, embedded, encoded,
    enrolment, enrolment_under, face, matched, photo, shared_gates, verify, verify_face,
    verify_photo,
};

/// google.rpc.Code.
const INVALID_ARGUMENT: i32 = 3;
const FAILED_PRECONDITION: i32 = 9;

type Stream = assent::service::client::Answers<proto::VerifyStreamResponse>;

async fn all(mut answers: Stream) -> Vec<proto::VerifyStreamResponse> {
    let mut received = Vec::new();
    while let Some(answer) = answers.next().await.unwrap() {
        received.push(answer);
    }
    received
}

async fn with_people(people: &[u64]) -> Service {
    let service = Service::start().await;
    for person in people {
        let subject = format!("person-{person}");
        let request = service.enrolment(&subject, vec![embedded(*person)]).await;
        service.client.enroll(request).await.unwrap();
    }
    service
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verification_stream_answers_in_order_and_outlives_bad_requests() {
    let service = with_people(&[1, 2, 3]).await;
    let unknown_gate = verify_face("no-such-gate", 1);
    let no_picture = verify_photo(GATE, b"this is no picture".to_vec());
    let no_probe = proto::VerifyRequest { probe: None, ..verify_face(GATE, 1) };
    // A photo takes longer than an embedding: were answers sent as they come, it would be last.
    let slow = verify_photo(GATE, photo("yaoming.jpg"));
    let asked = vec![
        slow,
        verify_face(GATE, 1),
        unknown_gate,
        verify_face(GATE, 2),
        no_picture,
        no_probe,
        verify_face(GATE, 3),
    ];
    let answers = all(service.client.verify_stream(stream::iter(asked)).await.unwrap()).await;

    let sequence: Vec<u64> = answers.iter().map(|answer| answer.sequence).collect();
    assert_eq!(sequence, [0, 1, 2, 3, 4, 5, 6]);
    let told: Vec<_> = answers
        .iter()
        .map(|answer| match answer.result.as_ref().unwrap() {
            Answer::Response(response) => {
                assert!(!response.alternatives.is_empty());
                Ok(matched(response))
            }
            Answer::Error(error) => {
                assert!(!error.alternatives.is_empty() && !error.message.is_empty());
                Err(error.code)
            }
        })
        .collect();
    assert_eq!(
        told,
        [
            Ok(None),
            Ok(Some("person-1")),
            Err(FAILED_PRECONDITION),
            Ok(Some("person-2")),
            Err(INVALID_ARGUMENT),
            Err(INVALID_ARGUMENT),
            Ok(Some("person-3")),
        ]
    );
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bulk_enrolment_enrols_the_good_and_refuses_the_rest_one_by_one() {
    let service = Service::start().await;
    let client = &service.client;
    let one = service.enrolment("person-1", vec![embedded(1)]).await;
    let mut bundled = service.enrolment("person-2", vec![embedded(2)]).await;
    bundled.consent.as_mut().unwrap().bundled = Some(true);
    let faceless = service.enrolment("person-3", vec![encoded(b"no picture".to_vec())]).await;
    let nowhere = enrolment(client, "person-4", "no-such-scope", vec![embedded(4)]).await;
    let five = service.enrolment("person-5", vec![embedded(5)]).await;
    let asked = vec![one, bundled, faceless, nowhere, five];
    let keys: Vec<String> = asked.iter().map(|request| request.idempotency_key.clone()).collect();

    let mut answers = client.enroll_stream(stream::iter(asked)).await.unwrap();
    let mut told = vec![None; keys.len()];
    while let Some(answer) = answers.next().await.unwrap() {
        let place = usize::try_from(answer.sequence).unwrap();
        assert_eq!(answer.idempotency_key, keys[place]);
        let outcome = match answer.result.unwrap() {
            EnrolAnswer::Response(_) => Ok(()),
            EnrolAnswer::Error(error) => {
                assert!(!error.message.is_empty());
                Err(error.field)
            }
        };
        assert!(told[place].replace(outcome).is_none(), "one answer a request");
    }
    let told: Vec<_> = told.into_iter().map(Option::unwrap).collect();
    let refused = |field: &str| Err(field.to_owned());
    assert_eq!(
        told,
        [
            Ok(()),
            refused("consent.bundled"),
            refused("frames[0]"),
            refused("consent.scope"),
            Ok(())
        ]
    );
    for (person, enrolled) in [(1, true), (2, false), (3, false), (4, false), (5, true)] {
        let verdict = client.verify(verify_face(GATE, person)).await.unwrap();
        assert_eq!(matched(&verdict).is_some(), enrolled, "person-{person}");
        assert_eq!(held(client, &format!("person-{person}")).await, usize::from(enrolled));
    }
    service.stop().await;
}

async fn held(client: &Client, subject: &str) -> usize {
    let request = proto::DescribeSubjectRequest {
        controller_id: CONTROLLER.to_owned(),
        subject_ref: subject.to_owned(),
    };
    client.describe_subject(request).await.unwrap().records.len()
}

/// Few places, so that a place that is not given back is soon missed.
const PLACES: usize = 8;

/// A service with [`PLACES`] places for requests.
async fn narrow() -> Service {
    let limits = format!("[limits]\nrequests_in_flight = {PLACES}\n");
    let service = Service::start_configured(Place::new(), &limits).await;
    service.apply(POLICY).await;
    service
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_disappear_in_mid_stream_hurt_nobody() {
    let service = narrow().await;
    let request = service.enrolment("person-1", vec![embedded(1)]).await;
    service.client.enroll(request).await.unwrap();
    let picture = photo("yaoming.jpg");
    for round in 0..10 {
        let leaver = connect(service.running.address()).await;
        let asked = std::iter::repeat_n(verify_photo(GATE, picture.clone()), 200);
        let mut answers = leaver.verify_stream(stream::iter(asked)).await.unwrap();
        let first = answers.next().await.unwrap().unwrap();
        assert_eq!(first.sequence, 0);
        drop((answers, leaver));

        let leaver = connect(service.running.address()).await;
        let mut asked = Vec::new();
        for person in 0..40 {
            let subject = format!("leaver-{round}-{person}");
            let face = embedded(1_000 + round * 40 + person);
            asked.push(enrolment(&leaver, &subject, "north-gate", vec![face]).await);
        }
        let mut answers = leaver.enroll_stream(stream::iter(asked)).await.unwrap();
        answers.next().await.unwrap().unwrap();
        drop((answers, leaver));
    }
    every_place_is_free(&service).await;
    let verdict = decided(&service.client, verify_face(GATE, 1)).await;
    assert_eq!(matched(&verdict), Some("person-1"));
    assert!(service.client.is_serving("").await.unwrap());
    // What the leavers' enrolments came to is whole: found at the gate if and only if held.
    let mut enrolled = 0;
    for (round, person) in (0..10_u64).flat_map(|r| (0..40_u64).map(move |p| (r, p))) {
        let subject = format!("leaver-{round}-{person}");
        let mut before = held(&service.client, &subject).await;
        loop {
            let probe = verify_face(GATE, 1_000 + round * 40 + person);
            let found = matched(&decided(&service.client, probe).await).is_some();
            let after = held(&service.client, &subject).await;
            // What was begun when its leaver left may end in between.
            if before == after {
                assert_eq!(usize::from(found), after, "{subject}");
                break;
            }
            before = after;
        }
        enrolled += before;
    }
    assert!(enrolled >= 10, "each leaver had at least one answer: {enrolled}");
    service.stop().await;
}

/// As many callers as there are places of each kind are all answered, sooner or later: the last
/// requests of those who left may still be on their way out.
async fn every_place_is_free(service: &Service) {
    let (client, notice) = (&service.client, service.notice().await);
    let enrol = |person: u64| {
        let (subject, frames) = (format!("comer-{person}"), vec![embedded(10_000 + person)]);
        enrolment_under(&notice, &subject, "north-gate", frames)
    };
    let begun = Instant::now();
    for round in 0_u64.. {
        let picture = photo("yaoming.jpg");
        let gates = (0..PLACES).map(|_| client.verify(verify_photo(GATE, picture.clone())));
        let singles = (0..PLACES as u64 / 2).map(|place| client.enroll(enrol(8 * round + place)));
        let (gates, singles) = tokio::join!(join_all(gates), join_all(singles));
        if gates.iter().all(Result::is_ok) && singles.iter().all(Result::is_ok) {
            let bulk =
                stream::iter((4..8).map(|place| enrol(8 * round + place)).collect::<Vec<_>>());
            let mut answers = client.enroll_stream(bulk).await.unwrap();
            let all = async {
                while let Some(answer) = answers.next().await.unwrap() {
                    assert!(matches!(answer.result, Some(EnrolAnswer::Response(_))), "{answer:?}");
                }
            };
            tokio::time::timeout(PATIENCE, all).await.expect("bulk enrolments have places");
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "places are not given back");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_stop_reading_keep_no_place() {
    let service = narrow().await;
    let notice = service.notice().await;
    let (gate, tool) =
        (connect(service.running.address()).await, connect(service.running.address()).await);
    // More of each than their windows of 2 MiB take answers for.
    let asked = (0..20_000).map(|_| verify_face(GATE, 1));
    let verdicts = gate.verify_stream(stream::iter(asked)).await.unwrap();
    let bulk = (0..5_000).map(move |person| {
        let frames = vec![embedded(100_000 + person)];
        enrolment_under(&notice, &format!("bulk-{person}"), "north-gate", frames)
    });
    let receipts = tool.enroll_stream(stream::iter(bulk)).await.unwrap();
    // Until nothing moves: as many answers as fit have left, and nobody reads them.
    let mut before = 0;
    let stalled = async {
        loop {
            tokio::time::sleep(Duration::from_millis(500)).await;
            let now = service.client.status(proto::StatusRequest {}).await.unwrap().subjects;
            if now > 0 && now == before {
                return now;
            }
            before = now;
        }
    };
    let enrolled = tokio::time::timeout(PATIENCE, stalled).await.unwrap();
    assert!(enrolled < 5_000, "the reader of receipts holds its sender back");
    every_place_is_free(&service).await;
    drop((verdicts, receipts));
    service.stop().await;
}

/// What is decided about a probe once there is a place for it.
async fn decided(client: &Client, request: proto::VerifyRequest) -> proto::VerifyResponse {
    let begun = Instant::now();
    loop {
        match client.verify(request.clone()).await {
            Ok(verdict) => return verdict,
            Err(refusal) => assert_eq!(refusal.code.name(), "RESOURCE_EXHAUSTED", "{refusal}"),
        }
        assert!(begun.elapsed() < PATIENCE, "never decided");
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn enrolments_take_no_place_of_a_gate_nor_bulk_one_of_a_single_enrolment() {
    let service = narrow().await;
    let (client, notice) = (&service.client, service.notice().await);
    let enrol = |subject: &str, frames| enrolment_under(&notice, subject, "north-gate", frames);
    // Photos, which wait for a worker, and more of them than there are places of any kind.
    let picture = encoded(photo("yaoming.jpg"));
    let bulk: Vec<_> =
        (0..48).map(|i| enrol(&format!("bulk-{i}"), vec![picture.clone(); 4])).collect();
    let asked = bulk.len();
    let ended = AtomicBool::new(false);
    let enrolling = async {
        let mut answers = client.enroll_stream(stream::iter(bulk)).await.unwrap();
        let (mut enrolled, mut duplicates) = (0, 0);
        while let Some(answer) = answers.next().await.unwrap() {
            match answer.result.unwrap() {
                EnrolAnswer::Response(_) => enrolled += 1,
                EnrolAnswer::Error(error) => {
                    let told = (error.code, error.field.as_str());
                    assert_eq!(told, (FAILED_PRECONDITION, "frames"), "{error:?}");
                    duplicates += 1;
                }
            }
        }
        ended.store(true, Ordering::Relaxed);
        (enrolled, duplicates)
    };
    let gates = async {
        let mut rounds = 0;
        while !ended.load(Ordering::Relaxed) {
            let calls = (0..PLACES).map(|_| client.verify(verify_face(GATE, 1)));
            let subject = format!("single-{rounds}");
            let single = client.enroll(enrol(&subject, vec![embedded(1_000 + rounds)]));
            let (answers, single) = tokio::join!(join_all(calls), single);
            for answer in answers {
                assert_eq!(matched(&answer.expect("a place of its own")), None);
            }
            single.expect("a place of its own");
            rounds += 1;
        }
    };
    let (told, ()) = tokio::join!(enrolling, gates);
    assert_eq!(told, (1, asked - 1), "the bulk went on beside, and knew its face again");
    service.stop().await;
}

/// A crop with detail and a middling brightness, as an aligned face.
fn crop(seed: u64) -> proto::verify_request::Probe {
    let grain = face(seed).values;
    let sample = |i: usize| {
        let level = 128.0 + 40.0 * grain[i % grain.len()];
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "48 to 208")]
        let byte = level as u8;
        byte
    };
    let rgb = (0..112 * 112 * 3).map(sample).collect();
    proto::verify_request::Probe::Aligned(proto::AlignedFace { rgb })
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_callers_share_batches() {
    // Batches pay on some machines only: here the plan says that they do.
    let place = Service::start().await.stop().await;
    let kept = place.data().join("tuning.json");
    let mut tuning: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&kept).unwrap()).unwrap();
    tuning["plan"]["batch_sizes"] = serde_json::json!([1, 2, 4, 8]);
    std::fs::write(&kept, tuning.to_string()).unwrap();
    let service = Service::start_in(place).await;
    // Sixteen terminals behind one gate id: none of their frames is a newer one of another's.
    service.apply(&shared_gates()).await;
    let client = &service.client;
    let size = |answer: proto::VerifyResponse| answer.timings.unwrap().batch_size;
    // The control: a caller who is alone has batches of its own.
    for seed in 0..4 {
        assert_eq!(size(client.verify(verify(OTHER_GATE, crop(seed))).await.unwrap()), 1);
    }
    let shared = Arc::new(AtomicBool::new(false));
    let asked = (0..400_u64).map(|seed| {
        let (client, shared) = (client.clone(), Arc::clone(&shared));
        async move {
            // Once is enough: the rest need not be asked.
            if !shared.load(Ordering::Relaxed) {
                let answer = client.verify(verify(OTHER_GATE, crop(seed))).await.unwrap();
                shared.fetch_or(size(answer) > 1, Ordering::Relaxed);
            }
        }
    });
    stream::iter(asked).buffer_unordered(16).collect::<()>().await;
    assert!(shared.load(Ordering::Relaxed), "no batch was shared by sixteen callers");
    service.stop().await;
}

/// How many of sixteen photos that one gate sends at once are answered STALE_FRAME; all others are
/// decided about.
async fn stale_of_sixteen(service: &Service) -> usize {
    let calls = (0..16).map(|_| service.client.verify(verify_photo(GATE, photo("players.jpg"))));
    let answers = join_all(calls).await.into_iter().map(Result::unwrap);
    let stale = |answer: &proto::VerifyResponse| {
        assert!(!answer.alternatives.is_empty());
        answer.decision() == proto::Decision::StaleFrame
    };
    answers.filter(stale).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_frame_of_a_gate_wins() {
    let service = Service::start().await;
    // Most of sixteen wait for a worker, on a machine of a few cores at least; on a larger one
    // they do so sooner or later.
    let begun = Instant::now();
    loop {
        let stale = stale_of_sixteen(&service).await;
        assert!(stale < 16, "the newest one is decided about");
        if stale > 0 {
            break;
        }
        assert!(begun.elapsed() < Duration::from_mins(1), "no frame was ever given up");
    }
    // People who claim to be somebody are not each other's newer frames.
    let claims = (0..16).map(|person| {
        let mut request = verify_photo(OTHER_GATE, photo("yaoming.jpg"));
        request.claimed_subject = format!("resident-{person}");
        service.client.verify(request)
    });
    for answer in join_all(claims).await {
        assert_eq!(answer.unwrap().decision(), proto::Decision::NoMatch);
    }
    // The control: where gates are shared no frame is given up.
    service.apply(&shared_gates()).await;
    for _ in 0..3 {
        assert_eq!(stale_of_sixteen(&service).await, 0);
    }
    service.stop().await;
}
