//! A simulated disk: what was not synced may be lost at a power cut, sector by sector; it can be
//! full, fail, and have its bits flipped. The journal is its beginning, the database the rest; each
//! is synced for itself.

use std::collections::BTreeSet;
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};

use redb::{Builder, StorageBackend};

use super::journal::JOURNAL_BYTES;
use super::panics::catch;
use super::reserve::{Reserve, Reserving, Spare};
use super::{Embedded, EmbeddedError};

/// What a real disk writes whole.
const SECTOR_BYTES: usize = 512;
/// What a file system allocates at once.
const BLOCK_BYTES: usize = 4_096;
/// Of the database's cache: small, so that reads reach the disk.
const CACHE_BYTES: usize = 1 << 20;

/// A disk; clones are the same disk.
#[derive(Debug, Clone)]
pub(in crate::store) struct SimulatedDisk(Arc<Mutex<State>>);

impl Default for SimulatedDisk {
    /// A disk with nothing on it.
    fn default() -> Self {
        Self::holding(vec![0; JOURNAL_BYTES])
    }
}

/// A part of the disk.
#[derive(Debug)]
struct SimulatedFile {
    disk: SimulatedDisk,
    bytes: Range<usize>,
}

impl SimulatedFile {
    fn database(disk: &SimulatedDisk) -> Self {
        Self { disk: disk.clone(), bytes: JOURNAL_BYTES..usize::MAX }
    }

    fn journal(disk: &SimulatedDisk) -> Self {
        Self { disk: disk.clone(), bytes: 0..JOURNAL_BYTES }
    }

    fn grows(&self) -> bool {
        self.bytes.end == usize::MAX
    }
}

#[derive(Debug, Default)]
struct State {
    current: Vec<u8>,
    synced: Vec<u8>,
    /// Sectors that were written since the last sync.
    dirty: BTreeSet<usize>,
    syncs: u32,
    /// The sync that fails, counted from now; everything after it fails too.
    syncs_left: Option<u32>,
    power: Power,
    space: Space,
}

/// Power for disks and cells that hang on one plug; clones are the same.
#[derive(Debug, Clone, Default)]
pub(in crate::store) struct Power(Arc<Mutex<Option<u32>>>);

impl Power {
    /// Goes out with the `n`th operation from now.
    pub(in crate::store) fn cut_after(&self, n: u32) {
        *self.0.lock().unwrap() = Some(n);
    }

    /// Whether it has gone out.
    pub(in crate::store) fn is_cut(&self) -> bool {
        *self.0.lock().unwrap() == Some(0)
    }

    /// One operation: whether it is done whole.
    pub(in crate::store) fn draw(&self) -> bool {
        match &mut *self.0.lock().unwrap() {
            None => true,
            Some(left) => {
                *left = left.saturating_sub(1);
                *left > 0
            }
        }
    }
}

/// The file system's blocks.
#[derive(Debug, Clone, Default)]
struct Space {
    /// Blocks in all; no limit where there is none.
    capacity: Option<usize>,
    /// Blocks of the file that were ever written.
    written: BTreeSet<usize>,
    /// Blocks that the reserve holds, and that others do.
    reserve: usize,
    others: usize,
}

impl Space {
    fn free(&self) -> usize {
        let used = self.written.len() + self.reserve + self.others;
        self.capacity.map_or(usize::MAX, |capacity| capacity.saturating_sub(used))
    }
}

impl SimulatedDisk {
    /// A backend on this disk, without a reserve.
    pub(in crate::store) fn open(&self) -> Result<Embedded, EmbeddedError> {
        self.open_with(Reserve::default())
    }

    /// The same with a reserve of `bytes` on this disk.
    pub(in crate::store) fn open_reserving(&self, bytes: u64) -> Result<Embedded, EmbeddedError> {
        let reserve = Reserve::over(Box::new(SimulatedSpare(self.clone())), bytes).unwrap();
        self.open_with(reserve)
    }

    fn open_with(&self, reserve: Reserve) -> Result<Embedded, EmbeddedError> {
        let disk = Reserving::new(SimulatedFile::database(self), reserve.clone());
        let journal = Reserving::new(SimulatedFile::journal(self), reserve.clone());
        let mut builder = Builder::new();
        builder.set_cache_size(CACHE_BYTES);
        let database = catch(|| builder.create_with_backend(disk))?;
        Embedded::over(
            database.map_err(|fault| EmbeddedError::opening("disk".as_ref(), fault))?,
            |_must_be_there| Ok(Box::new(journal)),
            reserve,
        )
    }

    /// A disk that holds `image`, synced.
    pub(in crate::store) fn holding(image: Vec<u8>) -> Self {
        let synced = image.clone();
        Self(Arc::new(Mutex::new(State { current: image, synced, ..State::default() })))
    }

    /// All that is on it.
    pub(in crate::store) fn image(&self) -> Vec<u8> {
        self.state().current.clone()
    }

    /// The `n`th sync from now fails, and everything after it.
    pub(in crate::store) fn fail_after_syncs(&self, n: u32) {
        self.state().syncs_left = Some(n);
    }

    /// The plug that this disk hangs on.
    pub(in crate::store) fn power(&self) -> Power {
        self.state().power.clone()
    }

    /// How often the disk was synced.
    pub(in crate::store) fn syncs(&self) -> u32 {
        self.state().syncs
    }

