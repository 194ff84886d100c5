//! The kernels in plain Rust: what the others are measured against, and what they fall back to.
//!
//! The bodies are inlined into whoever calls them, so that a caller that was compiled for more
//! instructions gets them compiled for those.

use super::sketch::{
    GROUP_ROWS, GroupHalf, HALF_BYTES, HALF_WORDS, Run, SKETCH_BITS, SKETCH_BYTES, Sifted,
    SketchProbe, cut16,
};

/// Rows that go together.
pub(super) const TILE_ROWS: usize = 4;

/// `sum(row_i * probe_i)`.
pub(super) fn dot(row: &[u8], probe: &[i8]) -> i32 {
    row.iter().zip(probe).map(|(r, p)| i32::from(*r) * i32::from(*p)).sum()
}

/// Every row by every probe, all of one probe together.
pub(super) fn dots(rows: &[u8], stride: usize, probes: &[&[i8]], out: &mut [i32]) {
    let tile = |rows: [&[u8]; TILE_ROWS], [probe]: &[&[i8]; 1]| [rows.map(|row| dot(row, probe))];
    dots_by(tile, dot, rows, stride, probes, out);
}

/// Every row by every probe, by way of two functions: four rows by a few probes, and one by one
/// for what is left over.
#[expect(clippy::inline_always, reason = "a copy apart from its caller would lack instructions")]
#[inline(always)]
pub(super) fn dots_by<const PROBES: usize>(
    tile: impl Fn([&[u8]; TILE_ROWS], &[&[i8]; PROBES]) -> [[i32; TILE_ROWS]; PROBES],
    dot: impl Fn(&[u8], &[i8]) -> i32,
    rows: &[u8],
    stride: usize,
    probes: &[&[i8]],
    out: &mut [i32],
) {
    let count = rows.len() / stride;
    let (several, single) = probes.as_chunks();
    for (at, rows) in (0..).step_by(TILE_ROWS).zip(rows.chunks(TILE_ROWS * stride)) {
        let mut outs = out.chunks_exact_mut(count).map(|out| &mut out[at..]);
        let mut left = probes;
        if let Some(rows) = four(rows, stride) {
            for probes in several {
                for (sums, out) in tile(rows, probes).iter().zip(&mut outs) {
                    out[..TILE_ROWS].copy_from_slice(sums);
                }
            }
            left = single;
        }
        for (probe, out) in left.iter().zip(outs) {
            for (out, row) in out.iter_mut().zip(rows.chunks_exact(stride)) {
                *out = dot(row, probe);
            }
        }
    }
}

fn four(rows: &[u8], stride: usize) -> Option<[&[u8]; TILE_ROWS]> {
    let mut rows = rows.chunks_exact(stride);
    Some([rows.next()?, rows.next()?, rows.next()?, rows.next()?])
}

/// Pushes the live rows within both cuts.
pub(super) fn sift(run: Run<'_>, probes: &[SketchProbe<'_>], sifted: &mut Vec<Sifted>) {
    sift_by(within, run, probes, sifted);
}

/// [`sift`] by way of a function that tells which rows of a front are within a cut of a probe.
#[expect(clippy::inline_always, reason = "a copy apart from its caller would lack instructions")]
#[inline(always)]
pub(super) fn sift_by(
    within: impl Fn(&GroupHalf, &[u64; HALF_WORDS], u16) -> u32,
    run: Run<'_>,
    probes: &[SketchProbe<'_>],
    sifted: &mut Vec<Sifted>,
) {
    let backs = run.back_rows().chunks_exact(GROUP_ROWS);
    let groups = run.fronts.iter().zip(backs).zip(run.live).enumerate();
    for (group, ((front, backs), live)) in groups.filter(|(_, (_, live))| **live != 0) {
        for (number, probe) in (0..).zip(probes) {
            let mut passed = live & within(front, probe.front(), cut16(probe.front_cut));
            while passed != 0 {
                let at = passed.trailing_zeros() as usize;
                passed &= passed - 1;
                let distance = distance(front, &backs[at], at, probe);
                if distance <= probe.full_cut {
                    sifted.push(found(group * GROUP_ROWS + at, number, distance));
                }
            }
        }
    }
}

/// Which rows of a front are within a cut of a probe.
fn within(front: &GroupHalf, probe: &[u64; HALF_WORDS], cut: u16) -> u32 {
    let mut distances = [0; GROUP_ROWS];
    let (words, _) = front.as_chunks();
    for (rows, probe) in words.chunks_exact(GROUP_ROWS).zip(probe) {
        for (distance, row) in distances.iter_mut().zip(rows) {
            *distance += differing(row, *probe);
        }
    }
    let bits = distances.iter().rev().map(|distance| u32::from(*distance <= u32::from(cut)));
    bits.fold(0, |all, bit| all << 1 | bit)
}

/// Differing signs of a row and a probe.
#[expect(clippy::inline_always, reason = "a copy apart from its caller would lack instructions")]
#[inline(always)]
fn distance(
    front: &GroupHalf,
    back: &[u8; HALF_BYTES],
    row: usize,
    probe: &SketchProbe<'_>,
) -> u32 {
    let words = front.as_chunks().0.iter().skip(row).step_by(GROUP_ROWS);
    let words = words.chain(back.as_chunks().0).zip(probe.words);
    words.map(|(row, probe)| differing(row, *probe)).sum()
}

/// Differing signs of a word.
#[expect(clippy::inline_always, reason = "a copy apart from its caller would lack instructions")]
#[inline(always)]
fn differing(row: &[u8; size_of::<u64>()], probe: u64) -> u32 {
    (u64::from_le_bytes(*row) ^ probe).count_ones()
}

#[expect(clippy::cast_possible_truncation, reason = "rows have 32-bit numbers, 512 signs differ")]
fn found(row: usize, probe: u16, distance: u32) -> Sifted {
    Sifted { row: row as u32, probe, distance: distance as u16 }
}

/// The sum of codes whose sign bit is 1 less the sum of the others.
pub(super) fn lean(bits: &[u8; SKETCH_BYTES], codes: &[i8; SKETCH_BITS]) -> i32 {
    let signs = bits.iter().flat_map(|byte| (0..8).map(move |bit| byte >> bit & 1 == 1));
    let signed =
        |(sign, code): (bool, &i8)| if sign { i32::from(*code) } else { -i32::from(*code) };
    signs.zip(codes).map(signed).sum()
}
