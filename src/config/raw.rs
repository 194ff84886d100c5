//! Settings as written, before anything is checked.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::consent::DeploymentMode;
use crate::index::IndexOptions;
use crate::pipeline::{PipelineSettings, ProviderChoice};
use crate::service::CallerRule;
use crate::types::Limits;

/// Default port of the service.
const GRPC_PORT: u16 = 7400;
/// Shortest retention of audit entries: three years, whatever leap day is among them (the Measures
/// of 2025, article 9, for what an impact assessment is about).
pub(super) const LEAST_RETENTION_DAYS: u32 = 1_096;
/// Default size of the reserve for a full disk, MiB.
const RESERVE_MIB: u64 = 32;
/// Default port of the metrics.
const METRICS_PORT: u16 = 9464;

/// The configuration file.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawConfig {
    /// Policy profile: "cn", "eu", "us-il", "us-tx" or "open".
    pub profile: String,
    /// Where templates and probes travel: "on_device", "site_lan" or "internet".
    pub deployment: DeploymentMode,
    /// Directory of the embedded store.
    pub data_dir: PathBuf,
    /// File of the root key; keep it out of the data directory's backups.
    pub root_key: Option<PathBuf>,
    /// How the root key is kept.
    pub keys: RawKeys,
    /// Ports.
    pub listen: RawListen,
    /// Certificates.
    pub tls: Option<RawTls>,
    /// Who may call.
    pub callers: Vec<CallerRule>,
    /// The model pipeline.
    pub pipeline: PipelineSettings,
    /// The store.
    pub store: RawStore,
    /// The index.
    pub index: IndexOptions,
    /// Snapshots of the index.
    pub snapshot: SnapshotOptions,
    /// The audit trail.
    pub audit: AuditOptions,
    /// What backups need.
    pub backup: BackupOptions,
    /// Filing with the authority.
    pub filing: FilingOptions,
    /// Bounds.
    pub limits: Limits,
    /// Logging.
    pub log: LogSettings,
}

impl Default for RawConfig {
    fn default() -> Self {
        Self {
            profile: "cn".to_owned(),
            deployment: DeploymentMode::default(),
            data_dir: PathBuf::from("data"),
            root_key: None,
            keys: RawKeys::default(),
            listen: RawListen::default(),
            tls: None,
            callers: Vec::new(),
            pipeline: PipelineSettings::default(),
            store: RawStore::default(),
            index: IndexOptions::default(),
            snapshot: SnapshotOptions::default(),
            audit: AuditOptions::default(),
            backup: BackupOptions::default(),
            filing: FilingOptions::default(),
            limits: Limits::default(),
            log: LogSettings::default(),
        }
    }
}

/// `[listen]`.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawListen {
    /// Where gRPC listens.
    pub grpc: SocketAddr,
    /// Where Prometheus scrapes.
    pub metrics: Option<SocketAddr>,
    /// Serve without TLS; loopback only.
    pub plaintext: bool,
}

impl Default for RawListen {
    fn default() -> Self {
        Self {
            grpc: SocketAddr::from((Ipv4Addr::LOCALHOST, GRPC_PORT)),
            metrics: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, METRICS_PORT))),
            plaintext: false,
        }
    }
}

/// `[tls]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawTls {
    /// PEM of the server's certificate chain.
    pub certificate: PathBuf,
    /// PEM of its private key.
    pub key: PathBuf,
    /// PEM of the authorities that sign callers' certificates.
    pub client_ca: PathBuf,
}

/// `[keys]`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawKeys {
    /// File of the passphrase that the root key's file is under.
    pub passphrase_file: Option<PathBuf>,
    /// Keep the root key in a token instead of a file.
    pub pkcs11: Option<RawToken>,
}

/// `[keys.pkcs11]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawToken {
    /// The module, a shared library of the token's maker.
    pub module: PathBuf,
    /// The token's label.
    pub token: String,
    /// What the keys are called in it.
    #[serde(default = "default_key_name")]
    pub name: String,
    /// File of the user's PIN.
    pub pin_file: PathBuf,
}

fn default_key_name() -> String {
    "assent".to_owned()
}

