//! Who is served, who is refused and who makes room when more comes than fits: with fake stages.

use std::pin::Pin;
use std::time::{Duration, Instant};

use super::tests::{DEMANDS, Rig, begin, block_on, frame};
use super::{Embedded, Feed, PipelineError, Ticket, Urgency};

type Asked<'a> = Pin<Box<dyn Future<Output = Result<Embedded, PipelineError>> + 'a>>;

fn of(urgency: Urgency, id: u64) -> Ticket {
    Ticket { urgency, feed: Feed { id, ..Feed::default() }, ..Ticket::default() }
}

fn camera(id: u64, taken_ms: Option<i64>) -> Ticket {
    Ticket { feed: Feed { id, newest_wins: true, taken_ms }, ..Ticket::default() }
}

fn ask(rig: &Rig, first: u8, ticket: Ticket) -> Asked<'_> {
    Box::pin(rig.pipeline.embed(frame(first), DEMANDS, ticket))
}

/// A rig whose worker holds a frame of nobody's, so that all that comes waits.
fn held(rig: &Rig) -> Asked<'_> {
    let mut first = ask(rig, 1, of(Urgency::Gate, 0));
    begin(first.as_mut());
    rig.until(|rig| rig.pipeline.counters().waiting_frames == 0);
    first
}

/// Hands in frames that all wait.
fn wait(rig: &Rig, frames: impl IntoIterator<Item = (u8, Ticket)>) -> Vec<Asked<'_>> {
    let mut waiting = Vec::new();
    for (first, ticket) in frames {
        let mut asked = ask(rig, first, ticket);
        begin(asked.as_mut());
        waiting.push(asked);
    }
    waiting
}

fn all_answered(rig: &Rig, waiting: Vec<Asked<'_>>) {
    rig.open(waiting.len());
    for answer in block_on(futures_util::future::join_all(waiting)) {
        answer.unwrap();
    }
}

#[test]
fn a_camera_that_sends_much_waits_behind_itself() {
    let rig = Rig::of_batches(64, vec![1]);
    let mut waiting = vec![held(&rig)];
    let greedy = (20..40).map(|first| (first, of(Urgency::Gate, 1)));
    let modest = [(50, of(Urgency::Gate, 2)), (60, of(Urgency::Gate, 3))];
    waiting.extend(wait(&rig, greedy.chain(modest)));
    all_answered(&rig, waiting);
    assert_eq!(rig.detected_in_order()[..5], [1, 20, 50, 60, 21]);
}

#[test]
fn a_gate_goes_before_enrolments_and_they_before_bulk() {
    let rig = Rig::of_batches(64, vec![1]);
    let mut waiting = vec![held(&rig)];
    let all = [(30, Urgency::Bulk), (40, Urgency::Enrolment), (50, Urgency::Gate)];
    waiting.extend(wait(&rig, all.map(|(first, urgency)| (first, of(urgency, 7)))));
    all_answered(&rig, waiting);
    assert_eq!(rig.detected_in_order(), [1, 50, 40, 30]);
}

#[test]
fn the_newest_frame_of_a_feed_takes_the_turn_of_the_older_one() {
    let rig = Rig::of_batches(64, vec![1]);
    let first = held(&rig);
    let mut old = wait(&rig, [(20, camera(1, None)), (30, of(Urgency::Gate, 2))]);
    let new = wait(&rig, [(21, camera(1, None))]);
    assert_eq!(block_on(old.remove(0)).err(), Some(PipelineError::Superseded));
    assert_eq!(rig.pipeline.counters().in_flight, 3, "the older one's place went on to the newer");
    let waiting = [first].into_iter().chain(old).chain(new).collect();
    all_answered(&rig, waiting);
    assert_eq!(rig.detected_in_order(), [1, 21, 30]);
    assert_eq!(rig.pipeline.counters().dropped_superseded, 1);
    rig.until(|rig| rig.pipeline.counters().in_flight == 0);
}

