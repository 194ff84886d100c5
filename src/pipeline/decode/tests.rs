//! What the decoders make of every form of picture, good and bad.

use proptest::prelude::*;

use super::super::frame::{Image, Picture, PixelFormat, RawFrame};
use super::super::goldens::models;
use super::*;

const LIMIT: u64 = 16_000_000;

fn jpeg() -> Vec<u8> {
    std::fs::read(models().join("research/photos/gdp.jpg")).unwrap()
}

fn png(
    width: u32,
    height: u32,
    color: ::png::ColorType,
    depth: ::png::BitDepth,
    data: &[u8],
) -> Vec<u8> {
    let mut out = Vec::new();
    let mut encoder = ::png::Encoder::new(&mut out, width, height);
    encoder.set_color(color);
    encoder.set_depth(depth);
    if color == ::png::ColorType::Indexed {
        encoder.set_palette(vec![9, 8, 7, 200, 100, 50]);
    }
    encoder.write_header().unwrap().write_image_data(data).unwrap();
    out
}

/// Puts an EXIF segment that states `turn` behind the start marker.
fn with_orientation(jpeg: &[u8], turn: u8) -> Vec<u8> {
    let tiff = [
        b"MM\0\x2A\0\0\0\x08".as_slice(),
        &[0, 1],
        &[0x01, 0x12, 0, 3, 0, 0, 0, 1, 0, turn, 0, 0],
        &[0, 0, 0, 0],
    ]
    .concat();
    let mut out = jpeg[..2].to_vec();
    out.extend([0xFF, 0xE1, 0, u8::try_from(tiff.len() + 8).unwrap()]);
    out.extend(b"Exif\0\0");
    out.extend(&tiff);
    out.extend(&jpeg[2..]);
    out
}

/// `image` as EXIF orientation `turn` stores it, by the definition of the standard: where the
/// stored first row and first column are seen.
fn seen(stored: &Image, turn: u8) -> Vec<[u8; 3]> {
    let (w, h) = (stored.width(), stored.height());
    let (out_w, out_h) = if turn >= 5 { (h, w) } else { (w, h) };
    let mut out = vec![[0; 3]; w * h];
    for y in 0..h {
        for x in 0..w {
            // (row, column) as seen of stored row y, column x.
            let (row, column) = match turn {
                1 => (y, x),
                2 => (y, out_w - 1 - x),
                3 => (out_h - 1 - y, out_w - 1 - x),
                4 => (out_h - 1 - y, x),
                5 => (x, y),
                6 => (x, out_w - 1 - y),
                7 => (out_h - 1 - x, out_w - 1 - y),
                _ => (out_h - 1 - x, y),
            };
            out[row * out_w + column] = stored.pixel(x, y);
        }
    }
    out
}

#[test]
fn each_exif_orientation_is_turned_upright() {
    let plain = encoded(&jpeg(), LIMIT).unwrap();
    for turn in 1..=8 {
        let image = encoded(&with_orientation(&jpeg(), turn), LIMIT).unwrap();
        let swapped = turn >= 5;
        assert_eq!((image.width() == plain.height()) && (image.height() == plain.width()), swapped);
        assert!(image.rgb() == seen(&plain, turn).as_flattened(), "orientation {turn}");
    }
}

#[test]
fn an_orientation_that_is_none_is_ignored() {
    for turn in [0, 9, 255] {
        let image = encoded(&with_orientation(&jpeg(), turn), LIMIT).unwrap();
        assert_eq!(image.width(), encoded(&jpeg(), LIMIT).unwrap().width());
    }
}

#[test]
fn every_kind_of_png_becomes_rgb() {
    use ::png::{BitDepth, ColorType};
    let cases: [(ColorType, BitDepth, &[u8], [u8; 6]); 8] = [
        (ColorType::Rgb, BitDepth::Eight, &[1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 6]),
        (ColorType::Rgba, BitDepth::Eight, &[1, 2, 3, 0, 4, 5, 6, 9], [1, 2, 3, 4, 5, 6]),
        (ColorType::Grayscale, BitDepth::Eight, &[7, 9], [7, 7, 7, 9, 9, 9]),
        (ColorType::GrayscaleAlpha, BitDepth::Eight, &[7, 0, 9, 1], [7, 7, 7, 9, 9, 9]),
        (ColorType::Indexed, BitDepth::Eight, &[1, 0], [200, 100, 50, 9, 8, 7]),
        (ColorType::Grayscale, BitDepth::One, &[0b0100_0000], [0, 0, 0, 255, 255, 255]),
        (ColorType::Grayscale, BitDepth::Sixteen, &[7, 200, 9, 1], [7, 7, 7, 9, 9, 9]),
        (
            ColorType::Rgb,
            BitDepth::Sixteen,
            &[1, 0, 2, 0, 3, 0, 4, 0, 5, 0, 6, 0],
            [1, 2, 3, 4, 5, 6],
        ),
    ];
    for (color, depth, data, rgb) in cases {
        let image = encoded(&png(2, 1, color, depth, data), LIMIT).unwrap();
        assert_eq!(image.rgb(), rgb, "{color:?} {depth:?}");
    }
}

