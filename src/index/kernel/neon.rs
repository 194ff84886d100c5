//! The dot product with NEON: both sides widened to 16 bits, products added in 32 bits.

#![expect(unsafe_code, reason = "vector loads take raw pointers")]

use std::arch::aarch64::{
    int16x8_t, vaddq_s32, vaddvq_s32, vdupq_n_s32, vget_low_s16, vld1_s8, vld1_u8, vmlal_high_s16,
    vmlal_s16, vmovl_s8, vmovl_u8, vreinterpretq_s16_u16,
};

use super::portable;

/// Bytes that fill a register once widened.
const LANES: usize = 8;

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
    portable::dots_by(|row, probe| dot(row, probe), rows, stride, probes, out);
}

/// 0..=255 keeps its value when the 16-bit lane is read as signed.
#[target_feature(enable = "neon")]
fn widen_row(bytes: &[u8; LANES]) -> int16x8_t {
    // SAFETY: the array is 8 readable bytes.
    vreinterpretq_s16_u16(vmovl_u8(unsafe { vld1_u8(bytes.as_ptr()) }))
}

#[target_feature(enable = "neon")]
fn widen_probe(bytes: &[i8; LANES]) -> int16x8_t {
    // SAFETY: the array is 8 readable bytes.
    vmovl_s8(unsafe { vld1_s8(bytes.as_ptr()) })
}
