//! ONNX Runtime: loaded once per process from a named file, sessions with one named provider.
//!
//! # Invariants
//! - A session runs on the provider that was asked for or does not exist: registration errors are
//!   errors.
//! - A session on cores uses one thread: the workers are the parallelism, so that nothing
//!   oversubscribes them. The wide session, which uses all cores, works for a lone face only.
//! - Inputs are borrowed from buffers of ours, outputs are zeroised where they lie before they are
//!   freed, and the runtime's arena in main memory is off, so that it keeps no pool of freed faces.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use ort::environment::Environment;
use ort::ep::{self, ArbitrarilyConfigurableExecutionProvider, ExecutionProviderDispatch};
use ort::session::Session;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use ort::value::{PrimitiveTensorElementType, TensorRef};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::rewrite::{QuantiseError, rewritten};
use super::wiped::{Wiped, wipe};
use crate::types::EmbeddingError;

/// The file in the models directory's `runtime` folder that names the library to load.
const CURRENT: &str = "current";

/// Sessions on a device, where each takes seconds to get ready (docs/performance.md). One detection
/// leaves most of it idle: eight find three times as many faces as one. Two recognisers: one
/// computes while the faces of the other travel.
const DEVICE_DETECTORS: usize = 8;
const DEVICE_RECOGNISERS: usize = 2;

/// What computes: an execution provider of ONNX Runtime and its precision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Provider {
    /// ONNX Runtime's own kernels, f32. There on every machine; the reference for all others.
    Cpu,
    /// OpenVINO, f32.
    #[serde(rename = "openvino")]
    OpenVinoF32,
    /// OpenVINO, bf16: fast where the processor has AMX or AVX-512 BF16.
    #[serde(rename = "openvino-bf16")]
    OpenVinoBf16,
    /// The same with the recogniser's pointwise convolutions in eight bits, where the pack has
    /// ranges for them.
    #[serde(rename = "openvino-int8")]
    OpenVinoInt8,
    /// NVIDIA CUDA, f32.
    Cuda,
    /// NVIDIA TensorRT, f16 where it helps.
    #[serde(rename = "tensorrt")]
    TensorRt,
}

impl Provider {
    /// All, the reference first.
    pub const ALL: [Self; 6] = [
        Self::Cpu,
        Self::OpenVinoF32,
        Self::OpenVinoBf16,
        Self::OpenVinoInt8,
        Self::Cuda,
        Self::TensorRt,
    ];

    /// The name in settings, metrics and tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::OpenVinoF32 => "openvino",
            Self::OpenVinoBf16 => "openvino-bf16",
            Self::OpenVinoInt8 => "openvino-int8",
            Self::Cuda => "cuda",
            Self::TensorRt => "tensorrt",
        }
    }

    /// Whether it computes on the cores that the workers' threads run on.
    pub(super) fn uses_cores(self) -> bool {
        self == Self::Cpu || self.is_openvino()
    }

    fn is_openvino(self) -> bool {
        matches!(self, Self::OpenVinoF32 | Self::OpenVinoBf16 | Self::OpenVinoInt8)
    }

    /// Sessions of the detector for `workers`.
    pub(super) fn detectors(self, workers: usize) -> usize {
        if self.uses_cores() { workers } else { workers.min(DEVICE_DETECTORS) }
    }

    /// Sessions of the recogniser for `workers`.
    pub(super) fn recognisers(self, workers: usize) -> usize {
        if self.uses_cores() { workers } else { workers.min(DEVICE_RECOGNISERS) }
    }

    /// Whether its detector rounds to eight bits of mantissa, which moves the landmarks of small
    /// faces too far.
    pub(super) fn is_coarse(self) -> bool {
        matches!(self, Self::OpenVinoBf16 | Self::OpenVinoInt8)
    }

    /// Least cosine between its embedding and the reference's: what bf16 keeps (DESIGN 6), or, in
    /// eight bits, what costs no more than 0.02 points of accuracy (models/README.md).
    pub(super) fn least_agreement(self) -> f32 {
        if self == Self::OpenVinoInt8 { 0.99 } else { 0.998 }
    }

    /// What ONNX Runtime is asked to register, if anything beside its own kernels.
    fn dispatch(self, threads: usize) -> Option<ExecutionProviderDispatch> {
        match self {
            Self::Cpu => None,
            Self::OpenVinoF32 => Some(openvino("f32", threads)),
            Self::OpenVinoBf16 => Some(openvino("bf16", threads)),
            Self::OpenVinoInt8 => Some(openvino(beside_eight_bits(), threads)),
            Self::Cuda => Some(cuda().build()),
            Self::TensorRt => Some(ep::TensorRT::default().with_fp16(true).build()),
        }
    }
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// So many threads, precision named (OpenVINO's own default is bf16 on some processors and f32 on
/// others), and no pinning: with it each session pins its caller to the first core, so that all
/// workers share that one.
fn openvino(precision: &str, threads: usize) -> ExecutionProviderDispatch {
    let device = serde_json::json!({"CPU": {
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": threads.to_string(),
        "NUM_STREAMS": "1",
        "ENABLE_CPU_PINNING": "NO",
    }});
    ep::OpenVINO::default()
        .with_device_type("CPU")
        .with_arbitrary_config("load_config", device)
        .build()
}

