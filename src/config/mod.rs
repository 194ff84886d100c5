//! Raw arguments, file and environment -> validated settings.
//!
//! Arguments win over the environment (clap has merged the two already), both win over the file,
//! the file wins over the defaults.
//!
//! # Invariants
//! - [`Settings`] are complete and consistent: whoever holds them need not check again.
//! - Nothing is bound, opened or created here; files are only read.

mod filing;
mod raw;

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;

pub use filing::FilingFault;
pub use raw::{
    AuditOptions, BackupOptions, FilingOptions, LogFormat, LogSettings, Overrides, RawConfig,
    SnapshotOptions,
};
use raw::{LEAST_RETENTION_DAYS, RawKeys, RawTls};

use crate::consent::{Calendar, DeploymentMode, Profile, UnknownProfile};
use crate::crypto::cell::{CellPlace, TokenPlace};
use crate::engine::SnapshotSettings;
use crate::index::{GraphSettings, IndexOptions, PlanSetting};
use crate::pipeline::PipelineSettings;
use crate::service::{CallerRule, CallerRuleFault, Callers, TlsMaterial};
use crate::types::Limits;

/// The snapshot in the data directory.
const SNAPSHOT_NAME: &str = "snapshot";
/// What was measured about the machine, in the data directory.
const TUNING_NAME: &str = "tuning.json";
/// The root key's file, where none is named.
const ROOT_KEY_NAME: &str = "root.key";
/// The key mirror, where no better place is named.
const MIRROR_NAME: &str = "key-mirror";
/// Largest reserve for a full disk, MiB.
const MOST_RESERVE_MIB: u64 = 65_536;
/// Longest wait of a revocation for others, milliseconds.
const MOST_WINDOW_MS: u64 = 20;

/// How callers reach the service and prove who they are.
pub enum Security {
    /// No TLS, loopback only: everybody who reaches the port may do everything.
    PlaintextLoopback,
    /// Mutual TLS.
    Tls(TlsMaterial),
}

/// Validated settings of one process.
pub struct Settings {
    /// The rules in force.
    pub profile: Profile,
    /// Where templates and probes travel.
    pub deployment: DeploymentMode,
    /// Directory of the embedded store.
    pub data_dir: PathBuf,
    /// Where the root key is kept.
    pub cell: CellPlace,
    /// Where gRPC listens.
    pub grpc: SocketAddr,
    /// Where Prometheus scrapes; `None` to leave metrics out.
    pub metrics: Option<SocketAddr>,
    /// TLS or loopback.
    pub security: Security,
    /// Who may call.
    pub callers: Callers,
    /// The model pipeline.
    pub pipeline: PipelineSettings,
    /// Space kept for revocations on a full disk, bytes.
    pub reserve_bytes: u64,
    /// How long a revocation may wait for others to share its commit.
    pub revoke_window: Duration,
    /// The index.
    pub index: IndexOptions,
    /// How long audit entries are kept, days; `None` for good.
    pub audit_retention_days: Option<u32>,
    /// Directory of the key mirror.
    pub key_mirror: PathBuf,
    /// Snapshots of the index; `None` for none.
    pub snapshots: Option<Snapshots>,
    /// What the deadlines of filings are counted in.
    pub calendar: Calendar,
    /// Bounds.
    pub limits: Limits,
    /// Logging.
    pub log: LogSettings,
}

/// Where, how fast and how often the index is kept in a snapshot.
#[derive(Debug, Clone)]
pub struct Snapshots {
    /// Where and how fast.
    pub settings: SnapshotSettings,
    /// From one to the next.
    pub every: Duration,
}

