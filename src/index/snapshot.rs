//! The index row by row, to be kept and brought back.
//!
//! A row leaves as a plain body that belongs to one record, so that whoever writes it can seal it
//! under that record's key: the key's end is then the end of the row in every copy. Rows leave and
//! come back in the order of their slots.
//!
//! ```text
//! head   | magic "ASSENTX1" | width u16 | rotation's fingerprint, 16 bytes | slots u32 |
//! body   | codes, width bytes | scale f32 | level 0: n u8, n rows u32 | level 1 ... | ...
//!          everything little endian; links only where there is a graph
//! ```
//!
//! The sketch is not kept: codes give it back. Rows may be exported while the gallery changes, so
//! links of one row may name rows that another part of the snapshot lacks; what comes back is not
//! trusted and is mended (`graph/restore.rs`).
//!
//! # Invariants
//! - A body that is not what [`Index::export`] made is refused, and only its row is lost.
//! - Restored rows are found by scans at once; the graph serves when it is complete and measured.
//!
//! # Not here
//! Sealing and files (store).

use std::sync::PoisonError;
use std::sync::mpsc::sync_channel;

use zeroize::Zeroizing;

use super::care::pool;
use super::catalogue::GROUP_ROWS;
use super::graph::{Graph, Links};
use super::quantise::Row;
use super::state::LockedRows;
use super::{Index, IndexError, NewTemplate};
use crate::types::{RecordId, SlotId};

const MAGIC: &[u8; 8] = b"ASSENTX1";
const WIDTH_BYTES: usize = size_of::<u16>();
const FINGERPRINT_BYTES: usize = 16;
const SCALE_BYTES: usize = size_of::<f32>();
const LINK_BYTES: usize = size_of::<u32>();
/// Bytes of a head.
pub const HEAD_BYTES: usize = KIND_BYTES + SLOTS_BYTES;
/// Bytes that say what index a snapshot is of.
const KIND_BYTES: usize = MAGIC.len() + WIDTH_BYTES + FINGERPRINT_BYTES;
const SLOTS_BYTES: usize = size_of::<u32>();
/// More slots than any index has had: half a terabyte of rows, and short of what the graph can
/// number.
const MOST_SLOTS: u32 = 1 << 30;
/// Rows that are decoded together and brought back under one hold of the lock.
const BATCH: usize = 256;
/// Batches that may be ready before they are entered.
const BATCHES_AHEAD: usize = 4;

/// One row of a snapshot.
pub struct ExportedRow {
    /// Where it is.
    pub slot: SlotId,
    /// Whose it is.
    pub record: RecordId,
    /// Template data; to be sealed under the record's own key.
    pub body: Zeroizing<Vec<u8>>,
}

/// One row to be brought back.
pub struct RestoredRow {
    /// Where it was.
    pub slot: SlotId,
    /// What it is held under, from the store: the snapshot is no source of consent.
    pub template: NewTemplate,
    /// As exported.
    pub body: Zeroizing<Vec<u8>>,
}

/// What came back.
#[must_use = "the links still have to be given to `Index::relink`, and dropped records re-read"]
pub struct Restored {
    /// Rows that scans find from now on.
    pub rows: usize,
    /// Records whose row could not be used; their templates have to be inserted from the store.
    pub dropped: Vec<RecordId>,
    /// For [`Index::relink`].
    pub links: SavedLinks,
}

/// The links of restored rows, not looked at yet.
#[derive(Default)]
pub struct SavedLinks {
    rows: usize,
    bytes: Vec<u8>,
    /// By row.
    spans: Vec<Span>,
}

/// Where the links of a slot begin and end, one byte more than there is: that tells a row without
/// links from no row.
#[derive(Clone, Copy, Default)]
struct Span {
    generation: u32,
    from: usize,
    to: usize,
}

impl Index {
    /// What a snapshot begins with; taken before its first row. It can be restored into an index of
    /// the same width and key.
    #[must_use]
    pub fn snapshot_head(&self) -> [u8; HEAD_BYTES] {
        let slots = self.read_anyway().catalogue.group_count() * GROUP_ROWS as usize;
        let mut head = [0; HEAD_BYTES];
        let (kind, end) = head.split_at_mut(KIND_BYTES);
        kind.copy_from_slice(&self.snapshot_kind());
        end.copy_from_slice(&u32::try_from(slots).unwrap_or(u32::MAX).to_le_bytes());
        head
    }

