//! What speed costs in accuracy: photos and views of them through several settings of the pipeline,
//! each against f32 at the pack's first detector size.
//!
//! ```text
//! ASSENT_FACES=DIR cargo bench --bench accuracy [-- PROVIDER[:DETECTOR_SIZE] ...]
//! ```
//!
//! `ASSENT_PACK` names another pack below `models`, such as one with other `input_sizes`.
//!
//! `DIR` holds `person/photo.jpg`; only people with two photos or more are used. Without it, the
//! pack's own photos are used, whose views are each other's mates. For each setting it prints
//!
//! - the cosine to f32 of the same picture: least, first percentile, mean, and the number of
//!   pictures in which no face was found;
//! - the verification accuracy on pairs of pictures, mates and strangers weighing the same, at the
//!   best threshold, and the difference to f32 in points;
//! - the share of mates above the threshold of 1 false match in 10,000.

#![expect(clippy::print_stdout, reason = "it is a report")]
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "pictures of a few hundred pixels, thousands of pairs"
)]

mod faces;

use std::error::Error;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use assent::pipeline::{
    Company, FaceDemands, Frame, Pipeline, PipelineSettings, PixelFormat, QualityThresholds,
    RawFrame, Ticket, fetch,
};
use assent::types::Embedding;
use jpeg_encoder::{ColorType, Encoder};
use zune_core::bytestream::ZCursor;
use zune_jpeg::JpegDecoder;

const AT_ONCE: usize = 8;
const DEMANDS: FaceDemands =
    FaceDemands { min_eye_distance_px: 0.0, company: Company::Any, live: false };
const REFERENCE: &str = "cpu:320";
const SETTINGS: [&str; 4] = ["openvino:320", "openvino-bf16:320", "cpu:640", "auto:640"];
/// Strangers looked at for each pair of mates.
const STRANGERS: usize = 20;
const FALSE_MATCHES: f64 = 1e-4;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let mut settings: Vec<&str> = arguments.iter().map(String::as_str).collect();
    if settings.is_empty() {
        settings = SETTINGS.to_vec();
    }
    let models_dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
    fetch::ensure(&models_dir)?;
    let pictures = pictures(&models_dir)?;
    println!("{} pictures", pictures.len());
    println!(
        "{:<20} {:>8} {:>8} {:>8} {:>8} {:>10} {:>8} {:>8}",
        "setting", "least", "1 %", "mean", "no face", "accuracy", "points", "TMR"
    );
    let reference = embed(REFERENCE, &models_dir, &pictures)?;
    let base = Verification::of(&pictures, &reference);
    print(REFERENCE, (&reference, &base), (&reference, &base));
    for setting in settings {
        let found = embed(setting, &models_dir, &pictures)?;
        let verification = Verification::of(&pictures, &found);
        print(setting, (&found, &verification), (&reference, &base));
    }
    Ok(())
}

type Measured<'a> = (&'a [Option<Embedding>], &'a Verification);

fn print(setting: &str, (found, verification): Measured<'_>, (reference, base): Measured<'_>) {
    let cosines = agreement(reference, found);
    let missing = found.iter().filter(|found| found.is_none()).count();
    println!(
        "{setting:<20} {:>8.4} {:>8.4} {:>8.4} {missing:>8} {:>8.3} % {:>8.3} {:>6.2} %",
        cosines.first().copied().unwrap_or(0.0),
        cosines.get(cosines.len() / 100).copied().unwrap_or(0.0),
        cosines.iter().sum::<f32>() / cosines.len().max(1) as f32,
        100.0 * verification.accuracy,
        100.0 * (verification.accuracy - base.accuracy),
        100.0 * verification.mates_found,
    );
}

/// A photo or a view of one.
struct Picture {
    person: usize,
    photo: usize,
    rgb: Vec<u8>,
    width: usize,
    height: usize,
}

