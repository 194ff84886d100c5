//! What a revision did.

use serde::{Deserialize, Serialize};

use crate::audit::Head;
use crate::consent::{
    BeijingDay, Comparison, ConsentRecord, FilingDuty, FilingMark, FilingNumber, Sha256,
};
use crate::crypto::cell::Epoch;
use crate::types::{
    ConsentId, ControllerId, GateId, Purpose, RecordId, Revision, Scope, SubjectRef, Timestamp,
};

/// Why records were destroyed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RevocationCause {
    /// The person withdrew consent.
    Withdrawn,
    /// The consent ran out.
    Expired,
    /// Nobody used it for as long as the controller's limit.
    Inactive,
    /// It was enrolled after the backup that the store was restored from: only its key was left.
    Lost,
}

/// What a revision did. One entry for each revision, sealed, bound to its revision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "entry", rename_all = "snake_case")]
pub enum LogEntry {
    /// The store was made.
    Created {
        /// When.
        at: Timestamp,
    },
    /// A record was enrolled.
    Enrolled {
        /// Which.
        record: RecordId,
        /// When.
        at: Timestamp,
    },
    /// Records were destroyed.
    Revoked {
        /// Which.
        records: Vec<RecordId>,
        /// Why.
        cause: RevocationCause,
        /// When.
        at: Timestamp,
    },
    /// The store was brought back from a backup.
    Restored {
        /// When.
        at: Timestamp,
        /// When the backup was begun.
        backup_at: Timestamp,
    },
    /// The policy document was replaced.
    PolicyApplied {
        /// Digest of the document.
        sha256: Sha256,
        /// When.
        at: Timestamp,
    },
}

/// What the audit trail says happened. No biometric, and no more of a person than the reference
/// that the enrolment tool chose.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum AuditEvent<'a> {
    /// The store was made.
    StoreCreated {
        /// When.
        at: Timestamp,
        /// The revision that did it.
        revision: Revision,
    },
    /// A record was enrolled.
    Enrolled {
        /// When.
        at: Timestamp,
        /// The revision that did it.
        revision: Revision,
        /// Which.
        record: RecordId,
        /// Whose.
        subject: &'a SubjectRef,
        /// What was agreed to.
        consent: &'a ConsentRecord,
    },
    /// Records were destroyed.
    Erased {
        /// When.
        at: Timestamp,
        /// The revision that did it.
        revision: Revision,
        /// Which.
        records: &'a [RecordId],
        /// Why.
        cause: RevocationCause,
    },
    /// The policy document was replaced.
    PolicyApplied {
        /// When.
        at: Timestamp,
        /// The revision that did it.
        revision: Revision,
        /// Digest of the document.
        sha256: Sha256,
    },
    /// ROOT was replaced without an erasure.
    KeysRotated {
        /// When.
        at: Timestamp,
        /// The epoch before.
        after_epoch: Epoch,
        /// Why.
        reason: &'static str,
    },
    /// A backup was made.
    BackupMade {
        /// When it was begun.
        at: Timestamp,
        /// Its rows.
        rows: u64,
        /// Digest of it, its end apart.
        sha256: Sha256,
    },
    /// The store was brought back from a backup. The trail goes on after the backup's last entry:
    /// what stood behind that one is lost here, and known to whoever witnessed or exported it.
    Restored {
        /// When.
        at: Timestamp,
        /// The revision that says so.
        revision: Revision,
        /// When the backup was begun.
        backup_at: Timestamp,
        /// Its newest revision.
        backup_revision: Revision,
        /// Records that are there again.
        records: u64,
        /// Records that were revoked after it, and stay revoked.
        revoked_since: usize,
        /// Records that were enrolled after it, and are lost.
        lost: usize,
    },
    /// Entries older than their retention were removed from the beginning of the trail.
    Pruned {
        /// When.
        at: Timestamp,
        /// The last of them: the number and the hash that whoever exported them has as well.
        #[serde(flatten)]
        through: Head,
        /// Those were older than this.
        before: Timestamp,
    },
    /// An operator took the system's clock as it is.
    ClockConfirmed {
        /// The clock's time.
        at: Timestamp,
        /// How far it was ahead of where it should have been, ms; negative when behind.
        skew_ms: i64,
    },
    /// The deployment ends: the last entry of its trail.
    Decommissioned {
        /// When.
        at: Timestamp,
        /// Records that were held until then.
        records: u64,
        /// Who is responsible.
        by: &'a str,
    },
    /// Records that a restore did not bring back.
    NotRestored {
        /// When.
        at: Timestamp,
        /// Why.
        why: &'static str,
        /// Which; further ones stand in further entries.
        records: &'a [RecordId],
    },
    /// A controller has to file with the authority, or to file a change (O1).
    FilingDue {
        /// Since when.
        at: Timestamp,
        /// Who.
        controller: &'a ControllerId,
        /// What.
        duty: FilingDuty,
        /// How many persons it held.
        persons: u64,
        /// The last day for it, where the calendar reaches it.
        deadline: Option<BeijingDay>,
    },
    /// An operator said that a controller has filed (O1).
    FilingMarked {
        /// When it was said.
        at: Timestamp,
        /// Who said it.
        caller: &'a str,
        /// Who has filed.
        controller: &'a ControllerId,
        /// What was done.
        mark: FilingMark,
        /// The authority's number.
        number: &'a FilingNumber,
        /// When it was done.
        on: BeijingDay,
        /// How many persons the controller held when it was said.
        persons: u64,
        /// Digest of what the controller did then.
        material: Sha256,
    },
    /// An operator let a subject's face be tried again.
    LockoutCleared {
        /// When.
        at: Timestamp,
        /// Who asked.
        caller: &'a str,
        /// Whose subject.
        controller: &'a ControllerId,
        /// Whose face.
        subject: &'a SubjectRef,
    },
    /// A gate was answered.
    Decision {
        /// When.
        at: Timestamp,
        /// Who asked.
        caller: &'a str,
        /// Where.
        gate: &'a GateId,
        /// What was compared.
        comparison: Comparison,
        /// The answer.
        decision: &'static str,
        /// Why nobody matched, where that is known.
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<&'static str>,
        /// Who was found, and under which consent.
        #[serde(flatten)]
        found: Option<FoundUnder<'a>>,
        /// What the gate said about liveness.
        #[serde(skip_serializing_if = "Option::is_none")]
        pad: Option<PadNote<'a>>,
        /// The liveness model's score of the face.
        #[serde(skip_serializing_if = "Option::is_none")]
        liveness: Option<f32>,
        /// The revision that the answer rests on.
        revision: Revision,
        /// The revision of the policy that it rests on.
        policy: Revision,
    },
}

/// What a gate said about liveness (presentation attack detection).
#[derive(Debug, Serialize)]
pub struct PadNote<'a> {
    /// "live", "spoof" or "unsure".
    pub result: &'static str,
    /// How it looked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<&'a str>,
    /// Its own score.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub score: Option<f32>,
}

/// The record that a decision found, and the consent that covers it.
#[derive(Debug, Serialize)]
pub struct FoundUnder<'a> {
    /// The record.
    pub record: RecordId,
    /// The consent.
    pub consent_id: &'a ConsentId,
    /// What for.
    pub purpose: &'a Purpose,
    /// Where.
    pub scope: &'a Scope,
}
