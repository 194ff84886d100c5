//! The root cell in a file: two slots, overwritten in place.
//!
//! `format` draws what stands in it. The keys are there as they are, or sealed under a passphrase.
//!
//! # Crash argument
//! The file is made whole under `O_EXCL` and synced, with its directory, before a store depends on
//! it. From then on only slots are written, one at a time, and synced before the next step:
//! `prepare` writes the empty slot, `retire_all_but` fills every other one with zeros. So the slot
//! of the ROOT in force is never written while it is in force. A crash in `prepare` leaves the other
//! slot empty, torn or whole; a crash in `retire_all_but` leaves the slot to be destroyed whole,
//! torn or empty. Torn counts as empty: in the first case no store knows that ROOT yet, in the
//! second it was to go. Two bad slots cannot come from a crash: the file is damaged, and refused.
//!
//! # Limits
//! Overwriting in place destroys on disks and file systems that write in place. File systems that
//! copy on write (btrfs, zfs, overlays) and the spare cells of flash keep what was there for a
//! while; who can read those, and had the disk then, has an old ROOT, and under a passphrase needs
//! that as well.

mod format;
#[cfg(test)]
mod tests;

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::passphrase::Passphrase;
use super::{CellError, DeploymentKey, Epoch, RootCell, RootKey, SecretKey};
use format::{BLOCK_BYTES, Cost, FILE_BYTES, HeadFault, Protection, SLOTS, Slot};

/// Read and written by its owner alone.
const FILE_MODE: u32 = 0o600;
/// Permission bits of everyone but the owner.
const OTHERS_MODE: u32 = 0o077;

/// What the cell is kept on.
trait Medium: Send {
    fn write_at(&mut self, bytes: &[u8], offset: usize) -> io::Result<()>;
    fn sync(&mut self) -> io::Result<()>;
}

impl Medium for File {
    fn write_at(&mut self, bytes: &[u8], offset: usize) -> io::Result<()> {
        self.write_all_at(bytes, offset as u64)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }
}

/// ROOT and the deployment key in one file of the local disk.
///
/// ```
/// use assent::crypto::cell::{Epoch, FileCell, RootCell};
/// # let directory = tempfile::tempdir()?;
/// let path = directory.path().join("root.key");
/// let mut cell = FileCell::create(&path)?;
/// cell.prepare(Epoch(2))?;
/// cell.retire_all_but(Epoch(2))?;
/// drop(cell);
/// assert_eq!(FileCell::open(&path)?.roots()[0].0, Epoch(2));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct FileCell {
    path: PathBuf,
    medium: Box<dyn Medium>,
    protection: Protection,
    deployment: DeploymentKey,
    /// Oldest first.
    roots: Vec<(Epoch, RootKey)>,
    /// In which slot each of `roots` lies.
    slots: Vec<usize>,
}

impl FileCell {
    /// Draws a deployment key and the first ROOT and writes them to `path` as they are; durable on
    /// return.
    ///
    /// # Errors
    /// Something is at `path` already (it is left as it is), no randomness, or the disk failed.
    pub fn create(path: &Path) -> Result<Self, CellError> {
        Self::create_under(path, None)
    }

    /// The same, sealed under a passphrase where one is given.
    ///
    /// # Errors
    /// As [`Self::create`], or there is no memory to stretch the passphrase in.
    pub fn create_under(path: &Path, passphrase: Option<&Passphrase>) -> Result<Self, CellError> {
        let protection = Protection::fresh(passphrase.map(Passphrase::bytes), Cost::DEFAULT)?;
        let root = (Epoch(1), RootKey(SecretKey::random()?));
        Self::write_new(path, protection, DeploymentKey::of(SecretKey::random()?), &[root])
    }

    /// Opens the cell at `path`, which is under no passphrase, for this process alone. What a crash
    /// left half done is cleaned up.
    ///
    /// # Errors
    /// Not there, open to others than its owner, in use, damaged, or no root key file.
    pub fn open(path: &Path) -> Result<Self, CellError> {
        Self::open_under(path, None)
    }

    /// The same with a passphrase; with none for a file that is under none.
    ///
    /// # Errors
    /// As [`Self::open`], or the passphrase is wrong, missing, or has nothing to open.
    pub fn open_under(path: &Path, passphrase: Option<&Passphrase>) -> Result<Self, CellError> {
        let io = |source| CellError::Io { path: path.into(), source };
        let file = OpenOptions::new().read(true).write(true).open(path);
        let mut file = file.map_err(|fault| loading(path, fault))?;
        let mode = file.metadata().map_err(io)?.permissions().mode();
        if mode & OTHERS_MODE != 0 {
            return Err(CellError::Exposed { path: path.into(), mode: mode & 0o777 });
        }
        lock(path, &file)?;
        let content = read_whole(&mut file).map_err(io)?;
        Self::over(path, Box::new(file), &content, passphrase.map(Passphrase::bytes))
    }

