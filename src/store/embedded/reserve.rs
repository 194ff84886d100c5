//! The reserve: space that is kept so that revocations go on while the disk is full.
//!
//! ```text
//! reserve    beside assent.redb, mode 0600: zeros, really allocated, nothing else
//! ```
//! When a write finds the disk full, the end of the reserve is given back to the file system, one
//! step at a time and only as much as it takes, and the write is tried again before redb hears of
//! it: redb takes nothing more after an error. From then on the store is low on space, until the
//! reserve is whole again and there is room beside it.
//!
//! # Invariants
//! - Once a write has found the disk full, the store says so before the write returns.
//! - Space is given back by steps, so that a greedy neighbour gets one step and not all.
//! - No error of the disk but a full one is tried again: a failed sync is final.
//!
//! # Limits
//! What counts is what the file system does with a file that was cut: on those that copy on write
//! or keep snapshots, space may stay taken. The root key's file is overwritten in place and needs
//! none.
//!
//! # Not here
//! What is refused while the store is low on space (`store/typed.rs`).

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::ops::Bound;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::StorageBackend;
use rustix::fs::{FallocateFlags, fallocate, fstatvfs};
use rustix::io::Errno;

use super::blocks::BlocksAhead;

const FILE_NAME: &str = "reserve";
const FILE_MODE: u32 = 0o600;
/// What is given back at once: more than one revocation of a small store writes.
const STEP_BYTES: u64 = 256 << 10;
/// The share of the reserve that must be free beside it before enrolments go on: else the next one
/// would take the reserve again.
const ROOM_SHARE: u64 = 4;
/// The unit of `st_blocks`.
const BLOCK_BYTES: u64 = 512;
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// Space that is held and can be let go.
pub(in crate::store) trait Spare: fmt::Debug + Send {
    /// Bytes held.
    fn held(&self) -> io::Result<u64>;

    /// Holds `bytes` from now on; on failure no less than before.
    fn hold(&self, bytes: u64) -> io::Result<()>;

    /// Bytes that are free besides.
    fn free(&self) -> io::Result<u64>;
}

/// A store's reserve; clones are the same one.
#[derive(Debug, Clone, Default)]
pub(in crate::store) struct Reserve(Option<Arc<State>>);

#[derive(Debug)]
struct State {
    spare: Mutex<Box<dyn Spare>>,
    /// How much it is to hold, bytes.
    whole: u64,
    low: AtomicBool,
}

impl Reserve {
    /// Holds `bytes` in `directory`, locked; nothing, and no file, where that is 0. Where there is
    /// no room for it the store is low on space from the start.
    pub(super) fn open(directory: &Path, bytes: u64) -> io::Result<Self> {
        let path = directory.join(FILE_NAME);
        if bytes == 0 {
            return match fs::remove_file(path) {
                Err(fault) if fault.kind() != io::ErrorKind::NotFound => Err(fault),
                _ => Ok(Self::default()),
            };
        }
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(FILE_MODE)
            .open(path)?;
        file.try_lock()?;
        Self::over(Box::new(SpareFile(file)), bytes)
    }

    /// The same over any spare space, such as that of a simulated disk.
    pub(in crate::store) fn over(spare: Box<dyn Spare>, bytes: u64) -> io::Result<Self> {
        let low = match spare.hold(bytes) {
            Ok(()) => false,
            Err(fault) if is_full(&fault) => {
                tracing::error!(
                    held = spare.held()?,
                    wanted = bytes,
                    "the disk has no room for the reserve: only revocations are taken until space \
                     is freed"
                );
                true
            }
            Err(fault) => return Err(fault),
        };
        let state = State { spare: Mutex::new(spare), whole: bytes, low: AtomicBool::new(low) };
        Ok(Self(Some(Arc::new(state))))
    }

    /// Whether the reserve is in use, or was and is not whole again.
    pub(super) fn is_low(&self) -> bool {
        self.0.as_ref().is_some_and(|state| state.low.load(Ordering::Acquire))
    }

    /// Holds the whole reserve again, where there is room for it and for some work beside it.
    pub(super) fn regain(&self) {
        let Some(state) = self.0.as_ref().filter(|_| self.is_low()) else { return };
        match state.regain() {
            Ok(true) => tracing::info!("the reserve is whole again: enrolment and matching go on"),
            Ok(false) => {}
            Err(fault) if is_full(&fault) => {}
            Err(fault) => tracing::warn!(%fault, "the reserve cannot be made whole"),
        }
    }

