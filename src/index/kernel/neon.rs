//! The kernels with NEON: products widened to 16 bits, signs counted a byte at a time.

#![expect(unsafe_code, reason = "vector loads and stores take raw pointers")]

use std::arch::aarch64::{
    int16x8_t, int32x4_t, uint8x8_t, uint8x16_t, vaddlvq_s16, vaddq_s32, vaddq_u8, vaddv_u8,
    vaddvq_s32, vand_u8, vandq_s8, vcleq_u16, vcntq_u8, vcombine_u8, vdup_n_u8, vdupq_n_s16,
    vdupq_n_s32, vdupq_n_u8, vdupq_n_u16, vdupq_n_u64, veorq_u8, vget_low_s16, vld1_s8, vld1_u8,
    vld1q_s8, vld1q_u8, vmlal_high_s16, vmlal_s16, vmovl_s8, vmovl_u8, vmovn_u16, vpadalq_s8,
    vpaddlq_u8, vpaddq_s32, vpaddq_u8, vreinterpretq_s8_u8, vreinterpretq_s16_u16,
    vreinterpretq_u8_u64, vst1q_s32, vtstq_u8,
};

use super::portable::{self, TILE_ROWS};
use super::sketch::{
    GROUP_ROWS, GROUP_SKETCH_BYTES, GroupHalf, HALF_WORDS, Run, SKETCH_BITS, SKETCH_BYTES, Sifted,
    SketchProbe,
};

/// Bytes of a register.
const WIDE: usize = 16;
/// Bytes that fill a register once widened.
const LANES: usize = 8;
/// Probes that go together with four rows: eight sums, and four rows widened.
const TILE_PROBES: usize = 2;
/// Registers of one word of a group: two rows each.
const PARTS: usize = GROUP_SKETCH_BYTES / HALF_WORDS / WIDE;
/// Registers of one word of eight rows.
const EIGHT_ROWS: usize = 4;
/// One bit for each of eight rows or codes.
const BITS: [u8; LANES] = [1, 2, 4, 8, 16, 32, 64, 128];

/// `sum(row_i * probe_i)` over whole registers.
#[target_feature(enable = "neon")]
pub(super) fn dot(row: &[u8], probe: &[i8]) -> i32 {
    let (mut low, mut high) = (vdupq_n_s32(0), vdupq_n_s32(0));
    for (row, probe) in row.as_chunks().0.iter().zip(probe.as_chunks().0) {
        let (row, probe) = (widen_row(row), widen_probe(probe));
        low = vmlal_s16(low, vget_low_s16(row), vget_low_s16(probe));
        high = vmlal_high_s16(high, row, probe);
    }
    vaddvq_s32(vaddq_s32(low, high))
}

/// Every row by every probe, all of one probe together.
#[target_feature(enable = "neon")]
pub(super) fn dots(rows: &[u8], stride: usize, probes: &[&[i8]], out: &mut [i32]) {
    let tile = |rows: [&[u8]; TILE_ROWS], probes: &[&[i8]; TILE_PROBES]| tile(rows, probes);
    portable::dots_by(tile, |row, probe| dot(row, probe), rows, stride, probes, out);
}

/// Four rows by two probes: the rows of each probe.
#[target_feature(enable = "neon")]
fn tile(
    rows: [&[u8]; TILE_ROWS],
    probes: &[&[i8]; TILE_PROBES],
) -> [[i32; TILE_ROWS]; TILE_PROBES] {
    let rows = rows.map(|row| row.as_chunks().0);
    let probes = probes.map(|probe| probe.as_chunks().0);
    let mut sums = [[vdupq_n_s32(0); TILE_ROWS]; TILE_PROBES];
    for at in 0..rows[0].len() {
        let rows = rows.map(|row| widen_row(&row[at]));
        for (sums, probe) in sums.iter_mut().zip(probes) {
            let probe = widen_probe(&probe[at]);
            for (sum, row) in sums.iter_mut().zip(rows) {
                let low = vmlal_s16(*sum, vget_low_s16(row), vget_low_s16(probe));
                *sum = vmlal_high_s16(low, row, probe);
            }
        }
    }
    sums.map(|sums| totals(sums))
}

