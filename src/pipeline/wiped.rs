//! Buffers for pixels and tensors that are overwritten when dropped.
//!
//! [`zeroize::Zeroizing`] writes one element at a time, which for a frame costs a tenth of its
//! decoding. Here the whole buffer is filled at the speed of `memset`, and zeroize's optimisation
//! barrier keeps the compiler from leaving that out.
//!
//! # Invariants
//! - A buffer never grows, so that no reallocation leaves a copy behind.

use std::ops::{Deref, DerefMut};

/// A buffer of fixed length, overwritten with zeros when dropped.
pub(super) struct Wiped<T: Copy + Default>(Box<[T]>);

impl<T: Copy + Default> Wiped<T> {
    /// `length` zeros.
    pub(super) fn zeros(length: usize) -> Self {
        Self(vec![T::default(); length].into_boxed_slice())
    }
}

impl<T: Copy + Default> Deref for Wiped<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T: Copy + Default> DerefMut for Wiped<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.0
    }
}

impl<T: Copy + Default> Drop for Wiped<T> {
    fn drop(&mut self) {
        wipe(&mut self.0);
    }
}

/// Overwrites `values` with zeros, now and for certain.
pub(super) fn wipe<T: Copy + Default>(values: &mut [T]) {
    values.fill(T::default());
    zeroize::optimization_barrier(values);
}

/// Bytes of its stack that a worker overwrites: more than decoding and inference take.
const STACK_BYTES: usize = 256 << 10;

/// Overwrites what functions that have returned left on this thread's stack: a decoder keeps its
/// tables and the block of pixels at hand there.
#[inline(never)]
#[expect(clippy::large_stack_arrays, reason = "the stack is what is overwritten")]
pub(super) fn wipe_stack() {
    let below = [0_u8; STACK_BYTES];
    // In use, as far as the compiler knows; so it must be there and be written.
    zeroize::optimization_barrier(&below);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wiping_leaves_zeros() {
        let mut values = [7_u8; 100];
        wipe(&mut values);
        assert_eq!(values, [0; 100]);
    }
}
