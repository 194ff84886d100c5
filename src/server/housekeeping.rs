//! What runs beside the requests: expiry, the reserve for a full disk, gauges, health.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::engine::Engine;
use crate::index::Care;
use crate::service::{Phase, Serving, Shared};
use crate::telemetry::{self, Dropped, Gauge};
use crate::types::{GateId, Timestamp};

/// How often. Expired templates do not match from the instant of their expiry; this is how long
/// they may still be held.
const PERIOD: Duration = Duration::from_secs(1);

/// How often an idle graph is looked after.
const CARE_PERIOD: Duration = Duration::from_secs(30);

/// Runs until `stop`.
pub(super) async fn run(
    engine: Arc<Engine>,
    shared: Arc<Shared>,
    serving: Arc<Serving>,
    stop: CancellationToken,
) {
    let mut tick = tokio::time::interval(PERIOD);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut outgrown = BTreeSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        sweep(&engine).await;
        engine.regain_space().await;
        publish(&engine, &shared);
        watch_operating_points(&engine, &mut outgrown);
        if !engine.is_healthy() && shared.phase() == Phase::Serving {
            tracing::error!("a fault leaves the service in doubt: it stops answering");
            shared.enter(Phase::Failed);
            serving.report(false).await;
        }
    }
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
        match engine.sweep(Timestamp::now()).await {
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
fn watch_operating_points(engine: &Engine, outgrown: &mut BTreeSet<GateId>) {
    for gate in engine.gate_reaches() {
        telemetry::operating_point(&gate.gate, gate.is_outgrown());
        let Some(warning) = gate.warning() else {
            outgrown.remove(&gate.gate);
            continue;
        };
        if outgrown.insert(gate.gate) {
            tracing::warn!("{warning}");
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "gauges are f64 by definition")]
fn publish(engine: &Engine, shared: &Shared) {
    let status = engine.status();
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
        (Gauge::Unassessed, status.unassessed.len() as f64),
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