    /// Puts the same keys under another passphrase, or under none; durable on return. The new file
    /// takes the old one's name when it is whole, and the old one is overwritten with zeros then.
    ///
    /// # Errors
    /// As [`Self::create_under`]; the file at the cell's path is the old one then, or, where the
    /// overwriting failed, the new one.
    pub fn set_passphrase(self, passphrase: Option<&Passphrase>) -> Result<Self, CellError> {
        let Self { path, mut medium, deployment, roots, .. } = self;
        let protection = Protection::fresh(passphrase.map(Passphrase::bytes), Cost::DEFAULT)?;
        let mut beside = path.clone().into_os_string();
        beside.push(".new");
        let beside = PathBuf::from(beside);
        // One that is there was left by a crash: no store depends on it while `path` is there.
        match fs::remove_file(&beside) {
            Err(fault) if fault.kind() != io::ErrorKind::NotFound => {
                return Err(CellError::Io { path: beside, source: fault });
            }
            _ => {}
        }
        let mut renewed = Self::write_new(&beside, protection, deployment, &roots)?;
        fs::rename(&beside, &path)
            .and_then(|()| sync_directory_of(&path))
            .and_then(|()| medium.write_at(&[0; FILE_BYTES], 0))
            .and_then(|()| medium.sync())
            .map_err(|source| CellError::Io { path: path.clone(), source })?;
        renewed.path = path;
        Ok(renewed)
    }

    fn write_new(
        path: &Path,
        protection: Protection,
        deployment: DeploymentKey,
        roots: &[(Epoch, RootKey)],
    ) -> Result<Self, CellError> {
        let content = whole(&protection, &deployment, roots)?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(FILE_MODE)
            .open(path)
            .map_err(|fault| creating(path, fault))?;
        lock(path, &file)?;
        file.write_all_at(&content, 0)
            .and_then(|()| file.sync_all())
            .and_then(|()| sync_directory_of(path))
            .map_err(|source| CellError::Io { path: path.into(), source })?;
        Self::holding(path, Box::new(file), &content, protection, deployment)
    }

    fn over(
        path: &Path,
        medium: Box<dyn Medium>,
        content: &[u8],
        passphrase: Option<&[u8]>,
    ) -> Result<Self, CellError> {
        let head = format::read_head(content, passphrase);
        let (protection, deployment) = head.map_err(|fault| about(path, fault))?;
        Self::holding(path, medium, content, protection, deployment)
    }

    fn holding(
        path: &Path,
        medium: Box<dyn Medium>,
        content: &[u8],
        protection: Protection,
        deployment: DeploymentKey,
    ) -> Result<Self, CellError> {
        let damaged = |what| CellError::Damaged { path: path.into(), what };
        let mut found = Vec::new();
        let mut torn = Vec::new();
        for slot in 0..SLOTS {
            match protection.read_slot(content, slot) {
                Slot::Root(epoch, root) => found.push((epoch, root, slot)),
                Slot::Empty => {}
                Slot::Torn => torn.push(slot),
                Slot::Foreign => return Err(damaged("a slot is of another file")),
            }
        }
        if found.is_empty() {
            return Err(damaged("neither slot holds a ROOT"));
        }
        found.sort_by_key(|(epoch, _, _)| *epoch);
        if found.windows(2).any(|pair| pair[0].0 == pair[1].0) {
            return Err(damaged("both slots are of one epoch"));
        }
        let slots = found.iter().map(|(_, _, slot)| *slot).collect();
        let roots = found.into_iter().map(|(epoch, root, _)| (epoch, root)).collect();
        let mut cell = Self { path: path.into(), medium, protection, deployment, roots, slots };
        for slot in torn {
            cell.clear_slot(slot)?;
        }
        Ok(cell)
    }

    fn clear_slot(&mut self, slot: usize) -> Result<(), CellError> {
        self.write_slot(slot, &vec![0; self.protection.slot_bytes()])
    }

    fn write_slot(&mut self, slot: usize, bytes: &[u8]) -> Result<(), CellError> {
        let offset = BLOCK_BYTES * (1 + slot);
        self.medium
            .write_at(bytes, offset)
            .and_then(|()| self.medium.sync())
            .map_err(|source| CellError::Io { path: self.path.clone(), source })
    }
}