fn pictures(models_dir: &Path) -> Result<Vec<Picture>, Box<dyn Error>> {
    let people = match std::env::var_os("ASSENT_FACES") {
        Some(root) => {
            let mut people = faces::people(Path::new(&root))?;
            people.retain(|photos| photos.len() > 1);
            people
        }
        // One photo of each person.
        None => faces::people(&models_dir.join("research"))?
            .concat()
            .into_iter()
            .map(|photo| vec![photo])
            .collect(),
    };
    let mut pictures = Vec::new();
    for (person, photos) in people.into_iter().enumerate() {
        for (photo, path) in photos.iter().enumerate() {
            let Ok(picture) = decode(&std::fs::read(path)?, person, photo) else { continue };
            pictures.extend(views(&picture)?);
            pictures.push(picture);
        }
    }
    Ok(pictures)
}

fn decode(bytes: &[u8], person: usize, photo: usize) -> Result<Picture, Box<dyn Error>> {
    let mut decoder = JpegDecoder::new(ZCursor::new(bytes));
    let rgb = decoder.decode()?;
    let (width, height) = decoder.dimensions().ok_or("no dimensions")?;
    Ok(Picture { person, photo, rgb, width, height })
}

/// As a camera might have seen the same moment: mirrored, turned, darker, smaller, badly packed.
fn views(of: &Picture) -> Result<Vec<Picture>, Box<dyn Error>> {
    let last = (of.width - 1) as f32;
    let mirrored = of.drawn(of.width, of.height, |x, y| (last - x, y));
    let turned = |degrees: f32| {
        let (sin, cos) = degrees.to_radians().sin_cos();
        let middle = [of.width as f32 / 2.0, of.height as f32 / 2.0];
        of.drawn(of.width, of.height, |x, y| {
            let (x, y) = (x - middle[0], y - middle[1]);
            (middle[0] + cos * x - sin * y, middle[1] + sin * x + cos * y)
        })
    };
    let mut dark = of.drawn(of.width, of.height, |x, y| (x, y));
    dark.rgb.iter_mut().for_each(|v| *v = (255.0 * (f32::from(*v) / 255.0).powf(1.6)) as u8);
    let smaller = of.drawn(of.width * 2 / 3, of.height * 2 / 3, |x, y| (x * 1.5, y * 1.5));
    let mut packed = Vec::new();
    let sides = [of.width as u16, of.height as u16];
    Encoder::new(&mut packed, 30).encode(&of.rgb, sides[0], sides[1], ColorType::Rgb)?;
    let packed = decode(&packed, of.person, of.photo)?;
    Ok(vec![mirrored, turned(10.0), turned(-15.0), dark, smaller, packed])
}

impl Picture {
    /// `width` x `height` pixels, each from the place that `from` gives, bilinear.
    fn drawn(&self, width: usize, height: usize, from: impl Fn(f32, f32) -> (f32, f32)) -> Self {
        let mut rgb = Vec::with_capacity(width * height * 3);
        for i in 0..width * height {
            let (x, y) = from((i % width) as f32, (i / width) as f32);
            let (x, y) =
                (x.clamp(0.0, self.width as f32 - 1.0), y.clamp(0.0, self.height as f32 - 1.0));
            let (left, top) = (x as usize, y as usize);
            let (right, low) = ((left + 1).min(self.width - 1), (top + 1).min(self.height - 1));
            let at =
                |x: usize, y: usize, c: usize| f32::from(self.rgb[(y * self.width + x) * 3 + c]);
            let (u, v) = (x.fract(), y.fract());
            for c in 0..3 {
                let upper = at(left, top, c) * (1.0 - u) + at(right, top, c) * u;
                let lower = at(left, low, c) * (1.0 - u) + at(right, low, c) * u;
                rgb.push((upper * (1.0 - v) + lower * v + 0.5) as u8);
            }
        }
        Self { person: self.person, photo: self.photo, rgb, width, height }
    }

    fn frame(&self) -> Frame {
        Frame::Raw(RawFrame {
            format: PixelFormat::Rgb8,
            width: self.width as u32,
            height: self.height as u32,
            stride: 0,
            data: self.rgb.clone().into(),
        })
    }
}

