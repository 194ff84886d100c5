//! Aligned crops -> embeddings, several at once.

use ort::session::Session;
use zeroize::Zeroizing;

use super::frame::{CROP, CROP_BYTES};
use super::pack::RecogniserSpec;
use super::runtime::{InferenceError, Tensor};
use crate::types::Embedding;

/// A recogniser session with an input buffer for the largest batch.
pub(super) struct Recogniser {
    session: Session,
    spec: RecogniserSpec,
    input: Tensor,
}

impl Recogniser {
    pub(super) fn new(session: Session, spec: &RecogniserSpec) -> Self {
        Self { session, spec: spec.clone(), input: Tensor::new([1, 3, CROP, CROP]) }
    }

    /// One embedding for each crop of 112 x 112 RGB, in order.
    pub(super) fn embed<C: AsRef<[u8]>>(
        &mut self,
        crops: &[C],
    ) -> Result<Vec<Embedding>, InferenceError> {
        self.input.reshape([crops.len(), 3, CROP, CROP]);
        for (crop, planes) in crops.iter().zip(self.input.values_mut().chunks_exact_mut(CROP_BYTES))
        {
            fill(crop.as_ref(), &self.spec, planes);
        }
        let (count, width) = (crops.len(), self.spec.width);
        self.input.run(&mut self.session, |outputs| split(outputs, count, width))?
    }

    /// Runs a batch of `size` blank crops: the first run of a size compiles, and any run
    /// overwrites what the runtime still holds of the last faces.
    pub(super) fn blank(&mut self, size: usize) -> Result<(), InferenceError> {
        let crops = vec![Zeroizing::new(vec![0; CROP_BYTES]); size];
        self.embed(&crops).map(|_nobody| ())
    }
}

/// Interleaved bytes -> normalised planes.
fn fill(crop: &[u8], spec: &RecogniserSpec, planes: &mut [f32]) {
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
    let rows = outputs
        .first()
        .filter(|values| values.len() == count * width)
        .ok_or(InferenceError::Shape { what: "recogniser" })?;
    rows.chunks_exact(width).map(|row| Ok(Embedding::normalise(row.to_vec())?)).collect()
}
