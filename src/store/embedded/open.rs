//! Opening the directory: made private, locked, with its tables in place.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use redb::backends::FileBackend;
use redb::{Builder, Database, DatabaseError, StorageBackend};
use thiserror::Error;

use super::blocks::BlocksAhead;
use super::journal::JournalFault;
use super::panics::{Panicked, catch};
use super::reserve::{Reserve, Reserving};
use super::{Embedded, tables};

const FILE_NAME: &str = "assent.redb";
const JOURNAL_NAME: &str = "journal";
/// The directory and the file are their owner's alone.
const DIRECTORY_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;
/// Longest file that redb makes before anything is in it, bytes, with room to spare.
const UNBORN_MOST_BYTES: u64 = 8 << 20;
/// What redb files begin with, and all that comes before their first page.
const REDB_NAME_BYTES: usize = 9;
const REDB_HEAD_BYTES: usize = 4_096;
/// The reserve for a full disk, where nothing else is said, bytes.
const RESERVE_BYTES: u64 = 32 << 20;
/// How much of the file redb may keep in memory, bytes. Ciphertext only.
const CACHE_BYTES: usize = 4 << 20;

impl Embedded {
    /// Whether there is a store in `directory`.
    #[must_use]
    pub fn is_in(directory: &Path) -> bool {
        directory.join(FILE_NAME).exists()
    }

    /// Opens the store in `directory`, which is made when it is not there, with a reserve of
    /// 32 MiB.
    ///
    /// # Errors
    /// Another process uses the directory, the disk failed, or the file is damaged or of another
    /// version.
    pub fn open(directory: &Path) -> Result<Self, EmbeddedError> {
        Self::open_reserving(directory, RESERVE_BYTES)
    }

    /// The same with a reserve of `bytes`; with 0 a full disk stops the store.
    ///
    /// # Errors
    /// As [`Embedded::open`].
    pub fn open_reserving(directory: &Path, bytes: u64) -> Result<Self, EmbeddedError> {
        let io = |source| EmbeddedError::Directory { path: directory.into(), source };
        let file = database_file(directory).map_err(io)?;
        forget_unborn(&file).map_err(io)?;
        let opening = |fault| EmbeddedError::opening(directory, fault);
        let file = FileBackend::new(file).map_err(opening)?;
        let reserve = Reserve::open(directory, bytes).map_err(|source| {
            if source.kind() == io::ErrorKind::WouldBlock {
                EmbeddedError::InUse { path: directory.into() }
            } else {
                io(source)
            }
        })?;
        let blocks = BlocksAhead::open(&directory.join(FILE_NAME)).map_err(io)?;
        let disk = Reserving::new(file, reserve.clone()).with_blocks_ahead(blocks);
        let mut builder = Builder::new();
        builder.set_cache_size(CACHE_BYTES);
        let database = catch(|| builder.create_with_backend(disk))?.map_err(opening)?;
        let journal = |must_be_there| journal(directory, must_be_there, reserve.clone());
        Self::over(database, journal, reserve.clone())
    }

    /// The same over any database and journal, such as those on a simulated disk.
    pub(super) fn over(
        database: Database,
        journal: impl FnOnce(bool) -> Result<Box<dyn StorageBackend>, JournalFault>,
        reserve: Reserve,
    ) -> Result<Self, EmbeddedError> {
        match catch(|| tables::create(&database, journal)) {
            Ok(journal) => Self::start(database, journal?, reserve),
            Err(panicked) => {
                // Closing what panicked may panic once more.
                let _closed = catch(|| drop(database));
                Err(panicked.into())
            }
        }
    }
}

/// The journal's file, its name durable in the directory; made where it need not be there.
fn journal(
    directory: &Path,
    must_be_there: bool,
    reserve: Reserve,
) -> Result<Box<dyn StorageBackend>, JournalFault> {
    let path = directory.join(JOURNAL_NAME);
    if must_be_there && !path.exists() {
        return Err(JournalFault::Missing { path });
    }
    let file = private_file(&path)?;
    sync_directory(directory)?;
    let file = FileBackend::new(file).map_err(io::Error::other)?;
    Ok(Box::new(Reserving::new(file, reserve)))
}

/// The database's file, its name durable in the directory.
fn database_file(directory: &Path) -> io::Result<File> {
    DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(directory)?;
    let file = private_file(&directory.join(FILE_NAME))?;
    sync_directory(directory)?;
    fs::canonicalize(directory)?.parent().map_or(Ok(()), sync_directory)?;
    Ok(file)
}

fn private_file(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(FILE_MODE).open(path)
}

/// Empties a file that redb had begun to make when a crash came: with nothing in it and without
/// the name that redb gives a file last, redb would refuse it for good. One that another process
/// is making is locked, and left alone.
fn forget_unborn(file: &File) -> io::Result<()> {
    let length = file.metadata()?.len();
    if length == 0 || length > UNBORN_MOST_BYTES || file.try_lock().is_err() {
        return Ok(());
    }
    let mut content = vec![0; usize::try_from(length).unwrap_or(0)];
    file.read_exact_at(&mut content, 0)?;
    let is_zero = |part: Option<&[u8]>| part.is_none_or(|part| part.iter().all(|byte| *byte == 0));
    let unnamed = is_zero(content.get(..REDB_NAME_BYTES));
    if unnamed && is_zero(content.get(REDB_HEAD_BYTES..)) {
        file.set_len(0)?;
    }
    file.unlock()
}

fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Why an embedded store did not open.
#[derive(Debug, Error)]
pub enum EmbeddedError {
    /// The directory or the file in it.
    #[error("the data directory {} cannot be used", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Locked.
    #[error("another assent process uses this data directory: {}", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// redb refuses the file.
    #[error("the database in {} does not open", path.display())]
    Database {
        /// The directory.
        path: PathBuf,
        /// redb's reason.
        source: Box<redb::Error>,
    },
    /// redb panicked over the file.
    #[error("the database is damaged")]
    Damaged(#[from] Panicked),
    /// The first commit.
    #[error("the database takes no changes")]
    Tables(#[source] Box<redb::Error>),
    /// What was decided before the last stop.
    #[error("the journal beside the database does not open")]
    Journal(#[from] JournalFault),
    /// No thread.
    #[error("the writer thread does not start")]
    Thread(#[source] io::Error),
}

impl From<redb::Error> for EmbeddedError {
    fn from(fault: redb::Error) -> Self {
        Self::Tables(Box::new(fault))
    }
}

impl EmbeddedError {
    pub(super) fn opening(directory: &Path, fault: DatabaseError) -> Self {
        let path = directory.into();
        if matches!(fault, DatabaseError::DatabaseAlreadyOpen) {
            Self::InUse { path }
        } else {
            Self::Database { path, source: Box::new(fault.into()) }
        }
    }
}
