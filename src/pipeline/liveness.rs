//! The liveness model of a pack (presentation attack detection, ISO/IEC 30107-3): a square around
//! the face, as the frame shows it, in; a score that a living person stands there, out.
//!
//! # Invariants
//! - No score that is not a number, and none below the threshold, is a living person's.
//! - Its input lives in a buffer that is wiped after each run, like the other models'.

use ort::session::Session;
use serde::Deserialize;

use super::align::sample;
use super::frame::{Image, Picture};
use super::geometry::Face;
use super::pack::{ColourOrder, Normalisation};
use super::runtime::{InferenceError, Provider, Runtime, RuntimeError, Tensor};

/// Most pixels of a side of the input.
const LARGEST_INPUT: usize = 1024;
/// Most sides of the face's box that the square around it may have.
const LARGEST_CROP: f32 = 16.0;
/// What faults call the model.
const WHAT: &str = "liveness model";

/// `[liveness]` of a manifest.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LivenessSpec {
    /// The model's file.
    pub(super) file: String,
    /// Its hash.
    pub(super) sha256: String,
    /// Side of its square input, pixels.
    input: usize,
    /// Side of the square around the middle of the face's box, in longer sides of the box.
    crop_scale: f32,
    mean: f32,
    std: f32,
    colour: ColourOrder,
    /// Which number of the first output says that a living person stands there.
    output: usize,
    /// Whether the numbers of the output are logits: the score is their softmax then.
    #[serde(default)]
    softmax: bool,
    /// From this score on the face is taken for a living person's.
    threshold: f32,
}

impl LivenessSpec {
    /// What the manifest says and this version cannot do.
    pub(super) fn unsupported(&self) -> Option<&'static str> {
        let Self { input, crop_scale, mean, std, threshold, .. } = self;
        if !(1..=LARGEST_INPUT).contains(input) {
            Some("the liveness model's input must be 1 to 1024")
        } else if !(*crop_scale > 0.0 && *crop_scale <= LARGEST_CROP) {
            Some("the liveness model's crop_scale must be more than 0 and at most 16")
        } else if *std == 0.0 || !std.is_finite() || !mean.is_finite() || !threshold.is_finite() {
            Some("the liveness model's mean, std and threshold must be finite, and std not 0")
        } else {
            None
        }
    }
}

/// How live a face looks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Judgement {
    pub(super) score: f32,
    pub(super) live: bool,
}

/// A session of the liveness model with its input buffer.
pub(super) struct Liveness {
    session: Session,
    spec: LivenessSpec,
    input: Tensor,
}

impl Liveness {
    /// The model on the reference provider: it is small, and its threshold is calibrated there.
    pub(super) fn load(
        runtime: &Runtime,
        spec: &LivenessSpec,
        model: &[u8],
    ) -> Result<Self, RuntimeError> {
        let session = runtime.session(model, Provider::Cpu, 1)?;
        let input = Tensor::new([1, 3, spec.input, spec.input]);
        Ok(Self { session, spec: spec.clone(), input })
    }

    /// Judges the face of `image`.
    pub(super) fn judge(
        &mut self,
        image: &impl Picture,
        face: &Face,
    ) -> Result<Judgement, InferenceError> {
        fill(image, face, &self.spec, self.input.values_mut());
        let spec = &self.spec;
        let score = self.input.run(&mut self.session, |outputs| score(outputs, spec))??;
        Ok(Judgement { score, live: score >= spec.threshold })
    }

    /// Runs on a blank input: the first run compiles, and a later one overwrites what the runtime
    /// still holds of the last face.
    pub(super) fn scrub(&mut self) -> Result<(), InferenceError> {
        let blank = Face { score: 0.0, bounds: [0.0, 0.0, 1.0, 1.0], points: [[0.0; 2]; 5] };
        self.judge(&Image::black(1, 1), &blank).map(drop)
    }
}

