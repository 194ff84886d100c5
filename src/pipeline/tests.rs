//! The queue and the workers with stages that only count; then the whole pipeline with models.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, mpsc};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use zeroize::Zeroizing;

use super::goldens::models;
use super::job::AlignedFace;
use super::queue::QueueShape;
use super::stages::{StageError, Stages};
use super::*;
use crate::types::{Embedding, Quality, QualityReason};

pub(super) const DEMANDS: FaceDemands =
    FaceDemands { min_eye_distance_px: 0.0, company: Company::Any, live: false };

/// Stages without models: a frame's first byte says what becomes of it.
struct Fake {
    /// Each detection waits for one message.
    gate: mpsc::Receiver<()>,
    detected: Arc<AtomicUsize>,
    embedded: Arc<AtomicUsize>,
    scrubbed: Arc<AtomicUsize>,
    /// The first bytes of all that were detected.
    order: Arc<Mutex<Vec<u8>>>,
}

/// A frame that the worker panics on.
const POISON: u8 = 13;

impl Stages for Fake {
    fn face(
        &mut self,
        frame: Frame,
        _demands: FaceDemands,
        _timings: &mut StageTimings,
    ) -> Result<AlignedFace, StageError> {
        let _open = self.gate.recv();
        let Frame::Aligned(crop) = frame else { panic!("only crops here") };
        assert_ne!(crop[0], POISON, "a poisoned frame");
        self.order.lock().unwrap().push(crop[0]);
        self.detected.fetch_add(1, Ordering::SeqCst);
        Ok(AlignedFace { crop, quality: Quality::default(), liveness: None })
    }

    fn embed(
        &mut self,
        faces: &[AlignedFace],
        _alone: bool,
    ) -> Result<Vec<Embedding>, InferenceError> {
        self.embedded.fetch_add(faces.len(), Ordering::SeqCst);
        Ok(faces.iter().map(|face| one_hot(face.crop[0])).collect())
    }

