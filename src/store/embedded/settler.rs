//! The thread that has the tables take a full half of the journal, while decisions go on into the
//! other half.
//!
//! # Invariants
//! - One half at most is on its way: whoever hands over another, or begins a transaction of the
//!   database, has waited for the one before.
//! - The store's health is bad before anybody learns that the tables did not take one.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};

use redb::Database;
use thiserror::Error;

use super::journal::{Lap, Rows};
use super::panics::catch;
use super::tables::{WriteTables, begin_durable};
use super::writer::Health;

/// The tables did not take a half; the log says why.
#[derive(Debug, Error)]
#[error("a transaction for them failed")]
pub(super) struct Unsettled;

/// The owner of the thread, which ends with it.
pub(super) struct Settler {
    /// `None` once the thread is to end.
    halves: Option<Sender<(Rows, Lap)>>,
    done: Receiver<()>,
    is_busy: bool,
    /// `None` once it is joined.
    thread: Option<JoinHandle<()>>,
}

impl Settler {
    pub(super) fn spawn(database: Arc<Database>, health: Health) -> io::Result<Self> {
        let (halves, to_take) = channel();
        let (tell, done) = channel();
        let work = move || {
            for (rows, lap) in to_take {
                if let Err(fault) = take(&database, &rows, lap) {
                    health.stop();
                    tracing::error!(fault, "the journal was not settled");
                    return;
                }
                // Who waits no longer has ended in a panic.
                let _nobody_waits = tell.send(());
            }
        };
        let thread = thread::Builder::new().name("store-settler".into()).spawn(work)?;
        Ok(Self { halves: Some(halves), done, is_busy: false, thread: Some(thread) })
    }

    /// Has the tables take `rows`, which begins `lap`. Returns at once.
    pub(super) fn settle(&mut self, rows: Rows, lap: Lap) {
        debug_assert!(!self.is_busy, "the half before is waited for");
        if let Some(halves) = &self.halves {
            // Where the thread is gone, whoever waits learns of it.
            let _gone = halves.send((rows, lap));
        }
        self.is_busy = true;
    }

    /// Waits until the tables have what was handed over last.
    pub(super) fn wait(&mut self) -> Result<(), Unsettled> {
        if self.is_busy {
            self.done.recv().map_err(|_gone| Unsettled)?;
            self.is_busy = false;
        }
        Ok(())
    }
}

impl Drop for Settler {
    /// Waits until the thread has done what it was given: it holds the database.
    fn drop(&mut self) {
        self.halves = None;
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the store's settler thread had panicked");
        }
    }
}

fn take(database: &Database, rows: &Rows, lap: Lap) -> Result<(), Box<dyn Error + Send + Sync>> {
    let transact = || -> Result<(), redb::Error> {
        let transaction = begin_durable(database)?;
        WriteTables::new(&transaction).settle(rows, lap)?;
        Ok(transaction.commit()?)
    };
    Ok(catch(transact)??)
}
