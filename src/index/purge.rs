//! Erasure in two steps, and its proof.
//!
//! ```text
//! withdraw ---------> PendingPurge ---------> purge ---------> Purged
//!  out of all maps     still in the arena       unlinked,        goes into the receipt
//!                      and in the graph         zeroised
//! ```
//!
//! # Invariants
//! - [`Purged`] is made by a purge that was carried out and nowhere else.
//! - Dropping a [`PendingPurge`] zeroises the row too, but retires it: nobody vouched for the
//!   revocation, and a row lost is better than a row of unclear state (promise P9). The record
//!   stays unmatchable in this process either way; no call brings it back.

use std::sync::{Arc, PoisonError, RwLock};

use super::catalogue::Reuse;
use super::kernel::Kernels;
use super::quantise::Quantiser;
use super::state::{State, Tools};
use crate::types::RecordId;

/// A record that was withdrawn and whose template is still to be zeroised.
#[must_use = "dropping this retires the row for good; hand it to `Index::purge`"]
pub struct PendingPurge {
    state: Arc<RwLock<State>>,
    quantiser: Arc<Quantiser>,
    kernels: Kernels,
    record: RecordId,
    row: Option<u32>,
}

impl PendingPurge {
    pub(super) fn new(
        state: Arc<RwLock<State>>,
        quantiser: Arc<Quantiser>,
        kernels: Kernels,
        record: RecordId,
        row: u32,
    ) -> Self {
        Self { state, quantiser, kernels, record, row: Some(row) }
    }

    /// The record.
    #[must_use]
    pub fn record(&self) -> RecordId {
        self.record
    }

    pub(super) fn carry_out(mut self) -> Purged {
        self.erase(Reuse::Allowed);
        Purged { record: self.record }
    }

    /// Whoever reads rows or links holds the read side of the lock, so having the write side
    /// proves that nobody holds the slot. A poisoned lock is entered all the same: erasing is
    /// right in every state, and nobody reads a poisoned index.
    fn erase(&mut self, reuse: Reuse) {
        if let Some(row) = self.row.take() {
            let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
            state.erase(Tools { quantiser: &self.quantiser, kernels: self.kernels }, row, reuse);
        }
    }
}

impl Drop for PendingPurge {
    fn drop(&mut self) {
        self.erase(Reuse::Never);
    }
}

/// The proof that a record's template is out of this process's memory.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "the proof belongs in the revocation's receipt"]
pub struct Purged {
    record: RecordId,
}

impl Purged {
    /// The record.
    #[must_use]
    pub fn record(&self) -> RecordId {
        self.record
    }
}
