//! What speaks against a face before it is embedded.
//!
//! The measures are the plain ones of ISO/IEC 29794-5 (sharpness, brightness, eye distance, pose)
//! on the aligned crop and the five landmarks: cheap, and explainable to the person at the door.

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::detect::prominence;
use super::frame::{CROP, Picture};
use super::geometry::{Face, Point};
use super::{Company, FaceDemands};
use crate::types::{Quality, QualityReason};

/// How far the nose tip stands out of the plane of the eyes, in distances between the eyes.
const NOSE_DEPTH: f32 = 0.5;
/// Where the nose tip of a level head lies between eyes (0) and mouth (1).
const NOSE_LEVEL: f32 = 0.5;
/// Distance from eyes to mouth of a level head, in distances between the eyes.
const FACE_HEIGHT: f32 = 1.15;
/// Grey level from which a pixel counts as burnt out.
const BURNT: i16 = 250;

/// Where a measure turns into a reason. The defaults refuse fewer than one in a hundred of the
/// press photos of Labeled Faces in the Wild.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QualityThresholds {
    /// Least sharpness: variance of the crop's Laplacian, grey levels squared.
    pub min_sharpness: f32,
    /// Darkest mean of the crop, grey levels 0 to 255.
    pub min_brightness: f32,
    /// Brightest mean of the crop, grey levels 0 to 255.
    pub max_brightness: f32,
    /// Largest share of burnt-out pixels in the crop, 0 to 1.
    pub max_burnt_share: f32,
    /// Furthest turn to a side, degrees.
    pub max_yaw_degrees: f32,
    /// Furthest turn up or down, degrees.
    pub max_pitch_degrees: f32,
    /// Furthest tilt towards a shoulder, degrees.
    pub max_roll_degrees: f32,
    /// Largest share of the face's box, in width or height, outside of the frame, 0 to 1.
    pub max_cut_share: f32,
    /// Size of another face, as a share of the main face's eye distance, from which it is of
    /// similar size, 0 to 1.
    pub similar_size: f32,
}

impl Default for QualityThresholds {
    fn default() -> Self {
        Self {
            min_sharpness: 10.0,
            min_brightness: 35.0,
            max_brightness: 220.0,
            max_burnt_share: 0.35,
            max_yaw_degrees: 50.0,
            max_pitch_degrees: 40.0,
            max_roll_degrees: 45.0,
            max_cut_share: 0.2,
            similar_size: 0.6,
        }
    }
}

/// Turns of a head, degrees.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Pose {
    /// To the subject's left.
    yaw: f32,
    /// Downwards.
    pitch: f32,
    /// Clockwise, as the viewer sees it.
    roll: f32,
}

impl Pose {
    /// A rough estimate from where the nose tip lies between eyes and mouth: it stands out of the
    /// face, so a turn by an angle moves it by the tangent times its depth.
    fn of(face: &Face) -> Self {
        let [left, right, nose, mouth_left, mouth_right] = face.points;
        let eyes = middle(left, right);
        let across = [right[0] - left[0], right[1] - left[1]];
        let width = across[0].hypot(across[1]).max(f32::EPSILON);
        let unit = [across[0] / width, across[1] / width];
        let project = |p: Point| {
            let d = [p[0] - eyes[0], p[1] - eyes[1]];
            [d[0] * unit[0] + d[1] * unit[1], d[1] * unit[0] - d[0] * unit[1]]
        };
        let (nose, mouth) = (project(nose), project(middle(mouth_left, mouth_right)));
        let height = mouth[1].max(f32::EPSILON);
        let level = nose[1] / height - NOSE_LEVEL;
        Self {
            yaw: (nose[0] / (width * NOSE_DEPTH)).atan().to_degrees(),
            pitch: (level * FACE_HEIGHT / NOSE_DEPTH).atan().to_degrees(),
            roll: across[1].atan2(across[0]).to_degrees(),
        }
    }
}

fn middle(a: Point, b: Point) -> Point {
    [f32::midpoint(a[0], b[0]), f32::midpoint(a[1], b[1])]
}