/// Settings that cannot work.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// A file cannot be read.
    #[error("{}: cannot be read ({what})", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What it was to be.
        what: &'static str,
        /// Why.
        #[source]
        cause: std::io::Error,
    },
    /// The file is not valid.
    #[error("{}: {cause}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Names line and field.
        #[source]
        cause: Box<toml::de::Error>,
    },
    /// Unknown profile.
    #[error("profile: {0}")]
    Profile(#[from] UnknownProfile),
    /// Filing with the authority.
    #[error("filing.{0}")]
    Filing(#[from] FilingFault),
    /// No TLS on an address that others can reach.
    #[error(
        "listen.plaintext: {0} is not a loopback address; set up [tls], or listen on 127.0.0.1"
    )]
    PlaintextBeyondLoopback(SocketAddr),
    /// Neither TLS nor plaintext.
    #[error(
        "[tls] is missing: name certificate, key and client_ca, or set listen.plaintext = true (--plaintext) on a loopback address"
    )]
    NoSecurity,
    /// Both TLS and plaintext.
    #[error("listen.plaintext and [tls] exclude each other")]
    BothSecurities,
    /// A caller's rule.
    #[error("callers: {0}")]
    Callers(#[from] CallerRuleFault),
    /// mTLS without callers serves nobody.
    #[error(
        "[[callers]] is missing: with TLS every caller needs an entry with its certificate and role"
    )]
    NoCallers,
    /// A property of the graph that makes no sense.
    #[error("index.{field}: {value} is not from {} to {}", allowed.start(), allowed.end())]
    Index {
        /// The setting.
        field: &'static str,
        /// Its value.
        value: usize,
        /// What is allowed.
        allowed: RangeInclusive<usize>,
    },
    /// A property of snapshots that makes no sense.
    #[error("snapshot.{field}: {value} is not from {} to {}", allowed.start(), allowed.end())]
    Snapshot {
        /// The setting.
        field: &'static str,
        /// Its value.
        value: u64,
        /// What is allowed.
        allowed: RangeInclusive<u64>,
    },
    /// Revocations would wait too long.
    #[error("store.revoke_window_ms: {0} is not from 0 to {MOST_WINDOW_MS}")]
    Window(u64),
    /// Audit entries are to go too early.
    #[error(
        "audit.retention_days: {days} is less than {LEAST_RETENTION_DAYS}, three years; 0 keeps \
         entries for good"
    )]
    Retention {
        /// What it was to be.
        days: u32,
    },
    /// Searches are to take a graph that is not kept.
    #[error("index.plan: \"graph\" needs index.graph = true")]
    PlanWithoutGraph,
    /// A root key in two places.
    #[error(
        "keys.pkcs11 and {0} exclude each other: the root key is in a token or in a file; remove \
         one of them"
    )]
    TwoCells(&'static str),
    /// A reserve that no disk has.
    #[error("store.reserve_mib: {0} is not from 0 to {MOST_RESERVE_MIB}")]
    Reserve(u64),
    /// A limit that makes no sense.
    #[error("limits.{field}: {value} is not from {} to {}", allowed.start(), allowed.end())]
    Limit {
        /// The limit.
        field: &'static str,
        /// What it was to be.
        value: u64,
        /// What it may be.
        allowed: RangeInclusive<u64>,
    },
    /// A pipeline setting.
    #[error("pipeline.{field}: {fault}")]
    Pipeline {
        /// The setting.
        field: &'static str,
        /// What is wrong with it.
        fault: &'static str,
    },
}

/// Reads `file` (when one is named), lays `overrides` over it and validates the whole.
///
/// # Errors
/// The first thing that is wrong, with the file and field to mend.
pub fn load(file: Option<&Path>, overrides: Overrides) -> Result<Settings, ConfigError> {
    let mut raw = file.map_or_else(|| Ok(RawConfig::default()), read)?;
    if let Some(base) = file.and_then(Path::parent) {
        raw.anchor(base);
    }
    raw.lay_over(overrides);
    validate(raw)
}

fn read(path: &Path) -> Result<RawConfig, ConfigError> {
    let text = String::from_utf8_lossy(&contents(path, "configuration")?).into_owned();
    toml::from_str(&text)
        .map_err(|cause| ConfigError::Invalid { path: path.to_owned(), cause: Box::new(cause) })
}

