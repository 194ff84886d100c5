//! Sends the requests of a plan and notes what became of each.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream;
use hdrhistogram::Histogram;
use tokio::task::JoinSet;

use super::clock::Clock;
use super::plan::{Kind, Load, Mix, Random};
use super::workload::Workload;
use crate::service::client::{Client, ClientError};
use crate::service::proto;
use crate::service::verify_client::VerifyClient;

/// Most requests that wait for answers at once. What would be more is not sent, and said so: it
/// is this program that cannot keep up then.
const OUTSTANDING: usize = 8192;
/// Longest latency that is told apart from longer ones, microseconds.
const LONGEST_US: u64 = 120_000_000;
/// Revocations at once when all is cleaned up.
const CLEANERS: usize = 16;

/// What became of the requests of one kind in one step.
pub(super) struct Outcomes {
    /// Requests that were due.
    pub(super) due: u64,
    /// Due, but not sent because too many waited.
    pub(super) unsent: u64,
    /// Answers by gRPC code.
    pub(super) codes: BTreeMap<&'static str, u64>,
    /// Decisions of gates.
    pub(super) decisions: BTreeMap<&'static str, u64>,
    /// From due to answered, microseconds, of those answered with OK.
    pub(super) answered_us: Histogram<u64>,
    /// The same of those refused.
    pub(super) refused_us: Histogram<u64>,
}

impl Default for Outcomes {
    fn default() -> Self {
        let histogram = || Histogram::new_with_bounds(1, LONGEST_US, 3).expect("valid bounds");
        Self {
            due: 0,
            unsent: 0,
            codes: BTreeMap::new(),
            decisions: BTreeMap::new(),
            answered_us: histogram(),
            refused_us: histogram(),
        }
    }
}

/// What became of one step.
#[derive(Default)]
pub(super) struct Tally {
    pub(super) measured: Duration,
    pub(super) kinds: [Outcomes; Kind::ALL.len()],
    /// Sums of the service's own stage timings, microseconds, and of how many answers.
    pub(super) stages_us: [u64; STAGES.len()],
    pub(super) staged: u64,
    /// The first refusal that is no want of room, for people to read.
    pub(super) complaint: Option<String>,
}

/// The stages that answers of gates time.
pub(super) const STAGES: [&str; 7] =
    ["queue", "decode", "detect", "align", "embed", "search", "total"];

/// One answer.
struct Answer {
    outcome: Result<Option<proto::VerifyResponse>, ClientError>,
}

pub(super) struct Driver {
    /// For verifications.
    gates: Vec<VerifyClient>,
    /// For the rest.
    clients: Vec<Client>,
    workload: Workload,
    mix: Mix,
    deadline: Duration,
    clock: Clock,
    turn: AtomicUsize,
}

impl Driver {
    pub(super) fn new(
        (gates, clients): (Vec<VerifyClient>, Vec<Client>),
        workload: Workload,
        mix: Mix,
        deadline: Duration,
        clock: Clock,
    ) -> Self {
        Self { gates, clients, workload, mix, deadline, clock, turn: AtomicUsize::new(0) }
    }

