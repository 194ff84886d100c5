//! Keeping the index in a sealed snapshot, and starting from it.
//!
//! ```text
//! row    what the record is held under, postcard: slot u32, generation u32, subject, consent tag,
//!        end of matching | the index's body of the row (index/snapshot.rs)
//! ```
//! The store seals a row under its record's key (store/snapshot); this file says what is in it.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::task::spawn_blocking;
use zeroize::Zeroizing;

use super::{Engine, OpenError, index_opened};
use crate::consent::ConsentTag;
use crate::index::{ExportedRow, Index, IndexError, NewTemplate, RestoredRow, SavedLinks};
use crate::store::{
    KeyRing, LoadReport, Snapshot, SnapshotFault, SnapshotHead, SnapshotRow, Store, StoreError,
};
use crate::types::{RecordId, Revision, SlotId, SubjectRef, Timestamp};

/// Rows that are taken from the index under one hold of its lock.
const BATCH_ROWS: usize = 512;
/// Room for what a record is held under, bytes.
const HELD_UNDER_BYTES: usize = 1_024;
/// Rows between two words on how far a snapshot is.
const PROGRESS_ROWS: u64 = 250_000;
/// Pause between a page of keys and the next when all records are looked at again: with it that
/// takes about an eighth of one core.
const SCRUB_PAUSE: Duration = Duration::from_millis(100);

/// Where a snapshot lies and how fast one is written.
#[derive(Debug, Clone)]
pub struct SnapshotSettings {
    /// The file.
    pub path: PathBuf,
    /// Most rows written in a second.
    pub rows_per_second: u32,
}

/// A snapshot that was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotWritten {
    /// Everything up to this revision is in it, but for what was revoked since.
    pub revision: Revision,
    /// Its rows.
    pub rows: u64,
    /// How long it took.
    pub took: Duration,
}

