//! What a recogniser's pointwise convolutions meet on faces: measured once for a pack, by whoever
//! makes it, so that it can be computed in eight bits (`provider = "openvino-int8"`).

use ort::session::Session;

use super::align;
use super::choice::ChoiceError;
use super::decode;
use super::detect::{Detector, main_face};
use super::embed;
use super::frame::CROP;
use super::pack::RecogniserSpec;
use super::rewrite::{Exposed, Range, exposed};
use super::runtime::{Provider, Runtime, RuntimeError, Tensor};
use super::settings::PipelineSettings;
use super::{StartError, load_pack};

/// What computes: the ranges are the reference's.
const PROVIDER: Provider = Provider::Cpu;
/// Of so many pixels of a plane the least and the greatest do not count. In large planes single
/// pixels reach twice as far as all others, and steps for them would be too coarse for dark faces.
const OUTLIER_IN: usize = 1_000;

/// Measures ranges, photo by photo.
pub struct RangeMeter {
    detector: Detector,
    session: Session,
    input: Tensor,
    spec: RecogniserSpec,
    /// For each pointwise convolution which output of the session shows what it meets.
    outputs: Vec<usize>,
    ranges: Vec<Met>,
    frame_pixels: u64,
}

/// What one convolution met so far.
struct Met {
    least: Vec<f32>,
    greatest: Vec<f32>,
    sums: Vec<f64>,
    /// Pixels.
    count: u64,
}

impl RangeMeter {
    /// Loads the pack's models.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn new(settings: &PipelineSettings) -> Result<Self, StartError> {
        settings.check()?;
        let pack = load_pack(settings)?;
        let runtime = Runtime::load(&settings.models_dir, settings.runtime.as_deref())?;
        let Exposed { model, places } =
            exposed(&pack.recogniser_model).map_err(RuntimeError::Quantise)?;
        let threads = settings.workers();
        let side = settings.detector_size as usize;
        Ok(Self {
            detector: Detector::load(&runtime, &pack, PROVIDER, threads, side)?,
            session: runtime.session(&model, PROVIDER, threads)?,
            input: Tensor::new([1, 3, CROP, CROP]),
            spec: pack.recogniser.clone(),
            outputs: places.iter().map(|(output, _)| *output).collect(),
            ranges: places.iter().map(|(_, channels)| Met::nothing(*channels)).collect(),
            frame_pixels: settings.frame_pixels,
        })
    }

    /// Looks at the main face of `photo` (JPEG or PNG) in several views. `false` where there is
    /// no picture, or no face in it.
    ///
    /// # Errors
    /// The runtime fails.
    pub fn look(&mut self, photo: &[u8]) -> Result<bool, StartError> {
        let Ok(image) = decode::encoded(photo, self.frame_pixels) else { return Ok(false) };
        let failed = |source| ChoiceError::Inference { provider: PROVIDER, source };
        let faces = self.detector.detect(&image).map_err(failed)?;
        let Some(crop) =
            main_face(&faces, &image).and_then(|face| align::crop(&image, &face.points))
        else {
            return Ok(false);
        };
        for view in views(&crop) {
            embed::fill(&view, &self.spec, self.input.values_mut());
            let (outputs, ranges) = (&self.outputs, &mut self.ranges);
            let learn = |values: &[&[f32]]| {
                for (output, met) in outputs.iter().zip(ranges) {
                    met.learn(values[*output]);
                }
            };
            self.input.run(&mut self.session, learn).map_err(failed)?;
        }
        Ok(true)
    }

    /// What a pack's file of ranges holds.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.ranges.iter().for_each(|met| met.range().write(&mut bytes));
        bytes
    }
}

impl Met {
    fn nothing(channels: usize) -> Self {
        Self {
            least: vec![f32::INFINITY; channels],
            greatest: vec![f32::NEG_INFINITY; channels],
            sums: vec![0.0; channels],
            count: 0,
        }
    }

    /// Takes in the planes of one value.
    fn learn(&mut self, values: &[f32]) {
        let pixels = (values.len() / self.sums.len()).max(1);
        self.count += pixels as u64;
        let outliers = pixels / OUTLIER_IN;
        let mut ordered = Vec::with_capacity(pixels);
        for (channel, plane) in values.chunks_exact(pixels).enumerate() {
            ordered.clear();
            ordered.extend_from_slice(plane);
            let mut nth = |n| *ordered.select_nth_unstable_by(n, f32::total_cmp).1;
            self.least[channel] = self.least[channel].min(nth(outliers));
            self.greatest[channel] = self.greatest[channel].max(nth(pixels - 1 - outliers));
            self.sums[channel] += plane.iter().map(|value| f64::from(*value)).sum::<f64>();
        }
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        reason = "a mean, to seven digits"
    )]
    fn range(&self) -> Range {
        let mean = |sum: &f64| (sum / self.count.max(1) as f64) as f32;
        Range {
            least: self.least.clone(),
            greatest: self.greatest.clone(),
            mean: self.sums.iter().map(mean).collect(),
        }
    }
}

