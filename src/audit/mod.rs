//! The audit chain: its links, its export, its offline verification, and the witness's rule.
//!
//! ```text
//! leaf_n = SHA-256(entry n, its bytes)
//! h_0    = SHA-256("assent/audit/1" | deployment's public key)
//! h_n    = SHA-256("assent/audit/1" | h_(n-1) | n, u64 BE | leaf_n)
//! ```
//! An entry is JSON and opaque to the chain, checkpoints apart: `{"event":"checkpoint",..}` signs
//! the head before it. Who changes, drops, adds or moves an entry breaks every later link, and who
//! mends the links cannot sign the checkpoints. Who holds the signing key can do both, and is caught
//! by a witness that keeps checkpoints elsewhere.
//!
//! # Not here
//! Keeping the chain (store), and what an entry says (`store::AuditEvent`).

mod export;
mod receipt;
mod witness;

#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

pub use export::{ExportWriter, VerifyError, VerifyReport, verify_export};
pub use receipt::{Receipt, ReceiptFault, ReceiptKind, Statement};
pub use witness::{Witness, WitnessAlarm, read_checkpoints};

use crate::crypto::{
    DIGEST_BYTES, PUBLIC_KEY_BYTES, SIGNATURE_BYTES, SignatureFault, Signer, sha256, verify,
};
use crate::types::Timestamp;

const CHAIN: &[u8] = b"assent/audit/1";
const CHECKPOINT: &str = "assent/checkpoint/1";
const EXPORT_END: &str = "assent/export-end/1";

/// Digest of one entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Leaf(#[serde(with = "hex::serde")] [u8; DIGEST_BYTES]);

impl Leaf {
    /// Of the entry's bytes.
    #[must_use]
    pub fn of(entry: &[u8]) -> Self {
        Self(sha256(entry))
    }
}

/// The chain up to one entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The entry's number, from 1; 0 before the first.
    pub seq: u64,
    /// The chain's hash behind it.
    #[serde(with = "hex::serde")]
    pub hash: [u8; DIGEST_BYTES],
}

impl Head {
    /// Before the first entry of a deployment's chain.
    #[must_use]
    pub fn genesis(public_key: &[u8; PUBLIC_KEY_BYTES]) -> Self {
        Self { seq: 0, hash: sha256(&[CHAIN, public_key].concat()) }
    }

    /// Behind one more entry.
    #[must_use]
    pub fn then(&self, leaf: &Leaf) -> Self {
        let seq = self.seq + 1;
        Self { seq, hash: sha256(&[CHAIN, &self.hash, &seq.to_be_bytes(), &leaf.0].concat()) }
    }
}

/// A signed statement about the chain's head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// The head.
    #[serde(flatten)]
    pub head: Head,
    /// When it was signed.
    pub at: Timestamp,
    /// Ed25519 over the kind of statement, the entry's number, its hash and the time, a line each.
    #[serde(with = "hex::serde")]
    pub signature: [u8; SIGNATURE_BYTES],
}

impl Checkpoint {
    /// States that the chain has this head now.
    #[must_use]
    pub fn sign(signer: &Signer, head: Head, at: Timestamp) -> Self {
        Self { head, at, signature: signer.sign(statement(CHECKPOINT, head, at).as_bytes()) }
    }

    /// # Errors
    /// Another key signed, or another statement.
    pub fn verify(&self, public_key: &[u8; PUBLIC_KEY_BYTES]) -> Result<(), SignatureFault> {
        let statement = statement(CHECKPOINT, self.head, self.at);
        verify(public_key, statement.as_bytes(), &self.signature)
    }
}

fn statement(kind: &str, head: Head, at: Timestamp) -> String {
    format!("{kind}\n{}\n{}\n{at}\n", head.seq, hex::encode(head.hash))
}

/// A checkpoint as an entry of the chain.
#[derive(Deserialize)]
#[serde(tag = "event", rename = "checkpoint")]
struct CheckpointEntry {
    #[serde(flatten)]
    checkpoint: Checkpoint,
}

/// An entry that signs the head before it.
#[must_use]
pub fn checkpoint_entry(signer: &Signer, head: Head, at: Timestamp) -> Vec<u8> {
    let Checkpoint { head: Head { seq, hash }, at, signature } = Checkpoint::sign(signer, head, at);
    let (hash, signature) = (hex::encode(hash), hex::encode(signature));
    format!(
        r#"{{"event":"checkpoint","seq":{seq},"hash":"{hash}","at":"{at}","signature":"{signature}"}}"#
    )
    .into_bytes()
}
