//! The embedded backend: one directory, one redb file and its journal, one process.
//!
//! # Invariants
//! - One thread writes, owned by the backend and joined when it closes; another helps it with what
//!   the journal holds (`settler.rs`), and a third makes blocks ahead of both (`blocks.rs`).
//! - The directory is locked while it is open: no second process, no second backend.
//! - After a failed commit the writer takes no other, and health says so.
//! - A full disk is met with the reserve (`reserve.rs`) before it fails a commit.
//! - A damaged file that redb panics over costs an error, not the process (`panics.rs`).

mod blocks;
#[cfg(test)]
pub(super) mod disk;
pub(super) mod journal;
mod open;
mod panics;
pub(super) mod reserve;
mod settler;
mod tables;
mod writer;

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use redb::Database;
use tokio::task::spawn_blocking;

pub use journal::JournalFault;
pub use open::EmbeddedError;

use self::journal::{Ahead, Journal, is_journalled, may_be_journalled};
use self::panics::catch;
use self::reserve::Reserve;
use self::tables::ReadTables;
pub(super) use self::tables::begin_durable;
use self::writer::Writer;
use super::backend::{
    Backend, BackendError, Batch, BoxFuture, Companion, DumpSink, Opaque, Rewrite, RowId, RowKey,
    Table,
};
use crate::types::Revision;

/// A store in one directory of the local disk.
///
/// ```no_run
/// use assent::store::{Backend, Embedded};
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let backend = Embedded::open("/var/lib/assent".as_ref())?;
/// println!("at revision {}", backend.head().await?);
/// backend.close().await;
/// # Ok(()) }
/// ```
pub struct Embedded {
    /// `None` once closed.
    running: RwLock<Option<Running>>,
    health: writer::Health,
    companion: writer::Attached,
    window: writer::Window,
}

struct Running {
    database: Arc<Database>,
    writer: Writer,
    reserve: Reserve,
    ahead: Ahead,
}

impl Embedded {
    /// Starts the writer on an open database whose tables exist.
    fn start(
        database: Database,
        journal: Journal,
        reserve: Reserve,
    ) -> Result<Self, EmbeddedError> {
        let database = Arc::new(database);
        let health = writer::Health::default();
        let companion = writer::Attached::default();
        let window = writer::Window::default();
        let shared = writer::Shared {
            database: Arc::clone(&database),
            health: health.clone(),
            companion: companion.clone(),
            window: window.clone(),
        };
        let ahead = journal.ahead();
        let writer = Writer::spawn(shared, journal).map_err(EmbeddedError::Thread)?;
        let running = RwLock::new(Some(Running { database, writer, reserve, ahead }));
        Ok(Self { running, health, companion, window })
    }

    /// Holds commits with a revocation in them back for `window`, so that revocations that come
    /// together share one replacement of ROOT.
    pub fn gather_revocations(&self, window: Duration) {
        self.window.set(window);
    }

