//! Folders of faces: a folder a person, a file a photo. For benches, which include it by path.

use std::io;
use std::path::{Path, PathBuf};

/// The photos of each person below `folder`; people and photos by name.
///
/// # Errors
/// A folder cannot be read.
pub(crate) fn people(folder: &Path) -> io::Result<Vec<Vec<PathBuf>>> {
    let people = sorted(folder)?.into_iter().filter(|path| path.is_dir());
    people.map(|person| sorted(&person)).collect()
}

fn sorted(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder)?.map(|entry| Ok(entry?.path()));
    let mut paths = entries.collect::<io::Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}
