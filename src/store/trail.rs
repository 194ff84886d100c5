//! The audit trail: what happened, in a chain, in the same commit as what it is about.
//!
//! ```text
//! audit  first seq u64 BE   sealed under D/Audit: hash before the first entry 32,
//!                           then each entry: length u32 LE, JSON
//!                           associated data "audit block" | first seq u64 BE
//! meta   "audit"            sealed under D/Audit: seq u64 BE of the last entry, its hash 32,
//!                           seq u64 BE of the last entry that was pruned, 0 for none
//!                           associated data "audit head"
//! ```
//! One block holds what one commit had to say: the changes of its batches and the decisions that
//! waited meanwhile. The chain itself, and how it is checked elsewhere, is `audit`'s business.
//!
//! # Invariants
//! - An entry is durable before anybody is told of what it records.
//! - At every start the last block leads to the head, and the first is the one that pruning left.
//! - At most [`UNSIGNED_ENTRIES`] entries follow the last signed checkpoint, and none after an
//!   orderly stop.

use serde::Deserialize;

use super::StoreError;
use super::backend::{Opaque, RowId, RowKey, Table, Write};
use super::sealing::Keys;
use crate::audit::{Head, Leaf, checkpoint_entry};
use crate::crypto::{DIGEST_BYTES, SealError, SecretKey, open, seal};
use crate::types::Timestamp;

/// Entries between two signed checkpoints in the chain.
const UNSIGNED_ENTRIES: u64 = 1_000;
const HEAD_ROW: &str = "audit";
const HEAD_AAD: &[u8] = b"audit head";
const BLOCK_AAD: &[u8] = b"audit block";
const LENGTH_BYTES: usize = size_of::<u32>();
const SEQ_BYTES: usize = size_of::<u64>();

/// One entry on its way into the chain.
pub(super) struct Note {
    bytes: Vec<u8>,
    leaf: Leaf,
}

impl Note {
    /// Hashes the entry, away from the one thread that writes.
    pub(super) fn of(bytes: Vec<u8>) -> Self {
        Self { leaf: Leaf::of(&bytes), bytes }
    }
}

/// The end of the chain, with the entries of the commit in the making.
pub(super) struct Trail {
    head: Head,
    last_signed: u64,
    pending: Vec<Vec<u8>>,
    /// The last entry that is not there any more; 0 when all are.
    pruned: u64,
    /// Blocks that end with the commit in the making.
    leaving: Vec<RowId>,
    /// Before the first of those.
    before: Head,
}

impl Trail {
    /// A chain that goes on after `end`.
    pub(super) fn after(end: TrailEnd) -> Self {
        let TrailEnd { head, pruned } = end;
        let (pending, leaving) = (Vec::new(), Vec::new());
        Self { head, last_signed: head.seq, pending, pruned, leaving, before: head }
    }

    pub(super) fn head(&self) -> Head {
        self.head
    }

    pub(super) fn append(&mut self, note: Note) {
        self.head = self.head.then(&note.leaf);
        self.pending.push(note.bytes);
    }

    /// Has whole blocks removed from the beginning of the chain, up to the entry `through`. What
    /// follows stays provable: the head behind that entry stands in the block that follows it.
    pub(super) fn prune(&mut self, blocks: Vec<RowKey>, through: u64) {
        self.leaving.extend(blocks.into_iter().map(|key| Table::Audit.row(key)));
        self.pruned = self.pruned.max(through);
    }

    /// Signs the head, unless it is signed already.
    pub(super) fn checkpoint(&mut self, keys: &Keys) {
        if self.head.seq > self.last_signed {
            let entry = checkpoint_entry(&keys.signer, self.head, Timestamp::now());
            self.append(Note::of(entry));
            self.last_signed = self.head.seq;
        }
    }

