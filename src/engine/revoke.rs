//! Revoke: withdrawn, committed, zeroised, signed.
//!
//! The order is the promise: the template stops matching and is zeroised before the store is
//! asked, so whatever happens to the commit, nobody matches a revoked record in this process
//! (P2, P9). Records whose commit failed stay dead in RAM and are found again by a repeated call.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Instant;

use thiserror::Error;

use super::Engine;
use super::receipt::{Receipt, erasure_receipt};
use crate::failpoint;
use crate::index::{NewTemplate, PendingPurge, Purged};
use crate::store::{RevocationCause, Revoked, StoreError, StoredRecord};
use crate::telemetry;
use crate::types::{ConsentId, ControllerId, RecordId, Revision, SubjectRef, Timestamp};

/// Expired records that one sweep takes at once.
const SWEEP_BATCH: usize = 1_000;

/// Whose record: what a revocation can name it by.
#[derive(Debug, Clone)]
pub(super) struct Owner {
    pub(super) controller: ControllerId,
    pub(super) subject: SubjectRef,
    pub(super) consent: ConsentId,
}

impl Owner {
    pub(super) fn of(record: &StoredRecord) -> Self {
        Self {
            controller: record.consent.controller.clone(),
            subject: record.subject.clone(),
            consent: record.consent.consent_id.clone(),
        }
    }
}

impl From<NewTemplate> for Owner {
    fn from(held: NewTemplate) -> Self {
        Self {
            controller: held.consent.class.controller,
            subject: held.subject,
            consent: held.consent.consent_id,
        }
    }
}

impl RevokeTarget {
    /// Whether it names this record of this controller.
    pub(super) fn names(&self, controller: &ControllerId, record: RecordId, owner: &Owner) -> bool {
        owner.controller == *controller
            && match self {
                Self::Subject(subject) => owner.subject == *subject,
                Self::Consent(consent) => owner.consent == *consent,
                Self::Record(wanted) => record == *wanted,
            }
    }
}

/// Whose consent is withdrawn.
#[derive(Debug, Clone)]
pub enum RevokeTarget {
    /// All records of a subject.
    Subject(SubjectRef),
    /// One record.
    Record(RecordId),
    /// The record held under a consent.
    Consent(ConsentId),
}

/// What was destroyed. Made only from proofs that the index rows are zeroised and the commit is
/// durable.
#[derive(Debug)]
pub struct RevocationReceipt {
    records: Vec<RecordId>,
    revision: Revision,
    receipt: Receipt,
}

impl RevocationReceipt {
    /// The records that this call destroyed.
    #[must_use]
    pub fn records(&self) -> &[RecordId] {
        &self.records
    }

    /// The revision from which on they are gone.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// The signed statement.
    #[must_use]
    pub fn receipt(&self) -> &Receipt {
        &self.receipt
    }
}

/// Why a revocation is not acknowledged. Repeat the call.
#[derive(Debug, Error)]
pub enum RevokeError {
    /// What is held could not be read; nothing was revoked.
    #[error("what is held could not be read; nothing was revoked, repeat the call")]
    Unread(#[source] StoreError),
    /// Nothing is known to be held, but the store is in doubt since a failed commit.
    #[error("the store is in doubt after a fault; restart the service, then repeat the call")]
    InDoubt,
    /// The commit failed. The records do not match any more in this process all the same.
    #[error("the revocation is not durable yet; the records match no more, repeat the call")]
    Store(#[source] StoreError),
    /// A fault of ours.
    #[error("internal fault; repeat the call")]
    Internal,
}

/// The facts of an erasure receipt.
pub(super) struct Erasure<'a> {
    pub(super) controller: &'a ControllerId,
    pub(super) records: &'a [RecordId],
    pub(super) revision: Revision,
    pub(super) at: Timestamp,
}

/// The proof of a destruction: rows zeroised, then the commit durable.
struct Erased {
    revoked: Revoked,
    /// Those that were in the index; records whose earlier revocation failed had left it then.
    _purged: Vec<Purged>,
}

/// Records that are dead in the index while their revocation is not known to be durable.
#[derive(Default)]
pub(super) struct Limbo(HashMap<RecordId, (Owner, RevocationCause)>);

impl Limbo {
    pub(super) fn enter(&mut self, record: RecordId, owner: Owner, cause: RevocationCause) {
        self.0.insert(record, (owner, cause));
    }

