//! The store as the engine sees it: typed, sealing on the way down, opening on the way up.

use std::sync::Arc;

use super::StoreError;
use super::backend::{Backend, BackendError, Opaque, Precondition, RowId, RowKey, Table, Write};
use super::changes::{RECORD_TABLES, put, rows_of};
use super::log::{LogEntry, RevocationCause};
use super::record::{RecordFault, StoredRecord};
use super::sealing::{Binding, Claim, Keys, SCHEMA};
use crate::consent::Sha256;
use crate::crypto::{DIGEST_BYTES, RootKey, Signer, sha256};
use crate::types::{
    ConsentId, ControllerId, Embedding, IdempotencyKey, ModelContract, RecordId, Revision,
    Timestamp,
};

const ROOT_ROW: &str = "root";
const STORE_ROW: &str = "store";
const POLICY_ROW: &str = "policy";

/// The sealed store, open.
///
/// ```
/// # use std::sync::Arc;
/// use assent::crypto::RootKey;
/// use assent::store::{Embedded, Store};
/// use assent::types::ModelContract;
/// # async fn example(directory: &std::path::Path) -> Result<(), Box<dyn std::error::Error>> {
/// let root = RootKey::create(&directory.join("root.key"))?;
/// let backend = Arc::new(Embedded::open(&directory.join("data"))?);
/// let store = Store::open(backend, root, &ModelContract::parse("w600k-mbf-512")?).await?;
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
    /// Opens the store; makes it, bound to `root` and `model`, when it is empty.
    ///
    /// # Errors
    /// Another ROOT or model than the store was made with, rows that do not open, or the backend.
    pub async fn open(
        backend: Arc<dyn Backend>,
        root: RootKey,
        model: &ModelContract,
    ) -> Result<Self, StoreError> {
        let store = Self { backend, keys: Arc::new(Keys::of(&root)), model: model.clone() };
        if store.revision().await? == Revision(0) {
            store.create(&root).await?;
        }
        store.check_binding(&root).await?;
        store.check_head().await?;
        Ok(store)
    }

    /// Commits the record, its answer and its log entry in one revision; durable on return.
    ///
    /// # Errors
    /// The idempotency key, the consent id or the record id was used before, the template is of
    /// another model, or the backend. Nothing is stored then, [`BackendError::Stopped`] apart,
    /// where the next start shows it.
    pub async fn enrol(
        &self,
        record: &StoredRecord,
        template: &Embedding,
        idempotency: IdempotentWrite,
    ) -> Result<Revision, StoreError> {
        self.check_model(&record.model)?;
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
        loop {
            // Before the look: whatever is not held now was gone at this revision.
            let revision = self.revision().await?;
            let held = self.held(records).await?;
            let records = held.iter().map(|(id, _row)| *id).collect::<Vec<_>>();
            if records.is_empty() {
                return Ok(Revoked { revision, records });
            }
            match self.backend.commit(self.revocation(held, at, cause)?).await {
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
        let (Some(answer), Some(key)) = self.two_rows(id, Table::Answers, Table::Keys).await?
        else {
            return Ok(Some(PriorAnswer::Erased));
        };
        self.keys
            .unwrap_record_key(id, &key)
            .and_then(|key| key.open_answer(id, &answer))
            .map(Some)
            .map_err(|source| StoreError::Record { id, source })
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
        let (Some(header), key) = self.two_rows(id, Table::Headers, Table::Keys).await? else {
            return Ok(None);
        };
        key.ok_or(RecordFault::KeyMissing)
            .and_then(|key| self.keys.unwrap_record_key(id, &key))
            .and_then(|key| key.open_header(id, &header))
            .map(Some)
            .map_err(|source| StoreError::Record { id, source })
    }

    /// Replaces the policy document, sealed; durable on return.
    ///
    /// # Errors
    /// The backend.
    pub async fn put_policy(&self, document: &[u8]) -> Result<Revision, StoreError> {
        let entry =
            LogEntry::PolicyApplied { sha256: Sha256(sha256(document)), at: Timestamp::now() };
        let (keys, document) = (Arc::clone(&self.keys), document.to_vec());
        let batch = self.batch(Vec::new(), &entry, move |revision| {
            let sealed = keys.seal_policy(revision, &document)?;
            Ok(vec![put(Table::Policy.row(RowKey::named(POLICY_ROW)), sealed)])
        })?;
        Ok(self.backend.commit(batch).await?)
    }

    /// The policy document and the revision that put it there.
    ///
    /// # Errors
    /// The document does not open, or the backend.
    pub async fn policy(&self) -> Result<Option<(Vec<u8>, Revision)>, StoreError> {
        let row = self.row(Table::Policy, RowKey::named(POLICY_ROW)).await?;
        row.map(|row| self.keys.open_policy(&row)).transpose()
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

    /// Finishes what was begun and lets the storage go.
    pub async fn close(&self) {
        self.backend.close().await;
    }
}

/// Opening.
impl Store {
    /// Writes what an empty store says about itself. That another process was faster is no fault:
    /// the checks that follow judge what it wrote.
    async fn create(&self, root: &RootKey) -> Result<(), StoreError> {
        let binding = Binding { schema: SCHEMA, model: self.model.clone() };
        let writes = vec![
            Write::Put(meta(ROOT_ROW), Opaque::mac(root.check())),
            put(meta(STORE_ROW), self.keys.seal_binding(&binding)?),
        ];
        let require = vec![Precondition::Absent(meta(ROOT_ROW))];
        let entry = LogEntry::Created { at: Timestamp::now() };
        match self.backend.commit(self.batch(require, &entry, |_| Ok(writes))?).await {
            Ok(_) | Err(BackendError::Taken { .. }) => Ok(()),
            Err(fault) => Err(fault.into()),
        }
    }

    async fn check_binding(&self, root: &RootKey) -> Result<(), StoreError> {
        let rows = self.backend.read(vec![meta(ROOT_ROW), meta(STORE_ROW)]).await?;
        let [Some(check), Some(binding)] = rows.as_slice() else {
            return Err(StoreError::Malformed { what: "description of itself" });
        };
        if check.as_bytes() != root.check() {
            return Err(StoreError::WrongRoot);
        }
        let binding = self.keys.open_binding(binding)?;
        if binding.schema != SCHEMA {
            return Err(StoreError::OtherSchema { found: binding.schema, known: SCHEMA });
        }
        if binding.model != self.model {
            return Err(StoreError::OtherModel { store: binding.model, given: self.model.clone() });
        }
        Ok(())
    }

    /// The newest log entry opens at the revision that the backend calls its head.
    async fn check_head(&self) -> Result<(), StoreError> {
        let head = self.revision().await?;
        self.log(Revision(head.0.saturating_sub(1)), 1).await.map(drop)
    }

    fn check_model(&self, given: &ModelContract) -> Result<(), StoreError> {
        if *given == self.model {
            return Ok(());
        }
        Err(StoreError::OtherModel { store: self.model.clone(), given: given.clone() })
    }
}

/// Reads.
impl Store {
    async fn row(&self, table: Table, key: RowKey) -> Result<Option<Opaque>, StoreError> {
        Ok(self.backend.read(vec![table.row(key)]).await?.pop().flatten())
    }

    /// Two rows of one record, as of one revision.
    async fn two_rows(
        &self,
        id: RecordId,
        first: Table,
        second: Table,
    ) -> Result<(Option<Opaque>, Option<Opaque>), StoreError> {
        let rows = vec![first.row(id.into()), second.row(id.into())];
        let mut values = self.backend.read(rows).await?.into_iter();
        Ok((values.next().flatten(), values.next().flatten()))
    }

    /// Those of `records` of which any row is there, each once, with one such row.
    async fn held(&self, records: &[RecordId]) -> Result<Vec<(RecordId, RowId)>, StoreError> {
        let mut ids = records.to_vec();
        ids.sort_unstable();
        ids.dedup();
        let rows: Vec<_> = ids.iter().flat_map(|id| rows_of(*id)).collect();
        let values = self.backend.read(rows.clone()).await?;
        let present: Vec<_> =
            rows.into_iter().zip(values).map(|(row, value)| value.map(|_| row)).collect();
        let first_of = |rows: &[Option<RowId>]| rows.iter().flatten().next().cloned();
        let groups = present.chunks(RECORD_TABLES.len());
        Ok(ids
            .into_iter()
            .zip(groups)
            .filter_map(|(id, rows)| Some((id, first_of(rows)?)))
            .collect())
    }
}

fn meta(name: &'static str) -> RowId {
    Table::Meta.row(RowKey::named(name))
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
