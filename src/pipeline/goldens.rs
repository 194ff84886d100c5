//! The pipeline against an independent one in Python (tests/reference), from photo to vector.

#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    clippy::many_single_char_names,
    reason = "the recipe's own names, on photos of a few hundred pixels"
)]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;

use super::detect::{Detector, main_face};
use super::embed::Recogniser;
use super::frame::{Frame, Image, Picture, PixelFormat, RawFrame};
use super::job::{Company, FaceDemands, StageTimings};
use super::pack::ModelPack;
use super::runtime::{Provider, Runtime};
use super::settings::PipelineSettings;
use super::stages::{ModelStages, Parts, Sessions, Stages};
use super::tuning::Plan;
use super::{decode, fetch, probes};
use crate::types::Embedding;

/// The models directory of this repository, filled.
pub(super) fn models() -> PathBuf {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
    fetch::ensure(&dir).unwrap();
    dir
}

#[derive(Clone, Deserialize)]
struct Golden {
    photo: String,
    variant: Variant,
    detector_size: u32,
    landmarks: [[f32; 2]; 5],
    score: f32,
    embedding: Vec<f32>,
}

#[derive(Clone, Deserialize, Debug)]
struct Variant {
    crop: Option<[usize; 4]>,
    rotate: Option<f64>,
}

impl Golden {
    fn all() -> Vec<Self> {
        serde_json::from_str(include_str!("../../tests/goldens/goldens.json")).unwrap()
    }

    /// The photo, varied as tests/reference/make_goldens.py says.
    fn image(&self, models: &Path) -> Image {
        let photo = std::fs::read(models.join("research/photos").join(&self.photo)).unwrap();
        let mut image = decode::encoded(&photo, 16_000_000).unwrap();
        if let Some([x, y, w, h]) = self.variant.crop {
            image = map(w, h, |column, row| pixel(&image, (x + column) as i64, (y + row) as i64));
        }
        match self.variant.rotate {
            Some(degrees) => rotate(&image, degrees),
            None => image,
        }
    }
}

fn map(width: usize, height: usize, at: impl Fn(usize, usize) -> [u8; 3]) -> Image {
    let mut image = Image::black(width, height);
    for (i, pixel) in image.rgb_mut().chunks_exact_mut(3).enumerate() {
        pixel.copy_from_slice(&at(i % width, i / width));
    }
    image
}

fn pixel(image: &Image, x: i64, y: i64) -> [u8; 3] {
    if x < 0 || y < 0 || x >= image.width() as i64 || y >= image.height() as i64 {
        return [0; 3];
    }
    image.pixel(x as usize, y as usize)
}

fn rotate(image: &Image, degrees: f64) -> Image {
    let (sin, cos) = degrees.to_radians().sin_cos();
    let (cx, cy) = ((image.width() - 1) as f64 / 2.0, (image.height() - 1) as f64 / 2.0);
    map(image.width(), image.height(), |x, y| {
        let (dx, dy) = (x as f64 - cx, y as f64 - cy);
        let (sx, sy) = (cx + cos * dx - sin * dy, cy + sin * dx + cos * dy);
        let (x0, y0) = (sx.floor() as i64, sy.floor() as i64);
        let (u, v) = (sx - sx.floor(), sy - sy.floor());
        let four = [(0, 0), (1, 0), (0, 1), (1, 1)].map(|(i, j)| pixel(image, x0 + i, y0 + j));
        let value = |c: usize| {
            let [a, b, d, e] = four.map(|p| f64::from(p[c]));
            ((1.0 - v) * ((1.0 - u) * a + u * b) + v * ((1.0 - u) * d + u * e) + 0.5).floor() as u8
        };
        [value(0), value(1), value(2)]
    })
}

