//! Blocks of the database's file that are there before redb writes them.
//!
//! redb makes its file longer by doubling it, with a hole at the end, and fills the hole from its
//! front. A sync that has a new block to make known needs the file's inode, and waits where the
//! system's own writing-back has it, which gives way to all other input and output: up to seconds.
//! A sync of blocks that were there before needs no inode. So a thread fills the front of the hole
//! with zeros, some way ahead of redb.
//!
//! # Invariants
//! - Only holes are filled, and while they are nobody else writes: what is read stays the same.
//! - Blocks ahead are for speed alone: where the disk has little room, or fails, there are none.
//! - The file was opened for this alone: the system tells a failed sync to each who has it open, so
//!   redb hears of every one.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use rustix::fs::{SeekFrom, fstatvfs, seek};
use rustix::io::Errno;

/// Where less than this is left between a write and the hole, the hole's front is filled.
const LEFT_BYTES: u64 = 1 << 20;
/// How much is filled at once: this share of the file, within bounds.
const SHARE: u64 = 16;
const LEAST_BYTES: u64 = 1 << 20;
const MOST_BYTES: u64 = 16 << 20;
/// How many times as much must be free on the disk.
const ROOM: u64 = 4;
/// Nobody writes for as long as filling this takes.
const PIECE_BYTES: usize = 64 << 10;
static ZEROS: [u8; PIECE_BYTES] = [0; PIECE_BYTES];

/// The thread that fills, and what it shares with whoever writes.
#[derive(Debug)]
pub(super) struct BlocksAhead {
    filling: Arc<Filling>,
    /// `None` once the thread is to end.
    wake: Option<SyncSender<()>>,
    /// `None` once it is joined.
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Filling {
    file: File,
    /// Held by whoever writes or cuts the file. Where the first hole begins, or did when it was
    /// last looked for; `None` where there is none, or none that is to be filled.
    hole: Mutex<Option<u64>>,
}

impl BlocksAhead {
    /// For the file at `path`, through which all that is written or cut has to go from now on.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let filling = Arc::new(Filling { file, hole: Mutex::new(Some(0)) });
        let (wake, wakes) = sync_channel(1);
        let work = {
            let filling = Arc::clone(&filling);
            move || filling.until_closed(&wakes)
        };
        let thread = thread::Builder::new().name("store-blocks".into()).spawn(work)?;
        Ok(Self { filling, wake: Some(wake), thread: Some(thread) })
    }

    /// Does a write that ends at `end`.
    pub(super) fn write<T>(
        &self,
        end: u64,
        write: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<T> {
        let hole = self.filling.hole();
        let written = write()?;
        if hole.is_some_and(|hole| hole.abs_diff(end) < LEFT_BYTES)
            && let Some(wake) = &self.wake
        {
            // One that was not heard yet is enough.
            let _waking = wake.try_send(());
        }
        Ok(written)
    }

    /// Cuts the file, or makes it longer.
    pub(super) fn set_len<T>(&self, set_len: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let mut hole = self.filling.hole();
        let before = self.filling.len()?;
        let set = set_len()?;
        let unchanged = hole.unwrap_or(before).min(before);
        *hole = Some(unchanged.min(self.filling.len()?));
        Ok(set)
    }
}

impl Drop for BlocksAhead {
    /// Waits for the thread: nobody writes into the file after this.
    fn drop(&mut self) {
        self.wake = None;
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread that makes blocks ahead had panicked");
        }
    }
}

impl Filling {
    fn until_closed(&self, wakes: &Receiver<()>) {
        while let Ok(()) = wakes.recv() {
            let Some(from) = *self.hole() else { continue };
            let next = self.fill_from(from).unwrap_or_else(|fault| {
                tracing::debug!(%fault, "no blocks are made ahead until the file is longer");
                None
            });
            let mut hole = self.hole();
            // Else the file was cut meanwhile, or is longer: the next write begins anew.
            if *hole == Some(from) {
                *hole = next;
                // Who woke meanwhile meant the same.
                let _woken_already = wakes.try_recv();
            }
        }
    }

    /// Fills the front of the hole, which is not before `from`; durable on return. Where the next
    /// one begins.
    fn fill_from(&self, from: u64) -> io::Result<Option<u64>> {
        let Some(front) = self.next(SeekFrom::Hole(from))? else { return Ok(None) };
        let len = self.len()?;
        let goal = front + (len / SHARE).clamp(LEAST_BYTES, MOST_BYTES);
        let system = fstatvfs(&self.file)?;
        let free = system.f_bavail.saturating_mul(system.f_frsize);
        if front >= len || free < ROOM * (goal - front) {
            return Ok(None);
        }
        let mut at = front;
        while at < goal && self.fill_piece(at)? {
            at += PIECE_BYTES as u64;
        }
        self.file.sync_data()?;
        // Some file systems keep no zeros.
        Ok(self.next(SeekFrom::Hole(front))?.filter(|next| *next > front))
    }

