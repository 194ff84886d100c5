//! The journal: what was decided, durable with one short write, before the tables have it.
//!
//! Most commits hold nothing but decisions: one more block of the audit trail and its new end. As a
//! transaction of the database each of them would cost a dozen pages. So they are appended here,
//! and the next transaction of any kind takes all of them along. When one half of the journal is
//! full, decisions go on into the other, and a transaction beside them takes the full half's rows
//! (`settler.rs`).
//!
//! ```text
//! journal    beside assent.redb, mode 0600, JOURNAL_BYTES: two halves; frames from the beginning of
//!            each, every one at a multiple of 4,096
//! frame      SHA-256 of all that follows 32 | lap 16 | number u32, from 0 | length of rows u32 | rows
//! lap        number of the transaction that the frames go on from u64 | its mark u64
//! mark       drawn by the transaction. That of one which takes a full half and nothing else: of the
//!            SHA-256 of that half's last frame the first 8 bytes. 0 after an orderly stop: no
//!            frames are expected
//! row        table u8 (its place in `Table::ALL`) | length of key u16 | length of value u32
//!            | key | value
//! redb table laps: "last", 16 bytes: the lap that the last transaction began
//! ```
//! Numbers are little endian. Keys and values are what the tables would hold: sealed blocks of the
//! audit trail, and its end.
//!
//! # Crash argument
//! A commit is acknowledged once its frame is synced, and the next frame is not written before
//! that. So after a crash all frames are whole but the last one, which nobody was told of. Every
//! transaction begins a new lap, whether it takes rows along or not, and its frames go where those
//! of the lap before it began: either it is there, with the rows, and no frame of that lap counts;
//! or it is not, and every frame has the lap before. The transaction for a full half alone runs
//! while frames of the lap that it begins are written already, to the other half: either it is
//! there, and they go on from it; or it is not, and they go on from the full half, whose last frame
//! their mark names. No half is written again before its rows are in the tables. A frame never
//! shares a block of 4,096 bytes with another, so that none is written again with its neighbour.
//! Frames of a transaction that the database does not have, and that no half leads to, show that
//! it lost it, or that it is an older copy.
//!
//! # Invariants
//! - The rows of the journal are newer than the tables': whoever reads a table that the journal
//!   writes has it settled first ([`Ahead`]).
//! - Rows are taken over only by the very state of the database that they go on from.
//! - A journal that is missing, cut short or broken before its end keeps the store shut.
//! - At the start it is overwritten with zeros: what it held longest is a process's life.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::{io, mem};

use redb::StorageBackend;
use thiserror::Error;
use uuid::Uuid;

use super::super::backend::{Opaque, RowId, RowKey, Table, Write};
use super::super::trail::head_row;
use crate::crypto::{DIGEST_BYTES, sha256};
use crate::failpoint;

/// Its length.
pub(in crate::store) const JOURNAL_BYTES: usize = 2 * HALF_BYTES;
/// What is settled at once.
pub(in crate::store) const HALF_BYTES: usize = 1 << 20;
/// What the disk may write whole, at most.
pub(in crate::store) const BLOCK_BYTES: usize = 4_096;
const LAP_BYTES: usize = 2 * size_of::<u64>();
const NUMBER_BYTES: usize = size_of::<u32>();
const LENGTH_BYTES: usize = size_of::<u32>();
const HEAD_BYTES: usize = DIGEST_BYTES + LAP_BYTES + NUMBER_BYTES + LENGTH_BYTES;

/// A transaction of the database, which frames go on from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Lap {
    transaction: u64,
    /// Tells it from another of that number, such as one in a copy of the database.
    mark: u64,
}

impl Lap {
    /// That of the next transaction, after which there may be frames.
    pub(super) fn next(self) -> Self {
        // Never 0: some bits of a random UUID are fixed.
        Self { mark: Uuid::new_v4().as_u64_pair().1, ..self.last() }
    }

    /// That of the transaction for nothing but a full half that ends with the frame of `digest`.
    fn after(self, digest: Digest) -> Self {
        let (mark, _rest) = digest.split_first_chunk().expect("longer than a number");
        Self { mark: u64::from_le_bytes(*mark) | 1, ..self.last() }
    }

    /// That of the last transaction of a process.
    pub(super) fn last(self) -> Self {
        Self { transaction: self.transaction + 1, mark: 0 }
    }

