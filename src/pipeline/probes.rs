//! Drawn faces, on which providers are compared with the reference at start.
//!
//! No photo can be built in: a face is somebody's. A drawing with the parts of a face where the
//! alignment puts them drives the recogniser's layers the way photos do: the drawings' embeddings
//! differ from each other, and a provider of lower precision moves them as far as those of photos
//! (a test checks both).

use super::frame::{CROP, CROP_BYTES};

/// How many there are.
pub(super) const COUNT: usize = 8;

/// The drawn crops, 112 x 112 RGB, always the same.
pub(super) fn crops() -> Vec<Vec<u8>> {
    (0..COUNT as u64).map(draw).collect()
}

/// SplitMix64 (Steele et al., 2014), as floats in 0..1.
struct Random(u64);

impl Random {
    #[expect(clippy::cast_precision_loss, reason = "24 bits fit")]
    fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 40) as f32 / (1 << 24) as f32
    }

    fn within(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.next()
    }
}

/// A soft-edged ellipse of one colour.
struct Blob {
    centre: [f32; 2],
    radius: [f32; 2],
    colour: [f32; 3],
}

impl Blob {
    /// How much of the pixel it covers, 0 to 1.
    fn cover(&self, x: f32, y: f32) -> f32 {
        let reach =
            ((x - self.centre[0]) / self.radius[0]).hypot((y - self.centre[1]) / self.radius[1]);
        let softness = 2.0 / self.radius[0].min(self.radius[1]);
        ((1.0 + softness - reach) / (2.0 * softness)).clamp(0.0, 1.0)
    }
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "coordinates below 112, colours clamped to bytes"
)]
fn draw(seed: u64) -> Vec<u8> {
    let mut random = Random(seed);
    let back = random.within(30.0, 200.0);
    let light = random.within(-0.5, 0.5);
    let blobs = parts(&mut random);
    let mut crop = Vec::with_capacity(CROP_BYTES);
    for i in 0..CROP * CROP {
        let (x, y) = ((i % CROP) as f32, (i / CROP) as f32);
        let shade = 1.0 + light * (x / CROP as f32 - 0.5);
        let pixel = blobs.iter().fold([back; 3], |under, blob| {
            let cover = blob.cover(x, y);
            std::array::from_fn(|c| under[c] + (blob.colour[c] - under[c]) * cover)
        });
        crop.extend(pixel.map(|value| (value * shade).clamp(0.0, 255.0) as u8));
    }
    crop
}

/// Hair, head, brows, eyes, irises, nose and mouth, back to front.
fn parts(random: &mut Random) -> Vec<Blob> {
    let tone = random.within(90.0, 220.0);
    let skin = [tone, tone * random.within(0.72, 0.85), tone * random.within(0.55, 0.75)];
    let hair = random.within(15.0, 120.0);
    let (wide, long) = (random.within(38.0, 50.0), random.within(52.0, 64.0));
    let mut blobs = vec![
        blob([56.0, 40.0], [wide + 9.0, long], [hair, hair * 0.8, hair * 0.6]),
        blob([56.0, random.within(60.0, 68.0)], [wide, long], skin),
    ];
    let (brow, open, iris) =
        (random.within(9.0, 15.0), random.within(2.5, 5.0), random.within(20.0, 110.0));
    for x in [38.3, 73.5] {
        blobs.push(blob([x, 51.6 - brow], [random.within(8.0, 12.0), 2.0], [hair; 3]));
        blobs.push(blob([x, 51.6], [8.0, open], [235.0; 3]));
        blobs.push(blob([x, 51.6], [open, open], [iris, iris * 0.8, iris * 0.6]));
    }
    let nose = skin.map(|c| c * random.within(0.7, 0.9));
    blobs.push(blob([56.0, 71.7], [random.within(5.0, 9.0), random.within(3.0, 6.0)], nose));
    let lips = [tone * 0.8, tone * 0.4, tone * 0.4];
    blobs.push(blob([56.0, 92.3], [random.within(12.0, 18.0), random.within(2.5, 6.0)], lips));
    blobs
}

fn blob(centre: [f32; 2], radius: [f32; 2], colour: [f32; 3]) -> Blob {
    Blob { centre, radius, colour }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drawings_are_whole_crops_that_differ() {
        let crops = crops();
        assert!(crops.iter().all(|crop| crop.len() == CROP_BYTES));
        assert_eq!(crops, super::crops());
        assert!((1..COUNT).all(|i| crops[i] != crops[0]));
    }
}
