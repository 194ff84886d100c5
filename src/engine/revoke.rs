//! Revoke: withdrawn, committed, zeroised, signed.
//!
//! The order is the promise: the template stops matching and is zeroised before the store is
//! asked, so whatever happens to the commit, nobody matches a revoked record in this process
//! (P2, P9). Records whose commit failed stay dead in RAM and are found again by a repeated call.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use thiserror::Error;

use super::Engine;
use super::receipt::{Receipt, erasure_receipt};
use crate::index::{PendingPurge, Purged};
use crate::store::{RevocationCause, Revoked, StoreError};
use crate::telemetry;
use crate::types::{ConsentId, ControllerId, RecordId, Revision, SubjectRef, Timestamp};

/// Expired records that one sweep takes at once.
const SWEEP_BATCH: usize = 1_000;

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

/// Why a revocation is not durable. The records do not match any more in this process all the
/// same; repeat the call.
#[derive(Debug, Error)]
pub enum RevokeError {
    /// The store.
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
    purged: Vec<Purged>,
}

/// A record that is dead in the index while its revocation is not durable.
pub(super) struct Limbo {
    controller: ControllerId,
    subject: SubjectRef,
    consent: ConsentId,
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
        let expired = self.index.expired(now, SWEEP_BATCH);
        if expired.is_empty() {
            return Ok(0);
        }
        let _drain_waits = self.task();
        let erased = self.destroy(&expired, RevocationCause::Expired).await?;
        Ok(erased.purged.len())
    }

    async fn revoke_target(
        self: Arc<Self>,
        controller: ControllerId,
        target: RevokeTarget,
    ) -> Result<RevocationReceipt, RevokeError> {
        let records = self.resolve(&controller, &target).await?;
        let erased = self.destroy(&records, RevocationCause::Withdrawn).await?;
        Ok(self.certify(&controller, erased))
    }

    /// The one way to a receipt: through the proof of what was destroyed.
    fn certify(&self, controller: &ControllerId, erased: Erased) -> RevocationReceipt {
        let Revoked { revision, records } = erased.revoked;
        let at = Timestamp::now();
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
            records.iter().filter_map(|record| self.withdraw(*record)).collect();
        // Zeroised before the commit: a revoked template that outlives a failed commit in RAM
        // helps nobody, and a lost one is the better loss (P9).
        let purged = pending.into_iter().map(|pending| self.index.purge(pending)).collect();
        let revoked = self
            .store
            .revoke(records, Timestamp::now(), cause)
            .await
            .map_err(RevokeError::Store)?;
        self.advance(revoked.revision);
        let mut limbo = self.limbo.lock().unwrap_or_else(PoisonError::into_inner);
        let mut quarantined = self.quarantined.lock().unwrap_or_else(PoisonError::into_inner);
        for record in records {
            limbo.remove(record);
            quarantined.retain(|held| held != record);
        }
        Ok(Erased { revoked, purged })
    }

    /// Takes the record out of the maps; it is kept in limbo until the store has confirmed.
    fn withdraw(&self, record: RecordId) -> Option<PendingPurge> {
        let held = self.index.describe(record)?;
        let pending = self.index.withdraw(record)?;
        let entry = Limbo {
            controller: held.consent.class.controller,
            subject: held.subject,
            consent: held.consent.consent_id,
        };
        self.limbo.lock().unwrap_or_else(PoisonError::into_inner).insert(record, entry);
        Some(pending)
    }

    /// The records that the target names and the controller owns.
    async fn resolve(
        &self,
        controller: &ControllerId,
        target: &RevokeTarget,
    ) -> Result<Vec<RecordId>, RevokeError> {
        let mut records = BTreeSet::new();
        match target {
            RevokeTarget::Subject(subject) => {
                records.extend(self.index.records_of_subject(controller, subject));
            }
            RevokeTarget::Consent(consent) => {
                records.extend(self.index.record_of_consent(controller, consent));
            }
            RevokeTarget::Record(record) => {
                if self.owns(controller, *record).await? {
                    records.insert(*record);
                }
            }
        }
        records.extend(self.in_limbo(controller, target));
        Ok(records.into_iter().collect())
    }

    fn in_limbo(&self, controller: &ControllerId, target: &RevokeTarget) -> Vec<RecordId> {
        let limbo = self.limbo.lock().unwrap_or_else(PoisonError::into_inner);
        let named = |record: &RecordId, held: &Limbo| match target {
            RevokeTarget::Subject(subject) => held.subject == *subject,
            RevokeTarget::Consent(consent) => held.consent == *consent,
            RevokeTarget::Record(wanted) => record == wanted,
        };
        limbo
            .iter()
            .filter(|(record, held)| held.controller == *controller && named(record, held))
            .map(|(record, _held)| *record)
            .collect()
    }

    /// Whether the store holds the record for this controller. A record that cannot be opened may
    /// be destroyed by whoever knows its id.
    async fn owns(&self, controller: &ControllerId, record: RecordId) -> Result<bool, RevokeError> {
        let quarantined = self.quarantined.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if quarantined.contains(&record) {
            return Ok(true);
        }
        let held = self.store.describe(record).await.map_err(RevokeError::Store)?;
        Ok(held.is_some_and(|held| held.consent.controller == *controller))
    }
}
