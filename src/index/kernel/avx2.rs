//! The kernels with AVX2: 16 products an instruction, and signs counted by table.
//!
//! `vpmaddubsw` would do 32 but saturates at 16 bits (2 * 255 * 127 does not fit), so both sides
//! are widened to 16 bits and multiplied by `vpmaddwd`, whose pairs are added in 32 bits.

#![expect(unsafe_code, reason = "vector loads and stores take raw pointers")]

use std::arch::x86_64::{
    __m128i, __m256i, _mm_add_epi32, _mm_cvtsi128_si32, _mm_loadu_si128, _mm_shuffle_epi32,
    _mm_storeu_si128, _mm256_add_epi8, _mm256_add_epi32, _mm256_and_si256, _mm256_castsi256_pd,
    _mm256_castsi256_si128, _mm256_cmpeq_epi8, _mm256_cmpgt_epi64, _mm256_cvtepi8_epi16,
    _mm256_cvtepu8_epi16, _mm256_extracti128_si256, _mm256_hadd_epi32, _mm256_loadu_si256,
    _mm256_madd_epi16, _mm256_maddubs_epi16, _mm256_movemask_pd, _mm256_sad_epu8, _mm256_set1_epi8,
    _mm256_set1_epi16, _mm256_set1_epi32, _mm256_set1_epi64x, _mm256_setr_epi64x,
    _mm256_setzero_si256, _mm256_shuffle_epi8, _mm256_slli_epi32, _mm256_srli_epi16,
    _mm256_sub_epi32, _mm256_xor_si256,
};

use super::portable::{self, TILE_ROWS};
use super::sketch::{
    GROUP_ROWS, GROUP_SKETCH_BYTES, GroupHalf, HALF_WORDS, Run, SKETCH_BITS, SKETCH_BYTES, Sifted,
    SketchProbe,
};

/// Bytes of a register.
const WIDE: usize = 32;
/// Bytes that fill a register once widened.
const LANES: usize = 16;
/// Probes that go together with four rows: eight sums, and four rows widened.
const TILE_PROBES: usize = 2;
/// Registers of one word of a group.
const PARTS: usize = GROUP_SKETCH_BYTES / HALF_WORDS / WIDE;
/// Rows of a register.
const PART_ROWS: usize = GROUP_ROWS / PARTS;
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
        even = _mm256_add_epi32(even, _mm256_madd_epi16(widen_row(row_a), widen_probe(probe_a)));
        odd = _mm256_add_epi32(odd, _mm256_madd_epi16(widen_row(row_b), widen_probe(probe_b)));
    }
    total(_mm256_add_epi32(even, odd))
}

/// Every row by every probe, all of one probe together.
#[target_feature(enable = "avx2")]
pub(super) fn dots(rows: &[u8], stride: usize, probes: &[&[i8]], out: &mut [i32]) {
    let tile = |rows: [&[u8]; TILE_ROWS], probes: &[&[i8]; TILE_PROBES]| tile(rows, probes);
    portable::dots_by(tile, |row, probe| dot(row, probe), rows, stride, probes, out);
}

/// Four rows by two probes: the rows of each probe.
#[target_feature(enable = "avx2")]
fn tile(
    rows: [&[u8]; TILE_ROWS],
    probes: &[&[i8]; TILE_PROBES],
) -> [[i32; TILE_ROWS]; TILE_PROBES] {
    let rows = rows.map(|row| row.as_chunks().0);
    let probes = probes.map(|probe| probe.as_chunks().0);
    let mut sums = [[_mm256_setzero_si256(); TILE_ROWS]; TILE_PROBES];
    for at in 0..rows[0].len() {
        let rows = [
            widen_row(&rows[0][at]),
            widen_row(&rows[1][at]),
            widen_row(&rows[2][at]),
            widen_row(&rows[3][at]),
        ];
        for (sums, probe) in sums.iter_mut().zip(probes) {
            let probe = widen_probe(&probe[at]);
            for (sum, row) in sums.iter_mut().zip(rows) {
                *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(row, probe));
            }
        }
    }
    let [a, b] = sums;
    [totals(a), totals(b)]
}

