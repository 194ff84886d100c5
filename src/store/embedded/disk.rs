//! A simulated disk: what was not synced may be lost at a power cut, sector by sector.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use redb::{Builder, StorageBackend};

use super::{Embedded, EmbeddedError};

/// What a real disk writes whole.
const SECTOR_BYTES: usize = 512;

/// A disk; clones are the same disk.
#[derive(Debug, Clone, Default)]
pub(in crate::store) struct SimulatedDisk(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    current: Vec<u8>,
    synced: Vec<u8>,
    syncs: u32,
    /// The sync that fails, counted from now; everything after it fails too.
    syncs_left: Option<u32>,
}

impl SimulatedDisk {
    /// A backend on this disk.
    pub(in crate::store) fn open(&self) -> Result<Embedded, EmbeddedError> {
        let database = Builder::new().create_with_backend(self.clone()).unwrap();
        Embedded::over(database)
    }

    /// The `n`th sync from now fails, and everything after it.
    pub(in crate::store) fn fail_after_syncs(&self, n: u32) {
        self.state().syncs_left = Some(n);
    }

    /// How often the disk was synced.
    pub(in crate::store) fn syncs(&self) -> u32 {
        self.state().syncs
    }

    /// Another disk with the same content.
    pub(in crate::store) fn copy(&self) -> Self {
        let current = self.state().current.clone();
        let synced = current.clone();
        Self(Arc::new(Mutex::new(State { current, synced, ..State::default() })))
    }

    /// The disk after a power cut: all that was synced, and of the rest the sectors that `seed`
    /// picks.
    pub(in crate::store) fn after_power_cut(&self, seed: u64) -> Self {
        let state = self.state();
        let mut image = state.synced.clone();
        image.resize(state.current.len(), 0);
        let sectors = image.chunks_mut(SECTOR_BYTES).zip(state.current.chunks(SECTOR_BYTES));
        let mut coin = seed | 1;
        for (old, new) in sectors.filter(|(old, new)| old != new) {
            coin ^= coin << 13;
            coin ^= coin >> 7;
            coin ^= coin << 17;
            if coin & 1 == 1 {
                old.copy_from_slice(new);
            }
        }
        let (current, synced) = (image.clone(), image);
        Self(Arc::new(Mutex::new(State { current, synced, ..State::default() })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    fn writable(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.state();
        if state.syncs_left == Some(0) {
            return Err(io::Error::other("the simulated disk failed"));
        }
        Ok(state)
    }
}

fn index(offset: u64) -> usize {
    usize::try_from(offset).unwrap()
}

impl StorageBackend for SimulatedDisk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state().current.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let at = index(offset);
        out.copy_from_slice(&self.state().current[at..at + out.len()]);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.writable()?.current.resize(index(len), 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.writable()?;
        if let Some(left) = &mut state.syncs_left {
            *left -= 1;
            if *left == 0 {
                return Err(io::Error::other("the simulated disk failed to sync"));
            }
        }
        state.syncs += 1;
        state.synced = state.current.clone();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let at = index(offset);
        self.writable()?.current[at..at + data.len()].copy_from_slice(data);
        Ok(())
    }
}