/// Each register's lanes added up.
#[target_feature(enable = "neon")]
fn totals([a, b, c, d]: [int32x4_t; TILE_ROWS]) -> [i32; TILE_ROWS] {
    let mut totals = [0; TILE_ROWS];
    // SAFETY: the array is four writable integers.
    unsafe { vst1q_s32(totals.as_mut_ptr(), vpaddq_s32(vpaddq_s32(a, b), vpaddq_s32(c, d))) };
    totals
}

/// Pushes the live rows within both cuts.
#[target_feature(enable = "neon")]
pub(super) fn sift(run: Run<'_>, probes: &[SketchProbe<'_>], sifted: &mut Vec<Sifted>) {
    portable::sift_by(|front, probe, cut| within(front, probe, cut), run, probes, sifted);
}

/// Which rows of a front are within a cut of a probe.
#[target_feature(enable = "neon")]
fn within(front: &GroupHalf, probe: &[u64; HALF_WORDS], cut: u16) -> u32 {
    let lines = front.as_chunks().0;
    let probe = probe.map(|word| vreinterpretq_u8_u64(vdupq_n_u64(word)));
    let (cut, bit_of) = (vdupq_n_u16(cut), load_8(&BITS));
    let mut within = [0; GROUP_ROWS / LANES];
    for (eight, within) in within.iter_mut().enumerate() {
        let [a, b, c, d] = std::array::from_fn(|pair| {
            let mut ones = vdupq_n_u8(0);
            for (word, probe) in probe.iter().enumerate() {
                let line = load(&lines[word * PARTS + eight * EIGHT_ROWS + pair]);
                ones = vaddq_u8(ones, vcntq_u8(veorq_u8(line, *probe)));
            }
            ones
        });
        // Eight bytes a row, of at most 32 each: two of 128 once paired twice.
        let two_a_row = vpaddq_u8(vpaddq_u8(a, b), vpaddq_u8(c, d));
        let near = vcleq_u16(vpaddlq_u8(two_a_row), cut);
        *within = vaddv_u8(vand_u8(vmovn_u16(near), bit_of));
    }
    u32::from_le_bytes(within)
}

/// Twice the sum of the codes whose bit is 1, less the sum of all. A lane adds 64 codes, which
/// stays within 16 bits.
#[target_feature(enable = "neon")]
pub(super) fn lean(bits: &[u8; SKETCH_BYTES], codes: &[i8; SKETCH_BITS]) -> i32 {
    let bit_of = vcombine_u8(load_8(&BITS), load_8(&BITS));
    let (mut chosen, mut all) = (vdupq_n_s16(0), vdupq_n_s16(0));
    for ([low, high], codes) in bits.as_chunks().0.iter().zip(codes.as_chunks::<WIDE>().0) {
        // SAFETY: the array is 16 readable bytes.
        let codes = unsafe { vld1q_s8(codes.as_ptr()) };
        let is_set = vtstq_u8(vcombine_u8(vdup_n_u8(*low), vdup_n_u8(*high)), bit_of);
        chosen = vpadalq_s8(chosen, vandq_s8(codes, vreinterpretq_s8_u8(is_set)));
        all = vpadalq_s8(all, codes);
    }
    2 * vaddlvq_s16(chosen) - vaddlvq_s16(all)
}

/// 0..=255 keeps its value when the 16-bit lane is read as signed.
#[target_feature(enable = "neon")]
fn widen_row(bytes: &[u8; LANES]) -> int16x8_t {
    vreinterpretq_s16_u16(vmovl_u8(load_8(bytes)))
}

#[target_feature(enable = "neon")]
fn widen_probe(bytes: &[i8; LANES]) -> int16x8_t {
    // SAFETY: the array is 8 readable bytes.
    vmovl_s8(unsafe { vld1_s8(bytes.as_ptr()) })
}

#[target_feature(enable = "neon")]
fn load_8(bytes: &[u8; LANES]) -> uint8x8_t {
    // SAFETY: the array is 8 readable bytes.
    unsafe { vld1_u8(bytes.as_ptr()) }
}

#[target_feature(enable = "neon")]
fn load(bytes: &[u8; WIDE]) -> uint8x16_t {
    // SAFETY: the array is 16 readable bytes.
    unsafe { vld1q_u8(bytes.as_ptr()) }
}