#[test]
fn a_frame_that_was_taken_earlier_does_not_replace_one_taken_later() {
    let rig = Rig::of_batches(64, vec![1]);
    let mut waiting = vec![held(&rig)];
    waiting.extend(wait(&rig, [(20, camera(1, Some(2000)))]));
    let older = block_on(ask(&rig, 21, camera(1, Some(1000)))).err();
    assert_eq!(older, Some(PipelineError::Superseded));
    // The positive control: a later one does.
    let replaced = waiting.pop().unwrap();
    waiting.extend(wait(&rig, [(22, camera(1, Some(3000)))]));
    assert_eq!(block_on(replaced).err(), Some(PipelineError::Superseded));
    all_answered(&rig, waiting);
    assert_eq!(rig.detected_in_order(), [1, 22]);
}

#[test]
fn frames_of_one_feed_that_does_not_want_the_newest_all_count() {
    let rig = Rig::of_batches(64, vec![1]);
    let mut waiting = vec![held(&rig)];
    waiting.extend(wait(&rig, (20..24).map(|first| (first, of(Urgency::Gate, 1)))));
    all_answered(&rig, waiting);
    assert_eq!(rig.detected_in_order(), [1, 20, 21, 22, 23]);
}

#[test]
fn a_full_queue_makes_room_for_who_has_less_waiting() {
    let rig = Rig::of_batches(4, vec![1]);
    let mut waiting = vec![held(&rig)];
    waiting.extend(wait(&rig, (20..23).map(|first| (first, of(Urgency::Gate, 1)))));
    let refused = block_on(ask(&rig, 23, of(Urgency::Gate, 1))).err();
    assert!(matches!(refused, Some(PipelineError::Overloaded { .. })), "{refused:?}");
    let evicted = waiting.pop().unwrap();
    waiting.extend(wait(&rig, [(50, of(Urgency::Gate, 2))]));
    let evicted = block_on(evicted).err();
    assert!(matches!(evicted, Some(PipelineError::Overloaded { .. })), "{evicted:?}");
    let counters = rig.pipeline.counters();
    assert_eq!((counters.dropped_evicted, counters.refused_overloaded), (1, 1));
    all_answered(&rig, waiting);
    assert_eq!(rig.detected_in_order(), [1, 20, 50, 21]);
}

#[test]
fn enrolments_leave_half_of_the_places_to_gates() {
    let rig = Rig::of_batches(8, vec![1]);
    let mut waiting = vec![held(&rig)];
    waiting.extend(wait(&rig, (20..24).map(|first| (first, of(Urgency::Enrolment, 1)))));
    let refused = block_on(ask(&rig, 24, of(Urgency::Enrolment, 1))).err();
    assert!(matches!(refused, Some(PipelineError::Overloaded { .. })), "{refused:?}");
    waiting.extend(wait(&rig, (50..53).map(|first| (first, of(Urgency::Gate, 2)))));
    all_answered(&rig, waiting);
    assert_eq!(rig.detected_in_order(), [1, 50, 51, 52, 20, 21, 22, 23]);
}

#[test]
fn what_would_be_answered_too_late_is_refused_at_once() {
    let rig = Rig::of_batches(64, vec![1]);
    let mut waiting = vec![held(&rig)];
    // As if a frame took 100 ms; a gate's frame waits for 250 ms at most.
    rig.pipeline.queue.pace.frame_took(Duration::from_millis(100));
    waiting.extend(wait(&rig, (20..23).map(|first| (first, of(Urgency::Gate, 1)))));
    let refused = block_on(ask(&rig, 23, of(Urgency::Gate, 1))).err();
    let Some(PipelineError::Overloaded { retry_after }) = refused else {
        panic!("accepted: {refused:?}");
    };
    assert_eq!(retry_after, Duration::from_millis(50));
    // Another feed's turn comes earlier, so it is accepted.
    waiting.extend(wait(&rig, [(50, of(Urgency::Gate, 2))]));
    // Nobody stands at a gate for an enrolment: it waits as long as its caller does.
    waiting.extend(wait(&rig, [(60, of(Urgency::Enrolment, 3))]));
    let deadline = Some(Instant::now() + Duration::from_millis(120));
    let hurried = Ticket { deadline, ..of(Urgency::Enrolment, 4) };
    let refused = block_on(ask(&rig, 61, hurried)).err();
    assert!(matches!(refused, Some(PipelineError::Overloaded { .. })), "{refused:?}");
    all_answered(&rig, waiting);
}
