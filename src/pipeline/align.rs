//! Alignment: the similarity that brings five landmarks onto the ArcFace template, then bilinear
//! sampling of the frame (what cv2.warpAffine does, border black).

use zeroize::Zeroizing;

use super::frame::{CROP, CROP_BYTES, Image};
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
pub(super) fn crop(image: &Image, points: &Landmarks) -> Option<Zeroizing<Vec<u8>>> {
    let to_frame = Similarity::between(points, &TEMPLATE)?.inverse();
    let mut crop = Zeroizing::new(Vec::with_capacity(CROP_BYTES));
    for y in 0..CROP {
        for x in 0..CROP {
            #[expect(clippy::cast_precision_loss, reason = "below 112")]
            let at = to_frame.apply([x as f32, y as f32]);
            crop.extend_from_slice(&sample(image, at));
        }
    }
    Some(crop)
}

/// The bilinear sample of `image` at a point; what lies outside counts as black.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a mean of bytes is a byte; far-off coordinates saturate and stay outside"
)]
fn sample(image: &Image, [x, y]: Point) -> [u8; 3] {
    let (left, top) = (x.floor(), y.floor());
    let (fx, fy) = (x - left, y - top);
    let (left, top) = (left as i32, top as i32);
    let corners = [
        (pixel(image, left, top), (1.0 - fx) * (1.0 - fy)),
        (pixel(image, left.saturating_add(1), top), fx * (1.0 - fy)),
        (pixel(image, left, top.saturating_add(1)), (1.0 - fx) * fy),
        (pixel(image, left.saturating_add(1), top.saturating_add(1)), fx * fy),
    ];
    std::array::from_fn(|channel| {
        let sum: f32 = corners.iter().map(|(rgb, weight)| f32::from(rgb[channel]) * weight).sum();
        (sum + 0.5) as u8
    })
}

fn pixel(image: &Image, x: i32, y: i32) -> [u8; 3] {
    let (Ok(x), Ok(y)) = (usize::try_from(x), usize::try_from(y)) else { return [0; 3] };
    if x >= image.width() || y >= image.height() {
        return [0; 3];
    }
    let rgb = &image.row(y)[x * 3..x * 3 + 3];
    [rgb[0], rgb[1], rgb[2]]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ramp() -> Image {
        let mut image = Image::black(CROP, CROP);
        for (i, p) in image.rgb_mut().chunks_exact_mut(3).enumerate() {
            p.copy_from_slice(&[(i % CROP) as u8, (i / CROP) as u8, 200]);
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
