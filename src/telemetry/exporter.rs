//! The Prometheus port.

use std::net::SocketAddr;

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder};
use thiserror::Error;

use super::metric::{BATCH_SIZE, describe};

/// Bucket bounds of durations, seconds: gates live between one and a hundred milliseconds.
const SECONDS: [f64; 14] =
    [0.0005, 0.001, 0.002, 0.004, 0.006, 0.008, 0.012, 0.02, 0.035, 0.05, 0.1, 0.25, 1.0, 5.0];
/// Bucket bounds of batch sizes, faces.
const FACES: [f64; 8] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0];

/// The metrics port could not be opened.
#[derive(Debug, Error)]
#[error(
    "cannot serve metrics on {address}; choose another with --metrics, or none with --no-metrics"
)]
pub struct ExporterError {
    /// The address.
    pub address: SocketAddr,
    /// Why.
    #[source]
    pub cause: BuildError,
}

/// Serves all metrics on `address` for Prometheus to scrape, from within a tokio runtime. The
/// recorder belongs to the process: call this once. The exporter's own task serves the port, is
/// joined by nobody and ends with the runtime: it holds nothing that has to be finished.
///
/// # Errors
/// The address is taken, or a recorder is there already.
pub fn export(address: SocketAddr) -> Result<(), ExporterError> {
    let fault = |cause| ExporterError { address, cause };
    PrometheusBuilder::new()
        .with_http_listener(address)
        .set_buckets(&SECONDS)
        .map_err(fault)?
        .set_buckets_for_metric(Matcher::Full(BATCH_SIZE.name.to_owned()), &FACES)
        .map_err(fault)?
        .install()
        .map_err(fault)?;
    describe();
    Ok(())
}