    pub(super) fn leave(&mut self, record: RecordId) {
        self.0.remove(&record);
    }

    fn named(&self, controller: &ControllerId, target: &RevokeTarget) -> Vec<RecordId> {
        let named = self.0.iter().filter(|(id, (owner, _))| target.names(controller, **id, owner));
        named.map(|(record, _)| *record).collect()
    }

    /// What an earlier sweep could not finish.
    fn expired(&self) -> Vec<RecordId> {
        let by_time = [RevocationCause::Expired, RevocationCause::Inactive];
        let expired = self.0.iter().filter(|(_, (_, cause))| by_time.contains(cause));
        expired.map(|(record, _)| *record).collect()
    }
}

impl Engine {
    /// Withdraws and destroys. Idempotent; asks for no reason.
    ///
    /// # Errors
    /// See [`RevokeError`].
    pub async fn revoke(
        self: &Arc<Self>,
        controller: ControllerId,
        target: RevokeTarget,
    ) -> Result<RevocationReceipt, RevokeError> {
        let begun = Instant::now();
        let work = Arc::clone(self).revoke_target(controller, target);
        let outcome = match tokio::spawn(self.tasks.track_future(work)).await {
            Ok(outcome) => outcome,
            Err(_panicked) => Err(RevokeError::Internal),
        };
        telemetry::revocation(begun.elapsed());
        outcome
    }

    /// Erases what has expired; returns how many records.
    ///
    /// # Errors
    /// See [`RevokeError`]; what is left is taken by the next sweep.
    pub async fn sweep(self: &Arc<Self>, now: Timestamp) -> Result<usize, RevokeError> {
        let mut expired = self.index.expired(now, SWEEP_BATCH);
        expired.extend(self.limbo().expired());
        if expired.is_empty() {
            return Ok(0);
        }
        let _drain_waits = self.task();
        self.erase(&expired, RevocationCause::Expired).await
    }

    /// Erases these records for `cause`; how many there were.
    pub(super) async fn erase(
        &self,
        records: &[RecordId],
        cause: RevocationCause,
    ) -> Result<usize, RevokeError> {
        Ok(self.destroy(records, cause).await?.revoked.records.len())
    }

    async fn revoke_target(
        self: Arc<Self>,
        controller: ControllerId,
        target: RevokeTarget,
    ) -> Result<RevocationReceipt, RevokeError> {
        self.arriving.settled(&controller, &target).await;
        if let RevokeTarget::Subject(subject) = &target {
            self.forget_attempts(&controller, subject);
        }
        let records = self.resolve(&controller, &target).await?;
        if records.is_empty() && !self.store.is_healthy() {
            return Err(RevokeError::InDoubt);
        }
        let erased = self.destroy(&records, RevocationCause::Withdrawn).await?;
        Ok(self.certify(&controller, erased))
    }

    /// The one way to a receipt: through the proof of what was destroyed.
    fn certify(&self, controller: &ControllerId, erased: Erased) -> RevocationReceipt {
        let Revoked { revision, records } = erased.revoked;
        let at = self.now();
        let facts = Erasure { controller, records: &records, revision, at };
        let receipt = erasure_receipt(self.store.signer(), &facts);
        RevocationReceipt { records, revision, receipt }
    }

