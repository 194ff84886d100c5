//! EXIF orientation (Exif 2.3, tag 0x0112): 1 is upright, 2 to 8 are turned or mirrored.

use exif::{In, Reader, Tag};

use super::super::frame::Picture;
use super::Image;

/// The orientation that `exif` (a TIFF structure) states; 1 where it states none that is valid.
pub(super) fn of(exif: &[u8]) -> u32 {
    let value = Reader::new().read_raw(exif.to_vec()).ok().and_then(|parsed| {
        parsed.get_field(Tag::Orientation, In::PRIMARY).and_then(|field| field.value.get_uint(0))
    });
    value.filter(|turn| (1..=8).contains(turn)).unwrap_or(1)
}

/// Turns and mirrors `image` so that it is upright.
pub(super) fn upright(image: Image, turn: u32) -> Image {
    if !(2..=8).contains(&turn) {
        return image;
    }
    let (w, h) = (image.width(), image.height());
    let (out_w, out_h) = if turn >= 5 { (h, w) } else { (w, h) };
    let mut out = Image::black(out_w, out_h);
    for (i, pixel) in out.rgb_mut().chunks_exact_mut(3).enumerate() {
        let (x, y) = source(turn, i % out_w, i / out_w, w, h);
        pixel.copy_from_slice(&image.pixel(x, y));
    }
    out
}

/// Where pixel (x, y) of the upright picture lies in the stored one of `w` x `h` pixels.
fn source(turn: u32, x: usize, y: usize, w: usize, h: usize) -> (usize, usize) {
    match turn {
        2 => (w - 1 - x, y),
        3 => (w - 1 - x, h - 1 - y),
        4 => (x, h - 1 - y),
        5 => (y, x),
        6 => (y, h - 1 - x),
        7 => (w - 1 - y, h - 1 - x),
        8 => (w - 1 - y, x),
        _ => (x, y),
    }
}