fn contents(path: &Path, what: &'static str) -> Result<Vec<u8>, ConfigError> {
    std::fs::read(path).map_err(|cause| ConfigError::Unreadable {
        path: path.to_owned(),
        what,
        cause,
    })
}

fn validate(raw: RawConfig) -> Result<Settings, ConfigError> {
    let profile = filing::lowered(Profile::named(&raw.profile)?, raw.filing.threshold)?;
    let calendar = filing::calendar(raw.filing.calendar.as_deref())?;
    check_limits(&raw.limits)?;
    let security = security(raw.listen.plaintext, raw.listen.grpc, raw.tls.as_ref())?;
    let callers = callers(&security, raw.callers)?;
    let mut pipeline = raw.pipeline;
    pipeline.tuning_file = Some(raw.data_dir.join(TUNING_NAME));
    pipeline.frame_pixels = raw.limits.frame_pixels;
    // Admission is the bound on requests; the pipeline's queue must hold all frames of those.
    pipeline.queue = raw.limits.room_for_frames();
    check_pipeline(&pipeline)?;
    check_index(&raw.index)?;
    let snapshots = snapshots(raw.snapshot, &raw.data_dir)?;
    let audit_retention_days = retention(raw.audit, &profile)?;
    let key_mirror = raw.backup.key_mirror.unwrap_or_else(|| raw.data_dir.join(MIRROR_NAME));
    let reserve_bytes = reserve(raw.store.reserve_mib)?;
    let revoke_window = match raw.store.revoke_window_ms {
        ms if ms > MOST_WINDOW_MS => return Err(ConfigError::Window(ms)),
        ms => Duration::from_millis(ms),
    };
    Ok(Settings {
        profile,
        deployment: raw.deployment,
        audit_retention_days,
        key_mirror,
        data_dir: raw.data_dir,
        cell: cell(raw.root_key, raw.keys)?,
        grpc: raw.listen.grpc,
        metrics: raw.listen.metrics,
        security,
        callers,
        pipeline,
        reserve_bytes,
        revoke_window,
        index: raw.index,
        snapshots,
        calendar,
        limits: raw.limits,
        log: raw.log,
    })
}

fn cell(root_key: Option<PathBuf>, keys: RawKeys) -> Result<CellPlace, ConfigError> {
    let Some(token) = keys.pkcs11 else {
        let path = root_key.unwrap_or_else(|| PathBuf::from(ROOT_KEY_NAME));
        return Ok(CellPlace::File { path, passphrase: keys.passphrase_file });
    };
    if root_key.is_some() {
        return Err(ConfigError::TwoCells("root_key"));
    }
    if keys.passphrase_file.is_some() {
        return Err(ConfigError::TwoCells("keys.passphrase_file"));
    }
    Ok(CellPlace::Token(TokenPlace {
        module: token.module,
        token: token.token,
        name: token.name,
        pin: token.pin_file,
    }))
}

fn security(
    plaintext: bool,
    address: SocketAddr,
    tls: Option<&RawTls>,
) -> Result<Security, ConfigError> {
    match (plaintext, tls) {
        (true, Some(_)) => Err(ConfigError::BothSecurities),
        (true, None) if !address.ip().is_loopback() => {
            Err(ConfigError::PlaintextBeyondLoopback(address))
        }
        (true, None) => Ok(Security::PlaintextLoopback),
        (false, None) => Err(ConfigError::NoSecurity),
        (false, Some(tls)) => Ok(Security::Tls(TlsMaterial {
            certificate: contents(&tls.certificate, "tls.certificate")?,
            key: zeroize::Zeroizing::new(contents(&tls.key, "tls.key")?),
            client_ca: contents(&tls.client_ca, "tls.client_ca")?,
        })),
    }
}

