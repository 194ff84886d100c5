//! The one queue that all workers serve, and its policy.
//!
//! A worker that is free takes, in this order: a full batch of crops; a frame; whatever crops
//! there are. So under load detection fills batches, and with nothing else to do a crop never
//! waits: there is no timer. Crops cannot starve behind frames without faces either, for after as
//! many frames as a batch holds they have their turn.
//!
//! # Invariants
//! - At most `places` jobs exist at once; a job gives its place back when it is answered or
//!   dropped.
//! - A job that nobody waits for, or whose deadline passed, is never handed to a worker.
//! - After [`Queue::close`] no job is accepted, and those that wait are dropped.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::sync::{Semaphore, oneshot};

use super::frame::Frame;
use super::job::{
    Caller, CropJob, Embedded, FaceDemands, FrameJob, PipelineError, Ticket, Unwanted,
};

/// How long a worker waits without work before it overwrites what its sessions still hold. Short,
/// because of what was promised about memory after an answer; not none, because a gate that sends
/// one frame after the other would wait for the overwriting.
const QUIET: Duration = Duration::from_millis(20);

/// What a worker is to do.
pub(super) enum Work {
    /// Detect in this frame.
    Frame(FrameJob),
    /// Embed these crops together: as many as one of the batch sizes.
    Crops(Vec<CropJob>),
    /// Nothing came for a while: overwrite.
    Scrub,
    /// The queue is closed: end.
    End,
}

/// Why the queue is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Closed {
    /// On request.
    Stopped,
    /// A worker failed.
    Failed,
}

/// Figures of a pipeline since its start.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// Frames that wait for detection now.
    pub waiting_frames: usize,
    /// Crops that wait for embedding now.
    pub waiting_crops: usize,
    /// Jobs waiting or in work now.
    pub in_flight: usize,
    /// Jobs refused because all places were taken.
    pub refused_overloaded: u64,
    /// Jobs dropped before a stage because their deadline had passed.
    pub dropped_late: u64,
    /// Jobs dropped before a stage because their caller was gone.
    pub dropped_cancelled: u64,
    /// Inferences by batch size, in order of size: (faces, inferences).
    pub batches: Vec<(usize, u64)>,
}

/// Shared by the pipeline's handle and its workers.
pub(super) struct Queue {
    state: Mutex<State>,
    work: Condvar,
    places: Arc<Semaphore>,
    bound: usize,
    /// Ascending, the first is 1.
    batch_sizes: Vec<usize>,
    refused: AtomicU64,
}

#[derive(Default)]
struct State {
    frames: VecDeque<FrameJob>,
    crops: VecDeque<CropJob>,
    /// Frames handed out while crops waited, since crops were handed out last.
    frames_before_crops: usize,
    closed: Option<Closed>,
    late: u64,
    cancelled: u64,
    /// Inferences, in the order of the batch sizes.
    batches: Vec<u64>,
}

impl Queue {
    /// A queue of at most `bound` jobs whose crops are handed out in `batch_sizes` (ascending, the
    /// first is 1).
    pub(super) fn new(bound: usize, batch_sizes: Vec<usize>) -> Self {
        let bound = bound.min(Semaphore::MAX_PERMITS);
        let state = State { batches: vec![0; batch_sizes.len()], ..State::default() };
        Self {
            state: Mutex::new(state),
            work: Condvar::new(),
            places: Arc::new(Semaphore::new(bound)),
            bound,
            batch_sizes,
            refused: AtomicU64::new(0),
        }
    }

