//! Frame -> embedding: decode, detect, judge, align, embed. The only module that names `ort`.
//!
//! A [`Pipeline`] owns a few worker threads that share one queue. On cores each worker has a session
//! of each model, single-threaded, so that the workers are all the parallelism there is; those of a
//! device are fewer, and the workers take turns with them. Faces from all callers share batches.
//!
//! ```text
//! embed() -> queue -> worker: decode, detect, judge, align -> queue -> worker: embed (batch)
//!               \-- deadline passed or caller gone: dropped --/
//! ```
//!
//! # Invariants
//! - It knows nothing of people: no subject, no consent, no gate passes through here.
//! - Frames, crops and tensors live in buffers that are zeroised after use; what a session still
//!   holds is overwritten when nothing came for a while, and at the end.
//! - The number of frames in the pipeline is bounded, and a frame that could not be answered in
//!   time is refused at once.
//!
//! # Not here
//! What the decoding libraries free, which the program's allocator wipes (`memory`). The arithmetic
//! of one inference inside the runtime until the next one is outside of our reach.

mod align;
mod choice;
mod decode;
mod detect;
mod embed;
pub mod fetch;
mod frame;
mod geometry;
#[cfg(test)]
mod goldens;
mod job;
mod lanes;
mod letterbox;
mod liveness;
mod onnx;
mod pace;
mod pack;
mod probes;
mod quality;
mod queue;
mod ranges;
mod rewrite;
mod runtime;
mod sessions;
mod settings;
mod stages;
#[cfg(test)]
mod tests;
mod tuning;
#[cfg(test)]
mod turns;
mod wiped;
mod worker;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{JoinHandle, ScopedJoinHandle};
use std::time::{Duration, Instant};

use serde::Serialize;
use thiserror::Error;
use tokio::sync::oneshot;

pub use choice::{Candidate, ChoiceError, Trial};
pub use decode::DecodeError;
pub use frame::{Frame, PixelFormat, RawFrame};
pub use job::{Company, Embedded, FaceDemands, Feed, PipelineError, StageTimings, Ticket};
pub use lanes::Urgency;
pub use onnx::OnnxError;
pub use pack::{ModelPack, PackError, PackInfo, PackListing, list_packs};
pub use quality::QualityThresholds;
pub use queue::Counters;
pub use ranges::RangeMeter;
pub use rewrite::QuantiseError;
pub use runtime::{InferenceError, Provider, RuntimeError};
pub use settings::{PipelineSettings, ProviderChoice, SettingFault, UnknownProvider};
pub use tuning::{Plan, ProviderSpeed, compare_providers};

use crate::types::ModelContract;
use queue::{Closed, Queue, QueueShape};
use runtime::Runtime;
use stages::{ModelStages, Parts, Sessions};

/// Turns frames into embeddings.
///
/// ```no_run
/// use assent::pipeline::{Company, FaceDemands, Frame, Pipeline, PipelineSettings, Ticket};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let pipeline = Pipeline::start(&PipelineSettings::default())?;
/// let photo = Frame::Encoded(std::fs::read("photo.jpg")?.into());
/// let demands = FaceDemands { min_eye_distance_px: 20.0, company: Company::Aside, live: false };
/// let face = pipeline.embed(photo, demands, Ticket::default()).await?;
/// println!("{} dimensions in {:?}", face.embedding.width(), face.timings.embed);
/// # Ok(())
/// # }
/// ```
pub struct Pipeline {
    queue: Arc<Queue>,
    workers: Vec<JoinHandle<()>>,
    info: PackInfo,
    width: usize,
    judges_liveness: bool,
    calibration: Vec<u8>,
    report: StartReport,
    unkept: Option<tuning::Unkept>,
}

/// What a pipeline found out at its start.
#[derive(Debug, Clone, Serialize)]
pub struct StartReport {
    /// The ONNX Runtime library.
    pub runtime: PathBuf,
    /// How the models are run.
    pub plan: Plan,
    /// Worker threads.
    pub workers: usize,
    /// Reading and hashing the pack.
    pub load: Duration,
    /// Trying providers and batch sizes, or checking what was kept of an earlier start.
    pub tune: Duration,
    /// Loading the workers' sessions and warming every input shape.
    pub warm: Duration,
}

