//! What any durable backend must do, and the types that keep plaintext away from it.

use std::pin::Pin;
use std::sync::Arc;

use thiserror::Error;

use crate::crypto::{DIGEST_BYTES, SealError, Sealed};
use crate::types::{RecordId, Revision};

/// A boxed future, which keeps [`Backend`] object-safe.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The durable truth: tables of opaque rows, and one log entry for each revision.
///
/// Revisions start at 1 and are dense. Every read sees one revision whole, never part of one.
pub trait Backend: Send + Sync + 'static {
    /// Applies `batch` as the next revision, all or nothing; durable on return.
    ///
    /// Dropping the future once it was polled does not take the batch back: it may still be
    /// committed.
    ///
    /// # Errors
    /// A precondition does not hold ([`BackendError::Taken`], [`BackendError::Gone`]) or sealing
    /// failed: no effect. [`BackendError::Stopped`]: whether it took effect shows when the store
    /// is opened anew.
    fn commit(&self, batch: Batch) -> BoxFuture<'_, Result<Revision, BackendError>>;

    /// The newest revision; 0 when nothing was ever committed.
    ///
    /// # Errors
    /// The rows cannot be read.
    fn head(&self) -> BoxFuture<'_, Result<Revision, BackendError>>;

    /// The values of `rows`, in their order, all as of one revision.
    ///
    /// # Errors
    /// The rows cannot be read.
    fn read(&self, rows: Vec<RowId>) -> BoxFuture<'_, Result<Vec<Option<Opaque>>, BackendError>>;

    /// At most `limit` rows of `table` in key order, those after `after`; fewer only at the end.
    ///
    /// # Errors
    /// The rows cannot be read.
    fn scan(
        &self,
        table: Table,
        after: Option<RowKey>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<(RowKey, Opaque)>, BackendError>>;

    /// At most `limit` log entries in order, those after `after`.
    ///
    /// # Errors
    /// The log cannot be read.
    fn log(
        &self,
        after: Revision,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<(Revision, Opaque)>, BackendError>>;

    /// Commits what the companion has to write once `work` has run under the write lock. Takes no
    /// revision.
    ///
    /// # Errors
    /// As [`Backend::commit`].
    fn note(&self, work: Box<dyn FnOnce() + Send>) -> BoxFuture<'_, Result<(), BackendError>>;

    /// The last row of `table` whose key is not beyond `key`.
    ///
    /// # Errors
    /// The rows cannot be read.
    fn floor(
        &self,
        table: Table,
        key: RowKey,
    ) -> BoxFuture<'_, Result<Option<(RowKey, Opaque)>, BackendError>>;

    /// How many rows `table` has.
    ///
    /// # Errors
    /// The rows cannot be read.
    fn count(&self, table: Table) -> BoxFuture<'_, Result<u64, BackendError>>;

    /// Gives every row of every table and every log entry to `sink`, as of one revision, until it
    /// wants no more. It is called where blocking is allowed.
    ///
    /// # Errors
    /// The rows cannot be read.
    fn dump(&self, sink: DumpSink) -> BoxFuture<'_, Result<(), BackendError>>;

    /// Writes rows and log entries as they are, outside of any revision: for a store that is being
    /// restored, before any companion takes part. Durable on return.
    ///
    /// # Errors
    /// The storage.
    fn rewrite(&self, rows: Vec<Rewrite>) -> BoxFuture<'_, Result<(), BackendError>>;

    /// Has `companion` take part in every commit from now on, in the place of an earlier one.
    fn attach(&self, companion: Arc<dyn Companion>);

    /// Whether changes are still taken; false for good after a failed commit.
    fn is_healthy(&self) -> bool;

    /// Whether the storage is full, so that only what destroys should be committed.
    fn is_low_on_space(&self) -> bool;

    /// Looks whether there is space again, where there was not.
    fn regain_space(&self) -> BoxFuture<'_, ()>;

    /// Finishes what was begun and lets the storage go; later calls answer
    /// [`BackendError::Closed`].
    fn close(&self) -> BoxFuture<'_, ()>;
}

/// Takes rows; false when it wants no more.
pub type DumpSink = Box<dyn FnMut(DumpedRow) -> bool + Send>;

/// A part of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// A table.
    Rows(Table),
    /// The log; its keys are revisions, u64 big endian.
    Log,
}

