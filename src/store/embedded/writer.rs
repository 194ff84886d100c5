//! The one thread that writes, and its group commit.
//!
//! Batches that queue up while a commit waits for the disk are committed together in the next
//! transaction: one sync for all of them, a revision for each. Nobody waits for a group to fill,
//! unless a window for patient batches (revocations) was set.
//! The companion writes into the same transaction, and has its last word before anybody is told.
//! Where nothing but the companion has something to write, it goes into the journal (`journal.rs`).

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use redb::Database;
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};

use super::super::backend::{BackendError, Batch, Companion, CompanionFault};
use super::journal::{Journal, Lap, NewFrame};
use super::settler::{Settler, Unsettled};
use super::tables::{ReadTables, WriteTables, begin_durable};
use crate::failpoint;
use crate::types::Revision;

/// Batches that may wait; whoever comes then waits to queue. More than the requests that the
/// service lets in at once, so that a revocation never waits for a place.
const QUEUE_BATCHES: usize = 1024;
/// Most batches in one transaction: bounds the pages that one commit writes.
const GROUP_BATCHES: usize = 256;

/// How often the queue is looked at while a commit is held back.
const LOOK: Duration = Duration::from_micros(250);

type Outcome = Result<Revision, BackendError>;

enum Job {
    Batch(Batch, oneshot::Sender<Outcome>),
    Note(Box<dyn FnOnce() + Send>, oneshot::Sender<Result<(), BackendError>>),
    /// Has the tables take what the journal holds.
    Settle(oneshot::Sender<Result<(), BackendError>>),
}

impl Job {
    fn is_patient(&self) -> bool {
        match self {
            Self::Batch(batch, _) => batch.patient,
            Self::Note(..) | Self::Settle(_) => false,
        }
    }

    fn is_note(&self) -> bool {
        matches!(self, Self::Note(..))
    }
}

/// How long a commit with a patient batch in it is held back for others; not at all at first.
#[derive(Debug, Clone, Default)]
pub(super) struct Window(Arc<AtomicU64>);

impl Window {
    pub(super) fn set(&self, window: Duration) {
        let micros = u64::try_from(window.as_micros()).unwrap_or(u64::MAX);
        self.0.store(micros, Ordering::Relaxed);
    }

    fn get(&self) -> Duration {
        Duration::from_micros(self.0.load(Ordering::Relaxed))
    }
}

/// Whether commits are still taken; once bad, bad for good.
#[derive(Debug, Clone, Default)]
pub(super) struct Health(Arc<AtomicBool>);

impl Health {
    pub(super) fn is_good(&self) -> bool {
        !self.0.load(Ordering::Acquire)
    }

    pub(super) fn stop(&self) {
        self.0.store(true, Ordering::Release);
    }
}

/// The companion, once there is one.
#[derive(Clone, Default)]
pub(super) struct Attached(Arc<RwLock<Option<Arc<dyn Companion>>>>);

impl Attached {
    pub(super) fn attach(&self, companion: Arc<dyn Companion>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(companion);
    }

    fn get(&self) -> Option<Arc<dyn Companion>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The way to the writer.
pub(super) struct Queue(mpsc::Sender<Job>);

impl Queue {
    pub(super) async fn commit(&self, batch: Batch) -> Outcome {
        self.send(|reply| Job::Batch(batch, reply)).await
    }

    pub(super) async fn note(&self, work: Box<dyn FnOnce() + Send>) -> Result<(), BackendError> {
        self.send(|reply| Job::Note(work, reply)).await
    }

    pub(super) async fn settle(&self) -> Result<(), BackendError> {
        self.send(Job::Settle).await
    }

