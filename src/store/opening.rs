//! Opening a store, or making it: whose it is, how old it is, and where its trail ends.

use std::sync::Arc;

use super::StoreError;
use super::backend::{
    Backend, Batch, Companion, Opaque, Precondition, RowId, RowKey, Table, Write,
};
use super::backup::{RESTORED_ROW, Restored};
use super::changes::{encoded, put};
use super::log::{AuditEvent, LogEntry, RevocationCause};
use super::mirror::KeyMirror;
use super::record::RecordFault;
use super::sealing::{Binding, Keys, SCHEMA};
use super::trail::{self, Block, Note, Trail, TrailEnd};
use super::tree::{self, KeyTree, Page};
use super::typed::Store;
use super::vault::Vault;
use crate::audit::Head;
use crate::crypto::DIGEST_BYTES;
use crate::crypto::cell::{Epoch, RootCell};
use crate::failpoint;
use crate::types::{ModelContract, Revision, Timestamp};

pub(super) const ROOT_ROW: &str = "root";
const STORE_ROW: &str = "store";
/// Records in one audit entry: the evidence about one person names nobody else.
const IDS_AT_ONCE: usize = 1;
/// Pages of keys that are read at once.
const PAGES_AT_ONCE: usize = 16;

impl Store {
    /// Opens the store; makes it, bound to the cell and `model`, when it is empty. ROOT is replaced
    /// with each start, so that a copy from before it shows itself as one.
    ///
    /// # Errors
    /// Another cell or model than the store was made with, a store older than the cell or the other
    /// way round, rows that do not open, the cell, or the backend.
    pub async fn open(
        backend: Arc<dyn Backend>,
        cell: Box<dyn RootCell>,
        model: &ModelContract,
    ) -> Result<Self, StoreError> {
        Self::open_mirrored(backend, cell, None, model).await
    }

    /// The same, with a mirror of the key tree that is kept up to date from now on.
    ///
    /// # Errors
    /// As [`Store::open`]. A mirror that fails is given up, and the log says so.
    pub async fn open_mirrored(
        backend: Arc<dyn Backend>,
        mut cell: Box<dyn RootCell>,
        mirror: Option<KeyMirror>,
        model: &ModelContract,
    ) -> Result<Self, StoreError> {
        let keys = Arc::new(Keys::of(cell.deployment()));
        let check = cell.deployment().check();
        let is_new = backend.head().await? == Revision(0);
        let tree = if is_new {
            if backend.count(Table::Meta).await? > 0 {
                return Err(StoreError::Malformed { what: "log" });
            }
            let newest = newest_epoch(&*cell);
            cell.retire_all_but(newest)?;
            KeyTree::new()
        } else {
            let rows = backend.read(vec![meta(ROOT_ROW), tree::tree_row()]).await?;
            let [Some(found), Some(node)] = rows.as_slice() else {
                return Err(StoreError::Malformed { what: "description of itself" });
            };
            if found.as_bytes() != check {
                return Err(StoreError::WrongRoot);
            }
            open_tree(&mut *cell, node)?
        };
        let trail = Trail::after(audit_end(&*backend, &keys, is_new).await?);
        let vault = Arc::new(Vault::new(cell, mirror, tree, trail, Arc::clone(&keys)));
        let store = Self { backend, keys, vault, model: model.clone() };
        if !is_new {
            store.check_binding().await?;
            store.check_head().await?;
            store.look_at_pages().await?;
            store.fill_mirror().await?;
        }
        let companion: Arc<dyn Companion> = Arc::clone(&store.vault) as _;
        store.backend.attach(companion);
        if is_new {
            store.create(check).await?;
        } else {
            failpoint::reach("start.opened");
            store.replace_root("start").await?;
            store.finish_restore().await?;
        }
        Ok(store)
    }

