//! The dot product with AVX2: 16 products an instruction.
//!
//! `vpmaddubsw` would do 32 but saturates at 16 bits (2 * 255 * 127 does not fit), so both sides
//! are widened to 16 bits and multiplied by `vpmaddwd`, whose pairs are added in 32 bits.

#![expect(unsafe_code, reason = "vector loads take raw pointers")]

use std::arch::x86_64::{
    __m128i, __m256i, _mm_add_epi32, _mm_cvtsi128_si32, _mm_loadu_si128, _mm_shuffle_epi32,
    _mm256_add_epi32, _mm256_castsi256_si128, _mm256_cvtepi8_epi16, _mm256_cvtepu8_epi16,
    _mm256_extracti128_si256, _mm256_madd_epi16, _mm256_setzero_si256,
};

/// Bytes that fill a register once widened.
const LANES: usize = 16;
/// Swaps the 64-bit halves of a register.
const SWAP_HALVES: i32 = 0b01_00_11_10;
/// Swaps neighbouring 32-bit lanes.
const SWAP_PAIRS: i32 = 0b10_11_00_01;

/// `sum(row_i * probe_i)` over pairs of registers, which rows of whole cache lines fill.
#[target_feature(enable = "avx2")]
pub(super) fn dot(row: &[u8], probe: &[i8]) -> i32 {
    let (row_pairs, _) = row.as_chunks().0.as_chunks();
    let (probe_pairs, _) = probe.as_chunks().0.as_chunks();
    // Two sums, so that an addition need not wait for the one before.
    let (mut even, mut odd) = (_mm256_setzero_si256(), _mm256_setzero_si256());
    for ([row_a, row_b], [probe_a, probe_b]) in row_pairs.iter().zip(probe_pairs) {
        even = _mm256_add_epi32(even, products(row_a, probe_a));
        odd = _mm256_add_epi32(odd, products(row_b, probe_b));
    }
    total(_mm256_add_epi32(even, odd))
}

/// 16 products, added in pairs.
#[target_feature(enable = "avx2")]
fn products(row: &[u8; LANES], probe: &[i8; LANES]) -> __m256i {
    _mm256_madd_epi16(_mm256_cvtepu8_epi16(load(row)), _mm256_cvtepi8_epi16(load(probe)))
}

#[target_feature(enable = "avx2")]
fn total(sum: __m256i) -> i32 {
    let four = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256::<1>(sum));
    let two = _mm_add_epi32(four, _mm_shuffle_epi32::<SWAP_HALVES>(four));
    _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32::<SWAP_PAIRS>(two)))
}

#[target_feature(enable = "avx2")]
fn load<T>(bytes: &[T; LANES]) -> __m128i {
    const { assert!(size_of::<T>() == 1) }
    // SAFETY: the array is 16 readable bytes, and this load asks for no alignment.
    unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
}