/// The heuristic search: the exhaustive one takes twice as long for each input shape and finds
/// what is 2 to 4 % faster. Memory as needed, for many sessions share the device.
fn cuda() -> ep::CUDA {
    ep::CUDA::default()
        .with_conv_algorithm_search(ep::cuda::ConvAlgorithmSearch::Heuristic)
        .with_arena_extend_strategy(ep::ArenaExtendStrategy::SameAsRequested)
}

/// The precision of what is not in eight bits.
fn beside_eight_bits() -> &'static str {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx512bf16") {
        return "bf16";
    }
    "f32"
}

/// Why the runtime or a session of it does not work.
#[derive(Debug, Error)]
pub enum RuntimeError {
    /// No file says which library to load.
    #[error("no ONNX Runtime below {} (run `assent models fetch`)", path.display())]
    Missing {
        /// The file looked for.
        path: PathBuf,
        /// Why it could not be read.
        source: std::io::Error,
    },
    /// The library does not load.
    #[error("cannot load ONNX Runtime from {} (run `assent models fetch`)", path.display())]
    Load {
        /// The library.
        path: PathBuf,
        /// The loader's words.
        source: ort::LoadDynamicError,
    },
    /// One process, one library.
    #[error("ONNX Runtime is already loaded from {}, not from {}", loaded.display(), asked.display())]
    Another {
        /// The library that is loaded.
        loaded: PathBuf,
        /// The library that was asked for.
        asked: PathBuf,
    },
    /// The runtime does not start.
    #[error("ONNX Runtime does not start")]
    Start {
        /// The runtime's words.
        source: ort::Error,
    },
    /// The pack cannot be computed in eight bits.
    #[error("the pack has no ranges for eight bits")]
    NoRanges,
    /// The pack's ranges do not fit.
    #[error("the recogniser cannot be computed in eight bits")]
    Quantise(#[from] QuantiseError),
    /// The detector's model is not understood.
    #[error("the detector is no readable ONNX model with one input, of pictures")]
    Detector,
    /// A model does not load on a provider.
    #[error("the provider {provider} does not run here")]
    Session {
        /// The provider.
        provider: Provider,
        /// The runtime's words.
        source: ort::Error,
    },
}

/// Why one inference failed.
#[derive(Debug, Error)]
pub enum InferenceError {
    /// The runtime refused.
    #[error("inference failed")]
    Run(#[from] ort::Error),
    /// The model is not of the kind that the manifest says.
    #[error("the {what} answers in an unexpected shape")]
    Shape {
        /// Which model.
        what: &'static str,
    },
    /// The answer has no direction.
    #[error("the recogniser's answer is no embedding")]
    Embedding(#[from] EmbeddingError),
}

/// The loaded library.
#[derive(Clone)]
pub(super) struct Runtime {
    path: PathBuf,
    environment: Environment,
}

/// A dynamic library can be loaded only once, so this is the process's, not a pipeline's.
static LOADED: Mutex<Option<Runtime>> = Mutex::new(None);

impl Runtime {
    /// Loads `explicit` or else the library that `runtime/current` in `models_dir` names. Loading
    /// the same library again is free.
    pub(super) fn load(models_dir: &Path, explicit: Option<&Path>) -> Result<Self, RuntimeError> {
        let path = explicit.map_or_else(|| current(models_dir), |path| Ok(path.to_path_buf()))?;
        let path = path.canonicalize().map_err(|source| RuntimeError::Missing { path, source })?;
        let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
        match &*loaded {
            Some(runtime) if runtime.path == path => Ok(runtime.clone()),
            Some(runtime) => {
                Err(RuntimeError::Another { loaded: runtime.path.clone(), asked: path })
            }
            None => Ok(loaded.insert(Self::open(path)?).clone()),
        }
    }

    fn open(path: PathBuf) -> Result<Self, RuntimeError> {
        let builder = ort::init_from(&path)
            .map_err(|source| RuntimeError::Load { path: path.clone(), source })?;
        let environment = builder
            .with_name("assent")
            .with_telemetry(false)
            .with_logger(Arc::new(log))
            .build()
            .map_err(|source| RuntimeError::Start { source })?;
        Ok(Self { path, environment })
    }

    /// The library's file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// A session of `model` (ONNX bytes) on `provider` that computes with `threads`.
    pub(super) fn session(
        &self,
        model: &[u8],
        provider: Provider,
        threads: usize,
    ) -> Result<Session, RuntimeError> {
        // Not for the reference, so that the check against it covers the rewriting.
        let rewrite = if provider.is_openvino() { rewritten(model) } else { None };
        self.builder(provider, threads)
            .and_then(|mut builder| builder.commit_from_memory(rewrite.as_deref().unwrap_or(model)))
            .map_err(|source| RuntimeError::Session { provider, source })
    }

    fn builder(&self, provider: Provider, threads: usize) -> ort::Result<SessionBuilder> {
        let cpu = ep::CPU::default().with_arena_allocator(false).build();
        let named = provider.dispatch(threads).map(ExecutionProviderDispatch::error_on_failure);
        let providers: Vec<_> = named.into_iter().chain([cpu]).collect();
        Ok(SessionBuilder::new(&self.environment)?
            .with_intra_threads(threads)?
            .with_inter_threads(1)?
            .with_memory_pattern(false)?
            .with_optimization_level(level(provider))?
            .with_execution_providers(providers)?)
    }
}

/// ONNX Runtime would turn weights in eight bits into floats before OpenVINO sees them.
fn level(provider: Provider) -> GraphOptimizationLevel {
    if provider == Provider::OpenVinoInt8 {
        GraphOptimizationLevel::Disable
    } else {
        GraphOptimizationLevel::All
    }
}

fn current(models_dir: &Path) -> Result<PathBuf, RuntimeError> {
    let folder = models_dir.join("runtime");
    let path = folder.join(CURRENT);
    let name =
        std::fs::read_to_string(&path).map_err(|source| RuntimeError::Missing { path, source })?;
    Ok(folder.join(name.trim()))
}

/// The runtime's log lines speak of graphs and devices, never of data.
fn log(level: ort::logging::LogLevel, category: &str, _id: &str, _at: &str, message: &str) {
    use ort::logging::LogLevel;
    match level {
        LogLevel::Verbose | LogLevel::Info => tracing::trace!(category, message),
        LogLevel::Warning => tracing::debug!(category, message),
        LogLevel::Error | LogLevel::Fatal => tracing::warn!(category, message),
    }
}

/// An input buffer of ours, reused and wiped after every run.
pub(super) struct Tensor<T: Copy + Default = f32> {
    shape: [usize; 4],
    values: Wiped<T>,
}

impl<T: PrimitiveTensorElementType + fmt::Debug + Copy + Default + 'static> Tensor<T> {
    pub(super) fn new(shape: [usize; 4]) -> Self {
        Self { shape, values: Wiped::zeros(shape.iter().product()) }
    }

    /// Changes the shape. What grows is allocated anew, so that nothing stays behind unwiped.
    pub(super) fn reshape(&mut self, shape: [usize; 4]) {
        let length: usize = shape.iter().product();
        if length > self.values.len() {
            *self = Self::new(shape);
        }
        self.shape = shape;
    }

    /// The values of the present shape, to be filled before each run.
    pub(super) fn values_mut(&mut self) -> &mut [T] {
        let length = self.shape.iter().product();
        &mut self.values[..length]
    }

    /// Runs `session` on these values, gives its outputs to `read`, then wipes both.
    pub(super) fn run<A>(
        &mut self,
        session: &mut Session,
        read: impl FnOnce(&[&[f32]]) -> A,
    ) -> Result<A, InferenceError> {
        let result = self.run_unwiped(session, read);
        wipe(self.values_mut());
        Ok(result?)
    }

    fn run_unwiped<A>(
        &mut self,
        session: &mut Session,
        read: impl FnOnce(&[&[f32]]) -> A,
    ) -> ort::Result<A> {
        let shape = self.shape;
        let input = TensorRef::from_array_view((shape, &*self.values_mut()))?;
        let mut outputs = session.run(ort::inputs![input])?;
        let answer = {
            let held: Vec<_> = outputs.values().collect();
            let values = held.iter().map(|value| Ok(value.try_extract_tensor::<f32>()?.1));
            read(&values.collect::<ort::Result<Vec<_>>>()?)
        };
        for (_, mut output) in &mut outputs {
            wipe(output.try_extract_tensor_mut::<f32>()?.1);
        }
        Ok(answer)
    }
}