    /// What `attempt` answers once there is room for it, as long as the reserve lasts.
    fn making_room<T>(&self, mut attempt: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        let outcome = attempt();
        let Some(state) = &self.0 else { return outcome };
        if !outcome.as_ref().is_err_and(is_full) {
            return outcome;
        }
        let spare = state.use_reserve();
        loop {
            // Once more before anything is given back: the space may have been taken by `regain`.
            match attempt() {
                Err(fault) if is_full(&fault) => give_back_a_step(&**spare, fault)?,
                outcome => return outcome,
            }
            // `regain` may have found it whole while this waited for it.
            state.low.store(true, Ordering::Release);
        }
    }
}

impl State {
    fn spare(&self) -> MutexGuard<'_, Box<dyn Spare>> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn use_reserve(&self) -> MutexGuard<'_, Box<dyn Spare>> {
        if !self.low.swap(true, Ordering::AcqRel) {
            tracing::error!(
                "the disk is full: revocations go on from the reserve, all else is refused until \
                 space is freed"
            );
        }
        self.spare()
    }

    fn regain(&self) -> io::Result<bool> {
        let spare = self.spare();
        let missing = self.whole.saturating_sub(spare.held()?);
        if spare.free()? < missing + self.whole / ROOM_SHARE {
            return Ok(false);
        }
        spare.hold(self.whole)?;
        self.low.store(false, Ordering::Release);
        Ok(true)
    }
}

/// Cuts one step off the end; `full`, what the disk said, where nothing is left to cut.
fn give_back_a_step(spare: &dyn Spare, full: io::Error) -> io::Result<()> {
    match spare.held()? {
        0 => Err(full),
        held => spare.hold(held.saturating_sub(STEP_BYTES)),
    }
}

