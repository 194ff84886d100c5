//! JPEG: baseline and progressive, grey, YCbCr, RGB, CMYK and YCCK.

use zune_core::bytestream::ZCursor;
use zune_core::colorspace::ColorSpace;
use zune_core::options::DecoderOptions;
use zune_jpeg::JpegDecoder;
use zune_jpeg::errors::DecodeErrors;

use super::{DecodeError, Image, check_size, orientation};

/// Most scans of a picture. Encoders write up to about ten; each may cost a pass over all
/// coefficients, which is what a "scan bomb" of a few kilobytes lives on.
const SCANS: usize = 32;
/// Largest side that the format can state.
const SIDE: usize = 65_535;
const END_OF_IMAGE: u8 = 0xD9;
const START_OF_SCAN: u8 = 0xDA;

pub(super) fn decode(bytes: &[u8], limit: u64) -> Result<Image, DecodeError> {
    let options = DecoderOptions::default()
        .jpeg_set_out_colorspace(ColorSpace::RGB)
        .jpeg_set_max_scans(SCANS)
        .set_max_width(SIDE)
        .set_max_height(SIDE);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    decoder.decode_headers().map_err(malformed)?;
    let (width, height) = decoder.dimensions().ok_or(DecodeError::Truncated)?;
    check_size(width as u64, height as u64, limit)?;
    check_scans(bytes)?;
    let mut image = Image::black(width, height);
    decoder.decode_into(image.rgb_mut()).map_err(malformed)?;
    let turn = decoder.exif().map_or(1, |exif| orientation::of(exif));
    Ok(orientation::upright(image, turn))
}

/// Checks the compressed part, in which markers cannot occur by chance.
///
/// The decoder fills a picture that ends early with grey; a gate must not decide on that. And it
/// bounds the scans of progressive pictures only.
fn check_scans(bytes: &[u8]) -> Result<(), DecodeError> {
    let first = first_scan(bytes).ok_or(DecodeError::Truncated)?;
    let count = |marker| bytes[first..].windows(2).filter(|pair| *pair == [0xFF, marker]).count();
    if count(START_OF_SCAN) > SCANS {
        let reason = format!("more than {SCANS} scans");
        return Err(DecodeError::Malformed { format: "JPEG", reason });
    }
    if count(END_OF_IMAGE) == 0 { Err(DecodeError::Truncated) } else { Ok(()) }
}

/// Offset of the first scan: the segments before it state their lengths. (A thumbnail inside one
/// of them has its own end marker, so the search must begin behind them.)
fn first_scan(bytes: &[u8]) -> Option<usize> {
    let mut at = 2;
    loop {
        let marker = *bytes.get(at + 1)?;
        if bytes[at] != 0xFF || marker == 0xFF || marker == 0 {
            at += 1;
        } else if marker == START_OF_SCAN {
            return Some(at);
        } else {
            let length = u16::from_be_bytes([*bytes.get(at + 2)?, *bytes.get(at + 3)?]);
            at += 2 + usize::from(length);
        }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err wants")]
fn malformed(error: DecodeErrors) -> DecodeError {
    // `ExhaustedData` and input errors both mean that the bytes ran out.
    if matches!(error, DecodeErrors::ExhaustedData | DecodeErrors::IoErrors(_)) {
        return DecodeError::Truncated;
    }
    DecodeError::Malformed { format: "JPEG", reason: format!("{error:?}") }
}