/// A crop as it is, mirrored, darker, brighter, blurred, and as it would be at the edges of a
/// picture: what lies outside is black, along straight lines and slanting ones.
fn views(crop: &[u8]) -> [Vec<u8>; 8] {
    let pixels = crop.as_chunks::<3>().0;
    let mirrored = pixels.chunks_exact(CROP).flat_map(|row| row.iter().rev()).flatten().copied();
    let lit = |share: u16| {
        let sample = |v: &u8| u8::try_from(u16::from(*v) * share / 10).unwrap_or(u8::MAX);
        crop.iter().map(sample).collect::<Vec<_>>()
    };
    let within = |inside: fn(usize, usize) -> bool| {
        let black = |(at, pixel): (usize, &[u8; 3])| {
            if inside(at % CROP, at / CROP) { *pixel } else { [0; 3] }
        };
        pixels.iter().enumerate().flat_map(black).collect::<Vec<_>>()
    };
    [
        crop.to_vec(),
        mirrored.collect(),
        lit(5),
        lit(14),
        blurred(pixels),
        within(|x, y| x >= CROP / 6 && y >= CROP / 6),
        within(|x, y| x < CROP - CROP / 6 && y < CROP - CROP / 6),
        within(|x, y| x + y >= CROP / 2 && x + 3 * y < 3 * CROP && x < y + 2 * CROP / 3),
    ]
}

/// Each pixel is the mean of its square of three by three.
fn blurred(pixels: &[[u8; 3]]) -> Vec<u8> {
    let near = |at: usize| at.saturating_sub(1)..(at + 2).min(CROP);
    let mean = |at: usize| {
        let square = near(at / CROP).flat_map(|y| near(at % CROP).map(move |x| y * CROP + x));
        let square: Vec<[u8; 3]> = square.map(|at| pixels[at]).collect();
        [0, 1, 2].map(|c| {
            let sum: usize = square.iter().map(|pixel| usize::from(pixel[c])).sum();
            u8::try_from(sum / square.len()).unwrap_or(u8::MAX)
        })
    };
    (0..pixels.len()).flat_map(mean).collect()
}

#[cfg(test)]
mod tests {
    use super::super::embed::Recogniser;
    use super::super::goldens::{models, runs};
    use super::super::pack::ModelPack;
    use super::super::probes;
    use super::super::rewrite::{QuantiseError, quantised};
    use super::*;

    /// The ranges of the pack's own photos.
    fn of_photos() -> Vec<u8> {
        let settings = PipelineSettings { models_dir: models(), ..PipelineSettings::default() };
        let mut meter = RangeMeter::new(&settings).unwrap();
        for photo in ["gdp.jpg", "yaoming.jpg"] {
            let photo = std::fs::read(models().join("research/photos").join(photo)).unwrap();
            assert!(meter.look(&photo).unwrap());
        }
        assert!(!meter.look(b"no photo").unwrap());
        meter.bytes()
    }

    #[test]
    fn single_pixels_of_a_large_plane_do_not_count() {
        let spikes = |pixels: usize| {
            let mut plane: Vec<f32> = vec![0.25; pixels];
            (plane[3], plane[7], plane[9]) = (-8.0, 9.0, 0.5);
            let mut met = Met::nothing(1);
            met.learn(&plane);
            let Range { least, greatest, .. } = met.range();
            (least[0], greatest[0])
        };
        assert_eq!(spikes(OUTLIER_IN - 1), (-8.0, 9.0));
        assert_eq!(spikes(OUTLIER_IN), (0.25, 0.5));
    }

    #[test]
    fn eight_bits_with_measured_ranges_give_nearly_the_same_vector() {
        let (pack, ranges) = (ModelPack::load(&models().join("research")).unwrap(), of_photos());
        let model = quantised(&pack.recogniser_model, &ranges, &[]).unwrap();
        assert!(model.len() < pack.recogniser_model.len() * 3 / 4, "weights are bytes");
        let runtime = Runtime::load(&models(), None).unwrap();
        let embed = |model: &[u8]| {
            let mut session = runtime.session(model, PROVIDER, 1).unwrap();
            let mut input = Tensor::new([1, 3, CROP, CROP]);
            embed::fill(&probes::crops()[0], &pack.recogniser, input.values_mut());
            input.run(&mut session, |outputs| outputs[0].to_vec()).unwrap()
        };
        let (float, bytes) = (embed(&pack.recogniser_model), embed(&model));
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
        let cosine = dot(&float, &bytes) / (dot(&float, &float) * dot(&bytes, &bytes)).sqrt();
        assert!((0.9..0.99999).contains(&cosine), "{cosine}");
    }

    #[test]
    fn ranges_of_another_model_are_refused() {
        let (pack, ranges) = (ModelPack::load(&models().join("research")).unwrap(), of_photos());
        let try_with = |ranges: &[u8]| quantised(&pack.recogniser_model, ranges, &[]).map(drop);
        assert_eq!(try_with(&ranges), Ok(()));
        let [longer, odd] = [&[0; 4][..], &[0]].map(|more| [&ranges[..], more].concat());
        let not_a_number = [&f32::NAN.to_le_bytes(), &ranges[4..]].concat();
        for other in [&ranges[4..], &longer, &odd, &not_a_number] {
            assert_eq!(try_with(other), Err(QuantiseError::Ranges));
        }
        assert_eq!(quantised(b"no model", &ranges, &[]), Err(QuantiseError::Model));
    }

    #[test]
    fn eight_bits_agree_with_the_reference_on_the_drawn_probes() {
        if !runs(Provider::OpenVinoInt8) {
            eprintln!("left out: no OpenVINO here");
            return;
        }
        let (models, provider) = (models(), Provider::OpenVinoInt8);
        let pack = ModelPack::load(&models.join("research")).unwrap();
        let runtime = Runtime::load(&models, None).unwrap();
        let embed = |provider| {
            let mut recogniser = Recogniser::load(&runtime, &pack, provider, 1).unwrap();
            recogniser.embed(&probes::crops()).unwrap()
        };
        for (a, b) in embed(PROVIDER).iter().zip(embed(provider)) {
            let agreement = a.cosine(&b).get();
            assert!((provider.least_agreement()..0.9999).contains(&agreement), "{agreement}");
        }
    }
}
