//! The pipeline's own settings.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::quality::QualityThresholds;
use super::runtime::Provider;
use crate::types::Limits;

/// Largest batch that may be asked for.
const MAX_BATCH: usize = 128;

/// How frames become embeddings. Section `[pipeline]` of the configuration file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PipelineSettings {
    /// The folder with packs and runtime that `models/fetch.sh` fills.
    pub models_dir: PathBuf,
    /// The pack to use: a folder below `models_dir`.
    pub pack: String,
    /// What computes.
    pub provider: ProviderChoice,
    /// The ONNX Runtime library to load instead of the one in `models_dir`.
    pub runtime: Option<PathBuf>,
    /// Side of the detector's input, pixels: one of the pack's `input_sizes`. Larger finds smaller
    /// faces and costs its square.
    pub detector_size: u32,
    /// Worker threads; default: one for each core.
    pub workers: Option<usize>,
    /// Most faces in one inference, 1 to 128; the powers of two up to it are used. Default: 8 on
    /// cores, 64 on a device.
    pub max_batch: Option<usize>,
    /// When a face is refused.
    pub quality: QualityThresholds,
    /// Largest frame, pixels.
    pub frame_pixels: u64,
    /// Most frames that may wait or be in work at once; more are refused.
    pub queue: usize,
    /// Where what was measured about this machine is kept, if anywhere.
    #[serde(skip)]
    pub tuning_file: Option<PathBuf>,
    /// Longest wait, milliseconds, that a frame from a gate is accepted for. It is refused at once
    /// when what waits already would take longer.
    pub gate_wait_ms: u64,
}

impl Default for PipelineSettings {
    fn default() -> Self {
        let limits = Limits::default();
        Self {
            models_dir: PathBuf::from("models"),
            pack: "research".into(),
            provider: ProviderChoice::Auto,
            runtime: None,
            detector_size: 320,
            workers: None,
            max_batch: None,
            quality: QualityThresholds::default(),
            frame_pixels: limits.frame_pixels,
            queue: limits.requests_in_flight,
            tuning_file: None,
            gate_wait_ms: 250,
        }
    }
}

impl PipelineSettings {
    /// Number of worker threads.
    pub(super) fn workers(&self) -> usize {
        let cores = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        self.workers.unwrap_or_else(cores)
    }

    /// Batch sizes that `provider` may use: 1, 2, 4, .. up to `max_batch`.
    pub(super) fn batch_sizes(&self, provider: Provider) -> Vec<usize> {
        let most = self.max_batch.unwrap_or(if provider.uses_cores() { 8 } else { 64 });
        std::iter::successors(Some(1), |size| Some(size * 2))
            .take_while(|size| *size <= most)
            .collect()
    }

    /// Checks what can be checked without a pack.
    ///
    /// # Errors
    /// The first setting that is out of its range.
    pub fn check(&self) -> Result<(), SettingFault> {
        let name_is_plain = std::path::Path::new(&self.pack).components().count() == 1;
        let checks = [
            ("pack", name_is_plain, "must name a folder of the models directory"),
            ("workers", self.workers() >= 1, "must be at least 1"),
            (
                "max_batch",
                self.max_batch.is_none_or(|most| (1..=MAX_BATCH).contains(&most)),
                "must be 1 to 128",
            ),
            ("gate_wait_ms", self.gate_wait_ms >= 1, "must be at least 1"),
            ("queue", self.queue >= 1, "must be at least 1"),
            ("frame_pixels", self.frame_pixels >= 1, "must be at least 1"),
        ];
        let fault = checks.into_iter().find(|(_, holds, _)| !holds);
        fault.map_or(Ok(()), |(setting, _, fault)| Err(SettingFault { setting, fault }))
    }
}

/// A setting out of its range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("pipeline.{setting} {fault}")]
pub struct SettingFault {
    /// The setting.
    pub setting: &'static str,
    /// What is wrong with it.
    pub fault: &'static str,
}

/// Which provider to use: `auto` or a provider's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum ProviderChoice {
    /// The fastest that agrees with the reference, measured at start.
    #[default]
    Auto,
    /// This one; when it does not run, the pipeline does not start.
    Named(Provider),
}

/// A provider's name that is none.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "unknown provider {0:?}: use auto, cpu, openvino, openvino-bf16, openvino-int8, cuda or tensorrt"
)]
pub struct UnknownProvider(String);

impl FromStr for ProviderChoice {
    type Err = UnknownProvider;

    fn from_str(name: &str) -> Result<Self, UnknownProvider> {
        if name == "auto" {
            return Ok(Self::Auto);
        }
        let provider = Provider::ALL.into_iter().find(|provider| provider.name() == name);
        provider.map(Self::Named).ok_or_else(|| UnknownProvider(name.to_owned()))
    }
}

impl TryFrom<String> for ProviderChoice {
    type Error = UnknownProvider;

    fn try_from(name: String) -> Result<Self, UnknownProvider> {
        name.parse()
    }
}

impl fmt::Display for ProviderChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Named(provider) => provider.fmt(f),
        }
    }
}

impl From<ProviderChoice> for String {
    fn from(choice: ProviderChoice) -> Self {
        choice.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_read_from_toml_and_unknown_ones_are_refused() {
        let read: PipelineSettings =
            toml::from_str("provider = 'openvino-bf16'\n[quality]\nmin_sharpness = 3.0").unwrap();
        assert_eq!(read.provider, ProviderChoice::Named(Provider::OpenVinoBf16));
        assert!(toml::from_str::<PipelineSettings>("providers = 'cpu'").is_err());
        assert!(toml::from_str::<PipelineSettings>("provider = 'gpu'").is_err());
    }

    #[test]
    fn every_provider_is_read_by_its_name() {
        for provider in Provider::ALL {
            assert_eq!(provider.name().parse(), Ok(ProviderChoice::Named(provider)));
            assert_eq!(serde_json::to_value(provider).unwrap(), provider.name());
        }
    }

    #[test]
    fn a_setting_out_of_range_is_named() {
        let settings = PipelineSettings { max_batch: Some(0), ..Default::default() };
        assert_eq!(settings.check().unwrap_err().setting, "max_batch");
        let settings = PipelineSettings { pack: "../x".into(), ..Default::default() };
        assert_eq!(settings.check().unwrap_err().setting, "pack");
        assert_eq!(PipelineSettings::default().check(), Ok(()));
    }

    #[test]
    fn batch_sizes_are_powers_of_two() {
        let sizes = |max_batch, provider| {
            PipelineSettings { max_batch, ..Default::default() }.batch_sizes(provider)
        };
        assert_eq!(sizes(Some(6), Provider::Cpu), [1, 2, 4]);
        assert_eq!(sizes(Some(1), Provider::Cuda), [1]);
        assert_eq!(sizes(None, Provider::OpenVinoInt8), [1, 2, 4, 8]);
        assert_eq!(sizes(None, Provider::Cuda), [1, 2, 4, 8, 16, 32, 64]);
    }
}
