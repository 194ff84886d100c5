//! Bringing a backup back, less what was revoked since.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io::Read;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::super::StoreError;
use super::super::backend::{Backend, Opaque, Part, Rewrite, RowKey, Table, Write};
use super::super::changes::{RECORD_TABLES, put, rows_of};
use super::super::mirror::KeyMirror;
use super::super::opening::{ROOT_ROW, meta};
use super::super::sealing::Keys;
use super::super::tree::{KeyTree, Place, epoch_of, page_row, tree_row};
use super::read::BackupReader;
use super::{BackupHead, RestoreError};
use crate::crypto::cell::{Epoch, RootCell};
use crate::types::{RecordId, Revision, Timestamp};

/// Rows that are written in one transaction; few in tests, so that there are several.
const ROWS_AT_ONCE: usize = if cfg!(test) { 8 } else { 16_384 };
/// The row in which a restored store says so until its first start.
pub(in crate::store) const RESTORED_ROW: &str = "restored";

/// What a restore did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restored {
    /// When the backup was begun.
    pub backup_at: Timestamp,
    /// When it was restored.
    pub at: Timestamp,
    /// The newest revision in it.
    pub revision: Revision,
    /// Records that are there again.
    pub records: u64,
    /// Records in the backup that were revoked since, or whose key was lost: not brought back.
    pub revoked_since: Vec<RecordId>,
    /// Records that were enrolled since: lost. Their keys end with the first start.
    pub lost: Vec<RecordId>,
}

/// Fills an empty store from a backup. The store says at its first start what was done, and opens
/// with `cell`, which is only read here.
///
/// # Errors
/// See [`RestoreError`]. What was written by then opens with nothing and is to be thrown away.
pub async fn restore<R: Read>(
    mut backup: BackupReader<R>,
    backend: Arc<dyn Backend>,
    cell: &dyn RootCell,
    mirror: Option<&KeyMirror>,
    mut progress: impl FnMut(u64),
) -> Result<Restored, RestoreError> {
    if backend.head().await? != Revision(0) {
        return Err(RestoreError::NotEmpty);
    }
    if backup.head().public_key != cell.deployment().signer().public_key() {
        return Err(RestoreError::OtherDeployment);
    }
    let keys = Keys::of(cell.deployment());
    // Everything but the row without which nothing opens: that comes last.
    let mut root_row = None;
    let mut rows = 0;
    while let Some(batch) = next_batch(&mut backup, &mut root_row)? {
        rows += batch.len() as u64;
        backend.rewrite(batch).await?;
        progress(rows);
    }
    let root_row = root_row.filter(|row: &Opaque| row.as_bytes() == cell.deployment().check());
    let root_row = root_row.ok_or(RestoreError::OtherDeployment)?;
    let (epoch, node) = todays_node(&*backend, cell, mirror).await?;
    let root = cell.roots().iter().find(|(held, _)| *held == epoch).map(|(_, root)| root);
    let tree = KeyTree::open(root.ok_or(RestoreError::Malformed)?, epoch, &node)
        .map_err(RestoreError::Node)?;
    let work = Work { backend: &*backend, mirror, tree };
    let held = work.bring_pages_up_to_date(&node).await?;
    let restored = work.bring_records_up_to_date(backup.head(), held).await?;
    let said = keys.seal_restored(&restored)?;
    let last = vec![put(meta(RESTORED_ROW), said), Write::Put(meta(ROOT_ROW), root_row)];
    backend.rewrite(last.into_iter().map(Into::into).collect()).await?;
    Ok(restored)
}

/// The next rows; `None` behind the last.
fn next_batch<R: Read>(
    backup: &mut BackupReader<R>,
    root_row: &mut Option<Opaque>,
) -> Result<Option<Vec<Rewrite>>, RestoreError> {
    let root = meta(ROOT_ROW);
    let mut batch = Vec::new();
    while batch.len() < ROWS_AT_ONCE {
        let Some(row) = backup.row()? else { break };
        if row.part == Part::Rows(root.table) && row.key == root.key {
            *root_row = Some(row.value);
        } else {
            batch.push(Rewrite::from(row));
        }
    }
    Ok((!batch.is_empty()).then_some(batch))
}

