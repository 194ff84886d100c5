//! The one queue that all workers serve, and its policy.
//!
//! A worker that is free takes, in this order: a full batch of crops; a frame; whatever crops
//! there are. So under load detection fills batches, and with nothing else to do a crop never
//! waits: there is no timer. Crops cannot starve behind frames without faces either, for after as
//! many frames as a batch holds they have their turn. Where a device has fewer sessions than there
//! are workers, crops gather until one is free. Which frame comes next is what `lanes` says.
//!
//! A frame is refused at once when it would not be answered in time: what is ahead of it and how
//! fast that goes (`pace`) are known. So a burst is refused early instead of answered late.
//!
//! # Invariants
//! - At most `places` jobs exist at once; a job gives its place back when it is answered or
//!   dropped, or to the newer frame that takes its turn. Those that nobody waits for at a gate
//!   wait in half of the places at most.
//! - A job that nobody waits for, or whose deadline passed, is never handed to a worker.
//! - After [`Queue::close`] no job is accepted, and those that wait are dropped.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::frame::Frame;
use super::job::{
    Caller, CropJob, Embedded, FaceDemands, FrameJob, PipelineError, Ticket, Unwanted,
};
use super::lanes::{Lanes, Urgency};
use super::pace::Pace;

/// How long a worker waits without work before it overwrites what its sessions still hold. Short,
/// because of what was promised about memory after an answer; not none, because a gate that sends
/// one frame after the other would wait for the overwriting.
const QUIET: Duration = Duration::from_millis(20);

/// What a worker is to do.
pub(super) enum Work {
    /// Detect in this frame.
    Frame(Box<FrameJob>),
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
    /// Jobs refused because they would not have been answered in time, or found no place.
    pub refused_overloaded: u64,
    /// Jobs dropped from the queue for others: more urgent ones, or those of a feed that had less
    /// waiting.
    pub dropped_evicted: u64,
    /// Frames dropped because the same feed sent a newer one.
    pub dropped_superseded: u64,
    /// Jobs dropped before a stage because their deadline had passed.
    pub dropped_late: u64,
    /// Jobs dropped before a stage because their caller was gone.
    pub dropped_cancelled: u64,
    /// Inferences by batch size, in order of size: (faces, inferences).
    pub batches: Vec<(usize, u64)>,
}

/// What a queue is made for.
pub(super) struct QueueShape {
    /// Most jobs that wait or are in work.
    pub(super) places: usize,
    /// In what sizes crops are handed out; ascending, the first is 1.
    pub(super) batch_sizes: Vec<usize>,
    /// How many workers take from it.
    pub(super) workers: usize,
    /// How many batches may be in work at once.
    pub(super) recognisers: usize,
    /// Longest wait that a frame of a gate is accepted for.
    pub(super) gate_wait: Duration,
}

/// Shared by the pipeline's handle and its workers.
pub(super) struct Queue {
    state: Mutex<State>,
    work: Condvar,
    places: Arc<Semaphore>,
    shape: QueueShape,
    pub(super) pace: Pace,
    refused: AtomicU64,
}

#[derive(Default)]
struct State {
    frames: Lanes<Box<FrameJob>>,
    crops: VecDeque<CropJob>,
    /// Frames handed out while crops waited, since crops were handed out last.
    frames_before_crops: usize,
    /// Batches in work.
    embedding: usize,
    closed: Option<Closed>,
    dropped: Dropped,
    /// Inferences, in the order of the batch sizes.
    batches: Vec<u64>,
}

/// Jobs that ended between stages, by reason.
#[derive(Default)]
struct Dropped {
    late: u64,
    cancelled: u64,
    evicted: u64,
    superseded: u64,
}

