//! What each row holds, and under which key it is sealed.
//!
//! ```text
//! table        key     sealed under               associated data   plaintext
//! meta         "root"  - (in plain)               -                 D's check value, 32 bytes
//! meta         "store" D/Meta                     "store"           JSON {schema, model}
//! meta         "tree"  ROOT of the epoch          see tree.rs       epoch in plain, page keys
//! meta         "restored" D/Meta                  "restored"        JSON of what a restore did
//! pages        number  the page's key             see tree.rs       K of up to 256 records
//! keys         record  - (in plain)               -                 page and slot of K
//! headers      record  HKDF(K, "header")          record id         JSON {v, record}
//! templates    record  HKDF(K, "template")        header plaintext  width u32 LE, f32 LE each
//! answers      record  HKDF(K, "answer")          record id         revision u64 BE, request
//!                                                                   digest 32, answer
//! idempotency  MAC     D/Claims                   the MAC           record id, 16 bytes
//! consents     MAC     D/Claims                   the MAC           record id, 16 bytes
//! policy       "policy" D/Policy                  "policy"          revision u64 BE, document
//! policy       revision D/Policy                  revision u64 BE   the same, kept
//! audit        seq     D/Audit                    see trail.rs      a block of audit entries
//! facts        MAC     D/Facts                    the MAC           JSON {kind, name, value}
//! log          revision D/Log                     revision u64 BE   JSON LogEntry
//! ```
//! D is the deployment key, which stays; K is a record's own key, which ends with the record.
//! `MAC = HMAC(D/ClaimNames, kind, controller, name)`, so that without D nobody can test a guessed
//! consent id or idempotency key against the store.
//!
//! The template's associated data is the header exactly as sealed: record id, controller, subject,
//! consent id, purpose, scope, notice, expiry, model contract and generation. Change any of them,
//! or put another record's template there, and it does not open.
//!
//! A claim (the rows of `idempotency` and `consents`) is written once and never changed. While its
//! record is there it names it; once the record is gone it is the tombstone that keeps the name
//! from being used again. So revocation deletes four rows by record id, takes K out of its page and
//! opens nothing else: it works on a quarantined record too, and the answer dies with K.

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::StoreError;
use super::backend::{Opaque, RowKey};
use super::backup::Restored;
use super::log::LogEntry;
use super::record::{OpenedRecord, RecordFault, StoredRecord};
use super::typed::PriorAnswer;
use crate::crypto::{
    DIGEST_BYTES, DeploymentKey, DeploymentUse, OpenError, SealError, Sealed, SecretKey, Signer,
    mac, open, seal,
};
use crate::types::{
    ConsentId, ControllerId, Embedding, IdempotencyKey, ModelContract, RecordId, Revision,
};

/// Version of the whole layout.
pub(super) const SCHEMA: u32 = 2;
/// Version of the header's encoding.
const HEADER_VERSION: u32 = 1;
/// Room for a header, so that encoding one does not move it about in memory.
const HEADER_CAPACITY_BYTES: usize = 4096;
const REVISION_BYTES: usize = 8;
const WIDTH_BYTES: usize = 4;
const F32_BYTES: usize = 4;

const HEADER_LABEL: &[u8] = b"header";
const TEMPLATE_LABEL: &[u8] = b"template";
const ANSWER_LABEL: &[u8] = b"answer";
const ROW_LABEL: &[u8] = b"row";
const STORE_AAD: &[u8] = b"store";
const RESTORED_AAD: &[u8] = b"restored";

/// A name that can be claimed once in the life of a store.
#[derive(Clone, Copy)]
pub(super) enum Claim<'a> {
    Idempotency(&'a ControllerId, &'a IdempotencyKey),
    Consent(&'a ControllerId, &'a ConsentId),
}

/// What the store says about itself.
#[derive(Serialize, Deserialize)]
pub(super) struct Binding {
    pub(super) schema: u32,
    pub(super) model: ModelContract,
}

#[derive(Serialize, Deserialize)]
struct Header<R> {
    v: u32,
    record: R,
}

/// The keys that belong to the store as a whole, all derived from the deployment key.
pub(super) struct Keys {
    policy: SecretKey,
    /// Of the rows of facts.
    pub(super) facts: SecretKey,
    pub(super) claim_names: SecretKey,
    claims: SecretKey,
    log: SecretKey,
    meta: SecretKey,
    pub(super) audit: SecretKey,
    /// Of the heads of snapshots.
    pub(super) snapshot: SecretKey,
    pub(super) signer: Signer,
}

impl Keys {
    pub(super) fn of(deployment: &DeploymentKey) -> Self {
        Self {
            policy: deployment.key(DeploymentUse::Policy),
            facts: deployment.key(DeploymentUse::Facts),
            claim_names: deployment.key(DeploymentUse::ClaimNames),
            claims: deployment.key(DeploymentUse::Claims),
            log: deployment.key(DeploymentUse::Log),
            meta: deployment.key(DeploymentUse::Meta),
            audit: deployment.key(DeploymentUse::Audit),
            snapshot: deployment.key(DeploymentUse::Snapshot),
            signer: deployment.signer(),
        }
    }

