//! Opening the directory: made private, locked, with its tables in place.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use redb::backends::FileBackend;
use redb::{Builder, Database, DatabaseError};
use thiserror::Error;

use super::{Embedded, tables};

const FILE_NAME: &str = "assent.redb";
/// The directory and the file are their owner's alone.
const DIRECTORY_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;
/// How much of the file redb may keep in memory, bytes. Ciphertext only.
const CACHE_BYTES: usize = 64 << 20;

impl Embedded {
    /// Opens the store in `directory`, which is made when it is not there.
    ///
    /// # Errors
    /// Another process uses the directory, the disk failed, or the file is damaged or of another
    /// version.
    pub fn open(directory: &Path) -> Result<Self, EmbeddedError> {
        let file = private_file(directory)
            .map_err(|source| EmbeddedError::Directory { path: directory.into(), source })?;
        let database = FileBackend::new(file)
            .and_then(|file| Builder::new().set_cache_size(CACHE_BYTES).create_with_backend(file))
            .map_err(|fault| EmbeddedError::opening(directory, fault))?;
        Self::over(database)
    }

    /// The same over any database, such as one on a simulated disk.
    pub(super) fn over(database: Database) -> Result<Self, EmbeddedError> {
        tables::create(&database).map_err(|fault| EmbeddedError::Tables(Box::new(fault)))?;
        Self::start(database)
    }
}

/// The database's file, its name durable in the directory.
fn private_file(directory: &Path) -> io::Result<File> {
    DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(directory)?;
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(FILE_MODE)
        .open(directory.join(FILE_NAME))?;
    sync_directory(directory)?;
    fs::canonicalize(directory)?.parent().map_or(Ok(()), sync_directory)?;
    Ok(file)
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
    /// The first commit.
    #[error("the database takes no changes")]
    Tables(#[source] Box<redb::Error>),
    /// No thread.
    #[error("the writer thread does not start")]
    Thread(#[source] io::Error),
}

impl EmbeddedError {
    fn opening(directory: &Path, fault: DatabaseError) -> Self {
        let path = directory.into();
        if matches!(fault, DatabaseError::DatabaseAlreadyOpen) {
            Self::InUse { path }
        } else {
            Self::Database { path, source: Box::new(fault.into()) }
        }
    }
}