impl Part {
    /// Every part. Backups number them by their place here.
    pub const ALL: [Self; Table::ALL.len() + 1] = {
        let mut all = [Self::Log; Table::ALL.len() + 1];
        let mut at = 0;
        while at < Table::ALL.len() {
            all[at] = Self::Rows(Table::ALL[at]);
            at += 1;
        }
        all
    };
}

/// A row on its way out.
pub struct DumpedRow {
    /// Where it stands.
    pub part: Part,
    /// Its key.
    pub key: RowKey,
    /// Its value.
    pub value: Opaque,
}

/// A row or a log entry on its way in.
pub enum Rewrite {
    /// A row.
    Row(Write),
    /// A log entry, by its revision.
    Log(RowKey, Opaque),
}

impl From<Write> for Rewrite {
    fn from(write: Write) -> Self {
        Self::Row(write)
    }
}

impl From<DumpedRow> for Rewrite {
    fn from(row: DumpedRow) -> Self {
        let DumpedRow { part, key, value } = row;
        match part {
            Part::Rows(table) => Self::Row(Write::Put(table.row(key), value)),
            Part::Log => Self::Log(key, value),
        }
    }
}

/// Reads one row as the transaction under way has it.
pub type ReadRow<'a> = &'a dyn Fn(&RowId) -> Result<Option<Opaque>, BackendError>;

/// Why a companion could not take part.
pub type CompanionFault = Box<dyn std::error::Error + Send + Sync>;

/// What takes part in every commit. Called by the one that writes, never by two at once.
pub trait Companion: Send + Sync {
    /// What the transaction writes besides its batches, once all of them are built and before it
    /// commits. `row` reads rows that only companions write.
    ///
    /// # Errors
    /// Anything; the transaction is given up and the store stops.
    fn complete(&self, row: ReadRow<'_>) -> Result<Vec<Write>, CompanionFault>;

    /// The transaction is durable. Nobody was told yet.
    ///
    /// # Errors
    /// Anything; nobody is told that the commit succeeded, and the store stops.
    fn committed(&self) -> Result<(), CompanionFault>;
}

/// The tables. What a row holds is drawn in `sealing.rs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Table {
    /// What the store says about itself, by fixed name.
    Meta,
    /// Where a record's key lies, by record id.
    Keys,
    /// Pages of record keys, by number.
    KeyPages,
    /// Record headers, by record id.
    Headers,
    /// Templates, by record id.
    Templates,
    /// Answers to enrolments, by record id.
    Answers,
    /// Which record an idempotency key made, by MAC. Never deleted.
    IdempotencyKeys,
    /// Which record a consent id holds or held, by MAC. Never deleted.
    ConsentIds,
    /// The policy document, by fixed name.
    Policy,
    /// Blocks of audit entries, by the number of their first.
    Audit,
    /// What is remembered besides records, by MAC.
    Facts,
}

impl Table {
    /// Every table.
    pub const ALL: [Self; 11] = [
        Self::Meta,
        Self::Keys,
        Self::KeyPages,
        Self::Headers,
        Self::Templates,
        Self::Answers,
        Self::IdempotencyKeys,
        Self::ConsentIds,
        Self::Policy,
        Self::Audit,
        Self::Facts,
    ];

    /// The table with the key `key`: the address of one row.
    #[must_use]
    pub fn row(self, key: RowKey) -> RowId {
        RowId { table: self, key }
    }
}

/// A row's key within its table. Tells nothing about a person: a random id, a MAC or a fixed name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RowKey(Vec<u8>);

impl RowKey {
    /// A MAC.
    #[must_use]
    pub fn mac(mac: [u8; DIGEST_BYTES]) -> Self {
        Self(mac.to_vec())
    }

    /// A name written in the program.
    #[must_use]
    pub fn named(name: &'static str) -> Self {
        Self(name.as_bytes().to_vec())
    }