/// The embedding of each picture's main face, with `PROVIDER[:DETECTOR_SIZE]`.
fn embed(
    setting: &str,
    models_dir: &Path,
    pictures: &[Picture],
) -> Result<Vec<Option<Embedding>>, Box<dyn Error>> {
    let (provider, size) = setting.split_once(':').unwrap_or((setting, "320"));
    let pipeline = Pipeline::start(&PipelineSettings {
        models_dir: models_dir.to_path_buf(),
        pack: std::env::var("ASSENT_PACK").unwrap_or_else(|_| "research".to_owned()),
        provider: provider.parse()?,
        detector_size: size.parse()?,
        gate_wait_ms: 60_000,
        quality: QualityThresholds {
            min_sharpness: 0.0,
            min_brightness: 0.0,
            max_brightness: 255.0,
            max_burnt_share: 1.0,
            max_yaw_degrees: 180.0,
            max_pitch_degrees: 180.0,
            max_roll_degrees: 180.0,
            max_cut_share: 1.0,
            ..QualityThresholds::default()
        },
        ..PipelineSettings::default()
    })?;
    let next = AtomicUsize::new(0);
    let client = || async {
        let mut found = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(picture) = pictures.get(number) else { return found };
            let face = pipeline.embed(picture.frame(), DEMANDS, Ticket::default()).await;
            found.push((number, face.ok().map(|face| face.embedding)));
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let clients = futures_util::future::join_all((0..AT_ONCE).map(|_| client()));
    let mut found: Vec<_> = runtime.block_on(clients).into_iter().flatten().collect();
    found.sort_by_key(|(number, _)| *number);
    Ok(found.into_iter().map(|(_, embedding)| embedding).collect())
}

/// Cosines of the same pictures' embeddings, ascending.
fn agreement(reference: &[Option<Embedding>], found: &[Option<Embedding>]) -> Vec<f32> {
    let both = reference.iter().zip(found).filter_map(|(a, b)| a.as_ref().zip(b.as_ref()));
    let mut cosines: Vec<f32> = both.map(|(a, b)| a.cosine(b).get()).collect();
    cosines.sort_by(f32::total_cmp);
    cosines
}

struct Verification {
    /// At the best threshold, mates and strangers weighing the same.
    accuracy: f64,
    /// Share of mates above the threshold of [`FALSE_MATCHES`].
    mates_found: f64,
}

impl Verification {
    /// A picture without a face is a miss with its mates and no match with strangers.
    fn of(pictures: &[Picture], embeddings: &[Option<Embedding>]) -> Self {
        let cosine = |a: usize, b: usize| match (&embeddings[a], &embeddings[b]) {
            (Some(a), Some(b)) => a.cosine(b).get(),
            (None, _) | (_, None) => -1.0,
        };
        let one_photo = pictures.iter().all(|picture| picture.photo == 0);
        let (mut mates, mut strangers) = (Vec::new(), Vec::new());
        let mut other = 0;
        for (a, first) in pictures.iter().enumerate() {
            for (b, second) in pictures.iter().enumerate().skip(a + 1) {
                let another = one_photo || first.photo != second.photo;
                if first.person == second.person && another {
                    mates.push(cosine(a, b));
                    for _ in 0..STRANGERS {
                        // A step that is prime to any count of pictures meets them all.
                        other = (other + 1_000_003) % pictures.len();
                        if pictures[other].person != first.person {
                            strangers.push(cosine(a, other));
                        }
                    }
                }
            }
        }
        mates.sort_by(f32::total_cmp);
        strangers.sort_by(f32::total_cmp);
        let above = |sorted: &[f32], threshold: f32| {
            let below = sorted.partition_point(|cosine| *cosine < threshold);
            (sorted.len() - below) as f64 / sorted.len().max(1) as f64
        };
        let accuracy = |threshold: f32| {
            f64::midpoint(above(&mates, threshold), 1.0 - above(&strangers, threshold))
        };
        let thresholds = (0..1000).map(|step| step as f32 / 1000.0);
        let allowed = (strangers.len() as f64 * FALSE_MATCHES) as usize;
        let strict = strangers.len().checked_sub(allowed + 1).map_or(1.0, |at| strangers[at]);
        Self {
            accuracy: thresholds.map(accuracy).fold(0.0, f64::max),
            mates_found: above(&mates, strict),
        }
    }
}
