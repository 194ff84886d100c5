//! PNG: grey, colour, palette, with or without alpha (which is dropped), 1 to 16 bits, interlaced
//! or not; the first frame of an animation.

use std::io::{Cursor, ErrorKind};

use png::{ColorType, Decoder, DecodingError, Limits, Transformations};

use super::super::wiped::Wiped;
use super::{DecodeError, Image, check_size, orientation};

/// Memory for one row and the ancillary chunks, bytes; the picture's own buffer is apart and
/// bounded by the pixel limit.
const WORKING_BYTES: usize = 16 << 20;

pub(super) fn decode(bytes: &[u8], limit: u64) -> Result<Image, DecodeError> {
    let limits = Limits { bytes: WORKING_BYTES };
    let mut decoder = Decoder::new_with_limits(Cursor::new(bytes), limits);
    // Compressed text and colour profiles are of no use here and may be bombs.
    decoder.set_ignore_text_chunk(true);
    decoder.set_ignore_iccp_chunk(true);
    decoder.set_transformations(Transformations::normalize_to_color8());
    let header = decoder.read_header_info().map_err(malformed)?;
    let (width, height) = header.size();
    check_size(width.into(), height.into(), limit)?;
    let mut reader = decoder.read_info().map_err(malformed)?;
    let size = reader.output_buffer_size().ok_or(DecodeError::Truncated)?;
    let mut samples = Wiped::zeros(size);
    let frame = reader.next_frame(&mut samples).map_err(malformed)?;
    let turn = reader.info().exif_metadata.as_deref().map_or(1, orientation::of);
    let mut image = Image::black(frame.width as usize, frame.height as usize);
    to_rgb(&samples, frame.color_type, &mut image);
    Ok(orientation::upright(image, turn))
}

fn to_rgb(samples: &[u8], color: ColorType, image: &mut Image) {
    let pixels = image.rgb_mut().chunks_exact_mut(3);
    match color {
        ColorType::Rgb => {
            pixels.zip(samples.chunks_exact(3)).for_each(|(p, s)| p.copy_from_slice(s));
        }
        ColorType::Rgba => {
            pixels.zip(samples.chunks_exact(4)).for_each(|(p, s)| p.copy_from_slice(&s[..3]));
        }
        ColorType::GrayscaleAlpha => {
            pixels.zip(samples.chunks_exact(2)).for_each(|(p, s)| p.fill(s[0]));
        }
        // The transformation above has turned palettes into RGB.
        ColorType::Grayscale | ColorType::Indexed => {
            pixels.zip(samples).for_each(|(p, s)| p.fill(*s));
        }
    }
}

fn malformed(error: DecodingError) -> DecodeError {
    match error {
        DecodingError::IoError(io) if io.kind() == ErrorKind::UnexpectedEof => {
            DecodeError::Truncated
        }
        DecodingError::IoError(_)
        | DecodingError::Format(_)
        | DecodingError::Parameter(_)
        | DecodingError::LimitsExceeded => {
            DecodeError::Malformed { format: "PNG", reason: error.to_string() }
        }
    }
}
