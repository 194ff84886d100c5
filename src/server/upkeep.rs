//! What is done now and then: snapshots of the index, a look at every record that a start from a
//! snapshot did not open, and the end of audit entries past their retention.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::config::Snapshots;
use crate::engine::Engine;
use crate::telemetry::{self, Gauge};
use crate::types::{Revision, Timestamp};

/// After a start the service is left alone for so long.
const SETTLE: Duration = Duration::from_secs(2);
/// How often there is a look where no snapshots set the pace.
const PERIOD: Duration = Duration::from_hours(1);
const DAY_MS: i64 = 86_400_000;

/// What is to be kept up.
pub(super) struct Upkeep {
    pub(super) engine: Arc<Engine>,
    pub(super) snapshots: Option<Snapshots>,
    /// Days.
    pub(super) audit_retention: Option<u32>,
}

/// Runs until `stop`.
pub(super) async fn run(upkeep: Upkeep, stop: CancellationToken) {
    // Giving a snapshot up leaves the one before it.
    let _stopped = stop.run_until_cancelled(keep_up(&upkeep)).await;
}

async fn keep_up(Upkeep { engine, snapshots, audit_retention }: &Upkeep) {
    let every = snapshots.as_ref().map_or(PERIOD, |snapshots| snapshots.every);
    tokio::time::sleep(SETTLE.min(every)).await;
    let mut written = engine.snapshot_revision();
    loop {
        if !engine.is_scrubbed() {
            scrub(engine).await;
        }
        if let Some(days) = audit_retention
            && engine.clock_status().is_trusted()
        {
            prune(engine, *days).await;
        }
        if let Some(snapshots) = snapshots
            && written != Some(engine.revision())
            && !engine.status().low_on_space
        {
            written = write(engine, snapshots).await.or(written);
        }
        tokio::time::sleep(every).await;
    }
}

/// Removes audit entries past their retention.
async fn prune(engine: &Engine, days: u32) {
    let before = engine.now().plus_ms(-i64::from(days) * DAY_MS);
    loop {
        match engine.prune_audit(before).await {
            Ok(true) => {}
            Ok(false) => return,
            Err(fault) => {
                let fault = &fault as &dyn std::error::Error;
                tracing::error!(fault, "old audit entries could not be removed; trying again");
                return;
            }
        }
    }
}

async fn scrub(engine: &Engine) {
    match engine.scrub().await {
        Ok(0) => tracing::info!("every record opens"),
        Ok(records) => tracing::error!(records, "records that do not open were quarantined"),
        Err(fault) => {
            let fault = &fault as &dyn std::error::Error;
            tracing::error!(fault, "the records could not be looked at; trying again");
        }
    }
}

async fn write(engine: &Engine, snapshots: &Snapshots) -> Option<Revision> {
    match engine.write_snapshot(&snapshots.settings).await {
        Ok(written) => {
            let (rows, took) = (written.rows, written.took);
            tracing::info!(rows, ?took, revision = %written.revision, "snapshot written");
            publish(rows);
            Some(written.revision)
        }
        Err(fault) => {
            let fault = &fault as &dyn std::error::Error;
            tracing::warn!(fault, "no snapshot was written; the next start opens more records");
            None
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "gauges are f64 by definition")]
fn publish(rows: u64) {
    telemetry::gauge(Gauge::SnapshotRows, rows as f64);
    telemetry::gauge(Gauge::SnapshotTime, Timestamp::now().unix_ms() as f64 / 1_000.0);
}
