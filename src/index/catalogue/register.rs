//! Who is in which row: what the lookups find their keys in.
//!
//! # Invariants
//! - A row has an entry while it is live, and then its group is owned by the record's class.
//!
//! # Not here
//! Finding a row (catalogue, lookup).

use std::hash::{BuildHasher, Hash, RandomState};

use super::classes::{Classes, ControllerNo};
use super::groups::{GROUP_ROWS, Groups};
use super::names::{Name, Names};
use crate::types::{RecordId, Timestamp};

/// Entries, rows and classes.
#[derive(Default)]
pub(super) struct Register {
    /// Classes as numbers.
    pub(super) classes: Classes,
    /// The state and class of every row.
    pub(super) groups: Groups,
    /// By group. A block never moves: a growing gallery is not copied.
    #[expect(clippy::vec_box, reason = "a block must not move with the list")]
    blocks: Vec<Box<Block>>,
    /// Memory of all names beside the entries.
    name_bytes: usize,
    hasher: RandomState,
}

/// The entries of one group; something while live.
type Block = [Option<Entry>; GROUP_ROWS as usize];

/// A live row's record; with its class it gives back the consent tag.
pub(super) struct Entry {
    /// The record.
    pub(super) record: RecordId,
    /// What the caller calls the person, the consent and its notice.
    pub(super) names: Names,
    /// When consent was given.
    pub(super) granted_at: Timestamp,
    /// When it ends.
    pub(super) expires_at: Timestamp,
}

/// What a row is listed under: its controller, and the hashes of its three keys.
pub(super) struct Keys {
    /// Whose record it is.
    pub(super) controller: ControllerNo,
    /// Of the record.
    pub(super) record: u64,
    /// Of controller and subject.
    pub(super) subject: u64,
    /// Of controller and consent.
    pub(super) consent: u64,
}

impl Register {
    /// Puts an entry into a row.
    pub(super) fn enter(&mut self, row: u32, entry: Entry) {
        let (group, at) = place(row);
        while self.blocks.len() <= group {
            self.blocks.push(Box::new([const { None }; GROUP_ROWS as usize]));
        }
        self.name_bytes += entry.names.bytes();
        self.blocks[group][at] = Some(entry);
    }

    /// Drops a row's entry.
    pub(super) fn clear(&mut self, row: u32) {
        let (group, at) = place(row);
        if let Some(entry) = self.blocks[group][at].take() {
            self.name_bytes -= entry.names.bytes();
        }
    }

    /// Who is in the row.
    pub(super) fn entry(&self, row: u32) -> Option<&Entry> {
        let (group, at) = place(row);
        self.blocks.get(group)?[at].as_ref()
    }

    /// The entries of all of a controller's rows.
    pub(super) fn entries_of(&self, controller: ControllerNo) -> impl Iterator<Item = &Entry> {
        let own =
            move |(group, _): &(u32, _)| self.controller(group * GROUP_ROWS) == Some(controller);
        (0..).zip(&self.blocks).filter(own).flat_map(|(_, block)| block.iter().flatten())
    }

    /// The record in the row.
    pub(super) fn record(&self, row: u32) -> Option<RecordId> {
        self.entry(row).map(|entry| entry.record)
    }

    /// Controller and subject of the row.
    pub(super) fn subject(&self, row: u32) -> Option<(ControllerNo, Name<'_>)> {
        Some((self.controller(row)?, self.entry(row)?.names.subject()))
    }

    /// Controller and consent of the row.
    pub(super) fn consent(&self, row: u32) -> Option<(ControllerNo, Name<'_>)> {
        Some((self.controller(row)?, self.entry(row)?.names.consent()))
    }

    /// What the row is listed under.
    pub(super) fn keys(&self, row: u32) -> Option<Keys> {
        Some(Keys {
            controller: self.controller(row)?,
            record: self.hash(self.record(row)?),
            subject: self.hash(self.subject(row)?),
            consent: self.hash(self.consent(row)?),
        })
    }

    /// The hash of a key. The hasher is keyed at random, so that no caller can choose names that
    /// collide.
    pub(super) fn hash(&self, key: impl Hash) -> u64 {
        self.hasher.hash_one(key)
    }

    /// The hash of a listed row's key.
    pub(super) fn hash_of(&self, key: Option<impl Hash>) -> u64 {
        key.map_or(0, |key| self.hash(key))
    }

    /// Memory of entries and names.
    pub(super) fn bytes(&self) -> usize {
        self.blocks.capacity() * size_of::<Box<Block>>()
            + self.blocks.len() * size_of::<Block>()
            + self.name_bytes
    }

    fn controller(&self, row: u32) -> Option<ControllerNo> {
        self.groups.owner(row).map(|class| self.classes.controller(class))
    }
}

fn place(row: u32) -> (usize, usize) {
    ((row / GROUP_ROWS) as usize, (row % GROUP_ROWS) as usize)
}
