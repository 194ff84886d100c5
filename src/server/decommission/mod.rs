//! The end of a deployment: keys destroyed, files wiped, a signed certificate (O3, M15).
//!
//! # Invariants
//! - The audit trail is written out, signed and synced before anything is destroyed: M9 and M14
//!   want it kept.
//! - Keys go first. From then on nothing that is left of the store, its backups or its snapshots
//!   opens, whatever becomes of the wiping.
//! - The keys sign before they go: a certificate lies in the data directory, durable, when they are
//!   destroyed. A crash in between leaves it there, and [`finish`] goes on from it (`pledge.rs`).
//! - A data directory that was decommissioned says so, and is never served again.

mod pledge;
mod wipe;

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;
use serde_json::{Value, json};
use thiserror::Error;

pub(super) use self::pledge::is_begun;
use self::pledge::mark;
pub use self::pledge::{Pledge, finish, interrupted};
use self::wipe::{check_outside, list, places, wipe_all};
use crate::audit::{ExportWriter, Head, Receipt, ReceiptKind};
use crate::config::Settings;
use crate::consent::{BeijingDay, FilingRecord, FilingRules};
use crate::crypto::Hasher;
use crate::crypto::cell::CellError;
use crate::failpoint;
use crate::store::{AuditEvent, Embedded, EmbeddedError, FactKind, Signer, Store, StoreError};
use crate::types::{Revision, Timestamp};

/// What a decommissioned data directory holds: the certificate.
const MARKER: &str = "decommissioned.json";
/// Digits of the public key that confirm.
const CONFIRMING_DIGITS: usize = 16;

const TECHNIQUE: [&str; 2] = [
    "cryptographic erase, then overwriting and removal: every template, record and backup is \
     sealed under keys that hang on ROOT and the deployment key; both were destroyed where they \
     are kept, then every file of the deployment was overwritten with zeros and removed",
    "先加密擦除，再覆写删除：全部模板、记录和备份均由根密钥和部署密钥逐级加密；两者已在其存放处销毁，随后将全部文件以零覆写并删除",
];
const LIMITS: [&str; 2] = [
    "copies of the root key that were made while it was in force, file systems that copy on \
     write, and spare cells of flash are beyond what this program can reach",
    "有效期内复制出去的根密钥、写时复制的文件系统以及闪存的备用单元不在本程序所及范围",
];
const GONE: [&str; 2] = [
    "the root key does not open any more, and none of the files is there",
    "根密钥已无法打开，全部文件均已不存在",
];
const LEFT: [&str; 2] = [
    "the root key was destroyed; what is named as left was not wiped, and does not open",
    "根密钥已销毁；left 所列文件未能覆写，但已无法打开",
];

const PLEDGED: [&str; 2] = [
    "signed before the keys were destroyed, because nothing can sign afterwards; decommissioning was \
     interrupted and finished later. That the keys are gone shows in that the root key does not open",
    "本证书在销毁密钥之前签名，因为其后已无法签名；终止过程曾中断，后来完成。密钥已销毁，可由根密钥无法打开证明",
];

/// A text in English and Chinese.
fn words([en, zh]: [&str; 2]) -> Value {
    json!({ "en": en, "zh": zh })
}

/// Why a deployment was not decommissioned, or not to its end.
#[derive(Debug, Error)]
pub enum DecommissionFailure {
    /// No store.
    #[error("there is no store in {}", path.display())]
    Nothing {
        /// The data directory.
        path: PathBuf,
    },
    /// It was decommissioned before.
    #[error("{} was decommissioned already; its certificate is {MARKER} in it", path.display())]
    Already {
        /// The data directory.
        path: PathBuf,
    },
    /// A file.
    #[error("{} cannot be written", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The root key's cell.
    #[error(transparent)]
    Cell(#[from] CellError),
    /// The store's files.
    #[error(transparent)]
    Backend(#[from] EmbeddedError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It was begun, and the keys are gone.
    #[error(
        "decommissioning {} was interrupted after the keys were destroyed; repeat the command with \
         `--confirm {digits} --output FILE` to finish it",
        path.display()
    )]
    Interrupted {
        /// The data directory.
        path: PathBuf,
        /// The digits that confirm.
        digits: String,
    },
    /// It was begun with another root key.
    #[error(
        "the settings name the root key {given}, and the one that was being destroyed is {pledged}: \
         use the settings with which it was begun"
    )]
    OtherCell {
        /// In the settings.
        given: String,
        /// In the pledge.
        pledged: String,
    },
    /// The certificate that was signed beforehand.
    #[error("{} is not the certificate that was signed beforehand", path.display())]
    Pledge {
        /// The file.
        path: PathBuf,
    },
    /// A paper would be destroyed with the rest.
    #[error("{} lies in {}, which is wiped: name another place", path.display(), root.display())]
    Inside {
        /// The paper.
        path: PathBuf,
        /// What is wiped.
        root: PathBuf,
    },
}