    fn snapshot_kind(&self) -> [u8; KIND_BYTES] {
        let mut kind = [0; KIND_BYTES];
        let (magic, rest) = kind.split_at_mut(MAGIC.len());
        let (width, fingerprint) = rest.split_at_mut(WIDTH_BYTES);
        magic.copy_from_slice(MAGIC);
        let dimensions = u16::try_from(self.quantiser.width()).unwrap_or(u16::MAX);
        width.copy_from_slice(&dimensions.to_le_bytes());
        fingerprint.copy_from_slice(&self.quantiser.fingerprint());
        kind
    }

    /// At most `limit` live rows from a slot on, in the order of their slots; none at the end.
    ///
    /// # Errors
    /// A poisoned index.
    pub fn export(&self, from: u32, limit: usize) -> Result<Vec<ExportedRow>, IndexError> {
        let state = self.read()?;
        let rows = state.catalogue.live_slots(from).take(limit).filter_map(|slot| {
            let record = state.catalogue.record(slot.index)?;
            let (codes, scale) = state.arena.row(slot.index);
            let links = state.graph.as_ref().map(|graph| graph.export(slot.index));
            let body = body(&codes[..self.quantiser.width()], scale, &links.unwrap_or_default());
            Some(ExportedRow { slot, record, body })
        });
        Ok(rows.collect())
    }

    /// Brings rows back into an index that was made under the same key. A row that cannot be used
    /// is dropped and its record named. Rows come in the order of their slots; an iterator that
    /// knows how many are left saves time.
    ///
    /// A row is believed no further than the head says that slots go, and memory is taken up to
    /// there: who keeps a snapshot seals its head as well.
    ///
    /// # Errors
    /// A head of another width, key or version; no memory, or no right to lock it where the
    /// settings demand that; a poisoned index.
    pub fn restore(
        &self,
        head: &[u8],
        rows: impl IntoIterator<Item = RestoredRow, IntoIter: Send>,
    ) -> Result<Restored, IndexError> {
        let slots = match head.split_first_chunk::<KIND_BYTES>() {
            Some((kind, slots)) if *kind == self.snapshot_kind() => slots.try_into().ok(),
            Some(_) | None => None,
        };
        let slots = u32::from_le_bytes(slots.ok_or(IndexError::ForeignSnapshot)?);
        if slots > MOST_SLOTS {
            return Err(IndexError::ForeignSnapshot);
        }
        let rows = rows.into_iter();
        self.expect(rows.size_hint().0.min(slots as usize))?;
        let (mut dropped, mut links) = (Vec::new(), SavedLinks::default());
        std::thread::scope(|threads| {
            // One thread reads and decodes while this one enters what the other has ready.
            let (ready, batches) = sync_channel(BATCHES_AHEAD);
            let mut decoded = rows.map(|row| self.decode(row)).peekable();
            threads.spawn(move || {
                while decoded.peek().is_some() {
                    let batch: Vec<Decoded> = decoded.by_ref().take(BATCH).collect();
                    if ready.send(batch).is_err() {
                        return; // nobody enters any more
                    }
                }
            });
            for batch in batches {
                self.enter(batch, slots, &mut dropped, &mut links)?;
            }
            Ok(())
        })?;
        Ok(Restored { rows: links.rows, dropped, links })
    }

    /// Makes the graph from the links of restored rows, beside searches and changes, on `threads`
    /// threads. Until it has returned scans serve.
    ///
    /// # Errors
    /// A poisoned index, or no threads.
    pub fn relink(&self, links: &SavedLinks, threads: usize) -> Result<(), IndexError> {
        let rows = u32::try_from(links.spans.len()).map_err(|_beyond_u32| IndexError::Full)?;
        // A pool of its own: its tasks take the lock, which those of the common pool never may.
        let pool = pool(threads)?;
        // A slot that has another generation by now holds somebody else, who is linked anew.
        let (settings, live) = {
            let mut state = self.state.write().map_err(|_poisoned| IndexError::Poisoned)?;
            let Some(settings) = state.begin_relinking() else { return Ok(()) };
            let mut live = vec![false; links.spans.len()];
            for slot in state.catalogue.live_slots(0).filter(|slot| links.has(*slot)) {
                live[slot.index as usize] = true;
            }
            (settings, live)
        };
        let mut relinking = Relinking { index: self, made: None };
        let space = LockedRows { state: &self.state, tools: self.tools() };
        let live = |row: u32| live[row as usize];
        relinking.made = Some(
            pool.install(|| Graph::restore(settings, &space, rows, live, |row| links.of(row))),
        );
        Ok(())
    }

