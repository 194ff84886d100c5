//! How the models run best on this machine: measured at the first start, kept in a file, checked
//! at every start.
//!
//! # Invariants
//! - What is kept is about speed only. That the provider agrees with the reference is found out
//!   anew at each start, so a file that somebody changed cannot change who matches.
//! - What was kept on another machine, or for other models or settings, is measured again.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::StartError;
use super::choice::{self, Candidate, ChoiceError, Trial};
use super::detect::Detector;
use super::embed::Recogniser;
use super::frame::Image;
use super::pack::ModelPack;
use super::probes;
use super::runtime::{Provider, Runtime};
use super::sessions::Pool;
use super::settings::{PipelineSettings, ProviderChoice};

/// How long each batch size is timed.
const MEASURED: Duration = Duration::from_millis(100);
/// The same where people compare providers.
const COMPARED: Duration = Duration::from_millis(500);
/// A larger batch is used where it makes at least this many times as many faces a second as any
/// smaller one. One of up to four may be slower by itself: it saves changing from model to model,
/// whose weights push each other out of the cache, which gives a tenth more whole requests and is
/// not in the measurement. With more, buffers grow (10 MB a worker from four faces to eight), and
/// the first face waits longer.
const PAYS: [f32; 2] = [0.9, 1.05];
/// The largest batch of the first kind.
const FEW: usize = 4;
/// All cores compute a lone embedding where that makes it this many times as fast.
const WIDE_PAYS: f32 = 1.25;

/// How the models are run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// What computes embeddings.
    pub recogniser: Provider,
    /// What finds faces.
    pub detector: Provider,
    /// In what sizes faces share an inference; ascending, the first is 1.
    pub batch_sizes: Vec<usize>,
    /// Whether the embedding of a lone face is computed by all cores.
    pub wide: bool,
    /// Faces a second of all workers together, by batch size, as measured.
    pub faces_per_second: Vec<(usize, f32)>,
    /// Every provider that was tried, the reference first.
    pub providers: Vec<Candidate>,
}

/// A plan as it lies in its file.
#[derive(Serialize, Deserialize)]
struct Kept {
    /// What it was measured for.
    circumstances: Circumstances,
    plan: Plan,
}

/// All that speed depends on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Circumstances {
    version: String,
    processor: String,
    runtime: String,
    contract: String,
    model_bytes: (usize, usize),
    provider: ProviderChoice,
    detector_size: u32,
    workers: usize,
    max_batch: Option<usize>,
}

impl Circumstances {
    fn of(runtime: &Runtime, pack: &ModelPack, settings: &PipelineSettings) -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            processor: processor(),
            runtime: runtime.path().display().to_string(),
            contract: pack.info().contract.to_string(),
            model_bytes: (pack.detector_model.len(), pack.recogniser_model.len()),
            provider: settings.provider,
            detector_size: settings.detector_size,
            workers: settings.workers(),
            max_batch: settings.max_batch,
        }
    }
}

/// The processor's name and abilities.
fn processor() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let named = |line: &&str| line.starts_with("model name") || line.starts_with("flags");
    text.lines().filter(named).take(2).collect::<Vec<_>>().join("; ")
}

/// A plan that was measured just now, to be kept once its directory is there.
pub(super) struct Unkept {
    file: PathBuf,
    kept: Kept,
}

impl Unkept {
    /// A file that cannot be written only means that the next start measures again.
    pub(super) fn keep(&self) {
        let text = serde_json::to_vec_pretty(&self.kept).map_err(std::io::Error::other);
        if let Err(fault) = text.and_then(|text| std::fs::write(&self.file, text)) {
            tracing::warn!(file = %self.file.display(), %fault, "the tuning is not kept");
        }
    }
}