    /// The row key of a claim.
    pub(super) fn claim_name(&self, claim: Claim<'_>) -> RowKey {
        let (kind, controller, name) = match claim {
            Claim::Idempotency(controller, key) => ("idempotency", controller, key.as_str()),
            Claim::Consent(controller, id) => ("consent", controller, id.as_str()),
        };
        let parts = [kind.as_bytes(), controller.as_str().as_bytes(), name.as_bytes()];
        RowKey::mac(mac(&self.claim_names, &parts))
    }

    pub(super) fn seal_claim(&self, name: &RowKey, record: RecordId) -> Result<Sealed, SealError> {
        seal(&self.claims, name.as_bytes(), record.as_bytes())
    }

    pub(super) fn open_claim(&self, name: &RowKey, row: &Opaque) -> Result<RecordId, StoreError> {
        let what = "claim on a name";
        let plain = open(&self.claims, name.as_bytes(), row.as_bytes())
            .map_err(|source| StoreError::Altered { what, source })?;
        let id = plain.as_slice().try_into().ok().map(RecordId::from_bytes);
        id.ok_or(StoreError::Malformed { what })
    }

    pub(super) fn seal_binding(&self, binding: &Binding) -> Result<Sealed, StoreError> {
        Ok(seal(&self.meta, STORE_AAD, &serde_json::to_vec(binding)?)?)
    }

    pub(super) fn open_binding(&self, row: &Opaque) -> Result<Binding, StoreError> {
        let what = "description of itself";
        let plain = open(&self.meta, STORE_AAD, row.as_bytes())
            .map_err(|source| StoreError::Altered { what, source })?;
        serde_json::from_slice(&plain).ok().ok_or(StoreError::Malformed { what })
    }

    pub(super) fn seal_restored(&self, restored: &Restored) -> Result<Sealed, StoreError> {
        Ok(seal(&self.meta, RESTORED_AAD, &serde_json::to_vec(restored)?)?)
    }

    pub(super) fn open_restored(&self, row: &Opaque) -> Result<Restored, StoreError> {
        let what = "note of a restore";
        let plain = open(&self.meta, RESTORED_AAD, row.as_bytes())
            .map_err(|source| StoreError::Altered { what, source })?;
        serde_json::from_slice(&plain).ok().ok_or(StoreError::Malformed { what })
    }

    /// A policy document, sealed for the row that is `key`.
    pub(super) fn seal_policy(
        &self,
        key: &RowKey,
        at: Revision,
        document: &[u8],
    ) -> Result<Sealed, SealError> {
        seal(&self.policy, key.as_bytes(), &[&at.0.to_be_bytes(), document].concat())
    }

    pub(super) fn open_policy(
        &self,
        key: &RowKey,
        row: &Opaque,
    ) -> Result<(Vec<u8>, Revision), StoreError> {
        let what = "policy";
        let plain = open(&self.policy, key.as_bytes(), row.as_bytes())
            .map_err(|source| StoreError::Altered { what, source })?;
        let (revision, document) = split_revision(&plain).ok_or(StoreError::Malformed { what })?;
        Ok((document.to_vec(), revision))
    }

    /// Seals an encoded [`LogEntry`].
    pub(super) fn seal_entry(&self, at: Revision, encoded: &[u8]) -> Result<Sealed, SealError> {
        seal(&self.log, &at.0.to_be_bytes(), encoded)
    }

    pub(super) fn open_entry(&self, at: Revision, row: &Opaque) -> Result<LogEntry, StoreError> {
        let what = "log";
        let plain = open(&self.log, &at.0.to_be_bytes(), row.as_bytes())
            .map_err(|source| StoreError::Altered { what, source })?;
        serde_json::from_slice(&plain).ok().ok_or(StoreError::Malformed { what })
    }
}

/// The key that one record is sealed under. Destroy it and the record is noise.
pub(super) struct RecordKey(SecretKey);

impl RecordKey {
    pub(super) fn random() -> Result<Self, SealError> {
        Ok(Self(SecretKey::random()?))
    }

    pub(super) fn from_secret(key: SecretKey) -> Self {
        Self(key)
    }

    /// For the page that it is sealed in.
    pub(super) fn secret(&self) -> &SecretKey {
        &self.0
    }

    /// Seals header and template, the template bound to the header.
    pub(super) fn seal(
        &self,
        record: &StoredRecord,
        template: &Embedding,
    ) -> Result<(Sealed, Sealed), StoreError> {
        let header = encode_header(record)?;
        let sealed_header = seal(&self.key(HEADER_LABEL), record.id.as_bytes(), &header)?;
        let sealed_template = seal(&self.key(TEMPLATE_LABEL), &header, &encode_template(template))?;
        Ok((sealed_header, sealed_template))
    }