#[test]
fn bombs_are_refused_from_the_header() {
    use ::png::{BitDepth, ColorType};
    let mut large = png(1, 1, ColorType::Grayscale, BitDepth::Eight, &[0]);
    large[16..24].copy_from_slice(&[0, 0, 0xEA, 0x60, 0, 0, 0xEA, 0x60]);
    let crc = crc32(&large[12..29]);
    large[29..33].copy_from_slice(&crc.to_be_bytes());
    let (width, height, limit) = (60_000, 60_000, LIMIT);
    assert_eq!(
        encoded(&large, LIMIT).err(),
        Some(DecodeError::TooManyPixels { width, height, limit })
    );
    let mut large = jpeg();
    let frame = large.windows(2).position(|pair| pair == [0xFF, 0xC0]).unwrap();
    large[frame + 5..frame + 9].fill(0xFF);
    let (width, height) = (65_535, 65_535);
    assert_eq!(
        encoded(&large, LIMIT).err(),
        Some(DecodeError::TooManyPixels { width, height, limit })
    );
}

/// The CRC of PNG chunks (ISO 3309).
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |c, _| {
            if c & 1 == 1 { (c >> 1) ^ 0xEDB8_8320 } else { c >> 1 }
        })
    })
}

#[test]
fn a_picture_that_ends_early_is_refused() {
    let whole = jpeg();
    for share in [1, 2, 3, 5, 9] {
        let cut = &whole[..whole.len() * share / 10];
        assert!(encoded(cut, LIMIT).is_err(), "{share} tenths of a JPEG");
    }
    assert_eq!(encoded(&whole[..whole.len() - 2], LIMIT).err(), Some(DecodeError::Truncated));
    let data = vec![128; 300 * 300];
    let whole = png(300, 300, ::png::ColorType::Grayscale, ::png::BitDepth::Eight, &data);
    assert!(encoded(&whole[..whole.len() / 2], LIMIT).is_err());
}

#[test]
fn what_is_no_picture_is_refused() {
    assert_eq!(encoded(&[], LIMIT).err(), Some(DecodeError::Empty));
    assert_eq!(encoded(b"GIF89a", LIMIT).err(), Some(DecodeError::UnknownFormat));
    assert!(encoded(&JPEG_MAGIC, LIMIT).is_err());
    assert!(encoded(&PNG_MAGIC, LIMIT).is_err());
}

fn frame(format: PixelFormat, width: u32, height: u32, stride: u32, data: Vec<u8>) -> RawFrame {
    RawFrame { format, width, height, stride, data: data.into() }
}

/// All of a raw frame as RGB, by rows and by pixels, which must agree.
fn rgb_of(frame: &RawFrame) -> Vec<u8> {
    let view = raw(frame, LIMIT).unwrap();
    let mut scratch = vec![0; view.width() * 3];
    let mut by_rows = Vec::new();
    let mut by_pixels = Vec::new();
    for y in 0..view.height() {
        by_rows.extend_from_slice(view.row(y, &mut scratch));
        (0..view.width()).for_each(|x| by_pixels.extend(view.pixel(x, y)));
    }
    assert_eq!(by_rows, by_pixels, "{:?}", frame.format);
    let last = i32::try_from(view.width()).unwrap() - 1;
    let (black, right) = ([0; 3], view.width() - 1);
    let below = |x| if view.height() > 1 { view.pixel(x, 1) } else { black };
    assert_eq!(view.square_or_black(last, 0), [view.pixel(right, 0), black, below(right), black]);
    assert_eq!(view.square_or_black(-1, -1), [black, black, black, view.pixel(0, 0)]);
    assert_eq!(view.square_or_black(0, -2), [black; 4]);
    if view.width() > 1 {
        let all = [view.pixel(0, 0), view.pixel(1, 0), below(0), below(1)];
        assert_eq!(view.square_or_black(0, 0), all);
    }
    by_rows
}

