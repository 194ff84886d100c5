//! What a revision did.

use serde::{Deserialize, Serialize};

use crate::consent::Sha256;
use crate::types::{RecordId, Timestamp};

/// Why records were destroyed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RevocationCause {
    /// The person withdrew consent.
    Withdrawn,
    /// The consent ran out.
    Expired,
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
    /// The policy document was replaced.
    PolicyApplied {
        /// Digest of the document.
        sha256: Sha256,
        /// When.
        at: Timestamp,
    },
}
