//! SCRFD face detection (Guo et al., "Sample and Computation Redistribution for Efficient Face
//! Detection", 2021): letterbox, inference, anchors -> boxes and landmarks, suppression.

use std::collections::{BTreeMap, BTreeSet};

use ort::session::Session;

use super::frame::{Image, Picture};
use super::geometry::{Face, Point};
use super::letterbox::{self, Fit};
use super::pack::{DetectorSpec, ModelPack};
use super::rewrite::of_pixels;
use super::runtime::{InferenceError, Provider, Runtime, RuntimeError, Tensor};

/// Most candidates that are compared with each other: a bound on the work, far above what a gate
/// sees.
const CANDIDATES: usize = 512;

/// Eye distance, in pixels of a smaller input, from which a larger one would find nothing better
/// (`cargo bench --bench accuracy`).
const LARGE_FACE: f32 = 24.0;

/// What faults call the model.
const WHAT: &str = "detector";

/// A detector with its input buffer.
pub(super) struct Detector {
    /// For each width and height of the inputs that it runs on, ascending, a session.
    sessions: BTreeMap<usize, Session>,
    spec: DetectorSpec,
    input: Tensor<u8>,
    /// The inputs that it ran on since it was scrubbed.
    used: BTreeSet<usize>,
}

impl Detector {
    /// The pack's detector on `provider`, computing with `threads`. `side` is the largest input's
    /// width and height: one of the pack's sizes.
    pub(super) fn load(
        runtime: &Runtime,
        pack: &ModelPack,
        provider: Provider,
        threads: usize,
        side: usize,
    ) -> Result<Self, RuntimeError> {
        let (input, spec) = (Tensor::new([1, side, side, 3]), pack.detector.clone());
        // On a device each input takes seconds to get ready.
        let sides = if provider.uses_cores() { spec.sizes_up_to(side) } else { vec![side] };
        let session = |side| {
            let model = of_pixels(&pack.detector_model, side, spec.normalisation());
            let model = model.ok_or(RuntimeError::Detector)?;
            Ok((side, runtime.session(&model, provider, threads)?))
        };
        let sessions = sides.into_iter().map(session).collect::<Result<_, RuntimeError>>()?;
        Ok(Self { sessions, spec, input, used: BTreeSet::new() })
    }

    /// The faces of `image`, strongest first. A frame that a smaller input holds as it is goes into
    /// that one first, and that is all where its main face is large.
    pub(super) fn detect(&mut self, image: &impl Picture) -> Result<Vec<Face>, InferenceError> {
        let (side, largest) = (self.least(image), self.largest());
        let faces = self.detect_at(image, side)?;
        let scale = Fit::new(image.width(), image.height(), side).scale;
        let large = |face: &Face| face.eye_distance() * scale >= LARGE_FACE;
        if side == largest || main_face(&faces, image).is_some_and(large) {
            return Ok(faces);
        }
        self.detect_at(image, largest)
    }

    fn detect_at(
        &mut self,
        image: &impl Picture,
        side: usize,
    ) -> Result<Vec<Face>, InferenceError> {
        let Some(session) = self.sessions.get_mut(&side) else {
            return Err(InferenceError::Shape { what: WHAT });
        };
        self.used.insert(side);
        self.input.reshape([1, side, side, 3]);
        let fit = letterbox::fill(image, side, self.spec.colour, self.input.values_mut());
        let spec = &self.spec;
        let read = |outputs: &[&[f32]]| candidates(outputs, spec, side, fit);
        let found = self.input.run(session, read)??;
        Ok(suppress(found, self.spec.nms_iou))
    }

    /// The least input that holds `image` as it is, if any does.
    fn least(&self, image: &impl Picture) -> usize {
        let longer = image.width().max(image.height());
        self.sessions.keys().copied().find(|side| *side >= longer).unwrap_or(self.largest())
    }

    fn largest(&self) -> usize {
        self.sessions.keys().next_back().copied().unwrap_or_default()
    }

    /// Pixels of the largest input for each pixel of `image`.
    pub(super) fn scale(&self, image: &impl Picture) -> f32 {
        Fit::new(image.width(), image.height(), self.largest()).scale
    }

    /// Runs once on a blank input of each size, because the first run of a size compiles.
    pub(super) fn warm(&mut self) -> Result<(), InferenceError> {
        self.used.extend(self.sessions.keys());
        self.scrub()
    }

    /// Overwrites what the runtime still holds of the last pictures, by runs on blank ones.
    pub(super) fn scrub(&mut self) -> Result<(), InferenceError> {
        for side in std::mem::take(&mut self.used) {
            self.detect_at(&Image::black(1, 1), side)?;
        }
        self.used.clear();
        Ok(())
    }
}

