//! Blocks of the database's file that are there before redb writes them.
//!
//! redb makes its file longer by doubling it, with a hole at the end, and fills the hole from its
//! front. A sync that has a new block to make known needs the file's inode, and waits where the
//! system's own writing-back has it, which gives way to all other input and output: up to seconds.
//! A sync of blocks that were there before needs no inode. So a thread fills the front of the hole
//! with zeros, some way ahead of redb.
//!
//! # Invariants
//! - What is read stays the same: a piece is written as it was read, and nobody else writes in
//!   between. Where the system says that there is a hole decides only where to begin.
//! - Nothing is written before redb has locked the file, and nothing after it is closed.
//! - A full disk, or one with little room, costs nothing but blocks ahead.
//! - The file was opened for this alone: the system tells a failed sync to each who has it open, so
//!   redb hears of every one, those of zeros included.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;

use super::reserve::free_beside;

/// Where less than this is between the hole and the end of a write, the hole's front is filled.
const NEAR_BYTES: u64 = 1 << 20;
/// How much is filled at once: this share of the file, within bounds.
const SHARE: u64 = 16;
const LEAST_BYTES: u64 = 1 << 20;
const MOST_BYTES: u64 = 16 << 20;
/// How many times as much must be free on the disk.
const ROOM: u64 = 4;
/// Nobody else writes for as long as filling this takes.
const PIECE_BYTES: usize = 64 << 10;

/// The thread that fills, and what it shares with whoever writes.
#[derive(Debug)]
pub(super) struct BlocksAhead {
    filling: Arc<Filling>,
    /// `None` once it is joined.
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug)]
struct Filling {
    file: File,
    /// Held by whoever writes or cuts the file.
    front: Mutex<Front>,
    /// The thread has something to do.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Front {
    /// Where the first hole begins, or did when it was last looked for; `None` where there is none,
    /// or none that is to be filled until the file is longer.
    hole: Option<u64>,
    /// The end of the last write near the hole, since it is there.
    reached: Option<u64>,
    /// How often the file was cut or made longer.
    cuts: u64,
    is_closed: bool,
}

impl Front {
    fn is_near(&self, end: u64) -> bool {
        self.hole.is_some_and(|hole| hole.abs_diff(end) < NEAR_BYTES)
    }

    fn is_to_move(&self) -> bool {
        self.reached.is_some_and(|end| self.is_near(end))
    }
}

impl BlocksAhead {
    /// For the file at `path`, through which all that is written or cut has to go from now on.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let front = Mutex::new(Front { hole: Some(0), ..Front::default() });
        let filling = Arc::new(Filling { file, front, changed: Condvar::new() });
        let work = {
            let filling = Arc::clone(&filling);
            move || filling.until_closed()
        };
        let thread = thread::Builder::new().name("store-blocks".into()).spawn(work)?;
        Ok(Self { filling, thread: Mutex::new(Some(thread)) })
    }

    /// Does a write that ends at `end`.
    pub(super) fn write<T>(
        &self,
        end: u64,
        write: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<T> {
        let mut front = self.filling.front();
        let written = write()?;
        if front.is_near(end) {
            front.reached = Some(end);
            self.filling.changed.notify_one();
        }
        Ok(written)
    }

    /// Cuts the file, or makes it longer.
    pub(super) fn set_len<T>(&self, set_len: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let mut front = self.filling.front();
        let before = self.filling.len()?;
        let set = set_len()?;
        let unchanged = before.min(self.filling.len()?);
        front.hole = Some(front.hole.unwrap_or(before).min(unchanged));
        front.reached = None;
        front.cuts += 1;
        Ok(set)
    }

    /// Waits for the thread: it writes nothing into the file after this.
    pub(super) fn close(&self) {
        self.filling.front().is_closed = true;
        self.filling.changed.notify_one();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread that makes blocks ahead had panicked");
        }
    }
}

impl Drop for BlocksAhead {
    fn drop(&mut self) {
        self.close();
    }
}