fn callers(security: &Security, rules: Vec<CallerRule>) -> Result<Callers, ConfigError> {
    match security {
        Security::PlaintextLoopback => Ok(Callers::Loopback),
        Security::Tls(_) if rules.is_empty() => Err(ConfigError::NoCallers),
        Security::Tls(_) => Ok(Callers::by_certificate(rules)?),
    }
}

/// Every limit with its bounds. The upper ones keep products and sums of limits far from where
/// integers wrap, semaphores panic and clocks end.
fn check_limits(limits: &Limits) -> Result<(), ConfigError> {
    let size = |value: usize| u64::try_from(value).unwrap_or(u64::MAX);
    let bounds: [(&'static str, u64, RangeInclusive<u64>); 10] = [
        ("message_bytes", size(limits.message_bytes), 1..=256 << 20),
        ("frame_pixels", limits.frame_pixels, 1..=256_000_000),
        // The proto says 8.
        ("frames_per_enrolment", size(limits.frames_per_enrolment), 1..=8),
        ("frame_age_ms", limits.frame_age_ms, 1..=86_400_000),
        ("requests_in_flight", size(limits.requests_in_flight), 1..=65_536),
        ("default_deadline_ms", limits.default_deadline_ms, 1..=3_600_000),
        ("connections", size(limits.connections), 1..=65_536),
        ("streams_per_connection", limits.streams_per_connection.into(), 1..=65_536),
        ("handshake_ms", limits.handshake_ms, 1..=600_000),
        ("policy_bytes", size(limits.policy_bytes), 1..=64 << 20),
    ];
    match bounds.into_iter().find(|(_, value, allowed)| !allowed.contains(value)) {
        Some((field, value, allowed)) => Err(ConfigError::Limit { field, value, allowed }),
        None => Ok(()),
    }
}

fn reserve(mib: u64) -> Result<u64, ConfigError> {
    if mib > MOST_RESERVE_MIB {
        return Err(ConfigError::Reserve(mib));
    }
    Ok(mib << 20)
}

fn check_index(index: &IndexOptions) -> Result<(), ConfigError> {
    let bounds = [
        ("graph_links", index.graph_links, GraphSettings::LINKS),
        ("graph_effort", index.graph_effort, GraphSettings::EFFORT),
    ];
    if let Some((field, value, allowed)) =
        bounds.into_iter().find(|(_, value, allowed)| !allowed.contains(value))
    {
        return Err(ConfigError::Index { field, value, allowed });
    }
    if index.plan == PlanSetting::Graph && !index.graph {
        return Err(ConfigError::PlanWithoutGraph);
    }
    Ok(())
}

fn snapshots(raw: SnapshotOptions, data_dir: &Path) -> Result<Option<Snapshots>, ConfigError> {
    let SnapshotOptions { every_s, rows_per_second } = raw;
    let bounds: [(&'static str, u64, RangeInclusive<u64>); 2] = [
        ("every_s", every_s, 0..=86_400),
        ("rows_per_second", rows_per_second.into(), 100..=100_000_000),
    ];
    if let Some((field, value, allowed)) =
        bounds.into_iter().find(|(_, value, allowed)| !allowed.contains(value))
    {
        return Err(ConfigError::Snapshot { field, value, allowed });
    }
    let settings = SnapshotSettings { path: data_dir.join(SNAPSHOT_NAME), rows_per_second };
    let every = Duration::from_secs(every_s);
    Ok((every_s > 0).then_some(Snapshots { settings, every }))
}

fn retention(raw: AuditOptions, profile: &Profile) -> Result<Option<u32>, ConfigError> {
    let default = profile.max_retention_days.saturating_add(LEAST_RETENTION_DAYS);
    match raw.retention_days.unwrap_or(default) {
        0 => Ok(None),
        days if days < LEAST_RETENTION_DAYS => Err(ConfigError::Retention { days }),
        days => Ok(Some(days)),
    }
}

fn check_pipeline(pipeline: &PipelineSettings) -> Result<(), ConfigError> {
    let fault = |field, fault| Err(ConfigError::Pipeline { field, fault });
    if pipeline.detector_size == 0 || !pipeline.detector_size.is_multiple_of(32) {
        return fault("detector_size", "must be a multiple of 32, such as 320 or 640");
    }
    pipeline.check().or_else(|found| fault(found.setting, found.fault))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(toml: &str) -> String {
        let raw: RawConfig = toml::from_str(toml).unwrap();
        validate(raw).err().map(|e| e.to_string()).unwrap_or_default()
    }

    #[test]
    fn plaintext_is_for_loopback_only_and_must_be_asked_for() {
        assert!(fault("").contains("[tls] is missing"));
        let open = "[listen]\nplaintext = true\ngrpc = \"0.0.0.0:7400\"";
        assert!(fault(open).contains("not a loopback address"));
        assert_eq!(fault("[listen]\nplaintext = true"), "");
    }

    #[test]
    fn a_mistake_names_its_field() {
        let unknown = toml::from_str::<RawConfig>("[listen]\nplain = true").unwrap_err();
        assert!(unknown.to_string().contains("plain"), "{unknown}");
        assert!(fault("profile = \"xx\"").starts_with("profile"));
        let zero = "[listen]\nplaintext = true\n[limits]\nconnections = 0";
        assert!(fault(zero).contains("limits.connections"));
        for (index, said) in [
            ("graph_links = 3", "index.graph_links: 3 is not from 4 to 64"),
            ("graph_effort = 5000", "index.graph_effort: 5000 is not from 16 to 4096"),
            ("plan = \"graph\"", "index.plan: \"graph\" needs index.graph = true"),
            ("plan = \"graph\"\ngraph = true", ""),
        ] {
            assert_eq!(fault(&format!("[listen]\nplaintext = true\n[index]\n{index}")), said);
        }
        let reserve = |mib| format!("[listen]\nplaintext = true\n[store]\nreserve_mib = {mib}");
        assert!(fault(&reserve(65_537)).contains("store.reserve_mib"));
        assert_eq!((fault(&reserve(0)), fault(&reserve(65_536))), (String::new(), String::new()));
        let odd = "[listen]\nplaintext = true\n[pipeline]\ndetector_size = 333";
        assert!(fault(odd).contains("pipeline.detector_size"));
    }

    #[test]
    fn d6_the_trail_outlives_every_consent_by_three_years() {
        for name in Profile::names() {
            let toml = format!("profile = \"{name}\"\n[listen]\nplaintext = true");
            let settings = validate(toml::from_str(&toml).unwrap()).unwrap();
            let longest = Profile::named(name).unwrap().max_retention_days;
            assert_eq!(settings.audit_retention_days, Some(longest + 1_096), "{name}");
        }
        let kept = |days: u32| {
            fault(&format!("[listen]\nplaintext = true\n[audit]\nretention_days = {days}"))
        };
        assert!(kept(1_095).contains("audit.retention_days: 1095 is less than 1096"));
        assert_eq!((kept(1_096), kept(0)), (String::new(), String::new()));
    }

    #[test]
    fn every_limit_has_bounds_on_both_sides() {
        let with = |field: &str, value: u64| {
            fault(&format!("[listen]\nplaintext = true\n[limits]\n{field} = {value}"))
        };
        for (field, most) in [
            ("message_bytes", 256 << 20),
            ("frame_pixels", 256_000_000),
            ("frames_per_enrolment", 8),
            ("frame_age_ms", 86_400_000),
            ("requests_in_flight", 65_536),
            ("default_deadline_ms", 3_600_000),
            ("connections", 65_536),
            ("streams_per_connection", 65_536),
            ("handshake_ms", 600_000),
            ("policy_bytes", 64 << 20),
        ] {
            for outside in [0, most + 1] {
                let said = with(field, outside);
                assert!(said.contains(field) && said.contains("is not from 1 to"), "{said}");
            }
            assert_eq!((with(field, 1), with(field, most)), (String::new(), String::new()));
        }
    }
}