/// Each register's lanes added up.
#[target_feature(enable = "avx2")]
fn totals([a, b, c, d]: [__m256i; TILE_ROWS]) -> [i32; TILE_ROWS] {
    let abcd = _mm256_hadd_epi32(_mm256_hadd_epi32(a, b), _mm256_hadd_epi32(c, d));
    let mut totals = [0; TILE_ROWS];
    // SAFETY: the array is 16 writable bytes, and this store asks for no alignment.
    unsafe { _mm_storeu_si128(totals.as_mut_ptr().cast(), fold(abcd)) };
    totals
}

#[target_feature(enable = "avx2")]
fn total(sum: __m256i) -> i32 {
    let four = fold(sum);
    let two = _mm_add_epi32(four, _mm_shuffle_epi32::<SWAP_HALVES>(four));
    _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32::<SWAP_PAIRS>(two)))
}

/// The two halves added.
#[target_feature(enable = "avx2")]
fn fold(sum: __m256i) -> __m128i {
    _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256::<1>(sum))
}

#[target_feature(enable = "avx2")]
fn widen_row(bytes: &[u8; LANES]) -> __m256i {
    _mm256_cvtepu8_epi16(load_half(bytes))
}

#[target_feature(enable = "avx2")]
fn widen_probe(bytes: &[i8; LANES]) -> __m256i {
    _mm256_cvtepi8_epi16(load_half(bytes))
}

/// Pushes the live rows within both cuts.
#[target_feature(enable = "avx2,popcnt")]
pub(super) fn sift(run: Run<'_>, probes: &[SketchProbe<'_>], sifted: &mut Vec<Sifted>) {
    portable::sift_by(|front, probe, cut| within(front, probe, cut), run, probes, sifted);
}

/// Which rows of a front are within a cut of a probe.
#[target_feature(enable = "avx2")]
fn within(front: &GroupHalf, probe: &[u64; HALF_WORDS], cut: u16) -> u32 {
    let lines = front.as_chunks().0;
    let probe = probe.map(|word| _mm256_set1_epi64x(word.cast_signed()));
    let cut = _mm256_set1_epi64x(i64::from(cut));
    let mut beyond = 0;
    for part in (0..PARTS).rev() {
        let mut ones = _mm256_setzero_si256();
        for (word, probe) in probe.iter().enumerate() {
            let apart = _mm256_xor_si256(load(&lines[word * PARTS + part]), *probe);
            ones = _mm256_add_epi8(ones, byte_ones(apart));
        }
        let distances = _mm256_sad_epu8(ones, _mm256_setzero_si256());
        let far = _mm256_castsi256_pd(_mm256_cmpgt_epi64(distances, cut));
        beyond = beyond << PART_ROWS | _mm256_movemask_pd(far);
    }
    !beyond.cast_unsigned()
}

/// The ones of each byte: those of its two halves by table.
#[target_feature(enable = "avx2")]
fn byte_ones(bits: __m256i) -> __m256i {
    const ONES: i64 = 0x0302_0201_0201_0100;
    const ONES_FROM_8: i64 = 0x0403_0302_0302_0201;
    let table = _mm256_setr_epi64x(ONES, ONES_FROM_8, ONES, ONES_FROM_8);
    let half = _mm256_set1_epi8(0x0F);
    let low = _mm256_shuffle_epi8(table, _mm256_and_si256(bits, half));
    let high = _mm256_and_si256(_mm256_srli_epi16::<4>(bits), half);
    _mm256_add_epi8(low, _mm256_shuffle_epi8(table, high))
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
        let codes = load(codes);
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
fn load<T>(bytes: &[T; WIDE]) -> __m256i {
    const { assert!(size_of::<T>() == 1) }
    // SAFETY: the array is 32 readable bytes, and this load asks for no alignment.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
}

#[target_feature(enable = "avx2")]
fn load_half<T>(bytes: &[T; LANES]) -> __m128i {
    const { assert!(size_of::<T>() == 1) }
    // SAFETY: the array is 16 readable bytes, and this load asks for no alignment.
    unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
}