impl RootCell for FileCell {
    fn kind(&self) -> &'static str {
        match self.protection {
            Protection::Open => "file",
            Protection::Passphrase { .. } => "file under a passphrase",
        }
    }

    fn deployment(&self) -> &DeploymentKey {
        &self.deployment
    }

    fn roots(&self) -> &[(Epoch, RootKey)] {
        &self.roots
    }

    fn prepare(&mut self, epoch: Epoch) -> Result<(), CellError> {
        let free = (0..SLOTS).find(|slot| !self.slots.contains(slot));
        let free = free.filter(|_| self.roots.iter().all(|(held, _)| *held < epoch));
        let slot = free.ok_or(CellError::NotNext { epoch })?;
        let root = RootKey(SecretKey::random()?);
        let written = self.protection.slot(epoch, &root)?;
        self.write_slot(slot, &written)?;
        self.roots.push((epoch, root));
        self.slots.push(slot);
        Ok(())
    }

    fn retire_all_but(&mut self, epoch: Epoch) -> Result<(), CellError> {
        let kept = self.roots.iter().position(|(held, _)| *held == epoch);
        let kept = kept.ok_or(CellError::NoSuchEpoch { epoch })?;
        for at in (0..self.roots.len()).rev().filter(|at| *at != kept) {
            self.clear_slot(self.slots[at])?;
            self.roots.remove(at);
            self.slots.remove(at);
        }
        Ok(())
    }

    fn destroy(&mut self) -> Result<(), CellError> {
        self.medium
            .write_at(&[0; FILE_BYTES], 0)
            .and_then(|()| self.medium.sync())
            .map_err(|source| CellError::Io { path: self.path.clone(), source })?;
        // The zeros stay under their name until whoever destroys has noted that they are there.
        self.roots.clear();
        self.slots.clear();
        Ok(())
    }
}

impl FileCell {
    /// Whether the file is there and begins with zeros, where the deployment key was.
    pub(super) fn is_half_destroyed(path: &Path) -> bool {
        let content = fs::read(path).unwrap_or_default();
        content.get(..BLOCK_BYTES).is_some_and(|head| head.iter().all(|byte| *byte == 0))
    }

    /// Overwrites what is left of a file that begins with zeros.
    pub(super) fn destroy_rest(path: &Path) -> Result<(), CellError> {
        if !Self::is_half_destroyed(path) {
            return Err(CellError::NotDestroyed { path: path.to_owned() });
        }
        let zeros = || {
            let file = OpenOptions::new().write(true).open(path)?;
            file.write_all_at(&[0; FILE_BYTES], 0)?;
            file.sync_all()
        };
        zeros().map_err(|source| CellError::Io { path: path.to_owned(), source })
    }

    pub(super) fn remove_name(path: &Path) {
        let _name_may_stay = fs::remove_file(path).and_then(|()| sync_directory_of(path));
    }
}

/// The bytes of a file with these keys.
fn whole(
    protection: &Protection,
    deployment: &DeploymentKey,
    roots: &[(Epoch, RootKey)],
) -> Result<Zeroizing<Vec<u8>>, CellError> {
    let mut content = Zeroizing::new(vec![0; FILE_BYTES]);
    let head = protection.head(deployment.secret())?;
    content[..head.len()].copy_from_slice(&head);
    for ((epoch, root), slot) in roots.iter().zip(content.chunks_mut(BLOCK_BYTES).skip(1)) {
        let written = protection.slot(*epoch, root)?;
        slot[..written.len()].copy_from_slice(&written);
    }
    Ok(content)
}

fn about(path: &Path, fault: HeadFault) -> CellError {
    let path = PathBuf::from(path);
    match fault {
        HeadFault::OldFormat => CellError::OldFormat { path },
        HeadFault::NotARootKey => CellError::NotARootKey { path },
        HeadFault::Damaged(what) => CellError::Damaged { path, what },
        HeadFault::PassphraseMissing => CellError::PassphraseMissing { path },
        HeadFault::PassphraseUnused => CellError::PassphraseUnused { path },
        HeadFault::PassphraseWrong => CellError::PassphraseWrong { path },
        HeadFault::Cell(fault) => fault,
    }
}

/// Reads one byte more than a key file has, so that a longer one shows, into memory that does not
/// move while it fills.
fn read_whole(file: &mut File) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(2 * FILE_BYTES));
    file.take(FILE_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn lock(path: &Path, file: &File) -> Result<(), CellError> {
    match file.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(CellError::InUse { path: path.into() }),
        Err(TryLockError::Error(source)) => Err(CellError::Io { path: path.into(), source }),
    }
}

fn sync_directory_of(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}

fn creating(path: &Path, source: io::Error) -> CellError {
    let path = path.into();
    if source.kind() == io::ErrorKind::AlreadyExists {
        CellError::Exists { path, source }
    } else {
        CellError::Io { path, source }
    }
}

fn loading(path: &Path, source: io::Error) -> CellError {
    let path = path.into();
    if source.kind() == io::ErrorKind::NotFound {
        CellError::Missing { path, source }
    } else {
        CellError::Io { path, source }
    }
}