    /// Runs one step: `warm_up` unmeasured, then `measured`.
    pub(super) async fn run(
        self: &Arc<Self>,
        load: Load,
        warm_up: Duration,
        measured: Duration,
        seed: u64,
    ) -> Tally {
        let tally = Arc::new(Mutex::new(Tally { measured, ..Tally::default() }));
        let start = Instant::now();
        let window = Window { from: start + warm_up, until: start + warm_up + measured };
        match load {
            Load::Open { per_second } => self.open(per_second, window, seed, &tally).await,
            Load::Closed { callers } => self.closed(callers, window, seed, &tally).await,
        }
        std::mem::take(&mut tally.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn open(
        self: &Arc<Self>,
        per_second: f64,
        window: Window,
        seed: u64,
        tally: &Arc<Mutex<Tally>>,
    ) {
        let mut random = Random(seed);
        let mut waiting = JoinSet::new();
        let mut due = Instant::now();
        loop {
            due += random.pause(per_second);
            if due >= window.until {
                break;
            }
            self.clock.wait_until(due).await;
            while waiting.try_join_next().is_some() {}
            let kind = self.mix.kind(&mut random);
            if waiting.len() >= OUTSTANDING {
                note_unsent(tally, kind, window.holds(due));
                continue;
            }
            let (this, tally) = (Arc::clone(self), Arc::clone(tally));
            waiting.spawn(async move { this.one(kind, due, window, &tally).await });
        }
        while waiting.join_next().await.is_some() {}
    }

    async fn closed(
        self: &Arc<Self>,
        callers: usize,
        window: Window,
        seed: u64,
        tally: &Arc<Mutex<Tally>>,
    ) {
        let mut waiting = JoinSet::new();
        for caller in 0..callers {
            let (this, tally) = (Arc::clone(self), Arc::clone(tally));
            let mut random = Random(seed.wrapping_mul(4099).wrapping_add(caller as u64));
            waiting.spawn(async move {
                loop {
                    let due = Instant::now();
                    if due >= window.until {
                        return;
                    }
                    let kind = this.mix.kind(&mut random);
                    this.one(kind, due, window, &tally).await;
                }
            });
        }
        while waiting.join_next().await.is_some() {}
    }

    /// Sends one request and notes its answer, if it was due while it was measured.
    async fn one(&self, kind: Kind, due: Instant, window: Window, tally: &Mutex<Tally>) {
        let (kind, answer) = self.send(kind).await;
        let took = due.elapsed();
        if window.holds(due) {
            tally.lock().unwrap_or_else(PoisonError::into_inner).note(kind, &answer, took);
        }
    }

    /// A revocation with nobody left to revoke enrols somebody instead.
    async fn send(&self, kind: Kind) -> (Kind, Answer) {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let client = &self.clients[turn % self.clients.len()];
        let revocation = (kind == Kind::Revoke).then(|| self.workload.revoke()).flatten();
        if let Some(request) = revocation {
            let outcome = client.revoke(request).await.map(|_gone| None);
            return (Kind::Revoke, Answer { outcome });
        }
        if kind != Kind::Verify
            && let Some(request) = self.workload.enrol()
        {
            let subject = request.subject_ref.clone();
            let outcome = client.enroll(request).await.map(|_enrolled| None);
            if outcome.is_ok() {
                self.workload.enrolled(subject);
            }
            return (Kind::Enrol, Answer { outcome });
        }
        let gate = &self.gates[turn % self.gates.len()];
        let verdict = gate.verify(self.workload.verify(), self.deadline).await;
        (Kind::Verify, Answer { outcome: verdict.map(Some) })
    }

    /// Revokes everybody whom the bench may have enrolled. How many could not be revoked.
    pub(super) async fn clean_up(&self) -> usize {
        let failed = AtomicBool::new(false);
        let revocations = stream::iter(self.workload.revoke_all()).map(|request| {
            let client = &self.clients[0];
            async move { client.revoke(request).await }
        });
        let mut left = 0;
        let mut answers = revocations.buffer_unordered(CLEANERS);
        while let Some(answer) = answers.next().await {
            if let Err(error) = answer {
                left += 1;
                if !failed.swap(true, Ordering::Relaxed) {
                    eprintln!("assent: a person of the bench could not be revoked: {error}");
                }
            }
        }
        left
    }
}

/// The time that is measured.
#[derive(Debug, Clone, Copy)]
struct Window {
    from: Instant,
    until: Instant,
}

impl Window {
    fn holds(&self, at: Instant) -> bool {
        (self.from..self.until).contains(&at)
    }
}

fn note_unsent(tally: &Mutex<Tally>, kind: Kind, measured: bool) {
    if measured {
        let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
        let outcomes = &mut tally.kinds[kind as usize];
        outcomes.due += 1;
        outcomes.unsent += 1;
    }
}

impl Tally {
    fn note(&mut self, kind: Kind, answer: &Answer, took: Duration) {
        let outcomes = &mut self.kinds[kind as usize];
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
        outcomes.due += 1;
        match &answer.outcome {
            Ok(verdict) => {
                outcomes.answered_us.saturating_record(us);
                *outcomes.codes.entry("OK").or_default() += 1;
                if let Some(verdict) = verdict {
                    let name = super::super::output::decision(verdict.decision());
                    *outcomes.decisions.entry(name).or_default() += 1;
                    self.note_stages(verdict);
                }
            }
            Err(refusal) => {
                outcomes.refused_us.saturating_record(us);
                let code = refusal.code.name();
                *outcomes.codes.entry(code).or_default() += 1;
                if !matches!(code, "RESOURCE_EXHAUSTED" | "DEADLINE_EXCEEDED") {
                    self.complaint.get_or_insert_with(|| refusal.to_string());
                }
            }
        }
    }

    fn note_stages(&mut self, verdict: &proto::VerifyResponse) {
        let Some(t) = &verdict.timings else { return };
        let us =
            [t.queue_us, t.decode_us, t.detect_us, t.align_us, t.embed_us, t.search_us, t.total_us];
        for (sum, us) in self.stages_us.iter_mut().zip(us) {
            *sum += u64::from(us);
        }
        self.staged += 1;
    }
}