    /// Other files take all that is free but `bytes`.
    pub(in crate::store) fn leave_free(&self, bytes: usize) {
        let mut state = self.state();
        let State { current, space, .. } = &mut *state;
        space.capacity.get_or_insert_with(|| (current.len() + (1 << 30)) / BLOCK_BYTES);
        space.others += space.free().saturating_sub(bytes / BLOCK_BYTES);
    }

    /// Other files go.
    pub(in crate::store) fn free_all(&self) {
        self.state().space.others = 0;
    }

    /// Bytes that the reserve holds.
    pub(in crate::store) fn reserved(&self) -> usize {
        self.state().space.reserve * BLOCK_BYTES
    }

    /// Another disk with the same content.
    pub(in crate::store) fn copy(&self) -> Self {
        Self::holding(self.image())
    }

    /// The disk after a power cut: all that was synced, and of the rest the sectors that `seed`
    /// picks; the file's length may be the synced one.
    pub(in crate::store) fn after_power_cut(&self, seed: u64) -> Self {
        let state = self.state();
        let mut coin = Coin(seed | 1);
        let mut image = state.synced.clone();
        if image.len() == JOURNAL_BYTES || coin.flip() {
            image.resize(state.current.len(), 0);
        }
        for sector in &state.dirty {
            let range = sector * SECTOR_BYTES..(sector + 1) * SECTOR_BYTES;
            let kept = range.end <= image.len().min(state.current.len());
            if coin.flip() && kept {
                image[range.clone()].copy_from_slice(&state.current[range]);
            }
        }
        let after = Self::holding(image);
        after.state().space = state.space.clone();
        after
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    fn writable(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.state();
        if state.syncs_left == Some(0) || state.power.is_cut() {
            return Err(io::Error::other("the simulated disk failed"));
        }
        Ok(state)
    }
}

impl State {
    /// One operation, done in memory already: whether the power lasted.
    fn done(&self) -> io::Result<()> {
        if self.power.draw() { Ok(()) } else { Err(io::Error::other("the simulated power is out")) }
    }
}

/// xorshift64.
struct Coin(u64);

impl Coin {
    fn flip(&mut self) -> bool {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 & 1 == 1
    }
}

fn index(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}

fn beyond() -> io::Error {
    io::ErrorKind::UnexpectedEof.into()
}

impl StorageBackend for SimulatedFile {
    fn len(&self) -> io::Result<u64> {
        let end = self.bytes.end.min(self.disk.state().current.len());
        Ok((end - self.bytes.start) as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let (at, state) = (self.bytes.start + index(offset), self.disk.state());
        let end = at.checked_add(out.len()).ok_or_else(beyond)?;
        out.copy_from_slice(state.current.get(at..end).ok_or_else(beyond)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.disk.writable()?;
        if !self.grows() {
            assert_eq!(index(len), self.bytes.len(), "only the last file grows");
            return state.done();
        }
        let (before, len) = (state.current.len(), self.bytes.start + index(len));
        state.current.resize(len, 0);
        // What is cut off may still be there when the power goes, and reads as zeros when it does
        // not.
        state.dirty.extend(len / SECTOR_BYTES..before.div_ceil(SECTOR_BYTES));
        state.space.written.split_off(&len.div_ceil(BLOCK_BYTES));
        state.done()
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.disk.writable()?;
        if let Some(left) = &mut state.syncs_left {
            *left -= 1;
            if *left == 0 {
                return Err(io::Error::other("the simulated disk failed to sync"));
            }
        }
        state.done()?;
        state.syncs += 1;
        let State { current, synced, dirty, .. } = &mut *state;
        if self.grows() {
            synced.resize(current.len(), 0);
        }
        let sectors = self.bytes.start / SECTOR_BYTES..self.bytes.end / SECTOR_BYTES;
        for sector in dirty.extract_if(sectors, |_| true) {
            let at = (sector * SECTOR_BYTES).min(current.len());
            let end = (at + SECTOR_BYTES).min(current.len());
            synced[at..end].copy_from_slice(&current[at..end]);
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let (at, mut state) = (self.bytes.start + index(offset), self.disk.writable()?);
        let most = self.bytes.end.min(state.current.len());
        let end = at.checked_add(data.len()).filter(|end| *end <= most).ok_or_else(beyond)?;
        let blocks = at / BLOCK_BYTES..end.div_ceil(BLOCK_BYTES);
        let new = blocks.clone().filter(|block| !state.space.written.contains(block)).count();
        if new > state.space.free() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        state.space.written.extend(blocks);
        state.current[at..end].copy_from_slice(data);
        state.dirty.extend(at / SECTOR_BYTES..end.div_ceil(SECTOR_BYTES));
        state.done()
    }
}

/// A reserve on a simulated disk.
#[derive(Debug)]
struct SimulatedSpare(SimulatedDisk);

impl Spare for SimulatedSpare {
    fn held(&self) -> io::Result<u64> {
        Ok(self.0.reserved() as u64)
    }

    fn hold(&self, bytes: u64) -> io::Result<()> {
        let mut state = self.0.state();
        let wanted = index(bytes) / BLOCK_BYTES;
        if wanted > state.space.reserve.saturating_add(state.space.free()) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        state.space.reserve = wanted;
        Ok(())
    }

    fn free(&self) -> io::Result<u64> {
        Ok(self.0.state().space.free().saturating_mul(BLOCK_BYTES) as u64)
    }
}
