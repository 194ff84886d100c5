//! The two stages of the work, as one worker does them: frame -> aligned face, and aligned faces
//! -> embeddings.

use std::time::{Duration, Instant};

use zeroize::Zeroizing;

use super::choice::ChoiceError;
use super::decode::{self, DecodeError};
use super::detect::{Detector, main_face};
use super::embed::Recogniser;
use super::frame::{CROP_BYTES, Frame, Picture};
use super::geometry::Face;
use super::job::{AlignedFace, FaceDemands, PipelineError, StageTimings};
use super::pack::ModelPack;
use super::quality::QualityThresholds;
use super::runtime::{InferenceError, Provider, Runtime, RuntimeError};
use super::settings::PipelineSettings;
use super::{align, quality};
use crate::types::{Embedding, Quality, QualityReason};

/// What a worker can do. The pipeline's tests put other stages in place of the models.
pub(super) trait Stages: Send {
    /// Finds, judges and aligns the main face of `frame`.
    fn face(
        &mut self,
        frame: Frame,
        demands: FaceDemands,
        timings: &mut StageTimings,
    ) -> Result<AlignedFace, StageError>;

    /// The embeddings of `faces`, in order.
    fn embed(&mut self, faces: &[AlignedFace]) -> Result<Vec<Embedding>, InferenceError>;

    /// Overwrites what the sessions still hold of the last faces.
    fn scrub(&mut self) -> Result<(), InferenceError>;
}

/// Why a frame has no aligned face.
#[derive(Debug)]
pub(super) enum StageError {
    /// It is the frame: the answer.
    Refused(PipelineError),
    /// It is us.
    Fault(InferenceError),
}

impl From<InferenceError> for StageError {
    fn from(fault: InferenceError) -> Self {
        Self::Fault(fault)
    }
}

impl From<DecodeError> for StageError {
    fn from(fault: DecodeError) -> Self {
        Self::Refused(PipelineError::Decode(fault))
    }
}

/// Eye distance, in pixels of the detector's input, below which a coarse provider's landmarks are
/// not good enough: they are off by up to 0.15 pixels there (bf16 against f32 on the goldens).
const SMALL_FACE: f32 = 12.0;

/// The real stages: one session of each model.
pub(super) struct ModelStages {
    detector: Detector,
    /// The same detector in f32, for small faces, where the provider is coarse.
    precise: Option<Detector>,
    recogniser: Recogniser,
    thresholds: QualityThresholds,
    frame_pixels: u64,
}

impl ModelStages {
    /// Loads both models and runs each input shape once, so that no request pays for that.
    pub(super) fn warm(
        runtime: &Runtime,
        pack: &ModelPack,
        provider: Provider,
        settings: &PipelineSettings,
    ) -> Result<Self, ChoiceError> {
        let detector = |provider| {
            let session = runtime.session(&pack.detector_model, provider)?;
            let side = settings.detector_size as usize;
            Ok::<_, RuntimeError>(Detector::new(session, &pack.detector, side))
        };
        let recogniser = runtime.session(&pack.recogniser_model, provider)?;
        let mut stages = Self {
            detector: detector(provider)?,
            precise: provider.is_coarse().then(|| detector(Provider::Cpu)).transpose()?,
            recogniser: Recogniser::new(recogniser, &pack.recogniser),
            thresholds: settings.quality.clone(),
            frame_pixels: settings.frame_pixels,
        };
        let warmed = stages.run_once(&settings.batch_sizes());
        warmed.map_err(|source| ChoiceError::Inference { provider, source })?;
        Ok(stages)
    }

    fn run_once(&mut self, batch_sizes: &[usize]) -> Result<(), InferenceError> {
        self.detector.warm()?;
        self.precise.iter_mut().try_for_each(Detector::warm)?;
        self.recogniser.warm(batch_sizes)
    }

    /// Detects, aligns and judges.
    fn find(
        &mut self,
        image: &impl Picture,
        demands: FaceDemands,
        timings: &mut StageTimings,
    ) -> Result<AlignedFace, StageError> {
        let faces = timed(&mut timings.detect, || self.detect(image, demands))?;
        let aligned = timed(&mut timings.align, || self.align(image, &faces, demands));
        aligned.map_err(StageError::Refused)
    }

    /// The faces of `image`; once more in f32 when the main face is small and yet wanted.
    fn detect(
        &mut self,
        image: &impl Picture,
        demands: FaceDemands,
    ) -> Result<Vec<Face>, InferenceError> {
        let faces = self.detector.detect(image)?;
        let scale = self.detector.scale(image);
        let (Some(precise), Some(face)) = (&mut self.precise, main_face(&faces, image)) else {
            return Ok(faces);
        };
        let eyes = face.eye_distance();
        if eyes * scale >= SMALL_FACE || eyes < demands.min_eye_distance_px {
            return Ok(faces);
        }
        precise.detect(image)
    }

    /// Judges a crop that the caller has aligned.
    fn accept(&self, crop: Zeroizing<Vec<u8>>) -> Result<AlignedFace, PipelineError> {
        if crop.len() != CROP_BYTES {
            let (needed, actual) = (CROP_BYTES, crop.len());
            return Err(DecodeError::AlignedSize { needed, actual }.into());
        }
        let quality = judge(quality::of_crop(&crop, &self.thresholds))?;
        Ok(AlignedFace { crop, quality })
    }

    /// The main face of `image`, aligned and judged.
    fn align(
        &self,
        image: &impl Picture,
        faces: &[Face],
        demands: FaceDemands,
    ) -> Result<AlignedFace, PipelineError> {
        let face = main_face(faces, image).ok_or(PipelineError::NoFace)?;
        let crop = align::crop(image, &face.points).ok_or(PipelineError::NoFace)?;
        let quality = quality::of_face(face, faces, image, &crop, demands, &self.thresholds);
        judge(quality).map(|quality| AlignedFace { crop, quality })
    }
}

fn timed<T>(spent: &mut Duration, work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let done = work();
    *spent = start.elapsed();
    done
}

/// Gives the quality back when nothing speaks against the face.
fn judge(quality: Quality) -> Result<Quality, PipelineError> {
    if quality.reasons.contains(&QualityReason::SeveralFaces) {
        Err(PipelineError::SeveralFaces(quality))
    } else if quality.reasons.is_empty() {
        Ok(quality)
    } else {
        Err(PipelineError::LowQuality(quality))
    }
}

impl Stages for ModelStages {
    fn face(
        &mut self,
        frame: Frame,
        demands: FaceDemands,
        timings: &mut StageTimings,
    ) -> Result<AlignedFace, StageError> {
        match frame {
            Frame::Encoded(bytes) => {
                let limit = self.frame_pixels;
                let image = timed(&mut timings.decode, || decode::encoded(&bytes, limit))?;
                self.find(&image, demands, timings)
            }
            Frame::Raw(raw) => self.find(&decode::raw(&raw, self.frame_pixels)?, demands, timings),
            Frame::Aligned(crop) => {
                timed(&mut timings.align, || self.accept(crop)).map_err(StageError::Refused)
            }
        }
    }

    fn embed(&mut self, faces: &[AlignedFace]) -> Result<Vec<Embedding>, InferenceError> {
        self.recogniser.embed(faces)
    }

    fn scrub(&mut self) -> Result<(), InferenceError> {
        self.detector.scrub()?;
        self.precise.iter_mut().try_for_each(Detector::scrub)?;
        self.recogniser.scrub()
    }
}