/// Why a pipeline does not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// A setting is out of range.
    #[error(transparent)]
    Setting(#[from] SettingFault),
    /// The detector was not made for this input size.
    #[error("pipeline.detector_size {asked} is not one of the pack's: {known:?}")]
    DetectorSize {
        /// The setting, pixels.
        asked: u32,
        /// The pack's sizes, pixels.
        known: Vec<usize>,
    },
    /// The pack does not load.
    #[error("the model pack does not load")]
    Pack(#[from] PackError),
    /// The runtime does not load.
    #[error("the runtime does not load")]
    Runtime(#[from] RuntimeError),
    /// No provider, or not the named one.
    #[error("no usable provider")]
    Provider(#[from] ChoiceError),
    /// The system gives no thread.
    #[error("cannot start a worker thread")]
    Thread(#[from] std::io::Error),
}

impl Pipeline {
    /// Loads and checks the pack, chooses the provider, warms every input shape and starts the
    /// workers. Takes a second or two; call it off the async threads.
    ///
    /// # Errors
    /// [`StartError`]. A provider that was named and does not run is an error, never replaced.
    pub fn start(settings: &PipelineSettings) -> Result<Self, StartError> {
        settings.check()?;
        let (pack, load) = timed(|| load_pack(settings));
        let pack = pack?;
        let runtime = Runtime::load(&settings.models_dir, settings.runtime.as_deref())?;
        let (plan, tune) = timed(|| tuning::plan(&runtime, &pack, settings));
        let (plan, unkept) = plan?;
        let parts = Parts { runtime: &runtime, pack: &pack, plan: &plan, settings };
        let (stages, warm) = timed(|| warm(&parts));
        let stages = stages?;
        let report = StartReport {
            runtime: runtime.path().to_path_buf(),
            workers: stages.len(),
            plan,
            load,
            tune,
            warm,
        };
        let mut pipeline = Self::spawn(settings, stages, pack, report)?;
        pipeline.unkept = unkept;
        Ok(pipeline)
    }

    fn spawn(
        settings: &PipelineSettings,
        stages: Vec<ModelStages>,
        pack: ModelPack,
        report: StartReport,
    ) -> Result<Self, StartError> {
        let (width, judges_liveness) = (pack.recogniser.width, pack.liveness.is_some());
        let (info, calibration) = pack.into_info();
        let shape = QueueShape {
            places: settings.queue,
            batch_sizes: report.plan.batch_sizes.clone(),
            workers: stages.len(),
            recognisers: report.plan.recogniser.recognisers(stages.len()),
            gate_wait: Duration::from_millis(settings.gate_wait_ms),
        };
        let queue = Arc::new(Queue::new(shape));
        let (workers, unkept) = (Vec::new(), None);
        let mut pipeline =
            Self { queue, workers, info, width, judges_liveness, calibration, report, unkept };
        for (number, stages) in stages.into_iter().enumerate() {
            let thread = worker::spawn(number, Arc::clone(&pipeline.queue), stages)?;
            pipeline.workers.push(thread);
        }
        Ok(pipeline)
    }

    /// The embedding of the main face in `frame`. Dropping the future cancels the work before its
    /// next stage.
    ///
    /// # Errors
    /// [`PipelineError`]: what is wrong with the frame, or why there was no time or place for it.
    pub async fn embed(
        &self,
        frame: Frame,
        demands: FaceDemands,
        ticket: Ticket,
    ) -> Result<Embedded, PipelineError> {
        let (reply, answer) = oneshot::channel();
        self.queue.accept(frame, demands, ticket, reply)?;
        // A job ends without an answer only when its worker failed or the queue was closed.
        answer.await.unwrap_or_else(|_dropped| {
            Err(self.queue.closed().map_or(PipelineError::Internal, PipelineError::from))
        })
    }

    /// The embedding space of the pack.
    #[must_use]
    pub fn contract(&self) -> &ModelContract {
        &self.info.contract
    }

    /// Dimensions of an embedding.
    #[must_use]
    pub fn width(&self) -> usize {
        self.width
    }

    /// What computes.
    #[must_use]
    pub fn provider(&self) -> Provider {
        self.report.plan.recogniser
    }

    /// What was found out at start.
    #[must_use]
    pub fn report(&self) -> &StartReport {
        &self.report
    }

    /// Writes what was measured at the start, if it was, to [`PipelineSettings::tuning_file`], whose
    /// directory must be there. A fault is logged: the next start measures again.
    pub fn keep_tuning(&self) {
        self.unkept.iter().for_each(tuning::Unkept::keep);
    }

    /// The pack's calibration table (JSON).
    #[must_use]
    pub fn calibration(&self) -> &[u8] {
        &self.calibration
    }

    /// Whether the pack has a liveness model.
    #[must_use]
    pub fn judges_liveness(&self) -> bool {
        self.judges_liveness
    }

    /// The pack's name, licence and contract.
    #[must_use]
    pub fn pack(&self) -> &PackInfo {
        &self.info
    }

    /// Whether all workers are at work. Once false it stays false.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.queue.closed().is_none()
    }

    /// Figures since the start.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.queue.counters()
    }

    /// Refuses new frames, drops those that wait, finishes those in work, wipes the sessions and
    /// joins the threads. Dropping the pipeline does the same.
    pub fn shutdown(self) {
        drop(self);
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        self.queue.close(Closed::Stopped);
        for worker in self.workers.drain(..) {
            // A worker catches its own panics; there is nothing to learn from the handle.
            let _ended = worker.join();
        }
    }
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    (work(), start.elapsed())
}

fn load_pack(settings: &PipelineSettings) -> Result<ModelPack, StartError> {
    let pack = ModelPack::load(&settings.models_dir.join(Path::new(&settings.pack)))?;
    let (asked, known) = (settings.detector_size, &pack.detector.input_sizes);
    if known.contains(&(asked as usize)) {
        Ok(pack)
    } else {
        Err(StartError::DetectorSize { asked, known: known.clone() })
    }
}

/// The stages of all workers.
fn warm(parts: &Parts<'_>) -> Result<Vec<ModelStages>, ChoiceError> {
    let sessions = Arc::new(Sessions::warm(parts)?);
    let stages = |worker| ModelStages::new(parts, Arc::clone(&sessions), worker);
    (0..parts.settings.workers()).map(stages).collect()
}

/// What `thread` made; its panic goes on here.
fn joined<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
