//! What is wiped, and how: overwritten with zeros, then removed.

use std::fs::{self, OpenOptions};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use super::pledge::PLEDGE;
use super::{DecommissionFailure, about};
use crate::config::Settings;

/// Everything that belongs to the deployment, the root key apart, where it really is.
pub(super) fn places(settings: &Settings) -> Result<Vec<PathBuf>, DecommissionFailure> {
    let snapshot = settings.snapshots.as_ref().map(|snapshots| &snapshots.settings.path);
    let places = [Some(&settings.data_dir), Some(&settings.key_mirror), snapshot];
    let there = places.into_iter().flatten().filter(|path| path.exists());
    there.map(|path| fs::canonicalize(path).map_err(about(path))).collect()
}

/// No paper is among what is wiped.
pub(super) fn check_outside(paper: &Path, roots: &[PathBuf]) -> Result<(), DecommissionFailure> {
    let Some(root) = roots.iter().find(|root| lies_in(paper, root)) else { return Ok(()) };
    Err(DecommissionFailure::Inside { path: paper.to_owned(), root: root.clone() })
}

/// Whether a file that is to be made would be one of what is wiped.
fn lies_in(file: &Path, root: &Path) -> bool {
    let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = fs::canonicalize(parent.unwrap_or(Path::new(".")));
    parent.is_ok_and(|parent| parent.starts_with(root))
}

pub(super) fn list(path: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    if !fs::symlink_metadata(path)?.is_dir() {
        if !files.iter().any(|file| file == path) {
            files.push(path.to_owned());
        }
        return Ok(());
    }
    let entries = fs::read_dir(path)?.map(|entry| Ok(entry?.path()));
    let mut entries = entries.collect::<io::Result<Vec<_>>>()?;
    entries.sort();
    entries.iter().try_for_each(|entry| list(entry, files))
}

/// Wipes all that belongs to the deployment but the certificate that was signed beforehand; what
/// could not be wiped.
pub(super) fn wipe_all(settings: &Settings, roots: &[PathBuf]) -> Vec<String> {
    let mut left = Vec::new();
    for root in roots {
        if let Err(fault) = wipe(root) {
            left.push(format!("{}: {fault}", root.display()));
        }
        let mut files = Vec::new();
        let _unreadable = list(root, &mut files);
        let files = files.iter().filter(|file| !file.ends_with(PLEDGE));
        left.extend(files.map(|file| file.display().to_string()));
    }
    if settings.cell.open().is_ok() {
        left.push(settings.cell.to_string());
    }
    left
}

/// Overwrites and removes a file, or what is in a directory. The directory itself stays: it may be
/// where another file system is mounted.
fn wipe(root: &Path) -> io::Result<()> {
    if !root.is_dir() {
        return wipe_whole(root);
    }
    // What can be wiped is, whatever else cannot.
    let mut outcome = Ok(());
    for entry in fs::read_dir(root)? {
        let path = entry?.path();
        if !path.ends_with(PLEDGE) {
            outcome = outcome.and(wipe_whole(&path));
        }
    }
    outcome
}

/// Overwrites and removes a file, or a directory with all in it. What a link in it points to stays.
pub(super) fn wipe_whole(path: &Path) -> io::Result<()> {
    let data = match fs::symlink_metadata(path) {
        // Another place lay in this one.
        Err(fault) if fault.kind() == io::ErrorKind::NotFound => return Ok(()),
        data => data?,
    };
    if data.is_dir() {
        for entry in fs::read_dir(path)? {
            wipe_whole(&entry?.path())?;
        }
        return fs::remove_dir(path);
    }
    if data.is_file() {
        let mut file = OpenOptions::new().write(true).open(path)?;
        io::copy(&mut io::repeat(0).take(data.len()), &mut file)?;
        file.sync_all()?;
    }
    fs::remove_file(path)
}