/// `[snapshot]`.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SnapshotOptions {
    /// Seconds between two; 0: none is written or read.
    pub every_s: u64,
    /// Most rows written in a second.
    pub rows_per_second: u32,
}

impl Default for SnapshotOptions {
    fn default() -> Self {
        Self { every_s: 900, rows_per_second: 50_000 }
    }
}

/// `[backup]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BackupOptions {
    /// Directory of the key mirror; `key-mirror` in the data directory where none is named.
    pub key_mirror: Option<PathBuf>,
}

/// `[filing]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FilingOptions {
    /// From how many persons on a controller has to file, where that is to be earlier than the
    /// profile says.
    pub threshold: Option<u32>,
    /// File of further years of the working-day calendar.
    pub calendar: Option<PathBuf>,
}

/// `[audit]`.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AuditOptions {
    /// How long entries are kept, days; 0: for good. By default three years longer than the profile
    /// lets a consent last: what was done under it on its last day can be proven for as long.
    pub retention_days: Option<u32>,
}

/// `[store]`.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawStore {
    /// Space that is kept for revocations on a full disk, MiB; 0 for none.
    pub reserve_mib: u64,
    /// How long a revocation may wait for others to share its commit, milliseconds.
    pub revoke_window_ms: u64,
}

impl Default for RawStore {
    fn default() -> Self {
        Self { reserve_mib: RESERVE_MIB, revoke_window_ms: 0 }
    }
}

/// `[log]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogSettings {
    /// Text for people or JSON for machines.
    pub format: LogFormat,
    /// A tracing filter, such as "info" or "assent=debug".
    pub filter: String,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self { format: LogFormat::Text, filter: "info".to_owned() }
    }
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// What arguments and environment say; `None` leaves the file's word.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// Policy profile.
    pub profile: Option<String>,
    /// Directory of the store.
    pub data_dir: Option<PathBuf>,
    /// File of the root key.
    pub root_key: Option<PathBuf>,
    /// File of the passphrase that it is under.
    pub passphrase_file: Option<PathBuf>,
    /// Where gRPC listens.
    pub listen: Option<SocketAddr>,
    /// Where Prometheus scrapes.
    pub metrics: Option<SocketAddr>,
    /// No metrics port.
    pub no_metrics: bool,
    /// No TLS.
    pub plaintext: bool,
    /// Directory of the model packs.
    pub models_dir: Option<PathBuf>,
    /// Execution provider.
    pub provider: Option<ProviderChoice>,
}

impl RawConfig {
    /// Paths in a file are relative to the file.
    pub(super) fn anchor(&mut self, base: &Path) {
        let mut paths = vec![&mut self.data_dir, &mut self.pipeline.models_dir];
        paths.extend(self.root_key.as_mut());
        paths.extend(self.keys.passphrase_file.as_mut());
        paths.extend(self.pipeline.runtime.as_mut());
        paths.extend(self.backup.key_mirror.as_mut());
        paths.extend(self.filing.calendar.as_mut());
        if let Some(token) = &mut self.keys.pkcs11 {
            paths.extend([&mut token.module, &mut token.pin_file]);
        }
        if let Some(tls) = &mut self.tls {
            paths.extend([&mut tls.certificate, &mut tls.key, &mut tls.client_ca]);
        }
        for path in paths {
            *path = base.join(&*path);
        }
    }

    /// Arguments win over the file.
    pub(super) fn lay_over(&mut self, over: Overrides) {
        replace(&mut self.profile, over.profile);
        replace(&mut self.data_dir, over.data_dir);
        self.root_key = over.root_key.or(self.root_key.take());
        self.keys.passphrase_file = over.passphrase_file.or(self.keys.passphrase_file.take());
        replace(&mut self.listen.grpc, over.listen);
        replace(&mut self.pipeline.models_dir, over.models_dir);
        replace(&mut self.pipeline.provider, over.provider);
        self.listen.metrics =
            if over.no_metrics { None } else { over.metrics.or(self.listen.metrics) };
        self.listen.plaintext |= over.plaintext;
    }
}

fn replace<T>(place: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *place = value;
    }
}