    /// Makes room for so many rows.
    fn expect(&self, rows: usize) -> Result<(), IndexError> {
        let mut state = self.state.write().map_err(|_poisoned| IndexError::Poisoned)?;
        state.catalogue.expect(rows);
        Ok(())
    }

    fn decode(&self, row: RestoredRow) -> Decoded {
        let RestoredRow { slot, template, body } = row;
        let parts = body.split_at_checked(self.quantiser.width()).and_then(|(codes, rest)| {
            let (scale, links) = rest.split_first_chunk::<SCALE_BYTES>()?;
            let row = self.quantiser.row_of_codes(codes, f32::from_le_bytes(*scale))?;
            Some((row, links.to_vec()))
        });
        Decoded { slot, template, parts }
    }

    fn enter(
        &self,
        batch: Vec<Decoded>,
        slots: u32,
        dropped: &mut Vec<RecordId>,
        links: &mut SavedLinks,
    ) -> Result<(), IndexError> {
        let mut state = self.state.write().map_err(|_poisoned| IndexError::Poisoned)?;
        for Decoded { slot, template, parts } in batch {
            let record = template.record;
            let Some((row, saved)) = parts.filter(|_| slot.index < slots) else {
                dropped.push(record);
                continue;
            };
            match state.adopt(slot, template, &row) {
                Ok(()) => links.keep(slot, &saved),
                Err(fault) if fault.is_of_the_machine() => return Err(fault),
                Err(_unusable) => dropped.push(record),
            }
        }
        Ok(())
    }
}

/// A graph in the making. However it ends, the index has a graph again: what was made, or an empty
/// one for [`Index::care`] to fill.
struct Relinking<'a> {
    index: &'a Index,
    made: Option<Graph>,
}

impl Drop for Relinking<'_> {
    fn drop(&mut self) {
        let mut state = self.index.state.write().unwrap_or_else(PoisonError::into_inner);
        state.end_relinking(self.index.tools(), self.made.take());
    }
}

/// A row on its way back; without parts where its body could not be used.
struct Decoded {
    slot: SlotId,
    template: NewTemplate,
    parts: Option<(Row, Vec<u8>)>,
}

fn body(codes: &[u8], scale: f32, links: &Links) -> Zeroizing<Vec<u8>> {
    let links_bytes: usize = links.0.iter().map(|level| 1 + level.len() * LINK_BYTES).sum();
    let mut body = Zeroizing::new(Vec::with_capacity(codes.len() + SCALE_BYTES + links_bytes));
    body.extend_from_slice(codes);
    body.extend_from_slice(&scale.to_le_bytes());
    for level in &links.0 {
        body.push(u8::try_from(level.len()).expect("at most 128 links a level"));
        body.extend(level.iter().flat_map(|row| row.to_le_bytes()));
    }
    body
}

impl SavedLinks {
    /// Links that cannot be read are none.
    fn keep(&mut self, slot: SlotId, links: &[u8]) {
        let (row, from) = (slot.index as usize, self.bytes.len());
        self.rows += 1;
        self.bytes.extend_from_slice(links);
        self.bytes.push(0);
        self.spans.resize(self.spans.len().max(row + 1), Span::default());
        self.spans[row] = Span { generation: slot.generation, from, to: self.bytes.len() };
    }

    fn has(&self, slot: SlotId) -> bool {
        let span = self.spans.get(slot.index as usize);
        span.is_some_and(|span| span.from < span.to && span.generation == slot.generation)
    }

    fn of(&self, row: u32) -> Links {
        let Span { from, to, .. } = self.spans.get(row as usize).copied().unwrap_or_default();
        let mut rest = self.bytes.get(from..to.max(from + 1) - 1).unwrap_or_default();
        let mut levels = Vec::new();
        while let Some((count, links)) = rest.split_first() {
            let Some((level, others)) = links.split_at_checked(usize::from(*count) * LINK_BYTES)
            else {
                break;
            };
            let rows = level.as_chunks().0.iter().map(|row| u32::from_le_bytes(*row));
            levels.push(rows.collect());
            rest = others;
        }
        Links(levels)
    }
}
