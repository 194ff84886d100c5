//! The store as the engine sees it: typed, sealing on the way down, opening on the way up.

use std::sync::Arc;

use super::StoreError;
use super::backend::{Backend, BackendError, RowKey, Table};
use super::changes::{encoded, put};
use super::facts::Fact;
use super::log::{AuditEvent, LogEntry, RevocationCause};
use super::record::StoredRecord;
use super::sealing::{Claim, Keys};
use super::trail::Note;
use super::vault::Vault;
use crate::consent::Sha256;
use crate::crypto::cell::Epoch;
use crate::crypto::{DIGEST_BYTES, SealError, Signer, sha256};
use crate::types::{
    ConsentId, ControllerId, Embedding, IdempotencyKey, ModelContract, RecordId, Revision,
    Timestamp,
};

const POLICY_ROW: &str = "policy";

/// The sealed store, open.
///
/// ```
/// # use std::sync::Arc;
/// use assent::crypto::cell::FileCell;
/// use assent::store::{Embedded, Store};
/// use assent::types::ModelContract;
/// # async fn example(directory: &std::path::Path) -> Result<(), Box<dyn std::error::Error>> {
/// let cell = Box::new(FileCell::create(&directory.join("root.key"))?);
/// let backend = Arc::new(Embedded::open(&directory.join("data"))?);
/// let store = Store::open(backend, cell, &ModelContract::parse("w600k-mbf-512")?).await?;
/// store.put_policy(b"[[notice]]").await?;
/// let report = store.load(|opened| println!("{}", opened.record.id)).await?;
/// assert_eq!((report.loaded, report.quarantined.len()), (0, 0));
/// store.close().await;
/// # Ok(()) }
/// # let directory = tempfile::tempdir()?;
/// # tokio::runtime::Runtime::new()?.block_on(example(directory.path()))?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Store {
    pub(super) backend: Arc<dyn Backend>,
    pub(super) keys: Arc<Keys>,
    pub(super) vault: Arc<Vault>,
    pub(super) model: ModelContract,
}

/// What makes an enrolment safe to repeat.
#[derive(Debug, Clone)]
pub struct IdempotentWrite {
    /// Whose key it is; two controllers may use the same key.
    pub controller: ControllerId,
    /// The caller's key.
    pub key: IdempotencyKey,
    /// Digest of the request, to tell a repetition from another request under the same key.
    pub request_digest: [u8; DIGEST_BYTES],
    /// The answer, less its revision, which is known only once it is committed.
    pub answer: Vec<u8>,
}

/// What an idempotency key led to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PriorAnswer {
    /// An enrolment that still stands.
    Answered {
        /// Digest of the request that was answered.
        request_digest: [u8; DIGEST_BYTES],
        /// The answer, as it was given to [`Store::enrol`].
        answer: Vec<u8>,
        /// The revision of the enrolment.
        revision: Revision,
    },
    /// An enrolment that was revoked since; its answer went with it.
    Erased,
}

/// Records destroyed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revoked {
    /// From this revision on they are gone.
    pub revision: Revision,
    /// Those that were held and now are not, sorted.
    pub records: Vec<RecordId>,
}

impl Store {
    /// Replaces ROOT and destroys the one before; durable on return.
    ///
    /// # Errors
    /// The backend or the root cell.
    pub async fn replace_root(&self, reason: &'static str) -> Result<Epoch, StoreError> {
        let vault = Arc::clone(&self.vault);
        let (at, after_epoch) = (Timestamp::now(), self.vault.epoch());
        let note = Note::of(encoded(&AuditEvent::KeysRotated { at, after_epoch, reason }));
        let work = move || {
            vault.replace_root();
            vault.note(note);
        };
        self.backend.note(Box::new(work)).await?;
        Ok(self.vault.epoch())
    }