    async fn send<T>(
        &self,
        job: impl FnOnce(oneshot::Sender<Result<T, BackendError>>) -> Job,
    ) -> Result<T, BackendError> {
        let (reply, outcome) = oneshot::channel();
        // Neither fails unless the writer thread is gone, and then it ended in a panic: closing
        // waits for the queue's last sender.
        self.0.send(job(reply)).await.map_err(|_unsent| BackendError::Stopped)?;
        outcome.await.unwrap_or(Err(BackendError::Stopped))
    }
}

/// What the writer shares with the backend.
pub(super) struct Shared {
    pub(super) database: Arc<Database>,
    pub(super) health: Health,
    pub(super) companion: Attached,
    pub(super) window: Window,
}

/// The owner of the writer thread.
pub(super) struct Writer {
    queue: mpsc::Sender<Job>,
    thread: JoinHandle<()>,
}

impl Writer {
    pub(super) fn spawn(shared: Shared, journal: Journal) -> io::Result<Self> {
        let (queue, jobs) = mpsc::channel(QUEUE_BATCHES);
        let settler = Settler::spawn(Arc::clone(&shared.database), shared.health.clone())?;
        let thread = thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || Writing { shared, journal, settler }.until_closed(jobs))?;
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

/// What a caller waits for, with what became of its job.
type Reply = Box<dyn FnOnce(bool) + Send>;

/// Why a group was not committed.
#[derive(Debug, Error)]
enum GroupFault {
    #[error("the database failed")]
    Database(#[from] redb::Error),
    #[error("the journal failed")]
    Journal(#[from] io::Error),
    #[error("the tables did not take the journal's rows")]
    Settling(#[from] Unsettled),
    #[error("what goes with every commit failed")]
    Companion(#[from] CompanionFault),
}

/// The writer at work.
struct Writing {
    shared: Shared,
    journal: Journal,
    settler: Settler,
}

impl Writing {
    fn until_closed(mut self, mut jobs: mpsc::Receiver<Job>) {
        while let Some(first) = jobs.blocking_recv() {
            let mut group = vec![first];
            take_waiting(&mut jobs, &mut group);
            if group.iter().any(Job::is_patient) {
                let until = Instant::now() + self.shared.window.get();
                while group.len() < GROUP_BATCHES && Instant::now() < until {
                    thread::sleep(LOOK.min(until.saturating_duration_since(Instant::now())));
                    take_waiting(&mut jobs, &mut group);
                }
            }
            self.commit_and_reply(group);
        }
        if self.shared.health.is_good()
            && let Err(fault) = self.transact(self.journal.lap().last(), |_tables| Ok(true))
        {
            let fault = &fault as &dyn std::error::Error;
            tracing::error!(fault, "the journal was not settled: the next start does it");
        }
    }

    fn commit_and_reply(&mut self, group: Vec<Job>) {
        let mut replies = Vec::with_capacity(group.len());
        let only_notes = group.iter().all(Job::is_note);
        // Jobs that a fault leaves over stay in here, unanswered, until health is bad.
        let mut jobs = group.into_iter();
        let done = self.shared.health.is_good()
            && match self.commit(only_notes, &mut jobs, &mut replies) {
                Ok(()) => true,
                Err(fault) => {
                    // Before anyone is told: whoever learns of it finds health bad already.
                    self.shared.health.stop();
                    let fault = &fault as &dyn std::error::Error;
                    tracing::error!(fault, "a commit failed: the store takes no more changes");
                    false
                }
            };
        for reply in replies {
            reply(done);
        }
        drop(jobs);
    }

    /// One commit for all jobs; each batch is applied or refused on its own. No sync when there is
    /// nothing to write. A job that gets no reply learns that the store stopped from its reply's
    /// end.
    fn commit(
        &mut self,
        only_notes: bool,
        jobs: &mut impl Iterator<Item = Job>,
        replies: &mut Vec<Reply>,
    ) -> Result<(), GroupFault> {
        let companion = self.shared.companion.get();
        if !only_notes {
            return self.transact(self.journal.lap().next(), |tables| {
                let changed = apply(tables, jobs, replies)?;
                let row = |row: &_| tables.value(row).map_err(unread);
                let writes = companion.map_or(Ok(Vec::new()), |with| with.complete(&row))?;
                let changed = changed || !writes.is_empty();
                tables.put(writes)?;
                Ok(changed)
            });
        }
        for job in jobs {
            if let Job::Note(work, reply) = job {
                work();
                replies.push(answer(reply, Ok(())));
            }
        }
        let Some(companion) = companion else { return Ok(()) };
        // What it reads is never in the journal.
        let database = &self.shared.database;
        let row = |row: &_| {
            ReadTables::begin(database).and_then(|tables| tables.value(row)).map_err(unread)
        };
        let writes = companion.complete(&row)?;
        if writes.is_empty() {
            return Ok(());
        }
        if let Some(frame) = NewFrame::of(&writes) {
            if !self.journal.has_room(&frame) {
                self.settler.wait()?;
                let (rows, lap) = self.journal.turn();
                self.settler.settle(rows, lap);
            }
            self.journal.append(frame, writes)?;
            failpoint::reach("commit.durable");
            return Ok(companion.committed()?);
        }
        self.transact(self.journal.lap().next(), |tables| {
            tables.put(writes)?;
            Ok(true)
        })
    }

    /// One transaction of the database, that of `lap`, which settles the journal too; nothing is
    /// written where `work` changed nothing and the journal holds nothing.
    fn transact(
        &mut self,
        lap: Lap,
        work: impl FnOnce(&mut WriteTables<'_>) -> Result<bool, GroupFault>,
    ) -> Result<(), GroupFault> {
        self.settler.wait()?;
        let transaction = begin_durable(&self.shared.database)?;
        let mut tables = WriteTables::new(&transaction);
        tables.settle(self.journal.rows(), lap)?;
        let changed = work(&mut tables)? || !self.journal.rows().is_empty();
        drop(tables);
        if !changed {
            return Ok(transaction.abort().map_err(redb::Error::from)?);
        }
        failpoint::reach("commit.written");
        transaction.commit().map_err(redb::Error::from)?;
        failpoint::reach("commit.durable");
        self.journal.settled(lap);
        self.shared.companion.get().map_or(Ok(()), |companion| companion.committed())?;
        Ok(())
    }
}

fn take_waiting(jobs: &mut mpsc::Receiver<Job>, group: &mut Vec<Job>) {
    while group.len() < GROUP_BATCHES {
        let Ok(next) = jobs.try_recv() else { break };
        group.push(next);
    }
}

/// Does all jobs in one transaction; whether there is anything to commit.
fn apply(
    tables: &mut WriteTables<'_>,
    jobs: &mut impl Iterator<Item = Job>,
    replies: &mut Vec<Reply>,
) -> Result<bool, redb::Error> {
    let mut changed = false;
    for job in jobs {
        match job {
            Job::Batch(batch, reply) => match tables.apply(batch) {
                Ok(outcome) => {
                    changed |= outcome.is_ok();
                    replies.push(answer(reply, outcome));
                }
                Err(fault) => {
                    replies.push(answer(reply, Err(BackendError::Stopped)));
                    return Err(fault);
                }
            },
            Job::Note(work, reply) => {
                work();
                replies.push(answer(reply, Ok(())));
            }
            Job::Settle(reply) => replies.push(answer(reply, Ok(()))),
        }
    }
    Ok(changed)
}

fn unread(fault: redb::Error) -> BackendError {
    BackendError::Read(Box::new(fault))
}

/// The outcome where the group was committed, else that the store stopped.
fn answer<T: Send + 'static>(
    reply: oneshot::Sender<Result<T, BackendError>>,
    outcome: Result<T, BackendError>,
) -> Reply {
    // A caller that went away is not told; its job is done all the same.
    Box::new(move |done| {
        let _nobody_listens = reply.send(if done { outcome } else { Err(BackendError::Stopped) });
    })
}
