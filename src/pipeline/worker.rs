//! The threads that do the work.
//!
//! # Invariants
//! - One thread, one inference at a time: the number of workers is the number of cores in use.
//! - A worker that panics, or whose session fails, closes the queue: every job it held and every
//!   job that waits is answered with an internal error, and the pipeline is unhealthy for good.
//!   (Inputs have fixed shapes, so no picture can make a session fail.)

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use super::job::{AlignedFace, Caller, CropJob, Embedded, FrameJob, PipelineError};
use super::queue::{Closed, Queue, Work};
use super::runtime::InferenceError;
use super::stages::{StageError, Stages};
use super::wiped::wipe_stack;
use crate::types::Embedding;

/// Starts a worker thread.
pub(super) fn spawn(
    number: usize,
    queue: Arc<Queue>,
    stages: impl Stages + 'static,
) -> std::io::Result<JoinHandle<()>> {
    let name = format!("pipeline-{number}");
    std::thread::Builder::new().name(name).spawn(move || {
        step_back();
        run(&queue, stages);
    })
}

/// How far behind the threads that take requests, revocations among them, and send answers: those
/// need little and should not wait for a core until a frame is done.
#[cfg(target_os = "linux")]
const NICE: i32 = 5;

/// Lets the threads that serve the network go first. On Linux this is a thread's own setting.
#[cfg(target_os = "linux")]
fn step_back() {
    if let Err(fault) = rustix::process::setpriority_process(None, NICE) {
        tracing::debug!(%fault, "a pipeline worker keeps its priority");
    }
}

#[cfg(not(target_os = "linux"))]
fn step_back() {}

fn run<S: Stages>(queue: &Queue, stages: S) {
    let mut worker = Worker { queue, stages, dirty: false };
    let ended = catch_unwind(AssertUnwindSafe(|| worker.serve()));
    match ended {
        Ok(Ok(())) => {}
        Ok(Err(fault)) => tracing::error!(error = ?fault, "a pipeline worker failed"),
        Err(_panic) => tracing::error!("a pipeline worker panicked"),
    }
    // Harmless after an orderly end: the first reason stays.
    queue.close(Closed::Failed);
}

struct Worker<'a, S> {
    queue: &'a Queue,
    stages: S,
    /// Whether the sessions may hold something of a face.
    dirty: bool,
}

impl<S: Stages> Worker<'_, S> {
    fn serve(&mut self) -> Result<(), InferenceError> {
        loop {
            match self.queue.take(self.dirty) {
                Work::Frame(job) => self.face(*job)?,
                Work::Crops(jobs) => self.embed(jobs)?,
                Work::Scrub => self.scrub()?,
                Work::End => return self.scrub(),
            }
        }
    }

    fn scrub(&mut self) -> Result<(), InferenceError> {
        self.dirty = false;
        self.stages.scrub()?;
        wipe_stack();
        Ok(())
    }

    fn face(&mut self, job: FrameJob) -> Result<(), InferenceError> {
        self.dirty = true;
        let FrameJob { frame, demands, mut caller } = job;
        let start = Instant::now();
        let found = self.stages.face(frame, demands, &mut caller.timings);
        self.queue.pace.frame_took(start.elapsed());
        match found {
            Ok(face) => self.queue.return_crop(CropJob { face, caller }),
            Err(StageError::Refused(answer)) => caller.answer(Err(answer)),
            Err(StageError::Fault(fault)) => {
                caller.answer(Err(PipelineError::Internal));
                return Err(fault);
            }
        }
        Ok(())
    }

    fn embed(&mut self, jobs: Vec<CropJob>) -> Result<(), InferenceError> {
        self.dirty = true;
        let (faces, callers): (Vec<AlignedFace>, Vec<Caller>) =
            jobs.into_iter().map(|job| (job.face, job.caller)).unzip();
        let start = Instant::now();
        let embedded = self.stages.embed(&faces, self.queue.holds_one());
        self.queue.pace.crops_took(faces.len(), start.elapsed());
        self.queue.batch_done();
        match embedded {
            Ok(embeddings) => {
                answer(embeddings, faces, callers, start);
                Ok(())
            }
            Err(fault) => {
                for caller in callers {
                    caller.answer(Err(PipelineError::Internal));
                }
                Err(fault)
            }
        }
    }
}

/// Hands each caller its embedding.
fn answer(
    embeddings: Vec<Embedding>,
    faces: Vec<AlignedFace>,
    callers: Vec<Caller>,
    start: Instant,
) {
    let (embed, size) = (start.elapsed(), callers.len());
    for ((mut caller, face), embedding) in callers.into_iter().zip(faces).zip(embeddings) {
        caller.timings.embed = embed;
        caller.timings.batch_size = u32::try_from(size).unwrap_or(u32::MAX);
        let AlignedFace { quality, liveness, .. } = face;
        let timings = caller.timings;
        caller.answer(Ok(Embedded { embedding, quality, liveness, timings }));
    }
}
