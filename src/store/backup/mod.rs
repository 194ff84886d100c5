//! Backups: every row of the store as of one revision, sealed as it is, signed as a whole.
//!
//! ```text
//! backup | magic "ASSENTB2" | length u32 LE | head, JSON | row | row | ... | end |
//! row    | part u8 | length u16 LE | key | length u32 LE | value |    part: of `Part::ALL`
//! end    | 255 | SHA-256 of all bytes before the end, 32 | Ed25519 signature, 64 |
//!          signed: "assent/backup/1", the digest in hexadecimal, a line each
//! ```
//! A backup holds no key in plain and no ROOT: it opens with the root cell of the deployment only,
//! and of what was in it only what was not revoked since. Whoever keeps it wraps it up once more
//! (`crypto::envelope`), because the rows tell when somebody came and how many there are.
//!
//! # Restoring, and what keeps revoked records out
//! ROOT is replaced at every erasure, so the backup's own root node opens only while nothing was
//! erased since. After that the key mirror has the node that today's ROOT opens (`mirror.rs`). It
//! has today's key of each page. A page of the backup that opens with it had no erasure since. For
//! the others the mirror has the page as its last erasure left it. A record whose key is in neither
//! was revoked since: its rows are removed, counted and written into the audit trail. A key without
//! rows is of somebody who enrolled since: that record is lost, and its key is destroyed.
//!
//! # Invariants
//! - A backup is restored into an empty store, whole or not at all: a signature that does not hold,
//!   a cut or an altered byte leaves nothing that opens.
//! - No key that an erasure destroyed is brought back, whatever the age of backup and mirror: there
//!   is no ROOT that opens one.
//!
//! # Not here
//! Files and directories (cli), the stream to a caller (engine).

mod read;
mod restore;
mod write;

use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use read::{BackupCheck, BackupReader};
pub(super) use restore::RESTORED_ROW;
pub use restore::{Restored, restore};
pub use write::BackupSummary;

use super::StoreError;
use super::backend::Part;
use super::mirror::MirrorFault;
use crate::crypto::cell::Epoch;
use crate::crypto::{OpenError, PUBLIC_KEY_BYTES, SignatureFault};
use crate::types::Timestamp;

const MAGIC: &[u8; 8] = b"ASSENTB2";
const STATEMENT: &str = "assent/backup/1";
/// Stands where a row's part would.
const END: u8 = u8::MAX;
/// Longest head, key and value that are believed, bytes: a block of audit entries is a few hundred
/// kilobytes, the root node of ten million records 1.5 MB.
const MOST_HEAD_BYTES: usize = 4_096;
const MOST_VALUE_BYTES: usize = 64 << 20;

/// What a backup says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackupHead {
    /// When it was begun.
    pub at: Timestamp,
    /// Whose it is.
    #[serde(with = "hex::serde")]
    pub public_key: [u8; PUBLIC_KEY_BYTES],
    /// About how many rows it has.
    pub rows: u64,
}

/// Why a backup is not restored. Nothing that opens is left behind.
#[derive(Debug, Error)]
pub enum RestoreError {
    /// Not read.
    #[error("the backup cannot be read")]
    Read(#[from] std::io::Error),
    /// Not a backup, or of another version.
    #[error("this is not a backup of this program, or it is of another version")]
    Malformed,
    /// No end.
    #[error("the backup was cut short")]
    Cut,
    /// Bytes were changed, or somebody else signed.
    #[error(
        "the backup's signature does not hold: it was altered, or is no backup of its deployment"
    )]
    Signature(#[source] SignatureFault),
    /// The digest in its end is another.
    #[error("the backup was altered")]
    Altered,
    /// Another deployment's.
    #[error("this backup was made under another root key; give the key of its deployment")]
    OtherDeployment,
    /// The store is not empty.
    #[error("the store is not empty; a backup is restored into a new one")]
    NotEmpty,
    /// Something was erased since, or the service restarted, and the mirror is not of today.
    #[error(
        "this backup is of key epoch {backup}, the root key of epoch {cell}: what was erased since is \
         kept from coming back by keys that only the key mirror has, and {}. Name the newest mirror \
         with --mirror", mirror_words(*.mirror)
    )]
    NoNode {
        /// The backup's epoch.
        backup: Epoch,
        /// The epoch of the newest ROOT.
        cell: Epoch,
        /// The mirror's.
        mirror: Option<Epoch>,
    },
    /// The root node of today does not open.
    #[error("the key mirror's root node does not open")]
    Node(#[source] OpenError),
    /// The mirror.
    #[error(transparent)]
    Mirror(#[from] MirrorFault),
    /// The new store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<super::BackendError> for RestoreError {
    fn from(fault: super::BackendError) -> Self {
        Self::Store(fault.into())
    }
}

fn mirror_words(mirror: Option<Epoch>) -> String {
    match mirror {
        None => "no mirror was given, or it is empty".to_owned(),
        Some(epoch) => format!("the mirror given is of epoch {epoch}"),
    }
}

fn statement(digest: &[u8]) -> String {
    format!("{STATEMENT}\n{}\n", hex::encode(digest))
}

/// The byte that stands for a part.
fn code(part: Part) -> u8 {
    let at = Part::ALL.iter().position(|other| *other == part);
    at.and_then(|at| u8::try_from(at).ok()).unwrap_or(END)
}
