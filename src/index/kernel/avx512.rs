//! The dot product with AVX-512 VNNI: 64 products an instruction.
//!
//! `vpdpbusd` multiplies unsigned by signed bytes and adds four products to each 32-bit lane. The
//! products are widened first, and this form does not saturate (`vpdpbusds` does).

#![expect(unsafe_code, reason = "vector loads take raw pointers")]

use std::arch::x86_64::{
    __m512i, _mm512_dpbusd_epi32, _mm512_loadu_si512, _mm512_reduce_add_epi32, _mm512_setzero_si512,
};

/// Bytes of a register.
const LANES: usize = 64;

/// `sum(row_i * probe_i)` over whole registers.
#[target_feature(enable = "avx512f,avx512vnni")]
pub(super) fn dot(row: &[u8], probe: &[i8]) -> i32 {
    let mut sum = _mm512_setzero_si512();
    for (row, probe) in row.as_chunks().0.iter().zip(probe.as_chunks().0) {
        sum = _mm512_dpbusd_epi32(sum, load(row), load(probe));
    }
    _mm512_reduce_add_epi32(sum)
}

#[target_feature(enable = "avx512f")]
fn load<T>(bytes: &[T; LANES]) -> __m512i {
    const { assert!(size_of::<T>() == 1) }
    // SAFETY: the array is 64 readable bytes, and this load asks for no alignment.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}