/// Light and detail of an aligned crop.
struct Tone {
    sharpness: f32,
    brightness: f32,
    burnt_share: f32,
}

/// Grey levels of one row, 0 to 255, so small that sixteen-bit arithmetic holds their differences.
type Row = [i16; CROP];
/// Pixels of a row that have neighbours on both sides.
const INNER: usize = CROP - 2;

impl Tone {
    #[expect(clippy::cast_precision_loss, reason = "counts of at most 12,544 pixels")]
    fn of(crop: &[u8]) -> Self {
        let rows = crop.as_chunks::<{ 3 * CROP }>().0;
        let grey: Zeroizing<Vec<Row>> = Zeroizing::new(rows.iter().map(grey).collect());
        let levels = grey.as_flattened();
        let pixels = levels.len() as f32;
        let burnt = levels.iter().filter(|v| **v >= BURNT).count() as f32;
        let sum: i32 = levels.iter().map(|v| i32::from(*v)).sum();
        Self {
            sharpness: laplacian_variance(&grey),
            brightness: sum as f32 / pixels,
            burnt_share: burnt / pixels,
        }
    }
}

fn grey(row: &[u8; 3 * CROP]) -> Row {
    let mut levels = [0; CROP];
    for (level, rgb) in levels.iter_mut().zip(row.as_chunks().0) {
        *level = luma(*rgb);
    }
    levels
}

/// ITU-R BT.601 luma.
fn luma([r, g, b]: [u8; 3]) -> i16 {
    let weighted = u16::from(r) * 77 + u16::from(g) * 150 + u16::from(b) * 29;
    (weighted >> 8).cast_signed()
}

/// Variance of the four-neighbour Laplacian (Pech-Pacheco et al., 2000) over the inner pixels.
#[expect(clippy::cast_precision_loss, reason = "sums of small integers; six digits are plenty")]
fn laplacian_variance(grey: &[Row]) -> f32 {
    let (mut sum, mut square) = (0_i64, 0_i64);
    for rows in grey.windows(3) {
        let (s, q) = laplacians(&rows[0], &rows[1], &rows[2]);
        (sum, square) = (sum + i64::from(s), square + i64::from(q));
    }
    let count = (INNER * INNER) as f64;
    let mean = sum as f64 / count;
    #[expect(clippy::cast_possible_truncation, reason = "reported as f32")]
    {
        (square as f64 / count - mean * mean) as f32
    }
}

/// The Laplacians of a row's inner pixels: their sum and the sum of their squares, each at most
/// 1,020 squared.
fn laplacians(above: &Row, row: &Row, below: &Row) -> (i32, i32) {
    let (mut sum, mut square) = (0, 0);
    for x in 0..INNER {
        let v = row[x] + row[x + 2] + above[x + 1] + below[x + 1] - 4 * row[x + 1];
        (sum, square) = (sum + i32::from(v), square + i32::from(v) * i32::from(v));
    }
    (sum, square)
}

/// Judges an aligned crop by itself.
pub(super) fn of_crop(crop: &[u8], limits: &QualityThresholds) -> Quality {
    let tone = Tone::of(crop);
    let reasons = [
        (QualityReason::Blurred, tone.sharpness < limits.min_sharpness),
        (QualityReason::Dark, tone.brightness < limits.min_brightness),
        (
            QualityReason::Overexposed,
            tone.brightness > limits.max_brightness || tone.burnt_share > limits.max_burnt_share,
        ),
    ];
    Quality {
        sharpness: tone.sharpness,
        brightness: tone.brightness,
        reasons: reasons
            .into_iter()
            .filter_map(|(reason, holds)| holds.then_some(reason))
            .collect(),
        ..Quality::default()
    }
}