/// The plan kept, where it fits and its providers still agree; else one measured now.
pub(super) fn plan(
    runtime: &Runtime,
    pack: &ModelPack,
    settings: &PipelineSettings,
) -> Result<(Plan, Option<Unkept>), ChoiceError> {
    let circumstances = Circumstances::of(runtime, pack, settings);
    let kept =
        settings.tuning_file.as_deref().and_then(|file| kept(file, &circumstances, settings));
    if let Some(plan) = kept {
        match choice::check(runtime, pack, &[plan.recogniser, plan.detector]) {
            Ok(()) => return Ok((plan, None)),
            Err(fault) => tracing::warn!(%fault, "the kept tuning is not usable; measuring again"),
        }
    }
    let plan = measure(runtime, pack, settings)?;
    let kept = Kept { circumstances, plan: plan.clone() };
    let unkept = settings.tuning_file.clone().map(|file| Unkept { file, kept });
    Ok((plan, unkept))
}

fn kept(file: &Path, circumstances: &Circumstances, settings: &PipelineSettings) -> Option<Plan> {
    let kept: Kept = serde_json::from_slice(&std::fs::read(file).ok()?).ok()?;
    let Kept { circumstances: then, plan } = kept;
    let sizes = &plan.batch_sizes;
    let possible = !sizes.is_empty() && settings.batch_sizes(plan.recogniser).starts_with(sizes);
    (then == *circumstances && possible).then_some(plan)
}

/// Measures providers, then batch sizes, then whether all cores help a lone face.
fn measure(
    runtime: &Runtime,
    pack: &ModelPack,
    settings: &PipelineSettings,
) -> Result<Plan, ChoiceError> {
    let side = settings.detector_size as usize;
    let (recogniser, providers) = choice::choose(runtime, pack, settings.provider, side)?;
    let detector = match settings.provider {
        ProviderChoice::Auto => choice::fastest_detector(&providers),
        ProviderChoice::Named(provider) => provider,
    };
    let bench = Bench { runtime, pack, provider: recogniser };
    let workers = settings.workers();
    let faces_per_second =
        bench.throughput(workers, &settings.batch_sizes(recogniser), MEASURED)?;
    let batch_sizes = sizes_that_pay(&faces_per_second);
    let wide = workers > 1
        && recogniser.uses_cores()
        && bench.alone(workers, MEASURED)? >= WIDE_PAYS * bench.alone(1, MEASURED)?;
    Ok(Plan { recogniser, detector, batch_sizes, wide, faces_per_second, providers })
}

/// How fast one provider runs, for people who choose.
#[derive(Debug, Clone, Serialize)]
pub struct ProviderSpeed {
    /// The provider, its agreement with the reference, one thread's speed.
    #[serde(flatten)]
    pub candidate: Candidate,
    /// Faces a second of all workers together, by batch size.
    pub faces_per_second: Vec<(usize, f32)>,
    /// Faces a second, one after the other, with one thread and with all.
    pub alone: [f32; 2],
    /// Detections a second of all workers together.
    pub detections_per_second: f32,
}

/// Measures every provider that runs here and agrees, with `settings`' workers and batch sizes;
/// `told` hears of each as soon as it is known. Takes some seconds.
///
/// # Errors
/// No usable pack or runtime.
pub fn compare_providers(
    settings: &PipelineSettings,
    mut told: impl FnMut(&ProviderSpeed),
) -> Result<Vec<ProviderSpeed>, StartError> {
    settings.check()?;
    let pack = super::load_pack(settings)?;
    let runtime = Runtime::load(&settings.models_dir, settings.runtime.as_deref())?;
    let side = settings.detector_size as usize;
    let (_, candidates) = choice::choose(&runtime, &pack, settings.provider, side)?;
    let wanted = |candidate: &Candidate| match settings.provider {
        ProviderChoice::Auto => true,
        ProviderChoice::Named(provider) => provider == candidate.provider,
    };
    let mut table = Vec::new();
    for candidate in candidates.into_iter().filter(wanted) {
        let bench = Bench { runtime: &runtime, pack: &pack, provider: candidate.provider };
        let speed = bench.speed(candidate, settings)?;
        told(&speed);
        table.push(speed);
    }
    Ok(table)
}