/// What there is to destroy.
#[derive(Debug, Clone, Serialize)]
pub struct Inventory {
    /// The deployment's public key, hexadecimal: naming it confirms.
    pub public_key: String,
    /// Records that are held.
    pub records: u64,
    /// The store's revision.
    pub revision: Revision,
    /// Entries of the audit trail.
    pub audit_entries: u64,
    /// Id and name of each controller.
    pub controllers: Vec<Value>,
    /// Where controllers stand with the authority, as the store remembers it.
    pub filings: Vec<Value>,
    /// Controllers with a filing in force, which has to be cancelled.
    pub filed: Vec<String>,
    /// Every file that is wiped, the root key apart.
    pub files: Vec<PathBuf>,
}

impl Inventory {
    /// The digits that confirm.
    #[must_use]
    pub fn digits(&self) -> &str {
        confirming(&self.public_key)
    }
}

/// The digits of a public key, in hexadecimal, by which people name the deployment.
fn confirming(public_key: &str) -> &str {
    public_key.get(..CONFIRMING_DIGITS).unwrap_or(public_key)
}

/// A deployment that is no more.
#[derive(Debug)]
pub struct Decommissioned {
    /// The certificate.
    pub certificate: Receipt,
    /// Controllers with a filing in force, which has to be cancelled.
    pub filed: Vec<String>,
    /// Until when; empty where nobody has to, or the calendar does not say.
    pub cancel_until: String,
    /// What could not be wiped; nothing of it opens.
    pub left: Vec<String>,
    /// Whether the data directory holds the certificate.
    pub marked: Result<(), DecommissionFailure>,
}

/// Who decommissions, and where the papers go.
#[derive(Debug, Clone)]
pub struct Order {
    /// Where the certificate will be kept: not among what is destroyed.
    pub certificate: PathBuf,
    /// Name and title of who is responsible.
    pub by: String,
    /// File for the audit trail; must not exist.
    pub trail: PathBuf,
}

/// Whether the data directory was decommissioned.
#[must_use]
pub(super) fn is_decommissioned(data_dir: &Path) -> bool {
    data_dir.join(MARKER).exists()
}

/// What [`decommission`] would destroy. Nothing is changed but what every start changes.
///
/// # Errors
/// There is no store, or it does not open.
pub async fn inventory(settings: &Settings) -> Result<Inventory, DecommissionFailure> {
    let store = open(settings).await?;
    let inventory = take_inventory(settings, &store).await;
    store.close().await;
    inventory
}

/// Destroys the deployment and certifies it; the service must not run.
///
/// # Errors
/// See [`DecommissionFailure`]. Until the trail is written nothing is destroyed.
pub async fn decommission(
    settings: &Settings,
    order: &Order,
) -> Result<Decommissioned, DecommissionFailure> {
    let begun_at = Timestamp::now();
    let roots = places(settings)?;
    check_outside(&order.trail, &roots)?;
    check_outside(&order.certificate, &roots)?;
    let store = open(settings).await?;
    let outcome = write_papers(settings, order, &store).await;
    store.close().await;
    let (inventory, trail) = outcome?;
    let mut cell = settings.cell.open()?;
    let (signer, kind) = (cell.deployment().signer(), cell.kind());
    let cancel_until = cancel_until(settings, &inventory.filed, begun_at);
    let mut statement = json!({
        "type": ReceiptKind::Decommission.name(),
        "standard": "NIST SP 800-88 Rev. 2",
        "sanitization_method": "purge",
        "sanitization_technique": words(TECHNIQUE),
        "media": format!("{} files, ROOT and deployment key in a {kind}", inventory.files.len()),
        "tool": concat!("assent ", env!("CARGO_PKG_VERSION")),
        "performed_by": order.by,
        "begun_at": begun_at,
        "controllers": inventory.controllers,
        "filings": inventory.filings,
        "filed": inventory.filed,
        "cancel_filing_until": cancel_until,
        "profile": settings.profile.name,
        "records_destroyed": inventory.records,
        "revision": inventory.revision,
        "audit_trail": trail,
        "verification": words(PLEDGED),
        "limits": words(LIMITS),
    });
    let mut pledge = Pledge::new(settings, &roots, Receipt::sign(&signer, &statement));
    pledge.keep(&settings.data_dir)?;
    failpoint::reach("decommission.pledged");
    cell.destroy()?;
    drop(cell);
    failpoint::reach("decommission.destroyed");
    pledge.keys_are_gone(settings)?;
    failpoint::reach("decommission.noted");
    // From here on nothing opens any more, so that whatever cannot be wiped is named.
    let left = wipe_all(settings, &roots);
    failpoint::reach("decommission.wiped");
    statement["completed_at"] = json!(Timestamp::now());
    statement["verification"] = words(if left.is_empty() { GONE } else { LEFT });
    statement["left"] = json!(left);
    let certificate = Receipt::sign(&signer, &statement);
    let marked = mark(&settings.data_dir, &certificate);
    Ok(Decommissioned::of(certificate, &statement, left, marked))
}