    /// Runs `read` on one revision, off the async threads.
    async fn reading<T: Send + 'static>(
        &self,
        read: impl FnOnce(ReadTables) -> Result<T, redb::Error> + Send + 'static,
    ) -> Result<T, BackendError> {
        let database = self.with_running(|running| Arc::clone(&running.database))?;
        let work = move || ReadTables::begin(&database).and_then(read);
        spawn_blocking(work)
            .await
            .map_err(|panicked| BackendError::Read(Box::new(panicked)))?
            .map_err(|fault| BackendError::Read(Box::new(fault)))
    }

    /// The same; where `journalled`, with what the journal holds in the tables first.
    async fn reading_settled<T: Send + 'static>(
        &self,
        journalled: bool,
        read: impl FnOnce(ReadTables) -> Result<T, redb::Error> + Send + 'static,
    ) -> Result<T, BackendError> {
        if journalled {
            let queue =
                self.with_running(|running| running.ahead.get().then(|| running.writer.queue()))?;
            if let Some(queue) = queue {
                queue.settle().await?;
            }
        }
        self.reading(read).await
    }

    fn with_running<T>(&self, read: impl FnOnce(&Running) -> T) -> Result<T, BackendError> {
        let running = self.running.read().unwrap_or_else(PoisonError::into_inner);
        running.as_ref().map(read).ok_or(BackendError::Closed)
    }

    fn take_running(&self) -> Option<Running> {
        self.running.write().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Backend for Embedded {
    fn commit(&self, batch: Batch) -> BoxFuture<'_, Result<Revision, BackendError>> {
        Box::pin(async move {
            let queue = self.with_running(|running| running.writer.queue())?;
            queue.commit(batch).await
        })
    }

    fn head(&self) -> BoxFuture<'_, Result<Revision, BackendError>> {
        Box::pin(self.reading(|tables| tables.head()))
    }

    fn read(&self, rows: Vec<RowId>) -> BoxFuture<'_, Result<Vec<Option<Opaque>>, BackendError>> {
        let journalled = rows.iter().any(is_journalled);
        Box::pin(self.reading_settled(journalled, move |tables| {
            rows.iter().map(|row| tables.value(row)).collect()
        }))
    }

    fn scan(
        &self,
        table: Table,
        after: Option<RowKey>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<(RowKey, Opaque)>, BackendError>> {
        let journalled = may_be_journalled(table);
        Box::pin(
            self.reading_settled(journalled, move |tables| {
                tables.page(table, after.as_ref(), limit)
            }),
        )
    }

    fn log(
        &self,
        after: Revision,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<(Revision, Opaque)>, BackendError>> {
        Box::pin(self.reading(move |tables| tables.log(after, limit)))
    }

    fn note(&self, work: Box<dyn FnOnce() + Send>) -> BoxFuture<'_, Result<(), BackendError>> {
        Box::pin(async move {
            let queue = self.with_running(|running| running.writer.queue())?;
            queue.note(work).await
        })
    }

    fn floor(
        &self,
        table: Table,
        key: RowKey,
    ) -> BoxFuture<'_, Result<Option<(RowKey, Opaque)>, BackendError>> {
        Box::pin(
            self.reading_settled(may_be_journalled(table), move |tables| tables.floor(table, &key)),
        )
    }

    fn count(&self, table: Table) -> BoxFuture<'_, Result<u64, BackendError>> {
        Box::pin(self.reading_settled(may_be_journalled(table), move |tables| tables.count(table)))
    }

    fn dump(&self, mut sink: DumpSink) -> BoxFuture<'_, Result<(), BackendError>> {
        Box::pin(self.reading_settled(true, move |tables| tables.dump(&mut *sink)))
    }

    fn rewrite(&self, rows: Vec<Rewrite>) -> BoxFuture<'_, Result<(), BackendError>> {
        Box::pin(async move {
            let database = self.with_running(|running| Arc::clone(&running.database))?;
            let fault =
                |fault: Box<dyn std::error::Error + Send + Sync>| BackendError::Write(fault);
            spawn_blocking(move || tables::rewrite(&database, rows))
                .await
                .map_err(|panicked| fault(Box::new(panicked)))?
                .map_err(|failed| fault(Box::new(failed)))
        })
    }

    fn attach(&self, companion: Arc<dyn Companion>) {
        self.companion.attach(companion);
    }

    fn is_healthy(&self) -> bool {
        self.health.is_good()
            && self.with_running(|running| running.writer.is_alive()).unwrap_or(false)
    }

    fn is_low_on_space(&self) -> bool {
        self.with_running(|running| running.reserve.is_low()).unwrap_or(false)
    }

    fn regain_space(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let low = |running: &Running| running.reserve.is_low().then(|| running.reserve.clone());
            if let Ok(Some(reserve)) = self.with_running(low) {
                // Joined; were it to panic, the store stays low on space.
                let _joined = spawn_blocking(move || reserve.regain()).await;
            }
        })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            if let Some(running) = self.take_running() {
                // The blocking task is joined; were it to panic, the writer is gone all the same.
                let _joined = spawn_blocking(move || running.finish()).await;
            }
        })
    }
}

impl Running {
    /// Lets the writer finish its queue, then drops the database and with it the lock.
    fn finish(self) {
        self.writer.join();
        if let Err(fault) = catch(|| drop(self.database)) {
            tracing::error!(%fault, "the database did not close");
        }
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        if let Some(running) = self.take_running() {
            running.finish();
        }
    }
}