/// Size 1, and the sizes up to the last one that pays.
fn sizes_that_pay(measured: &[(usize, f32)]) -> Vec<usize> {
    let (mut best, mut sizes, mut last) = (0.0_f32, Vec::new(), 0);
    for (number, (size, rate)) in measured.iter().enumerate() {
        sizes.push(*size);
        if *rate >= best * PAYS[usize::from(*size > FEW)] {
            (best, last) = (best.max(*rate), number);
        }
    }
    sizes.truncate(last + 1);
    sizes
}

/// Times one provider's models.
struct Bench<'a> {
    runtime: &'a Runtime,
    pack: &'a ModelPack,
    provider: Provider,
}

impl Bench<'_> {
    /// All of a provider that runs; nothing of one that does not.
    fn speed(
        &self,
        candidate: Candidate,
        settings: &PipelineSettings,
    ) -> Result<ProviderSpeed, ChoiceError> {
        let workers = settings.workers();
        let mut speed = ProviderSpeed {
            candidate,
            faces_per_second: Vec::new(),
            alone: [0.0; 2],
            detections_per_second: 0.0,
        };
        if let Trial::Runs { .. } = speed.candidate.trial {
            speed.faces_per_second =
                self.throughput(workers, &settings.batch_sizes(self.provider), COMPARED)?;
            speed.alone = [self.alone(1, COMPARED)?, self.alone(workers, COMPARED)?];
            speed.detections_per_second =
                self.detections(workers, settings.detector_size as usize)?;
        }
        Ok(speed)
    }

    /// Detections a second of the sessions of so many workers, on a blank picture.
    fn detections(&self, workers: usize, side: usize) -> Result<f32, ChoiceError> {
        let provider = self.provider;
        let sessions = Pool::load(provider.detectors(workers), || {
            choice::warm_detector(self.runtime, self.pack, provider, 1, side)
        })?;
        let picture = Image::black(side, side);
        let rate = |detector: &mut Detector| {
            choice::per_second(provider, COMPARED, || detector.detect(&picture))
        };
        Ok(sessions.each(rate)?.into_iter().sum())
    }

    fn recogniser(&self, threads: usize) -> Result<Recogniser, ChoiceError> {
        Ok(Recogniser::load(self.runtime, self.pack, self.provider, threads)?)
    }

    /// Faces a second of the sessions of so many workers, by batch size.
    fn throughput(
        &self,
        workers: usize,
        sizes: &[usize],
        time: Duration,
    ) -> Result<Vec<(usize, f32)>, ChoiceError> {
        let sessions = Pool::load(self.provider.recognisers(workers), || self.recogniser(1))?;
        let mut table = Vec::new();
        for size in sizes {
            let crops: Vec<Vec<u8>> = probes::crops().into_iter().cycle().take(*size).collect();
            let rates = sessions.each(|recogniser| self.rate(recogniser, &crops, time))?;
            table.push((*size, rates.into_iter().sum()));
        }
        Ok(table)
    }

    /// Faces a second, one after the other, of one session with `threads`: the better of two
    /// goes, since whatever else the machine does only slows them.
    fn alone(&self, threads: usize, time: Duration) -> Result<f32, ChoiceError> {
        let mut recogniser = self.recogniser(threads)?;
        let mut go = || self.rate(&mut recogniser, &probes::crops()[..1], time);
        Ok(go()?.max(go()?))
    }

    fn rate(
        &self,
        recogniser: &mut Recogniser,
        crops: &[Vec<u8>],
        time: Duration,
    ) -> Result<f32, ChoiceError> {
        let provider = self.provider;
        // The first compiles.
        recogniser.embed(crops).map_err(|source| ChoiceError::Inference { provider, source })?;
        #[expect(clippy::cast_precision_loss, reason = "at most 128")]
        let faces = crops.len() as f32;
        Ok(faces * choice::per_second(provider, time, || recogniser.embed(crops))?)
    }
}

#[cfg(test)]
mod tests {
    use super::super::choice::Trial;
    use super::super::goldens::models;
    use super::*;