#[test]
fn packed_formats_agree_with_rgb() {
    let rgb = [10, 20, 30, 40, 50, 60];
    let padded = vec![10, 20, 30, 0, 40, 50, 60, 0];
    let bgr = vec![30, 20, 10, 60, 50, 40];
    let cases = [
        frame(PixelFormat::Rgb8, 1, 2, 0, rgb.to_vec()),
        frame(PixelFormat::Rgb8, 1, 2, 4, padded),
        frame(PixelFormat::Bgr8, 2, 1, 0, bgr),
    ];
    for case in cases {
        assert_eq!(rgb_of(&case), rgb, "{:?}", case.format);
    }
    let grey = frame(PixelFormat::Gray8, 2, 1, 7, vec![5, 6, 0, 0, 0, 0, 0]);
    assert_eq!(rgb_of(&grey), [5, 5, 5, 6, 6, 6]);
}

/// BT.601, limited range, in floats.
fn to_yuv([r, g, b]: [f32; 3]) -> [u8; 3] {
    [
        16.0 + (65.481 * r + 128.553 * g + 24.966 * b) / 255.0,
        128.0 + (-37.797 * r - 74.203 * g + 112.0 * b) / 255.0,
        128.0 + (112.0 * r - 93.786 * g - 18.214 * b) / 255.0,
    ]
    .map(|v| (0..=255_u8).min_by(|a, b| distance(*a, v).total_cmp(&distance(*b, v))).unwrap())
}

fn distance(sample: u8, wanted: f32) -> f32 {
    (f32::from(sample) - wanted).abs()
}

#[test]
fn subsampled_formats_agree_with_rgb_and_with_each_other() {
    for colour in [[0.0; 3], [255.0; 3], [200.0, 30.0, 90.0], [12.0, 240.0, 255.0]] {
        let [y, u, v] = to_yuv(colour);
        // 2 x 4 pixels, rows 4 bytes apart.
        let luma = [y, y, 0, 0].repeat(4);
        let nv12 = [luma.clone(), [u, v, 0, 0].repeat(2)].concat();
        let i420 = [luma, [u, 0].repeat(2), [v, 0].repeat(2)].concat();
        let nv12 = rgb_of(&frame(PixelFormat::Nv12, 2, 4, 4, nv12));
        let i420 = rgb_of(&frame(PixelFormat::I420, 2, 4, 4, i420));
        assert_eq!(nv12, i420);
        for (sample, wanted) in nv12.iter().zip(colour.iter().cycle()) {
            assert!(distance(*sample, *wanted) <= 2.0, "{sample} for {colour:?}");
        }
    }
}

#[test]
fn raw_frames_of_a_wrong_size_are_refused() {
    let fault = |format, width, height, stride, bytes: usize| {
        raw(&frame(format, width, height, stride, vec![0; bytes]), LIMIT).err().unwrap()
    };
    assert_eq!(fault(PixelFormat::Rgb8, 0, 5, 0, 9), DecodeError::Empty);
    assert_eq!(
        fault(PixelFormat::Rgb8, 2, 2, 0, 11),
        DecodeError::TooShort { needed: 12, actual: 11 }
    );
    assert_eq!(fault(PixelFormat::Rgb8, 2, 2, 5, 99), DecodeError::Stride { stride: 5, row: 6 });
    assert_eq!(fault(PixelFormat::Nv12, 3, 2, 0, 99), DecodeError::OddSize { width: 3, height: 2 });
    assert_eq!(
        fault(PixelFormat::I420, 2, 2, 0, 5),
        DecodeError::TooShort { needed: 6, actual: 5 }
    );
    let huge = fault(PixelFormat::Gray8, 65_535, 65_535, u32::MAX, 0);
    assert!(matches!(huge, DecodeError::TooManyPixels { .. }));
    let long = fault(PixelFormat::Gray8, u32::MAX, 1, u32::MAX, 0);
    assert!(matches!(long, DecodeError::TooLong { .. }));
    let wide = fault(PixelFormat::Gray8, 2, 2, u32::MAX, 8);
    assert!(matches!(wide, DecodeError::TooShort { .. }));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn a_damaged_picture_never_panics(
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12),
        cut in any::<prop::sample::Index>(),
        as_png in any::<bool>(),
    ) {
        let data: Vec<u8> = (0..40 * 40 * 3).map(|i| u8::try_from(i * 7 % 251).unwrap()).collect();
        let mut bytes = if as_png {
            png(40, 40, ::png::ColorType::Rgb, ::png::BitDepth::Eight, &data)
        } else {
            std::fs::read(models().join("research/photos/yaoming.jpg")).unwrap()
        };
        for (at, value) in damage {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        // Half of the cases are cut as well.
        let length = cut.index(bytes.len() * 2).clamp(1, bytes.len());
        if let Ok(image) = encoded(&bytes[..length], 1_000_000) {
            prop_assert!(image.width() * image.height() <= 1_000_000);
        }
    }
}

