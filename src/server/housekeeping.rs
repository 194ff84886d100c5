//! What runs beside the requests: expiry, the reserve for a full disk, gauges, health.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::consent::FilingState;
use crate::engine::{Engine, WatchedWay};
use crate::index::Care;
use crate::memory;
use crate::service::{Phase, Serving, Shared};
use crate::telemetry::{self, Dropped, Gauge, MOST_CONTROLLERS};
use crate::types::{ControllerId, GateId};

/// How often. Expired templates do not match from the instant of their expiry; this is how long
/// they may still be held.
const PERIOD: Duration = Duration::from_secs(1);

/// How often what nobody uses is looked for.
const IDLE_PERIOD: Duration = Duration::from_hours(1);

/// How often the months of last use are written.
const USES_PERIOD: Duration = Duration::from_secs(10);

/// How often an idle graph is looked after.
const CARE_PERIOD: Duration = Duration::from_secs(30);

/// How often failed attempts are stored, seconds; those that lock somebody out are at once.
const LOCKOUTS_SAVED_S: u32 = 5;

/// How often the C heap gives back what it holds free, seconds: after load that is some 10 MB.
const HEAP_TRIMMED_S: u32 = 60;

/// How often what was heard of alternatives is stored, seconds.
const HEARTBEATS_SAVED_S: u32 = 60;

/// The alternatives whose gauges were set, so that a gauge that nobody sets any more says so.
#[derive(Default)]
struct Watched {
    ways: BTreeSet<(GateId, String)>,
    gates: BTreeSet<GateId>,
}

impl Watched {
    fn publish(&mut self, ways: &[WatchedWay]) {
        let before = std::mem::take(self);
        let mut up: BTreeMap<&GateId, u32> = BTreeMap::new();
        for way in ways {
            telemetry::alternative(way.gate.as_str(), &way.name, Some(!way.state.is_down()));
            *up.entry(&way.gate).or_default() += u32::from(!way.state.is_down());
            self.ways.insert((way.gate.clone(), way.name.clone()));
        }
        for (gate, up) in up {
            telemetry::alternatives_up(gate.as_str(), Some(up));
            self.gates.insert(gate.clone());
        }
        for (gate, name) in before.ways.difference(&self.ways) {
            telemetry::alternative(gate.as_str(), name, None);
        }
        for gate in before.gates.difference(&self.gates) {
            telemetry::alternatives_up(gate.as_str(), None);
        }
    }
}

/// Stores what has to survive a restart and is not stored request by request.
async fn save(engine: &Engine, seconds: u32) {
    if seconds.is_multiple_of(LOCKOUTS_SAVED_S)
        && let Err(fault) = engine.save_lockouts().await
    {
        tracing::warn!(%fault, "failed attempts could not be stored; trying again");
    }
    if seconds.is_multiple_of(HEARTBEATS_SAVED_S)
        && let Err(fault) = engine.save_heartbeats().await
    {
        tracing::warn!(%fault, "heartbeats could not be stored; trying again");
    }
}

/// Runs until `stop`.
pub(super) async fn run(
    engine: Arc<Engine>,
    shared: Arc<Shared>,
    serving: Arc<Serving>,
    stop: CancellationToken,
) {
    let mut idle = Idle::default();
    let mut watched = Watched::default();
    let mut seconds: u32 = 0;
    let mut tick = tokio::time::interval(PERIOD);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut labelled = BTreeSet::new();
    let mut outgrown = BTreeMap::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        // A clock in doubt erases nothing for expiry; what has expired by it does not match.
        match engine.watch_clock().await {
            Ok(clock) if clock.is_trusted() => {
                sweep(&engine).await;
                idle.sweep(&engine).await;
            }
            Ok(_) => {}
            Err(fault) => tracing::error!(%fault, "how far time has come could not be written"),
        }
        engine.regain_space().await;
        seconds = seconds.wrapping_add(1);
        save(&engine, seconds).await;
        if seconds.is_multiple_of(HEAP_TRIMMED_S) {
            tokio::task::spawn_blocking(memory::trim_heap);
        }
        publish(&engine, &shared, &mut watched);
        publish_filings(&engine, &mut labelled).await;
        watch_operating_points(&engine, &mut outgrown);
        if !engine.is_healthy() && shared.phase() == Phase::Serving {
            tracing::error!("a fault leaves the service in doubt: it stops answering");
            shared.enter(Phase::Failed);
            serving.report(false).await;
        }
    }
}

/// When what nobody uses was last looked for, and its months last written.
#[derive(Default)]
struct Idle {
    swept: Option<Instant>,
    kept: Option<Instant>,
}

impl Idle {
    async fn sweep(&mut self, engine: &Arc<Engine>) {
        if is_due(&mut self.swept, IDLE_PERIOD) {
            match engine.sweep_inactive().await {
                Ok(0) => {}
                Ok(records) => tracing::info!(records, "records that nobody used erased"),
                Err(fault) => {
                    tracing::error!(%fault, "records that nobody uses could not be erased");
                }
            }
        }
        if is_due(&mut self.kept, USES_PERIOD)
            && let Err(fault) = engine.keep_last_use().await
        {
            tracing::warn!(%fault, "months of last use could not be written; trying again");
        }
    }
}

