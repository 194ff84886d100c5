//! Opening every record at start, page of keys by page of keys, on all cores.
//!
//! The key tree says who is there: a record lives while its key does. So a record whose rows were
//! taken away is noticed, and rows that no key belongs to are.

use std::collections::HashSet;
use std::time::Duration;

use rayon::iter::{IntoParallelIterator, ParallelIterator};
use tokio::task::spawn_blocking;

use super::StoreError;
use super::backend::{Opaque, Table};
use super::record::{OpenedRecord, RecordFault};
use super::sealing::RecordKey;
use super::snapshot::KeyRing;
use super::tree::{self, Page, Place};
use super::typed::Store;
use crate::types::{ModelContract, RecordId, Revision};

/// Pages of keys whose records are opened at once: bounds the sealed rows and the templates in
/// memory beside the index.
const PAGES_AT_ONCE: usize = 4;
/// Keys whose records are opened at once, where they come from no page in particular.
const KEYS_AT_ONCE: usize = 1_024;
/// How often a record that does not open is looked at before it is called damaged.
const LOOKS: u32 = 3;
/// Rows of a table that are looked at together.
const ROWS_AT_ONCE: usize = 4096;

/// The tables that a record is loaded from.
const LOADED: [Table; 3] = [Table::Headers, Table::Templates, Table::Keys];

/// What [`Store::load`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadReport {
    /// Records handed over.
    pub loaded: usize,
    /// Records that do not open, with the reason. They are held, never matched, and can be revoked.
    pub quarantined: Vec<(RecordId, RecordFault)>,
    /// Rows whose key is no record id: damage that not even a record id can be given to.
    pub misnamed: usize,
    /// The revision before the first record was read: what changed meanwhile is in the log after
    /// it.
    pub revision: Revision,
}

impl LoadReport {
    fn at(revision: Revision) -> Self {
        Self { loaded: 0, quarantined: vec![], misnamed: 0, revision }
    }
}

/// The sealed rows of one record, and its key.
struct SealedRecord {
    id: RecordId,
    key: RecordKey,
    /// Whether the record's own row says where its key lies.
    is_placed: bool,
    /// Nothing is left but the key, which its revocation has to find.
    has_no_row: bool,
    header: Option<Opaque>,
    template: Option<Opaque>,
}

impl Store {
    /// Opens every record and hands each to `each`. One that does not open is quarantined and
    /// counted, and the others are loaded all the same.
    ///
    /// # Errors
    /// The backend, or the runtime is shutting down.
    pub async fn load(
        &self,
        mut each: impl FnMut(OpenedRecord) + Send,
    ) -> Result<LoadReport, StoreError> {
        let mut report = LoadReport::at(self.revision().await?);
        let mut seen = 0;
        for numbers in self.vault.pages().chunks(PAGES_AT_ONCE) {
            let keys = self.keys_of(numbers).await?;
            seen += keys.len() as u64;
            self.load_keys(keys, &mut report, &mut each).await?;
        }
        self.end_load(seen, report).await
    }

    /// The same for the records that a snapshot had no row for, or one that was `dropped`.
    ///
    /// # Errors
    /// As [`Store::load`].
    pub async fn load_beside(
        &self,
        ring: KeyRing,
        dropped: &HashSet<RecordId>,
        mut each: impl FnMut(OpenedRecord) + Send,
    ) -> Result<LoadReport, StoreError> {
        let mut report = LoadReport::at(self.revision().await?);
        let seen = ring.len();
        let mut keys = ring.left_over(dropped).into_iter();
        loop {
            let some: Vec<_> = keys.by_ref().take(KEYS_AT_ONCE).collect();
            if some.is_empty() {
                return self.end_load(seen, report).await;
            }
            self.load_keys(some, &mut report, &mut each).await?;
        }
    }

    /// Opens every record once more, a page of keys at a time on one thread and a `pause` after
    /// each, and says which do not open: damage that a start from a snapshot does not meet.
    ///
    /// # Errors
    /// As [`Store::load`].
    pub async fn scrub(&self, pause: Duration) -> Result<Vec<(RecordId, RecordFault)>, StoreError> {
        let mut faults = Vec::new();
        for numbers in self.vault.pages().chunks(1) {
            let mut found = self.faults_of(numbers).await?;
            for _ in 1..LOOKS {
                if found.is_empty() {
                    break;
                }
                // What changed between two reads looks like damage, once.
                let again = self.faults_of(numbers).await?;
                found.retain(|(id, _)| again.iter().any(|(other, _)| other == id));
            }
            faults.extend(found);
            tokio::time::sleep(pause).await;
        }
        Ok(faults)
    }

    async fn faults_of(&self, numbers: &[u32]) -> Result<Vec<(RecordId, RecordFault)>, StoreError> {
        let keys = self.keys_of(numbers).await?;
        let records = self.rows_of_keys(keys).await?;
        let model = self.model.clone();
        // Not on all cores: revocations go on beside it.
        let fault = move |record: SealedRecord| Some((record.id, record.open(&model).err()?));
        Ok(spawn_blocking(|| records.into_iter().filter_map(fault).collect()).await?)
    }

