//! What takes part in every commit: the key tree with the ROOT above it, and the audit trail.
//!
//! # Invariants
//! - Changes of the tree are made while a batch is built and sealed before its transaction commits,
//!   both under the backend's write lock; so they are durable together with the rows they belong
//!   to, or the store stops.
//! - A ROOT that a revocation replaced is destroyed before anybody learns of the revocation.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use thiserror::Error;

use super::backend::{
    BackendError, Companion, CompanionFault, Opaque, ReadRow, RowId, RowKey, Write,
};
use super::mirror::{KeyMirror, MirrorFault, PageThen};
use super::record::RecordFault;
use super::sealing::{Keys, RecordKey};
use super::trail::{Note, Trail};
use super::tree::{self, KeyTree, Page, Place};
use crate::audit::Head;
use crate::crypto::cell::{CellError, Epoch, RootCell};
use crate::crypto::{OpenError, SealError, secret_memory_kind};
use crate::failpoint;
use crate::types::RecordId;

/// How a store's keys are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyStatus {
    /// How often ROOT was replaced, and once for the first.
    pub epoch: Epoch,
    /// What kind of place ROOT is in, such as "file".
    pub cell: &'static str,
    /// What memory key bytes lie in: "memfd_secret", "locked" or "plain".
    pub memory: &'static str,
    /// Whether the key mirror is there and up to date, so that older backups can be restored.
    pub mirrored: bool,
}

/// The tree and the cell, shared by the store and its backend's writer.
pub(super) struct Vault(Mutex<State>);

struct State {
    /// Gone once the store is closed.
    cell: Option<Box<dyn RootCell>>,
    /// Gone once it failed.
    mirror: Option<KeyMirror>,
    tree: KeyTree,
    trail: Trail,
    /// The end of the trail that is durable.
    durable: Head,
    keys: Arc<Keys>,
    /// Facts that the commit in the making writes.
    facts: Vec<Write>,
    /// Records whose key is in the tree and of which no row is left.
    strays: HashSet<RecordId>,
    /// The epoch of a ROOT that the commit under way puts in force.
    replacing: Option<Epoch>,
}

impl Vault {
    /// Over a cell that holds one ROOT, the one in force.
    pub(super) fn new(
        cell: Box<dyn RootCell>,
        mirror: Option<KeyMirror>,
        tree: KeyTree,
        trail: Trail,
        keys: Arc<Keys>,
    ) -> Self {
        let (facts, strays) = (Vec::new(), HashSet::new());
        let (cell, durable, replacing) = (Some(cell), trail.head(), None);
        let state = State { cell, mirror, tree, trail, durable, keys, facts, strays, replacing };
        Self(Mutex::new(state))
    }

    /// Adds a record's key to the commit in the making.
    pub(super) fn add(&self, id: RecordId, key: RecordKey) -> Result<Place, SealError> {
        self.state().tree.add(id, key)
    }

    /// Has a record's key destroyed with the commit in the making.
    pub(super) fn remove(&self, id: RecordId, place: Place) {
        let mut state = self.state();
        state.strays.remove(&id);
        state.tree.remove(id, place);
    }

    /// Has a page whose row is not there leave the tree with the commit in the making.
    pub(super) fn forget_page(&self, page: u32) {
        self.state().tree.forget(page);
    }

    /// Adds an entry to the audit trail with the commit in the making.
    pub(super) fn note(&self, note: Note) {
        self.state().trail.append(note);
    }

    /// Has facts written with the commit in the making.
    pub(super) fn keep(&self, facts: Vec<Write>) {
        self.state().facts.extend(facts);
    }

    /// Has blocks at the beginning of the audit trail removed with the commit in the making.
    pub(super) fn prune(&self, blocks: Vec<RowKey>, through: u64) {
        self.state().trail.prune(blocks, through);
    }

    /// Signs the end of the audit trail with the commit in the making.
    pub(super) fn checkpoint(&self) {
        let mut state = self.state();
        let keys = Arc::clone(&state.keys);
        state.trail.checkpoint(&keys);
    }

    /// The end of the audit trail, as far as it is durable.
    pub(super) fn audit_head(&self) -> Head {
        self.state().durable
    }

    /// Has ROOT replaced with the commit in the making.
    pub(super) fn replace_root(&self) {
        self.state().tree.replace_root();
    }

    /// What `write` does to the mirror, where there is one. One that fails is given up: the next
    /// start fills it anew.
    pub(super) fn mirror(&self, write: impl FnOnce(&KeyMirror) -> Result<(), MirrorFault>) {
        self.state().mirror(write);
    }

    /// Lets go of root cell and mirror, so that another store may have them. Nothing is committed
    /// any more.
    pub(super) fn release(&self) {
        let mut state = self.state();
        (state.cell, state.mirror) = (None, None);
    }

    /// Whether there is a mirror, and it has all that it should.
    pub(super) fn is_mirrored(&self) -> bool {
        self.state().mirror.is_some()
    }

