//! The life of a process: bind, open, serve, drain.
//!
//! The port is bound first, so that callers hear UNAVAILABLE and not a refused connection while
//! models warm and the index is built; health says SERVING only after that.
//!
//! # Invariants
//! - Every task begun here is joined before [`Running::stop`] returns.
//! - A fault that leaves store or pipeline in doubt turns health to NOT_SERVING at once, and the
//!   process keeps answering UNAVAILABLE until somebody looks.

mod decommission;
mod harden;
mod housekeeping;
mod logging;
mod restore;
mod upkeep;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::task::{JoinError, JoinHandle};
use tokio_util::sync::CancellationToken;

pub use decommission::{
    DecommissionFailure, Decommissioned, Inventory, Order, Pledge, decommission, finish,
    interrupted, inventory,
};
pub use harden::harden;
pub use logging::init_logging;
pub use restore::{RestoreFailure, restore_backup};

use self::upkeep::Upkeep;
use crate::config::{Security, Settings};
use crate::crypto::cell::{CellError, RootCell};
use crate::crypto::{SecretMemoryKind, secret_memory_kind};
use crate::engine::{Engine, EngineParts, OpenError};
use crate::index::{Index, IndexError, RotationKey};
use crate::memory;
use crate::pipeline::{Pipeline, StartError, StartReport};
use crate::service::{Listener, Phase, ServiceError, Serving, Shared};
use crate::store::{Embedded, EmbeddedError, KeyMirror, MirrorFault, Store, StoreError};
use crate::telemetry;

/// Longest wait for requests in flight when the process stops.
const DRAIN: Duration = Duration::from_secs(10);

