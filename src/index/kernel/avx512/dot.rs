//! Dot products with AVX-512 VNNI: 64 products an instruction.
//!
//! `vpdpbusd` multiplies unsigned by signed bytes and adds four products to each 32-bit lane. The
//! products are widened first, and this form does not saturate (`vpdpbusds` does).
//!
//! Many rows by many probes go four by four: sixteen sums stay in registers while eight loads feed
//! sixteen multiplications, and four sums at a time are added up across their lanes together.

#![expect(unsafe_code, reason = "vector loads take raw pointers")]

use std::arch::x86_64::{
    __m128i, __m512i, _mm_add_epi32, _mm256_add_epi32, _mm256_castsi256_si128,
    _mm256_extracti128_si256, _mm512_add_epi32, _mm512_castsi512_si256, _mm512_dpbusd_epi32,
    _mm512_extracti64x4_epi64, _mm512_loadu_si512, _mm512_reduce_add_epi32, _mm512_setzero_si512,
    _mm512_unpackhi_epi32, _mm512_unpackhi_epi64, _mm512_unpacklo_epi32, _mm512_unpacklo_epi64,
};

/// Bytes of a register.
const LANES: usize = 64;
/// Rows, and probes, that go together.
const TILE: usize = 4;

/// `sum(row_i * probe_i)` over whole registers.
#[target_feature(enable = "avx512f,avx512vnni")]
pub(in crate::index::kernel) fn dot(row: &[u8], probe: &[i8]) -> i32 {
    let (mut even, mut odd) = (_mm512_setzero_si512(), _mm512_setzero_si512());
    let (row_pairs, row_rest) = row.as_chunks::<LANES>().0.as_chunks::<2>();
    let (probe_pairs, probe_rest) = probe.as_chunks::<LANES>().0.as_chunks::<2>();
    // Two sums, so that a multiplication need not wait for the one before.
    for ([row_a, row_b], [probe_a, probe_b]) in row_pairs.iter().zip(probe_pairs) {
        even = _mm512_dpbusd_epi32(even, load(row_a), load(probe_a));
        odd = _mm512_dpbusd_epi32(odd, load(row_b), load(probe_b));
    }
    for (row, probe) in row_rest.iter().zip(probe_rest) {
        even = _mm512_dpbusd_epi32(even, load(row), load(probe));
    }
    _mm512_reduce_add_epi32(_mm512_add_epi32(even, odd))
}

/// Every row by every probe, all of one probe together.
#[target_feature(enable = "avx512f,avx512vnni")]
pub(in crate::index::kernel) fn dots(
    rows: &[u8],
    stride: usize,
    probes: &[&[i8]],
    out: &mut [i32],
) {
    let count = rows.len() / stride;
    for (at, tile) in rows.chunks(TILE * stride).enumerate() {
        let Some(tile) = split(tile, stride) else {
            let from = at * TILE;
            for (at, row) in tile.chunks_exact(stride).enumerate() {
                for (probe, out) in probes.iter().zip(out.chunks_exact_mut(count)) {
                    out[from + at] = dot(row, probe);
                }
            }
            continue;
        };
        let (fours, rest) = probes.as_chunks::<TILE>();
        let mut outs = out.chunks_exact_mut(count);
        let store = |out: Option<&mut [i32]>, sums: [i32; TILE]| {
            if let Some(out) = out {
                out[at * TILE..][..TILE].copy_from_slice(&sums);
            }
        };
        for four in fours {
            for sums in by_four(&tile, four) {
                store(outs.next(), sums);
            }
        }
        for probe in rest {
            store(outs.next(), by_one(&tile, probe));
        }
    }
}

fn split(rows: &[u8], stride: usize) -> Option<[&[u8]; TILE]> {
    let mut rows = rows.chunks_exact(stride);
    Some([rows.next()?, rows.next()?, rows.next()?, rows.next()?])
}

/// Four rows by one probe.
#[target_feature(enable = "avx512f,avx512vnni")]
fn by_one(rows: &[&[u8]; TILE], probe: &[i8]) -> [i32; TILE] {
    let mut sums = [_mm512_setzero_si512(); TILE];
    let [a, b, c, d] = rows.map(|row| row.as_chunks::<LANES>().0);
    for ((((probe, a), b), c), d) in probe.as_chunks().0.iter().zip(a).zip(b).zip(c).zip(d) {
        let probe = load::<i8>(probe);
        for (sum, row) in sums.iter_mut().zip([a, b, c, d]) {
            *sum = _mm512_dpbusd_epi32(*sum, load(row), probe);
        }
    }
    totals(sums)
}

/// Four rows by four probes: the rows of each probe.
#[target_feature(enable = "avx512f,avx512vnni")]
fn by_four(rows: &[&[u8]; TILE], probes: &[&[i8]; TILE]) -> [[i32; TILE]; TILE] {
    let mut sums = [[_mm512_setzero_si512(); TILE]; TILE];
    let rows = rows.map(|row| row.as_chunks::<LANES>().0);
    let probes = probes.map(|probe| probe.as_chunks::<LANES>().0);
    for at in 0..rows[0].len() {
        let rows = [load(&rows[0][at]), load(&rows[1][at]), load(&rows[2][at]), load(&rows[3][at])];
        for (sums, probe) in sums.iter_mut().zip(probes) {
            let probe = load(&probe[at]);
            for (sum, row) in sums.iter_mut().zip(rows) {
                *sum = _mm512_dpbusd_epi32(*sum, row, probe);
            }
        }
    }
    let [a, b, c, d] = sums;
    [totals(a), totals(b), totals(c), totals(d)]
}

/// Each register's lanes added up, four registers at once.
#[target_feature(enable = "avx512f")]
fn totals([a, b, c, d]: [__m512i; TILE]) -> [i32; TILE] {
    let ab = _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
    let cd = _mm512_add_epi32(_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
    let all = _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
    let half = _mm256_add_epi32(_mm512_castsi512_si256(all), _mm512_extracti64x4_epi64::<1>(all));
    let total: __m128i =
        _mm_add_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256::<1>(half));
    // SAFETY: both are 16 bytes, and every pattern of bits is four integers.
    unsafe { std::mem::transmute(total) }
}

#[target_feature(enable = "avx512f")]
fn load<T>(bytes: &[T; LANES]) -> __m512i {
    const { assert!(size_of::<T>() == 1) }
    // SAFETY: the array is 64 readable bytes, and this load asks for no alignment.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}