/// Pictures of 16 x 16 pixels, all of one colour, made by libjpeg-turbo.
mod drawn {
    pub(super) const GREY_94: &str = "ffd8ffe000104a46494600010100000100010000ffdb0043000302020302020303030304030304050805050404050a070706080c0a0c0c0b0a0b0b0d0e12100d0e110e0b0b1016101113141515150c0f171816141812141514ffc0000b080010001001011100ffc4001500010100000000000000000000000000000007ffc40014100100000000000000000000000000000000ffda0008010100003f009200ffd9";
    pub(super) const CMYK: &str = "ffd8ffee000e41646f626500640000000000ffdb0043000302020302020303030304030304050805050404050a070706080c0a0c0c0b0a0b0b0d0e12100d0e110e0b0b1016101113141515150c0f171816141812141514ffc000140800100010044311004d11005911004b1100ffc40017000101010100000000000000000000000000080709ffc40014100100000000000000000000000000000000ffda000e0443004d0059004b00003f00b010a31a754c000001ffd9";
    pub(super) const RGB: &str = "ffd8ffee000e41646f626500640000000000ffdb0043000302020302020303030304030304050805050404050a070706080c0a0c0c0b0a0b0b0d0e12100d0e110e0b0b1016101113141515150c0f171816141812141514ffc00011080010001003521100471100421100ffc400160001010100000000000000000000000000000807ffc40014100100000000000000000000000000000000ffda000c03520047004200003f00b010a31a00001fffd9";
    pub(super) const PROGRESSIVE: &str = "ffd8ffe000104a46494600010100000100010000ffdb0043000302020302020303030304030304050805050404050a070706080c0a0c0c0b0a0b0b0d0e12100d0e110e0b0b1016101113141515150c0f171816141812141514ffdb00430103040405040509050509140d0b0d1414141414141414141414141414141414141414141414141414141414141414141414141414141414141414141414141414ffc20011080010001003012200021101031101ffc4001500010100000000000000000000000000000006ffc4001501010100000000000000000000000000000207ffda000c030100021003100000019102cbffc40014100100000000000000000000000000000020ffda00080101000105021fffc40014110100000000000000000000000000000000ffda0008010301013f017fffc40014110100000000000000000000000000000000ffda0008010201013f017fffc40014100100000000000000000000000000000020ffda0008010100063f021fffc40014100100000000000000000000000000000020ffda0008010100013f211fffda000c03010002000300000010ff00ffc40014110100000000000000000000000000000000ffda0008010301013f107fffc40014110100000000000000000000000000000000ffda0008010201013f107fffc40014100100000000000000000000000000000020ffda0008010100013f101fffd9";
}

#[test]
fn every_kind_of_jpeg_becomes_rgb() {
    let colour = [200.0, 40.0, 90.0];
    let cases = [
        (drawn::GREY_94, [94.0; 3]),
        (drawn::CMYK, colour),
        (drawn::RGB, colour),
        (drawn::PROGRESSIVE, colour),
    ];
    for (file, wanted) in cases {
        let image = encoded(&hex::decode(file).unwrap(), LIMIT).unwrap();
        assert_eq!((image.width(), image.height()), (16, 16));
        for (sample, wanted) in image.rgb().iter().zip(wanted.iter().cycle()) {
            assert!(distance(*sample, *wanted) <= 2.0, "{:?}, not {wanted:?}", image.pixel(0, 0));
        }
    }
}

#[test]
fn thousands_of_scans_are_refused() {
    for file in [drawn::PROGRESSIVE, drawn::RGB] {
        let mut bytes = hex::decode(file).unwrap();
        let end = bytes.split_off(bytes.len() - 2);
        let scan = bytes.windows(2).rposition(|pair| pair == [0xFF, 0xDA]).unwrap();
        let last = bytes[scan..].to_vec();
        bytes.extend(last.repeat(5_000));
        bytes.extend(end);
        let refusal = encoded(&bytes, LIMIT).err();
        assert!(matches!(refusal, Some(DecodeError::Malformed { .. })), "{refusal:?}");
    }
}
