//! What each way of searching costs on this machine, measured at start.
//!
//! The scans' costs are linear in the rows, with factors that depend on the processor, the kernel
//! and the width. They are timed once over a small made-up gallery, in a few milliseconds.
//!
//! # Not here
//! The graph's cost: it depends on the gallery and is measured there (`tuning.rs`).

use std::hint::black_box;
use std::time::{Duration, Instant};

use super::super::arena::ROW_ALIGN;
use super::super::catalogue::GROUP_ROWS;
use super::super::kernel::{
    GROUP_SKETCH_BYTES, Kernels, SKETCH_BITS, SKETCH_BYTES, SKETCH_WORDS, SketchProbe,
};
use super::super::scan::Cut;

/// Groups of the made-up gallery: 8,192 rows, more than the nearest caches hold.
const GROUPS: usize = 256;
/// Rows of a group.
const GROUP: usize = GROUP_ROWS as usize;
/// Measurements of each factor; the least counts, since noise only adds.
const ROUNDS: usize = 3;
/// Signs that are nobody's.
const ALTERNATING: [u64; SKETCH_WORDS] = [0x5555_5555_5555_5555; SKETCH_WORDS];
/// What a search costs before its first row, nanoseconds: locks, rotation, quantising.
const FIXED_NS: f64 = 5_000.0;

/// Nanoseconds a row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::index) struct Costs {
    /// Comparing codes.
    exact: f64,
    /// Comparing the front signs of a row that does not pass.
    front: f64,
    /// What a row costs more that passes the front cut.
    full: f64,
    /// What a row costs more that passes the cut over all signs.
    rerank: f64,
}

impl Costs {
    /// Times the kernels at this width.
    pub(in crate::index) fn measure(kernels: Kernels, width: usize) -> Self {
        let stride = width.next_multiple_of(ROW_ALIGN);
        let codes = noise(GROUPS * GROUP * stride);
        let halves = noise(2 * GROUPS * GROUP_SKETCH_BYTES);
        let (fronts, backs) = halves.as_chunks().0.split_at(GROUPS);
        let live = [u32::MAX; GROUPS];
        let mut sifted = Vec::with_capacity(GROUPS * GROUP);
        let mut sift = |front_cut, full_cut| {
            let probe = SketchProbe { words: &ALTERNATING, front_cut, full_cut };
            least(|| {
                sifted.clear();
                kernels.sift(fronts, backs, &live, &[probe], &mut sifted);
            })
        };
        let (none, front) = (sift(0, 0), sift(u32::MAX, 0));
        let probe: Vec<i8> = codes[..stride].iter().map(|byte| byte.cast_signed()).collect();
        let probes = [probe.as_slice()];
        let panel = kernels.panel(&probes);
        let mut dots = [0; GROUP];
        let exact = least(|| {
            for group in codes.chunks_exact(GROUP * stride) {
                kernels.dots(group, &panel, &mut dots);
                black_box(&dots);
            }
        });
        let lean_codes = [1; SKETCH_BITS];
        let rerank = least(|| {
            let sketches = halves.as_chunks::<SKETCH_BYTES>().0.iter();
            for (sketch, row) in sketches.zip(codes.chunks_exact(stride)) {
                black_box(kernels.lean(sketch, &lean_codes));
                black_box(kernels.dot(row, &probe));
            }
        });
        Self { exact, front: none, full: (front - none).max(0.0), rerank }
    }

    /// An exact scan of `rows`.
    pub(in crate::index) fn exact(&self, rows: usize) -> Duration {
        total(rows, self.exact)
    }

    /// A sketch scan of `rows` under `cut`, most of them strangers.
    pub(in crate::index) fn sketch(&self, rows: usize, cut: Cut) -> Duration {
        let (front, full) = (f64::from(cut.front_share), f64::from(cut.full_share));
        total(rows, self.front + front * self.full + full * self.rerank)
    }
}

#[expect(clippy::cast_precision_loss, reason = "an estimate")]
fn total(rows: usize, each: f64) -> Duration {
    Duration::from_secs_f64((FIXED_NS + rows as f64 * each) * 1e-9)
}

/// The shortest of a few runs over the made-up gallery, nanoseconds a row.
#[expect(clippy::cast_precision_loss, reason = "8,192 rows")]
fn least(mut run: impl FnMut()) -> f64 {
    let shortest = (0..ROUNDS).map(|_| {
        let begun = Instant::now();
        run();
        begun.elapsed()
    });
    shortest.min().unwrap_or_default().as_secs_f64() * 1e9 / (GROUPS * GROUP) as f64
}

/// Bytes that look random (xorshift, Marsaglia 2003). They stand for nobody.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut bytes = Vec::with_capacity(len + size_of::<u64>());
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

#[cfg(test)]
mod tests {
    use super::super::super::kernel::Kernel;
    use super::super::super::scan::Cuts;
    use super::*;

    #[test]
    fn costs_grow_with_rows_and_with_what_passes() {
        let (costs, cuts) = (Costs::measure(Kernel::best(), 512), Cuts::new(512));
        assert!(costs.exact > 0.0 && costs.front > 0.0);
        assert!(costs.exact(2_000_000) > costs.exact(1_000_000));
        let lax = costs.sketch(1_000_000, cuts.at(0.1));
        assert!(lax >= costs.sketch(1_000_000, cuts.at(0.5)));
    }
}
