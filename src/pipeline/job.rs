//! One request on its way through the stages.

use std::time::{Duration, Instant};

use thiserror::Error;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use zeroize::Zeroizing;

use super::decode::DecodeError;
use super::frame::Frame;
use crate::types::{Embedding, Quality};

/// What a gate or an enrolment asks of a face.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FaceDemands {
    /// Least distance between the eyes, pixels of the frame.
    pub min_eye_distance_px: f32,
    /// Whose company speaks against the frame.
    pub company: Company,
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

/// How long an answer is wanted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ticket {
    /// From then on the answer is of no use, and the frame is dropped before its next stage.
    pub deadline: Option<Instant>,
}

/// A face that passed.
#[derive(Debug, Clone)]
pub struct Embedded {
    /// Its embedding.
    pub embedding: Embedding,
    /// What was measured; without reasons against it.
    pub quality: Quality,
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
    /// The deadline passed before the work was done.
    #[error("the deadline passed")]
    Late,
    /// Too many frames are in work.
    #[error("too many frames are waiting")]
    Overloaded,
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
    deadline: Option<Instant>,
    /// When the job was queued last.
    queued: Instant,
    pub(super) timings: StageTimings,
    /// Held until the answer leaves, so that the number of jobs is bounded.
    place: OwnedSemaphorePermit,
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
        place: OwnedSemaphorePermit,
    ) -> Self {
        let (queued, timings) = (Instant::now(), StageTimings::default());
        Self { reply, deadline: ticket.deadline, queued, timings, place }
    }

    pub(super) fn unwanted(&self, now: Instant) -> Option<Unwanted> {
        if self.reply.is_closed() {
            Some(Unwanted::Cancelled)
        } else if self.deadline.is_some_and(|deadline| deadline <= now) {
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
}

impl AsRef<[u8]> for AlignedFace {
    fn as_ref(&self) -> &[u8] {
        &self.crop
    }
}
