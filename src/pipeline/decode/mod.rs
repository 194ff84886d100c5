//! Bytes from outside -> [`Image`].
//!
//! # Invariants
//! - The pixel limit is checked against the header before anything of the picture's size is
//!   allocated, and against the sizes that are stated, not those that arrive.
//! - Nothing that arrives makes a decoder panic this process: a panic inside a decoding library is
//!   caught here and is a malformed picture like any other.
//!
//! # Not here
//! Wiping what the decoding libraries keep for themselves: rows and coefficients on the heap by the
//! program's allocator when they are freed, tables and blocks on the stack by the worker's scrub.

mod jpeg;
mod orientation;
mod png;
mod raw;
#[cfg(test)]
mod tests;

use std::panic::{AssertUnwindSafe, catch_unwind};

use thiserror::Error;

use super::frame::{Image, RawFrame};
pub(super) use raw::View as RawView;

const JPEG_MAGIC: [u8; 3] = [0xFF, 0xD8, 0xFF];
const PNG_MAGIC: [u8; 8] = *b"\x89PNG\r\n\x1a\n";

/// Why a frame is no picture.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// No bytes, or no pixels.
    #[error("the frame is empty")]
    Empty,
    /// Neither JPEG nor PNG.
    #[error("the frame is neither JPEG nor PNG")]
    UnknownFormat,
    /// More pixels than allowed; refused from the header alone.
    #[error("the frame has {width} x {height} pixels, more than the limit of {limit}")]
    TooManyPixels {
        /// Width in the header, pixels.
        width: u64,
        /// Height in the header, pixels.
        height: u64,
        /// The limit, pixels.
        limit: u64,
    },
    /// A side longer than any camera's.
    #[error("a side of {width} x {height} pixels is longer than the limit of {LONGEST_SIDE}")]
    TooLong {
        /// Width, pixels.
        width: u64,
        /// Height, pixels.
        height: u64,
    },
    /// The picture ends early.
    #[error("the frame is cut short")]
    Truncated,
    /// The file breaks its format's rules.
    #[error("the {format} is malformed: {reason}")]
    Malformed {
        /// "JPEG" or "PNG".
        format: &'static str,
        /// The decoding library's words.
        reason: String,
    },
    /// A raw frame has too few bytes for its size.
    #[error("the raw frame has {actual} bytes, its size needs {needed}")]
    TooShort {
        /// Bytes needed.
        needed: usize,
        /// Bytes given.
        actual: usize,
    },
    /// A raw frame's stride is below its row length.
    #[error("a stride of {stride} bytes is too small for rows of {row} bytes")]
    Stride {
        /// The stride given, bytes.
        stride: usize,
        /// Bytes of one row.
        row: usize,
    },
    /// NV12 and I420 need even sizes.
    #[error("{width} x {height} pixels: width and height of a subsampled frame must be even")]
    OddSize {
        /// Width, pixels.
        width: u32,
        /// Height, pixels.
        height: u32,
    },
    /// An aligned crop of another size.
    #[error("an aligned face has {needed} bytes (112 x 112 RGB), this one has {actual}")]
    AlignedSize {
        /// Bytes needed.
        needed: usize,
        /// Bytes given.
        actual: usize,
    },
}

/// Decodes a JPEG or PNG of at most `limit` pixels, upright.
pub(super) fn encoded(bytes: &[u8], limit: u64) -> Result<Image, DecodeError> {
    if bytes.starts_with(&JPEG_MAGIC) {
        contained("JPEG", || jpeg::decode(bytes, limit))
    } else if bytes.starts_with(&PNG_MAGIC) {
        contained("PNG", || png::decode(bytes, limit))
    } else if bytes.is_empty() {
        Err(DecodeError::Empty)
    } else {
        Err(DecodeError::UnknownFormat)
    }
}

/// Runs a decoding library so that its panic is a malformed picture.
fn contained(
    format: &'static str,
    decode: impl FnOnce() -> Result<Image, DecodeError>,
) -> Result<Image, DecodeError> {
    catch_unwind(AssertUnwindSafe(decode)).unwrap_or_else(|_panic| {
        Err(DecodeError::Malformed { format, reason: "the decoder gave up".into() })
    })
}

/// Looks at a raw frame of at most `limit` pixels, without converting it.
pub(super) fn raw(frame: &RawFrame, limit: u64) -> Result<RawView<'_>, DecodeError> {
    RawView::of(frame, limit)
}

/// Longest side, pixels: what JPEG can write, and what the geometry's `f32` holds exactly.
const LONGEST_SIDE: u64 = 65_535;

/// Checks a picture's stated size.
fn check_size(width: u64, height: u64, limit: u64) -> Result<(), DecodeError> {
    if width.max(height) > LONGEST_SIDE {
        return Err(DecodeError::TooLong { width, height });
    }
    match width.checked_mul(height) {
        Some(0) => Err(DecodeError::Empty),
        Some(pixels) if pixels <= limit => Ok(()),
        _ => Err(DecodeError::TooManyPixels { width, height, limit }),
    }
}
