//! Fits a frame into the detector's square input.
//!
//! The frame is scaled by one factor, put into the top left corner, and the rest is black.
//! Sampling is bilinear around half-pixel centres without anti-aliasing: what `cv2.resize` does
//! with `INTER_LINEAR`, and what the detector was trained on.

use super::frame::Picture;
use super::pack::{DetectorSpec, Normalisation};
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

/// One axis of the resampling: for each output position the two source positions and the weight
/// of the second.
struct Taps(Vec<(usize, usize, f32)>);

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
            let near = at as usize;
            (near, (near + 1).min(last), (at - near as f64) as f32)
        };
        Self((0..to).map(tap).collect())
    }
}

/// Scaled rows, each three planes of `width` samples, kept while they are still needed.
struct Rows {
    width: usize,
    /// (source row, samples), the two last made.
    kept: [(Option<usize>, Wiped<f32>); 2],
    /// For a row of the frame that does not lie ready as RGB.
    scratch: Wiped<u8>,
    /// For one colour of it.
    plane: Wiped<f32>,
}

impl Rows {
    fn new(from: usize, width: usize) -> Self {
        let row = || (None, Wiped::zeros(width * 3));
        let (scratch, plane) = (Wiped::zeros(from * 3), Wiped::zeros(from));
        Self { width, kept: [row(), row()], scratch, plane }
    }

    /// Makes row `y` present without touching row `keep`, and says where.
    fn ensure(&mut self, image: &impl Picture, taps: &Taps, y: usize, keep: usize) -> usize {
        if let Some(there) = self.kept.iter().position(|(row, _)| *row == Some(y)) {
            return there;
        }
        let victim = usize::from(self.kept[0].0 == Some(keep));
        let (row, samples) = &mut self.kept[victim];
        *row = Some(y);
        let source = image.row(y, &mut self.scratch);
        scale_row(source, taps, self.width, &mut self.plane, samples);
        victim
    }
}

/// `plane` has room for a row of the source.
fn scale_row(source: &[u8], taps: &Taps, width: usize, plane: &mut [f32], out: &mut [f32]) {
    let pixels = source.as_chunks::<3>().0;
    let plane = &mut plane[..pixels.len()];
    for (channel, out) in out.chunks_exact_mut(width).enumerate() {
        for (sample, pixel) in plane.iter_mut().zip(pixels) {
            *sample = f32::from(pixel[channel]);
        }
        for ((near, far, weight), out) in taps.0.iter().zip(out) {
            let (p, q) = (plane[*near], plane[*far]);
            *out = p + (q - p) * weight;
        }
    }
}

/// Fills `tensor`, three planes of `side` x `side`, with the fitted and normalised frame.
pub(super) fn fill(
    image: &impl Picture,
    side: usize,
    spec: &DetectorSpec,
    tensor: &mut [f32],
) -> Fit {
    let norm = spec.normalisation();
    let fit = Fit::new(image.width(), image.height(), side);
    let across = Taps::new(image.width(), fit.width);
    let down = Taps::new(image.height(), fit.height);
    let mut rows = Rows::new(image.width(), fit.width);
    let black = norm.apply(0.0);
    for plane in tensor.chunks_exact_mut(side * side) {
        plane[fit.height * side..].fill(black);
    }
    for (y, (near, far, weight)) in down.0.iter().enumerate() {
        let near_at = rows.ensure(image, &across, *near, *far);
        let far_at = rows.ensure(image, &across, *far, *near);
        for (channel, plane) in tensor.chunks_exact_mut(side * side).enumerate() {
            let from = spec.colour.source(channel) * fit.width;
            let upper = &rows.kept[near_at].1[from..from + fit.width];
            let lower = &rows.kept[far_at].1[from..from + fit.width];
            let (out, rest) = plane[y * side..(y + 1) * side].split_at_mut(fit.width);
            blend(upper, lower, *weight, norm, out);
            rest.fill(black);
        }
    }
    fit
}

fn blend(upper: &[f32], lower: &[f32], weight: f32, norm: Normalisation, out: &mut [f32]) {
    for ((out, u), l) in out.iter_mut().zip(upper).zip(lower) {
        *out = norm.apply(u + (l - u) * weight);
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
        let mut tensor = vec![0.0; 3 * 64];
        assert_eq!(fill(&image, 8, &DetectorSpec::of_tests(), &mut tensor).scale, 1.0);
        for (i, pixel) in image.rgb().chunks_exact(3).enumerate() {
            assert_eq!(
                [tensor[i], tensor[64 + i], tensor[128 + i]],
                [0, 1, 2].map(|c| f32::from(pixel[c]))
            );
        }
    }

    #[test]
    fn samples_lie_around_half_pixel_centres() {
        // cv2.resize of [0, 100, 200] to six columns.
        let mut image = Image::black(3, 3);
        for (i, pixel) in image.rgb_mut().chunks_exact_mut(3).enumerate() {
            pixel.fill(u8::try_from(i % 3 * 100).unwrap());
        }
        let mut tensor = vec![0.0; 3 * 36];
        fill(&image, 6, &DetectorSpec::of_tests(), &mut tensor);
        assert_eq!(tensor[..6], [0.0, 25.0, 75.0, 125.0, 175.0, 200.0]);
    }

    #[test]
    fn a_wide_frame_leaves_the_bottom_black() {
        let mut image = Image::black(16, 8);
        image.rgb_mut().fill(255);
        let mut tensor = vec![7.0; 3 * 64];
        let fit = fill(&image, 8, &DetectorSpec::of_tests(), &mut tensor);
        assert_eq!((fit.width, fit.height, fit.scale), (8, 4, 0.5));
        assert!(
            tensor[..32].iter().all(|v| *v == 255.0) && tensor[32..64].iter().all(|v| *v == 0.0)
        );
    }

    #[test]
    fn extreme_shapes_keep_a_pixel() {
        assert_eq!(Fit::new(60_000, 2, 320).height, 1);
        assert_eq!(Fit::new(1, 60_000, 320).width, 1);
    }
}