/// The square around the face, sampled at the centres of the input's pixels; what lies outside of
/// the frame is black.
#[expect(clippy::cast_precision_loss, reason = "at most 1024")]
fn fill(image: &impl Picture, face: &Face, spec: &LivenessSpec, planes: &mut [f32]) {
    let [left, top, right, bottom] = face.bounds;
    let side = (right - left).max(bottom - top).max(1.0) * spec.crop_scale;
    let (x, y) = (f32::midpoint(left, right) - side / 2.0, f32::midpoint(top, bottom) - side / 2.0);
    let step = side / spec.input as f32;
    let at = |start: f32, i: usize| start + (i as f32 + 0.5) * step - 0.5;
    let normalisation = Normalisation { mean: spec.mean, std: spec.std };
    let pixels = spec.input * spec.input;
    for i in 0..pixels {
        let rgb = sample(image, [at(x, i % spec.input), at(y, i / spec.input)]);
        for plane in 0..3 {
            let byte = rgb[spec.colour.source(plane)];
            planes[plane * pixels + i] = normalisation.apply(f32::from(byte));
        }
    }
}

fn score(outputs: &[&[f32]], spec: &LivenessSpec) -> Result<f32, InferenceError> {
    let values = outputs.first().copied().unwrap_or_default();
    let chosen = *values.get(spec.output).ok_or(InferenceError::Shape { what: WHAT })?;
    if !spec.softmax {
        return Ok(chosen);
    }
    // Shifted by the largest, which changes no quotient and lets no power overflow.
    let largest = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f32 = values.iter().map(|value| (value - largest).exp()).sum();
    Ok((chosen - largest).exp() / sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(output: usize, softmax: bool) -> LivenessSpec {
        LivenessSpec {
            file: String::new(),
            sha256: String::new(),
            input: 4,
            crop_scale: 2.0,
            mean: 0.0,
            std: 1.0,
            colour: ColourOrder::Rgb,
            output,
            softmax,
            threshold: 0.5,
        }
    }

    #[test]
    fn the_square_lies_around_the_middle_of_the_face_and_is_black_outside() {
        let mut image = Image::black(8, 8);
        image.rgb_mut().fill(100);
        let face = Face { score: 1.0, bounds: [6.0, 2.0, 8.0, 4.0], points: [[0.0; 2]; 5] };
        let mut planes = [0.0; 48];
        // From (5, 1) to (9, 5), a pixel for a pixel: the last columns lie outside.
        fill(&image, &face, &spec(0, false), &mut planes);
        let bytes: Vec<String> = planes[..4].iter().map(ToString::to_string).collect();
        assert_eq!(bytes, ["100", "100", "100", "0"], "{planes:?}");
    }

    #[test]
    fn logits_become_a_share_and_a_missing_output_is_a_fault() {
        assert_eq!(score(&[&[0.2, 0.7]], &spec(1, false)).ok(), Some(0.7));
        let share = score(&[&[1000.0, 1000.0]], &spec(1, true)).unwrap();
        assert!((share - 0.5).abs() < 1e-6);
        assert!(score(&[&[0.2]], &spec(1, false)).is_err());
        assert!(score(&[], &spec(0, false)).is_err());
    }

    #[test]
    fn a_manifest_that_makes_no_sense_is_refused() {
        assert_eq!(spec(0, false).unsupported(), None);
        for wrong in [
            LivenessSpec { input: 0, ..spec(0, false) },
            LivenessSpec { input: 2000, ..spec(0, false) },
            LivenessSpec { crop_scale: 0.0, ..spec(0, false) },
            LivenessSpec { crop_scale: f32::NAN, ..spec(0, false) },
            LivenessSpec { std: 0.0, ..spec(0, false) },
            LivenessSpec { threshold: f32::NAN, ..spec(0, false) },
        ] {
            assert!(wrong.unsupported().is_some(), "{wrong:?}");
        }
    }
}
