//! The key tree: what a revocation destroys so that every older copy of the store is noise.
//!
//! ```text
//! RootCell       ROOT of epoch e                               (crypto/cell, outside the store)
//!    |  seals
//! meta "tree"    epoch u64 BE | sealed: n u32 LE, n x { page u32 LE, page key 32 }
//!    |                          associated data "root node" | epoch u64 BE
//!    |  each page key seals
//! pages p        sealed: n x { slot u16 LE, record id 16, record key 32 }
//!    |                          associated data "key page" | p u32 BE
//!    |  each record key seals
//! headers, templates, answers of one record                    (sealing.rs)
//!
//! keys record    page u32 BE | slot u16 BE, in plain: where the record's key lies
//! ```
//! A page has room for 256 keys. Enrolling adds a key to a page that has room. Revoking takes keys
//! out, gives every page that it touches a new page key, and seals the root node under a new ROOT;
//! then the old ROOT is destroyed. Old pages open with old page keys only, those stand in old root
//! nodes only, and those open with destroyed ROOTs only. So a copy of the disk from before the
//! revocation and *today's* ROOT open no revoked record, although the copy holds every byte.
//!
//! # Crash argument
//! A revocation of epoch e to e + 1 is three durable steps, in this order:
//!
//! 1. the cell takes ROOT e + 1 beside ROOT e;
//! 2. one commit of the store: the new pages, the root node under ROOT e + 1 with its epoch, the
//!    rows of the revoked records gone, log and audit entries;
//! 3. the cell destroys ROOT e. Only then is anybody told.
//!
//! The epoch in the store decides at the next start. A crash before 2 is durable leaves epoch e in
//! the store and one or two ROOTs in the cell, ROOT e among them: ROOT e + 1, if it is there, opens
//! nothing and is destroyed. A crash after 2 leaves epoch e + 1 and two ROOTs: step 3 is done at
//! the start. Step 2 is whole or not at all (`embedded/tables.rs`). A store whose epoch the cell
//! does not have is an older copy than the cell, or the cell is: both are refused.
//!
//! # Invariants
//! - A page key in the root node belongs to exactly one row of `pages`, and every live record's key
//!   to exactly one slot.
//! - No ROOT seals two root nodes of which one holds the key of a page as it was before a
//!   revocation from it.
//!
//! # Not here
//! Who calls this when, and what else a commit carries (`vault.rs`).

use std::collections::{BTreeMap, BTreeSet};

use zeroize::Zeroizing;

use super::backend::{Opaque, RowId, RowKey, Table, Write};
use super::sealing::RecordKey;
use crate::crypto::cell::{Epoch, RootKey};
use crate::crypto::{OpenError, SealError, SecretKey, open, seal};
use crate::types::RecordId;

/// Keys in one page. At a million records the root node has 4,096 page keys and a revocation
/// rewrites 13 KB of page and 144 KB of root node.
pub(super) const PAGE_SLOTS: u16 = 256;
const RECORD_ID_BYTES: usize = 16;
const KEY_BYTES: usize = 32;
const SLOT_BYTES: usize = size_of::<u16>();
const ENTRY_BYTES: usize = SLOT_BYTES + RECORD_ID_BYTES + KEY_BYTES;
const PAGE_NUMBER_BYTES: usize = size_of::<u32>();
/// Bytes of a [`Place`].
pub(super) const PLACE_BYTES: usize = PAGE_NUMBER_BYTES + SLOT_BYTES;
const NODE_ENTRY_BYTES: usize = PAGE_NUMBER_BYTES + KEY_BYTES;
const EPOCH_BYTES: usize = size_of::<u64>();

const TREE_ROW: &str = "tree";
const NODE_AAD: &[u8] = b"root node";
const PAGE_AAD: &[u8] = b"key page";

/// Where a record's key lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Place {
    pub(super) page: u32,
    pub(super) slot: u16,
}

impl Place {
    /// As stored in the table `keys`.
    pub(super) fn opaque(self) -> Opaque {
        Opaque::place(self.bytes())
    }

    /// `None` for what is no place.
    pub(super) fn of(row: &Opaque) -> Option<Self> {
        Self::from_bytes(row.as_bytes())
    }