    /// Opens a store as the model that it is bound to: for who destroys it, and compares nothing.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub async fn open_bound(
        backend: Arc<dyn Backend>,
        cell: Box<dyn RootCell>,
    ) -> Result<Self, StoreError> {
        let what = "description of itself";
        let rows = backend.read(vec![meta(ROOT_ROW), meta(STORE_ROW)]).await?;
        let [Some(root), Some(binding)] = rows.as_slice() else {
            return Err(StoreError::Malformed { what });
        };
        if root.as_bytes() != cell.deployment().check() {
            return Err(StoreError::WrongRoot);
        }
        let model = Keys::of(cell.deployment()).open_binding(binding)?.model;
        Self::open(backend, cell, &model).await
    }

    /// Writes what an empty store says about itself.
    async fn create(&self, check: [u8; DIGEST_BYTES]) -> Result<(), StoreError> {
        let binding = Binding { schema: SCHEMA, model: self.model.clone() };
        let writes = vec![
            Write::Put(meta(ROOT_ROW), Opaque::mac(check)),
            put(meta(STORE_ROW), self.keys.seal_binding(&binding)?),
        ];
        let require = vec![Precondition::Absent(meta(ROOT_ROW))];
        let at = Timestamp::now();
        let audit = move |revision| vec![encoded(&AuditEvent::StoreCreated { at, revision })];
        let batch = self.batch(require, &LogEntry::Created { at }, audit, |_| Ok(writes))?;
        self.backend.commit(batch).await?;
        Ok(())
    }

    async fn check_binding(&self) -> Result<(), StoreError> {
        let Some(binding) = self.row(Table::Meta, RowKey::named(STORE_ROW)).await? else {
            return Err(StoreError::Malformed { what: "description of itself" });
        };
        let binding = self.keys.open_binding(&binding)?;
        if binding.schema != SCHEMA {
            return Err(StoreError::OtherSchema { found: binding.schema, known: SCHEMA });
        }
        if binding.model != self.model {
            return Err(StoreError::OtherModel { store: binding.model, given: self.model.clone() });
        }
        Ok(())
    }

    /// Learns which slots of the key pages are taken. A page that does not open is left out: its
    /// records are quarantined.
    async fn look_at_pages(&self) -> Result<(), StoreError> {
        self.each_page(|number, page| {
            if let Ok(page) = page {
                self.vault.found(number, &page);
            }
        })
        .await
    }

    /// Says in the audit trail that the store came from a backup, and destroys the keys of records
    /// that were lost with it. Done once, at the first start.
    async fn finish_restore(&self) -> Result<(), StoreError> {
        let row = self.row(Table::Meta, RowKey::named(RESTORED_ROW)).await?;
        let Some(restored) = row.map(|row| self.keys.open_restored(&row)).transpose()? else {
            return Ok(());
        };
        let (mut lost, mut empty) = (Vec::new(), Vec::new());
        self.each_page(|number, page| match page {
            Ok(page) => {
                let ids = page.iter().map(|(_, id, _)| id);
                lost.extend(ids.filter(|id| restored.lost.binary_search(id).is_ok()));
            }
            Err(_) => empty.push(number),
        })
        .await?;
        for some in lost.chunks(IDS_AT_ONCE) {
            for id in some {
                self.vault.stray(*id);
            }
            self.revoke(some, Timestamp::now(), RevocationCause::Lost).await?;
        }
        self.backend.commit(self.restoration(restored, empty)?).await?;
        Ok(())
    }

    fn restoration(&self, restored: Restored, empty: Vec<u32>) -> Result<Batch, StoreError> {
        let Restored { backup_at, at, revision: backup_revision, records, .. } = restored;
        let entry = LogEntry::Restored { at, backup_at };
        let vault = Arc::clone(&self.vault);
        let require = vec![Precondition::Present(meta(RESTORED_ROW))];
        let Restored { revoked_since, lost, .. } = restored;
        let (revoked, gone) = (revoked_since.len(), lost.len());
        let audit = move |revision| {
            vec![encoded(&AuditEvent::Restored {
                at,
                revision,
                backup_at,
                backup_revision,
                records,
                revoked_since: revoked,
                lost: gone,
            })]
        };
        self.batch(require, &entry, audit, move |_| {
            for (ids, why) in [(&revoked_since, "revoked since"), (&lost, "enrolled since")] {
                for records in ids.chunks(IDS_AT_ONCE) {
                    vault.note(Note::of(encoded(&AuditEvent::NotRestored { at, why, records })));
                }
            }
            for page in empty {
                vault.forget_page(page);
            }
            Ok(vec![Write::Remove(meta(RESTORED_ROW))])
        })
    }

    /// Brings a mirror that is not of the store's epoch up to it.
    async fn fill_mirror(&self) -> Result<(), StoreError> {
        if !self.vault.is_mirrored() {
            return Ok(());
        }
        let epoch = self.vault.epoch();
        let Some(node) = self.backend.read(vec![tree::tree_row()]).await?.pop().flatten() else {
            return Ok(());
        };
        let numbers = self.vault.pages();
        let rows = numbers.iter().map(|number| tree::page_row(*number)).collect();
        let rows = self.backend.read(rows).await?;
        let all = numbers.into_iter().zip(rows).filter_map(|(number, row)| Some((number, row?)));
        self.vault.mirror(|mirror| {
            if mirror.node(epoch)?.as_ref() == Some(&node) {
                return Ok(());
            }
            mirror.replace(epoch, &node, all)
        });
        Ok(())
    }

    /// Every page of keys that the root node knows, opened one after the other.
    pub(super) async fn each_page(
        &self,
        mut each: impl FnMut(u32, Result<Page, RecordFault>),
    ) -> Result<(), StoreError> {
        for numbers in self.vault.pages().chunks(PAGES_AT_ONCE) {
            let rows = numbers.iter().map(|number| tree::page_row(*number)).collect();
            for (number, row) in numbers.iter().zip(self.backend.read(rows).await?) {
                let page = row
                    .ok_or(RecordFault::KeyMissing)
                    .and_then(|row| self.vault.open_page(*number, &row).map_err(RecordFault::Key));
                each(*number, page);
            }
        }
        Ok(())
    }

    /// The newest log entry opens at the revision that the backend calls its head.
    async fn check_head(&self) -> Result<(), StoreError> {
        let head = self.revision().await?;
        self.log(Revision(head.0.saturating_sub(1)), 1).await.map(drop)
    }
}

