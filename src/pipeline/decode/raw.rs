//! Raw frames -> RGB. NV12 and I420 are BT.601 in limited range: what cameras and V4L2 deliver.

use super::super::frame::{Image, PixelFormat, RawFrame};
use super::{DecodeError, check_size};

/// Where each plane of a frame lies, bytes.
struct Layout {
    width: usize,
    height: usize,
    stride: usize,
    /// Bytes from one chroma row to the next; 0 without chroma planes.
    chroma_stride: usize,
}

impl Layout {
    fn of(frame: &RawFrame) -> Result<Self, DecodeError> {
        let (width, height) = (frame.width as usize, frame.height as usize);
        let (row, subsampled) = match frame.format {
            PixelFormat::Rgb8 | PixelFormat::Bgr8 => (width * 3, false),
            PixelFormat::Gray8 => (width, false),
            PixelFormat::Nv12 | PixelFormat::I420 => (width, true),
        };
        if subsampled && (width % 2 == 1 || height % 2 == 1) {
            return Err(DecodeError::OddSize { width: frame.width, height: frame.height });
        }
        let stride = if frame.stride == 0 { row } else { frame.stride as usize };
        if stride < row {
            return Err(DecodeError::Stride { stride, row });
        }
        let chroma_stride = match frame.format {
            PixelFormat::Nv12 => stride,
            PixelFormat::I420 => stride.div_ceil(2),
            PixelFormat::Rgb8 | PixelFormat::Bgr8 | PixelFormat::Gray8 => 0,
        };
        Ok(Self { width, height, stride, chroma_stride })
    }

    /// Bytes of all planes.
    fn bytes(&self, format: PixelFormat) -> usize {
        let planes = usize::from(format == PixelFormat::I420) + 1;
        self.stride * self.height + planes * self.chroma_stride * (self.height / 2)
    }
}

pub(super) fn convert(frame: &RawFrame, limit: u64) -> Result<Image, DecodeError> {
    check_size(frame.width.into(), frame.height.into(), limit)?;
    let layout = Layout::of(frame)?;
    let needed = layout.bytes(frame.format);
    if frame.data.len() < needed {
        return Err(DecodeError::TooShort { needed, actual: frame.data.len() });
    }
    let mut image = Image::black(layout.width, layout.height);
    for (y, row) in image.rgb_mut().chunks_exact_mut(layout.width * 3).enumerate() {
        fill_row(frame, &layout, y, row);
    }
    Ok(image)
}

/// Writes row `y` of `frame` as RGB.
fn fill_row(frame: &RawFrame, layout: &Layout, y: usize, row: &mut [u8]) {
    let source = &frame.data[y * layout.stride..];
    let pixels = row.chunks_exact_mut(3);
    match frame.format {
        PixelFormat::Rgb8 => row.copy_from_slice(&source[..layout.width * 3]),
        PixelFormat::Bgr8 => pixels
            .zip(source.chunks_exact(3))
            .for_each(|(p, s)| p.copy_from_slice(&[s[2], s[1], s[0]])),
        PixelFormat::Gray8 => pixels.zip(source).for_each(|(p, s)| p.fill(*s)),
        PixelFormat::Nv12 | PixelFormat::I420 => {
            let chroma = Chroma::of(frame, layout, y / 2);
            for (x, (pixel, luma)) in pixels.zip(source).enumerate() {
                pixel.copy_from_slice(&bt601(*luma, chroma.u(x / 2), chroma.v(x / 2)));
            }
        }
    }
}

/// One row of both chroma planes.
struct Chroma<'a> {
    u: &'a [u8],
    v: &'a [u8],
    /// Samples from one pixel pair to the next.
    step: usize,
}

impl<'a> Chroma<'a> {
    fn of(frame: &'a RawFrame, layout: &Layout, row: usize) -> Self {
        let planes = &frame.data[layout.stride * layout.height..];
        let u = &planes[row * layout.chroma_stride..];
        if frame.format == PixelFormat::Nv12 {
            return Self { u, v: &u[1..], step: 2 };
        }
        let v = &planes[layout.chroma_stride * (layout.height / 2 + row)..];
        Self { u, v, step: 1 }
    }

    fn u(&self, x: usize) -> i32 {
        i32::from(self.u[x * self.step])
    }

    fn v(&self, x: usize) -> i32 {
        i32::from(self.v[x * self.step])
    }
}

/// ITU-R BT.601, limited range, in 20-bit fixed point (OpenCV's constants).
fn bt601(luma: u8, u: i32, v: i32) -> [u8; 3] {
    const SHIFT: i32 = 20;
    const HALF: i32 = 1 << (SHIFT - 1);
    let y = (i32::from(luma) - 16).max(0) * 1_220_542;
    let (u, v) = (u - 128, v - 128);
    #[expect(clippy::cast_sign_loss, reason = "clamped")]
    let channel = |sum: i32| ((y + sum + HALF) >> SHIFT).clamp(0, 255) as u8;
    [channel(1_673_527 * v), channel(-852_492 * v - 409_993 * u), channel(2_116_026 * u)]
}