    /// The block and the head, if there is anything to write.
    pub(super) fn seal(&mut self, keys: &Keys) -> Result<Vec<Write>, SealError> {
        if self.pending.is_empty() {
            return Ok(Vec::new());
        }
        if self.head.seq - self.last_signed >= UNSIGNED_ENTRIES {
            self.checkpoint(keys);
        }
        let first = self.before.seq + 1;
        let bytes = self.pending.iter().map(|entry| LENGTH_BYTES + entry.len()).sum::<usize>();
        let mut plain = Vec::with_capacity(DIGEST_BYTES + bytes);
        plain.extend_from_slice(&self.before.hash);
        for entry in self.pending.drain(..) {
            let length = u32::try_from(entry.len()).map_err(|_long| SealError::TooLong)?;
            plain.extend_from_slice(&length.to_le_bytes());
            plain.extend_from_slice(&entry);
        }
        self.before = self.head;
        let seq = self.head.seq.to_be_bytes();
        let head = [&seq[..], &self.head.hash, &self.pruned.to_be_bytes()].concat();
        let mut writes: Vec<_> = self.leaving.drain(..).map(Write::Remove).collect();
        writes.extend([
            Write::Put(block_row(first), seal(&keys.audit, &block_aad(first), &plain)?.into()),
            Write::Put(head_row(), seal(&keys.audit, HEAD_AAD, &head)?.into()),
        ]);
        Ok(writes)
    }
}

/// Entries that stand together in one row.
pub(super) struct Block {
    /// The head before its first entry.
    pub(super) before: Head,
    pub(super) entries: Vec<Vec<u8>>,
}

impl Block {
    pub(super) fn open(key: &SecretKey, row: &RowKey, value: &Opaque) -> Result<Self, StoreError> {
        let what = "audit trail";
        let malformed = || StoreError::Malformed { what };
        let first = row.as_bytes().try_into().map(u64::from_be_bytes);
        let first = first.ok().filter(|first| *first > 0).ok_or_else(malformed)?;
        let plain = open(key, &block_aad(first), value.as_bytes())
            .map_err(|source| StoreError::Altered { what, source })?;
        let (hash, mut rest) = plain.split_first_chunk().ok_or_else(malformed)?;
        let mut entries = Vec::new();
        while let Some((length, after)) = rest.split_first_chunk::<LENGTH_BYTES>() {
            let entry = after.split_at_checked(u32::from_le_bytes(*length) as usize);
            let (entry, after) = entry.ok_or_else(malformed)?;
            entries.push(entry.to_vec());
            rest = after;
        }
        let before = Head { seq: first - 1, hash: *hash };
        if rest.is_empty() { Ok(Self { before, entries }) } else { Err(malformed()) }
    }

    /// Whether all its entries are from before `instant`. An entry without a time is not.
    pub(super) fn is_older_than(&self, instant: Timestamp) -> bool {
        #[derive(Deserialize)]
        struct Dated {
            at: Timestamp,
        }
        let at =
            |entry: &Vec<u8>| serde_json::from_slice::<Dated>(entry).ok().map(|dated| dated.at);
        self.entries.iter().all(|entry| at(entry).is_some_and(|at| at < instant))
    }

    /// The head after its last entry.
    pub(super) fn end(&self) -> Head {
        self.entries.iter().fold(self.before, |head, entry| head.then(&Leaf::of(entry)))
    }
}

/// Where the chain ends, and where what is left of it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TrailEnd {
    pub(super) head: Head,
    /// The last entry that was pruned; 0 for none.
    pub(super) pruned: u64,
}

pub(super) fn open_head(key: &SecretKey, value: &Opaque) -> Result<TrailEnd, StoreError> {
    let what = "end of the audit trail";
    let plain = open(key, HEAD_AAD, value.as_bytes())
        .map_err(|source| StoreError::Altered { what, source })?;
    let end = plain.split_first_chunk::<SEQ_BYTES>().and_then(|(seq, rest)| {
        let (hash, pruned) = rest.split_first_chunk()?;
        let head = Head { seq: u64::from_be_bytes(*seq), hash: *hash };
        Some(TrailEnd { head, pruned: u64::from_be_bytes(pruned.try_into().ok()?) })
    });
    end.ok_or(StoreError::Malformed { what })
}

pub(super) fn head_row() -> RowId {
    Table::Meta.row(RowKey::named(HEAD_ROW))
}

fn block_row(first: u64) -> RowId {
    Table::Audit.row(RowKey::sequence(first))
}

fn block_aad(first: u64) -> Vec<u8> {
    [BLOCK_AAD, &first.to_be_bytes()].concat()
}
