//! Reading one record's rows, what is held, and the audit trail.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::StoreError;
use super::backend::{Opaque, RowKey, Table};
use super::changes::{Held, RECORD_TABLES, encoded, rows_of};
use super::log::AuditEvent;
use super::record::RecordFault;
use super::sealing::RecordKey;
use super::trail::{Block, Note};
use super::tree::{self, Place};
use super::typed::Store;
use super::vault::KeyStatus;
use crate::audit::{Head, Leaf};
use crate::crypto::cell::Epoch;
use crate::types::{RecordId, Timestamp};

/// Blocks of the audit trail that are looked at together when it is pruned.
const BLOCKS_AT_ONCE: usize = 1_024;
/// How often one record is looked at before it is called damaged.
const LOOKS: u32 = 4;

/// The audit trail.
impl Store {
    /// Adds an entry to the audit trail; durable on return.
    ///
    /// # Errors
    /// The disk is full, or the backend.
    pub async fn note(&self, event: &AuditEvent<'_>) -> Result<(), StoreError> {
        self.check_space()?;
        let (vault, note) = (Arc::clone(&self.vault), Note::of(encoded(event)));
        Ok(self.backend.note(Box::new(move || vault.note(note))).await?)
    }

    /// The end of the audit trail, as the newest commit left it.
    #[must_use]
    pub fn audit_head(&self) -> Head {
        self.vault.audit_head()
    }

    /// The chain's head behind entry `seq`, or behind the last one where there are fewer. Where the
    /// beginning was pruned and `seq` with it, the head before the first entry that is left.
    ///
    /// # Errors
    /// A block does not open, or the backend.
    pub async fn audit_at(&self, seq: u64) -> Result<Head, StoreError> {
        let Some(Block { mut before, entries }) = self.block_of(seq.saturating_add(1)).await?
        else {
            return Ok(Head::genesis(&self.keys.signer.public_key()));
        };
        for entry in entries {
            if before.seq >= seq {
                break;
            }
            before = before.then(&Leaf::of(&entry));
        }
        Ok(before)
    }

    /// Entries of the audit trail in order, beginning with the one after `after`, or with the first
    /// that is left: some that stand together, none at the end. With them the head before the first.
    ///
    /// # Errors
    /// A block does not open, or the backend.
    pub async fn audit(&self, after: u64) -> Result<Option<(Head, Vec<Vec<u8>>)>, StoreError> {
        let Some(Block { mut before, mut entries }) =
            self.block_of(after.saturating_add(1)).await?
        else {
            return Ok(None);
        };
        let skipped = usize::try_from(after.saturating_sub(before.seq)).unwrap_or(usize::MAX);
        if skipped >= entries.len() {
            return Ok(None);
        }
        for entry in entries.drain(..skipped) {
            before = before.then(&Leaf::of(&entry));
        }
        Ok(Some((before, entries)))
    }

    /// The entries behind `head`, which is not the end of the trail: some that stand together.
    ///
    /// # Errors
    /// A hole, or a block that does not follow from `head`; a block does not open, or the backend.
    pub async fn audit_behind(&self, head: Head) -> Result<Vec<Vec<u8>>, StoreError> {
        let block = self.audit(head.seq).await?.filter(|(before, _)| *before == head);
        let (_, entries) = block.ok_or(StoreError::Malformed { what: "audit trail" })?;
        Ok(entries)
    }

    /// The block with entry `seq`; else the one before it, or the first that is left.
    async fn block_of(&self, seq: u64) -> Result<Option<Block>, StoreError> {
        let row = match self.backend.floor(Table::Audit, RowKey::sequence(seq)).await? {
            Some(row) => Some(row),
            None => self.backend.scan(Table::Audit, None, 1).await?.pop(),
        };
        row.map(|(row, value)| Block::open(&self.keys.audit, &row, &value)).transpose()
    }

    /// Removes entries older than `before` from the beginning of the trail, in whole blocks and at
    /// most some thousand at a time; the trail says so. The head behind the last of them, `None`
    /// when nothing is that old. The newest block always stays.
    ///
    /// # Errors
    /// A block does not open, or the backend.
    pub async fn prune(&self, before: Timestamp) -> Result<Option<Head>, StoreError> {
        let blocks = self.backend.scan(Table::Audit, None, BLOCKS_AT_ONCE + 1).await?;
        let mut old = Vec::new();
        let mut through = None;
        for (row, value) in blocks.iter().rev().skip(1).rev() {
            let block = Block::open(&self.keys.audit, row, value)?;
            if !block.is_older_than(before) {
                break;
            }
            old.push(row.clone());
            through = Some(block.end());
        }
        let Some(through) = through else { return Ok(None) };
        let (vault, at) = (Arc::clone(&self.vault), Timestamp::now());
        let note = Note::of(encoded(&AuditEvent::Pruned { at, through, before }));
        let work = move || {
            vault.prune(old, through.seq);
            vault.note(note);
        };
        self.backend.note(Box::new(work)).await?;
        Ok(Some(through))
    }

