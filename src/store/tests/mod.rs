//! The store attacked: seals, restarts, claims, faults, full disks, flipped bits.

/// Backups and the key mirror.
mod backup;
/// Idempotency keys and consent ids.
mod claims;
/// The key tree: older copies, rollback, failing cells.
mod erasure;
/// What is remembered besides records.
mod facts;
/// Failing disks and power cuts, against a plain map.
mod faults;
/// Flipped bits, all over the file.
mod flips;
/// What is decided before the tables have it.
mod journal;
/// Restarts, revocation, binding, group commit.
mod lifecycle;
/// Altered, swapped and missing rows; what the file shows.
mod seals;
/// Sealed snapshots.
mod snapshot;
/// Full disks.
mod space;
/// The audit trail.
mod trail;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::audit::{Head, Leaf};
use crate::consent::{
    AlternativeMethod, Comparison, ConsentForm, ConsentRecord, LawfulBasis, Sha256, SubjectClass,
};
use crate::crypto::cell::MemoryCell;
use crate::types::{
    ControllerId, Embedding, GateId, IdempotencyKey, ModelContract, NoticeId, NoticeVersion,
    Purpose, RecordId, Revision, Scope, ShortText, SubjectRef, Timestamp,
};

const WIDTH: u8 = 128;

fn model() -> ModelContract {
    ModelContract::parse("model-a").unwrap()
}

fn cell() -> MemoryCell {
    MemoryCell::new(7)
}

fn now() -> Timestamp {
    "2025-06-01T00:00:00Z".parse().unwrap()
}

fn controller() -> ControllerId {
    ControllerId::parse("estate").unwrap()
}

/// The `n`th person's record id.
fn id(n: u8) -> RecordId {
    RecordId::from_bytes([n; 16])
}

fn record(n: u8) -> StoredRecord {
    StoredRecord {
        id: id(n),
        subject: SubjectRef::parse(format!("resident-of-flat-{n}")).unwrap(),
        consent: consent(n),
        model: model(),
        generation: 0,
        frames: 3,
        enrolled_at: now(),
    }
}

fn consent(n: u8) -> ConsentRecord {
    ConsentRecord {
        controller: controller(),
        consent_id: format!("consent-{n}").parse().unwrap(),
        purpose: Purpose::parse("access").unwrap(),
        scope: Scope::parse("east-door").unwrap(),
        notice_id: NoticeId::parse("doors").unwrap(),
        notice_version: NoticeVersion::parse("2").unwrap(),
        notice_sha256: Sha256([9; 32]),
        form: ConsentForm::Electronic,
        channel: ShortText::parse("app").unwrap(),
        captured_at: now(),
        expires_at: now().plus_days(365),
        evidence_sha256: Sha256([8; 32]),
        alternative_offered: AlternativeMethod::Card,
        lawful_basis: LawfulBasis::Consent,
        legal_reference: None,
        subject_class: SubjectClass::Adult,
        guardian: None,
        reconsent_by: None,
        offdevice_processing: false,
    }
}

/// The record id of the `n`th of many people.
fn far_id(n: u16) -> RecordId {
    let mut bytes = [0xA5; 16];
    bytes[..2].copy_from_slice(&n.to_be_bytes());
    RecordId::from_bytes(bytes)
}

/// Enrols the `n`th of many people.
async fn enrol_far(store: &Store, n: u16) -> Result<Revision, StoreError> {
    let name = format!("of-many-{n}");
    let mut person = record(1);
    person.id = far_id(n);
    person.consent.consent_id = name.parse().unwrap();
    let mut write = repeat(1);
    write.key = IdempotencyKey::parse(name).unwrap();
    store.enrol(&person, &template(1), write).await
}