impl Queue {
    pub(super) fn new(mut shape: QueueShape) -> Self {
        shape.places = shape.places.min(Semaphore::MAX_PERMITS);
        let state = State { batches: vec![0; shape.batch_sizes.len()], ..State::default() };
        Self {
            state: Mutex::new(state),
            work: Condvar::new(),
            places: Arc::new(Semaphore::new(shape.places)),
            shape,
            pace: Pace::default(),
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
        let now = Instant::now();
        let caller = Caller::new(reply, ticket, now);
        let mut job = Box::new(FrameJob { frame, demands, caller });
        let mut state = self.state();
        if let Some(why) = state.closed {
            return Err(why.into());
        }
        match state.replace_older(job) {
            Ok(()) => return Ok(()),
            Err(NotReplaced::Older) => return Err(PipelineError::Superseded),
            Err(NotReplaced::First(first)) => job = first,
        }
        let place = self.admit(&mut state, &ticket, now).inspect_err(|_| {
            self.refused.fetch_add(1, Ordering::Relaxed);
        })?;
        job.caller.takes_place(place);
        state.frames.push(ticket.urgency, ticket.feed.id, job);
        self.work.notify_one();
        Ok(())
    }

    /// A place for one more frame, if it can be answered in time.
    fn admit(
        &self,
        state: &mut State,
        ticket: &Ticket,
        now: Instant,
    ) -> Result<Option<OwnedSemaphorePermit>, PipelineError> {
        let Ticket { deadline, urgency, feed } = *ticket;
        let ahead = state.frames.ahead_of(urgency, feed.id);
        let wait = self.pace.time_for(ahead, state.crops.len(), &self.shape);
        let patience = deadline.map_or(Duration::MAX, |at| at.saturating_duration_since(now));
        let patience =
            if urgency == Urgency::Gate { patience.min(self.shape.gate_wait) } else { patience };
        if wait > patience {
            return Err(overloaded(wait.saturating_sub(patience)));
        }
        let crowded =
            urgency != Urgency::Gate && state.frames.unhurried() >= self.shape.places.div_ceil(2);
        if !crowded {
            if self.places.available_permits() == 0 {
                state.drop_unwanted(now);
            }
            if let Ok(place) = Arc::clone(&self.places).try_acquire_owned() {
                return Ok(Some(place));
            }
        }
        let mut out = state.frames.make_room(urgency, feed.id).ok_or_else(|| overloaded(wait))?;
        let place = out.caller.yields_place();
        state.dropped.evicted += 1;
        out.caller.answer(Err(overloaded(wait)));
        Ok(place)
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

    /// Says that a batch is done. Nobody is woken here either: whoever did it comes for more.
    pub(super) fn batch_done(&self) {
        self.state().embedding -= 1;
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
            state.drop_unwanted(Instant::now());
            if let Some(work) = state.next(&self.shape) {
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

    /// Whether one job is all that waits or is in work.
    pub(super) fn holds_one(&self) -> bool {
        self.shape.places - self.places.available_permits() == 1
    }

    pub(super) fn counters(&self) -> Counters {
        let state = self.state();
        let sizes = self.shape.batch_sizes.iter().copied();
        Counters {
            waiting_frames: state.frames.len(),
            waiting_crops: state.crops.len(),
            in_flight: self.shape.places - self.places.available_permits(),
            refused_overloaded: self.refused.load(Ordering::Relaxed),
            dropped_evicted: state.dropped.evicted,
            dropped_superseded: state.dropped.superseded,
            dropped_late: state.dropped.late,
            dropped_cancelled: state.dropped.cancelled,
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

/// Soonest and latest time at which a refused caller is asked to come again.
const RETRY: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(20)..=Duration::from_secs(5);

fn overloaded(wait: Duration) -> PipelineError {
    PipelineError::Overloaded { retry_after: wait.clamp(*RETRY.start(), *RETRY.end()) }
}

/// Why a frame did not take an older one's place.
enum NotReplaced {
    /// There is none, or its feed does not want that.
    First(Box<FrameJob>),
    /// A newer one is waiting already.
    Older,
}

impl State {
    /// Puts a newer frame in the place, and the turn, of the one of its feed that waits.
    fn replace_older(&mut self, mut job: Box<FrameJob>) -> Result<(), NotReplaced> {
        let Ticket { urgency, feed, .. } = job.caller.ticket;
        if !feed.newest_wins {
            return Err(NotReplaced::First(job));
        }
        let Some(waiting) = self.frames.last_of(urgency, feed.id) else {
            return Err(NotReplaced::First(job));
        };
        self.dropped.superseded += 1;
        let taken = |job: &FrameJob| job.caller.ticket.feed.taken_ms;
        if let (Some(its), Some(our)) = (taken(waiting), taken(&job))
            && its > our
        {
            return Err(NotReplaced::Older);
        }
        job.caller.takes_place(waiting.caller.yields_place());
        let older = std::mem::replace(waiting, job);
        older.caller.answer(Err(PipelineError::Superseded));
        Ok(())
    }

    fn next(&mut self, shape: &QueueShape) -> Option<Work> {
        let full = shape.batch_sizes.last().copied().unwrap_or(1);
        let turn = self.crops.len() >= full || self.frames_before_crops >= full;
        let can = !self.crops.is_empty() && self.embedding < shape.recognisers;
        if can && (turn || self.frames.is_empty()) {
            return Some(Work::Crops(self.next_batch(&shape.batch_sizes)));
        }
        let mut job = self.frames.pop()?;
        self.frames_before_crops += usize::from(!self.crops.is_empty());
        job.caller.leaves_queue(Instant::now());
        Some(Work::Frame(job))
    }

    /// The largest batch size that the waiting crops fill.
    fn next_batch(&mut self, batch_sizes: &[usize]) -> Vec<CropJob> {
        let index = batch_sizes.iter().rposition(|size| *size <= self.crops.len()).unwrap_or(0);
        self.batches[index] += 1;
        self.embedding += 1;
        self.frames_before_crops = 0;
        let (now, size) = (Instant::now(), batch_sizes[index].min(self.crops.len()));
        let mut batch: Vec<CropJob> = self.crops.drain(..size).collect();
        for job in &mut batch {
            job.caller.leaves_queue(now);
        }
        batch
    }

    /// Drops, and counts, every job that is not worth another stage.
    fn drop_unwanted(&mut self, now: Instant) {
        let Self { frames, crops, dropped, .. } = self;
        frames.sift(
            |job| job.caller.unwanted(now).is_none(),
            |job| dropped.drop_job(job.caller, now),
        );
        // Turned round once, which keeps the order and allocates nothing.
        for _ in 0..crops.len() {
            let Some(job) = crops.pop_front() else { break };
            if job.caller.unwanted(now).is_none() {
                crops.push_back(job);
            } else {
                dropped.drop_job(job.caller, now);
            }
        }
    }
}

impl Dropped {
    fn drop_job(&mut self, caller: Caller, now: Instant) {
        match caller.unwanted(now) {
            Some(Unwanted::Late) => {
                self.late += 1;
                caller.answer(Err(PipelineError::Late));
            }
            Some(Unwanted::Cancelled) | None => self.cancelled += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use zeroize::Zeroizing;

    use super::*;
    use crate::pipeline::job::AlignedFace;
    use crate::types::Quality;

    fn crop() -> CropJob {
        let (reply, _) = oneshot::channel();
        let caller = Caller::new(reply, Ticket::default(), Instant::now());
        let (crop, quality) = (Zeroizing::new(Vec::new()), Quality::default());
        CropJob { face: AlignedFace { crop, quality, liveness: None }, caller }
    }

    /// Of the batch that is handed out now, if any is.
    fn size(queue: &Queue) -> Option<usize> {
        match queue.state().next(&queue.shape)? {
            Work::Crops(crops) => Some(crops.len()),
            Work::Frame(_) | Work::Scrub | Work::End => panic!("there are only crops"),
        }
    }

    #[test]
    fn crops_gather_while_all_recognisers_are_at_work() {
        let queue = Queue::new(QueueShape {
            places: 8,
            batch_sizes: vec![1, 2, 4],
            workers: 4,
            recognisers: 2,
            gate_wait: Duration::from_secs(1),
        });
        let returned = |count| (0..count).for_each(|_| queue.return_crop(crop()));
        returned(3);
        assert_eq!([size(&queue), size(&queue)], [Some(2), Some(1)]);
        returned(4);
        assert_eq!(size(&queue), None);
        queue.batch_done();
        assert_eq!([size(&queue), size(&queue)], [Some(4), None]);
    }
}
