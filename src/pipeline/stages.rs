//! The two stages of the work, as one worker does them: frame -> aligned face, and aligned faces
//! -> embeddings.

use std::sync::Arc;
use std::time::{Duration, Instant};

use zeroize::Zeroizing;

use super::choice::{self, ChoiceError};
use super::decode::{self, DecodeError};
use super::detect::{Detector, main_face};
use super::embed::Recogniser;
use super::frame::{CROP_BYTES, Frame, Picture};
use super::geometry::Face;
use super::job::{AlignedFace, FaceDemands, PipelineError, StageTimings};
use super::liveness::{Judgement, Liveness};
use super::pack::ModelPack;
use super::quality::QualityThresholds;
use super::runtime::{InferenceError, Provider, Runtime};
use super::sessions::Pool;
use super::settings::PipelineSettings;
use super::tuning::Plan;
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

    /// The embeddings of `faces`, in order. `alone`: nobody else needs the cores.
    fn embed(
        &mut self,
        faces: &[AlignedFace],
        alone: bool,
    ) -> Result<Vec<Embedding>, InferenceError>;

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

/// What sessions are made of.
pub(super) struct Parts<'a> {
    pub(super) runtime: &'a Runtime,
    pub(super) pack: &'a ModelPack,
    pub(super) plan: &'a Plan,
    pub(super) settings: &'a PipelineSettings,
}

impl Parts<'_> {
    fn detector(&self, provider: Provider, threads: usize) -> Result<Detector, ChoiceError> {
        let side = self.settings.detector_size as usize;
        choice::warm_detector(self.runtime, self.pack, provider, threads, side)
    }

    /// The recogniser after a run of each batch size.
    fn recogniser(&self, threads: usize, sizes: &[usize]) -> Result<Recogniser, ChoiceError> {
        let provider = self.plan.recogniser;
        let mut recogniser = Recogniser::load(self.runtime, self.pack, provider, threads)?;
        recogniser.warm(sizes).map_err(|source| ChoiceError::Inference { provider, source })?;
        Ok(recogniser)
    }

    fn liveness(&self) -> Result<Option<Liveness>, ChoiceError> {
        let Some((spec, model)) = &self.pack.liveness else { return Ok(None) };
        let mut liveness = Liveness::load(self.runtime, spec, model)?;
        let provider = Provider::Cpu;
        liveness.scrub().map_err(|source| ChoiceError::Inference { provider, source })?;
        Ok(Some(liveness))
    }
}

/// The sessions of all workers.
pub(super) struct Sessions {
    workers: usize,
    detectors: Pool<Detector>,
    recognisers: Pool<Recogniser>,
    /// Computes with all cores, for a face that is alone in the pipeline.
    wide: Option<Pool<Recogniser>>,
    /// The detector in f32, for small faces, where the provider is coarse. One, since it takes
    /// memory and is seldom asked.
    precise: Option<Pool<Detector>>,
}

impl Sessions {
    /// Loads what the plan asks for and runs each input shape once.
    pub(super) fn warm(parts: &Parts<'_>) -> Result<Self, ChoiceError> {
        let (plan, workers) = (parts.plan, parts.settings.workers());
        let precise = || Pool::load(1, || parts.detector(Provider::Cpu, 1));
        Ok(Self {
            workers,
            detectors: Pool::load(plan.detector.detectors(workers), || {
                parts.detector(plan.detector, 1)
            })?,
            recognisers: Pool::load(plan.recogniser.recognisers(workers), || {
                parts.recogniser(1, &plan.batch_sizes)
            })?,
            wide: plan
                .wide
                .then(|| Pool::load(1, || parts.recogniser(workers, &[1])))
                .transpose()?,
            precise: plan.detector.is_coarse().then(precise).transpose()?,
        })
    }

    /// Overwrites what they still hold of the faces of `worker`, on its thread, whose pieces of the
    /// heap these went through.
    fn scrub(&self, worker: usize) -> Result<(), InferenceError> {
        let of_detectors = [Some(&self.detectors), self.precise.as_ref()].into_iter().flatten();
        for mut detector in of_detectors.flat_map(|pool| pool.left_by(worker, self.workers)) {
            detector.scrub()?;
        }
        let of_recognisers = [Some(&self.recognisers), self.wide.as_ref()].into_iter().flatten();
        for mut recogniser in of_recognisers.flat_map(|pool| pool.left_by(worker, self.workers)) {
            recogniser.scrub()?;
        }
        Ok(())
    }
}