    pub(super) fn bytes(self) -> [u8; PLACE_BYTES] {
        let mut bytes = [0; PLACE_BYTES];
        let (page, slot) = bytes.split_at_mut(PAGE_NUMBER_BYTES);
        page.copy_from_slice(&self.page.to_be_bytes());
        slot.copy_from_slice(&self.slot.to_be_bytes());
        bytes
    }

    /// `None` for what is no place.
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (page, slot) = bytes.split_first_chunk()?;
        let slot = u16::from_be_bytes(slot.try_into().ok()?);
        (slot < PAGE_SLOTS).then_some(Self { page: u32::from_be_bytes(*page), slot })
    }
}

/// The row of a page.
pub(super) fn page_row(page: u32) -> RowId {
    Table::KeyPages.row(RowKey::page(page))
}

/// The row of the root node.
pub(super) fn tree_row() -> RowId {
    Table::Meta.row(RowKey::named(TREE_ROW))
}

/// The epoch that the row of the root node says it is of; `None` when it is too short for one.
pub(super) fn epoch_of(row: &Opaque) -> Option<Epoch> {
    row.as_bytes().first_chunk().map(|epoch| Epoch(u64::from_be_bytes(*epoch)))
}

/// The keys of one page, opened.
#[derive(Default)]
pub(super) struct Page(BTreeMap<u16, (RecordId, RecordKey)>);

impl Page {
    pub(super) fn iter(&self) -> impl Iterator<Item = (u16, RecordId, &RecordKey)> {
        self.0.iter().map(|(slot, (id, key))| (*slot, *id, key))
    }

    /// The keys, each with the slot it lies in.
    pub(super) fn into_keys(self) -> impl Iterator<Item = (u16, RecordId, RecordKey)> {
        self.0.into_iter().map(|(slot, (id, key))| (slot, id, key))
    }

    /// How many keys there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The key of `id`, where it is the one that lies in `slot`.
    pub(super) fn key(&self, slot: u16, id: RecordId) -> Option<&RecordKey> {
        self.0.get(&slot).filter(|(held, _)| *held == id).map(|(_, key)| key)
    }

    /// Takes out the key of `id`, where it is the one that lies in `slot`.
    pub(super) fn take(&mut self, slot: u16, id: RecordId) -> Option<RecordKey> {
        self.0.get(&slot).filter(|(held, _)| *held == id)?;
        self.0.remove(&slot).map(|(_, key)| key)
    }

    fn open(key: &SecretKey, page: u32, row: &Opaque) -> Result<Self, OpenError> {
        let plain = open(key, &page_aad(page), row.as_bytes())?;
        let (entries, rest) = plain.as_chunks::<ENTRY_BYTES>();
        let mut slots = BTreeMap::new();
        for entry in entries {
            let (slot, id, key) = split(entry).ok_or(OpenError::NotAKey)?;
            slots.insert(slot, (id, RecordKey::from_secret(key)));
        }
        let whole = rest.is_empty() && slots.len() == entries.len();
        whole.then_some(Self(slots)).ok_or(OpenError::NotAKey)
    }

    fn seal(&self, key: &SecretKey, page: u32) -> Result<Opaque, SealError> {
        let mut plain = Zeroizing::new(Vec::with_capacity(self.0.len() * ENTRY_BYTES));
        for (slot, (id, record)) in &self.0 {
            plain.extend_from_slice(&slot.to_le_bytes());
            plain.extend_from_slice(id.as_bytes());
            record.secret().append_to(&mut plain);
        }
        Ok(seal(key, &page_aad(page), &plain)?.into())
    }
}

fn split(entry: &[u8; ENTRY_BYTES]) -> Option<(u16, RecordId, SecretKey)> {
    let (slot, rest) = entry.split_first_chunk::<SLOT_BYTES>()?;
    let (id, key) = rest.split_first_chunk::<RECORD_ID_BYTES>()?;
    let slot = u16::from_le_bytes(*slot);
    let key = SecretKey::from_bytes(key)?;
    (slot < PAGE_SLOTS).then_some((slot, RecordId::from_bytes(*id), key))
}