/// Decodes the outputs: scores of all strides, then boxes, then landmarks.
fn candidates(
    outputs: &[&[f32]],
    spec: &DetectorSpec,
    side: usize,
    fit: Fit,
) -> Result<Vec<Face>, InferenceError> {
    let mut faces = Vec::new();
    for (level, stride) in spec.strides.iter().copied().enumerate() {
        let cells = side / stride;
        let anchors = cells * cells * spec.anchors;
        let plane = |kind: usize, width: usize| {
            outputs
                .get(kind * spec.strides.len() + level)
                .filter(|values| values.len() == anchors * width)
                .ok_or(InferenceError::Shape { what: WHAT })
        };
        let (scores, boxes, points) = (plane(0, 1)?, plane(1, 4)?, plane(2, 10)?);
        let strong = scores.iter().enumerate().filter(|(_, s)| **s >= spec.score_threshold);
        for (i, score) in strong {
            let anchor = Anchor::new(i / spec.anchors, cells, stride, fit);
            let (distances, offsets) = (&boxes[i * 4..i * 4 + 4], &points[i * 10..i * 10 + 10]);
            faces.push(anchor.face(*score, distances, offsets));
        }
    }
    Ok(faces)
}

/// The cell that a prediction belongs to.
struct Anchor {
    centre: Point,
    stride: f32,
    scale: f32,
}

impl Anchor {
    #[expect(clippy::cast_precision_loss, reason = "below the input's side")]
    fn new(cell: usize, cells: usize, stride: usize, fit: Fit) -> Self {
        let centre = [(cell % cells * stride) as f32, (cell / cells * stride) as f32];
        Self { centre, stride: stride as f32, scale: fit.scale }
    }

    /// Distances from the centre, in strides, to pixels of the frame.
    fn face(&self, score: f32, distances: &[f32], offsets: &[f32]) -> Face {
        let x = |d: f32| (self.centre[0] + d * self.stride) / self.scale;
        let y = |d: f32| (self.centre[1] + d * self.stride) / self.scale;
        Face {
            score,
            bounds: [x(-distances[0]), y(-distances[1]), x(distances[2]), y(distances[3])],
            points: std::array::from_fn(|i| [x(offsets[2 * i]), y(offsets[2 * i + 1])]),
        }
    }
}

/// Greedy non-maximum suppression, strongest first.
fn suppress(mut faces: Vec<Face>, same_face: f32) -> Vec<Face> {
    faces.sort_by(|a, b| b.score.total_cmp(&a.score));
    faces.truncate(CANDIDATES);
    let mut kept: Vec<Face> = Vec::new();
    for face in faces {
        if kept.iter().all(|stronger| stronger.overlap(&face) <= same_face) {
            kept.push(face);
        }
    }
    kept
}

/// The face that the picture is about: the most prominent one.
pub(super) fn main_face<'a>(faces: &'a [Face], image: &impl Picture) -> Option<&'a Face> {
    faces.iter().max_by(|a, b| prominence(a, image).total_cmp(&prominence(b, image)))
}

/// Large and near the middle: InsightFace's rule, area less twice the squared distance of the
/// box's centre from the frame's. Square pixels; negative far from the middle.
pub(super) fn prominence(face: &Face, image: &impl Picture) -> f32 {
    #[expect(clippy::cast_precision_loss, reason = "sides are at most 65,535")]
    let middle = [image.width() as f32 / 2.0, image.height() as f32 / 2.0];
    let [left, top, right, bottom] = face.bounds;
    let offset = [f32::midpoint(left, right) - middle[0], f32::midpoint(top, bottom) - middle[1]];
    face.area() - 2.0 * (offset[0] * offset[0] + offset[1] * offset[1])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn face(score: f32, bounds: [f32; 4]) -> Face {
        Face { score, bounds, points: [[0.0; 2]; 5] }
    }

    #[test]
    fn the_weaker_of_two_overlapping_boxes_goes() {
        let strong = face(0.9, [10.0, 10.0, 50.0, 50.0]);
        let same = face(0.8, [12.0, 11.0, 52.0, 52.0]);
        let other = face(0.7, [45.0, 45.0, 90.0, 90.0]);
        assert_eq!(suppress(vec![other, same, strong], 0.4), [strong, other]);
    }

    #[test]
    fn distances_are_measured_from_the_cell_in_strides() {
        let fit = Fit { width: 320, height: 320, scale: 2.0 };
        let anchor = Anchor::new(41, 40, 8, fit);
        let found = anchor.face(0.6, &[1.0, 1.0, 2.0, 3.0], &[0.5; 10]);
        let wanted = Face { score: 0.6, bounds: [0.0, 0.0, 12.0, 16.0], points: [[6.0; 2]; 5] };
        assert_eq!(found, wanted);
    }

    #[test]
    fn outputs_of_another_shape_are_an_error() {
        let spec = DetectorSpec::of_tests();
        let fit = Fit::new(10, 10, 32);
        assert!(candidates(&[&[0.0; 3]], &spec, 32, fit).is_err());
    }

    #[test]
    fn the_main_face_is_large_and_near_the_middle() {
        let image = Image::black(200, 200);
        let middle = face(0.6, [80.0, 80.0, 120.0, 120.0]);
        let corner = face(0.9, [0.0, 0.0, 50.0, 50.0]);
        assert_eq!(main_face(&[corner, middle], &image), Some(&middle));
        assert_eq!(main_face(&[], &image), None);
    }
}