/// The root node of the newest ROOT that there is one for.
async fn todays_node(
    backend: &dyn Backend,
    cell: &dyn RootCell,
    mirror: Option<&KeyMirror>,
) -> Result<(Epoch, Opaque), RestoreError> {
    let backed_up = backend.read(vec![tree_row()]).await?.pop().flatten();
    let backed_up = backed_up.ok_or(RestoreError::Malformed)?;
    let backup = epoch_of(&backed_up).ok_or(RestoreError::Malformed)?;
    for (epoch, _) in cell.roots().iter().rev() {
        // Within an epoch nothing is erased, and the backup's node has the pages that came last.
        if *epoch == backup {
            return Ok((*epoch, backed_up));
        }
        if let Some(node) = mirror.map(|mirror| mirror.node(*epoch)).transpose()?.flatten() {
            return Ok((*epoch, node));
        }
    }
    let cell = cell.roots().last().map_or(Epoch(0), |(epoch, _)| *epoch);
    let mirror = mirror.map(KeyMirror::newest).transpose()?.flatten();
    Err(RestoreError::NoNode { backup, cell, mirror })
}

struct Work<'a> {
    backend: &'a dyn Backend,
    mirror: Option<&'a KeyMirror>,
    /// As today's ROOT opens it.
    tree: KeyTree,
}

impl Work<'_> {
    /// Leaves those pages that today's keys open, and says whose keys are in them and where.
    async fn bring_pages_up_to_date(
        &self,
        node: &Opaque,
    ) -> Result<HashMap<RecordId, Place>, RestoreError> {
        let mut writes: Vec<Rewrite> = vec![Write::Put(tree_row(), node.clone()).into()];
        let mut held = HashMap::new();
        let wanted: BTreeSet<u32> = self.tree.pages().collect();
        let mut backed_up = self.backed_up_pages().await?;
        for number in &wanted {
            let row = backed_up.remove(number);
            let mirrored = match self.mirror {
                Some(mirror) => mirror.pages(*number)?,
                None => Vec::new(),
            };
            let candidates = row.into_iter().chain(mirrored);
            let opened = candidates.into_iter().find_map(|row| {
                let page = self.tree.open_page(*number, &row).ok()?;
                Some((row, page))
            });
            // Without a row the page is one that came after the backup, or is lost: either way it
            // holds the keys of nobody who is in the backup.
            match opened {
                None => writes.push(Write::Remove(page_row(*number)).into()),
                Some((row, page)) => {
                    let place = |slot| Place { page: *number, slot };
                    held.extend(page.iter().map(|(slot, id, _)| (id, place(slot))));
                    writes.push(Write::Put(page_row(*number), row).into());
                }
            }
        }
        writes.extend(backed_up.keys().map(|number| Write::Remove(page_row(*number)).into()));
        self.backend.rewrite(writes).await?;
        Ok(held)
    }

    async fn backed_up_pages(&self) -> Result<BTreeMap<u32, Opaque>, StoreError> {
        let mut pages = BTreeMap::new();
        self.each_row(Table::KeyPages, |key, row| {
            pages.extend(key.page_number().map(|number| (number, row)));
        })
        .await?;
        Ok(pages)
    }

    /// Removes the rows of all whose key is not among those `held`.
    async fn bring_records_up_to_date(
        &self,
        backup: &BackupHead,
        held: HashMap<RecordId, Place>,
    ) -> Result<Restored, RestoreError> {
        let (mut gone, mut there) = (BTreeSet::new(), HashSet::new());
        for table in RECORD_TABLES {
            self.each_row(table, |key, row| {
                let Some(id) = key.record() else { return };
                match held.get(&id) {
                    None => _ = gone.insert(id),
                    Some(place) if table == Table::Keys && Place::of(&row) == Some(*place) => {
                        there.insert(id);
                    }
                    Some(_) => {}
                }
            })
            .await?;
        }
        let revoked_since: Vec<RecordId> = gone.into_iter().collect();
        for some in revoked_since.chunks(ROWS_AT_ONCE) {
            let rows = some.iter().flat_map(|id| rows_of(*id));
            self.backend.rewrite(rows.map(|row| Write::Remove(row).into()).collect()).await?;
        }
        let mut lost: Vec<_> = held.into_keys().filter(|id| !there.contains(id)).collect();
        lost.sort_unstable();
        let revision = self.backend.head().await?;
        let (backup_at, at, records) = (backup.at, Timestamp::now(), there.len() as u64);
        Ok(Restored { backup_at, at, revision, records, revoked_since, lost })
    }

    async fn each_row(
        &self,
        table: Table,
        mut each: impl FnMut(&RowKey, Opaque),
    ) -> Result<(), StoreError> {
        let mut after = None;
        loop {
            let rows = self.backend.scan(table, after, ROWS_AT_ONCE).await?;
            after = rows.last().map(|(key, _)| key.clone());
            if after.is_none() {
                return Ok(());
            }
            for (key, row) in rows {
                each(&key, row);
            }
        }
    }
}
