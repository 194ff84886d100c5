//! The plain way: every template, eight bits a coordinate, one loop.
//!
//! Rows are stored as code + 128, which the VNNI instruction wants unsigned; the probe's part in
//! that offset is subtracted from each sum.

use crate::Outcome;
use crate::engine::Engine;
use crate::gallery::Gallery;

/// Rows are padded to this many bytes.
const STEP: usize = 64;
const OFFSET: i32 = 128;
const LARGEST: f32 = 127.0;

pub(crate) struct ExactScan {
    row_bytes: usize,
    /// code + 128; padding counts as 128, against which the probe's padding is 0.
    rows: Vec<u8>,
    scales: Vec<f32>,
}

impl ExactScan {
    pub(crate) fn build(gallery: &Gallery) -> Self {
        let row_bytes = gallery.width().next_multiple_of(STEP);
        let mut rows = Vec::with_capacity(row_bytes * gallery.len());
        let mut scales = Vec::with_capacity(gallery.len());
        for template in gallery.templates().chunks_exact(gallery.width()) {
            let (codes, scale) = quantise(template, row_bytes);
            rows.extend(codes.iter().map(|code| code.cast_unsigned() ^ 0x80));
            scales.push(scale);
        }
        Self { row_bytes, rows, scales }
    }
}

impl Engine for ExactScan {
    fn nearest(&self, probe: &[f32], _ef: usize, _floor: f32) -> Outcome<Option<usize>> {
        let (probe, _) = quantise(probe, self.row_bytes);
        let correction = OFFSET * probe.iter().map(|code| i32::from(*code)).sum::<i32>();
        let dot = best_dot();
        let mut best = (f32::NEG_INFINITY, None);
        for (i, (row, scale)) in
            self.rows.chunks_exact(self.row_bytes).zip(&self.scales).enumerate()
        {
            #[expect(clippy::cast_precision_loss, reason = "below 2^24 at 1,024 dimensions")]
            let similarity = (dot(row, &probe) - correction) as f32 * scale;
            if similarity > best.0 {
                best = (similarity, Some(i));
            }
        }
        Ok(best.1)
    }

    fn is_graph(&self) -> bool {
        false
    }
}

/// Codes of -127 to 127, and what one of them is worth.
fn quantise(values: &[f32], padded: usize) -> (Vec<i8>, f32) {
    let largest = values.iter().fold(f32::MIN_POSITIVE, |max, x| max.max(x.abs()));
    let scale = largest / LARGEST;
    #[expect(clippy::cast_possible_truncation, reason = "within -127 and 127")]
    let mut codes: Vec<i8> = values.iter().map(|x| (x / scale).round() as i8).collect();
    codes.resize(padded, 0);
    (codes, scale)
}

type Dot = fn(&[u8], &[i8]) -> i32;

fn best_dot() -> Dot {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vnni") {
        return vnni::dot;
    }
    plain
}

fn plain(row: &[u8], probe: &[i8]) -> i32 {
    row.iter().zip(probe).map(|(row, probe)| i32::from(*row) * i32::from(*probe)).sum()
}

#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "vector loads, and a function that the processor must have")]
mod vnni {
    use std::arch::x86_64::{
        _mm512_dpbusd_epi32, _mm512_loadu_si512, _mm512_reduce_add_epi32, _mm512_setzero_si512,
    };

    use super::STEP;

    pub(super) fn dot(row: &[u8], probe: &[i8]) -> i32 {
        // SAFETY: `best_dot` is the only one who names this function, and does so where the
        // processor has both features.
        unsafe { sum(row, probe) }
    }

    #[target_feature(enable = "avx512f,avx512vnni")]
    fn sum(row: &[u8], probe: &[i8]) -> i32 {
        let mut sum = _mm512_setzero_si512();
        for (row, probe) in row.chunks_exact(STEP).zip(probe.chunks_exact(STEP)) {
            // SAFETY: both chunks are 64 bytes long, and the load asks for no alignment.
            let (row, probe) = unsafe {
                (_mm512_loadu_si512(row.as_ptr().cast()), _mm512_loadu_si512(probe.as_ptr().cast()))
            };
            sum = _mm512_dpbusd_epi32(sum, row, probe);
        }
        _mm512_reduce_add_epi32(sum)
    }
}

#[cfg(test)]
mod tests {
    use super::{best_dot, plain};

    #[test]
    fn the_fast_loop_sums_what_the_plain_one_does() {
        let row: Vec<u8> = (0..512_u32).map(|i| i.wrapping_mul(97).to_le_bytes()[0]).collect();
        let probe: Vec<i8> =
            (0..512_u32).map(|i| i.wrapping_mul(61).to_le_bytes()[0].cast_signed()).collect();
        assert_eq!(best_dot()(&row, &probe), plain(&row, &probe));
    }
}
