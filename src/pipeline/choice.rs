//! Which provider computes: measured at start, never assumed.
//!
//! # Invariants
//! - A provider is used only when its embeddings of the drawn probes agree with the reference's.
//! - A provider that was named and does not run, or does not agree, is an error.

use std::time::{Duration, Instant};

use serde::Serialize;
use thiserror::Error;

use super::embed::Recogniser;
use super::pack::ModelPack;
use super::probes;
use super::runtime::{InferenceError, Provider, Runtime, RuntimeError};
use super::settings::ProviderChoice;
use crate::types::Embedding;

/// Least cosine between a provider's embedding and the reference's (DESIGN 6).
const AGREEMENT: f32 = 0.998;
/// How long a candidate is timed.
const MEASURED: Duration = Duration::from_millis(120);
/// The reference.
const REFERENCE: Provider = Provider::Cpu;

/// One line of the provider table.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Candidate {
    /// The provider.
    pub provider: Provider,
    /// What came of it.
    pub trial: Trial,
}

/// What came of trying a provider.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Trial {
    /// It runs.
    Runs {
        /// Embeddings a second, one thread, largest batch.
        faces_per_second: f32,
        /// Least cosine to the reference over the probes, -1 to 1.
        agreement: f32,
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
             {AGREEMENT} is needed"
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
) -> Result<(Provider, Vec<Candidate>), ChoiceError> {
    let (reference, first) = try_reference(runtime, pack)?;
    match choice {
        ProviderChoice::Named(REFERENCE) => Ok((REFERENCE, vec![first])),
        ProviderChoice::Named(provider) => {
            let named = measure(runtime, pack, provider, &reference)?;
            Ok((provider, vec![first, named]))
        }
        ProviderChoice::Auto => {
            let others = Provider::ALL.into_iter().filter(|provider| *provider != REFERENCE);
            let tried = others.map(|provider| attempt(runtime, pack, provider, &reference));
            let table: Vec<Candidate> = std::iter::once(first).chain(tried).collect();
            Ok((fastest(&table), table))
        }
    }
}

fn fastest(table: &[Candidate]) -> Provider {
    let speed = |candidate: &Candidate| match candidate.trial {
        Trial::Runs { faces_per_second, agreement } if agreement >= AGREEMENT => faces_per_second,
        Trial::Runs { .. } | Trial::Fails { .. } => 0.0,
    };
    let best = table.iter().max_by(|a, b| speed(a).total_cmp(&speed(b)));
    best.map_or(REFERENCE, |candidate| candidate.provider)
}

fn try_reference(
    runtime: &Runtime,
    pack: &ModelPack,
) -> Result<(Vec<Embedding>, Candidate), ChoiceError> {
    let (embeddings, faces_per_second) = embed_probes(runtime, pack, REFERENCE)?;
    let trial = Trial::Runs { faces_per_second, agreement: 1.0 };
    Ok((embeddings, Candidate { provider: REFERENCE, trial }))
}

/// Like [`measure`], with a failure as a line of the table.
fn attempt(
    runtime: &Runtime,
    pack: &ModelPack,
    provider: Provider,
    reference: &[Embedding],
) -> Candidate {
    measure(runtime, pack, provider, reference).unwrap_or_else(|error| {
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

fn first_line(error: &dyn std::error::Error) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

fn measure(
    runtime: &Runtime,
    pack: &ModelPack,
    provider: Provider,
    reference: &[Embedding],
) -> Result<Candidate, ChoiceError> {
    let (embeddings, faces_per_second) = embed_probes(runtime, pack, provider)?;
    let cosines = embeddings.iter().zip(reference).map(|(a, b)| a.cosine(b).get());
    let agreement = cosines.fold(1.0, f32::min);
    if agreement < AGREEMENT {
        return Err(ChoiceError::Disagrees { provider, agreement });
    }
    Ok(Candidate { provider, trial: Trial::Runs { faces_per_second, agreement } })
}

/// The probes' embeddings, and how many a second were made.
fn embed_probes(
    runtime: &Runtime,
    pack: &ModelPack,
    provider: Provider,
) -> Result<(Vec<Embedding>, f32), ChoiceError> {
    let failed = |source| ChoiceError::Inference { provider, source };
    let session = runtime.session(&pack.recogniser_model, provider)?;
    let mut recogniser = Recogniser::new(session, &pack.recogniser);
    let probes = probes::crops();
    let embeddings = recogniser.embed(&probes).map_err(failed)?;
    let (start, mut runs) = (Instant::now(), 0_u16);
    while start.elapsed() < MEASURED {
        recogniser.embed(&probes).map_err(failed)?;
        runs += 1;
    }
    #[expect(clippy::cast_precision_loss, reason = "eight")]
    let faces = f32::from(runs) * probes::COUNT as f32;
    Ok((embeddings, faces / start.elapsed().as_secs_f32()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs(provider: Provider, faces_per_second: f32, agreement: f32) -> Candidate {
        Candidate { provider, trial: Trial::Runs { faces_per_second, agreement } }
    }

    #[test]
    fn the_fastest_that_agrees_wins() {
        let failed =
            Candidate { provider: Provider::Cuda, trial: Trial::Fails { reason: String::new() } };
        let table = [
            runs(Provider::Cpu, 50.0, 1.0),
            runs(Provider::OpenVinoF32, 100.0, 0.9999),
            runs(Provider::OpenVinoBf16, 300.0, 0.95),
            failed,
        ];
        assert_eq!(fastest(&table), Provider::OpenVinoF32);
        assert_eq!(fastest(&[]), Provider::Cpu);
    }
}