/// A number in the environment, or what is said here.
fn asked(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// splitmix64.
struct Dice(u64);

impl Dice {
    /// The seed of this run: `ASSENT_SEED`, or a new one.
    fn of_this_run() -> Self {
        let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
        Self(asked("ASSENT_SEED", u64::from(now.subsec_nanos()) ^ now.as_secs()))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: u32) -> u32 {
        u32::try_from(self.next() % u64::from(limit)).unwrap()
    }
}

/// The `n`th person's template, nearly at right angles to the others'.
fn template(n: u8) -> Embedding {
    let value = |i: u8| ((f32::from(n) + 1.0) * (f32::from(i) + 0.5)).sin();
    Embedding::normalise((0..WIDTH).map(value).collect()).unwrap()
}

fn key(n: u8) -> IdempotencyKey {
    IdempotencyKey::parse(format!("try-{n}")).unwrap()
}

fn repeat(n: u8) -> IdempotentWrite {
    IdempotentWrite {
        controller: controller(),
        key: key(n),
        request_digest: [n; 32],
        answer: vec![n; 5],
    }
}

/// A store that was never opened before.
async fn create(backend: &Arc<Embedded>) -> (MemoryCell, Store) {
    let cell = cell();
    let store = open(backend, &cell).await.unwrap();
    (cell, store)
}

async fn open(backend: &Arc<Embedded>, cell: &MemoryCell) -> Result<Store, StoreError> {
    let backend = Arc::clone(backend) as Arc<dyn Backend>;
    Store::open(backend, Box::new(cell.reopen()), &model()).await
}

async fn open_in(directory: &Path, cell: &MemoryCell) -> (Arc<Embedded>, Store) {
    let backend = Arc::new(Embedded::open(directory).unwrap());
    let store = open(&backend, cell).await.unwrap();
    (backend, store)
}

async fn enrol(store: &Store, n: u8) -> Result<Revision, StoreError> {
    store.enrol(&record(n), &template(n), repeat(n)).await
}

async fn revoke(store: &Store, n: u8) -> Result<Revoked, StoreError> {
    store.revoke(&[id(n)], now(), RevocationCause::Withdrawn).await
}

/// Records that a gate was answered.
async fn decide(store: &Store) -> Result<(), StoreError> {
    decide_at(store, now()).await
}

async fn decide_at(store: &Store, at: Timestamp) -> Result<(), StoreError> {
    let gate = GateId::parse("north").unwrap();
    let event = AuditEvent::Decision {
        at,
        caller: "loopback",
        gate: &gate,
        comparison: Comparison::OneToMany,
        decision: "no_match",
        reason: None,
        found: None,
        pad: None,
        liveness: None,
        revision: Revision(1),
        policy: Revision(1),
    };
    store.note(&event).await
}

/// All entries of the audit trail, where it can be read and every link of it holds.
async fn trail_of(store: &Store) -> Option<Vec<String>> {
    let mut head = Head::genesis(&store.signer().public_key());
    let mut entries = Vec::new();
    while let Some((before, block)) = store.audit(head.seq).await.ok()? {
        (before == head).then_some(())?;
        for entry in block {
            head = head.then(&Leaf::of(&entry));
            entries.push(String::from_utf8(entry).ok()?);
        }
    }
    (head == store.audit_head()).then_some(entries)
}

async fn load(store: &Store) -> (BTreeMap<RecordId, OpenedRecord>, LoadReport) {
    let mut opened = BTreeMap::new();
    let report = store
        .load(|record| {
            opened.insert(record.record.id, record);
        })
        .await
        .unwrap();
    (opened, report)
}

async fn loaded_ids(store: &Store) -> Vec<RecordId> {
    load(store).await.0.into_keys().collect()
}

/// Writes rows behind the store's back.
async fn tamper(backend: &Embedded, writes: Vec<Write>) {
    let entry = Opaque::stored(b"not sealed");
    let build = Box::new(move |_revision| Ok(Changes { writes, entry }));
    backend.commit(Batch { require: vec![], build, patient: false }).await.unwrap();
}

async fn row(backend: &Embedded, table: Table, n: u8) -> Opaque {
    backend.read(vec![table.row(id(n).into())]).await.unwrap().pop().unwrap().unwrap()
}