    /// Accepts a frame, or refuses it at once.
    pub(super) fn accept(
        &self,
        frame: Frame,
        demands: FaceDemands,
        ticket: Ticket,
        reply: oneshot::Sender<Result<Embedded, PipelineError>>,
    ) -> Result<(), PipelineError> {
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_full| {
            self.refused.fetch_add(1, Ordering::Relaxed);
            PipelineError::Overloaded
        })?;
        let mut state = self.state();
        if let Some(why) = state.closed {
            return Err(why.into());
        }
        state.frames.push_back(FrameJob {
            frame,
            demands,
            caller: Caller::new(reply, ticket, place),
        });
        self.work.notify_one();
        Ok(())
    }

    /// Takes back a job between its stages. Nobody is woken: the worker that returns a crop comes
    /// for more work itself, and whatever else waits has woken somebody when it came.
    pub(super) fn return_crop(&self, mut job: CropJob) {
        let mut state = self.state();
        if state.closed.is_none() {
            job.caller.enters_queue();
            state.crops.push_back(job);
        }
    }

    /// Waits for work. `scrub` asks to be told when none comes for a while.
    pub(super) fn take(&self, scrub: bool) -> Work {
        let mut state = self.state();
        // From the first wait on: that others were woken for work of theirs puts nothing off.
        let quiet_at = Instant::now() + QUIET;
        loop {
            if state.closed.is_some() {
                return Work::End;
            }
            state.drop_unwanted();
            if let Some(work) = state.next(&self.batch_sizes) {
                return work;
            }
            if !scrub {
                state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let left = quiet_at.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Work::Scrub;
            }
            (state, _) =
                self.work.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Refuses all further work, drops what waits and wakes all workers. The first reason stays.
    pub(super) fn close(&self, why: Closed) {
        let mut state = self.state();
        state.closed.get_or_insert(why);
        state.frames.clear();
        state.crops.clear();
        self.work.notify_all();
    }

    /// Why the queue is closed, if it is.
    pub(super) fn closed(&self) -> Option<Closed> {
        self.state().closed
    }

    pub(super) fn counters(&self) -> Counters {
        let state = self.state();
        let sizes = self.batch_sizes.iter().copied();
        Counters {
            waiting_frames: state.frames.len(),
            waiting_crops: state.crops.len(),
            in_flight: self.bound - self.places.available_permits(),
            refused_overloaded: self.refused.load(Ordering::Relaxed),
            dropped_late: state.late,
            dropped_cancelled: state.cancelled,
            batches: sizes.zip(state.batches.iter().copied()).collect(),
        }
    }

    /// No code panics while it holds the lock, and each change leaves the state whole.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl From<Closed> for PipelineError {
    fn from(why: Closed) -> Self {
        match why {
            Closed::Stopped => Self::Stopped,
            Closed::Failed => Self::Internal,
        }
    }
}

impl State {
    fn next(&mut self, batch_sizes: &[usize]) -> Option<Work> {
        let full = batch_sizes.last().copied().unwrap_or(1);
        let turn = self.crops.len() >= full || self.frames_before_crops >= full;
        if !self.crops.is_empty() && (turn || self.frames.is_empty()) {
            return Some(Work::Crops(self.next_batch(batch_sizes)));
        }
        let mut job = self.frames.pop_front()?;
        self.frames_before_crops += usize::from(!self.crops.is_empty());
        job.caller.leaves_queue(Instant::now());
        Some(Work::Frame(job))
    }

    /// The largest batch size that the waiting crops fill.
    fn next_batch(&mut self, batch_sizes: &[usize]) -> Vec<CropJob> {
        let index = batch_sizes.iter().rposition(|size| *size <= self.crops.len()).unwrap_or(0);
        self.batches[index] += 1;
        self.frames_before_crops = 0;
        let (now, size) = (Instant::now(), batch_sizes[index].min(self.crops.len()));
        let mut batch: Vec<CropJob> = self.crops.drain(..size).collect();
        for job in &mut batch {
            job.caller.leaves_queue(now);
        }
        batch
    }

    /// Drops, and counts, every job that is not worth another stage. Each queue is turned round
    /// once, which keeps its order and allocates nothing.
    fn drop_unwanted(&mut self) {
        let now = Instant::now();
        for _ in 0..self.frames.len() {
            let Some(job) = self.frames.pop_front() else { break };
            match job.caller.unwanted(now) {
                None => self.frames.push_back(job),
                Some(why) => self.drop_job(job.caller, why),
            }
        }
        for _ in 0..self.crops.len() {
            let Some(job) = self.crops.pop_front() else { break };
            match job.caller.unwanted(now) {
                None => self.crops.push_back(job),
                Some(why) => self.drop_job(job.caller, why),
            }
        }
    }

    fn drop_job(&mut self, caller: Caller, why: Unwanted) {
        match why {
            Unwanted::Cancelled => self.cancelled += 1,
            Unwanted::Late => {
                self.late += 1;
                caller.answer(Err(PipelineError::Late));
            }
        }
    }
}