    /// Whether there may be frames that go on from it.
    pub(super) fn has_frames(self) -> bool {
        self.mark != 0
    }

    pub(super) fn to_bytes(self) -> [u8; LAP_BYTES] {
        (u128::from(self.mark) << u64::BITS | u128::from(self.transaction)).to_le_bytes()
    }

    pub(super) fn from_bytes(bytes: [u8; LAP_BYTES]) -> Self {
        let (halves, _none) = bytes.as_chunks();
        let [transaction, mark] = [halves[0], halves[1]].map(u64::from_le_bytes);
        Self { transaction, mark }
    }
}

type Digest = [u8; DIGEST_BYTES];

/// Rows on their way into the tables.
pub(super) type Rows = BTreeMap<RowId, Opaque>;

/// The journal, open.
pub(super) struct Journal {
    file: Box<dyn StorageBackend>,
    /// Of the next frame.
    lap: Lap,
    number: u32,
    /// Where it goes: into which half, and how far behind its beginning.
    half: usize,
    at: usize,
    /// Of the frame before it.
    last: Digest,
    /// What this lap's frames hold.
    rows: Rows,
    ahead: Ahead,
}

/// Whether the journal holds rows that the tables do not have.
#[derive(Debug, Clone, Default)]
pub(super) struct Ahead(Arc<AtomicBool>);

impl Ahead {
    pub(super) fn get(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// Why there is no journal to go on with.
#[derive(Debug, Error)]
pub enum JournalFault {
    /// Not where it was.
    #[error("{} is missing. {WAYS_ON}", path.display())]
    Missing {
        /// Where it should be.
        path: PathBuf,
    },
    /// Not as long as it was.
    #[error("it is cut short, to {length} bytes. {WAYS_ON}")]
    Short {
        /// Its length.
        length: u64,
    },
    /// Something in the middle of it.
    #[error("frame {number} is broken, and whole ones follow it. {WAYS_ON}")]
    Damaged {
        /// The broken frame.
        number: u32,
    },
    /// The database has not what its journal goes on from.
    #[error(
        "the database beside it lost its last commit, or is an older copy: put files of one \
         instant there, or restore a backup"
    )]
    Newer,
    /// The disk.
    #[error("it cannot be used")]
    Io(#[from] io::Error),
}

/// What to do without a whole journal.
const WAYS_ON: &str = "The last decisions before the stop are in it: put it back. To give them up, \
                       with what the audit trail says of them, replace it by 2,097,152 zeros \
                       (truncate -s 0 journal; truncate -s 2M journal)";

impl Journal {
    /// Finds what the frames that go on from `lap` hold, for the tables to take.
    pub(super) fn open(file: Box<dyn StorageBackend>, lap: Lap) -> Result<Self, JournalFault> {
        let length = file.len()?;
        let mut bytes = vec![0; JOURNAL_BYTES];
        if length >= JOURNAL_BYTES as u64 {
            file.read(0, &mut bytes)?;
        } else if lap.has_frames() {
            return Err(JournalFault::Short { length });
        } else {
            // Before there is a lap that it must be whole for.
            clear(&*file)?;
        }
        let (rows, lap) = replay(&bytes, lap)?;
        let (last, ahead) = (Digest::default(), Ahead::default());
        Ok(Self { file, lap, half: 0, number: 0, at: 0, last, rows, ahead })
    }

    /// Overwrites what was in it, which must be settled.
    pub(super) fn clear(&self) -> io::Result<()> {
        clear(&*self.file)
    }

    /// Of the last transaction, or of one that is on its way.
    pub(super) fn lap(&self) -> Lap {
        self.lap
    }

    pub(super) fn ahead(&self) -> Ahead {
        self.ahead.clone()
    }

    /// What this lap's frames hold.
    pub(super) fn rows(&self) -> &Rows {
        &self.rows
    }

    /// The tables have all of it, by the transaction of `lap`.
    pub(super) fn settled(&mut self, lap: Lap) {
        self.rows.clear();
        self.ahead.0.store(false, Ordering::Release);
        self.begin(lap);
    }

    /// Goes on in the other half, whose rows the tables have. Gives the rows of this one, and the
    /// lap of the transaction that is to take them and nothing else.
    pub(super) fn turn(&mut self) -> (Rows, Lap) {
        self.half = 1 - self.half;
        self.begin(self.lap.after(self.last));
        (mem::take(&mut self.rows), self.lap)
    }

