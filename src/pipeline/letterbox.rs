//! Fits a frame into the detector's square input.
//!
//! The frame is scaled by one factor, put into the top left corner, and the rest is black.
//! Sampling is bilinear around half-pixel centres without anti-aliasing: what `cv2.resize` does
//! to bytes with `INTER_LINEAR`, up to a step, and what the detector was trained on.

use std::array;

use super::frame::Picture;
use super::pack::ColourOrder;
use super::wiped::Wiped;

/// A scaled frame's size, pixels, and the factor that leads from the frame to it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Fit {
    pub(super) width: usize,
    pub(super) height: usize,
    pub(super) scale: f32,
}

impl Fit {
    /// Fits `width` x `height` pixels into a square of `side`. Very long frames keep one pixel.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "sides are at most 65,535 and positive"
    )]
    pub(super) fn new(width: usize, height: usize, side: usize) -> Self {
        let (w, h, s) = (width as f64, height as f64, side as f64);
        let (fit_w, fit_h) = if h > w { (s / (h / w), s) } else { (s, s * (h / w)) };
        let (width, height) = ((fit_w as usize).max(1), (fit_h as usize).max(1));
        Self { width, height, scale: (height as f64 / h) as f32 }
    }
}

/// One axis of the resampling: for each output position the first of two neighbouring source
/// positions, and the weight of the second. It is 0 where there is no second.
struct Taps(Vec<(usize, f32)>);

impl Taps {
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "positions are below 65,536 and clamped to the picture"
    )]
    fn new(from: usize, to: usize) -> Self {
        let (ratio, last) = (from as f64 / to as f64, from - 1);
        let tap = |i: usize| {
            let at = ((i as f64 + 0.5) * ratio - 0.5).clamp(0.0, last as f64);
            (at as usize, at.fract() as f32)
        };
        Self((0..to).map(tap).collect())
    }
}

/// Samples of a pixel.
const PIXEL: usize = 3;

/// Scaled rows, kept while they are still needed.
struct Rows {
    /// (source row, samples and the room of [`scale_row`]), the two last made.
    kept: [(Option<usize>, Wiped<f32>); 2],
    /// For a row of the frame that does not lie ready as RGB.
    scratch: Wiped<u8>,
    /// For a row of the frame as floats, and a pixel more.
    floats: Wiped<f32>,
}

impl Rows {
    fn new(from: usize, width: usize) -> Self {
        let row = || (None, Wiped::zeros(width * PIXEL + 1));
        let (scratch, floats) = (Wiped::zeros(from * PIXEL), Wiped::zeros((from + 1) * PIXEL + 1));
        Self { kept: [row(), row()], scratch, floats }
    }

    /// Makes row `y` present without touching row `keep`, and says where.
    fn ensure(&mut self, image: &impl Picture, taps: &Taps, y: usize, keep: usize) -> usize {
        if let Some(there) = self.kept.iter().position(|(row, _)| *row == Some(y)) {
            return there;
        }
        let victim = usize::from(self.kept[0].0 == Some(keep));
        let (row, samples) = &mut self.kept[victim];
        *row = Some(y);
        for (float, byte) in self.floats.iter_mut().zip(image.row(y, &mut self.scratch)) {
            *float = f32::from(*byte);
        }
        scale_row(&self.floats, taps, samples);
        victim
    }
}

/// Works on four samples at once, which is what processors do: on a pixel and the first sample of
/// the next, which is then written over. So `out` has room for one sample more.
fn scale_row(source: &[f32], taps: &Taps, out: &mut [f32]) {
    const WIDE: usize = PIXEL + 1;
    for ((near, weight), at) in taps.0.iter().zip((0..).step_by(PIXEL)) {
        let pair = source[near * PIXEL..].first_chunk::<{ PIXEL + WIDE }>();
        let room = out[at..].first_chunk_mut::<WIDE>();
        if let (Some(pair), Some(room)) = (pair, room) {
            *room = array::from_fn(|i| pair[i] + (pair[i + PIXEL] - pair[i]) * weight);
        }
    }
}