    /// Remembers a key whose record's rows are gone although nobody revoked it.
    pub(super) fn stray(&self, id: RecordId) {
        self.state().strays.insert(id);
    }

    pub(super) fn is_stray(&self, id: RecordId) -> bool {
        self.state().strays.contains(&id)
    }

    /// The epoch of the ROOT in force.
    pub(super) fn epoch(&self) -> Epoch {
        self.state().in_force()
    }

    /// How the keys are kept.
    pub(super) fn key_status(&self) -> KeyStatus {
        let state = self.state();
        KeyStatus {
            epoch: state.in_force(),
            cell: state.cell.as_ref().map_or("closed", |cell| cell.kind()),
            memory: secret_memory_kind().name(),
            mirrored: state.mirror.is_some(),
        }
    }

    pub(super) fn pages(&self) -> Vec<u32> {
        self.state().tree.pages().collect()
    }

    pub(super) fn found(&self, number: u32, page: &Page) {
        self.state().tree.found(number, page);
    }

    pub(super) fn open_page(&self, number: u32, row: &Opaque) -> Result<Page, OpenError> {
        self.state().tree.open_page(number, row)
    }

    /// The key of one record out of its page's row.
    pub(super) fn record_key(
        &self,
        id: RecordId,
        place: Place,
        row: &Opaque,
    ) -> Result<RecordKey, RecordFault> {
        let mut page = self.open_page(place.page, row).map_err(RecordFault::Key)?;
        page.take(place.slot, id).ok_or(RecordFault::KeyMissing)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn in_force(&self) -> Epoch {
        let newest = self.cell.as_ref().and_then(|cell| cell.roots().last());
        newest.map_or(Epoch(0), |(epoch, _)| *epoch)
    }

    fn complete(&mut self, row: ReadRow<'_>) -> Result<Vec<Write>, VaultFault> {
        let mut writes = self.tree.seal_pages(|id| row(id).map_err(VaultFault::Read))?;
        if self.tree.wants_new_root() {
            let next = Epoch(self.in_force().0 + 1);
            self.cell.as_mut().ok_or(VaultFault::NoRoot)?.prepare(next)?;
            self.replacing = Some(next);
            failpoint::reach("root.prepared");
        }
        let cell = self.cell.as_ref().ok_or(VaultFault::NoRoot)?;
        let (epoch, root) = cell.roots().last().ok_or(VaultFault::NoRoot)?;
        let epoch = *epoch;
        let node = self.tree.seal_node(epoch, root)?;
        if let Some(node) = node.as_ref().filter(|_| self.replacing.is_some()) {
            let changed = changed_pages(&writes);
            self.mirror(|mirror| mirror.record(epoch, node, &changed));
        }
        writes.extend(node.map(|node| Write::Put(tree::tree_row(), node)));
        writes.append(&mut self.facts);
        writes.extend(self.trail.seal(&self.keys)?);
        Ok(writes)
    }

    fn mirror(&mut self, write: impl FnOnce(&KeyMirror) -> Result<(), MirrorFault>) {
        if let Some(Err(fault)) = self.mirror.as_ref().map(write) {
            let fault = &fault as &dyn std::error::Error;
            tracing::error!(
                fault,
                "the key mirror failed: backups made before the next erasure \
                 cannot be restored after it, until a restart finds the mirror working"
            );
            self.mirror = None;
        }
    }

    fn committed(&mut self) -> Result<(), VaultFault> {
        self.durable = self.trail.head();
        if let Some(epoch) = self.replacing.take() {
            failpoint::reach("root.committed");
            self.cell.as_mut().ok_or(VaultFault::NoRoot)?.retire_all_but(epoch)?;
            failpoint::reach("root.retired");
        }
        self.tree.committed();
        Ok(())
    }
}

/// The pages among what is written.
fn changed_pages(writes: &[Write]) -> Vec<PageThen> {
    let page = |row: &RowId| row.key.page_number();
    let changed = writes.iter().filter_map(|write| match write {
        Write::Put(row, value) => Some((page(row)?, Some(value.clone()))),
        Write::Remove(row) => Some((page(row)?, None)),
    });
    changed.collect()
}

impl Companion for Vault {
    fn complete(&self, row: ReadRow<'_>) -> Result<Vec<Write>, CompanionFault> {
        Ok(self.state().complete(row)?)
    }

    fn committed(&self) -> Result<(), CompanionFault> {
        Ok(self.state().committed()?)
    }
}

/// Why the tree could not be brought into a commit.
#[derive(Debug, Error)]
enum VaultFault {
    #[error("the root cell holds no ROOT")]
    NoRoot,
    #[error("the key tree could not be sealed")]
    Seal(#[from] SealError),
    #[error("a page of keys does not open")]
    Open(#[from] OpenError),
    #[error("a page of keys cannot be read")]
    Read(#[source] BackendError),
    #[error("the root cell failed")]
    Cell(#[from] CellError),
}
