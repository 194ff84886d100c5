//! Why the store did not do what was asked.

use thiserror::Error;
use tokio::task::JoinError;

use super::backend::BackendError;
use super::record::RecordFault;
use crate::crypto::cell::{CellError, Epoch};
use crate::crypto::{OpenError, SealError};
use crate::types::{ModelContract, RecordId};

/// Why the store did not do what was asked.
#[derive(Debug, Error)]
pub enum StoreError {
    /// Made under another deployment's key.
    #[error("this store was made with another root key; give the key it was made with")]
    WrongRoot,
    /// The store is an older copy than its root cell.
    #[error(
        "this store is at key epoch {store}, its root key at {cell}: the store was put back to an \
         older copy, in which erased records are still there. Bring the newest data directory \
         back, or make one from a backup with `assent restore`"
    )]
    RolledBack {
        /// The store's epoch.
        store: Epoch,
        /// The epoch of the ROOT in force.
        cell: Epoch,
    },
    /// The root cell is an older copy than the store.
    #[error(
        "this root key is at key epoch {cell}, the store at {store}: the root key was put back to \
         an older copy. Bring the newest root key back"
    )]
    RootBehind {
        /// The store's epoch.
        store: Epoch,
        /// The epoch of the newest ROOT in the cell.
        cell: Epoch,
    },
    /// The root cell failed.
    #[error("the root key's cell failed")]
    Cell(#[from] CellError),
    /// Bound to another embedding space.
    #[error(
        "this store holds templates of model {store}, this process embeds with {given}; \
         templates of different models are never compared"
    )]
    OtherModel {
        /// The store's contract.
        store: ModelContract,
        /// The contract asked for.
        given: ModelContract,
    },
    /// Written by another version of the program.
    #[error("this store has schema {found}, this program knows schema {known}")]
    OtherSchema {
        /// The store's schema version.
        found: u32,
        /// The program's.
        known: u32,
    },
    /// A row that the whole store depends on does not open: the store is in doubt.
    #[error("the store's {what} does not open; restore the store from a backup")]
    Altered {
        /// Which row.
        what: &'static str,
        /// How.
        source: OpenError,
    },
    /// A row that the whole store depends on is not there, or opened to something unknown.
    #[error("the store's {what} is missing or malformed; restore the store from a backup")]
    Malformed {
        /// Which row.
        what: &'static str,
    },
    /// One record does not open.
    #[error("record {id} is quarantined")]
    Record {
        /// The record.
        id: RecordId,
        /// Why.
        source: RecordFault,
    },
    /// The idempotency key has an enrolment already: ask for its answer.
    #[error("this idempotency key was used before")]
    IdempotencyTaken,
    /// The consent id holds or held a record; a withdrawn consent does not come back.
    #[error("this consent id was used before")]
    ConsentTaken,
    /// The record id is held already.
    #[error("this record id was used before")]
    RecordTaken,
    /// Sealing failed.
    #[error("the change could not be sealed")]
    Seal(#[from] SealError),
    /// A header or log entry could not be encoded.
    #[error("the change could not be encoded")]
    Encode(#[from] serde_json::Error),
    /// The audit trail could not be written out.
    #[error("the audit trail could not be written out")]
    Export(#[from] std::io::Error),
    /// The disk is full; what destroys is still taken.
    #[error(
        "the disk is full: nothing but revocations is taken until space is freed on the store's \
         disk; the service goes on by itself then"
    )]
    LowOnSpace,
    /// The backend failed.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// A thread that opened records panicked or the runtime is shutting down.
    #[error("opening the records was interrupted")]
    Interrupted(#[from] JoinError),
}