/// Judges the main face of a frame: its crop, its pose, its size and place, and its company.
pub(super) fn of_face(
    face: &Face,
    all: &[Face],
    image: &impl Picture,
    crop: &[u8],
    demands: FaceDemands,
    limits: &QualityThresholds,
) -> Quality {
    let pose = Pose::of(face);
    let turned = pose.yaw.abs() > limits.max_yaw_degrees
        || pose.pitch.abs() > limits.max_pitch_degrees
        || pose.roll.abs() > limits.max_roll_degrees;
    let reasons = [
        (QualityReason::TooSmall, face.eye_distance() < demands.min_eye_distance_px),
        (QualityReason::Turned, turned),
        (QualityReason::CutOff, cut_share(face, image) > limits.max_cut_share),
        (QualityReason::SeveralFaces, has_company(face, all, image, demands.company, limits)),
    ];
    let mut quality = of_crop(crop, limits);
    quality.detector_score = face.score;
    quality.eye_distance_px = face.eye_distance();
    quality.yaw_degrees = pose.yaw;
    quality.faces = u32::try_from(all.len()).unwrap_or(u32::MAX);
    quality
        .reasons
        .extend(reasons.into_iter().filter_map(|(reason, holds)| holds.then_some(reason)));
    quality.reasons.sort_unstable();
    quality
}

/// The larger share of the box, in width or height, outside of the frame; 1 where a landmark is.
#[expect(clippy::cast_precision_loss, reason = "sides are at most 65,535")]
fn cut_share(face: &Face, image: &impl Picture) -> f32 {
    let (w, h) = (image.width() as f32, image.height() as f32);
    let inside = |[x, y]: &Point| *x >= 0.0 && *y >= 0.0 && *x < w && *y < h;
    if !face.points.iter().all(inside) {
        return 1.0;
    }
    let [left, top, right, bottom] = face.bounds;
    let outside = |low: f32, high: f32, limit: f32| {
        ((-low).max(0.0) + (high - limit).max(0.0)) / (high - low).max(f32::EPSILON)
    };
    outside(left, right, w).max(outside(top, bottom, h))
}

/// Whether somebody in the frame is more than `tolerated`.
///
/// An enrolment tolerates bystanders, because the person stands in the middle and near, and the
/// photo is of that person; it refuses a frame in which the choice of the main face was close, by
/// the very measure that chose it. Areas grow with the square of a size.
fn has_company(
    face: &Face,
    all: &[Face],
    image: &impl Picture,
    tolerated: Company,
    limits: &QualityThresholds,
) -> bool {
    let similar = limits.similar_size;
    let is_company = |other: &Face| match tolerated {
        Company::Any => false,
        Company::Aside => {
            let main = prominence(face, image);
            prominence(other, image) >= main - (1.0 - similar * similar) * main.abs()
        }
        Company::Smaller => other.eye_distance() >= face.eye_distance() * similar,
    };
    all.iter().any(|other| other != face && is_company(other))
}

#[cfg(test)]
mod tests {
    use super::super::frame::Image;
    use super::*;
    use crate::pipeline::align::TEMPLATE;

    const DEMANDS: FaceDemands =
        FaceDemands { min_eye_distance_px: 20.0, company: Company::Smaller, live: false };

    fn frontal() -> Face {
        Face { score: 0.9, bounds: [20.0, 20.0, 92.0, 110.0], points: TEMPLATE }
    }

    /// Stripes of two grey levels.
    fn crop(dark: u8, bright: u8) -> Vec<u8> {
        (0..CROP * CROP).flat_map(|i| [if i % 4 < 2 { dark } else { bright }; 3]).collect()
    }

    fn reasons(face: &Face, all: &[Face], crop: &[u8]) -> Vec<QualityReason> {
        let image = Image::black(112, 112);
        of_face(face, all, &image, crop, DEMANDS, &QualityThresholds::default()).reasons
    }

    #[test]
    fn a_good_face_has_no_reason_against_it() {
        assert_eq!(reasons(&frontal(), &[frontal()], &crop(100, 150)), []);
    }

