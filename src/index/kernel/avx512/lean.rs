//! A probe's coordinates by a row's signs with AVX-512: the signs are the masks.

#![expect(unsafe_code, reason = "vector loads take raw pointers")]

use std::arch::x86_64::{
    __m512i, _mm512_dpbusd_epi32, _mm512_loadu_si512, _mm512_maskz_mov_epi8,
    _mm512_reduce_add_epi32, _mm512_set1_epi8, _mm512_setzero_si512, _mm512_slli_epi32,
    _mm512_sub_epi32,
};

use crate::index::kernel::sketch::{SKETCH_BITS, SKETCH_BYTES};

/// Bytes of a register.
const LANES: usize = 64;

/// Twice the sum of the codes whose bit is 1, less the sum of all.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub(in crate::index::kernel) fn lean(bits: &[u8; SKETCH_BYTES], codes: &[i8; SKETCH_BITS]) -> i32 {
    let ones = _mm512_set1_epi8(1);
    let (mut chosen, mut all) = (_mm512_setzero_si512(), _mm512_setzero_si512());
    for (word, codes) in bits.as_chunks().0.iter().zip(codes.as_chunks().0) {
        let codes = load(codes);
        let masked = _mm512_maskz_mov_epi8(u64::from_le_bytes(*word), codes);
        chosen = _mm512_dpbusd_epi32(chosen, ones, masked);
        all = _mm512_dpbusd_epi32(all, ones, codes);
    }
    _mm512_reduce_add_epi32(_mm512_sub_epi32(_mm512_slli_epi32::<1>(chosen), all))
}

#[target_feature(enable = "avx512f")]
fn load(codes: &[i8; LANES]) -> __m512i {
    // SAFETY: the array is 64 readable bytes, and this load asks for no alignment.
    unsafe { _mm512_loadu_si512(codes.as_ptr().cast()) }
}