    /// Fills the holes of one piece; whether the file goes on behind it.
    fn fill_piece(&self, at: u64) -> io::Result<bool> {
        let _nobody_writes = self.hole();
        let piece = at + PIECE_BYTES as u64;
        let end = piece.min(self.len()?);
        let mut at = at;
        while at < end {
            let hole = self.next(SeekFrom::Hole(at))?.unwrap_or(end).min(end);
            let data = self.next(SeekFrom::Data(hole))?.unwrap_or(end).min(end);
            let length = usize::try_from(data - hole).unwrap_or(PIECE_BYTES);
            self.file.write_all_at(&ZEROS[..length], hole)?;
            at = data;
        }
        Ok(end == piece)
    }

    /// Where the next hole or data begins, within the file.
    fn next(&self, of: SeekFrom) -> io::Result<Option<u64>> {
        match seek(&self.file, of) {
            Err(Errno::NXIO) => Ok(None),
            found => Ok(Some(found?)),
        }
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn hole(&self) -> MutexGuard<'_, Option<u64>> {
        self.hole.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    const PAGE_BYTES: usize = 4096;
    const PAGE: u64 = PAGE_BYTES as u64;

    /// A file that is one hole, with blocks ahead.
    fn hollow(bytes: u64) -> (tempfile::NamedTempFile, BlocksAhead) {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(bytes).unwrap();
        let blocks = BlocksAhead::open(file.path()).unwrap();
        (file, blocks)
    }

    fn write_page(file: &File, blocks: &BlocksAhead, at: u64, byte: u8) {
        let page = [byte; PAGE_BYTES];
        blocks.write(at + PAGE, || file.write_all_at(&page, at)).unwrap();
    }

    fn hole_behind(file: &File, at: u64) -> u64 {
        seek(file, SeekFrom::Hole(at)).unwrap()
    }

    fn until(what: impl Fn() -> bool) {
        let begun = Instant::now();
        while !what() {
            assert!(begun.elapsed() < Duration::from_mins(1));
            thread::yield_now();
        }
    }

    #[test]
    fn blocks_are_ahead_of_whoever_fills_the_hole_and_nowhere_else() {
        const BYTES: u64 = 8 << 20;
        let (file, blocks) = hollow(BYTES);
        let file = file.as_file();
        write_page(file, &blocks, BYTES - PAGE, 1);
        assert_eq!(hole_behind(file, 0), 0, "control");
        let mut written = PAGE;
        while written < BYTES {
            let ready = (written + LEAST_BYTES).min(BYTES);
            until(|| {
                write_page(file, &blocks, written - PAGE, 1);
                hole_behind(file, 0) == ready
            });
            written = ready;
        }
        blocks.set_len(|| file.set_len(BYTES / 2)).unwrap();
        blocks.set_len(|| file.set_len(2 * BYTES)).unwrap();
        until(|| {
            write_page(file, &blocks, BYTES / 2, 1);
            hole_behind(file, 0) > BYTES / 2 + LEAST_BYTES
        });
    }

    #[test]
    fn nothing_is_filled_while_somebody_writes_and_what_is_written_stays() {
        const PAGES: usize = 256;
        let mut coin = 1_u64;
        for _round in 0..30 {
            let (file, blocks) = hollow(LEAST_BYTES);
            write_page(file.as_file(), &blocks, 0, 7);
            until(|| hole_behind(file.as_file(), 0) > PAGE);
            let slow = || {
                let hole = hole_behind(file.as_file(), 0);
                thread::sleep(Duration::from_millis(2));
                assert_eq!(hole_behind(file.as_file(), 0), hole);
                Ok(())
            };
            blocks.write(PAGE, slow).unwrap();
            let mut wanted = vec![0; PAGES * PAGE_BYTES];
            wanted[..PAGE_BYTES].fill(7);
            for _page in 0..1000 {
                coin = coin.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let at = usize::try_from(coin >> 33).unwrap() % PAGES * PAGE_BYTES;
                write_page(file.as_file(), &blocks, at as u64, 7);
                wanted[at..][..PAGE_BYTES].fill(7);
            }
            drop(blocks);
            assert_eq!(hole_behind(file.as_file(), 0), LEAST_BYTES, "control: it was filled");
            assert!(std::fs::read(file.path()).unwrap() == wanted);
        }
    }

    #[test]
    fn the_database_has_blocks_ahead() {
        let directory = tempfile::tempdir().unwrap();
        let plain = directory.path().join("plain.redb");
        let _plain = redb::Database::create(&plain).unwrap();
        let is_whole = |path: &Path| {
            let file = File::open(path).unwrap();
            hole_behind(&file, 0) == file.metadata().unwrap().len()
        };
        assert!(!is_whole(&plain), "control");
        let _open = crate::store::Embedded::open(directory.path()).unwrap();
        until(|| is_whole(&directory.path().join("assent.redb")));
    }
}