    /// How many records are held.
    ///
    /// # Errors
    /// The backend.
    pub async fn records(&self) -> Result<u64, StoreError> {
        Ok(self.backend.count(Table::Headers).await?)
    }

    /// How the keys are kept.
    #[must_use]
    pub fn key_status(&self) -> KeyStatus {
        self.vault.key_status()
    }

    /// The epoch of the ROOT in force.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.vault.epoch()
    }
}

/// Reads.
impl Store {
    pub(super) async fn row(
        &self,
        table: Table,
        key: RowKey,
    ) -> Result<Option<Opaque>, StoreError> {
        Ok(self.backend.read(vec![table.row(key)]).await?.pop().flatten())
    }

    /// What `open` makes of one row of a record and the record's key; `None` when the record is
    /// not held.
    pub(super) async fn with_key<T>(
        &self,
        id: RecordId,
        table: Table,
        open: impl Fn(&RecordKey, &Opaque) -> Result<T, RecordFault>,
    ) -> Result<Option<T>, StoreError> {
        let mut looks = 0;
        loop {
            let rows = vec![table.row(id.into()), Table::Keys.row(id.into())];
            let mut rows = self.backend.read(rows).await?.into_iter();
            let (Some(row), place) = (rows.next().flatten(), rows.next().flatten()) else {
                return Ok(None);
            };
            let opened = match place.as_ref().and_then(Place::of) {
                None => Err(RecordFault::KeyMissing),
                Some(place) => self.record_key(id, place).await?.and_then(|key| open(&key, &row)),
            };
            looks += 1;
            match opened {
                Ok(opened) => return Ok(Some(opened)),
                // A revocation in the same page may have come between the reads.
                Err(_) if looks < LOOKS => {}
                Err(source) => return Err(StoreError::Record { id, source }),
            }
        }
    }

    async fn record_key(
        &self,
        id: RecordId,
        place: Place,
    ) -> Result<Result<RecordKey, RecordFault>, StoreError> {
        let page = self.backend.read(vec![tree::page_row(place.page)]).await?.pop().flatten();
        let page = page.ok_or(RecordFault::KeyMissing);
        Ok(page.and_then(|page| self.vault.record_key(id, place, &page)))
    }

    /// Those of `records` of which any row or the key is there, each once.
    pub(super) async fn held(&self, records: &[RecordId]) -> Result<Vec<Held>, StoreError> {
        let mut ids = records.to_vec();
        ids.sort_unstable();
        ids.dedup();
        let rows: Vec<_> = ids.iter().flat_map(|id| rows_of(*id)).collect();
        let values = self.backend.read(rows.clone()).await?;
        let found: Vec<_> = rows.into_iter().zip(values).collect();
        let mut held = Vec::new();
        let mut unplaced = BTreeSet::new();
        for (id, rows) in ids.into_iter().zip(found.chunks(RECORD_TABLES.len())) {
            let row = rows.iter().find(|(_, value)| value.is_some()).map(|(row, _)| row.clone());
            let place = rows.iter().find(|(row, _)| row.table == Table::Keys);
            let place = place.and_then(|(_, value)| Place::of(value.as_ref()?));
            let place = self.confirmed(id, place).await?;
            if row.is_some() || self.vault.is_stray(id) {
                if place.is_none() {
                    unplaced.insert(id);
                }
                held.push(Held { id, row, place });
            }
        }
        if !unplaced.is_empty() {
            self.find_places(&unplaced, &mut held).await?;
        }
        Ok(held)
    }

    /// The place, where the record's key does lie there. A page that does not open may hold it.
    async fn confirmed(
        &self,
        id: RecordId,
        place: Option<Place>,
    ) -> Result<Option<Place>, StoreError> {
        let Some(place) = place else { return Ok(None) };
        let found = self.record_key(id, place).await?;
        Ok((!matches!(found, Err(RecordFault::KeyMissing))).then_some(place))
    }

    /// Looks through all pages for keys whose place is not known any more.
    async fn find_places(
        &self,
        unplaced: &BTreeSet<RecordId>,
        held: &mut [Held],
    ) -> Result<(), StoreError> {
        self.each_page(|number, page| {
            let Ok(page) = page else { return };
            for (slot, id, _key) in page.iter().filter(|(_, id, _)| unplaced.contains(id)) {
                if let Some(held) = held.iter_mut().find(|held| held.id == id) {
                    held.place = Some(Place { page: number, slot });
                }
            }
        })
        .await
    }
}