    fn scrub(&mut self) -> Result<(), InferenceError> {
        self.scrubbed.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

fn one_hot(at: u8) -> Embedding {
    let mut values = vec![0.0; 128];
    values[usize::from(at)] = 1.0;
    Embedding::normalise(values).unwrap()
}

pub(super) fn frame(first: u8) -> Frame {
    Frame::Aligned(Zeroizing::new(vec![first]))
}

/// A pipeline of one fake worker.
pub(super) struct Rig {
    pub(super) pipeline: Pipeline,
    order: Arc<Mutex<Vec<u8>>>,
    gate: mpsc::Sender<()>,
    detected: Arc<AtomicUsize>,
    embedded: Arc<AtomicUsize>,
    scrubbed: Arc<AtomicUsize>,
}

impl Rig {
    pub(super) fn new(places: usize) -> Self {
        Self::of_batches(places, vec![1, 2, 4, 8])
    }

    pub(super) fn of_batches(places: usize, batch_sizes: Vec<usize>) -> Self {
        let (gate, opened) = mpsc::channel();
        let counts: [Arc<AtomicUsize>; 3] = Default::default();
        let [detected, embedded, scrubbed] = counts.clone();
        let order = Arc::default();
        let fake = Fake { gate: opened, detected, embedded, scrubbed, order: Arc::clone(&order) };
        let gate_wait = Duration::from_millis(250);
        let shape = QueueShape { places, batch_sizes, workers: 1, recognisers: 1, gate_wait };
        let queue = Arc::new(Queue::new(shape));
        let workers = vec![worker::spawn(0, Arc::clone(&queue), fake).unwrap()];
        let pipeline = Pipeline {
            judges_liveness: false,
            queue,
            workers,
            info: serde_json::from_value(serde_json::json!({
                "name": "fake", "description": "", "licence": "", "licence_source": "",
                "contract": "fake/1",
            }))
            .unwrap(),
            width: 128,
            calibration: Vec::new(),
            unkept: None,
            report: StartReport {
                runtime: PathBuf::new(),
                plan: tuning::Plan {
                    recogniser: Provider::Cpu,
                    detector: Provider::Cpu,
                    batch_sizes: vec![1, 2, 4, 8],
                    wide: false,
                    faces_per_second: Vec::new(),
                    providers: Vec::new(),
                },
                workers: 1,
                load: Duration::ZERO,
                tune: Duration::ZERO,
                warm: Duration::ZERO,
            },
        };
        let [detected, embedded, scrubbed] = counts;
        Self { pipeline, order, gate, detected, embedded, scrubbed }
    }

    /// The first bytes of all frames that were detected, in order.
    pub(super) fn detected_in_order(&self) -> Vec<u8> {
        self.order.lock().unwrap().clone()
    }

    /// Lets `count` detections pass.
    pub(super) fn open(&self, count: usize) {
        (0..count).for_each(|_| self.gate.send(()).unwrap());
    }

    fn counts(&self) -> (usize, usize) {
        (self.detected.load(Ordering::SeqCst), self.embedded.load(Ordering::SeqCst))
    }

    /// Waits until `holds`.
    pub(super) fn until(&self, holds: impl Fn(&Self) -> bool) {
        let start = Instant::now();
        while !holds(self) {
            assert!(start.elapsed() < Duration::from_secs(10), "it never came to pass");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Hands a frame in without waiting for the answer.
pub(super) fn begin<F: Future + ?Sized>(mut future: std::pin::Pin<&mut F>) {
    let poll = future.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    assert!(matches!(poll, Poll::Pending), "answered at once");
}

pub(super) fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

fn embed(rig: &Rig, first: u8) -> impl Future<Output = Result<Embedded, PipelineError>> {
    rig.pipeline.embed(frame(first), DEMANDS, Ticket::default())
}

#[test]
fn every_caller_gets_the_embedding_of_its_own_frame() {
    let rig = Rig::new(64);
    rig.open(64);
    let answers =
        block_on(futures_util::future::join_all((20..60).map(|first| embed(&rig, first))));
    for (first, answer) in (20..60).zip(answers) {
        let similarity = answer.unwrap().embedding.cosine(&one_hot(first)).get();
        assert!(similarity > 0.99, "frame {first}");
    }
}

#[test]
fn frames_that_wait_together_share_a_batch() {
    let rig = Rig::new(64);
    let mut waiting: Vec<_> = (20..37).map(|first| Box::pin(embed(&rig, first))).collect();
    for future in &mut waiting {
        begin(future.as_mut());
    }
    rig.open(17);
    let answers = block_on(futures_util::future::join_all(waiting));
    let sizes: Vec<u32> = answers.iter().map(|a| a.as_ref().unwrap().timings.batch_size).collect();
    assert_eq!(sizes.iter().filter(|size| **size == 8).count(), 16, "{sizes:?}");
    assert_eq!(rig.pipeline.counters().batches, [(1, 1), (2, 0), (4, 0), (8, 2)]);
}

#[test]
fn a_dropped_future_never_reaches_the_next_stage() {
    let rig = Rig::new(64);
    // The worker holds the first frame at the gate; the second and third wait behind it.
    let [mut first, mut second, mut third] = [1, 2, 3].map(|i| Box::pin(embed(&rig, i)));
    begin(first.as_mut());
    rig.until(|rig| rig.pipeline.counters().waiting_frames == 0);
    begin(second.as_mut());
    begin(third.as_mut());
    drop(second);
    drop(first);
    rig.open(3);
    // The third is the positive control: it goes through both stages.
    block_on(third).unwrap();
    assert_eq!(rig.counts(), (2, 1), "the first was detected but not embedded, the second neither");
    assert_eq!(rig.pipeline.counters().dropped_cancelled, 2);
    rig.until(|rig| rig.pipeline.counters().in_flight == 0);
}

#[test]
fn a_late_frame_is_dropped_and_told_so() {
    let rig = Rig::new(64);
    let mut held = Box::pin(embed(&rig, 1));
    begin(held.as_mut());
    rig.until(|rig| rig.pipeline.counters().waiting_frames == 0);
    let deadline = Some(Instant::now() + Duration::from_millis(5));
    let soon = Ticket { deadline, ..Ticket::default() };
    let mut late = Box::pin(rig.pipeline.embed(frame(2), DEMANDS, soon));
    begin(late.as_mut());
    std::thread::sleep(Duration::from_millis(10));
    rig.open(2);
    assert_eq!(block_on(late).err(), Some(PipelineError::Late));
    block_on(held).unwrap();
    assert_eq!((rig.counts(), rig.pipeline.counters().dropped_late), ((1, 1), 1));
}

#[test]
fn one_frame_too_many_is_refused_at_once() {
    let rig = Rig::new(2);
    let [mut a, mut b] = [1, 2].map(|i| Box::pin(embed(&rig, i)));
    begin(a.as_mut());
    begin(b.as_mut());
    let refused = block_on(embed(&rig, 3)).err();
    assert!(matches!(refused, Some(PipelineError::Overloaded { .. })), "{refused:?}");
    assert_eq!(rig.pipeline.counters().refused_overloaded, 1);
    rig.open(3);
    block_on(a).unwrap();
    block_on(b).unwrap();
    block_on(embed(&rig, 3)).unwrap();
}

#[test]
fn a_worker_that_panics_answers_its_jobs_and_fails_the_pipeline() {
    let rig = Rig::new(64);
    let [mut bad, mut behind] = [POISON, 2].map(|i| Box::pin(embed(&rig, i)));
    begin(bad.as_mut());
    begin(behind.as_mut());
    assert!(rig.pipeline.is_healthy());
    rig.open(2);
    assert_eq!(block_on(bad).err(), Some(PipelineError::Internal));
    assert_eq!(block_on(behind).err(), Some(PipelineError::Internal));
    assert!(!rig.pipeline.is_healthy());
    assert_eq!(block_on(embed(&rig, 3)).err(), Some(PipelineError::Internal));
}

#[test]
fn a_quiet_worker_overwrites_what_it_holds_once() {
    let rig = Rig::new(64);
    rig.open(1);
    block_on(embed(&rig, 1)).unwrap();
    rig.until(|rig| rig.scrubbed.load(Ordering::SeqCst) == 1);
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(rig.scrubbed.load(Ordering::SeqCst), 1);
}

#[test]
fn shutting_down_answers_those_who_wait() {
    let rig = Rig::new(64);
    let [mut held, mut waiting] = [1, 2].map(|i| Box::pin(embed(&rig, i)));
    begin(held.as_mut());
    begin(waiting.as_mut());
    rig.pipeline.queue.close(Closed::Stopped);
    rig.open(2);
    assert_eq!(block_on(waiting).err(), Some(PipelineError::Stopped));
    assert_eq!(block_on(held).err(), Some(PipelineError::Stopped));
}

fn on(provider: Provider) -> PipelineSettings {
    PipelineSettings {
        models_dir: models(),
        provider: ProviderChoice::Named(provider),
        workers: Some(2),
        ..Default::default()
    }
}

fn started(provider: Provider) -> Pipeline {
    Pipeline::start(&on(provider)).unwrap()
}

fn photo(name: &str) -> Frame {
    Frame::Encoded(std::fs::read(models().join("research/photos").join(name)).unwrap().into())
}

#[test]
fn a_photo_becomes_an_embedding_and_the_clock_is_kept() {
    let pipeline = started(Provider::Cpu);
    let face = block_on(pipeline.embed(photo("yaoming.jpg"), DEMANDS, Ticket::default())).unwrap();
    assert_eq!(face.embedding.width(), pipeline.width());
    assert!(face.quality.reasons.is_empty() && face.quality.faces == 1, "{:?}", face.quality);
    assert!(face.timings.detect > Duration::ZERO && face.timings.batch_size == 1);
    assert_eq!(pipeline.contract().as_str(), "w600k_mbf/arcface-112/rgb/1");
    assert!(pipeline.calibration().starts_with(b"{") && pipeline.pack().name == "research");
    pipeline.shutdown();
}

#[test]
fn refusals_say_why() {
    let pipeline = started(Provider::Cpu);
    let ask = |frame, demands| block_on(pipeline.embed(frame, demands, Ticket::default())).err();
    let grey = RawFrame {
        format: PixelFormat::Gray8,
        width: 64,
        height: 64,
        stride: 0,
        data: vec![128; 64 * 64].into(),
    };
    assert_eq!(ask(Frame::Raw(grey), DEMANDS), Some(PipelineError::NoFace));
    let wrong = Frame::Encoded(b"no picture".to_vec().into());
    let unknown = PipelineError::Decode(DecodeError::UnknownFormat);
    assert_eq!(ask(wrong, DEMANDS), Some(unknown));
    let one = FaceDemands { company: Company::Smaller, ..DEMANDS };
    assert!(matches!(ask(photo("players.jpg"), one), Some(PipelineError::SeveralFaces(_))));
    let near = FaceDemands { min_eye_distance_px: 200.0, ..DEMANDS };
    let Some(PipelineError::LowQuality(quality)) = ask(photo("yaoming.jpg"), near) else {
        panic!("a far face was accepted");
    };
    assert_eq!(quality.reasons, [QualityReason::TooSmall]);
    let short = Frame::Aligned(vec![0; 5].into());
    let size = DecodeError::AlignedSize { needed: 37_632, actual: 5 };
    assert_eq!(ask(short, DEMANDS), Some(PipelineError::Decode(size)));
    assert!(pipeline.is_healthy());
}

#[test]
fn sixteen_aligned_crops_share_batches() {
    // Batches pay on some machines only: here they are asked for.
    let settings = on(Provider::Cpu);
    let pack = load_pack(&settings).unwrap();
    let runtime = Runtime::load(&settings.models_dir, None).unwrap();
    let mut report = started(Provider::Cpu).report().clone();
    report.plan.batch_sizes = vec![1, 2, 4, 8];
    let parts = Parts { runtime: &runtime, pack: &pack, plan: &report.plan, settings: &settings };
    let stages = warm(&parts).unwrap();
    let pipeline = Pipeline::spawn(&settings, stages, pack, report).unwrap();
    let crops = probes::crops();
    let ask = |i: usize| {
        let crop = Frame::Aligned(crops[i % crops.len()].clone().into());
        pipeline.embed(crop, DEMANDS, Ticket::default())
    };
    let answers = block_on(futures_util::future::join_all((0..16).map(ask)));
    let embeddings: Vec<Embedding> =
        answers.into_iter().map(|answer| answer.unwrap().embedding).collect();
    for i in 0..8 {
        assert!(embeddings[i].cosine(&embeddings[i + 8]).get() > 0.9999);
    }
    let inferences: u64 = pipeline.counters().batches.iter().map(|(_, count)| count).sum();
    assert!(inferences < 16, "{:?}", pipeline.counters().batches);
}

#[test]
fn auto_takes_a_provider_that_agrees_and_shows_the_table() {
    let settings =
        PipelineSettings { models_dir: models(), workers: Some(1), ..Default::default() };
    let pipeline = Pipeline::start(&settings).unwrap();
    let report = pipeline.report();
    eprintln!("{}", serde_json::to_string_pretty(report).unwrap());
    assert_eq!(report.plan.providers.len(), Provider::ALL.len());
    let chosen =
        report.plan.providers.iter().find(|line| line.provider == report.plan.recogniser).unwrap();
    let least = chosen.provider.least_agreement();
    assert!(matches!(chosen.trial, Trial::Runs { agreement, .. } if agreement >= least));
}

#[test]
fn a_named_provider_that_does_not_run_is_an_error() {
    let start = |provider| {
        let provider = ProviderChoice::Named(provider);
        let settings = PipelineSettings { models_dir: models(), provider, ..Default::default() };
        Pipeline::start(&settings).err()
    };
    for provider in [Provider::Cuda, Provider::TensorRt] {
        match start(provider) {
            Some(StartError::Provider(ChoiceError::Runtime(RuntimeError::Session { .. }))) => {}
            None => eprintln!("{provider} runs here"),
            Some(other) => panic!("{other:?}"),
        }
    }
}

#[test]
fn what_is_missing_is_told_with_the_remedy() {
    let empty = tempfile::tempdir().unwrap();
    let settings =
        PipelineSettings { models_dir: empty.path().to_path_buf(), ..Default::default() };
    let error = Pipeline::start(&settings).err().unwrap();
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.contains("assent models fetch"), "{source}");
    let settings =
        PipelineSettings { models_dir: models(), detector_size: 333, ..Default::default() };
    assert!(matches!(Pipeline::start(&settings).err(), Some(StartError::DetectorSize { .. })));
}

/// The cores on which a thread may run, from its folder below /proc.
#[cfg(target_os = "linux")]
fn allowed_cores(task: &Path) -> String {
    let status = std::fs::read_to_string(task.join("status")).unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("Cpus_allowed_list"));
    line.unwrap_or_default().to_owned()
}

#[test]
#[cfg(target_os = "linux")]
fn workers_are_not_pinned_to_one_core() {
    if !goldens::runs(Provider::OpenVinoBf16) {
        eprintln!("left out: no OpenVINO here");
        return;
    }
    let free = allowed_cores(Path::new("/proc/thread-self"));
    let pipeline = started(Provider::OpenVinoBf16);
    let ask = |_| pipeline.embed(photo("yaoming.jpg"), DEMANDS, Ticket::default());
    // A thread is pinned only while it computes, so it is looked at meanwhile.
    std::thread::scope(|scope| {
        let load = scope.spawn(|| block_on(futures_util::future::join_all((0..64).map(ask))));
        let mut seen = 0;
        while !load.is_finished() {
            let cores = workers_cores();
            assert!(cores.iter().all(|c| *c == free), "{cores:?}, not {free}");
            seen = seen.max(cores.len());
        }
        assert!(seen >= 2, "{seen} workers seen");
    });
}

#[cfg(target_os = "linux")]
fn workers_cores() -> Vec<String> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().map(|task| task.unwrap().path());
    let name = |task: &PathBuf| std::fs::read_to_string(task.join("comm")).unwrap_or_default();
    tasks
        .filter(|task| name(task).starts_with("pipeline-"))
        .map(|task| allowed_cores(&task))
        // Workers of another test may end between the two reads.
        .filter(|cores| !cores.is_empty())
        .collect()
}