    #[test]
    fn each_fault_has_its_reason() {
        let good = crop(100, 150);
        let all = [frontal()];
        assert_eq!(reasons(&frontal(), &all, &crop(120, 120)), [QualityReason::Blurred]);
        assert_eq!(reasons(&frontal(), &all, &crop(0, 30)), [QualityReason::Dark]);
        assert_eq!(reasons(&frontal(), &all, &crop(150, 255)), [QualityReason::Overexposed]);
        let mut turned = frontal();
        turned.points[2][0] += 30.0;
        assert_eq!(reasons(&turned, &all[..0], &good), [QualityReason::Turned]);
        let mut small = frontal();
        small.points = small.points.map(|[x, y]| [x / 2.0, y / 2.0]);
        assert_eq!(reasons(&small, &all[..0], &good), [QualityReason::TooSmall]);
        let mut cut = frontal();
        cut.bounds = [-40.0, 0.0, 60.0, 100.0];
        assert_eq!(reasons(&cut, &all[..0], &good), [QualityReason::CutOff]);
        let mut second = frontal();
        second.score = 0.6;
        assert_eq!(reasons(&frontal(), &[frontal(), second], &good), [QualityReason::SeveralFaces]);
    }

    #[test]
    fn a_board_of_black_and_white_pixels_is_as_sharp_as_can_be() {
        let pixel = |i: usize| [if (i / CROP + i).is_multiple_of(2) { 0 } else { 255 }; 3];
        let board: Vec<u8> = (0..CROP * CROP).flat_map(pixel).collect();
        let is = |value: f32, expected: f32| assert!((value / expected - 1.0).abs() < 1e-6);
        let tone = Tone::of(&board);
        is(tone.sharpness, 1020.0 * 1020.0);
        is(tone.brightness, 127.5);
        is(tone.burnt_share, 0.5);
        // One brighter pixel: four times the difference there, once at each of its neighbours.
        let mut speck = vec![100; 3 * CROP * CROP];
        speck[3 * (50 * CROP + 50)..][..3].fill(110);
        is(Tone::of(&speck).sharpness, (40.0 * 40.0 + 4.0 * 10.0 * 10.0) / (110.0 * 110.0));
    }

    #[test]
    fn a_small_face_behind_is_no_company() {
        let mut far = frontal();
        far.points = far.points.map(|[x, y]| [x / 3.0, y / 3.0]);
        assert_eq!(reasons(&frontal(), &[frontal(), far], &crop(100, 150)), []);
    }

    #[test]
    fn company_of_similar_size_counts_where_the_choice_of_the_main_face_was_close() {
        let at = |x: f32, size: f32| Face {
            score: 0.9,
            bounds: [x - 50.0 * size, 60.0, x + 50.0 * size, 60.0 + 120.0 * size],
            points: TEMPLATE.map(|[px, py]| [x + (px - 56.0) * size, 60.0 + py * size]),
        };
        let image = Image::black(400, 240);
        let has = |main: Face, other: Face, tolerated| {
            let limits = QualityThresholds::default();
            has_company(&main, &[main, other], &image, tolerated, &limits)
        };
        let (alone, beside) = (at(200.0, 1.0), at(310.0, 0.9));
        assert!(!has(alone, beside, Company::Aside), "a bystander at the edge");
        assert!(has(alone, beside, Company::Smaller));
        let (left, right) = (at(145.0, 1.0), at(255.0, 0.95));
        assert!(has(left, right, Company::Aside), "two side by side: who is it?");
        assert!(has(left, right, Company::Smaller));
        assert!(!has(left, right, Company::Any));
        let (edge, other_edge) = (at(60.0, 1.0), at(350.0, 0.95));
        assert!(has(edge, other_edge, Company::Aside), "nobody is in the middle");
    }

    #[test]
    fn the_template_looks_straight_ahead() {
        let pose = Pose::of(&frontal());
        assert!(
            pose.yaw.abs() < 2.0 && pose.pitch.abs() < 3.0 && pose.roll.abs() < 1.0,
            "{pose:?}"
        );
    }

    #[test]
    fn yaw_is_positive_to_the_subjects_left_whatever_the_roll() {
        let mut face = frontal();
        face.points[2][0] += 10.0;
        let upright = Pose::of(&face);
        assert!(upright.yaw > 20.0, "{upright:?}");
        face.points = face.points.map(|[x, y]| [-y, x]);
        let rolled = Pose::of(&face);
        assert!((rolled.yaw - upright.yaw).abs() < 0.1 && (rolled.roll - 90.0).abs() < 1.0);
    }
}
