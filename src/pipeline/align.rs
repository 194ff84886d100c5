//! Alignment: the similarity that brings five landmarks onto the ArcFace template, then bilinear
//! sampling of the frame (what cv2.warpAffine does, border black).

use zeroize::Zeroizing;

use super::frame::{CROP, CROP_BYTES, Picture};
use super::geometry::{Landmarks, Point, Similarity};

/// Where the five landmarks lie in a crop of 112 x 112 (InsightFace, `arcface_dst`).
pub(super) const TEMPLATE: Landmarks = [
    [38.2946, 51.6963],
    [73.5318, 51.5014],
    [56.0252, 71.7366],
    [41.5493, 92.3655],
    [70.7299, 92.2041],
];

/// The 112 x 112 RGB crop around `points`; `None` where the landmarks coincide.
pub(super) fn crop(image: &impl Picture, points: &Landmarks) -> Option<Zeroizing<Vec<u8>>> {
    let to_frame = Similarity::between(points, &TEMPLATE)?.inverse();
    #[expect(clippy::cast_precision_loss, reason = "below 112")]
    let at = |x: usize, y: usize| to_frame.apply([x as f32, y as f32]);
    let last = CROP - 1;
    let corners = [at(0, 0), at(last, 0), at(0, last), at(last, last)];
    let inside = corners
        .iter()
        .all(|[x, y]| has_square(*x, image.width()) && has_square(*y, image.height()));
    Some(if inside {
        cut(|x, y| square_inside(image, at(x, y)))
    } else {
        cut(|x, y| square(image, at(x, y)))
    })
}

/// The crop of what lies around each of its pixels' points.
fn cut(around: impl Fn(usize, usize) -> Square) -> Zeroizing<Vec<u8>> {
    let mut crop = Zeroizing::new(vec![0; CROP_BYTES]);
    let mut row = Row { pixels: [[[0; 3]; CROP]; 4], shares: [[[0; 3]; CROP]; 2] };
    for (y, pixels) in crop.as_chunks_mut().0.iter_mut().enumerate() {
        (0..CROP).for_each(|x| row.put(x, around(x, y)));
        row.mix(pixels);
    }
    crop
}

/// Bits of the weights.
const BITS: u32 = 8;
/// A share of all.
const WHOLE: u16 = 1 << BITS;

/// Four pixels around a point, and the shares of the right and of the lower ones.
type Square = ([[u8; 3]; 4], [u16; 2]);

/// The squares of a row of a crop, pixel by pixel and share by share, and each share as often as a
/// pixel has samples: so processors mix several samples at once.
struct Row {
    pixels: [[[u8; 3]; CROP]; 4],
    shares: [[[u16; 3]; CROP]; 2],
}

impl Row {
    #[inline]
    fn put(&mut self, x: usize, (square, shares): Square) {
        for (pixels, pixel) in self.pixels.iter_mut().zip(square) {
            pixels[x] = pixel;
        }
        for (all, share) in self.shares.iter_mut().zip(shares) {
            all[x] = [share; 3];
        }
    }

    fn mix(&self, out: &mut [u8; 3 * CROP]) {
        let [a, b, c, d] = self.pixels.each_ref().map(|pixels| pixels.as_flattened());
        let [right, lower] = self.shares.each_ref().map(|shares| shares.as_flattened());
        for (i, out) in out.iter_mut().enumerate() {
            *out = mix([a[i], b[i], c[i], d[i]], [right[i], lower[i]]);
        }
    }
}

/// The bilinear sample of `image` at a point; what lies outside counts as black.
pub(super) fn sample(image: &impl Picture, point: Point) -> [u8; 3] {
    let ([a, b, c, d], shares) = square(image, point);
    std::array::from_fn(|i| mix([a[i], b[i], c[i], d[i]], shares))
}

/// What lies around a point; what lies outside counts as black.
#[inline]
fn square(image: &impl Picture, [x, y]: Point) -> Square {
    let near = |at: f32, side: usize| at > -1.0 && at < bound(side);
    if !near(x, image.width()) || !near(y, image.height()) {
        return Square::default();
    }
    let ((left, right), (top, lower)) = (split(x), split(y));
    (image.square_or_black(left, top), [right, lower])
}