    /// Dead in the index, zeroised, then durable in the store.
    async fn destroy(
        &self,
        records: &[RecordId],
        cause: RevocationCause,
    ) -> Result<Erased, RevokeError> {
        let pending: Vec<PendingPurge> =
            records.iter().filter_map(|record| self.withdraw(*record, cause)).collect();
        // Zeroised before the commit: a revoked template that outlives a failed commit in RAM
        // helps nobody, and a lost one is the better loss (P9).
        let purged = pending.into_iter().map(|pending| self.index.purge(pending)).collect();
        failpoint::reach("revoke.zeroised");
        let mut forgotten = self.last_use.forget(records);
        let (attempts, in_turn) = self.lockouts.gone().await;
        forgotten.extend(attempts);
        let revoked = self.store.revoke_with(records, self.now(), cause, forgotten).await;
        drop(in_turn);
        let revoked = revoked.map_err(RevokeError::Store)?;
        failpoint::reach("revoke.committed");
        self.advance(revoked.revision);
        let mut limbo = self.limbo();
        let mut quarantined = self.quarantined.lock().unwrap_or_else(PoisonError::into_inner);
        for record in records {
            limbo.leave(*record);
            quarantined.retain(|held| held != record);
        }
        Ok(Erased { revoked, _purged: purged })
    }

    /// Takes the record out of the maps. It is in limbo before, and until the store has confirmed,
    /// so that at no instant a concurrent revocation finds it nowhere.
    fn withdraw(&self, record: RecordId, cause: RevocationCause) -> Option<PendingPurge> {
        let held = self.index.describe(record)?;
        let owner = Owner::from(held);
        self.limbo().enter(record, owner.clone(), cause);
        let pending = self.index.withdraw(record);
        if self.index.records_of_subject(&owner.controller, &owner.subject).is_empty() {
            self.forget_attempts(&owner.controller, &owner.subject);
        }
        pending
    }

    pub(super) fn limbo(&self) -> MutexGuard<'_, Limbo> {
        self.limbo.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The records that the target names and the controller owns: in the index, in limbo, among
    /// those that could not be opened, and in the store.
    async fn resolve(
        &self,
        controller: &ControllerId,
        target: &RevokeTarget,
    ) -> Result<Vec<RecordId>, RevokeError> {
        let mut records: BTreeSet<RecordId> =
            self.limbo().named(controller, target).into_iter().collect();
        match target {
            RevokeTarget::Subject(subject) => {
                records.extend(self.index.records_of_subject(controller, subject));
                records.extend(self.quarantined_of(controller, subject).await);
            }
            RevokeTarget::Consent(consent) => {
                let claimed = self.store.record_of_consent(controller, consent).await;
                records.extend(claimed.map_err(RevokeError::Unread)?);
            }
            RevokeTarget::Record(record) => {
                if self.owns(controller, *record).await? {
                    records.insert(*record);
                }
            }
        }
        Ok(records.into_iter().collect())
    }

    /// Records of the subject whose template does not open but whose header does.
    async fn quarantined_of(
        &self,
        controller: &ControllerId,
        subject: &SubjectRef,
    ) -> Vec<RecordId> {
        let mut found = Vec::new();
        for record in self.quarantined() {
            let held = self.store.describe(record).await.ok().flatten();
            let named = |held: StoredRecord| {
                held.consent.controller == *controller && held.subject == *subject
            };
            if held.is_some_and(named) {
                found.push(record);
            }
        }
        found
    }

    /// Whether the record is this controller's. A record that cannot be opened may be destroyed by
    /// whoever knows its id.
    async fn owns(&self, controller: &ControllerId, record: RecordId) -> Result<bool, RevokeError> {
        if let Some(held) = self.index.describe(record) {
            return Ok(held.consent.class.controller == *controller);
        }
        if self.quarantined().contains(&record) {
            return Ok(true);
        }
        let held = self.store.describe(record).await.map_err(RevokeError::Unread)?;
        Ok(held.is_some_and(|held| held.consent.controller == *controller))
    }
}
