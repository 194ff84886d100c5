//! Raw frames -> RGB. NV12 and I420 are BT.601 in limited range: what cameras and V4L2 deliver.

use super::super::frame::{Picture, PixelFormat, RawFrame};
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

/// A raw frame whose size was checked, as RGB where it is looked at.
pub(in super::super) struct View<'a> {
    frame: &'a RawFrame,
    layout: Layout,
}

impl<'a> View<'a> {
    /// Of a frame of at most `limit` pixels.
    pub(super) fn of(frame: &'a RawFrame, limit: u64) -> Result<Self, DecodeError> {
        check_size(frame.width.into(), frame.height.into(), limit)?;
        let layout = Layout::of(frame)?;
        let needed = layout.bytes(frame.format);
        if frame.data.len() < needed {
            return Err(DecodeError::TooShort { needed, actual: frame.data.len() });
        }
        Ok(Self { frame, layout })
    }

    /// The first plane from row `y` on.
    fn plane(&self, y: usize) -> &[u8] {
        &self.frame.data[y * self.layout.stride..]
    }
}

impl Picture for View<'_> {
    fn width(&self) -> usize {
        self.layout.width
    }

    fn height(&self) -> usize {
        self.layout.height
    }

    fn row<'a>(&'a self, y: usize, scratch: &'a mut [u8]) -> &'a [u8] {
        let (source, width) = (self.plane(y), self.layout.width);
        let out = &mut scratch[..width * 3];
        let pixels = out.as_chunks_mut::<3>().0.iter_mut();
        match self.frame.format {
            PixelFormat::Rgb8 => return &source[..width * 3],
            PixelFormat::Bgr8 => {
                let samples = source.as_chunks::<3>().0;
                pixels.zip(samples).for_each(|(p, [b, g, r])| *p = [*r, *g, *b]);
            }
            PixelFormat::Gray8 => pixels.zip(source).for_each(|(p, luma)| *p = [*luma; 3]),
            PixelFormat::Nv12 | PixelFormat::I420 => {
                let chroma = Chroma::of(self.frame, &self.layout, y / 2);
                for (x, (pixel, luma)) in pixels.zip(source).enumerate() {
                    *pixel = bt601(*luma, chroma.u(x / 2), chroma.v(x / 2));
                }
            }
        }
        out
    }

    fn pixel(&self, x: usize, y: usize) -> [u8; 3] {
        let source = self.plane(y);
        match self.frame.format {
            PixelFormat::Rgb8 => source.as_chunks().0[x],
            PixelFormat::Bgr8 => {
                let [blue, green, red] = source.as_chunks().0[x];
                [red, green, blue]
            }
            PixelFormat::Gray8 => [source[x]; 3],
            PixelFormat::Nv12 | PixelFormat::I420 => {
                let chroma = Chroma::of(self.frame, &self.layout, y / 2);
                bt601(source[x], chroma.u(x / 2), chroma.v(x / 2))
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
