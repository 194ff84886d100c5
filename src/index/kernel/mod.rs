//! Comparing rows with probes, once per instruction set.
//!
//! | function | what it does | used by |
//! |---|---|---|
//! | [`Kernels::dot`] | one row's codes by one probe's | rerank, graph |
//! | [`Kernels::dots`] | many rows' codes by a [`Panel`] of probes' | exact scan |
//! | [`Kernels::sift`] | many rows' signs against many probes' | sketch scan |
//! | [`Kernels::lean`] | one row's signs by one probe's codes | rerank |
//!
//! # Invariants
//! - All kernels return the same for the same input, whatever the input: none saturates.
//! - A [`Kernels`] exists only for instructions that this processor was seen to have, and with AMX
//!   only after the tiles were seen to compute what plain Rust computes.

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod dispatch;
#[cfg(target_arch = "aarch64")]
mod neon;
mod panel;
mod portable;
mod prefetch;
mod sketch;

#[cfg(test)]
mod tests;

use std::hint::black_box;
use std::time::Instant;

use serde::{Deserialize, Serialize};

pub(super) use self::dispatch::Kernels;
pub(super) use self::panel::Panel;
pub(super) use self::prefetch::{prefetch, prefetch_line};
pub(super) use self::sketch::{
    GROUP_SKETCH_BYTES, SKETCH_BITS, SKETCH_BYTES, SKETCH_WORDS, Sifted, SketchProbe,
};

/// Most probes that go through rows together.
pub(super) const MOST_PROBES: usize = 16;

/// A set of instructions to compare with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kernel {
    /// AMX tiles for eight probes and more, and AVX-512 as below for all the rest.
    AmxInt8,
    /// AVX-512 with VNNI and VPOPCNTDQ.
    Avx512Vnni,
    /// AVX2.
    Avx2,
    /// NEON.
    Neon,
    /// Plain Rust.
    Portable,
}

impl Kernel {
    /// All kernels, fastest first as a rule.
    pub const ALL: [Self; 5] =
        [Self::AmxInt8, Self::Avx512Vnni, Self::Avx2, Self::Neon, Self::Portable];

    /// The kernel's name, as in metrics and reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::AmxInt8 => "amx-int8",
            Self::Avx512Vnni => "avx512-vnni",
            Self::Avx2 => "avx2",
            Self::Neon => "neon",
            Self::Portable => "portable",
        }
    }

    /// The kernel ready for use; `None` when this processor lacks its instructions.
    pub(super) fn kernels(self) -> Option<Kernels> {
        Kernels::detect(self)
    }

    /// The fastest kernel that this processor has. Tiles have to show that they are faster.
    pub(super) fn best() -> Kernels {
        let mut here = Self::ALL.into_iter().filter_map(Self::kernels);
        let first = here.next().unwrap_or_else(Kernels::portable);
        match here.next() {
            Some(second) if first.kernel() == Self::AmxInt8 => faster(first, second),
            Some(_) | None => first,
        }
    }
}

/// The one that is faster with a full batch of probes.
fn faster(one: Kernels, other: Kernels) -> Kernels {
    const ROWS: usize = 256;
    const STRIDE: usize = 512;
    const TRIALS: usize = 16;
    let (rows, probe) = (vec![0x81; ROWS * STRIDE], vec![1; STRIDE]);
    let probes = [probe.as_slice(); MOST_PROBES];
    let mut out = vec![0; ROWS * MOST_PROBES];
    let mut least = |kernels: Kernels| {
        let panel = kernels.panel(&probes);
        let mut trial = || {
            let begun = Instant::now();
            kernels.dots(black_box(&rows), &panel, black_box(&mut out));
            begun.elapsed()
        };
        (0..TRIALS).map(|_| trial()).min()
    };
    if least(one) <= least(other) { one } else { other }
}