fn is_full(fault: &io::Error) -> bool {
    matches!(fault.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Bytes that are free where `file` lies.
pub(super) fn free_beside(file: &File) -> io::Result<u64> {
    let system = fstatvfs(file)?;
    Ok(system.f_bavail.saturating_mul(system.f_frsize))
}

/// The reserve in a file.
#[derive(Debug)]
struct SpareFile(File);

impl SpareFile {
    /// Allocates the first `bytes`, those that are allocated already included.
    fn allocate(&self, bytes: u64) -> io::Result<()> {
        match fallocate(&self.0, FallocateFlags::empty(), 0, bytes) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => self.write_zeros(bytes),
            outcome => Ok(outcome?),
        }
    }

    /// For file systems that allocate only what is written.
    fn write_zeros(&self, bytes: u64) -> io::Result<()> {
        let metadata = self.0.metadata()?;
        let is_allocated = metadata.blocks() * BLOCK_BYTES >= metadata.len();
        let mut at = if is_allocated { metadata.len() } else { 0 };
        while at < bytes {
            let piece = ZEROS.len().min(usize::try_from(bytes - at).unwrap_or(usize::MAX));
            self.0.write_all_at(&ZEROS[..piece], at)?;
            at += piece as u64;
        }
        Ok(())
    }
}

impl Spare for SpareFile {
    fn held(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn hold(&self, bytes: u64) -> io::Result<()> {
        let before = self.held()?;
        if bytes >= before
            && let Err(fault) = self.allocate(bytes)
        {
            // Part of it may have been allocated; the little that is free is better left free.
            self.0.set_len(before)?;
            return Err(fault);
        }
        self.0.set_len(bytes)?;
        // Journalling file systems give blocks out again only once the cut is durable.
        self.0.sync_all()
    }

    fn free(&self) -> io::Result<u64> {
        free_beside(&self.0)
    }
}

/// A disk whose writes may use the reserve, with blocks made ahead or without.
#[derive(Debug)]
pub(in crate::store) struct Reserving<B> {
    /// Before the disk: ends before whatever that locks is unlocked.
    blocks: Option<BlocksAhead>,
    disk: B,
    reserve: Reserve,
}

impl<B> Reserving<B> {
    pub(in crate::store) fn new(disk: B, reserve: Reserve) -> Self {
        Self { disk, reserve, blocks: None }
    }

    /// The same with blocks made ahead.
    pub(super) fn with_blocks_ahead(self, blocks: BlocksAhead) -> Self {
        Self { blocks: Some(blocks), ..self }
    }
}

impl<B: StorageBackend> StorageBackend for Reserving<B> {
    fn len(&self) -> io::Result<u64> {
        self.disk.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.disk.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let set_len = || self.reserve.making_room(|| self.disk.set_len(len));
        self.blocks.as_ref().map_or_else(set_len, |blocks| blocks.set_len(set_len))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.disk.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let write = || self.reserve.making_room(|| self.disk.write(offset, data));
        let end = offset + data.len() as u64;
        self.blocks.as_ref().map_or_else(write, |blocks| blocks.write(end, write))
    }

    fn close(&self) -> io::Result<()> {
        if let Some(blocks) = &self.blocks {
            blocks.close();
        }
        self.disk.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Locked<bool> {
        self.disk.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Locked<bool> {
        self.disk.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Locked<()> {
        self.disk.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Locked<()> {
        self.disk.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Locked<()> {
        self.disk.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Locked<bool> {
        self.disk.query_lock_range(start, end)
    }
}

type Locked<T> = Result<T, redb::BackendError>;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn allocated(path: &Path) -> u64 {
        fs::metadata(path).unwrap().blocks() * BLOCK_BYTES
    }

    #[test]
    fn the_reserve_is_really_there_and_nobody_elses() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE_NAME);
        let reserve = Reserve::open(directory.path(), 4 << 20).unwrap();
        assert!(!reserve.is_low());
        assert!(allocated(&path) >= 4 << 20, "control: {}", allocated(&path));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, FILE_MODE);
        let taken = Reserve::open(directory.path(), 4 << 20).unwrap_err();
        assert_eq!(taken.kind(), io::ErrorKind::WouldBlock, "another process has it");
        drop(reserve);
        // A copy with holes in it, and another size asked for.
        File::create(&path).unwrap().set_len(4 << 20).unwrap();
        assert_eq!(allocated(&path), 0);
        for bytes in [4 << 20, 6 << 20, 1 << 20] {
            Reserve::open(directory.path(), bytes).unwrap();
            assert_eq!(fs::metadata(&path).unwrap().len(), bytes);
            assert!(allocated(&path) >= bytes);
        }
        Reserve::open(directory.path(), 0).unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn a_file_system_that_cannot_allocate_gets_zeros() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE_NAME);
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path).unwrap();
        file.set_len(100_000).unwrap();
        let spare = SpareFile(file);
        spare.write_zeros(1_000_000).unwrap();
        assert!(allocated(&path) >= 1_000_000);
        spare.write_zeros(1_000_001).unwrap();
        assert_eq!(spare.held().unwrap(), 1_000_001);
    }

    #[test]
    fn what_is_given_back_comes_in_steps_and_a_failed_disk_gets_none() {
        let directory = tempfile::tempdir().unwrap();
        let reserve = Reserve::open(directory.path(), 4 * STEP_BYTES).unwrap();
        let held = || fs::metadata(directory.path().join(FILE_NAME)).unwrap().len();
        let fault = io::Error::other("the disk failed");
        let failed: io::Result<()> = reserve.making_room(|| Err(io::Error::other("failed")));
        assert_eq!(failed.unwrap_err().kind(), fault.kind());
        assert!(!reserve.is_low());
        assert_eq!(held(), 4 * STEP_BYTES);
        let mut fails = 3;
        let full = || io::Error::from(io::ErrorKind::StorageFull);
        let outcome = reserve.making_room(|| {
            fails -= 1;
            if fails >= 0 { Err(full()) } else { Ok(7) }
        });
        assert_eq!(outcome.unwrap(), 7);
        assert!(reserve.is_low());
        assert_eq!(held(), 2 * STEP_BYTES, "the first of three was tried again as it was");
        let never: io::Result<()> = reserve.making_room(|| Err(full()));
        assert_eq!((never.unwrap_err().kind(), held()), (io::ErrorKind::StorageFull, 0));
        reserve.regain();
        assert!(!reserve.is_low());
        assert_eq!(held(), 4 * STEP_BYTES);
    }
}
