//! Reading a snapshot: rows are opened chunk by chunk on all cores.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use rayon::iter::{IntoParallelIterator, ParallelIterator};
use zeroize::Zeroizing;

use super::super::StoreError;
use super::super::sealing::RecordKey;
use super::super::tree::{PAGE_SLOTS, PLACE_BYTES, Page, Place};
use super::super::typed::Store;
use super::{
    HEAD_AAD, ID_BYTES, LENGTH_BYTES, MAGIC, MOST_BYTES, SnapshotFault, SnapshotHead, SnapshotId,
};
use crate::crypto::open;
use crate::types::{RecordId, Revision};

const BUFFER_BYTES: usize = 4 << 20;
/// Rows that are opened together.
const CHUNK_ROWS: usize = 2_048;
const RECORD_BYTES: usize = 16;
const NUMBER_BYTES: usize = size_of::<u64>();
const WORD_BITS: u16 = 64;
const WORDS: usize = (PAGE_SLOTS / WORD_BITS) as usize;

/// Every key of the store, and which of them a snapshot had a row for.
pub struct KeyRing {
    pages: BTreeMap<u32, RingPage>,
    erased: AtomicU64,
    damaged: AtomicU64,
}

struct RingPage {
    keys: Page,
    /// One bit a slot.
    used: [AtomicU64; WORDS],
}

impl KeyRing {
    /// How many keys there are.
    pub(in crate::store) fn len(&self) -> u64 {
        self.pages.values().map(|page| page.keys.len() as u64).sum()
    }

    /// Rows of a snapshot that nobody can open any more: their records are gone.
    #[must_use]
    pub fn erased(&self) -> u64 {
        self.erased.load(Ordering::Relaxed)
    }

    /// Rows of a snapshot that were altered.
    #[must_use]
    pub fn damaged(&self) -> u64 {
        self.damaged.load(Ordering::Relaxed)
    }

    /// The keys that no row was opened with, those of `dropped` records among them.
    pub(in crate::store) fn left_over(
        self,
        dropped: &HashSet<RecordId>,
    ) -> Vec<(Place, RecordId, RecordKey)> {
        let of_page = |(page, RingPage { keys, used }): (u32, RingPage)| {
            let is_used = move |slot| bit(&used, slot).is_some_and(|(word, bit)| word & bit != 0);
            keys.into_keys()
                .filter(move |(slot, id, _)| !is_used(*slot) || dropped.contains(id))
                .map(move |(slot, id, key)| (Place { page, slot }, id, key))
        };
        self.pages.into_iter().flat_map(of_page).collect()
    }

    fn open(&self, id: SnapshotId, row: &SealedRow) -> Option<Zeroizing<Vec<u8>>> {
        let key = self.pages.get(&row.place.page);
        let Some(key) = key.and_then(|page| page.keys.key(row.place.slot, row.record)) else {
            self.erased.fetch_add(1, Ordering::Relaxed);
            return None;
        };
        let opened = key.open_row(&id.aad(row.record), &row.sealed).ok();
        if opened.is_none() {
            self.damaged.fetch_add(1, Ordering::Relaxed);
        }
        opened
    }

    fn mark(&self, place: Place) {
        let page = self.pages.get(&place.page);
        let word = page.and_then(|page| page.used.get(usize::from(place.slot / WORD_BITS)));
        if let Some(word) = word {
            word.fetch_or(1 << (place.slot % WORD_BITS), Ordering::Relaxed);
        }
    }
}

/// The word that a slot's bit is in, and the bit.
fn bit(used: &[AtomicU64; WORDS], slot: u16) -> Option<(u64, u64)> {
    let word = used.get(usize::from(slot / WORD_BITS))?;
    Some((word.load(Ordering::Relaxed), 1 << (slot % WORD_BITS)))
}

/// A snapshot whose head was opened.
pub struct Snapshot {
    id: SnapshotId,
    head: SnapshotHead,
    file: BufReader<File>,
}

impl Store {
    /// The snapshot at `path`; `None` when there is none.
    ///
    /// # Errors
    /// The file cannot be read, is no snapshot, or is of another deployment.
    pub fn open_snapshot(&self, path: &Path) -> Result<Option<Snapshot>, SnapshotFault> {
        let file = match File::open(path) {
            Err(fault) if fault.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        let mut file = BufReader::with_capacity(BUFFER_BYTES, file);
        let mut magic = [0; MAGIC.len()];
        read_exact(&mut file, &mut magic)?.filter(|()| magic == *MAGIC).ok_or(MALFORMED)?;
        let sealed = read_sealed(&mut file)?.ok_or(MALFORMED)?;
        let plain = open(&self.keys.snapshot, HEAD_AAD, &sealed).map_err(SnapshotFault::Altered)?;
        let (id, head) = decode_head(&plain).ok_or(MALFORMED)?;
        Ok(Some(Snapshot { id, head, file }))
    }

    /// Every key of the store. Pages that do not open have none to give.
    ///
    /// # Errors
    /// The backend.
    pub async fn key_ring(&self) -> Result<KeyRing, StoreError> {
        let mut pages = BTreeMap::new();
        self.each_page(|number, page| {
            if let Ok(keys) = page {
                pages.insert(number, RingPage { keys, used: Default::default() });
            }
        })
        .await?;
        Ok(KeyRing { pages, erased: AtomicU64::new(0), damaged: AtomicU64::new(0) })
    }
}

const MALFORMED: SnapshotFault = SnapshotFault::Malformed;

impl Snapshot {
    /// What it says of itself.
    #[must_use]
    pub fn head(&self) -> &SnapshotHead {
        &self.head
    }