fn is_due(last: &mut Option<Instant>, period: Duration) -> bool {
    let due = last.is_none_or(|last| last.elapsed() >= period);
    if due {
        *last = Some(Instant::now());
    }
    due
}

/// Completes and measures the index's graph, until `stop`. One step is a few seconds at most.
pub(super) async fn care(engine: Arc<Engine>, stop: CancellationToken) {
    let mut pause = Duration::ZERO;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        pause = Duration::ZERO;
        match engine.care_for_index().await {
            Ok(Care::Idle) => pause = CARE_PERIOD,
            Ok(Care::Linked { linked, of }) => tracing::info!(linked, of, "graph grows"),
            Ok(Care::Measured) => {
                let ef = engine.status().index.graph.and_then(|graph| graph.ef);
                tracing::info!(
                    ef,
                    "graph measured; none means that it finds too few and scans serve"
                );
            }
            Err(fault) => {
                tracing::error!(%fault, "the index's graph could not be cared for");
                pause = CARE_PERIOD;
            }
        }
    }
}

/// Erases all that has expired, batch by batch.
async fn sweep(engine: &Arc<Engine>) {
    loop {
        match engine.sweep(engine.trusted_now()).await {
            Ok(0) => return,
            Ok(records) => tracing::info!(records, "expired records erased"),
            Err(fault) => {
                tracing::error!(%fault, "expired records could not be erased; trying again");
                return;
            }
        }
    }
}

/// Tells which gates' galleries are larger than their operating points; the log, when that begins.
/// A gate that searches no more is not outgrown any more.
fn watch_operating_points(engine: &Engine, outgrown: &mut BTreeMap<GateId, bool>) {
    let before = std::mem::take(outgrown);
    for reach in engine.gate_reaches() {
        let is_outgrown = reach.is_outgrown();
        telemetry::operating_point(&reach.gate, is_outgrown);
        let was_outgrown = before.get(&reach.gate).copied().unwrap_or(false);
        if let Some([warning, _zh]) = reach.warning().filter(|_| !was_outgrown) {
            tracing::warn!("{warning}");
        }
        outgrown.insert(reach.gate, is_outgrown);
    }
    for gate in before.keys().filter(|gate| !outgrown.contains_key(*gate)) {
        telemetry::operating_point(gate, false);
    }
}

/// Where the controllers stand with the authority, as far as there is room for metrics of theirs:
/// a series that was begun stays.
#[expect(clippy::cast_precision_loss, reason = "gauges are f64 by definition")]
async fn publish_filings(engine: &Engine, labelled: &mut BTreeSet<ControllerId>) {
    for filing in engine.filings().await {
        if !labelled.contains(&filing.controller) {
            if labelled.len() >= MOST_CONTROLLERS {
                continue;
            }
            labelled.insert(filing.controller.clone());
        }
        let controller = filing.controller.as_str();
        telemetry::controller_subjects(controller, filing.persons);
        if let Some((_rules, state)) = filing.standing {
            let deadline = state.alarm_at().map_or(0.0, |at| at.unix_ms() as f64 / 1_000.0);
            telemetry::filing(controller, &FilingState::NAMES, state.as_str(), deadline);
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "gauges are f64 by definition")]
fn publish(engine: &Engine, shared: &Shared, watched: &mut Watched) {
    let status = engine.status();
    watched.publish(&status.alternatives);
    let counters = &status.counters;
    let serving = shared.phase() == Phase::Serving && engine.is_healthy();
    for (gauge, value) in [
        (Gauge::QueueDepth, (counters.waiting_frames + counters.waiting_crops) as f64),
        (Gauge::InFlight, shared.in_flight() as f64),
        (Gauge::Templates, status.index.live as f64),
        (Gauge::Subjects, status.index.subjects as f64),
        (Gauge::ArenaBytes, status.index.arena_bytes as f64),
        (Gauge::ArenaLockedBytes, status.index.locked_bytes as f64),
        (Gauge::CatalogueBytes, status.index.catalogue_bytes as f64),
        (Gauge::GraphBytes, status.index.graph.map_or(0, |graph| graph.bytes) as f64),
        (Gauge::GraphTemplates, status.index.graph.map_or(0, |graph| graph.linked) as f64),
        (Gauge::Revision, status.revision.0 as f64),
        (Gauge::Quarantined, status.quarantined.len() as f64),
        (Gauge::ClockSkew, status.clock_skew_ms as f64 / 1_000.0),
        (Gauge::Unassessed, status.unassessed.len() as f64),
        (Gauge::LockedSubjects, status.locked_subjects as f64),
        (Gauge::LowOnSpace, f64::from(u8::from(status.low_on_space))),
        (Gauge::Serving, f64::from(u8::from(serving))),
    ] {
        telemetry::gauge(gauge, value);
    }
    for (way, recall) in status.index.recall {
        telemetry::recall(way.name(), recall.found, recall.missed, recall.share());
    }
    for (reason, requests) in [
        (Dropped::Late, counters.dropped_late),
        (Dropped::Abandoned, counters.dropped_cancelled),
        (Dropped::Superseded, counters.dropped_superseded),
        (Dropped::Evicted, counters.dropped_evicted),
    ] {
        telemetry::dropped(reason, requests);
    }
}
