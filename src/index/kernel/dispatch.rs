//! Detection of instructions at run time, and the one place where kernels are called.

#![expect(unsafe_code, reason = "functions compiled for detected instructions are called here")]

#[cfg(target_arch = "aarch64")]
use super::neon;
use super::panel::{Line, Panel};
use super::sketch::{Run, SKETCH_BITS, SKETCH_BYTES, Sifted, SketchProbe};
use super::{GROUP_SKETCH_BYTES, Kernel, MOST_PROBES, portable};
#[cfg(target_arch = "x86_64")]
use super::{amx, avx2, avx512};
use crate::index::arena::ROW_ALIGN;

/// Rows, their stride, probes, products.
type DotsFn = unsafe fn(&[u8], usize, &[&[i8]], &mut [i32]);
/// Rows, packed probes, probes, products.
type TilesFn = unsafe fn(&[u8], &[Line], &[&[i8]], &mut [i32]);

/// The functions of one kernel.
///
/// # Safety
/// The processor must have the instructions that they were compiled for.
#[derive(Debug, Clone, Copy)]
struct Functions {
    dot: unsafe fn(&[u8], &[i8]) -> i32,
    dots: DotsFn,
    /// The same for packed probes, where that is faster.
    tiles: Option<TilesFn>,
    sift: unsafe fn(Run<'_>, &[SketchProbe<'_>], &mut Vec<Sifted>),
    lean: unsafe fn(&[u8; SKETCH_BYTES], &[i8; SKETCH_BITS]) -> i32,
}

/// The kernels of a set of instructions that this processor was seen to have: the proof is having
/// one.
#[derive(Debug, Clone, Copy)]
pub(in crate::index) struct Kernels {
    kernel: Kernel,
    functions: Functions,
}

impl Kernels {
    /// Looks for the kernel's instructions.
    pub(super) fn detect(kernel: Kernel) -> Option<Self> {
        detected(kernel).map(|functions| Self { kernel, functions })
    }

    /// The kernel that runs everywhere.
    pub(super) fn portable() -> Self {
        Self { kernel: Kernel::Portable, functions: PORTABLE }
    }

    /// Which kernel this is.
    pub(in crate::index) fn kernel(self) -> Kernel {
        self.kernel
    }

    /// `sum(row_i * probe_i)`, exact.
    ///
    /// # Panics
    /// Slices of different lengths, or of a length that is no multiple of 64.
    #[inline]
    pub(in crate::index) fn dot(self, row: &[u8], probe: &[i8]) -> i32 {
        assert!(row.len() == probe.len() && row.len().is_multiple_of(ROW_ALIGN));
        // SAFETY: `functions` is private and comes from `detected`, which hands them out only
        // after seeing their instructions on this processor, or is the portable set, which needs
        // none. Processors do not lose instructions while a program runs.
        unsafe { (self.functions.dot)(row, probe) }
    }

    /// Makes probes ready for [`dots`](Self::dots).
    ///
    /// # Panics
    /// No probe or more than [`MOST_PROBES`], probes of different lengths, or of a length that is
    /// zero or no multiple of 64.
    pub(in crate::index) fn panel<'a>(self, probes: &'a [&'a [i8]]) -> Panel<'a> {
        let panel = Panel::new(probes);
        if self.functions.tiles.is_some() { panel.packed() } else { panel }
    }

    /// The dot products of every row of `rows` with every probe: those of a probe together, in the
    /// order of the rows.
    ///
    /// # Panics
    /// Rows of another length than the probes, or an `out` that is not as long as there are
    /// products.
    #[inline]
    pub(in crate::index) fn dots(self, rows: &[u8], panel: &Panel<'_>, out: &mut [i32]) {
        let (stride, probes) = (panel.stride(), panel.probes());
        assert!(rows.len().is_multiple_of(stride));
        assert_eq!(out.len(), rows.len() / stride * probes.len());
        match (self.functions.tiles, panel.lines()) {
            // SAFETY: as in `dot`.
            (Some(tiles), Some(lines)) => unsafe { tiles(rows, lines, probes, out) },
            // SAFETY: as in `dot`.
            _ => unsafe { (self.functions.dots)(rows, stride, probes, out) },
        }
    }

    /// Pushes every live row whose signs are within both cuts of a probe. Columns are a group
    /// each.
    ///
    /// # Panics
    /// Columns of different lengths, or more than [`MOST_PROBES`] probes.
    #[inline]
    pub(in crate::index) fn sift(
        self,
        fronts: &[[u8; GROUP_SKETCH_BYTES]],
        backs: &[[u8; GROUP_SKETCH_BYTES]],
        live: &[u32],
        probes: &[SketchProbe<'_>],
        sifted: &mut Vec<Sifted>,
    ) {
        assert!(fronts.len() == backs.len() && fronts.len() == live.len());
        assert!(probes.len() <= MOST_PROBES);
        // SAFETY: as in `dot`.
        unsafe { (self.functions.sift)(Run { fronts, backs, live }, probes, sifted) }
    }

    /// The sum of the codes whose bit is 1 less the sum of the others.
    #[inline]
    pub(in crate::index) fn lean(
        self,
        bits: &[u8; SKETCH_BYTES],
        codes: &[i8; SKETCH_BITS],
    ) -> i32 {
        // SAFETY: as in `dot`.
        unsafe { (self.functions.lean)(bits, codes) }
    }
}

const PORTABLE: Functions = Functions {
    dot: portable::dot,
    dots: portable::dots,
    tiles: None,
    sift: portable::sift,
    lean: portable::lean,
};

#[cfg(target_arch = "x86_64")]
const AVX2: Functions =
    Functions { dot: avx2::dot, dots: avx2::dots, tiles: None, sift: avx2::sift, lean: avx2::lean };

#[cfg(target_arch = "x86_64")]
const AVX512: Functions = Functions {
    dot: avx512::dot,
    dots: avx512::dots,
    tiles: None,
    sift: avx512::sift,
    lean: avx512::lean,
};

#[cfg(target_arch = "aarch64")]
const NEON: Functions =
    Functions { dot: neon::dot, dots: neon::dots, tiles: None, sift: neon::sift, lean: neon::lean };

fn detected(kernel: Kernel) -> Option<Functions> {
    match kernel {
        #[cfg(target_arch = "x86_64")]
        Kernel::AmxInt8 if avx512::is_here() && amx::works() => {
            Some(Functions { tiles: Some(amx::dots), ..AVX512 })
        }
        #[cfg(target_arch = "x86_64")]
        Kernel::Avx512Vnni if avx512::is_here() => Some(AVX512),
        #[cfg(target_arch = "x86_64")]
        Kernel::Avx2 if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("popcnt") => {
            Some(AVX2)
        }
        #[cfg(target_arch = "aarch64")]
        Kernel::Neon if std::arch::is_aarch64_feature_detected!("neon") => Some(NEON),
        Kernel::Portable => Some(PORTABLE),
        Kernel::AmxInt8 | Kernel::Avx512Vnni | Kernel::Avx2 | Kernel::Neon => None,
    }
}