    /// What `decode` makes of the rows that still open, in their order. It is called on all cores;
    /// a row that it makes nothing of counts as damaged.
    pub fn rows<T, D>(self, ring: &KeyRing, decode: D) -> SnapshotRows<'_, D, T>
    where
        D: Fn(RecordId, &[u8]) -> Option<T> + Sync,
        T: Send,
    {
        let Self { id, head, file } = self;
        let left = usize::try_from(head.rows).unwrap_or(usize::MAX);
        SnapshotRows { id, file, ring, decode, left, ready: Vec::new().into_iter() }
    }
}

/// The rows of a snapshot. Ends where the file does, or where it cannot be read any further.
pub struct SnapshotRows<'a, D, T> {
    id: SnapshotId,
    file: BufReader<File>,
    ring: &'a KeyRing,
    decode: D,
    /// About how many come; a hint.
    left: usize,
    ready: std::vec::IntoIter<T>,
}

impl<D, T> Iterator for SnapshotRows<'_, D, T>
where
    D: Fn(RecordId, &[u8]) -> Option<T> + Sync,
    T: Send,
{
    type Item = T;

    fn next(&mut self) -> Option<T> {
        loop {
            if let Some(row) = self.ready.next() {
                self.left = self.left.saturating_sub(1);
                return Some(row);
            }
            let chunk = self.chunk();
            if chunk.is_empty() {
                return None;
            }
            self.ready = self.open_all(chunk).into_iter();
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, None)
    }
}

impl<D, T> SnapshotRows<'_, D, T>
where
    D: Fn(RecordId, &[u8]) -> Option<T> + Sync,
    T: Send,
{
    fn chunk(&mut self) -> Vec<SealedRow> {
        let mut rows = Vec::with_capacity(CHUNK_ROWS);
        while rows.len() < CHUNK_ROWS {
            match read_row(&mut self.file) {
                Ok(Some(row)) => rows.push(row),
                Ok(None) => break,
                Err(fault) => {
                    tracing::warn!(%fault, "the snapshot ends early; the rest comes from the store");
                    break;
                }
            }
        }
        rows
    }

    fn open_all(&self, chunk: Vec<SealedRow>) -> Vec<T> {
        let Self { id, ring, decode, .. } = self;
        let open = |row: SealedRow| {
            let plain = ring.open(*id, &row)?;
            let decoded = decode(row.record, &plain);
            match decoded {
                Some(_) => ring.mark(row.place),
                None => _ = ring.damaged.fetch_add(1, Ordering::Relaxed),
            }
            decoded
        };
        chunk.into_par_iter().filter_map(open).collect()
    }
}

struct SealedRow {
    record: RecordId,
    place: Place,
    sealed: Vec<u8>,
}

fn decode_head(plain: &[u8]) -> Option<(SnapshotId, SnapshotHead)> {
    let (id, rest) = plain.split_first_chunk::<ID_BYTES>()?;
    let (revision, rest) = rest.split_first_chunk::<NUMBER_BYTES>()?;
    let (rows, index) = rest.split_first_chunk::<NUMBER_BYTES>()?;
    let revision = Revision(u64::from_be_bytes(*revision));
    let head = SnapshotHead { revision, rows: u64::from_be_bytes(*rows), index: index.to_vec() };
    Some((SnapshotId(*id), head))
}

/// The next row; `None` at the end, and where the file was cut or altered beyond reading on.
fn read_row(file: &mut impl Read) -> io::Result<Option<SealedRow>> {
    let mut head = [0; RECORD_BYTES + PLACE_BYTES];
    if read_exact(file, &mut head)?.is_none() {
        return Ok(None);
    }
    let (record, place) = head.split_first_chunk().expect("an id is shorter than this");
    let (record, place) = (RecordId::from_bytes(*record), Place::from_bytes(place));
    let sealed = read_sealed(file)?;
    Ok(place.zip(sealed).map(|(place, sealed)| SealedRow { record, place, sealed }))
}

fn read_sealed(file: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; LENGTH_BYTES];
    if read_exact(file, &mut length)?.is_none() {
        return Ok(None);
    }
    let length = u32::from_le_bytes(length) as usize;
    if length > MOST_BYTES {
        return Ok(None);
    }
    let mut sealed = vec![0; length];
    Ok(read_exact(file, &mut sealed)?.map(|()| sealed))
}

/// `None` where the file ends before.
fn read_exact(file: &mut impl Read, bytes: &mut [u8]) -> io::Result<Option<()>> {
    match file.read_exact(bytes) {
        Err(fault) if fault.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        read => read.map(Some),
    }
}
