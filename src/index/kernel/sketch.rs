//! Sketches as kernels see them: the layout of a group, a probe, and what is found.

/// Signs of a row.
pub(in crate::index) const SKETCH_BITS: usize = 512;
/// Bytes of a row's signs.
pub(in crate::index) const SKETCH_BYTES: usize = SKETCH_BITS / 8;
/// Rows of a group.
pub(super) const GROUP_ROWS: usize = 32;
/// Bytes of half the signs of a group's rows.
pub(in crate::index) const GROUP_SKETCH_BYTES: usize = GROUP_ROWS * SKETCH_BYTES / 2;
/// 64-bit words of a sketch.
pub(in crate::index) const SKETCH_WORDS: usize = SKETCH_BYTES / size_of::<u64>();
/// 64-bit words of half a sketch.
pub(super) const HALF_WORDS: usize = SKETCH_WORDS / 2;
/// Bytes of half a sketch.
pub(super) const HALF_BYTES: usize = SKETCH_BYTES / 2;

/// Half the signs of a group's rows.
pub(super) type GroupHalf = [u8; GROUP_SKETCH_BYTES];

/// A probe's signs, and how far a row may be from them.
///
/// It refers to the signs, because what is not copied need not be wiped.
#[derive(Clone, Copy)]
pub(in crate::index) struct SketchProbe<'a> {
    /// The signs.
    pub(in crate::index) words: &'a [u64; SKETCH_WORDS],
    /// Most differing signs in the front half.
    pub(in crate::index) front_cut: u32,
    /// Most differing signs in all.
    pub(in crate::index) full_cut: u32,
}

impl<'a> SketchProbe<'a> {
    /// Words of the front.
    pub(super) fn front(self) -> &'a [u64; HALF_WORDS] {
        &self.words.as_chunks().0[0]
    }

    /// Words of the back.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn back(self) -> &'a [u64; HALF_WORDS] {
        &self.words.as_chunks().0[1]
    }
}

/// A row within both cuts of a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(C)]
pub(in crate::index) struct Sifted {
    /// The row, counted from the first of the run.
    pub(in crate::index) row: u32,
    /// The probe, counted from the first of the batch.
    pub(in crate::index) probe: u16,
    /// Differing signs, of 512.
    pub(in crate::index) distance: u16,
}

/// Groups that lie together: three columns of one length.
#[derive(Clone, Copy)]
pub(super) struct Run<'a> {
    /// Front halves, interleaved by word.
    pub(super) fronts: &'a [GroupHalf],
    /// Back halves, row by row.
    pub(super) backs: &'a [GroupHalf],
    /// Which rows count.
    pub(super) live: &'a [u32],
}

impl<'a> Run<'a> {
    /// The backs, row by row.
    pub(super) fn back_rows(self) -> &'a [[u8; HALF_BYTES]] {
        self.backs.as_flattened().as_chunks().0
    }

    /// The run in pieces of at most `groups`, and the first row of each.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn pieces(self, groups: usize) -> impl Iterator<Item = (u32, Run<'a>)> {
        let columns = self.fronts.chunks(groups).zip(self.backs.chunks(groups));
        let pieces = columns.zip(self.live.chunks(groups));
        let first_rows = (0..).step_by(groups * GROUP_ROWS);
        first_rows.zip(pieces.map(|((fronts, backs), live)| Run { fronts, backs, live }))
    }
}

/// A cut in the width of distances. None is larger than 512.
pub(super) fn cut16(cut: u32) -> u16 {
    cut.min(512) as u16
}