/// Why no snapshot was written. The one before stays.
#[derive(Debug, Error)]
pub enum SnapshotError {
    /// Keys or file.
    #[error(transparent)]
    Store(#[from] SnapshotFault),
    /// The index.
    #[error(transparent)]
    Index(#[from] IndexError),
}

/// What a record is held under, beside its row.
#[derive(Serialize, Deserialize)]
struct HeldUnder {
    slot: u32,
    generation: u32,
    subject: SubjectRef,
    consent: ConsentTag,
    matches_until: Timestamp,
}

/// What a start found.
pub(super) struct Loaded {
    pub(super) report: LoadReport,
    /// Records whose rows came from a snapshot.
    pub(super) restored: usize,
    /// The graph's links of those.
    pub(super) links: Option<SavedLinks>,
    /// The revision of that snapshot.
    pub(super) revision: Option<Revision>,
}

impl Engine {
    /// Writes a snapshot beside the requests. Dropping the future gives it up.
    ///
    /// # Errors
    /// See [`SnapshotError`].
    pub async fn write_snapshot(
        &self,
        settings: &SnapshotSettings,
    ) -> Result<SnapshotWritten, SnapshotError> {
        let begun = Instant::now();
        let (revision, rows) = (self.revision(), self.index.status().live as u64);
        let head = SnapshotHead { revision, rows, index: self.index.snapshot_head().to_vec() };
        let mut writer = self.store.begin_snapshot(&settings.path, &head)?;
        let (mut from, mut passed) = (0, 0);
        loop {
            let exported = self.index.export(from, BATCH_ROWS)?;
            let Some(last) = exported.last() else { break };
            from = last.slot.index + 1;
            let before = passed;
            passed += exported.len() as u64;
            let batch = exported.into_iter().filter_map(|row| self.snapshot_row(row)).collect();
            writer = writer.add(&self.store, batch).await?;
            if before / PROGRESS_ROWS < passed / PROGRESS_ROWS {
                tracing::info!(rows = passed, of = rows, "writing a snapshot");
            }
            tokio::time::sleep(wait(settings, passed, begun)).await;
        }
        let rows = writer.finish().await?;
        Ok(SnapshotWritten { revision, rows, took: begun.elapsed() })
    }

    /// `None` for a record that was withdrawn since its row was taken.
    fn snapshot_row(&self, row: ExportedRow) -> Option<SnapshotRow> {
        let ExportedRow { slot, record, body } = row;
        let held = self.index.describe(record)?;
        let plain = encode(slot, held, &body)?;
        Some(SnapshotRow { record, plain })
    }

    /// Opens every record once more, slowly. Those that do not open match no more from then on and
    /// count as quarantined; how many.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn scrub(&self) -> Result<usize, StoreError> {
        let mut found = 0;
        for (record, reason) in self.store.scrub(SCRUB_PAUSE).await? {
            let Some(pending) = self.index.withdraw(record) else { continue };
            let _purged = self.index.purge(pending);
            tracing::warn!(%record, %reason, "record quarantined");
            self.quarantined.lock().unwrap_or_else(PoisonError::into_inner).push(record);
            found += 1;
        }
        self.scrubbed.store(true, Ordering::Release);
        Ok(found)
    }

    /// The revision of the snapshot that this process started from; `None` when there was none.
    #[must_use]
    pub fn snapshot_revision(&self) -> Option<Revision> {
        self.started_from
    }

    /// Whether every record was opened since the start: at the start itself, or by
    /// [`Engine::scrub`].
    #[must_use]
    pub fn is_scrubbed(&self) -> bool {
        self.scrubbed.load(Ordering::Acquire)
    }
}

/// Fills the empty index: from the snapshot as far as it goes, else from the store.
pub(super) async fn load(
    store: &Store,
    index: &Arc<Index>,
    snapshot: Option<&Path>,
) -> Result<Loaded, OpenError> {
    let opened = snapshot.map(|path| store.open_snapshot(path)).transpose();
    let opened = opened.unwrap_or_else(|fault| {
        let fault = &fault as &dyn std::error::Error;
        tracing::warn!(fault, "the snapshot is not used; all records are opened instead");
        None
    });
    let mut refused = None;
    let each = |opened: crate::store::OpenedRecord| {
        if let Err(fault) = index_opened(index, &opened) {
            refused.get_or_insert(fault);
        }
    };
    let loaded = match opened.flatten() {
        None => {
            let report = store.load(each).await?;
            Loaded { report, restored: 0, links: None, revision: None }
        }
        Some(snapshot) => {
            let revision = Some(snapshot.head().revision);
            let ring = store.key_ring().await?;
            let (ring, back) = restore(Arc::clone(index), snapshot, ring).await?;
            let report = store.load_beside(ring, &back.dropped, each).await?;
            Loaded { report, restored: back.rows, links: Some(back.links), revision }
        }
    };
    refused.map_or(Ok(loaded), |fault| Err(fault.into()))
}

/// What came back from a snapshot.
struct Back {
    rows: usize,
    dropped: HashSet<RecordId>,
    links: SavedLinks,
}

/// A snapshot that the index cannot use, such as one under another key of its own, is none.
async fn restore(
    index: Arc<Index>,
    snapshot: Snapshot,
    ring: KeyRing,
) -> Result<(KeyRing, Back), OpenError> {
    let work = move || {
        let SnapshotHead { revision, index: head, .. } = snapshot.head().clone();
        let restored = index.restore(&head, snapshot.rows(&ring, decode));
        let back = match restored {
            Ok(restored) => Back {
                rows: restored.rows,
                dropped: restored.dropped.into_iter().collect(),
                links: restored.links,
            },
            Err(IndexError::ForeignSnapshot) => {
                tracing::warn!("the snapshot is of another index; all records are opened instead");
                Back { rows: 0, dropped: HashSet::new(), links: SavedLinks::default() }
            }
            Err(fault) => return Err(fault),
        };
        let (erased, damaged) = (ring.erased(), ring.damaged());
        tracing::info!(%revision, rows = back.rows, erased, damaged, "snapshot read");
        Ok((ring, back))
    };
    Ok(spawn_blocking(work).await.unwrap_or(Err(IndexError::Poisoned))?)
}

fn encode(slot: SlotId, held: NewTemplate, body: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let NewTemplate { subject, consent, matches_until, .. } = held;
    let SlotId { index, generation } = slot;
    let held = HeldUnder { slot: index, generation, subject, consent, matches_until };
    let mut plain = Zeroizing::new(vec![0; HELD_UNDER_BYTES + body.len()]);
    let length = match postcard::to_slice(&held, &mut plain) {
        Ok(written) => written.len(),
        // Longer names than any that were seen: the record is loaded from the store.
        Err(_full) => return None,
    };
    plain.truncate(length);
    plain.extend_from_slice(body);
    Some(plain)
}

fn decode(record: RecordId, plain: &[u8]) -> Option<RestoredRow> {
    let (held, body) = postcard::take_from_bytes::<HeldUnder>(plain).ok()?;
    let HeldUnder { slot, generation, subject, consent, matches_until } = held;
    Some(RestoredRow {
        slot: SlotId { index: slot, generation },
        template: NewTemplate { record, subject, consent, matches_until },
        body: Zeroizing::new(body.to_vec()),
    })
}

/// How long to wait so that rows are written no faster than they may be.
fn wait(settings: &SnapshotSettings, rows: u64, begun: Instant) -> Duration {
    let due = Duration::from_secs(rows) / settings.rows_per_second.max(1);
    due.saturating_sub(begun.elapsed())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consent::ClassKey;

    fn held(name: &str) -> NewTemplate {
        NewTemplate {
            record: RecordId::from_bytes([7; 16]),
            subject: SubjectRef::parse(name).unwrap(),
            consent: ConsentTag {
                consent_id: name.parse().unwrap(),
                class: ClassKey {
                    controller: name.parse().unwrap(),
                    purpose: name.parse().unwrap(),
                    scope: name.parse().unwrap(),
                },
                notice_version: "2".parse().unwrap(),
                granted_at: "2025-06-01T00:00:00Z".parse().unwrap(),
                expires_at: "2026-06-01T00:00:00Z".parse().unwrap(),
            },
            matches_until: "2026-05-01T00:00:00Z".parse().unwrap(),
        }
    }

    #[test]
    fn a_row_comes_back_as_it_was() {
        let slot = SlotId { index: 70_000, generation: 3 };
        for name in ["a", &"n".repeat(64)] {
            let plain = encode(slot, held(name), &[1, 2, 3]).unwrap();
            let row = decode(RecordId::from_bytes([7; 16]), &plain).unwrap();
            assert_eq!(
                (row.slot, &row.template, &row.body[..]),
                (slot, &held(name), &[1, 2, 3][..])
            );
        }
    }

    #[test]
    fn what_is_no_row_is_refused() {
        let plain = encode(SlotId { index: 1, generation: 0 }, held("abc"), b"").unwrap();
        for length in 0..plain.len() {
            assert!(decode(RecordId::from_bytes([7; 16]), &plain[..length]).is_none());
        }
    }
}
