//! Which provider computes: measured at start, never assumed.
//!
//! # Invariants
//! - A provider is used only when its embeddings of the drawn probes agree with the reference's.
//! - A provider that was named and does not run, or does not agree, is an error.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::detect::Detector;
use super::embed::Recogniser;
use super::frame::Image;
use super::pack::ModelPack;
use super::probes;
use super::runtime::{InferenceError, Provider, Runtime, RuntimeError};
use super::settings::ProviderChoice;
use crate::types::Embedding;

/// How long a candidate is timed.
const MEASURED: Duration = Duration::from_millis(120);
/// The reference.
const REFERENCE: Provider = Provider::Cpu;

/// One line of the provider table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Candidate {
    /// The provider.
    pub provider: Provider,
    /// What came of it.
    pub trial: Trial,
}

/// What came of trying a provider.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trial {
    /// It runs.
    Runs {
        /// Embeddings a second, one thread, largest batch.
        faces_per_second: f32,
        /// Least cosine to the reference over the probes, -1 to 1.
        agreement: f32,
        /// One detection, one thread, milliseconds.
        detector_ms: f32,
    },
    /// It does not.
    Fails {
        /// The runtime's words.
        reason: String,
    },
}

/// Why no provider could be chosen.
#[derive(Debug, Error)]
pub enum ChoiceError {
    /// The reference or the named provider does not run.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// It loads but does not compute.
    #[error("the provider {provider} loads but fails")]
    Inference {
        /// The provider.
        provider: Provider,
        /// Why.
        source: InferenceError,
    },
    /// It computes something else.
    #[error(
        "the provider {provider} disagrees with the reference: cosine {agreement:.4}, at least \
             {} is needed",
        provider.least_agreement()
    )]
    Disagrees {
        /// The provider.
        provider: Provider,
        /// Least cosine over the probes.
        agreement: f32,
    },
}

/// Measures the providers that `choice` allows and gives the one to use, with the table.
pub(super) fn choose(
    runtime: &Runtime,
    pack: &ModelPack,
    choice: ProviderChoice,
    detector_size: usize,
) -> Result<(Provider, Vec<Candidate>), ChoiceError> {
    let trials = Trials { runtime, pack, detector_size };
    let (reference, first) = trials.of_reference()?;
    match choice {
        ProviderChoice::Named(REFERENCE) => Ok((REFERENCE, vec![first])),
        ProviderChoice::Named(provider) => {
            let named = trials.measure(provider, &reference)?;
            Ok((provider, vec![first, named]))
        }
        ProviderChoice::Auto => {
            let others = Provider::ALL.into_iter().filter(|provider| *provider != REFERENCE);
            let tried = others.map(|provider| trials.attempt(provider, &reference));
            let table: Vec<Candidate> = std::iter::once(first).chain(tried).collect();
            Ok((fastest(&table), table))
        }
    }
}

/// Whether `providers`, named without a measurement, still agree with the reference.
pub(super) fn check(
    runtime: &Runtime,
    pack: &ModelPack,
    providers: &[Provider],
) -> Result<(), ChoiceError> {
    let others: BTreeSet<_> = providers.iter().filter(|name| **name != REFERENCE).collect();
    if others.is_empty() {
        return Ok(());
    }
    let (reference, _) = embed_probes(runtime, pack, REFERENCE)?;
    others.into_iter().try_for_each(|provider| {
        let (embeddings, _) = embed_probes(runtime, pack, *provider)?;
        agreement(*provider, &embeddings, &reference).map(|_| ())
    })
}

/// The provider that embeds fastest among those that agree.
fn fastest(table: &[Candidate]) -> Provider {
    best(table.iter(), |faces_per_second, _| faces_per_second)
}

/// The provider that finds faces fastest among those whose embeddings agree. Only recognisers are
/// computed in eight bits.
pub(super) fn fastest_detector(table: &[Candidate]) -> Provider {
    let detects = |candidate: &&Candidate| candidate.provider != Provider::OpenVinoInt8;
    best(table.iter().filter(detects), |_, detector_ms| -detector_ms)
}

/// The provider that agrees and has the highest `score` of its faces a second and its
/// milliseconds a detection.
fn best<'a>(
    table: impl Iterator<Item = &'a Candidate>,
    score: impl Fn(f32, f32) -> f32,
) -> Provider {
    let scores = table.filter_map(|candidate| match candidate.trial {
        Trial::Runs { faces_per_second, agreement, detector_ms }
            if agreement >= candidate.provider.least_agreement() =>
        {
            Some((candidate.provider, score(faces_per_second, detector_ms)))
        }
        Trial::Runs { .. } | Trial::Fails { .. } => None,
    });
    scores.max_by(|a, b| a.1.total_cmp(&b.1)).map_or(REFERENCE, |(provider, _)| provider)
}

/// What trials need.
struct Trials<'a> {
    runtime: &'a Runtime,
    pack: &'a ModelPack,
    detector_size: usize,
}

