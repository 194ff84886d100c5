//! The durable, sealed truth: an ordered log of revisions and the rows it leads to.
//!
//! [`Store`] is typed and holds the keys; below it a [`Backend`] holds opaque rows and never sees
//! plaintext. What each row holds and under which key it is sealed is drawn in `sealing.rs`; how
//! rows lie on disk is drawn in `embedded/tables.rs`.
//!
//! # Invariants
//! - What a call acknowledged is durable, and stays: an enrolment until it is revoked, a
//!   revocation for good.
//! - A change is one revision, whole or not at all, with exactly one log entry.
//! - A backend is given [`Opaque`] values and [`RowKey`]s only; outside this module both can be
//!   made from ciphertext, MACs, random ids and fixed names, and from nothing else.
//! - A template opens only together with the exact header, consent included, it was sealed with.
//! - One record that does not open is quarantined and counted; it stops nothing.
//! - After a failed commit nothing more is written until the store is opened anew.
//! - On a full disk nothing is taken but what destroys, and that is (`embedded/reserve.rs`).
//! - What a revocation destroyed does not open with any older copy of the directory and the ROOT
//!   of today (`tree.rs`).
//! - A store that is older than its root cell is not opened.
//!
//! # Limits today
//! A whole store put back to an older state of the same epoch of the root key is not noticed here;
//! a witness of the audit trail notices it. Any altered, misplaced or missing row is.
//!
//! # Not here
//! Who may enrol or revoke, and zeroising of what is in memory: that is the engine's and the
//! index's business.

mod backend;
mod backup;
mod changes;
mod embedded;
mod error;
mod facts;
mod load;
mod log;
mod mirror;
mod opening;
mod reads;
mod record;
mod sealing;
mod snapshot;
mod trail;
mod tree;
mod typed;
mod vault;

#[cfg(test)]
mod tests;

/// The deployment's signature; the store holds its key.
pub use crate::crypto::Signer;
pub use backend::{
    Backend, BackendError, Batch, BoxFuture, Changes, Companion, CompanionFault, DumpSink,
    DumpedRow, Opaque, Part, Precondition, ReadRow, Rewrite, RowId, RowKey, Table, Write,
};
pub use backup::{
    BackupCheck, BackupHead, BackupReader, BackupSummary, RestoreError, Restored, restore,
};
pub use embedded::{Embedded, EmbeddedError, JournalFault};
pub use error::StoreError;
pub use facts::{Fact, FactKind, Facts};
pub use load::LoadReport;
pub use log::{AuditEvent, FoundUnder, LogEntry, PadNote, RevocationCause};
pub use mirror::{KeyMirror, MirrorFault};
pub use record::{OpenedRecord, RecordFault, StoredRecord};
pub use snapshot::{
    KeyRing, Snapshot, SnapshotFault, SnapshotHead, SnapshotRow, SnapshotRows, SnapshotWriter,
};
pub use typed::{IdempotentWrite, PriorAnswer, Revoked, Store};
pub use vault::KeyStatus;