impl Filling {
    fn until_closed(&self) {
        let mut front = self.front();
        while !front.is_closed {
            let Some(from) = front.hole.filter(|_| front.is_to_move()) else {
                front = self.changed.wait(front).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let cuts = front.cuts;
            drop(front);
            let next = self.fill_from(from).unwrap_or_else(|fault| {
                tracing::debug!(%fault, "no blocks are made ahead until the file is longer");
                None
            });
            front = self.front();
            // Else what was found is of the file as it was before.
            if front.cuts == cuts {
                front.hole = next;
            }
        }
    }

    /// Fills the front of the hole, which is not before `from`; durable on return. Where the next
    /// one begins.
    fn fill_from(&self, from: u64) -> io::Result<Option<u64>> {
        let len = self.len()?;
        let Some(hole) = self.hole_behind(from)?.filter(|hole| *hole < len) else {
            return Ok(None);
        };
        let goal = hole + (len / SHARE).clamp(LEAST_BYTES, MOST_BYTES);
        if free_beside(&self.file)? < ROOM * (goal - hole) {
            return Ok(None);
        }
        let (mut at, mut piece) = (hole, vec![0; PIECE_BYTES]);
        while at < goal && self.write_as_it_is(at, &mut piece)? {
            at += PIECE_BYTES as u64;
        }
        self.file.sync_data()?;
        // Some file systems keep no zeros.
        Ok(self.hole_behind(hole)?.filter(|next| *next > hole))
    }

    /// Writes a piece as it is read; whether there is more to do behind it.
    fn write_as_it_is(&self, at: u64, piece: &mut [u8]) -> io::Result<bool> {
        let front = self.front();
        let left = usize::try_from(self.len()?.saturating_sub(at)).unwrap_or(PIECE_BYTES);
        let piece = &mut piece[..left.min(PIECE_BYTES)];
        self.file.read_exact_at(piece, at)?;
        self.file.write_all_at(piece, at)?;
        Ok(piece.len() == PIECE_BYTES && !front.is_closed)
    }

    /// Where the first hole behind `at` begins, the end of the file being one.
    fn hole_behind(&self, at: u64) -> io::Result<Option<u64>> {
        match seek(&self.file, SeekFrom::Hole(at)) {
            Err(Errno::NXIO) => Ok(None),
            found => Ok(Some(found?)),
        }
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn front(&self) -> MutexGuard<'_, Front> {
        self.front.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use redb::StorageBackend as _;
    use redb::backends::FileBackend;

    use super::super::reserve::{Reserve, Reserving};
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
            until(|| hole_behind(file.as_file(), 0) == LEAST_BYTES);
            assert!(std::fs::read(file.path()).unwrap() == wanted);
        }
    }

    #[test]
    fn the_database_has_blocks_ahead() {
        let directory = tempfile::tempdir().unwrap();
        let plain = directory.path().join("plain.redb");
        let _plain = redb::Database::create(&plain).unwrap();
        let is_filled = |path: &Path| {
            let file = File::open(path).unwrap();
            hole_behind(&file, 0) > file.metadata().unwrap().len() / 2
        };
        assert!(!is_filled(&plain), "control");
        let _open = crate::store::Embedded::open(directory.path()).unwrap();
        until(|| is_filled(&directory.path().join("assent.redb")));
    }

    #[test]
    fn the_thread_ends_before_the_file_is_closed() {
        let (file, blocks) = hollow(LEAST_BYTES);
        let filling = Arc::clone(&blocks.filling);
        let backend = FileBackend::new(file.reopen().unwrap()).unwrap();
        let disk = Reserving::new(backend, Reserve::default()).with_blocks_ahead(blocks);
        disk.write(0, &[1; PAGE_BYTES]).unwrap();
        assert_eq!(Arc::strong_count(&filling), 3, "the thread's, the disk's and this one");
        disk.close().unwrap();
        assert_eq!(Arc::strong_count(&filling), 2);
    }
}
