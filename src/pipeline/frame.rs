//! What callers hand in, and what the stages see of it.
//!
//! # Invariants
//! - Every buffer that held a picture is zeroised when dropped.
//! - An [`Image`] always holds exactly `width` x `height` x 3 bytes.

use zeroize::Zeroizing;

use super::wiped::Wiped;

/// Side of an aligned crop, pixels.
pub(super) const CROP: usize = 112;
/// Bytes of an aligned crop: [`CROP`] x [`CROP`] RGB.
pub(super) const CROP_BYTES: usize = CROP * CROP * 3;

/// One face in the form in which a caller has it. Zeroised when dropped.
pub enum Frame {
    /// The bytes of a JPEG or PNG file; the EXIF orientation is applied.
    Encoded(Zeroizing<Vec<u8>>),
    /// Samples without a file around them.
    Raw(RawFrame),
    /// A face aligned to the ArcFace template: 112 x 112 RGB, top row first, 37,632 bytes. It
    /// skips detection.
    Aligned(Zeroizing<Vec<u8>>),
}

impl std::fmt::Debug for Frame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Encoded(_) => "Frame::Encoded",
            Self::Raw(_) => "Frame::Raw",
            Self::Aligned(_) => "Frame::Aligned",
        })
    }
}

/// An unencoded picture, top row first.
pub struct RawFrame {
    /// Layout of `data`.
    pub format: PixelFormat,
    /// Width in pixels, 1 to 65,535; even for NV12 and I420.
    pub width: u32,
    /// Height in pixels, 1 to 65,535; even for NV12 and I420.
    pub height: u32,
    /// Bytes from one row to the next; 0 means tightly packed. The chroma rows of I420 are half of
    /// it apart, rounded up.
    pub stride: u32,
    /// The samples: `stride` x `height` bytes and, behind them, the chroma planes.
    pub data: Zeroizing<Vec<u8>>,
}

/// Layout of the samples of a [`RawFrame`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PixelFormat {
    /// Red, green, blue.
    Rgb8,
    /// Blue, green, red.
    Bgr8,
    /// Luma.
    Gray8,
    /// A Y plane, then a half-size plane of interleaved U, V (BT.601, limited range).
    Nv12,
    /// A Y plane, then half-size U and V planes (BT.601, limited range).
    I420,
}

/// What detection and alignment need of a picture: not all of it, so that a raw frame is converted
/// only where it is looked at.
pub(super) trait Picture {
    /// Pixels.
    fn width(&self) -> usize;

    /// Pixels.
    fn height(&self) -> usize;

    /// Row `y` as RGB: where it lies, or written into `scratch`, which holds a row.
    fn row<'a>(&'a self, y: usize, scratch: &'a mut [u8]) -> &'a [u8];

    /// The pixel at (x, y), which must lie inside.
    fn pixel(&self, x: usize, y: usize) -> [u8; 3];

    /// The pixels at (x, y), (x + 1, y), (x, y + 1) and (x + 1, y + 1), which must lie inside.
    fn square(&self, x: usize, y: usize) -> [[u8; 3]; 4] {
        [self.pixel(x, y), self.pixel(x + 1, y), self.pixel(x, y + 1), self.pixel(x + 1, y + 1)]
    }

    /// The same, black where outside.
    #[inline]
    fn square_or_black(&self, x: i32, y: i32) -> [[u8; 3]; 4] {
        let inside = |at: i32, side: usize| usize::try_from(at).ok().filter(|at| *at < side);
        let sides = (self.width(), self.height());
        if let (Some(_), Some(_)) = (inside(x + 1, sides.0), inside(y + 1, sides.1))
            && let (Ok(x), Ok(y)) = (usize::try_from(x), usize::try_from(y))
        {
            return self.square(x, y);
        }
        [(x, y), (x + 1, y), (x, y + 1), (x + 1, y + 1)].map(|(x, y)| {
            let at = inside(x, sides.0).zip(inside(y, sides.1));
            at.map(|(x, y)| self.pixel(x, y)).unwrap_or_default()
        })
    }
}

/// A decoded picture: `width` x `height` RGB, top row first, tightly packed.
pub(super) struct Image {
    width: usize,
    height: usize,
    rgb: Wiped<u8>,
}

impl Image {
    /// A black picture. The caller has checked the pixel limit.
    pub(super) fn black(width: usize, height: usize) -> Self {
        Self { width, height, rgb: Wiped::zeros(width * height * 3) }
    }

    /// All samples.
    #[cfg(test)]
    pub(super) fn rgb(&self) -> &[u8] {
        &self.rgb
    }

    pub(super) fn rgb_mut(&mut self) -> &mut [u8] {
        &mut self.rgb
    }
}

impl Picture for Image {
    fn width(&self) -> usize {
        self.width
    }

    fn height(&self) -> usize {
        self.height
    }

    fn row<'a>(&'a self, y: usize, _scratch: &'a mut [u8]) -> &'a [u8] {
        let bytes = self.width * 3;
        &self.rgb[y * bytes..(y + 1) * bytes]
    }

    #[inline]
    fn pixel(&self, x: usize, y: usize) -> [u8; 3] {
        self.rgb.as_chunks().0[y * self.width + x]
    }

    #[inline]
    fn square(&self, x: usize, y: usize) -> [[u8; 3]; 4] {
        let first = y * self.width + x;
        let pixels = &self.rgb.as_chunks().0[first..first + self.width + 2];
        [pixels[0], pixels[1], pixels[self.width], pixels[self.width + 1]]
    }
}
