//! Bringing a backup back, without a service running.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;

use crate::config::Settings;
use crate::crypto::cell::CellError;
use crate::store::{
    Backend, BackupReader, Embedded, EmbeddedError, KeyMirror, MirrorFault, RestoreError, Restored,
    restore,
};

/// Ends the name of a data directory in the making.
const UNFINISHED: &str = "restoring";

/// Why nothing was restored.
#[derive(Debug, Error)]
pub enum RestoreFailure {
    /// There is a store already.
    #[error(
        "{} is not empty; move it away first, a backup is restored into a new data directory",
        path.display()
    )]
    Occupied {
        /// The data directory.
        path: PathBuf,
    },
    /// The directories.
    #[error("{} cannot be used", path.display())]
    Directory {
        /// Which.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The mirror to restore with.
    #[error("the key mirror {} cannot be used", path.display())]
    Mirror {
        /// Its directory.
        path: PathBuf,
        /// Why.
        source: MirrorFault,
    },
    /// The root key's cell.
    #[error(transparent)]
    Cell(#[from] CellError),
    /// The new store's files.
    #[error(transparent)]
    Backend(#[from] EmbeddedError),
    /// The backup.
    #[error(transparent)]
    Backup(#[from] RestoreError),
}

/// Restores `backup`, its envelope opened, into the data directory of `settings`, which must be
/// empty or absent. The directory takes its name when all is in it.
///
/// # Errors
/// See [`RestoreFailure`]; the data directory is as it was.
pub async fn restore_backup(
    settings: &Settings,
    backup: impl Read,
    mirror: Option<&Path>,
    progress: impl FnMut(u64),
) -> Result<Restored, RestoreFailure> {
    let data_dir = &settings.data_dir;
    let unfinished = data_dir.with_extension(UNFINISHED);
    let directory = |source| RestoreFailure::Directory { path: data_dir.clone(), source };
    if is_occupied(data_dir).map_err(directory)? {
        return Err(RestoreFailure::Occupied { path: data_dir.clone() });
    }
    let backup = BackupReader::begin(backup)?;
    let cell = settings.cell.open()?;
    let mirror = mirror.filter(|path| path.exists()).map(|path| {
        KeyMirror::open(path)
            .map_err(|source| RestoreFailure::Mirror { path: path.to_owned(), source })
    });
    let mirror = mirror.transpose()?;
    remove(&unfinished).map_err(directory)?;
    let backend = Arc::new(Embedded::open(&unfinished)?);
    let onto = Arc::clone(&backend) as Arc<dyn Backend>;
    let outcome = restore(backup, onto, &*cell, mirror.as_ref(), progress).await;
    backend.close().await;
    match outcome {
        Ok(restored) => {
            remove(data_dir).and_then(|()| take_place(&unfinished, data_dir)).map_err(directory)?;
            Ok(restored)
        }
        Err(fault) => {
            remove(&unfinished).map_err(directory)?;
            Err(fault.into())
        }
    }
}

fn is_occupied(path: &Path) -> io::Result<bool> {
    match fs::read_dir(path) {
        Err(fault) if fault.kind() == io::ErrorKind::NotFound => Ok(false),
        entries => Ok(entries?.next().is_some()),
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(fault) if fault.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

fn take_place(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    let parent = to.parent().filter(|parent| !parent.as_os_str().is_empty());
    fs::File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}
