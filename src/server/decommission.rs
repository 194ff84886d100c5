//! The end of a deployment: keys destroyed, files wiped, a signed certificate (O3, M15).
//!
//! # Invariants
//! - The audit trail is written out, signed and synced before anything is destroyed: M9 and M14
//!   want it kept.
//! - Keys go first. From then on nothing that is left of the store, its backups or its snapshots
//!   opens, whatever becomes of the wiping.
//! - The keys sign before they go: a certificate lies in the data directory, durable, when they are
//!   destroyed. A crash in between leaves it there, and [`finish`] goes on from it.
//! - A data directory that was decommissioned says so, and is never served again.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;
use serde_json::{Value, json};
use thiserror::Error;

use crate::audit::{ExportWriter, Head, Receipt, ReceiptKind};
use crate::config::Settings;
use crate::consent::{BeijingDay, FilingRecord, FilingRules};
use crate::crypto::Hasher;
use crate::crypto::cell::CellError;
use crate::failpoint;
use crate::service::{json, proto};
use crate::store::{AuditEvent, Embedded, EmbeddedError, FactKind, Signer, Store, StoreError};
use crate::types::{Revision, Timestamp};

/// What a decommissioned data directory holds: the certificate.
const MARKER: &str = "decommissioned.json";
/// What it holds while it is being decommissioned: the certificate that was signed beforehand.
const PLEDGE: &str = "decommissioning.json";

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
        "decommissioning {} was interrupted after the keys were destroyed; finish it with `assent \
         decommission --output FILE`",
        path.display()
    )]
    Interrupted {
        /// The data directory.
        path: PathBuf,
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

/// Whether decommissioning the data directory was begun and did not end.
#[must_use]
pub(super) fn is_begun(data_dir: &Path) -> bool {
    data_dir.join(PLEDGE).exists()
}

/// Whether decommissioning was interrupted after the keys were destroyed.
#[must_use]
pub fn is_interrupted(settings: &Settings) -> bool {
    is_begun(&settings.data_dir)
        && !is_decommissioned(&settings.data_dir)
        && settings.cell.is_destroyed()
}

/// Goes on with a decommissioning that was interrupted after the keys were destroyed.
///
/// # Errors
/// The certificate that was signed beforehand does not hold, or the new one would lie among what is
/// wiped.
pub fn finish(
    settings: &Settings,
    certificate: &Path,
) -> Result<Decommissioned, DecommissionFailure> {
    let roots = places(settings)?;
    check_outside(certificate, &roots)?;
    let path = settings.data_dir.join(PLEDGE);
    let text = fs::read(&path).map_err(about(&path))?;
    let certificate = serde_json::from_slice::<Receipt>(&text).ok();
    let statement = certificate.as_ref().and_then(|receipt| receipt.verify(None).ok());
    let (Some(certificate), Some(statement)) = (certificate, statement) else {
        return Err(DecommissionFailure::Pledge { path });
    };
    let left = wipe_all(settings, &roots);
    let marked = mark(&settings.data_dir, &certificate);
    let filed = statement.body["filed"].as_array().into_iter().flatten();
    let filed = filed.filter_map(|id| id.as_str().map(str::to_owned)).collect();
    let until = statement.body["cancel_filing_until"].as_str().unwrap_or_default();
    let cancel_until = until.to_owned();
    Ok(Decommissioned { certificate, filed, cancel_until, left, marked })
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
    pledge(&settings.data_dir, &Receipt::sign(&signer, &statement))?;
    failpoint::reach("decommission.pledged");
    cell.destroy()?;
    drop(cell);
    failpoint::reach("decommission.destroyed");
    // From here on nothing opens any more, so that whatever cannot be wiped is named.
    let left = wipe_all(settings, &roots);
    failpoint::reach("decommission.wiped");
    statement["completed_at"] = json!(Timestamp::now());
    statement["verification"] = words(if left.is_empty() { GONE } else { LEFT });
    statement["left"] = json!(left);
    let certificate = Receipt::sign(&signer, &statement);
    let marked = mark(&settings.data_dir, &certificate);
    Ok(Decommissioned { certificate, filed: inventory.filed, cancel_until, left, marked })
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
    if !is_interrupted(settings) && !Embedded::is_in(&path) {
        return Err(DecommissionFailure::Nothing { path });
    }
    if is_interrupted(settings) {
        return Err(DecommissionFailure::Interrupted { path });
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

/// Everything that belongs to the deployment, the root key apart, where it really is.
fn places(settings: &Settings) -> Result<Vec<PathBuf>, DecommissionFailure> {
    let snapshot = settings.snapshots.as_ref().map(|snapshots| &snapshots.settings.path);
    let places = [Some(&settings.data_dir), Some(&settings.key_mirror), snapshot];
    let there = places.into_iter().flatten().filter(|path| path.exists());
    there.map(|path| fs::canonicalize(path).map_err(about(path))).collect()
}

/// No paper is among what is wiped.
fn check_outside(paper: &Path, roots: &[PathBuf]) -> Result<(), DecommissionFailure> {
    let Some(root) = roots.iter().find(|root| lies_in(paper, root)) else { return Ok(()) };
    Err(DecommissionFailure::Inside { path: paper.to_owned(), root: root.clone() })
}

fn about(path: &Path) -> impl Fn(io::Error) -> DecommissionFailure {
    move |source| DecommissionFailure::File { path: path.to_owned(), source }
}

/// Whether a file that is to be made would be one of what is wiped.
fn lies_in(file: &Path, root: &Path) -> bool {
    let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = fs::canonicalize(parent.unwrap_or(Path::new(".")));
    parent.is_ok_and(|parent| parent.starts_with(root))
}

fn list(path: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    if !fs::symlink_metadata(path)?.is_dir() {
        if !files.iter().any(|file| file == path) {
            files.push(path.to_owned());
        }
        return Ok(());
    }
    let entries = fs::read_dir(path)?.map(|entry| Ok(entry?.path()));
    let mut entries = entries.collect::<io::Result<Vec<_>>>()?;
    entries.sort();
    entries.iter().try_for_each(|entry| list(entry, files))
}

/// Wipes all that belongs to the deployment but the certificate that was signed beforehand; what
/// could not be wiped.
fn wipe_all(settings: &Settings, roots: &[PathBuf]) -> Vec<String> {
    let mut left = Vec::new();
    for root in roots {
        if let Err(fault) = wipe(root) {
            left.push(format!("{}: {fault}", root.display()));
        }
        let mut files = Vec::new();
        let _unreadable = list(root, &mut files);
        let files = files.iter().filter(|file| !file.ends_with(PLEDGE));
        left.extend(files.map(|file| file.display().to_string()));
    }
    if settings.cell.open().is_ok() {
        left.push(settings.cell.to_string());
    }
    left
}

/// Overwrites and removes a file, or what is in a directory. The directory itself stays: it may be
/// where another file system is mounted.
fn wipe(root: &Path) -> io::Result<()> {
    if !root.is_dir() {
        return wipe_whole(root);
    }
    // What can be wiped is, whatever else cannot.
    let mut outcome = Ok(());
    for entry in fs::read_dir(root)? {
        let path = entry?.path();
        if !path.ends_with(PLEDGE) {
            outcome = outcome.and(wipe_whole(&path));
        }
    }
    outcome
}

/// Overwrites and removes a file, or a directory with all in it. What a link in it points to stays.
fn wipe_whole(path: &Path) -> io::Result<()> {
    let data = match fs::symlink_metadata(path) {
        // Another place lay in this one.
        Err(fault) if fault.kind() == io::ErrorKind::NotFound => return Ok(()),
        data => data?,
    };
    if data.is_dir() {
        for entry in fs::read_dir(path)? {
            wipe_whole(&entry?.path())?;
        }
        return fs::remove_dir(path);
    }
    if data.is_file() {
        let mut file = OpenOptions::new().write(true).open(path)?;
        io::copy(&mut io::repeat(0).take(data.len()), &mut file)?;
        file.sync_all()?;
    }
    fs::remove_file(path)
}

/// Puts the certificate that was signed beforehand where a later start finds it.
fn pledge(data_dir: &Path, certificate: &Receipt) -> Result<(), DecommissionFailure> {
    let path = data_dir.join(PLEDGE);
    let text = serde_json::to_vec(certificate).map_err(io::Error::from);
    let written = text.and_then(|text| keep(&path, &text));
    written.map_err(about(&path))
}

/// Puts the certificate where everybody finds it.
fn mark(data_dir: &Path, certificate: &Receipt) -> Result<(), DecommissionFailure> {
    let path = data_dir.join(MARKER);
    let message = proto::Receipt::from(certificate);
    let value = json::to_json("Receipt", &message).unwrap_or_default();
    let written = fs::create_dir_all(data_dir)
        .and_then(|()| keep(&path, format!("{value:#}\n").as_bytes()))
        .and_then(|()| wipe_whole(&data_dir.join(PLEDGE)));
    written.map_err(about(&path))
}

/// Writes a file whole, durable on return, its name too.
fn keep(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(text)?;
    file.sync_all()?;
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

fn digest(path: &Path) -> io::Result<[u8; 32]> {
    let mut hasher = Hasher::default();
    io::copy(&mut File::open(path)?, &mut hasher)?;
    Ok(hasher.finish())
}
