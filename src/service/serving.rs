//! All services on one port, their health, and the way they stop.

use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::Router;
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;
use zeroize::Zeroizing;

use super::door::Door;
use super::enrollment::EnrollmentService;
use super::gate::GateService;
use super::listener::Listener;
use super::never_alone::NeverFaceAlone;
use super::notices::NoticesService;
use super::operator::OperatorService;
use super::proto::DESCRIPTORS;
use super::proto::enrollment_server::EnrollmentServer;
use super::proto::gate_server::GateServer;
use super::proto::notices_server::NoticesServer;
use super::proto::operator_server::OperatorServer;
use super::shared::Shared;
use crate::types::Limits;

/// Largest list of request headers, bytes.
const HEADER_BYTES: u32 = 16 << 10;
/// What a client may send on one stream before anybody reads it, bytes.
const STREAM_WINDOW_BYTES: u32 = 256 << 10;
/// The same for all streams of one connection together.
const CONNECTION_WINDOW_BYTES: u32 = 1 << 20;
/// Streams that a client may open and reset before the connection is cut (rapid reset).
const PENDING_RESETS: usize = 64;
/// A connection without traffic is probed this often.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// A connection that does not answer the probe is cut.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// What health is reported for: the process and each service.
const SERVICES: [&str; 5] =
    ["", "assent.v1.Gate", "assent.v1.Enrollment", "assent.v1.Operator", "assent.v1.Notices"];

/// PEM for TLS.
pub struct TlsMaterial {
    /// The server's certificate chain.
    pub certificate: Vec<u8>,
    /// Its private key.
    pub key: Zeroizing<Vec<u8>>,
    /// Authorities that sign callers' certificates.
    pub client_ca: Vec<u8>,
}

/// The service cannot be put together.
#[derive(Debug, Error)]
pub enum ServiceError {
    /// The TLS material is not usable.
    #[error("[tls] is not usable: certificate, key and client_ca must be PEM and fit each other")]
    Tls(#[source] tonic::transport::Error),
    /// The descriptors are not usable: a fault of the build.
    #[error("reflection could not be set up")]
    Reflection(#[source] tonic_reflection::server::Error),
}

/// The services of one process on their port.
#[derive(Debug)]
pub struct Serving {
    task: JoinHandle<Result<(), tonic::transport::Error>>,
    health: HealthReporter,
    stop: CancellationToken,
}

impl Serving {
    /// Answers on `listener`; health says NOT_SERVING until [`Serving::report`] says otherwise.
    ///
    /// # Errors
    /// See [`ServiceError`].
    pub async fn start(
        listener: Listener,
        shared: &Arc<Shared>,
        limits: &Limits,
        tls: Option<&TlsMaterial>,
    ) -> Result<Self, ServiceError> {
        let (health, router) = router(shared, limits, tls)?;
        // Before the first connection: a new reporter says SERVING of the process.
        report(&health, false).await;
        let stop = CancellationToken::new();
        let stopped = stop.clone().cancelled_owned();
        let task = tokio::spawn(router.serve_with_incoming_shutdown(listener.incoming(), stopped));
        Ok(Self { task, health, stop })
    }

    /// Says of every service whether it serves.
    pub async fn report(&self, serving: bool) {
        report(&self.health, serving).await;
    }

    /// Takes no new connections, lets requests in flight finish for at most `patience`, and cuts
    /// what is left.
    pub async fn stop(mut self, patience: Duration) {
        self.report(false).await;
        self.stop.cancel();
        match tokio::time::timeout(patience, &mut self.task).await {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(fault))) => tracing::warn!(%fault, "the port closed with a fault"),
            Ok(Err(fault)) => tracing::error!(%fault, "the port's task failed"),
            Err(_elapsed) => {
                tracing::warn!("requests were still in flight and are cut off");
                self.task.abort();
                if let Err(fault) = self.task.await
                    && fault.is_panic()
                {
                    tracing::error!(%fault, "the port's task failed");
                }
            }
        }
    }
}

async fn report(health: &HealthReporter, serving: bool) {
    let status = if serving { ServingStatus::Serving } else { ServingStatus::NotServing };
    for service in SERVICES {
        health.set_service_status(service, status).await;
    }
}

fn router(
    shared: &Arc<Shared>,
    limits: &Limits,
    tls: Option<&TlsMaterial>,
) -> Result<(HealthReporter, Router), ServiceError> {
    let (reporter, health) = tonic_health::server::health_reporter();
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
        .map_err(ServiceError::Reflection)?;
    let bytes = limits.message_bytes;
    let gate = GateServer::new(GateService::new(Arc::clone(shared)));
    let enrollment = EnrollmentServer::new(EnrollmentService::new(Arc::clone(shared)));
    let operator = OperatorServer::new(OperatorService::new(Arc::clone(shared)));
    let notices = NoticesServer::new(NoticesService::new(Arc::clone(shared)));
    let router = transport(limits, tls)?
        .add_service(health)
        .add_service(reflection)
        .add_service(NeverFaceAlone(Door::new(gate.max_decoding_message_size(bytes), shared)))
        .add_service(Door::new(enrollment.max_decoding_message_size(bytes), shared))
        .add_service(Door::new(operator.max_decoding_message_size(bytes), shared))
        .add_service(Door::new(notices.max_decoding_message_size(bytes), shared));
    Ok((reporter, router))
}

fn transport(limits: &Limits, tls: Option<&TlsMaterial>) -> Result<Server, ServiceError> {
    let server = Server::builder()
        .max_concurrent_streams(limits.streams_per_connection)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_max_header_list_size(HEADER_BYTES)
        .http2_max_pending_accept_reset_streams(Some(PENDING_RESETS))
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT));
    let Some(tls) = tls else { return Ok(server) };
    let config = ServerTlsConfig::new()
        .identity(Identity::from_pem(&tls.certificate, &tls.key))
        .client_ca_root(Certificate::from_pem(&tls.client_ca))
        // Notices and health are for everybody; every other RPC demands a certificate.
        .client_auth_optional(true)
        .timeout(Duration::from_millis(limits.handshake_ms));
    server.tls_config(config).map_err(ServiceError::Tls)
}
