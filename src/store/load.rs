//! Opening every record at start, page by page, on all cores.

use std::sync::Arc;

use rayon::iter::{IntoParallelIterator, ParallelIterator};
use tokio::task::spawn_blocking;

use super::StoreError;
use super::backend::{Opaque, RowKey, Table};
use super::record::{OpenedRecord, RecordFault};
use super::sealing::Keys;
use super::typed::Store;
use crate::types::{ModelContract, RecordId, Revision};

/// Records opened at once: bounds the sealed rows and the templates in memory beside the index.
const PAGE_RECORDS: usize = 1024;

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

/// The sealed rows of one record, as of one revision.
struct SealedRecord {
    id: RecordId,
    header: Opaque,
    key: Option<Opaque>,
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
        let revision = self.revision().await?;
        let mut report = LoadReport { loaded: 0, quarantined: vec![], misnamed: 0, revision };
        let mut after = None;
        loop {
            let headers = self.backend.scan(Table::Headers, after, PAGE_RECORDS).await?;
            after = headers.last().map(|(key, _header)| key.clone());
            if after.is_none() {
                return Ok(report);
            }
            let (page, misnamed) = self.page(headers).await?;
            report.misnamed += misnamed;
            for (id, opened) in self.open_page(page).await? {
                match opened {
                    Ok(record) => {
                        report.loaded += 1;
                        each(record);
                    }
                    Err(fault) => report.quarantined.push((id, fault)),
                }
            }
        }
    }

    /// The keys and templates that belong to `headers`, and how many rows are misnamed.
    async fn page(
        &self,
        headers: Vec<(RowKey, Opaque)>,
    ) -> Result<(Vec<SealedRecord>, usize), StoreError> {
        let found = headers.len();
        let headers: Vec<_> =
            headers.into_iter().filter_map(|(key, header)| Some((key.record()?, header))).collect();
        let misnamed = found - headers.len();
        let rows = headers
            .iter()
            .flat_map(|(id, _)| {
                [Table::Keys, Table::Templates].map(|table| table.row((*id).into()))
            })
            .collect();
        let mut values = self.backend.read(rows).await?.into_iter();
        let mut page = Vec::with_capacity(headers.len());
        for (id, header) in headers {
            let (key, template) = (values.next().flatten(), values.next().flatten());
            let record = SealedRecord { id, header, key, template };
            page.extend(self.unless_revoked(record).await?);
        }
        Ok((page, misnamed))
    }

    /// `None` when a row is missing because the record was revoked between the two reads.
    async fn unless_revoked(
        &self,
        record: SealedRecord,
    ) -> Result<Option<SealedRecord>, StoreError> {
        let whole = record.key.is_some() && record.template.is_some();
        let held = whole || {
            let header = Table::Headers.row(record.id.into());
            self.backend.read(vec![header]).await?.pop().flatten().is_some()
        };
        Ok(held.then_some(record))
    }

    async fn open_page(
        &self,
        page: Vec<SealedRecord>,
    ) -> Result<Vec<(RecordId, Result<OpenedRecord, RecordFault>)>, StoreError> {
        let (keys, model) = (Arc::clone(&self.keys), self.model.clone());
        let work = move || {
            let opened = |record: SealedRecord| (record.id, record.open(&keys, &model));
            page.into_par_iter().map(opened).collect()
        };
        Ok(spawn_blocking(work).await?)
    }
}

impl SealedRecord {
    fn open(&self, keys: &Keys, model: &ModelContract) -> Result<OpenedRecord, RecordFault> {
        let key = self.key.as_ref().ok_or(RecordFault::KeyMissing)?;
        let template = self.template.as_ref().ok_or(RecordFault::TemplateMissing)?;
        let opened = keys.unwrap_record_key(self.id, key)?.open(self.id, &self.header, template)?;
        if opened.record.model == *model { Ok(opened) } else { Err(RecordFault::OtherModel) }
    }
}
