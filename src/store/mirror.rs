//! The key mirror: what a backup needs beside it, once anything was erased since it was made.
//!
//! ROOT is replaced at every erasure, so that the root node in a backup opens with no ROOT of today,
//! and with it none of the backup's pages. The mirror keeps what today's ROOT does open: the root
//! node as it is, and each page as it was when it got the key that it has. It holds what the store
//! holds, sealed in the same way, and lies elsewhere: on another disk, or beside the root cell.
//!
//! ```text
//! redb table   key                      value
//! nodes        epoch u64                row of the root node (tree.rs)
//! pages        page u32, epoch u64      row of the page as it was re-keyed then; empty: page gone
//! ```
//!
//! # Crash argument
//! The mirror takes node and pages of epoch e + 1 when the cell has prepared that ROOT and before
//! the store commits it, and keeps those of epoch e until the next time. So whichever of the two the
//! store and the cell agree on after a crash, the mirror has it.
//!
//! # Invariants
//! - The mirror holds no key that the store does not hold or held; a copy of it from before an
//!   erasure opens with no ROOT of after it.
//! - A mirror that fails costs backups, never an erasure: it is given up, and said so.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use thiserror::Error;

use super::backend::Opaque;
use super::embedded::begin_durable;
use crate::crypto::cell::Epoch;

const NODES: TableDefinition<'static, u64, &'static [u8]> = TableDefinition::new("nodes");
const PAGES: TableDefinition<'static, (u32, u64), &'static [u8]> = TableDefinition::new("pages");
const FILE_NAME: &str = "mirror.redb";
const DIRECTORY_MODE: u32 = 0o700;
/// Ciphertext that is read again at a restore only.
const CACHE_BYTES: usize = 1 << 20;

/// What a page became in an epoch; `None` where it ended.
pub(super) type PageThen = (u32, Option<Opaque>);

/// A copy of the key tree's upper part, elsewhere.
///
/// ```
/// use assent::store::KeyMirror;
/// # let directory = tempfile::tempdir()?;
/// let mirror = KeyMirror::open(&directory.path().join("mirror"))?;
/// assert_eq!(mirror.newest()?, None);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct KeyMirror(Database);

/// The mirror cannot be read or written.
#[derive(Debug, Error)]
pub enum MirrorFault {
    /// Its directory.
    #[error("the key mirror's directory cannot be used")]
    Directory(#[source] std::io::Error),
    /// Its database.
    #[error("the key mirror cannot be read or written")]
    Database(#[source] Box<redb::Error>),
}

impl<E: Into<redb::Error>> From<E> for MirrorFault {
    fn from(fault: E) -> Self {
        Self::Database(Box::new(fault.into()))
    }
}

impl KeyMirror {
    /// Opens the mirror in `directory`, which is made when it is not there.
    ///
    /// # Errors
    /// The directory, another process that uses it, or a damaged file.
    pub fn open(directory: &Path) -> Result<Self, MirrorFault> {
        DirBuilder::new()
            .recursive(true)
            .mode(DIRECTORY_MODE)
            .create(directory)
            .map_err(MirrorFault::Directory)?;
        let database =
            Database::builder().set_cache_size(CACHE_BYTES).create(directory.join(FILE_NAME))?;
        let transaction = begin_durable(&database)?;
        transaction.open_table(NODES)?;
        transaction.open_table(PAGES)?;
        transaction.commit()?;
        Ok(Self(database))
    }

    /// The newest epoch that it has a root node of.
    ///
    /// # Errors
    /// The file.
    pub fn newest(&self) -> Result<Option<Epoch>, MirrorFault> {
        let nodes = self.0.begin_read()?.open_table(NODES)?;
        Ok(nodes.last()?.map(|(epoch, _)| Epoch(epoch.value())))
    }

    /// Takes what `epoch` makes of the tree, and lets go of what no crash can ask for any more.
    /// Durable on return.
    pub(super) fn record(
        &self,
        epoch: Epoch,
        node: &Opaque,
        changed: &[PageThen],
    ) -> Result<(), MirrorFault> {
        let transaction = begin_durable(&self.0)?;
        {
            let mut nodes = transaction.open_table(NODES)?;
            // A ROOT that was prepared and never came into force may have had the same epoch.
            nodes.retain_in(epoch.0.., |_, _| false)?;
            let in_force = nodes.last()?.map_or(0, |(epoch, _)| epoch.value());
            nodes.retain_in(..in_force, |_, _| false)?;
            nodes.insert(epoch.0, node.as_bytes())?;
            let mut pages = transaction.open_table(PAGES)?;
            for (number, row) in changed {
                let versions = pages.range((*number, 0)..=(*number, in_force))?;
                let versions = versions.map(|version| Ok(version?.0.value()));
                let mut versions = versions.collect::<Result<Vec<_>, redb::StorageError>>()?;
                versions.pop();
                for superseded in versions {
                    pages.remove(superseded)?;
                }
                let row = row.as_ref().map_or(&[][..], Opaque::as_bytes);
                pages.insert((*number, epoch.0), row)?;
            }
        }
        Ok(transaction.commit()?)
    }

    /// Replaces all there is by the tree as `epoch` has it. Durable on return.
    pub(super) fn replace(
        &self,
        epoch: Epoch,
        node: &Opaque,
        all: impl Iterator<Item = (u32, Opaque)>,
    ) -> Result<(), MirrorFault> {
        let transaction = begin_durable(&self.0)?;
        {
            let mut nodes = transaction.open_table(NODES)?;
            nodes.retain(|_, _| false)?;
            nodes.insert(epoch.0, node.as_bytes())?;
            let mut pages = transaction.open_table(PAGES)?;
            pages.retain(|_, _| false)?;
            for (number, row) in all {
                pages.insert((number, epoch.0), row.as_bytes())?;
            }
        }
        Ok(transaction.commit()?)
    }

    /// The root node of `epoch`.
    pub(super) fn node(&self, epoch: Epoch) -> Result<Option<Opaque>, MirrorFault> {
        let nodes = self.0.begin_read()?.open_table(NODES)?;
        Ok(nodes.get(epoch.0)?.map(|row| Opaque::stored(row.value())))
    }

    /// The rows that there are of a page, the newest first.
    pub(super) fn pages(&self, number: u32) -> Result<Vec<Opaque>, MirrorFault> {
        let pages = self.0.begin_read()?.open_table(PAGES)?;
        let versions = pages.range((number, 0)..=(number, u64::MAX))?.rev();
        versions.map(|version| Ok(Opaque::stored(version?.1.value()))).collect()
    }
}