/// Why the service could not start.
#[derive(Debug, Error)]
pub enum StartupError {
    /// The address is taken or not ours.
    #[error("cannot listen on {address}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        cause: std::io::Error,
    },
    /// The metrics port.
    #[error(transparent)]
    Metrics(#[from] telemetry::ExporterError),
    /// TLS or reflection.
    #[error(transparent)]
    Service(#[from] ServiceError),
    /// The deployment ended.
    #[error(
        "{} was decommissioned: everything in it was destroyed, as the certificate in it says. A new \
         deployment needs a new data directory and a new root key",
        path.display()
    )]
    Decommissioned {
        /// The data directory.
        path: PathBuf,
    },
    /// The deployment is ending.
    #[error(
        "decommissioning {} was begun and did not end: run `assent decommission` to end it",
        path.display()
    )]
    Decommissioning {
        /// The data directory.
        path: PathBuf,
    },
    /// The root key's cell.
    #[error(transparent)]
    Cell(#[from] CellError),
    /// The key mirror.
    #[error("backup.key_mirror: {} cannot be used", path.display())]
    Mirror {
        /// Its directory.
        path: PathBuf,
        /// Why.
        source: MirrorFault,
    },
    /// The store's files.
    #[error(transparent)]
    Backend(#[from] EmbeddedError),
    /// The store's content.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The models or their runtime.
    #[error(transparent)]
    Pipeline(#[from] StartError),
    /// The index.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// Policy, calibration, templates.
    #[error(transparent)]
    Engine(#[from] OpenError),
    /// A thread of ours panicked.
    #[error("a start-up task failed")]
    Panicked(#[from] JoinError),
}

/// A serving process.
pub struct Running {
    address: SocketAddr,
    engine: Arc<Engine>,
    shared: Arc<Shared>,
    serving: Arc<Serving>,
    stop: CancellationToken,
    housekeeping: JoinHandle<()>,
    index_care: JoinHandle<()>,
    upkeep: JoinHandle<()>,
}

/// Binds, opens and begins to serve; returns when health says SERVING.
///
/// # Errors
/// See [`StartupError`]; nothing is left running then.
pub async fn start(settings: Settings) -> Result<Running, StartupError> {
    if decommission::is_decommissioned(&settings.data_dir) {
        return Err(StartupError::Decommissioned { path: settings.data_dir });
    }
    if decommission::is_begun(&settings.data_dir) {
        return Err(StartupError::Decommissioning { path: settings.data_dir });
    }
    let cell = settings.cell.open()?;
    let Settings { grpc, metrics, security, callers, limits, .. } = &settings;
    if let Some(address) = metrics {
        telemetry::export(*address)?;
    }
    let listener = Listener::bind(*grpc, limits)
        .await
        .map_err(|cause| StartupError::Bind { address: *grpc, cause })?;
    let address =
        listener.address().map_err(|cause| StartupError::Bind { address: *grpc, cause })?;
    let tls = match security {
        Security::PlaintextLoopback => None,
        Security::Tls(material) => Some(material),
    };
    let shared = Shared::new(callers.clone(), limits);
    let serving = Arc::new(Serving::start(listener, &shared, limits, tls).await?);
    tracing::info!(%address, tls = tls.is_some(), "listening; loading models and store");
    let (snapshots, audit_retention) = (settings.snapshots.clone(), settings.audit_retention_days);
    let engine = match open(cell, settings).await {
        Ok(engine) => engine,
        Err(fault) => {
            stop_serving(serving).await;
            return Err(fault);
        }
    };
    shared.serve(Arc::clone(&engine));
    serving.report(true).await;
    log_ready(&engine);
    let stop = CancellationToken::new();
    let housekeeping = tokio::spawn(housekeeping::run(
        Arc::clone(&engine),
        Arc::clone(&shared),
        Arc::clone(&serving),
        stop.clone(),
    ));
    let index_care = tokio::spawn(housekeeping::care(Arc::clone(&engine), stop.clone()));
    let upkeep = Upkeep { engine: Arc::clone(&engine), snapshots, audit_retention };
    let upkeep = tokio::spawn(upkeep::run(upkeep, stop.clone()));
    Ok(Running { address, engine, shared, serving, stop, housekeeping, index_care, upkeep })
}

/// Everything behind the port.
async fn open(cell: Box<dyn RootCell>, settings: Settings) -> Result<Arc<Engine>, StartupError> {
    let Settings {
        profile,
        deployment: mode,
        data_dir,
        reserve_bytes,
        revoke_window,
        key_mirror,
        ..
    } = settings;
    let Settings { pipeline, index, snapshots, limits, calendar, .. } = settings;
    let rotation = RotationKey::new(&cell.deployment().rotation_seed());
    let pipeline = tokio::task::spawn_blocking(move || Pipeline::start(&pipeline)).await??;
    log_plan(pipeline.report());
    let backend = Arc::new(Embedded::open_reserving(&data_dir, reserve_bytes)?);
    pipeline.keep_tuning();
    backend.gather_revocations(revoke_window);
    let mirror = KeyMirror::open(&key_mirror)
        .map_err(|source| StartupError::Mirror { path: key_mirror.clone(), source })?;
    if key_mirror.starts_with(&data_dir) {
        tracing::warn!(
            mirror = %key_mirror.display(),
            "the key mirror lies in the data directory: a disk that is lost takes it along, and \
             backups without it do not open after the next erasure; set backup.key_mirror"
        );
    }
    let store = Store::open_mirrored(backend, cell, Some(mirror), pipeline.contract()).await?;
    let index = Index::new(index.settings(pipeline.width(), rotation))?;
    let snapshot = snapshots.map(|snapshots| snapshots.settings.path);
    let parts = EngineParts { profile, mode, limits, store, index, pipeline, snapshot, calendar };
    let engine = Engine::open(parts).await?;
    memory::trim();
    Ok(engine)
}

fn log_plan(report: &StartReport) {
    let StartReport { plan, workers, load, tune, warm, .. } = report;
    tracing::info!(
        recogniser = %plan.recogniser,
        detector = %plan.detector,
        workers,
        batch_sizes = ?plan.batch_sizes,
        wide = plan.wide,
        faces_per_second = ?plan.faces_per_second,
        ?load,
        ?tune,
        ?warm,
        "models are warm"
    );
}

fn log_ready(engine: &Engine) {
    let status = engine.status();
    let (provider, kernel) = (status.provider.name(), status.index.kernel.name());
    telemetry::in_use(status.profile.clone(), status.deployment.as_str(), provider, kernel);
    tracing::info!(
        provider,
        kernel,
        contract = %status.pack.contract,
        templates = status.index.live,
        profile = %status.profile,
        deployment = status.deployment.as_str(),
        keys = %secret_memory_kind(),
        "serving"
    );
    if secret_memory_kind() == SecretMemoryKind::Plain {
        tracing::warn!("keys are not locked in memory and may reach swap: raise `ulimit -l`");
    }
    if !status.index.arena_locked {
        tracing::warn!(
            locked = status.index.locked_bytes,
            arena = status.index.arena_bytes,
            "templates are not all locked in memory and may reach swap: raise `ulimit -l`"
        );
    }
}

/// Housekeeping, which shares it, has ended by now.
async fn stop_serving(serving: Arc<Serving>) {
    if let Some(serving) = Arc::into_inner(serving) {
        serving.stop(DRAIN).await;
    }
}

impl Running {
    /// Where gRPC listens, with the port that the system chose where 0 was asked for.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The use cases behind the port.
    #[must_use]
    pub fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// Finishes what was begun and stops: no new requests, requests in flight answered, commits
    /// done, store closed.
    pub async fn stop(self) {
        self.shared.enter(Phase::Draining);
        self.stop.cancel();
        for task in [self.housekeeping, self.index_care, self.upkeep] {
            if let Err(fault) = task.await {
                tracing::error!(%fault, "housekeeping failed");
            }
        }
        stop_serving(self.serving).await;
        self.engine.drain().await;
        tracing::info!("stopped");
    }
}