    async fn load_keys(
        &self,
        keys: Vec<(Place, RecordId, RecordKey)>,
        report: &mut LoadReport,
        each: &mut (impl FnMut(OpenedRecord) + Send),
    ) -> Result<(), StoreError> {
        let records = self.rows_of_keys(keys).await?;
        for record in records.iter().filter(|record| record.has_no_row) {
            self.vault.stray(record.id);
        }
        for (id, opened) in self.open_all(records).await? {
            match opened {
                Ok(record) => {
                    report.loaded += 1;
                    each(record);
                }
                Err(fault) => report.quarantined.push((id, fault)),
            }
        }
        Ok(())
    }

    /// Looks for rows without a key where the counts say that there are some.
    async fn end_load(&self, seen: u64, mut report: LoadReport) -> Result<LoadReport, StoreError> {
        if self.backend.count(Table::Headers).await? != seen || !report.quarantined.is_empty() {
            self.look_for_keyless(&mut report).await?;
        }
        report.quarantined.sort_unstable_by_key(|(id, _)| *id);
        Ok(report)
    }

    /// The keys in some pages, as of one revision. Pages that do not open hold none.
    async fn keys_of(
        &self,
        numbers: &[u32],
    ) -> Result<Vec<(Place, RecordId, RecordKey)>, StoreError> {
        let rows = numbers.iter().map(|number| tree::page_row(*number)).collect();
        let rows = self.backend.read(rows).await?;
        let open = |(number, row): (&u32, Option<Opaque>)| {
            Some((*number, row.and_then(|row| self.vault.open_page(*number, &row).ok())?))
        };
        let pages = numbers.iter().zip(rows).filter_map(open);
        let placed = |(page, keys): (u32, Page)| {
            keys.into_keys().map(move |(slot, id, key)| (Place { page, slot }, id, key))
        };
        Ok(pages.flat_map(placed).collect())
    }

    /// The rows that belong to `keys`.
    async fn rows_of_keys(
        &self,
        keys: Vec<(Place, RecordId, RecordKey)>,
    ) -> Result<Vec<SealedRecord>, StoreError> {
        let rows = keys
            .iter()
            .flat_map(|(_, id, _)| LOADED.map(|table| table.row((*id).into())))
            .collect();
        let mut values = self.backend.read(rows).await?.into_iter();
        let mut records = Vec::with_capacity(keys.len());
        for (place, id, key) in keys {
            let [header, template, row] = LOADED.map(|_| values.next().flatten());
            let has_no_row = header.is_none() && template.is_none() && row.is_none();
            let is_placed = row.as_ref().and_then(Place::of) == Some(place);
            records.push(SealedRecord { id, key, is_placed, has_no_row, header, template });
        }
        Ok(records)
    }

    async fn open_all(
        &self,
        records: Vec<SealedRecord>,
    ) -> Result<Vec<(RecordId, Result<OpenedRecord, RecordFault>)>, StoreError> {
        let model = self.model.clone();
        let work = move || {
            let opened = |record: SealedRecord| (record.id, record.open(&model));
            records.into_par_iter().map(opened).collect()
        };
        Ok(spawn_blocking(work).await?)
    }

    /// Quarantines the records of which rows are there and no key.
    async fn look_for_keyless(&self, report: &mut LoadReport) -> Result<(), StoreError> {
        let mut known = HashSet::new();
        let mut damaged = HashSet::new();
        self.each_page(|number, page| match page {
            Ok(page) => known.extend(page.iter().map(|(_, id, _)| id)),
            Err(_) => {
                damaged.insert(number);
            }
        })
        .await?;
        let mut after = None;
        loop {
            let rows = self.backend.scan(Table::Headers, after, ROWS_AT_ONCE).await?;
            after = rows.last().map(|(key, _)| key.clone());
            if after.is_none() {
                return Ok(());
            }
            for (key, _header) in rows {
                match key.record() {
                    None => report.misnamed += 1,
                    Some(id) if known.contains(&id) => {}
                    Some(id) => report.quarantined.push((id, self.keyless(id, &damaged).await?)),
                }
            }
        }
    }

    /// Why a record has no key.
    async fn keyless(
        &self,
        id: RecordId,
        damaged: &HashSet<u32>,
    ) -> Result<RecordFault, StoreError> {
        let place = self.row(Table::Keys, id.into()).await?;
        let place = place.as_ref().and_then(Place::of);
        let lost = place.is_some_and(|place| damaged.contains(&place.page));
        Ok(if lost { RecordFault::KeyPage } else { RecordFault::KeyMissing })
    }
}

impl SealedRecord {
    fn open(&self, model: &ModelContract) -> Result<OpenedRecord, RecordFault> {
        let header = self.header.as_ref().ok_or(RecordFault::HeaderMissing)?;
        let template = self.template.as_ref().ok_or(RecordFault::TemplateMissing)?;
        if !self.is_placed {
            return Err(RecordFault::KeyMissing);
        }
        let opened = self.key.open(self.id, header, template)?;
        if opened.record.model == *model { Ok(opened) } else { Err(RecordFault::OtherModel) }
    }
}