/// The same where the point and its neighbours [lie inside](has_square).
#[inline]
fn square_inside(image: &impl Picture, [x, y]: Point) -> Square {
    let ((left, right), (top, lower)) = (split(x), split(y));
    let square = image.square(left.unsigned_abs() as usize, top.unsigned_abs() as usize);
    (square, [right, lower])
}

/// Whether `at` and the next pixel are among `side` pixels. A hundredth is kept for rounding: the
/// corners of a crop stand for all of it.
fn has_square(at: f32, side: usize) -> bool {
    at >= 0.01 && at < bound(side) - 1.01
}

#[expect(clippy::cast_precision_loss, reason = "below 65,536")]
fn bound(side: usize) -> f32 {
    side as f32
}

/// The mean of four samples with these shares of the right and of the lower ones.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "a mean of bytes")]
fn mix([a, b, c, d]: [u8; 4], [right, lower]: [u16; 2]) -> u8 {
    let across = |a: u8, b: u8| u32::from(u16::from(a) * (WHOLE - right) + u16::from(b) * right);
    let sum = across(a, b) * u32::from(WHOLE - lower) + across(c, d) * u32::from(lower);
    ((sum + (1 << (2 * BITS - 1))) >> (2 * BITS)) as u8
}

/// The pixel before `at`, which is above -1 and not far, and the share of the next. Truncation of
/// a positive number stands for rounding down, which is slow on plain x86-64.
#[inline]
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "below 65,536")]
fn split(at: f32) -> (i32, u16) {
    let fixed = ((at + 1.0) * f32::from(WHOLE)) as i32;
    ((fixed >> BITS) - 1, fixed as u16 % WHOLE)
}

#[cfg(test)]
mod tests {
    use super::super::frame::Image;
    use super::*;

    fn ramp() -> Image {
        let mut image = Image::black(CROP, CROP);
        for (i, p) in image.rgb_mut().chunks_exact_mut(3).enumerate() {
            p.copy_from_slice(&[i % CROP, i / CROP, 200].map(|v| u8::try_from(v).unwrap()));
        }
        image
    }

    #[test]
    fn a_face_on_the_template_is_copied_as_it_is() {
        let image = ramp();
        assert_eq!(crop(&image, &TEMPLATE).unwrap().as_slice(), image.rgb());
    }

    #[test]
    fn a_crop_inside_is_what_its_points_are() {
        let mut image = Image::black(200, 150);
        for (i, byte) in image.rgb_mut().iter_mut().enumerate() {
            *byte = u8::try_from(i * 31 % 251).unwrap();
        }
        for (a, b, tx, ty, inside) in [
            (0.8, 0.1, 40.0, 20.0, true),
            (1.3, 0.0, 0.01, 0.02, true),
            (1.2, 0.3, -9.0, 8.0, false),
        ] {
            let to_frame = Similarity { a, b, tx, ty };
            let points = TEMPLATE.map(|point| to_frame.apply(point));
            let exact = Similarity::between(&points, &TEMPLATE).unwrap().inverse();
            let crop = crop(&image, &points).unwrap();
            for (i, pixel) in crop.as_chunks().0.iter().enumerate() {
                #[expect(clippy::cast_precision_loss, reason = "below 112")]
                let at = exact.apply([(i % CROP) as f32, (i / CROP) as f32]);
                assert_eq!(*pixel, sample(&image, at), "{i}");
            }
            assert_eq!(crop.as_chunks().0.contains(&[0, 0, 0]), !inside);
        }
    }

    #[test]
    fn between_pixels_the_mean_is_taken_and_outside_is_black() {
        let image = ramp();
        assert_eq!(sample(&image, [10.5, 20.0]), [11, 20, 200]);
        assert_eq!(sample(&image, [-0.5, 50.0]), [0, 25, 100]);
        assert_eq!(sample(&image, [-3e9, 5e12]), [0, 0, 0]);
    }
}
