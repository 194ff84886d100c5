//! The probes of a batch, made ready once for all the rows that they are compared with.

use zeroize::{Zeroize, Zeroizing};

use super::MOST_PROBES;
use crate::index::arena::ROW_ALIGN;

/// Bytes that a tile multiplies together and adds to one sum.
const GRAIN: usize = 4;
/// Fewest probes that are packed: with fewer most of a tile would be empty.
const FEWEST_PACKED: usize = 8;

/// Probes of one width, which is also that of the rows.
///
/// # Invariants
/// - The width is not zero and a multiple of 64, and all probes have it.
/// - A packed copy is zeroised when dropped.
pub(in crate::index) struct Panel<'a> {
    probes: &'a [&'a [i8]],
    packed: Option<Zeroizing<Vec<Line>>>,
}

/// The next four bytes of each probe, and zeros for probes that are not there: one line of a tile.
#[derive(Clone, Zeroize)]
#[repr(align(64))]
pub(super) struct Line(pub(super) [[i8; GRAIN]; MOST_PROBES]);

impl<'a> Panel<'a> {
    /// The probes as they are.
    ///
    /// # Panics
    /// No probe or more than [`MOST_PROBES`], probes of different lengths, or of a length that is
    /// zero or no multiple of 64.
    pub(super) fn new(probes: &'a [&'a [i8]]) -> Self {
        assert!((1..=MOST_PROBES).contains(&probes.len()));
        let stride = probes[0].len();
        assert!(stride > 0 && stride.is_multiple_of(ROW_ALIGN));
        assert!(probes.iter().all(|probe| probe.len() == stride));
        Self { probes, packed: None }
    }

    /// With a copy in the order in which tiles take them, if there are enough for that.
    pub(super) fn packed(self) -> Self {
        let packed = (self.probes.len() >= FEWEST_PACKED).then(|| pack(self.probes));
        Self { packed, ..self }
    }

    /// The probes.
    pub(super) fn probes(&self) -> &'a [&'a [i8]] {
        self.probes
    }

    /// The copy, four bytes a line.
    pub(super) fn lines(&self) -> Option<&[Line]> {
        self.packed.as_deref().map(Vec::as_slice)
    }

    /// Bytes of a probe, and of a row.
    pub(super) fn stride(&self) -> usize {
        self.probes[0].len()
    }
}

fn pack(probes: &[&[i8]]) -> Zeroizing<Vec<Line>> {
    let empty = Line([[0; GRAIN]; MOST_PROBES]);
    let mut lines = Zeroizing::new(vec![empty; probes[0].len() / GRAIN]);
    for (number, probe) in probes.iter().enumerate() {
        for (line, grain) in lines.iter_mut().zip(probe.as_chunks().0) {
            line.0[number] = *grain;
        }
    }
    lines
}
