//! How rows lie in the redb file, and how they are read.
//!
//! ```text
//! redb table     key                          value
//! meta           name, UTF-8                  MAC or sealed message   (crypto/seal.rs)
//! keys           record id, 16 bytes          page u32, slot u16      (tree.rs)
//! pages          page u32                     sealed message
//! headers        record id, 16 bytes          sealed message
//! templates      record id, 16 bytes          sealed message
//! answers        record id, 16 bytes          sealed message
//! idempotency    MAC, 32 bytes                sealed message
//! consents       MAC, 32 bytes                sealed message
//! policy         name, UTF-8                  sealed message
//! audit          seq, u64 big endian          sealed message          (trail.rs)
//! facts          MAC, 32 bytes                sealed message          (facts.rs)
//! log            revision, u64                sealed message
//! laps           "last"                       16 bytes                (journal.rs)
//! ```
//! The head is the last key of `log`: there is no second counter that could disagree with it.
//!
//! Crash argument: one redb transaction holds one or more whole revisions, rows and log entries
//! alike. redb writes the new pages beside the old ones, then a commit slot with checksums over
//! both, then syncs; a crash before the sync is done leaves the older slot, or the newer one with
//! everything it points to, and its repair at the next open picks by the checksums. So a revision
//! is there whole or not at all, and once `commit` has returned it is there. Commits without a
//! revision may go through the journal (`journal.rs`), which says why they are there too.

use std::cell::RefCell;

use redb::{
    Database, Durability, ReadOnlyTable, ReadTransaction, ReadableDatabase, ReadableTable,
    ReadableTableMetadata, StorageBackend, TableDefinition, WriteTransaction,
};

use super::super::backend::{
    BackendError, Batch, Changes, DumpedRow, Opaque, Part, Precondition, Rewrite, RowId, RowKey,
    Table, Write,
};
use super::EmbeddedError;
use super::journal::{Journal, JournalFault, Lap, Rows as Journalled};
use crate::types::Revision;

type Rows = TableDefinition<'static, &'static [u8], &'static [u8]>;

const LOG: TableDefinition<'static, u64, &'static [u8]> = TableDefinition::new("log");
const LAPS: TableDefinition<'static, &'static str, [u8; 16]> = TableDefinition::new("laps");
const LAST: &str = "last";

fn definition(table: Table) -> Rows {
    TableDefinition::new(match table {
        Table::Meta => "meta",
        Table::Keys => "keys",
        Table::KeyPages => "pages",
        Table::Headers => "headers",
        Table::Templates => "templates",
        Table::Answers => "answers",
        Table::IdempotencyKeys => "idempotency",
        Table::ConsentIds => "consents",
        Table::Policy => "policy",
        Table::Audit => "audit",
        Table::Facts => "facts",
    })
}

/// Makes all tables, and gives them what the journal of the last time holds; `file` opens it, and
/// is told whether it must be there. The commit also proves, before anything is served, that the
/// disk takes one.
pub(super) fn create(
    database: &Database,
    file: impl FnOnce(bool) -> Result<Box<dyn StorageBackend>, JournalFault>,
) -> Result<Journal, EmbeddedError> {
    let transaction = begin_durable(database)?;
    for table in Table::ALL {
        transaction.open_table(definition(table)).map_err(redb::Error::from)?;
    }
    transaction.open_table(LOG).map_err(redb::Error::from)?;
    let tables = WriteTables::new(&transaction);
    let lap = tables.lap()?;
    let mut journal = Journal::open(file(lap.has_frames())?, lap)?;
    let lap = journal.lap().next();
    tables.settle(journal.rows(), lap)?;
    drop(tables);
    transaction.commit().map_err(redb::Error::from)?;
    journal.settled(lap);
    journal.clear().map_err(JournalFault::from)?;
    Ok(journal)
}

/// A transaction whose commit returns when it is on the disk.
pub(in crate::store) fn begin_durable(
    database: &Database,
) -> Result<WriteTransaction, redb::Error> {
    let mut transaction = database.begin_write()?;
    transaction.set_durability(Durability::Immediate)?;
    Ok(transaction)
}

/// Writes rows and log entries as they are.
pub(super) fn rewrite(database: &Database, rows: Vec<Rewrite>) -> Result<(), redb::Error> {
    let transaction = begin_durable(database)?;
    {
        let mut tables = WriteTables::new(&transaction);
        for row in rows {
            match row {
                Rewrite::Row(write) => tables.put(vec![write])?,
                Rewrite::Log(key, entry) => {
                    let revision = key.as_bytes().try_into().map_or(0, u64::from_be_bytes);
                    tables.log()?.insert(revision, entry.as_bytes())?;
                }
            }
        }
    }
    Ok(transaction.commit()?)
}

