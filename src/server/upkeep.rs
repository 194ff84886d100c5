//! What is done now and then for the next start: snapshots of the index, and a look at every record
//! that a start from a snapshot did not open.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::config::Snapshots;
use crate::engine::Engine;
use crate::telemetry::{self, Gauge};
use crate::types::{Revision, Timestamp};

/// After a start the service is left alone for so long.
const SETTLE: Duration = Duration::from_secs(2);

/// Runs until `stop`.
pub(super) async fn run(
    engine: Arc<Engine>,
    snapshots: Option<Snapshots>,
    stop: CancellationToken,
) {
    // Giving a snapshot up leaves the one before it.
    let _stopped = stop.run_until_cancelled(keep_up(&engine, snapshots)).await;
}

async fn keep_up(engine: &Engine, snapshots: Option<Snapshots>) {
    let every = snapshots.as_ref().map_or(SETTLE, |snapshots| snapshots.every);
    tokio::time::sleep(SETTLE.min(every)).await;
    let mut written = engine.snapshot_revision();
    loop {
        if !engine.is_scrubbed() {
            scrub(engine).await;
        }
        let Some(snapshots) = &snapshots else { return };
        if written != Some(engine.revision()) {
            written = write(engine, snapshots).await.or(written);
        }
        tokio::time::sleep(snapshots.every).await;
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