/// The end of the audit trail, seen to follow from its last block, the first one being there too.
async fn audit_end(
    backend: &dyn Backend,
    keys: &Keys,
    is_new: bool,
) -> Result<TrailEnd, StoreError> {
    let what = "audit trail";
    if is_new {
        return Ok(TrailEnd { head: Head::genesis(&keys.signer.public_key()), pruned: 0 });
    }
    let head = backend.read(vec![trail::head_row()]).await?.pop().flatten();
    let end = trail::open_head(&keys.audit, &head.ok_or(StoreError::Malformed { what })?)?;
    let last = backend.floor(Table::Audit, RowKey::sequence(u64::MAX)).await?;
    let (row, value) = last.ok_or(StoreError::Malformed { what })?;
    let first = RowKey::sequence(end.pruned + 1);
    let starts = backend.scan(Table::Audit, None, 1).await?.pop().map(|(row, _)| row);
    if Block::open(&keys.audit, &row, &value)?.end() == end.head && starts == Some(first) {
        Ok(end)
    } else {
        Err(StoreError::Malformed { what })
    }
}

fn newest_epoch(cell: &dyn RootCell) -> Epoch {
    cell.roots().last().map_or(Epoch(0), |(epoch, _)| *epoch)
}

/// The tree under the ROOT that the store's epoch names; every other ROOT is destroyed.
fn open_tree(cell: &mut dyn RootCell, node: &Opaque) -> Result<KeyTree, StoreError> {
    let what = "root node";
    let store = tree::epoch_of(node).ok_or(StoreError::Malformed { what })?;
    let newest = newest_epoch(cell);
    let Some((_, root)) = cell.roots().iter().find(|(epoch, _)| *epoch == store) else {
        return Err(if store < newest {
            StoreError::RolledBack { store, cell: newest }
        } else {
            StoreError::RootBehind { store, cell: newest }
        });
    };
    let tree = KeyTree::open(root, store, node);
    let tree = tree.map_err(|source| StoreError::Altered { what, source })?;
    cell.retire_all_but(store)?;
    Ok(tree)
}

pub(super) fn meta(name: &'static str) -> RowId {
    Table::Meta.row(RowKey::named(name))
}
