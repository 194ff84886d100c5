//! The one thread that writes, and its group commit.
//!
//! Batches that queue up while a commit waits for the disk are committed together in the next
//! transaction: one sync for all of them, a revision for each. Nobody waits for a group to fill.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use redb::Database;
use tokio::sync::{mpsc, oneshot};

use super::super::backend::{BackendError, Batch};
use super::tables::{WriteTables, begin_durable};
use crate::types::Revision;

/// Batches that may wait; whoever comes then waits to queue. More than the requests that the
/// service lets in at once, so that a revocation never waits for a place.
const QUEUE_BATCHES: usize = 1024;
/// Most batches in one transaction: bounds the pages that one commit writes.
const GROUP_BATCHES: usize = 256;

type Outcome = Result<Revision, BackendError>;

struct Job {
    batch: Batch,
    reply: oneshot::Sender<Outcome>,
}

/// Whether commits are still taken; once bad, bad for good.
#[derive(Debug, Clone, Default)]
pub(super) struct Health(Arc<AtomicBool>);

impl Health {
    pub(super) fn is_good(&self) -> bool {
        !self.0.load(Ordering::Acquire)
    }

    fn stop(&self) {
        self.0.store(true, Ordering::Release);
    }
}

/// The way to the writer.
pub(super) struct Queue(mpsc::Sender<Job>);

impl Queue {
    pub(super) async fn commit(&self, batch: Batch) -> Outcome {
        let (reply, outcome) = oneshot::channel();
        // Neither fails unless the writer thread is gone, and then it ended in a panic: closing
        // waits for the queue's last sender.
        self.0.send(Job { batch, reply }).await.map_err(|_unsent| BackendError::Stopped)?;
        outcome.await.unwrap_or(Err(BackendError::Stopped))
    }
}

/// The owner of the writer thread.
pub(super) struct Writer {
    queue: mpsc::Sender<Job>,
    thread: JoinHandle<()>,
}

impl Writer {
    pub(super) fn spawn(database: Arc<Database>, health: Health) -> io::Result<Self> {
        let (queue, jobs) = mpsc::channel(QUEUE_BATCHES);
        let thread = thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || write_until_closed(&database, &health, jobs))?;
        Ok(Self { queue, thread })
    }

    pub(super) fn queue(&self) -> Queue {
        Queue(self.queue.clone())
    }

    pub(super) fn is_alive(&self) -> bool {
        !self.thread.is_finished()
    }

    /// Waits until all that was queued is committed.
    pub(super) fn join(self) {
        drop(self.queue);
        if self.thread.join().is_err() {
            tracing::error!("the store's writer thread had panicked");
        }
    }
}

fn write_until_closed(database: &Database, health: &Health, mut jobs: mpsc::Receiver<Job>) {
    while let Some(first) = jobs.blocking_recv() {
        let mut group = vec![first];
        while group.len() < GROUP_BATCHES {
            let Ok(next) = jobs.try_recv() else { break };
            group.push(next);
        }
        commit_and_reply(database, health, group);
    }
}

fn commit_and_reply(database: &Database, health: &Health, group: Vec<Job>) {
    let (batches, replies): (Vec<_>, Vec<_>) =
        group.into_iter().map(|job| (job.batch, job.reply)).unzip();
    let outcomes = if health.is_good() { commit(database, batches) } else { Ok(Vec::new()) };
    let outcomes = outcomes.unwrap_or_else(|fault| {
        // Before anyone is told: whoever learns of the fault finds health bad already.
        health.stop();
        tracing::error!(%fault, "a commit failed: the store takes no more changes");
        Vec::new()
    });
    let stopped = std::iter::repeat_with(|| Err(BackendError::Stopped));
    for (reply, outcome) in replies.into_iter().zip(outcomes.into_iter().chain(stopped)) {
        // A caller that went away is not told; its batch is committed all the same.
        let _nobody_listens = reply.send(outcome);
    }
}

/// One transaction for all batches; each is applied or refused on its own. No sync when all were
/// refused.
fn commit(database: &Database, batches: Vec<Batch>) -> Result<Vec<Outcome>, redb::Error> {
    let transaction = begin_durable(database)?;
    let mut tables = WriteTables::open(&transaction)?;
    let outcomes = batches
        .into_iter()
        .map(|batch| tables.apply(batch))
        .collect::<Result<Vec<_>, redb::Error>>()?;
    drop(tables);
    if outcomes.iter().any(Result::is_ok) {
        transaction.commit()?;
    } else {
        transaction.abort()?;
    }
    Ok(outcomes)
}