/// All tables as of one revision.
pub(super) struct ReadTables {
    transaction: ReadTransaction,
    log: ReadOnlyTable<u64, &'static [u8]>,
}

impl ReadTables {
    pub(super) fn begin(database: &Database) -> Result<Self, redb::Error> {
        let transaction = database.begin_read()?;
        let log = transaction.open_table(LOG)?;
        Ok(Self { transaction, log })
    }

    pub(super) fn head(&self) -> Result<Revision, redb::Error> {
        head_of(&self.log)
    }

    pub(super) fn value(&self, row: &RowId) -> Result<Option<Opaque>, redb::Error> {
        let table = self.transaction.open_table(definition(row.table))?;
        Ok(table.get(row.key.as_bytes())?.map(|value| Opaque::stored(value.value())))
    }

    pub(super) fn floor(
        &self,
        table: Table,
        key: &RowKey,
    ) -> Result<Option<(RowKey, Opaque)>, redb::Error> {
        let table = self.transaction.open_table(definition(table))?;
        let mut rows = table.range::<&[u8]>(..=key.as_bytes())?;
        let Some(row) = rows.next_back() else { return Ok(None) };
        let (key, value) = row?;
        Ok(Some((RowKey::stored(key.value()), Opaque::stored(value.value()))))
    }

    pub(super) fn count(&self, table: Table) -> Result<u64, redb::Error> {
        Ok(self.transaction.open_table(definition(table))?.len()?)
    }

    pub(super) fn dump(
        &self,
        sink: &mut (dyn FnMut(DumpedRow) -> bool + Send),
    ) -> Result<(), redb::Error> {
        for table in Table::ALL {
            for row in self.transaction.open_table(definition(table))?.iter()? {
                let (key, value) = row?;
                let (key, value) = (RowKey::stored(key.value()), Opaque::stored(value.value()));
                if !sink(DumpedRow { part: Part::Rows(table), key, value }) {
                    return Ok(());
                }
            }
        }
        for row in self.log.iter()? {
            let (key, value) = row?;
            let (key, value) = (RowKey::sequence(key.value()), Opaque::stored(value.value()));
            if !sink(DumpedRow { part: Part::Log, key, value }) {
                break;
            }
        }
        Ok(())
    }

    /// Rows behind `after`, in the order of their keys. Where a damaged file has them in another,
    /// who asks for one page after the other would not come to an end: that is an error.
    pub(super) fn page(
        &self,
        table: Table,
        after: Option<&RowKey>,
        limit: usize,
    ) -> Result<Vec<(RowKey, Opaque)>, redb::Error> {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = after.map_or(Unbounded, |key| Excluded(key.as_bytes()));
        let rows: Vec<_> = self
            .transaction
            .open_table(definition(table))?
            .range::<&[u8]>((from, Unbounded))?
            .take(limit)
            .map(|row| {
                let (key, value) = row?;
                Ok((RowKey::stored(key.value()), Opaque::stored(value.value())))
            })
            .collect::<Result<_, redb::Error>>()?;
        in_order(after.into_iter().chain(rows.iter().map(|(key, _)| key)))?;
        Ok(rows)
    }

    /// Entries behind `after`, in order, as for [`ReadTables::page`].
    pub(super) fn log(
        &self,
        after: Revision,
        limit: usize,
    ) -> Result<Vec<(Revision, Opaque)>, redb::Error> {
        let entries: Vec<_> = self
            .log
            .range(after.0.saturating_add(1)..)?
            .take(limit)
            .map(|row| {
                let (key, value) = row?;
                Ok((Revision(key.value()), Opaque::stored(value.value())))
            })
            .collect::<Result<_, redb::Error>>()?;
        in_order([&after].into_iter().chain(entries.iter().map(|(revision, _)| revision)))?;
        Ok(entries)
    }
}

fn in_order<K: PartialOrd>(keys: impl Iterator<Item = K>) -> Result<(), redb::Error> {
    if keys.is_sorted_by(|before, key| before < key) {
        return Ok(());
    }
    Err(redb::Error::Corrupted("rows are not in the order of their keys".into()))
}

type OpenTable<'t> = redb::Table<'t, &'static [u8], &'static [u8]>;

