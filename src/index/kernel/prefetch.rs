//! Asking memory for what will be needed soon.

#![cfg_attr(target_arch = "x86_64", expect(unsafe_code, reason = "a prefetch takes a raw pointer"))]

/// Bytes that memory gives at once.
const LINE: usize = 64;

/// Asks for all lines of `bytes`; nothing waits for them.
#[inline]
pub(in crate::index) fn prefetch(bytes: &[u8]) {
    for line in bytes.chunks(LINE) {
        prefetch_line(&line[0]);
    }
}

/// Asks for the line in which a value begins.
#[cfg(target_arch = "x86_64")]
#[inline]
pub(in crate::index) fn prefetch_line<T>(at: &T) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: every x86-64 processor has this instruction, and it neither faults nor changes
    // anything but what is cached.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(at).cast()) }
}

/// Asks for the line in which a value begins; there is no stable way to on this processor.
#[cfg(not(target_arch = "x86_64"))]
#[inline]
pub(in crate::index) fn prefetch_line<T>(_at: &T) {}