fn page_aad(page: u32) -> Vec<u8> {
    [PAGE_AAD, &page.to_be_bytes()].concat()
}

fn node_aad(epoch: Epoch) -> Vec<u8> {
    [NODE_AAD, &epoch.0.to_be_bytes()].concat()
}

/// What the process knows of one page.
struct PageState {
    key: SecretKey,
    /// Slots that are taken.
    taken: BTreeSet<u16>,
    /// The row did not open at the start: its records are lost, and nothing is added to it.
    damaged: bool,
}

impl PageState {
    fn has_room(&self) -> bool {
        !self.damaged && self.taken.len() < usize::from(PAGE_SLOTS)
    }
}

/// A change to one page that is not sealed yet.
enum Edit {
    Add(u16, RecordId, RecordKey),
    Remove(u16, RecordId),
}

/// The tree, with the changes of the commit in the making.
#[derive(Default)]
pub(super) struct KeyTree {
    pages: BTreeMap<u32, PageState>,
    with_room: BTreeSet<u32>,
    edits: BTreeMap<u32, Vec<Edit>>,
    /// Keys of pages as they are stored until the commit under way is durable.
    leaving: BTreeMap<u32, SecretKey>,
    /// The set of pages or a page's key is not what the stored root node says.
    node_changed: bool,
    /// ROOT must be replaced with the next commit.
    replace_root: bool,
}

impl KeyTree {
    /// A tree without pages, whose root node is not stored yet.
    pub(super) fn new() -> Self {
        Self { node_changed: true, ..Self::default() }
    }

    /// From the row of the root node; pages are told of by [`Self::found`].
    pub(super) fn open(root: &RootKey, epoch: Epoch, row: &Opaque) -> Result<Self, OpenError> {
        let sealed = row.as_bytes().get(EPOCH_BYTES..).ok_or(OpenError::TooShort)?;
        let plain = open(root.wrapping(), &node_aad(epoch), sealed)?;
        let (entries, rest) = plain.as_chunks::<NODE_ENTRY_BYTES>();
        let mut tree = Self::default();
        for entry in entries {
            let (page, key) = entry.split_first_chunk().ok_or(OpenError::NotAKey)?;
            let key = SecretKey::from_bytes(key).ok_or(OpenError::NotAKey)?;
            // Damaged until its row was seen to open.
            let state = PageState { key, taken: BTreeSet::new(), damaged: true };
            tree.pages.insert(u32::from_le_bytes(*page), state);
        }
        if rest.is_empty() { Ok(tree) } else { Err(OpenError::NotAKey) }
    }

    /// The numbers of all pages.
    pub(super) fn pages(&self) -> impl Iterator<Item = u32> {
        self.pages.keys().copied()
    }

    /// Learns at the start which slots of a page are taken.
    pub(super) fn found(&mut self, number: u32, page: &Page) {
        if let Some(state) = self.pages.get_mut(&number) {
            state.damaged = false;
            state.taken = page.0.keys().copied().collect();
            if state.has_room() {
                self.with_room.insert(number);
            }
        }
    }

    /// Opens the row of a page; under its former key while a commit is under way.
    pub(super) fn open_page(&self, number: u32, row: &Opaque) -> Result<Page, OpenError> {
        let now = self.pages.get(&number).map(|state| &state.key);
        let keys = now.into_iter().chain(self.leaving.get(&number));
        let opened = keys.map(|key| Page::open(key, number, row));
        opened.reduce(Result::or).unwrap_or(Err(OpenError::Altered))
    }

    /// Takes a slot for a record's key.
    pub(super) fn add(&mut self, id: RecordId, key: RecordKey) -> Result<Place, SealError> {
        let number = match self.with_room.first() {
            Some(number) => *number,
            None => self.new_page()?,
        };
        let state = self.pages.get_mut(&number).expect("pages with room are pages");
        let free = (0..PAGE_SLOTS).find(|slot| !state.taken.contains(slot));
        let slot = free.expect("a page with room has a free slot");
        state.taken.insert(slot);
        if !state.has_room() {
            self.with_room.remove(&number);
        }
        self.edits.entry(number).or_default().push(Edit::Add(slot, id, key));
        Ok(Place { page: number, slot })
    }