    fn begin(&mut self, lap: Lap) {
        (self.lap, self.number, self.at) = (lap, 0, 0);
    }

    pub(super) fn has_room(&self, frame: &NewFrame) -> bool {
        frame.0.len() <= HALF_BYTES - self.at
    }

    /// Makes `writes` durable, whose frame this is and for which there is room.
    pub(super) fn append(&mut self, frame: NewFrame, writes: Vec<Write>) -> io::Result<()> {
        let (frame, digest) = frame.sign(self.lap, self.number);
        self.file.write((self.half * HALF_BYTES + self.at) as u64, &frame)?;
        failpoint::reach("commit.written");
        self.file.sync_data()?;
        (self.at, self.number, self.last) = (self.at + frame.len(), self.number + 1, digest);
        self.ahead.0.store(true, Ordering::Release);
        for write in writes {
            if let Write::Put(row, value) = write {
                self.rows.insert(row, value);
            }
        }
        Ok(())
    }
}

/// Fills the journal with zeros: all of it is allocated then, and no frame waits for the file
/// system's own notes.
fn clear(file: &dyn StorageBackend) -> io::Result<()> {
    file.set_len(JOURNAL_BYTES as u64)?;
    file.write(0, &vec![0; JOURNAL_BYTES])?;
    file.sync_data()
}

/// A frame to be: the length of its rows and they are in it, and room for the rest of its head.
pub(super) struct NewFrame(Vec<u8>);

impl NewFrame {
    /// `None` where a write is not of the kind that the journal takes, or they are too many.
    pub(super) fn of(writes: &[Write]) -> Option<Self> {
        let mut frame = vec![0; HEAD_BYTES];
        for write in writes {
            let Write::Put(row @ RowId { table, key }, value) = write else { return None };
            if !is_journalled(row) {
                return None;
            }
            let (key, value) = (key.as_bytes(), value.as_bytes());
            frame.push(*table as u8);
            frame.extend(u16::try_from(key.len()).ok()?.to_le_bytes());
            frame.extend(u32::try_from(value.len()).ok()?.to_le_bytes());
            frame.extend_from_slice(key);
            frame.extend_from_slice(value);
        }
        let length = u32::try_from(frame.len() - HEAD_BYTES).ok()?;
        frame[HEAD_BYTES - LENGTH_BYTES..HEAD_BYTES].copy_from_slice(&length.to_le_bytes());
        (frame.len() <= HALF_BYTES).then_some(Self(frame))
    }

    /// The whole frame, up to the end of its last block, and its digest.
    fn sign(self, lap: Lap, number: u32) -> (Vec<u8>, Digest) {
        let Self(mut frame) = self;
        let head = [&lap.to_bytes()[..], &number.to_le_bytes()].concat();
        frame[DIGEST_BYTES..HEAD_BYTES - LENGTH_BYTES].copy_from_slice(&head);
        let digest = sha256(&frame[DIGEST_BYTES..]);
        frame[..DIGEST_BYTES].copy_from_slice(&digest);
        frame.resize(frame.len().next_multiple_of(BLOCK_BYTES), 0);
        (frame, digest)
    }
}

/// Whether the journal takes a row: blocks of the audit trail and its end. None that a companion
/// reads while it takes part in a commit, and no key.
pub(super) fn is_journalled(row: &RowId) -> bool {
    may_be_journalled(row.table) && (row.table == Table::Audit || *row == head_row())
}

/// Whether rows of `table` may be in the journal.
pub(super) fn may_be_journalled(table: Table) -> bool {
    matches!(table, Table::Audit | Table::Meta)
}

/// What the frames that go on from `lap` hold, the newest of each row, and the lap of the last.
fn replay(bytes: &[u8], lap: Lap) -> Result<(Rows, Lap), JournalFault> {
    let halves = [&bytes[..HALF_BYTES], &bytes[HALF_BYTES..]];
    let (mut rows, mut number, mut ends) = (Rows::new(), 0, [0; 2]);
    let (mut newest, mut next) = (lap, lap);
    // The half of `lap`, and then the one that goes on from it.
    for _ in halves {
        let begins = |half: &&[u8]| Frame::at(half, 0).is_some_and(|first| first.is(next, 0));
        let Some(half) = halves.iter().position(begins) else { break };
        newest = next;
        for in_half in 0.. {
            let frame = Frame::at(halves[half], ends[half]);
            let Some(frame) = frame.filter(|frame| frame.is(newest, in_half)) else { break };
            read_rows(frame.rows, &mut rows).ok_or(JournalFault::Damaged { number })?;
            next = newest.after(frame.digest);
            ends[half] += (HEAD_BYTES + frame.rows.len()).next_multiple_of(BLOCK_BYTES);
            number += 1;
        }
    }
    let laps = |half: usize, from| {
        let places = (from..HALF_BYTES).step_by(BLOCK_BYTES);
        places.filter_map(move |at| Frame::at(halves[half], at)).map(|frame| frame.lap)
    };
    // What was not read is older, or follows a broken frame, or the database is not the newest.
    let home = [0, 1].into_iter().find(|half| laps(*half, 0).any(|of| of == lap));
    let mut is_broken = false;
    for (half, end) in ends.into_iter().enumerate() {
        for left in laps(half, end).filter(|left| left.transaction >= lap.transaction) {
            let goes_on = home == Some(1 - half) && left.transaction == lap.transaction + 1;
            if left != lap && !goes_on {
                return Err(JournalFault::Newer);
            }
            is_broken = true;
        }
    }
    if is_broken { Err(JournalFault::Damaged { number }) } else { Ok((rows, newest)) }
}

/// A whole frame.
struct Frame<'a> {
    digest: Digest,
    lap: Lap,
    number: u32,
    rows: &'a [u8],
}

