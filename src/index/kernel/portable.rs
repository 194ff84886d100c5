//! The kernels in plain Rust: what the others are measured against, and what they fall back to.
//!
//! The bodies are inlined into whoever calls them, so that a caller that was compiled for more
//! instructions gets them compiled for those.

use super::sketch::{GROUP_ROWS, HALF_WORDS, Run, SKETCH_BITS, SKETCH_BYTES, Sifted, SketchProbe};

/// `sum(row_i * probe_i)`.
pub(super) fn dot(row: &[u8], probe: &[i8]) -> i32 {
    row.iter().zip(probe).map(|(r, p)| i32::from(*r) * i32::from(*p)).sum()
}

/// Every row by every probe, all of one probe together.
pub(super) fn dots(rows: &[u8], stride: usize, probes: &[&[i8]], out: &mut [i32]) {
    dots_by(dot, rows, stride, probes, out);
}

/// Every row by every probe, one product after the other.
#[expect(clippy::inline_always, reason = "a copy apart from its caller would lack instructions")]
#[inline(always)]
pub(super) fn dots_by(
    dot: impl Fn(&[u8], &[i8]) -> i32,
    rows: &[u8],
    stride: usize,
    probes: &[&[i8]],
    out: &mut [i32],
) {
    let count = rows.len() / stride;
    for (at, row) in rows.chunks_exact(stride).enumerate() {
        for (probe, out) in probes.iter().zip(out.chunks_exact_mut(count)) {
            out[at] = dot(row, probe);
        }
    }
}

/// Pushes the live rows within both cuts.
pub(super) fn sift(run: Run<'_>, probes: &[SketchProbe<'_>], sifted: &mut Vec<Sifted>) {
    sift_inline(run, probes, sifted);
}

/// [`sift`], for callers compiled for more.
#[expect(clippy::inline_always, reason = "a copy apart from its caller would lack instructions")]
#[inline(always)]
pub(super) fn sift_inline(run: Run<'_>, probes: &[SketchProbe<'_>], sifted: &mut Vec<Sifted>) {
    let backs = run.back_rows().chunks_exact(GROUP_ROWS);
    let groups = run.fronts.iter().zip(backs).zip(run.live).enumerate();
    for (group, ((front, backs), live)) in groups.filter(|(_, (_, live))| **live != 0) {
        for (number, probe) in (0..).zip(probes) {
            let mut distances = [0_u32; GROUP_ROWS];
            let words = front.as_chunks().0.chunks_exact(GROUP_ROWS);
            for (probe, rows) in probe.front().iter().zip(words) {
                for (distance, word) in distances.iter_mut().zip(rows) {
                    *distance += (u64::from_le_bytes(*word) ^ probe).count_ones();
                }
            }
            for (at, distance) in distances.into_iter().enumerate() {
                if distance > probe.front_cut || live >> at & 1 == 0 {
                    continue;
                }
                let distance = distance + differing(&backs[at], probe.back());
                if distance <= probe.full_cut {
                    sifted.push(found(group * GROUP_ROWS + at, number, distance));
                }
            }
        }
    }
}

/// Differing signs of the back halves of a row and a probe.
#[expect(clippy::inline_always, reason = "a copy apart from its caller would lack instructions")]
#[inline(always)]
fn differing(row: &[u8], probe: &[u64; HALF_WORDS]) -> u32 {
    let words = row.as_chunks().0.iter().zip(probe);
    words.map(|(row, probe)| (u64::from_le_bytes(*row) ^ probe).count_ones()).sum()
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
