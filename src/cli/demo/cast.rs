//! Who plays in the demo: faces of the three photos that come with the research models.

use std::path::Path;

use zune_jpeg::JpegDecoder;

use super::super::exit::{Exit, Failure};
use super::super::files::read;
use crate::service::proto;

/// A rectangle of a photo that shows one face: x, y, width, height in pixels.
type Crop = (usize, usize, usize, usize);

/// One appearance of a person.
#[derive(Debug, Clone, Copy)]
pub(super) struct Appearance {
    photo: &'static str,
    crop: Option<Crop>,
    /// Added to every sample, to make a changed copy.
    brighter: i16,
}

const fn whole(photo: &'static str) -> Appearance {
    Appearance { photo, crop: None, brighter: 0 }
}

const fn part(photo: &'static str, crop: Crop, brighter: i16) -> Appearance {
    Appearance { photo, crop: Some(crop), brighter }
}

/// A basketball player, alone.
pub(super) const PORTRAIT: Appearance = whole("yaoming.jpg");
/// The same man in a team photo of another day.
pub(super) const PORTRAIT_ELSEWHERE: Appearance = part("players.jpg", (680, 90, 130, 160), 0);
/// A man at the left of a group.
pub(super) const LEFT: Appearance = part("gdp.jpg", (60, 0, 190, 200), 0);
/// The same man, cut out differently and brighter.
pub(super) const LEFT_AGAIN: Appearance = part("gdp.jpg", (80, 10, 160, 170), 25);
/// A man at the right of the group.
pub(super) const RIGHT: Appearance = part("gdp.jpg", (330, 80, 160, 200), 0);
/// The same man, cut out differently and darker.
pub(super) const RIGHT_AGAIN: Appearance = part("gdp.jpg", (334, 70, 150, 180), -20);
/// Two of the team whom nobody enrolled.
pub(super) const STRANGERS: [Appearance; 2] =
    [part("players.jpg", (290, 380, 120, 140), 0), part("players.jpg", (835, 390, 120, 140), 0)];

impl Appearance {
    /// The whole photo as its JPEG file, or the part of it as a raw frame.
    pub(super) fn frame(self, photos: &Path) -> Result<Frame, Failure> {
        let data = read(&photos.join(self.photo))?;
        let Some(crop) = self.crop else {
            return Ok(Frame::Encoded(proto::EncodedFrame { data }));
        };
        let (pixels, width) = decode(&data)
            .ok_or_else(|| Failure::new(Exit::Internal, format!("{} is not a JPEG", self.photo)))?;
        Ok(Frame::Raw(cut(&pixels, width, crop, self.brighter)))
    }
}

/// One face on its way to the service.
#[derive(Debug, Clone)]
pub(super) enum Frame {
    Encoded(proto::EncodedFrame),
    Raw(proto::RawFrame),
}

impl From<Frame> for proto::Probe {
    fn from(frame: Frame) -> Self {
        use proto::probe::Form;
        let form = match frame {
            Frame::Encoded(frame) => Form::Encoded(frame),
            Frame::Raw(frame) => Form::Raw(frame),
        };
        Self { form: Some(form) }
    }
}

impl From<Frame> for proto::verify_request::Probe {
    fn from(frame: Frame) -> Self {
        match frame {
            Frame::Encoded(frame) => Self::Encoded(frame),
            Frame::Raw(frame) => Self::Raw(frame),
        }
    }
}

/// RGB8 and the width.
fn decode(jpeg: &[u8]) -> Option<(Vec<u8>, usize)> {
    let mut decoder = JpegDecoder::new(std::io::Cursor::new(jpeg));
    let pixels = decoder.decode().ok()?;
    Some((pixels, decoder.dimensions()?.0))
}

fn cut(pixels: &[u8], photo_width: usize, crop: Crop, brighter: i16) -> proto::RawFrame {
    let (x, y, width, height) = crop;
    let rows = pixels.chunks_exact(photo_width * 3).skip(y).take(height);
    let data = rows
        .flat_map(|row| &row[x * 3..(x + width) * 3])
        .map(|sample| u8::try_from((i16::from(*sample) + brighter).clamp(0, 255)).unwrap_or(0))
        .collect();
    proto::RawFrame {
        data,
        format: proto::PixelFormat::Rgb8.into(),
        width: u32::try_from(width).unwrap_or(0),
        height: u32::try_from(height).unwrap_or(0),
        stride: 0,
    }
}
