//! Aligned crops -> embeddings, several at once.

use std::borrow::Cow;
use std::collections::BTreeSet;

use ndarray::ArrayView2;
use ort::session::Session;

use super::frame::{CROP, CROP_BYTES};
use super::pack::{ModelPack, RecogniserSpec};
use super::rewrite::quantised;
use super::runtime::{InferenceError, Provider, Runtime, RuntimeError, Tensor};
use crate::types::Embedding;

/// A recogniser session with an input buffer for the largest batch.
pub(super) struct Recogniser {
    session: Session,
    spec: RecogniserSpec,
    input: Tensor,
    /// Batch sizes that ran on faces since it was scrubbed.
    used: BTreeSet<usize>,
}

impl Recogniser {
    /// The pack's recogniser on `provider`, computing with `threads`.
    pub(super) fn load(
        runtime: &Runtime,
        pack: &ModelPack,
        provider: Provider,
        threads: usize,
    ) -> Result<Self, RuntimeError> {
        let model = match (provider, &pack.ranges) {
            (Provider::OpenVinoInt8, None) => return Err(RuntimeError::NoRanges),
            (Provider::OpenVinoInt8, Some((spec, ranges))) => {
                Cow::Owned(quantised(&pack.recogniser_model, ranges, &spec.float)?)
            }
            _ => Cow::Borrowed(&pack.recogniser_model),
        };
        let session = runtime.session(&model, provider, threads)?;
        let (input, spec) = (Tensor::new([1, 3, CROP, CROP]), pack.recogniser.clone());
        Ok(Self { session, spec, input, used: BTreeSet::new() })
    }

    /// One embedding for each crop of 112 x 112 RGB, in order.
    pub(super) fn embed<C: AsRef<[u8]>>(
        &mut self,
        crops: &[C],
    ) -> Result<Vec<Embedding>, InferenceError> {
        self.used.insert(crops.len());
        self.input.reshape([crops.len(), 3, CROP, CROP]);
        for (crop, planes) in crops.iter().zip(self.input.values_mut().chunks_exact_mut(CROP_BYTES))
        {
            fill(crop.as_ref(), &self.spec, planes);
        }
        let (count, width) = (crops.len(), self.spec.width);
        self.input.run(&mut self.session, |outputs| split(outputs, count, width))?
    }

    /// Runs a blank batch of each size, because the first run of a size compiles.
    pub(super) fn warm(&mut self, sizes: &[usize]) -> Result<(), InferenceError> {
        self.used.extend(sizes);
        self.scrub()
    }

    /// Overwrites what the runtime still holds of the last faces, by blank batches of the sizes
    /// that ran.
    pub(super) fn scrub(&mut self) -> Result<(), InferenceError> {
        for size in std::mem::take(&mut self.used) {
            self.embed(&vec![vec![0; CROP_BYTES]; size])?;
        }
        self.used.clear();
        Ok(())
    }
}

/// Interleaved bytes -> normalised planes.
pub(super) fn fill(crop: &[u8], spec: &RecogniserSpec, planes: &mut [f32]) {
    let normalisation = spec.normalisation();
    for (channel, plane) in planes.chunks_exact_mut(CROP * CROP).enumerate() {
        let from = spec.colour.source(channel);
        for (out, pixel) in plane.iter_mut().zip(crop.chunks_exact(3)) {
            *out = normalisation.apply(f32::from(pixel[from]));
        }
    }
}

/// Cuts the output into `count` normalised rows.
fn split(outputs: &[&[f32]], count: usize, width: usize) -> Result<Vec<Embedding>, InferenceError> {
    let batch = outputs
        .first()
        .and_then(|values| ArrayView2::from_shape((count, width), values).ok())
        .ok_or(InferenceError::Shape { what: "recogniser" })?;
    batch.rows().into_iter().map(|row| Ok(Embedding::normalise(row.to_vec())?)).collect()
}