/// Compares the product's own stages with the reference: worst cosine over all goldens.
fn worst_cosine(provider: Provider) -> f32 {
    let models = models();
    let runtime = Runtime::load(&models, None).unwrap();
    let pack = ModelPack::load(&models.join("research")).unwrap();
    let mut worst = 1.0_f32;
    for size in [320, 640] {
        let settings = PipelineSettings {
            detector_size: size,
            workers: Some(2),
            ..PipelineSettings::default()
        };
        let plan = Plan {
            recogniser: provider,
            detector: provider,
            batch_sizes: vec![1],
            wide: true,
            faces_per_second: Vec::new(),
            providers: Vec::new(),
        };
        let parts = Parts { runtime: &runtime, pack: &pack, plan: &plan, settings: &settings };
        let sessions = Arc::new(Sessions::warm(&parts).unwrap());
        let mut stages = ModelStages::new(&parts, sessions, 0).unwrap();
        let goldens = Golden::all().into_iter().filter(|golden| golden.detector_size == size);
        for (golden, alone) in goldens.flat_map(|golden| [(golden.clone(), false), (golden, true)])
        {
            let frame = raw(&golden.image(&models));
            let mut timings = StageTimings::default();
            let demands =
                FaceDemands { min_eye_distance_px: 0.0, company: Company::Any, live: false };
            let face = stages.face(frame, demands, &mut timings).unwrap();
            let found = stages.embed(&[face], alone).unwrap().remove(0);
            let wanted = Embedding::normalise(golden.embedding.clone()).unwrap();
            let cosine = found.cosine(&wanted).get();
            eprintln!("{provider} at {size}: {} {:?}: {cosine:.5}", golden.photo, golden.variant);
            worst = worst.min(cosine);
        }
    }
    worst
}

fn raw(image: &Image) -> Frame {
    Frame::Raw(RawFrame {
        format: PixelFormat::Rgb8,
        width: image.width() as u32,
        height: image.height() as u32,
        stride: 0,
        data: image.rgb().to_vec().into(),
    })
}

/// Furthest landmark from the reference's, pixels, over all goldens.
fn worst_landmark(provider: Provider) -> f32 {
    let models = models();
    let runtime = Runtime::load(&models, None).unwrap();
    let pack = ModelPack::load(&models.join("research")).unwrap();
    let mut worst = 0.0_f32;
    for size in [320, 640] {
        let mut detector = Detector::load(&runtime, &pack, provider, 1, size as usize).unwrap();
        for golden in Golden::all().iter().filter(|golden| golden.detector_size == size) {
            let image = golden.image(&models);
            let faces = detector.detect(&image).unwrap();
            let face = main_face(&faces, &image).unwrap();
            assert!((face.score - golden.score).abs() < 0.01, "{}", golden.photo);
            for (p, q) in face.points.iter().zip(&golden.landmarks) {
                worst = worst.max((p[0] - q[0]).hypot(p[1] - q[1]));
            }
        }
    }
    worst
}

#[test]
fn f32_agrees_with_the_reference_from_photo_to_vector() {
    assert!(worst_landmark(Provider::Cpu) <= 1.5);
    assert!(worst_cosine(Provider::Cpu) >= 0.999);
}

#[test]
fn bf16_and_int8_agree_with_the_reference_from_photo_to_vector() {
    if runs(Provider::OpenVinoBf16) {
        assert!(worst_landmark(Provider::OpenVinoBf16) <= 1.5);
        assert!(worst_cosine(Provider::OpenVinoBf16) >= 0.997);
        assert!(worst_cosine(Provider::OpenVinoInt8) >= 0.99);
    } else {
        eprintln!("left out: no OpenVINO here");
    }
}

/// Whether `provider` runs on this machine.
pub(super) fn runs(provider: Provider) -> bool {
    let models = models();
    let pack = ModelPack::load(&models.join("research")).unwrap();
    Runtime::load(&models, None).unwrap().session(&pack.detector_model, provider, 1).is_ok()
}

#[test]
fn the_drawn_probes_are_told_apart_and_tell_precisions_apart() {
    let models = models();
    let runtime = Runtime::load(&models, None).unwrap();
    let pack = ModelPack::load(&models.join("research")).unwrap();
    let embed = |provider| {
        let mut recogniser = Recogniser::load(&runtime, &pack, provider, 1).unwrap();
        recogniser.embed(&probes::crops()).unwrap()
    };
    let reference = embed(Provider::Cpu);
    for (i, a) in reference.iter().enumerate() {
        let others = reference[..i].iter().map(|b| a.cosine(b).get());
        let nearest = others.fold(-1.0, f32::max);
        assert!(nearest < 0.95, "probe {i} is too like another: {nearest}");
    }
    if runs(Provider::OpenVinoBf16) {
        let low = embed(Provider::OpenVinoBf16);
        for (a, b) in reference.iter().zip(&low) {
            let agreement = a.cosine(b).get();
            assert!((0.999..0.99999).contains(&agreement), "bf16 must be seen: {agreement}");
        }
    }
}
