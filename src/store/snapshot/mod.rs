//! Sealed snapshots: the index's rows in one file, so that a start need not open every record.
//!
//! ```text
//! file  | magic "ASSENTS1" | length u32 LE | head, sealed | row | row | ...
//! head  sealed under D/Snapshot, associated data "snapshot head":
//!       | id of the snapshot, 16 random bytes | revision u64 BE | rows u64 BE | the index's head |
//! row   | record 16 | page u32 BE, slot u16 BE | length u32 LE | sealed |
//!       sealed under HKDF(K, "row") of the record's own key K, associated data: id of the
//!       snapshot, record
//! ```
//! In plain stands which record a row belongs to and where that record's key lies, as in the store
//! itself. What is sealed is the engine's and the index's business.
//!
//! A row opens with its record's key and with nothing else, so that a revocation is the end of the
//! row in every snapshot there ever was: `tree.rs` has the argument. The key tree says who is there.
//! A row whose key is gone is passed over; a key that no row came for is loaded from its record. So
//! a snapshot may be as old as it likes, may end anywhere, and is never believed about who is there.
//! What a record is held under never changes while it is held, so that no row is out of date.
//!
//! # Crash argument
//! A snapshot is written beside the one before and takes its name once it is synced. A crash leaves
//! the one before, or the new one whole, and at most a file in the making, which the next overwrites;
//! one that fails takes its file along.
//!
//! # Invariants
//! - A row that was altered, cut or put into another snapshot does not open, and only its record
//!   has to be loaded from the store.
//!
//! # Not here
//! When snapshots are written (server), and what is in a row (engine, index).

mod read;
mod write;

use std::io;

use thiserror::Error;
use zeroize::Zeroizing;

pub use read::{KeyRing, Snapshot, SnapshotRows};
pub use write::SnapshotWriter;

use crate::crypto::{OpenError, SealError};
use crate::types::{RecordId, Revision};

const MAGIC: &[u8; 8] = b"ASSENTS1";
const HEAD_AAD: &[u8] = b"snapshot head";
const ID_BYTES: usize = 16;
const LENGTH_BYTES: usize = size_of::<u32>();
/// Longest head and longest row that are believed, bytes.
const MOST_BYTES: usize = 64 << 10;

/// Which snapshot a row belongs to.
#[derive(Clone, Copy)]
struct SnapshotId([u8; ID_BYTES]);

impl SnapshotId {
    /// What a row of it is bound to.
    fn aad(self, record: RecordId) -> [u8; 2 * ID_BYTES] {
        let mut aad = [0; 2 * ID_BYTES];
        let (snapshot, of) = aad.split_at_mut(ID_BYTES);
        snapshot.copy_from_slice(&self.0);
        of.copy_from_slice(record.as_bytes());
        aad
    }
}

/// What a snapshot says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotHead {
    /// The revision before its first row was read.
    pub revision: Revision,
    /// About how many rows it has.
    pub rows: u64,
    /// What the index said of itself.
    pub index: Vec<u8>,
}

/// One record's row.
pub struct SnapshotRow {
    /// Whose it is.
    pub record: RecordId,
    /// What is sealed.
    pub plain: Zeroizing<Vec<u8>>,
}

/// Why there is no snapshot to read, or none could be written. The store is as good as ever.
#[derive(Debug, Error)]
pub enum SnapshotFault {
    /// The file.
    #[error("the snapshot's file cannot be read or written")]
    Io(#[from] io::Error),
    /// Not a snapshot, or of another version.
    #[error("the snapshot is cut short or of another version")]
    Malformed,
    /// Its head does not open.
    #[error("the snapshot is altered or of another deployment")]
    Altered(#[source] OpenError),
    /// Sealing failed.
    #[error("the snapshot could not be sealed")]
    Seal(#[from] SealError),
    /// The keys of the rows could not be read.
    #[error("the keys of a snapshot's rows cannot be read")]
    Keys(#[source] Box<super::StoreError>),
    /// A thread that sealed rows panicked, or the runtime is shutting down.
    #[error("writing the snapshot was interrupted")]
    Interrupted,
}