/// Fills `pixels`, `side` x `side` of three bytes, with the fitted frame in this order of colours.
pub(super) fn fill(
    image: &impl Picture,
    side: usize,
    colour: ColourOrder,
    pixels: &mut [u8],
) -> Fit {
    let fit = Fit::new(image.width(), image.height(), side);
    let across = Taps::new(image.width(), fit.width);
    let down = Taps::new(image.height(), fit.height);
    let mut rows = Rows::new(image.width(), fit.width);
    let (fitted, below) = pixels.split_at_mut(fit.height * side * PIXEL);
    below.fill(0);
    for ((near, weight), out) in down.0.iter().zip(fitted.chunks_exact_mut(side * PIXEL)) {
        let far = (near + 1).min(image.height() - 1);
        let near_at = rows.ensure(image, &across, *near, far);
        let far_at = rows.ensure(image, &across, far, *near);
        let (out, beside) = out.split_at_mut(fit.width * PIXEL);
        blend(&rows.kept[near_at].1, &rows.kept[far_at].1, *weight, out);
        beside.fill(0);
        if colour == ColourOrder::Bgr {
            out.as_chunks_mut::<PIXEL>().0.iter_mut().for_each(|pixel| pixel.reverse());
        }
    }
    fit
}

/// A float from here on has no fraction: what is added to this is rounded, and a byte is the last
/// of its bits. Processors without a fast way from floats to bytes have a fast way to that.
const WHOLE: f32 = 8_388_608.0;

#[expect(clippy::cast_possible_truncation, reason = "the last byte is what is wanted")]
fn blend(upper: &[f32], lower: &[f32], weight: f32, out: &mut [u8]) {
    for ((out, u), l) in out.iter_mut().zip(upper).zip(lower) {
        *out = (u + (l - u) * weight + WHOLE).to_bits() as u8;
    }
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "these sums are exact")]
mod tests {
    use super::super::frame::Image;
    use super::*;

    #[test]
    fn a_frame_of_the_inputs_size_is_copied() {
        let mut image = Image::black(8, 8);
        for (i, sample) in image.rgb_mut().iter_mut().enumerate() {
            *sample = u8::try_from(i).unwrap();
        }
        let mut pixels = vec![7; 8 * 8 * 3];
        assert_eq!(fill(&image, 8, ColourOrder::Rgb, &mut pixels).scale, 1.0);
        assert_eq!(pixels, image.rgb());
        fill(&image, 8, ColourOrder::Bgr, &mut pixels);
        assert_eq!(pixels[..6], [2, 1, 0, 5, 4, 3]);
    }

    #[test]
    fn samples_lie_around_half_pixel_centres() {
        // cv2.resize of [0, 100, 200] to six columns.
        let mut image = Image::black(3, 3);
        for (i, pixel) in image.rgb_mut().chunks_exact_mut(3).enumerate() {
            pixel.fill(u8::try_from(i % 3 * 100).unwrap());
        }
        let mut pixels = vec![7; 6 * 6 * 3];
        fill(&image, 6, ColourOrder::Rgb, &mut pixels);
        for row in pixels.chunks_exact(18) {
            let green: Vec<u8> = row.iter().skip(1).step_by(3).copied().collect();
            assert_eq!(green, [0, 25, 75, 125, 175, 200]);
        }
    }

    #[test]
    fn means_are_rounded() {
        // cv2.resize of [0, 255] and [0, 51] to four columns: 63.75 and 191.25, 12.75 and 38.25.
        for (white, wanted) in [(255, [0, 64, 191, 255]), (51, [0, 13, 38, 51])] {
            let mut image = Image::black(2, 2);
            image.rgb_mut().copy_from_slice(&[0, 0, 0, white, white, white].repeat(2));
            let mut pixels = vec![7; 4 * 4 * 3];
            fill(&image, 4, ColourOrder::Rgb, &mut pixels);
            let blue: Vec<u8> = pixels[..12].iter().skip(2).step_by(3).copied().collect();
            assert_eq!(blue, wanted);
        }
    }

    #[test]
    fn a_wide_or_high_frame_leaves_the_rest_black() {
        for (width, height) in [(16, 8), (8, 16)] {
            let mut image = Image::black(width, height);
            image.rgb_mut().fill(255);
            let mut pixels = vec![7; 8 * 8 * 3];
            let fit = fill(&image, 8, ColourOrder::Rgb, &mut pixels);
            assert_eq!((fit.width, fit.height, fit.scale), (width / 2, height / 2, 0.5));
            for (i, pixel) in pixels.chunks_exact(3).enumerate() {
                let inside = i % 8 < fit.width && i / 8 < fit.height;
                assert_eq!(pixel, [if inside { 255 } else { 0 }; 3], "{i}");
            }
        }
    }

    #[test]
    fn extreme_shapes_keep_a_pixel() {
        assert_eq!(Fit::new(60_000, 2, 320).height, 1);
        assert_eq!(Fit::new(1, 60_000, 320).width, 1);
    }
}