    #[test]
    fn batches_grow_as_long_as_it_pays() {
        let amx = [(1, 277.0), (2, 330.0), (4, 420.0), (8, 604.0)];
        assert_eq!(sizes_that_pay(&amx), [1, 2, 4, 8]);
        assert_eq!(sizes_that_pay(&[(1, 210.0), (2, 212.0), (4, 208.0), (8, 198.0)]), [1, 2, 4]);
        assert_eq!(sizes_that_pay(&[(1, 100.0), (2, 120.0), (4, 121.0)]), [1, 2, 4]);
        assert_eq!(sizes_that_pay(&[(1, 100.0), (2, 120.0), (4, 100.0)]), [1, 2]);
        assert_eq!(sizes_that_pay(&[(1, 333.0), (2, 342.0), (4, 355.0), (8, 360.0)]), [1, 2, 4]);
        // A dip in between is no end.
        assert_eq!(sizes_that_pay(&[(1, 100.0), (2, 90.0), (4, 150.0)]), [1, 2, 4]);
    }

    /// Settings whose file lies in `place`, and what a plan is made with.
    fn parts(place: &Path) -> (PathBuf, PipelineSettings, Runtime, ModelPack) {
        let file = place.join("tuning.json");
        let settings = PipelineSettings {
            models_dir: models(),
            provider: ProviderChoice::Named(Provider::Cpu),
            workers: Some(1),
            max_batch: Some(2),
            tuning_file: Some(file.clone()),
            ..PipelineSettings::default()
        };
        let runtime = Runtime::load(&settings.models_dir, None).unwrap();
        let pack = ModelPack::load(&settings.models_dir.join("research")).unwrap();
        (file, settings, runtime, pack)
    }

    #[test]
    fn what_was_measured_is_kept_and_only_for_its_circumstances() {
        let place = tempfile::tempdir().unwrap();
        let (file, settings, runtime, pack) = parts(place.path());
        let (measured, unkept) = plan(&runtime, &pack, &settings).unwrap();
        assert_eq!(measured.recogniser, Provider::Cpu);
        assert!(measured.faces_per_second.iter().all(|(_, rate)| *rate > 0.0));
        assert!(
            matches!(measured.providers[0].trial, Trial::Runs { detector_ms, .. } if detector_ms > 0.0)
        );
        unkept.unwrap().keep();
        let again = |settings| plan(&runtime, &pack, settings).unwrap();
        // Kept: the same numbers to the digit, which no second measurement gives.
        assert_eq!(again(&settings).0, measured);
        assert!(again(&settings).1.is_none());
        let larger = PipelineSettings { max_batch: Some(4), ..settings.clone() };
        let (other, unkept) = again(&larger);
        assert_eq!((other.faces_per_second.len(), unkept.is_some()), (3, true));
        std::fs::write(&file, "{}").unwrap();
        assert_ne!(again(&settings).0, measured, "measured anew");
    }

    #[test]
    fn a_plan_that_no_measurement_makes_is_not_taken() {
        let place = tempfile::tempdir().unwrap();
        let (file, settings, runtime, pack) = parts(place.path());
        let circumstances = Circumstances::of(&runtime, &pack, &settings);
        for (batch_sizes, taken) in [
            (vec![1, 2], true),
            (vec![1], true),
            (vec![2], false),
            (vec![], false),
            (vec![1, 4], false),
            (vec![1, 2, 4], false),
            (vec![1, 900], false),
        ] {
            let plan = Plan {
                recogniser: Provider::Cpu,
                detector: Provider::Cpu,
                batch_sizes: batch_sizes.clone(),
                wide: false,
                faces_per_second: vec![],
                providers: vec![],
            };
            let kept = Kept { circumstances: circumstances.clone(), plan };
            Unkept { file: file.clone(), kept }.keep();
            assert_eq!(
                super::kept(&file, &circumstances, &settings).is_some(),
                taken,
                "{batch_sizes:?}"
            );
        }
    }
}
