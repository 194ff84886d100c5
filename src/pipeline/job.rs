//! One request on its way through the stages.

use std::time::{Duration, Instant};

use thiserror::Error;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use zeroize::Zeroizing;

use super::decode::DecodeError;
use super::frame::Frame;
use super::lanes::Urgency;
use crate::types::{Embedding, Quality};

/// What a gate or an enrolment asks of a face.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FaceDemands {
    /// Least distance between the eyes, pixels of the frame.
    pub min_eye_distance_px: f32,
    /// Whose company speaks against the frame.
    pub company: Company,
    /// Whether the pack's liveness model has to take the face for a living person's.
    pub live: bool,
}

/// Which other faces in a frame are tolerated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Company {
    /// Any: the main face is taken.
    Any,
    /// Those that leave no doubt about the main face: smaller, or further from the middle.
    Aside,
    /// Only much smaller ones, wherever they are.
    Smaller,
}

/// How long an answer is wanted, how soon, and whose it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ticket {
    /// From then on the answer is of no use, and the frame is dropped before its next stage.
    pub deadline: Option<Instant>,
    /// How soon.
    pub urgency: Urgency,
    /// Where the frame comes from.
    pub feed: Feed,
}

/// A source of frames. Sources take turns.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Feed {
    /// Tells feeds apart and says nothing else: a keyed hash of whatever names the source.
    pub id: u64,
    /// Whether a frame is of no use once the same feed has sent a newer one.
    pub newest_wins: bool,
    /// When the frame was taken, Unix time in milliseconds, where the source says so. Without it
    /// the last to arrive is the newest.
    pub taken_ms: Option<i64>,
}

/// A face that passed.
#[derive(Debug, Clone)]
pub struct Embedded {
    /// Its embedding.
    pub embedding: Embedding,
    /// What was measured; without reasons against it.
    pub quality: Quality,
    /// The liveness model's score, where it was asked.
    pub liveness: Option<f32>,
    /// Where the time went.
    pub timings: StageTimings,
}

/// Where the time of one frame went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StageTimings {
    /// Waiting for a worker, before detection and before embedding.
    pub queue: Duration,
    /// Bytes to pixels.
    pub decode: Duration,
    /// Scaling and face detection.
    pub detect: Duration,
    /// Quality and alignment.
    pub align: Duration,
    /// The inference that this face shared with others.
    pub embed: Duration,
    /// Faces in that inference.
    pub batch_size: u32,
}

/// Why there is no embedding.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum PipelineError {
    /// The frame is no picture.
    #[error("the frame cannot be decoded")]
    Decode(#[from] DecodeError),
    /// Nobody is in it.
    #[error("no face was found")]
    NoFace,
    /// One face was wanted and there are several of similar size.
    #[error("several faces of similar size were found")]
    SeveralFaces(Quality),
    /// The face is not good enough; the quality holds the reasons.
    #[error("the face is not good enough")]
    LowQuality(Quality),
    /// The liveness model does not take the face for a living person's.
    #[error("the face is not taken for a living person's")]
    NotLive {
        /// What was measured.
        quality: Quality,
        /// The model's score.
        score: f32,
    },
    /// The deadline passed before the work was done.
    #[error("the deadline passed")]
    Late,
    /// The same feed has sent a newer frame.
    #[error("a newer frame of the same feed came")]
    Superseded,
    /// More frames are in work than can be answered in time.
    #[error("too many frames are waiting")]
    Overloaded {
        /// When there may be room.
        retry_after: Duration,
    },
    /// The pipeline was shut down.
    #[error("the pipeline is stopped")]
    Stopped,
    /// A fault of ours; the pipeline is unhealthy.
    #[error("the pipeline failed")]
    Internal,
}

/// The caller's side of a job: where the answer goes and whether it is still wanted.
pub(super) struct Caller {
    reply: oneshot::Sender<Result<Embedded, PipelineError>>,
    pub(super) ticket: Ticket,
    /// When the job was queued last.
    queued: Instant,
    pub(super) timings: StageTimings,
    /// Held from admission until the answer leaves, so that the number of jobs is bounded.
    place: Option<OwnedSemaphorePermit>,
}

/// Why a job is not worth another stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unwanted {
    /// Its deadline passed.
    Late,
    /// Its caller is gone.
    Cancelled,
}

impl Caller {
    pub(super) fn new(
        reply: oneshot::Sender<Result<Embedded, PipelineError>>,
        ticket: Ticket,
        now: Instant,
    ) -> Self {
        Self { reply, ticket, queued: now, timings: StageTimings::default(), place: None }
    }

    /// Gives the job its place.
    pub(super) fn takes_place(&mut self, place: Option<OwnedSemaphorePermit>) {
        self.place = place;
    }

    /// Gives the place up for another job.
    pub(super) fn yields_place(&mut self) -> Option<OwnedSemaphorePermit> {
        self.place.take()
    }

    pub(super) fn unwanted(&self, now: Instant) -> Option<Unwanted> {
        if self.reply.is_closed() {
            Some(Unwanted::Cancelled)
        } else if self.ticket.deadline.is_some_and(|deadline| deadline <= now) {
            Some(Unwanted::Late)
        } else {
            None
        }
    }

    /// Starts a wait.
    pub(super) fn enters_queue(&mut self) {
        self.queued = Instant::now();
    }

    /// Ends a wait.
    pub(super) fn leaves_queue(&mut self, now: Instant) {
        self.timings.queue += now.saturating_duration_since(self.queued);
    }

    /// Answers. A caller that went away meanwhile misses nothing: the answer is zeroised.
    pub(super) fn answer(self, answer: Result<Embedded, PipelineError>) {
        drop(self.place);
        let _gone = self.reply.send(answer);
    }
}

/// A frame that waits for decoding and detection.
pub(super) struct FrameJob {
    pub(super) frame: Frame,
    pub(super) demands: FaceDemands,
    pub(super) caller: Caller,
}

/// A good face that waits for embedding.
pub(super) struct CropJob {
    pub(super) face: AlignedFace,
    pub(super) caller: Caller,
}

/// A face brought onto the template, 112 x 112 RGB, and what was measured about it.
pub(super) struct AlignedFace {
    pub(super) crop: Zeroizing<Vec<u8>>,
    pub(super) quality: Quality,
    pub(super) liveness: Option<f32>,
}

impl AsRef<[u8]> for AlignedFace {
    fn as_ref(&self) -> &[u8] {
        &self.crop
    }
}