    /// The number of a page of keys.
    #[must_use]
    pub fn page(number: u32) -> Self {
        Self(number.to_be_bytes().to_vec())
    }

    /// The number that [`RowKey::page`] made this key of, if it can be one.
    #[must_use]
    pub fn page_number(&self) -> Option<u32> {
        self.0.as_slice().try_into().ok().map(u32::from_be_bytes)
    }

    /// The number of an audit entry.
    #[must_use]
    pub fn sequence(number: u64) -> Self {
        Self(number.to_be_bytes().to_vec())
    }

    /// A key as a backend stored it.
    #[must_use]
    pub(in crate::store) fn stored(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The record id that this key is, if it is one.
    #[must_use]
    pub fn record(&self) -> Option<RecordId> {
        self.0.as_slice().try_into().ok().map(RecordId::from_bytes)
    }
}

impl From<RecordId> for RowKey {
    fn from(id: RecordId) -> Self {
        Self(id.as_bytes().to_vec())
    }
}

/// The address of one row.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RowId {
    /// The table.
    pub table: Table,
    /// The key in it.
    pub key: RowKey,
}

/// A value that a backend may see: ciphertext, a MAC, or a place in the key tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opaque(Vec<u8>);

impl Opaque {
    /// A MAC.
    #[must_use]
    pub fn mac(mac: [u8; DIGEST_BYTES]) -> Self {
        Self(mac.to_vec())
    }

    /// A place in the key tree: a page and a slot, which tell nothing.
    #[must_use]
    pub(in crate::store) fn place(place: [u8; 6]) -> Self {
        Self(place.to_vec())
    }

    /// A sealed message behind the epoch that it belongs to.
    #[must_use]
    pub(in crate::store) fn of_epoch(epoch: u64, sealed: Sealed) -> Self {
        Self([&epoch.to_be_bytes()[..], &sealed.into_bytes()].concat())
    }

    /// A value as a backend stored it.
    #[must_use]
    pub(in crate::store) fn stored(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl From<Sealed> for Opaque {
    fn from(sealed: Sealed) -> Self {
        Self(sealed.into_bytes())
    }
}

/// One change, to be applied whole or not at all.
pub struct Batch {
    /// What must hold; checked in order, the first that does not hold names the error.
    pub require: Vec<Precondition>,
    /// Makes the change once the revision is known, so that what is sealed can be bound to it.
    /// Called at most once, under the backend's write lock: computes, and waits for nothing.
    pub build: Box<dyn FnOnce(Revision) -> Result<Changes, SealError> + Send>,
    /// Whether the commit may be held back a little, where the backend is set to that, so that
    /// others share it.
    pub patient: bool,
}

/// What a batch writes.
pub struct Changes {
    /// The rows, in order.
    pub writes: Vec<Write>,
    /// The revision's log entry.
    pub entry: Opaque,
}

/// One write to one row.
pub enum Write {
    /// The row has this value from now on.
    Put(RowId, Opaque),
    /// The row is gone from now on.
    Remove(RowId),
}

/// What must hold for a batch to be applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Precondition {
    /// There is no such row.
    Absent(RowId),
    /// There is such a row.
    Present(RowId),
}

/// Why a backend did not do what was asked.
#[derive(Debug, Error)]
pub enum BackendError {
    /// A row that had to be absent is there.
    #[error("a row of {table:?} is there already")]
    Taken {
        /// Its table.
        table: Table,
    },
    /// A row that had to be present is not there.
    #[error("a row of {table:?} is no longer there")]
    Gone {
        /// Its table.
        table: Table,
    },
    /// The batch could not be sealed.
    #[error("the change could not be sealed")]
    Seal(#[from] SealError),
    /// An earlier commit failed, or this one did.
    #[error("the store stopped taking changes after a failed commit; restart to recover")]
    Stopped,
    /// [`Backend::close`] was called.
    #[error("the store is closed")]
    Closed,
    /// The storage failed to write, outside of a commit.
    #[error("the store cannot be written")]
    Write(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The storage failed to read.
    #[error("the store cannot be read")]
    Read(#[source] Box<dyn std::error::Error + Send + Sync>),
}