    /// Commits the record, its answer and its log entry in one revision; durable on return.
    ///
    /// # Errors
    /// The idempotency key, the consent id or the record id was used before, the template is of
    /// another model, the disk is full, or the backend. Nothing is stored then, [`BackendError::Stopped`] apart,
    /// where the next start shows it.
    pub async fn enrol(
        &self,
        record: &StoredRecord,
        template: &Embedding,
        idempotency: IdempotentWrite,
    ) -> Result<Revision, StoreError> {
        self.check_model(&record.model)?;
        self.check_space()?;
        let batch = self.enrolment(record, template, idempotency)?;
        self.backend.commit(batch).await.map_err(enrolment_refused)
    }

    /// Destroys the records' keys and rows in one revision; durable on return. Records that are
    /// not held are skipped. Opens nothing, so a quarantined record is revoked like any other.
    ///
    /// # Errors
    /// The backend.
    pub async fn revoke(
        &self,
        records: &[RecordId],
        at: Timestamp,
        cause: RevocationCause,
    ) -> Result<Revoked, StoreError> {
        self.revoke_with(records, at, cause, Vec::new()).await
    }

    /// The same, with what is remembered of those whom the records are about: `facts` go in the same
    /// commit. Where no record is held there is none.
    ///
    /// # Errors
    /// The backend.
    pub async fn revoke_with(
        &self,
        records: &[RecordId],
        at: Timestamp,
        cause: RevocationCause,
        facts: Vec<Fact>,
    ) -> Result<Revoked, StoreError> {
        loop {
            // Before the look: whatever is not held now was gone at this revision.
            let revision = self.revision().await?;
            let held = self.held(records).await?;
            let records = held.iter().map(|held| held.id).collect::<Vec<_>>();
            if records.is_empty() {
                return Ok(Revoked { revision, records });
            }
            let facts = self.fact_writes(facts.clone())?;
            match self.backend.commit(self.revocation(held, at, cause, facts)?).await {
                Ok(revision) => return Ok(Revoked { revision, records }),
                // Another revocation was faster with one of them. Record ids do not come back, so
                // each round has fewer left.
                Err(BackendError::Gone { .. }) => {}
                Err(fault) => return Err(fault.into()),
            }
        }
    }

    /// What `key` of `controller` led to; `None` when it was never used.
    ///
    /// # Errors
    /// The rows do not open, or the backend.
    pub async fn idempotent(
        &self,
        controller: &ControllerId,
        key: &IdempotencyKey,
    ) -> Result<Option<PriorAnswer>, StoreError> {
        let name = self.keys.claim_name(Claim::Idempotency(controller, key));
        let Some(claim) = self.row(Table::IdempotencyKeys, name.clone()).await? else {
            return Ok(None);
        };
        let id = self.keys.open_claim(&name, &claim)?;
        let prior = self.with_key(id, Table::Answers, |key, row| key.open_answer(id, row)).await?;
        Ok(Some(prior.unwrap_or(PriorAnswer::Erased)))
    }

    /// The record that was enrolled under a consent, held or gone; `None` when none ever was.
    ///
    /// # Errors
    /// The row does not open, or the backend.
    pub async fn record_of_consent(
        &self,
        controller: &ControllerId,
        consent: &ConsentId,
    ) -> Result<Option<RecordId>, StoreError> {
        let name = self.keys.claim_name(Claim::Consent(controller, consent));
        let claim = self.row(Table::ConsentIds, name.clone()).await?;
        claim.map(|claim| self.keys.open_claim(&name, &claim)).transpose()
    }

    /// The header of a record; `None` when it is not held.
    ///
    /// # Errors
    /// The record does not open, or the backend.
    pub async fn describe(&self, id: RecordId) -> Result<Option<StoredRecord>, StoreError> {
        self.with_key(id, Table::Headers, |key, row| key.open_header(id, row)).await
    }

