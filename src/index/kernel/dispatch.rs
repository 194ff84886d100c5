//! Detection of instructions at run time, and the one place where a kernel is called.

#![expect(unsafe_code, reason = "a function compiled for detected instructions is called here")]

use super::Kernel;
#[cfg(target_arch = "aarch64")]
use super::neon;
use super::portable;
#[cfg(target_arch = "x86_64")]
use super::{avx2, avx512};
use crate::index::arena::ROW_ALIGN;

/// `sum(row_i * probe_i)` over slices of one length, a multiple of [`ROW_ALIGN`].
///
/// # Safety
/// The processor must have the instructions that the function was compiled for.
type DotFn = unsafe fn(&[u8], &[i8]) -> i32;

/// A kernel that this processor was seen to run: the proof is having one.
#[derive(Debug, Clone, Copy)]
pub struct Dot {
    kernel: Kernel,
    function: DotFn,
}

impl Dot {
    /// Looks for the kernel's instructions.
    pub(super) fn detect(kernel: Kernel) -> Option<Self> {
        detected(kernel).map(|function| Self { kernel, function })
    }

    /// The kernel that runs everywhere.
    pub(super) fn portable() -> Self {
        Self { kernel: Kernel::Portable, function: portable::dot }
    }

    /// Which kernel this is.
    #[must_use]
    pub fn kernel(self) -> Kernel {
        self.kernel
    }

    /// `sum(row_i * probe_i)`, exact.
    ///
    /// # Panics
    /// Slices of different lengths, or of a length that is no multiple of 64.
    #[must_use]
    #[inline]
    pub fn apply(self, row: &[u8], probe: &[i8]) -> i32 {
        assert!(row.len() == probe.len() && row.len().is_multiple_of(ROW_ALIGN));
        // SAFETY: `function` is private and comes from `detected`, which hands out a function only
        // after seeing its instructions on this processor, or is the portable one, which needs
        // none. Processors do not lose instructions while a program runs.
        unsafe { (self.function)(row, probe) }
    }
}

fn detected(kernel: Kernel) -> Option<DotFn> {
    match kernel {
        #[cfg(target_arch = "x86_64")]
        Kernel::Avx512Vnni
            if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vnni") =>
        {
            Some(avx512::dot)
        }
        #[cfg(target_arch = "x86_64")]
        Kernel::Avx2 if is_x86_feature_detected!("avx2") => Some(avx2::dot),
        #[cfg(target_arch = "aarch64")]
        Kernel::Neon if std::arch::is_aarch64_feature_detected!("neon") => Some(neon::dot),
        Kernel::Portable => Some(portable::dot),
        Kernel::Avx512Vnni | Kernel::Avx2 | Kernel::Neon => None,
    }
}