impl<'a> Frame<'a> {
    fn is(&self, lap: Lap, number: u32) -> bool {
        (self.lap, self.number) == (lap, number)
    }

    /// The one that begins at `at`, if one does.
    fn at(bytes: &'a [u8], at: usize) -> Option<Self> {
        let (digest, signed) = bytes.get(at..)?.split_first_chunk::<DIGEST_BYTES>()?;
        let (lap, rest) = signed.split_first_chunk()?;
        let (number, rest) = rest.split_first_chunk()?;
        let (length, rest) = rest.split_first_chunk()?;
        let rows = rest.get(..u32::from_le_bytes(*length) as usize)?;
        let signed = &signed[..HEAD_BYTES - DIGEST_BYTES + rows.len()];
        let (lap, number) = (Lap::from_bytes(*lap), u32::from_le_bytes(*number));
        (sha256(signed) == *digest).then_some(Self { digest: *digest, lap, number, rows })
    }
}

/// Adds the rows of one frame; `None` where they are not what a journal takes.
fn read_rows(mut bytes: &[u8], rows: &mut Rows) -> Option<()> {
    while let Some((table, rest)) = bytes.split_first() {
        let (key, rest) = rest.split_first_chunk()?;
        let (value, rest) = rest.split_first_chunk()?;
        let (key, rest) = rest.split_at_checked(u16::from_le_bytes(*key).into())?;
        let (value, rest) = rest.split_at_checked(u32::from_le_bytes(*value) as usize)?;
        let row = Table::ALL.get(usize::from(*table))?.row(RowKey::stored(key));
        is_journalled(&row).then_some(())?;
        rows.insert(row, Opaque::stored(value));
        bytes = rest;
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use redb::backends::InMemoryBackend;

    use super::*;

    #[derive(Debug)]
    struct Shared(Arc<InMemoryBackend>);

    impl StorageBackend for Shared {
        fn len(&self) -> io::Result<u64> {
            self.0.len()
        }

        fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
            self.0.read(offset, out)
        }

        fn set_len(&self, len: u64) -> io::Result<()> {
            self.0.set_len(len)
        }

        fn sync_data(&self) -> io::Result<()> {
            self.0.sync_data()
        }

        fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
            self.0.write(offset, data)
        }
    }

    /// Else a crash behind the first transaction would leave a journal that is called short.
    #[test]
    fn a_new_journal_is_whole_before_a_transaction_expects_it_to_be() {
        for length in [0, 4_096] {
            let file = Arc::new(InMemoryBackend::new());
            file.set_len(length).unwrap();
            let journal = |lap| Journal::open(Box::new(Shared(Arc::clone(&file))), lap);
            let lap = journal(Lap::default()).unwrap().lap().next();
            assert!(lap.has_frames());
            assert!(journal(lap).unwrap().rows().is_empty());
            file.set_len(length).unwrap();
            assert!(matches!(journal(lap), Err(JournalFault::Short { .. })), "control");
        }
    }
}