/// The tables in one write transaction, each opened when it is first asked for: a commit that only
/// has decisions to record touches two of them.
pub(super) struct WriteTables<'t> {
    transaction: &'t WriteTransaction,
    rows: RefCell<[Option<OpenTable<'t>>; Table::ALL.len()]>,
    log: Option<redb::Table<'t, u64, &'static [u8]>>,
}

impl<'t> WriteTables<'t> {
    pub(super) fn new(transaction: &'t WriteTransaction) -> Self {
        Self { transaction, rows: RefCell::default(), log: None }
    }

    fn with<T>(
        &self,
        table: Table,
        work: impl FnOnce(&mut OpenTable<'t>) -> Result<T, redb::Error>,
    ) -> Result<T, redb::Error> {
        let place = &mut self.rows.borrow_mut()[table as usize];
        if place.is_none() {
            *place = Some(self.transaction.open_table(definition(table))?);
        }
        work(place.as_mut().expect("opened above"))
    }

    fn log(&mut self) -> Result<&mut redb::Table<'t, u64, &'static [u8]>, redb::Error> {
        if self.log.is_none() {
            self.log = Some(self.transaction.open_table(LOG)?);
        }
        Ok(self.log.as_mut().expect("opened above"))
    }

    /// Applies one batch as the next revision. The outer error is the storage's and dooms the
    /// transaction; the inner one is the batch's own and leaves the transaction as it was.
    pub(super) fn apply(
        &mut self,
        batch: Batch,
    ) -> Result<Result<Revision, BackendError>, redb::Error> {
        if let Some(refusal) = self.refusal(&batch.require)? {
            return Ok(Err(refusal));
        }
        let revision = Revision(head_of(self.log()?)?.0 + 1);
        match (batch.build)(revision) {
            Ok(changes) => self.write(revision, changes).map(|()| Ok(revision)),
            Err(fault) => Ok(Err(fault.into())),
        }
    }

    fn refusal(&self, require: &[Precondition]) -> Result<Option<BackendError>, redb::Error> {
        for precondition in require {
            let (row, wanted) = match precondition {
                Precondition::Absent(row) => (row, false),
                Precondition::Present(row) => (row, true),
            };
            let found = self.value(row)?.is_some();
            match (wanted, found) {
                (false, true) => return Ok(Some(BackendError::Taken { table: row.table })),
                (true, false) => return Ok(Some(BackendError::Gone { table: row.table })),
                (true, true) | (false, false) => {}
            }
        }
        Ok(None)
    }

    /// The value of a row as this transaction has it.
    pub(super) fn value(&self, row: &RowId) -> Result<Option<Opaque>, redb::Error> {
        self.with(row.table, |table| {
            Ok(table.get(row.key.as_bytes())?.map(|value| Opaque::stored(value.value())))
        })
    }

    /// Of the last transaction; that of none before the first.
    fn lap(&self) -> Result<Lap, redb::Error> {
        let table = self.transaction.open_table(LAPS)?;
        let lap = table.get(LAST)?;
        Ok(lap.map_or(Lap::default(), |lap| Lap::from_bytes(lap.value())))
    }

    /// Takes rows that the journal holds, and begins `lap`.
    pub(super) fn settle(&self, rows: &Journalled, lap: Lap) -> Result<(), redb::Error> {
        for (row, value) in rows {
            self.insert(row, value)?;
        }
        self.transaction.open_table(LAPS)?.insert(LAST, lap.to_bytes())?;
        Ok(())
    }

    fn insert(&self, row: &RowId, value: &Opaque) -> Result<(), redb::Error> {
        self.with(row.table, |table| {
            Ok(table.insert(row.key.as_bytes(), value.as_bytes()).map(drop)?)
        })
    }

    fn write(&mut self, revision: Revision, changes: Changes) -> Result<(), redb::Error> {
        self.put(changes.writes)?;
        self.log()?.insert(revision.0, changes.entry.as_bytes())?;
        Ok(())
    }

    pub(super) fn put(&self, writes: Vec<Write>) -> Result<(), redb::Error> {
        for write in writes {
            match write {
                Write::Put(row, value) => self.insert(&row, &value)?,
                Write::Remove(row) => {
                    self.with(row.table, |table| {
                        Ok(table.remove(row.key.as_bytes()).map(drop)?)
                    })?;
                }
            }
        }
        Ok(())
    }
}

fn head_of(log: &impl ReadableTable<u64, &'static [u8]>) -> Result<Revision, redb::Error> {
    Ok(log.last()?.map_or(Revision(0), |(revision, _entry)| Revision(revision.value())))
}