impl Decommissioned {
    /// What the certificate's statement says.
    fn of(
        certificate: Receipt,
        statement: &Value,
        left: Vec<String>,
        marked: Result<(), DecommissionFailure>,
    ) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let filed = statement["filed"].as_array().into_iter().flatten().map(text).collect();
        let cancel_until = text(&statement["cancel_filing_until"]);
        Self { certificate, filed, cancel_until, left, marked }
    }
}

/// The last day in Beijing for having filings cancelled, counted from the end (M15).
fn cancel_until(settings: &Settings, filed: &[String], end: Timestamp) -> String {
    let rules = FilingRules::of(&settings.profile).filter(|_| !filed.is_empty());
    let day = rules.and_then(|rules| {
        let end = BeijingDay::of(end);
        settings.calendar.add_working_days(end, rules.working_days).ok()
    });
    day.map(|day| day.to_string()).unwrap_or_default()
}

async fn open(settings: &Settings) -> Result<Store, DecommissionFailure> {
    let path = settings.data_dir.clone();
    if is_decommissioned(&path) {
        return Err(DecommissionFailure::Already { path });
    }
    if let Some(pledge) = interrupted(settings)? {
        let digits = pledge.digits();
        return Err(DecommissionFailure::Interrupted { path, digits });
    }
    if !Embedded::is_in(&path) {
        return Err(DecommissionFailure::Nothing { path });
    }
    let cell = settings.cell.open()?;
    Ok(Store::open_bound(Arc::new(Embedded::open(&path)?), cell).await?)
}

async fn take_inventory(
    settings: &Settings,
    store: &Store,
) -> Result<Inventory, DecommissionFailure> {
    let policy = store.policy().await?.map(|(bytes, _)| bytes).unwrap_or_default();
    let policy: toml::Table = toml::from_str(&String::from_utf8_lossy(&policy)).unwrap_or_default();
    let controllers = policy.get("controllers").and_then(toml::Value::as_array);
    let name = |c: &toml::Value| json!({ "id": c.get("id"), "name": c.get("name") });
    let filings = store.facts().await?.take::<FilingRecord>(FactKind::Filing)?;
    let in_force = filings.iter().filter(|(_, record)| record.filed.is_some());
    let in_force = in_force.map(|(controller, _)| controller.clone()).collect();
    let filing = |(controller, record): (String, FilingRecord)| json!({ "controller": controller, "record": record.without_before() });
    let mut files = Vec::new();
    for root in places(settings)? {
        list(&root, &mut files).map_err(about(&root))?;
    }
    Ok(Inventory {
        public_key: hex::encode(store.signer().public_key()),
        records: store.records().await?,
        revision: store.revision().await?,
        audit_entries: store.audit_head().seq,
        controllers: controllers.into_iter().flatten().map(name).collect(),
        filings: filings.into_iter().map(filing).collect(),
        filed: in_force,
        files,
    })
}

/// The last entry of the trail, and the trail itself in a file of its own.
async fn write_papers(
    settings: &Settings,
    order: &Order,
    store: &Store,
) -> Result<(Inventory, Value), DecommissionFailure> {
    let inventory = take_inventory(settings, store).await?;
    let file = OpenOptions::new().write(true).create_new(true).open(&order.trail);
    let file = file.map_err(about(&order.trail))?;
    let (at, records) = (Timestamp::now(), inventory.records);
    store.note(&AuditEvent::Decommissioned { at, records, by: &order.by }).await?;
    let head = export(store, &file).await?;
    file.sync_all().map_err(about(&order.trail))?;
    let sha256 = digest(&order.trail).map_err(about(&order.trail))?;
    let name = order.trail.file_name().map(|name| name.to_string_lossy());
    let trail = json!({ "file": name, "sha256": hex::encode(sha256), "last_entry": head.seq,
                        "last_hash": hex::encode(head.hash) });
    Ok((inventory, trail))
}

async fn export(store: &Store, file: &File) -> Result<Head, StoreError> {
    let signer: &Signer = store.signer();
    let (now, start) = (Timestamp::now(), store.audit_at(0).await?);
    let mut writer = ExportWriter::begin(BufWriter::new(file), signer, start, now)?;
    let until = store.audit_head().seq;
    while writer.head().seq < until {
        for entry in store.audit_behind(writer.head()).await? {
            writer.entry(&entry)?;
        }
    }
    let head = writer.head();
    writer.end(signer, now)?;
    Ok(head)
}

fn about(path: &Path) -> impl Fn(io::Error) -> DecommissionFailure {
    move |source| DecommissionFailure::File { path: path.to_owned(), source }
}

fn digest(path: &Path) -> io::Result<[u8; 32]> {
    let mut hasher = Hasher::default();
    io::copy(&mut File::open(path)?, &mut hasher)?;
    Ok(hasher.finish())
}
