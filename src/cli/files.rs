//! Files that commands read and make. Every failure names its file; nothing is overwritten.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use super::exit::{Exit, Failure};

/// For nobody but the owner.
const SECRET_MODE: u32 = 0o600;

/// A file's bytes.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    fs::read(path).map_err(about(path))
}

/// A file to read from.
pub(super) fn open(path: &Path) -> Result<File, Failure> {
    File::open(path).map_err(about(path))
}

/// A new file, to write and to read.
pub(super) fn new_file(path: &Path) -> Result<File, Failure> {
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(path);
    file.map_err(about(path))
}

/// A new file that is its owner's alone.
pub(super) fn new_secret_file(path: &Path) -> Result<File, Failure> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(SECRET_MODE).open(path).map_err(about(path))
}

/// A new file with `content`.
pub(super) fn write_new(path: &Path, content: impl AsRef<[u8]>) -> Result<(), Failure> {
    new_file(path)?.write_all(content.as_ref()).map_err(about(path))
}

/// Sees to it that there is a folder and nothing in it.
pub(super) fn empty_folder(path: &Path) -> Result<(), Failure> {
    fs::create_dir_all(path).map_err(about(path))?;
    if fs::read_dir(path).map_err(about(path))?.next().is_some() {
        let failure = Failure::new(Exit::Usage, words!("is not empty")).about(path);
        return Err(failure.advise(&words!("name a new folder: nothing is overwritten")));
    }
    Ok(())
}

/// What the system says against a file.
pub(super) fn about(path: &Path) -> impl Fn(std::io::Error) -> Failure {
    move |fault| Failure::usage(fault).about(path)
}