/// The real stages, as one worker does them with the sessions of all.
pub(super) struct ModelStages {
    worker: usize,
    sessions: Arc<Sessions>,
    /// Where the pack has it.
    liveness: Option<Liveness>,
    thresholds: QualityThresholds,
    frame_pixels: u64,
}

impl ModelStages {
    /// Those of `worker`, a number from 0.
    pub(super) fn new(
        parts: &Parts<'_>,
        sessions: Arc<Sessions>,
        worker: usize,
    ) -> Result<Self, ChoiceError> {
        Ok(Self {
            worker,
            sessions,
            liveness: parts.liveness()?,
            thresholds: parts.settings.quality.clone(),
            frame_pixels: parts.settings.frame_pixels,
        })
    }

    /// Detects, aligns and judges.
    fn find(
        &mut self,
        image: &impl Picture,
        demands: FaceDemands,
        timings: &mut StageTimings,
    ) -> Result<AlignedFace, StageError> {
        let faces = timed(&mut timings.detect, || self.detect(image, demands))?;
        timed(&mut timings.align, || {
            let aligned = self.align(image, &faces, demands).map_err(StageError::Refused)?;
            if demands.live { self.judge_liveness(image, &faces, aligned) } else { Ok(aligned) }
        })
    }

    /// The face again, if the liveness model takes it for a living person's.
    fn judge_liveness(
        &mut self,
        image: &impl Picture,
        faces: &[Face],
        mut aligned: AlignedFace,
    ) -> Result<AlignedFace, StageError> {
        // Nobody asks for it where there is none: a policy that does is not applied.
        let (Some(model), Some(face)) = (&mut self.liveness, main_face(faces, image)) else {
            return Err(StageError::Refused(PipelineError::Internal));
        };
        let Judgement { score, live } = model.judge(image, face)?;
        if !live {
            let quality = aligned.quality;
            return Err(StageError::Refused(PipelineError::NotLive { quality, score }));
        }
        aligned.liveness = Some(score);
        Ok(aligned)
    }

    /// The faces of `image`; once more in f32 when the main face is small and yet wanted.
    fn detect(
        &self,
        image: &impl Picture,
        demands: FaceDemands,
    ) -> Result<Vec<Face>, InferenceError> {
        let Sessions { detectors, precise, .. } = &*self.sessions;
        let mut detector = detectors.take(self.worker);
        let faces = detector.detect(image)?;
        let scale = detector.scale(image);
        drop(detector);
        let (Some(precise), Some(face)) = (precise, main_face(&faces, image)) else {
            return Ok(faces);
        };
        let eyes = face.eye_distance();
        if eyes * scale >= SMALL_FACE || eyes < demands.min_eye_distance_px {
            return Ok(faces);
        }
        precise.take(self.worker).detect(image)
    }

    /// Judges a crop that the caller has aligned.
    fn accept(&self, crop: Zeroizing<Vec<u8>>) -> Result<AlignedFace, PipelineError> {
        if crop.len() != CROP_BYTES {
            let (needed, actual) = (CROP_BYTES, crop.len());
            return Err(DecodeError::AlignedSize { needed, actual }.into());
        }
        let quality = judge(quality::of_crop(&crop, &self.thresholds))?;
        Ok(AlignedFace { crop, quality, liveness: None })
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
        judge(quality).map(|quality| AlignedFace { crop, quality, liveness: None })
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
        let limit = self.frame_pixels;
        match frame {
            Frame::Encoded(bytes) => {
                let image = timed(&mut timings.decode, || decode::encoded(&bytes, limit))?;
                self.find(&image, demands, timings)
            }
            Frame::Raw(raw) => self.find(&decode::raw(&raw, limit)?, demands, timings),
            Frame::Aligned(crop) => {
                timed(&mut timings.align, || self.accept(crop)).map_err(StageError::Refused)
            }
        }
    }

    fn embed(
        &mut self,
        faces: &[AlignedFace],
        alone: bool,
    ) -> Result<Vec<Embedding>, InferenceError> {
        let Sessions { recognisers, wide, .. } = &*self.sessions;
        let lone = wide.as_ref().filter(|_| alone && faces.len() == 1);
        match lone.and_then(|wide| wide.unused().next()) {
            Some(mut wide) => wide.embed(faces),
            None => recognisers.take(self.worker).embed(faces),
        }
    }

    fn scrub(&mut self) -> Result<(), InferenceError> {
        self.liveness.iter_mut().try_for_each(Liveness::scrub)?;
        self.sessions.scrub(self.worker)
    }
}