impl Trials<'_> {
    fn of_reference(&self) -> Result<(Vec<Embedding>, Candidate), ChoiceError> {
        let (embeddings, faces_per_second) = self.embed(REFERENCE)?;
        let detector_ms = self.detector_ms(REFERENCE)?;
        let trial = Trial::Runs { faces_per_second, agreement: 1.0, detector_ms };
        Ok((embeddings, Candidate { provider: REFERENCE, trial }))
    }

    fn measure(
        &self,
        provider: Provider,
        reference: &[Embedding],
    ) -> Result<Candidate, ChoiceError> {
        let (embeddings, faces_per_second) = self.embed(provider)?;
        let agreement = agreement(provider, &embeddings, reference)?;
        let detector_ms = self.detector_ms(provider)?;
        let trial = Trial::Runs { faces_per_second, agreement, detector_ms };
        Ok(Candidate { provider, trial })
    }

    /// Like [`Trials::measure`], with a failure as a line of the table.
    fn attempt(&self, provider: Provider, reference: &[Embedding]) -> Candidate {
        self.measure(provider, reference).unwrap_or_else(|error| {
            let trial = match error {
                ChoiceError::Disagrees { agreement, .. } => {
                    Trial::Fails { reason: format!("disagrees with the reference: {agreement:.4}") }
                }
                ChoiceError::Runtime(RuntimeError::Session { source, .. }) => {
                    Trial::Fails { reason: first_line(&source) }
                }
                ChoiceError::Runtime(_) | ChoiceError::Inference { .. } => {
                    Trial::Fails { reason: first_line(&error) }
                }
            };
            Candidate { provider, trial }
        })
    }

    /// The probes' embeddings, and how many a second are made.
    fn embed(&self, provider: Provider) -> Result<(Vec<Embedding>, f32), ChoiceError> {
        let (embeddings, mut recogniser) = embed_probes(self.runtime, self.pack, provider)?;
        let probes = probes::crops();
        let runs = per_second(provider, MEASURED, || recogniser.embed(&probes))?;
        #[expect(clippy::cast_precision_loss, reason = "eight")]
        let faces = probes::COUNT as f32;
        Ok((embeddings, runs * faces))
    }

    fn detector_ms(&self, provider: Provider) -> Result<f32, ChoiceError> {
        let side = self.detector_size;
        let mut detector = warm_detector(self.runtime, self.pack, provider, 1, side)?;
        let picture = Image::black(side, side);
        Ok(1000.0 / per_second(provider, MEASURED, || detector.detect(&picture))?)
    }
}

/// A detector after a run of each input size, so that nobody pays for that later.
pub(super) fn warm_detector(
    runtime: &Runtime,
    pack: &ModelPack,
    provider: Provider,
    threads: usize,
    side: usize,
) -> Result<Detector, ChoiceError> {
    let mut detector = Detector::load(runtime, pack, provider, threads, side)?;
    detector.warm().map_err(|source| ChoiceError::Inference { provider, source })?;
    Ok(detector)
}

fn first_line(error: &dyn std::error::Error) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

/// The probes' embeddings, and the recogniser that made them.
fn embed_probes(
    runtime: &Runtime,
    pack: &ModelPack,
    provider: Provider,
) -> Result<(Vec<Embedding>, Recogniser), ChoiceError> {
    let mut recogniser = Recogniser::load(runtime, pack, provider, 1)?;
    let embeddings = recogniser
        .embed(&probes::crops())
        .map_err(|source| ChoiceError::Inference { provider, source })?;
    Ok((embeddings, recogniser))
}

/// Least cosine to the reference, if it is enough.
fn agreement(
    provider: Provider,
    embeddings: &[Embedding],
    reference: &[Embedding],
) -> Result<f32, ChoiceError> {
    let cosines = embeddings.iter().zip(reference).map(|(a, b)| a.cosine(b).get());
    let agreement = cosines.fold(1.0, f32::min);
    if agreement < provider.least_agreement() {
        return Err(ChoiceError::Disagrees { provider, agreement });
    }
    Ok(agreement)
}

/// How often `provider` does `work` a second, found out in `time`.
pub(super) fn per_second<T>(
    provider: Provider,
    time: Duration,
    mut work: impl FnMut() -> Result<T, InferenceError>,
) -> Result<f32, ChoiceError> {
    let (start, mut runs) = (Instant::now(), 0_u16);
    while start.elapsed() < time {
        work().map_err(|source| ChoiceError::Inference { provider, source })?;
        runs += 1;
    }
    Ok(f32::from(runs) / start.elapsed().as_secs_f32())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs(provider: Provider, faces_per_second: f32, agreement: f32) -> Candidate {
        Candidate { provider, trial: Trial::Runs { faces_per_second, agreement, detector_ms: 2.0 } }
    }

    #[test]
    fn the_fastest_that_agrees_wins() {
        let failed =
            Candidate { provider: Provider::Cuda, trial: Trial::Fails { reason: String::new() } };
        let table = [
            runs(Provider::Cpu, 50.0, 1.0),
            runs(Provider::OpenVinoF32, 100.0, 0.9999),
            runs(Provider::OpenVinoBf16, 300.0, 0.995),
            runs(Provider::OpenVinoInt8, 400.0, 0.985),
            failed,
        ];
        assert_eq!(fastest(&table), Provider::OpenVinoF32);
        let rounded = runs(Provider::OpenVinoInt8, 400.0, 0.995);
        assert_eq!(fastest(&[table[1].clone(), rounded]), Provider::OpenVinoInt8);
        assert_eq!(fastest(&[]), Provider::Cpu);
    }
}