    pub(super) fn open_header(
        &self,
        id: RecordId,
        header: &Opaque,
    ) -> Result<StoredRecord, RecordFault> {
        decode_header(id, &self.header_bytes(id, header)?)
    }

    pub(super) fn open(
        &self,
        id: RecordId,
        header: &Opaque,
        template: &Opaque,
    ) -> Result<OpenedRecord, RecordFault> {
        let header = self.header_bytes(id, header)?;
        let plain = open(&self.key(TEMPLATE_LABEL), &header, template.as_bytes())
            .map_err(RecordFault::Template)?;
        let template = decode_template(&plain).ok_or(RecordFault::TemplateMalformed)?;
        Ok(OpenedRecord { record: decode_header(id, &header)?, template })
    }

    pub(super) fn seal_answer(
        &self,
        id: RecordId,
        at: Revision,
        request_digest: &[u8; DIGEST_BYTES],
        answer: &[u8],
    ) -> Result<Sealed, SealError> {
        let plain = [&at.0.to_be_bytes()[..], request_digest, answer].concat();
        seal(&self.key(ANSWER_LABEL), id.as_bytes(), &Zeroizing::new(plain))
    }

    pub(super) fn open_answer(
        &self,
        id: RecordId,
        answer: &Opaque,
    ) -> Result<PriorAnswer, RecordFault> {
        let plain = open(&self.key(ANSWER_LABEL), id.as_bytes(), answer.as_bytes())
            .map_err(RecordFault::Answer)?;
        let (revision, rest) = split_revision(&plain).ok_or(RecordFault::AnswerMalformed)?;
        let (digest, answer) = rest.split_first_chunk().ok_or(RecordFault::AnswerMalformed)?;
        Ok(PriorAnswer::Answered { request_digest: *digest, answer: answer.to_vec(), revision })
    }

    /// Seals the record's row of a snapshot (`snapshot.rs`).
    pub(super) fn seal_row(&self, aad: &[u8], plain: &[u8]) -> Result<Sealed, SealError> {
        seal(&self.key(ROW_LABEL), aad, plain)
    }

    pub(super) fn open_row(
        &self,
        aad: &[u8],
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        open(&self.key(ROW_LABEL), aad, sealed)
    }

    fn key(&self, label: &[u8]) -> SecretKey {
        self.0.derive(label, b"")
    }

    fn header_bytes(
        &self,
        id: RecordId,
        header: &Opaque,
    ) -> Result<Zeroizing<Vec<u8>>, RecordFault> {
        open(&self.key(HEADER_LABEL), id.as_bytes(), header.as_bytes()).map_err(RecordFault::Header)
    }
}

fn encode_header(record: &StoredRecord) -> Result<Zeroizing<Vec<u8>>, serde_json::Error> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(HEADER_CAPACITY_BYTES));
    serde_json::to_writer(&mut *bytes, &Header { v: HEADER_VERSION, record })?;
    Ok(bytes)
}

/// The parser's reason is dropped: it may quote the header.
fn decode_header(id: RecordId, bytes: &[u8]) -> Result<StoredRecord, RecordFault> {
    serde_json::from_slice::<Header<StoredRecord>>(bytes)
        .ok()
        .filter(|header| header.v == HEADER_VERSION && header.record.id == id)
        .map(|header| header.record)
        .ok_or(RecordFault::HeaderMalformed)
}

fn encode_template(template: &Embedding) -> Zeroizing<Vec<u8>> {
    let values = template.expose();
    let mut bytes = Zeroizing::new(Vec::with_capacity(WIDTH_BYTES + values.len() * F32_BYTES));
    // An embedding has at most 1,024 dimensions.
    let width = u32::try_from(values.len()).unwrap_or(u32::MAX);
    bytes.extend_from_slice(&width.to_le_bytes());
    bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    bytes
}

/// Normalised again on the way: the last bit of a value may change, the direction does not.
fn decode_template(bytes: &[u8]) -> Option<Embedding> {
    let (width, values) = bytes.split_first_chunk::<WIDTH_BYTES>()?;
    let (values, rest) = values.as_chunks::<F32_BYTES>();
    let whole = rest.is_empty() && values.len() == u32::from_le_bytes(*width) as usize;
    let values = || values.iter().map(|value| f32::from_le_bytes(*value)).collect();
    whole.then(|| Embedding::normalise(values()).ok()).flatten()
}

fn split_revision(plain: &[u8]) -> Option<(Revision, &[u8])> {
    let (revision, rest) = plain.split_first_chunk::<REVISION_BYTES>()?;
    Some((Revision(u64::from_be_bytes(*revision)), rest))
}
