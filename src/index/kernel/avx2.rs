//! The kernels with AVX2: 16 products an instruction.
//!
//! `vpmaddubsw` would do 32 but saturates at 16 bits (2 * 255 * 127 does not fit), so both sides
//! are widened to 16 bits and multiplied by `vpmaddwd`, whose pairs are added in 32 bits.

#![expect(unsafe_code, reason = "vector loads take raw pointers")]

use std::arch::x86_64::{
    __m128i, __m256i, _mm_add_epi32, _mm_cvtsi128_si32, _mm_loadu_si128, _mm_shuffle_epi32,
    _mm256_add_epi32, _mm256_and_si256, _mm256_castsi256_si128, _mm256_cmpeq_epi8,
    _mm256_cvtepi8_epi16, _mm256_cvtepu8_epi16, _mm256_extracti128_si256, _mm256_loadu_si256,
    _mm256_madd_epi16, _mm256_maddubs_epi16, _mm256_set1_epi8, _mm256_set1_epi16,
    _mm256_set1_epi32, _mm256_set1_epi64x, _mm256_setr_epi64x, _mm256_setzero_si256,
    _mm256_shuffle_epi8, _mm256_slli_epi32, _mm256_sub_epi32,
};

use super::portable;
use super::sketch::{Run, SKETCH_BITS, SKETCH_BYTES, Sifted, SketchProbe};

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

/// Every row by every probe, all of one probe together.
#[target_feature(enable = "avx2")]
pub(super) fn dots(rows: &[u8], stride: usize, probes: &[&[i8]], out: &mut [i32]) {
    portable::dots_by(|row, probe| dot(row, probe), rows, stride, probes, out);
}

/// The sieve in plain Rust, compiled for AVX2 and the count of bits.
#[target_feature(enable = "avx2,popcnt")]
pub(super) fn sift(run: Run<'_>, probes: &[SketchProbe<'_>], sifted: &mut Vec<Sifted>) {
    portable::sift_inline(run, probes, sifted);
}

/// Twice the sum of the codes whose bit is 1, less the sum of all.
#[target_feature(enable = "avx2")]
pub(super) fn lean(bits: &[u8; SKETCH_BYTES], codes: &[i8; SKETCH_BITS]) -> i32 {
    // Byte n of a lane gets the byte of `bits` that holds bit n, and then that bit alone.
    let spread =
        _mm256_setr_epi64x(0, 0x0101_0101_0101_0101, 0x0202_0202_0202_0202, 0x0303_0303_0303_0303);
    let own_bit = _mm256_set1_epi64x(0x8040_2010_0804_0201_u64.cast_signed());
    let (mut chosen, mut all) = (_mm256_setzero_si256(), _mm256_setzero_si256());
    for (bits, codes) in bits.as_chunks().0.iter().zip(codes.as_chunks().0) {
        let bytes = _mm256_shuffle_epi8(_mm256_set1_epi32(i32::from_le_bytes(*bits)), spread);
        let is_set = _mm256_cmpeq_epi8(_mm256_and_si256(bytes, own_bit), own_bit);
        let codes = load_32(codes);
        chosen = _mm256_add_epi32(chosen, sums(_mm256_and_si256(codes, is_set)));
        all = _mm256_add_epi32(all, sums(codes));
    }
    total(_mm256_sub_epi32(_mm256_slli_epi32::<1>(chosen), all))
}

/// Signed bytes added four by four. Pairs stay within 16 bits: 2 * 128.
#[target_feature(enable = "avx2")]
fn sums(codes: __m256i) -> __m256i {
    _mm256_madd_epi16(_mm256_maddubs_epi16(_mm256_set1_epi8(1), codes), _mm256_set1_epi16(1))
}

#[target_feature(enable = "avx2")]
fn load_32(codes: &[i8; 2 * LANES]) -> __m256i {
    // SAFETY: the array is 32 readable bytes, and this load asks for no alignment.
    unsafe { _mm256_loadu_si256(codes.as_ptr().cast()) }
}