    /// Replaces the policy document, sealed; durable on return. The one before is kept: what was
    /// decided under it may have to be explained.
    ///
    /// # Errors
    /// The disk is full, or the backend.
    pub async fn put_policy(&self, document: &[u8]) -> Result<Revision, StoreError> {
        self.check_space()?;
        let (sha256, at) = (Sha256(sha256(document)), Timestamp::now());
        let entry = LogEntry::PolicyApplied { sha256, at };
        let audit =
            move |revision| vec![encoded(&AuditEvent::PolicyApplied { at, revision, sha256 })];
        let (keys, document) = (Arc::clone(&self.keys), document.to_vec());
        let batch = self.batch(Vec::new(), &entry, audit, move |revision| {
            let row = |key: RowKey| {
                let sealed = keys.seal_policy(&key, revision, &document)?;
                Ok::<_, SealError>(put(Table::Policy.row(key), sealed))
            };
            Ok(vec![row(RowKey::named(POLICY_ROW))?, row(RowKey::sequence(revision.0))?])
        })?;
        Ok(self.backend.commit(batch).await?)
    }

    /// The policy document and the revision that put it there.
    ///
    /// # Errors
    /// The document does not open, or the backend.
    pub async fn policy(&self) -> Result<Option<(Vec<u8>, Revision)>, StoreError> {
        let key = RowKey::named(POLICY_ROW);
        let row = self.row(Table::Policy, key.clone()).await?;
        row.map(|row| self.keys.open_policy(&key, &row)).transpose()
    }

    /// The policy document that was in force at a revision, and the revision that put it there.
    ///
    /// # Errors
    /// The document does not open, or the backend.
    pub async fn policy_at(
        &self,
        revision: Revision,
    ) -> Result<Option<(Vec<u8>, Revision)>, StoreError> {
        let row = self.backend.floor(Table::Policy, RowKey::sequence(revision.0)).await?;
        row.map(|(key, row)| self.keys.open_policy(&key, &row)).transpose()
    }

    /// At most `limit` log entries in order, those after `after`.
    ///
    /// # Errors
    /// An entry does not open, or the backend.
    pub async fn log(
        &self,
        after: Revision,
        limit: usize,
    ) -> Result<Vec<(Revision, LogEntry)>, StoreError> {
        let rows = self.backend.log(after, limit).await?;
        rows.into_iter().map(|(at, row)| Ok((at, self.keys.open_entry(at, &row)?))).collect()
    }

    /// The newest revision.
    ///
    /// # Errors
    /// The backend.
    pub async fn revision(&self) -> Result<Revision, StoreError> {
        Ok(self.backend.head().await?)
    }

    /// The signer of receipts.
    #[must_use]
    pub fn signer(&self) -> &Signer {
        &self.keys.signer
    }

    /// Whether changes are still taken.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.backend.is_healthy()
    }

    /// Fails while the disk is full and only revocations are taken.
    ///
    /// # Errors
    /// [`StoreError::LowOnSpace`].
    pub fn check_space(&self) -> Result<(), StoreError> {
        if self.backend.is_low_on_space() { Err(StoreError::LowOnSpace) } else { Ok(()) }
    }

    /// Looks whether there is space again, where there was not.
    pub async fn regain_space(&self) {
        self.backend.regain_space().await;
    }

    /// Finishes what was begun and lets storage, root cell and mirror go.
    pub async fn close(&self) {
        let vault = Arc::clone(&self.vault);
        // A store that stopped, or was closed before, signs nothing.
        let _signed = self.backend.note(Box::new(move || vault.checkpoint())).await;
        self.backend.close().await;
        self.vault.release();
    }
}

impl Store {
    fn check_model(&self, given: &ModelContract) -> Result<(), StoreError> {
        if *given == self.model {
            return Ok(());
        }
        Err(StoreError::OtherModel { store: self.model.clone(), given: given.clone() })
    }
}

/// Which name was taken.
fn enrolment_refused(fault: BackendError) -> StoreError {
    let taken = |name| matches!(&fault, BackendError::Taken { table } if *table == name);
    if taken(Table::IdempotencyKeys) {
        StoreError::IdempotencyTaken
    } else if taken(Table::ConsentIds) {
        StoreError::ConsentTaken
    } else if taken(Table::Headers) {
        StoreError::RecordTaken
    } else {
        StoreError::Backend(fault)
    }
}