    /// Has the key destroyed with the next commit.
    pub(super) fn remove(&mut self, id: RecordId, place: Place) {
        self.replace_root = true;
        self.edits.entry(place.page).or_default().push(Edit::Remove(place.slot, id));
    }

    /// Has a page whose row is not there leave the tree with the next commit.
    pub(super) fn forget(&mut self, page: u32) {
        if self.pages.get(&page).is_some_and(|state| state.damaged) {
            self.edits.entry(page).or_default();
        }
    }

    /// Has ROOT replaced with the next commit.
    pub(super) fn replace_root(&mut self) {
        self.replace_root = true;
    }

    pub(super) fn wants_new_root(&self) -> bool {
        self.replace_root
    }

    /// Seals the pages that changed; `row` gives them as they are stored.
    pub(super) fn seal_pages<E: From<SealError> + From<OpenError>>(
        &mut self,
        row: impl Fn(&RowId) -> Result<Option<Opaque>, E>,
    ) -> Result<Vec<Write>, E> {
        let mut writes = Vec::new();
        for (number, edits) in std::mem::take(&mut self.edits) {
            let Some(state) = self.pages.get_mut(&number) else { continue };
            if state.damaged {
                // Nobody can say which keys are in it: all go, rather than one too few.
                writes.push(self.drop_page(number));
                continue;
            }
            let stored = row(&page_row(number))?;
            let mut page = match &stored {
                Some(stored) => Page::open(&state.key, number, stored)?,
                None => Page::default(),
            };
            let rekey = edits.iter().any(|edit| matches!(edit, Edit::Remove(..)));
            for edit in edits {
                match edit {
                    Edit::Add(slot, id, key) => {
                        page.0.insert(slot, (id, key));
                    }
                    Edit::Remove(slot, id) => {
                        if page.take(slot, id).is_some() {
                            state.taken.remove(&slot);
                        }
                    }
                }
            }
            if page.0.is_empty() {
                writes.push(self.drop_page(number));
                continue;
            }
            if rekey {
                let key = SecretKey::random().map_err(SealError::from)?;
                self.leaving.insert(number, std::mem::replace(&mut state.key, key));
                self.node_changed = true;
            }
            if state.has_room() {
                self.with_room.insert(number);
            }
            writes.push(Write::Put(page_row(number), page.seal(&state.key, number)?));
        }
        Ok(writes)
    }

    /// The root node under ROOT, if it has to be written.
    pub(super) fn seal_node(
        &mut self,
        epoch: Epoch,
        root: &RootKey,
    ) -> Result<Option<Opaque>, SealError> {
        if !self.node_changed && !self.replace_root {
            return Ok(None);
        }
        let mut plain = Zeroizing::new(Vec::with_capacity(self.pages.len() * NODE_ENTRY_BYTES));
        for (number, state) in &self.pages {
            plain.extend_from_slice(&number.to_le_bytes());
            state.key.append_to(&mut plain);
        }
        let sealed = seal(root.wrapping(), &node_aad(epoch), &plain)?;
        (self.node_changed, self.replace_root) = (false, false);
        Ok(Some(Opaque::of_epoch(epoch.0, sealed)))
    }

    /// The commit is durable: the former page keys end.
    pub(super) fn committed(&mut self) {
        self.leaving.clear();
    }

    fn new_page(&mut self) -> Result<u32, SealError> {
        // Numbers do not come back while a page with a higher one is there; a number that does
        // comes with another key.
        let number = self.pages.last_key_value().map_or(0, |(last, _)| last + 1);
        let state = PageState { key: SecretKey::random()?, taken: BTreeSet::new(), damaged: false };
        self.pages.insert(number, state);
        self.with_room.insert(number);
        self.node_changed = true;
        Ok(number)
    }

    fn drop_page(&mut self, number: u32) -> Write {
        if let Some(state) = self.pages.remove(&number) {
            self.leaving.insert(number, state.key);
        }
        self.with_room.remove(&number);
        self.node_changed = true;
        Write::Remove(page_row(number))
    }
}
