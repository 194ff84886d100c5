//! The batches that change the store.

use std::sync::Arc;

use super::StoreError;
use super::backend::{Batch, Changes, Precondition, RowId, Table, Write};
use super::log::{AuditEvent, LogEntry, RevocationCause};
use super::record::StoredRecord;
use super::sealing::{Claim, RecordKey};
use super::trail::Note;
use super::tree::Place;
use super::typed::{IdempotentWrite, Store};
use crate::crypto::{SealError, Sealed};
use crate::types::{Embedding, RecordId, Revision, Timestamp};

/// The tables that hold a record; revocation empties them all.
pub(super) const RECORD_TABLES: [Table; 4] =
    [Table::Keys, Table::Headers, Table::Templates, Table::Answers];

impl Store {
    /// One record, its claims and its answer.
    pub(super) fn enrolment(
        &self,
        record: &StoredRecord,
        template: &Embedding,
        idempotency: IdempotentWrite,
    ) -> Result<Batch, StoreError> {
        let IdempotentWrite { controller, key, request_digest, answer } = idempotency;
        let (id, record_key) = (record.id, RecordKey::random()?);
        let (header, template) = record_key.seal(record, template)?;
        let repeat =
            self.claim(Table::IdempotencyKeys, Claim::Idempotency(&controller, &key), id)?;
        let consent = Claim::Consent(&record.consent.controller, &record.consent.consent_id);
        let consent = self.claim(Table::ConsentIds, consent, id)?;
        let require = vec![
            Precondition::Absent(repeat.0.clone()),
            Precondition::Absent(consent.0.clone()),
            Precondition::Absent(Table::Headers.row(id.into())),
        ];
        let mut writes = vec![
            put(Table::Headers.row(id.into()), header),
            put(Table::Templates.row(id.into()), template),
            put(repeat.0, repeat.1),
            put(consent.0, consent.1),
        ];
        let entry = LogEntry::Enrolled { record: id, at: record.enrolled_at };
        let vault = Arc::clone(&self.vault);
        let (at, subject) = (record.enrolled_at, record.subject.clone());
        let consent = record.consent.clone();
        let audit = move |revision| {
            let (subject, consent) = (&subject, &consent);
            vec![encoded(&AuditEvent::Enrolled { at, revision, record: id, subject, consent })]
        };
        self.batch(require, &entry, audit, move |revision| {
            let sealed = record_key.seal_answer(id, revision, &request_digest, &answer)?;
            writes.push(put(Table::Answers.row(id.into()), sealed));
            let place = vault.add(id, record_key)?;
            writes.push(Write::Put(Table::Keys.row(id.into()), place.opaque()));
            Ok(writes)
        })
    }

    /// No rows where those of the `held` records were, and their keys out of the tree; each comes
    /// with a row that must still be there.
    pub(super) fn revocation(
        &self,
        held: Vec<Held>,
        at: Timestamp,
        cause: RevocationCause,
        facts: Vec<Write>,
    ) -> Result<Batch, StoreError> {
        let records: Vec<_> = held.iter().map(|held| held.id).collect();
        let writes = records.iter().flat_map(|id| rows_of(*id)).map(Write::Remove).collect();
        let require = held.iter().filter_map(|held| held.row.clone().map(Precondition::Present));
        let require = require.collect();
        let vault = Arc::clone(&self.vault);
        let erased_records = records.clone();
        // An entry each: the evidence about one person names nobody else.
        let audit = move |revision| {
            let erased =
                |record| encoded(&AuditEvent::Erased { at, revision, records: &[record], cause });
            erased_records.into_iter().map(erased).collect()
        };
        let entry = LogEntry::Revoked { records, cause, at };
        let batch = self.batch(require, &entry, audit, move |_| {
            vault.keep(facts);
            for Held { id, place, .. } in held {
                if let Some(place) = place {
                    vault.remove(id, place);
                }
            }
            Ok(writes)
        })?;
        Ok(Batch { patient: true, ..batch })
    }

    /// A batch with its log entry and its audit entry, sealed once the revision is known.
    pub(super) fn batch(
        &self,
        require: Vec<Precondition>,
        entry: &LogEntry,
        audit: impl FnOnce(Revision) -> Vec<Vec<u8>> + Send + 'static,
        writes: impl FnOnce(Revision) -> Result<Vec<Write>, SealError> + Send + 'static,
    ) -> Result<Batch, StoreError> {
        let (keys, entry) = (Arc::clone(&self.keys), serde_json::to_vec(entry)?);
        let vault = Arc::clone(&self.vault);
        let build = Box::new(move |revision| {
            let entry = keys.seal_entry(revision, &entry)?.into();
            let changes = Changes { writes: writes(revision)?, entry };
            for entry in audit(revision) {
                vault.note(Note::of(entry));
            }
            Ok(changes)
        });
        Ok(Batch { require, build, patient: false })
    }

    fn claim(
        &self,
        table: Table,
        claim: Claim<'_>,
        record: RecordId,
    ) -> Result<(RowId, Sealed), StoreError> {
        let name = self.keys.claim_name(claim);
        let sealed = self.keys.seal_claim(&name, record)?;
        Ok((table.row(name), sealed))
    }
}

/// A record that is there, at least in part.
pub(super) struct Held {
    pub(super) id: RecordId,
    /// One of its rows.
    pub(super) row: Option<RowId>,
    /// Where its key lies.
    pub(super) place: Option<Place>,
}

/// An audit entry as the chain holds it.
pub(super) fn encoded(event: &AuditEvent<'_>) -> Vec<u8> {
    serde_json::to_vec(event).expect("an event has string keys and no failing part")
}

/// The addresses of all rows of one record.
pub(super) fn rows_of(id: RecordId) -> [RowId; RECORD_TABLES.len()] {
    RECORD_TABLES.map(|table| table.row(id.into()))
}

pub(super) fn put(row: RowId, value: Sealed) -> Write {
    Write::Put(row, value.into())
}
