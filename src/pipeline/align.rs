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
    let mut crop = Zeroizing::new(vec![0; CROP_BYTES]);
    for (i, pixel) in crop.chunks_exact_mut(3).enumerate() {
        #[expect(clippy::cast_precision_loss, reason = "below 112")]
        let at = to_frame.apply([(i % CROP) as f32, (i / CROP) as f32]);
        pixel.copy_from_slice(&sample(image, at));
    }
    Some(crop)
}

/// Bits of the weights.
const BITS: i32 = 8;

/// The bilinear sample of `image` at a point; what lies outside counts as black.
pub(super) fn sample(image: &impl Picture, [x, y]: Point) -> [u8; 3] {
    let (Some((left, fx)), Some((top, fy))) = (split(x, image.width()), split(y, image.height()))
    else {
        return [0; 3];
    };
    let [p, q, r, s] = image.square_or_black(left, top);
    let (upper, lower) = (mix(p, q, fx), mix(r, s, fx));
    let half = 1 << (2 * BITS - 1);
    std::array::from_fn(|c| {
        let sum = (upper[c] << BITS) + (lower[c] - upper[c]) * fy + half;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a mean of bytes"
        )]
        {
            (sum >> (2 * BITS)) as u8
        }
    })
}

fn mix(p: [u8; 3], q: [u8; 3], share: i32) -> [i32; 3] {
    std::array::from_fn(|c| {
        let (p, q) = (i32::from(p[c]), i32::from(q[c]));
        (p << BITS) + (q - p) * share
    })
}

/// The pixel before `at` and the share of the next; `None` where a side of `side` pixels has
/// nothing near. Truncation of a positive number stands for rounding down, which is slow on plain
/// x86-64.
#[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "below 65,536")]
fn split(at: f32, side: usize) -> Option<(i32, i32)> {
    let near = at > -1.0 && at < side as f32;
    let share = || ((at + 1.0) * (1 << BITS) as f32) as i32;
    near.then(share).map(|fixed| ((fixed >> BITS) - 1, fixed & ((1 << BITS) - 1)))
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
    fn between_pixels_the_mean_is_taken_and_outside_is_black() {
        let image = ramp();
        assert_eq!(sample(&image, [10.5, 20.0]), [11, 20, 200]);
        assert_eq!(sample(&image, [-0.5, 50.0]), [0, 25, 100]);
        assert_eq!(sample(&image, [-3e9, 5e12]), [0, 0, 0]);
    }
}
