//! The root cell in a file: two slots, overwritten in place.
//!
//! ```text
//! root key file, 12,288 bytes, mode 0600
//! offset      0: "ASSENTK2" | deployment key (32) | checksum (8) | zeros      never rewritten
//! offset  4,096: slot: epoch u64 BE | ROOT (32) | checksum (8)   | zeros      or all zeros
//! offset  8,192: slot: the same
//! ```
//! A checksum is the first 8 bytes of SHA-256 over what stands before it. It tells a torn or
//! damaged part from a good one, and is no secret beside the key. Each part lies in one disk sector.
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
//! while; who can read those, and had the disk then, has an old ROOT.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::{CellError, DeploymentKey, Epoch, RootCell, RootKey, SecretKey};
use crate::crypto::digest::sha256;
use crate::crypto::secret::KEY_BYTES;

const MAGIC: &[u8; MAGIC_BYTES] = b"ASSENTK2";
const OLD_MAGIC: &[u8] = b"ASSENTK1";
const MAGIC_BYTES: usize = 8;
const EPOCH_BYTES: usize = 8;
const CHECKSUM_BYTES: usize = 8;
/// Bytes of a slot that are used.
const SLOT_BYTES: usize = EPOCH_BYTES + KEY_BYTES + CHECKSUM_BYTES;
const HEAD_BYTES: usize = MAGIC_BYTES + KEY_BYTES + CHECKSUM_BYTES;
/// Where parts begin: far enough apart that no write of one touches another's sector.
const BLOCK_BYTES: usize = 4_096;
const SLOTS: usize = 2;
const FILE_BYTES: usize = BLOCK_BYTES * (1 + SLOTS);
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
    deployment: DeploymentKey,
    /// Oldest first.
    roots: Vec<(Epoch, RootKey)>,
    /// In which slot each of `roots` lies.
    slots: Vec<usize>,
}

impl FileCell {
    /// Draws a deployment key and the first ROOT and writes them to `path`; durable on return.
    ///
    /// # Errors
    /// Something is at `path` already (it is left as it is), no randomness, or the disk failed.
    pub fn create(path: &Path) -> Result<Self, CellError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(FILE_MODE)
            .open(path)
            .map_err(|fault| creating(path, fault))?;
        lock(path, &file)?;
        let content = fresh_content()?;
        file.write_all_at(&content, 0)
            .and_then(|()| file.sync_all())
            .and_then(|()| sync_directory_of(path))
            .map_err(|source| CellError::Io { path: path.into(), source })?;
        Self::over(path, Box::new(file), &content)
    }

    /// Opens the cell at `path` for this process alone. What a crash left half done is cleaned up.
    ///
    /// # Errors
    /// Not there, open to others than its owner, in use, damaged, or no root key file.
    pub fn open(path: &Path) -> Result<Self, CellError> {
        let io = |source| CellError::Io { path: path.into(), source };
        let file = OpenOptions::new().read(true).write(true).open(path);
        let mut file = file.map_err(|fault| loading(path, fault))?;
        let mode = file.metadata().map_err(io)?.permissions().mode();
        if mode & OTHERS_MODE != 0 {
            return Err(CellError::Exposed { path: path.into(), mode: mode & 0o777 });
        }
        lock(path, &file)?;
        let content = read_whole(&mut file).map_err(io)?;
        Self::over(path, Box::new(file), &content)
    }

    fn over(path: &Path, medium: Box<dyn Medium>, content: &[u8]) -> Result<Self, CellError> {
        let deployment = decode_head(path, content)?;
        let mut found = Vec::new();
        let mut torn = Vec::new();
        for slot in 0..SLOTS {
            match decode_slot(part(content, 1 + slot)) {
                Slot::Root(epoch, root) => found.push((epoch, root, slot)),
                Slot::Empty => {}
                Slot::Torn => torn.push(slot),
            }
        }
        let damaged = |what| CellError::Damaged { path: path.into(), what };
        if found.is_empty() {
            return Err(damaged("neither slot holds a ROOT"));
        }
        found.sort_by_key(|(epoch, _, _)| *epoch);
        if found.windows(2).any(|pair| pair[0].0 == pair[1].0) {
            return Err(damaged("both slots are of one epoch"));
        }
        let slots = found.iter().map(|(_, _, slot)| *slot).collect();
        let roots = found.into_iter().map(|(epoch, root, _)| (epoch, root)).collect();
        let mut cell = Self { path: path.into(), medium, deployment, roots, slots };
        for slot in torn {
            cell.write_slot(slot, &[0; SLOT_BYTES])?;
        }
        Ok(cell)
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
        "file"
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
        self.write_slot(slot, &encode_slot(epoch, &root)[..])?;
        self.roots.push((epoch, root));
        self.slots.push(slot);
        Ok(())
    }

    fn retire_all_but(&mut self, epoch: Epoch) -> Result<(), CellError> {
        let kept = self.roots.iter().position(|(held, _)| *held == epoch);
        let kept = kept.ok_or(CellError::NoSuchEpoch { epoch })?;
        for at in (0..self.roots.len()).rev().filter(|at| *at != kept) {
            self.write_slot(self.slots[at], &[0; SLOT_BYTES])?;
            self.roots.remove(at);
            self.slots.remove(at);
        }
        Ok(())
    }
}

enum Slot {
    Root(Epoch, RootKey),
    Empty,
    Torn,
}

fn fresh_content() -> Result<Zeroizing<Vec<u8>>, CellError> {
    let mut content = Zeroizing::new(vec![0; FILE_BYTES]);
    let deployment = SecretKey::random()?;
    content[..MAGIC_BYTES].copy_from_slice(MAGIC);
    content[MAGIC_BYTES..MAGIC_BYTES + KEY_BYTES].copy_from_slice(deployment.bytes());
    seal_with_checksum(&mut content[..HEAD_BYTES]);
    let slot = encode_slot(Epoch(1), &RootKey(SecretKey::random()?));
    content[BLOCK_BYTES..BLOCK_BYTES + SLOT_BYTES].copy_from_slice(&slot[..]);
    Ok(content)
}

fn encode_slot(epoch: Epoch, root: &RootKey) -> Zeroizing<[u8; SLOT_BYTES]> {
    let mut slot = Zeroizing::new([0; SLOT_BYTES]);
    slot[..EPOCH_BYTES].copy_from_slice(&epoch.0.to_be_bytes());
    slot[EPOCH_BYTES..EPOCH_BYTES + KEY_BYTES].copy_from_slice(root.0.bytes());
    seal_with_checksum(&mut slot[..]);
    slot
}

fn seal_with_checksum(part: &mut [u8]) {
    let (body, checksum) = part.split_at_mut(part.len() - CHECKSUM_BYTES);
    checksum.copy_from_slice(&sha256(body)[..CHECKSUM_BYTES]);
}

/// The body of a part whose checksum holds.
fn checked(part: &[u8]) -> Option<&[u8]> {
    let (body, checksum) = part.split_last_chunk::<CHECKSUM_BYTES>()?;
    sha256(body).starts_with(checksum).then_some(body)
}

fn part(content: &[u8], number: usize) -> &[u8] {
    &content[BLOCK_BYTES * number..BLOCK_BYTES * number + SLOT_BYTES]
}

fn decode_head(path: &Path, content: &[u8]) -> Result<DeploymentKey, CellError> {
    let path = || PathBuf::from(path);
    if content.starts_with(OLD_MAGIC) {
        return Err(CellError::OldFormat { path: path() });
    }
    if !content.starts_with(MAGIC) && !content.is_empty() {
        return Err(CellError::NotARootKey { path: path() });
    }
    let damaged = |what| CellError::Damaged { path: path(), what };
    if content.len() != FILE_BYTES {
        return Err(damaged("its length is wrong"));
    }
    let body = checked(&content[..HEAD_BYTES]);
    body.and_then(|body| SecretKey::copy_from(&body[MAGIC_BYTES..]))
        .map(DeploymentKey::of)
        .ok_or_else(|| damaged("its head fails its checksum"))
}

fn decode_slot(part: &[u8]) -> Slot {
    if part.iter().all(|byte| *byte == 0) {
        return Slot::Empty;
    }
    let decoded = checked(part).and_then(|body| {
        let (epoch, key) = body.split_first_chunk()?;
        Some((Epoch(u64::from_be_bytes(*epoch)), RootKey(SecretKey::copy_from(key)?)))
    });
    decoded.map_or(Slot::Torn, |(epoch, root)| Slot::Root(epoch, root))
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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::{Arc, Mutex};

    use super::*;

    /// What a disk writes whole.
    const SECTOR_BYTES: usize = 512;

    fn key_file() -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("root.key");
        drop(FileCell::create(&path).unwrap());
        (directory, path)
    }

    fn epochs(cell: &FileCell) -> Vec<u64> {
        cell.roots().iter().map(|(epoch, _)| epoch.0).collect()
    }

    fn root_bytes(cell: &FileCell, at: usize) -> [u8; KEY_BYTES] {
        *cell.roots()[at].1.0.bytes()
    }

    #[test]
    fn a_cell_is_the_same_after_a_restart() {
        let (_directory, path) = key_file();
        let cell = FileCell::open(&path).unwrap();
        let (check, root) = (cell.deployment().check(), root_bytes(&cell, 0));
        drop(cell);
        let cell = FileCell::open(&path).unwrap();
        assert_eq!((cell.deployment().check(), root_bytes(&cell, 0)), (check, root));
        assert_eq!(epochs(&cell), [1]);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, FILE_MODE);
    }

    #[test]
    fn a_replaced_root_is_nowhere_in_the_file() {
        let (_directory, path) = key_file();
        let mut cell = FileCell::open(&path).unwrap();
        for epoch in 2..20 {
            let old = root_bytes(&cell, 0);
            let holds = |old: &[u8]| {
                fs::read(&path).unwrap().windows(KEY_BYTES).any(|window| window == old)
            };
            cell.prepare(Epoch(epoch)).unwrap();
            assert_eq!(epochs(&cell), [epoch - 1, epoch]);
            assert!(holds(&old), "control");
            cell.retire_all_but(Epoch(epoch)).unwrap();
            assert!(!holds(&old) && holds(&root_bytes(&cell, 0)));
            cell.retire_all_but(Epoch(epoch)).unwrap();
        }
    }

    #[test]
    fn steps_out_of_order_are_refused_and_change_nothing() {
        let (_directory, path) = key_file();
        let mut cell = FileCell::open(&path).unwrap();
        assert!(matches!(cell.prepare(Epoch(1)), Err(CellError::NotNext { .. })));
        assert!(matches!(cell.retire_all_but(Epoch(2)), Err(CellError::NoSuchEpoch { .. })));
        cell.prepare(Epoch(2)).unwrap();
        assert!(matches!(cell.prepare(Epoch(3)), Err(CellError::NotNext { .. })));
        assert_eq!(epochs(&cell), [1, 2]);
        assert!(matches!(FileCell::open(&path), Err(CellError::InUse { .. })));
    }

    #[test]
    fn an_existing_file_is_never_overwritten() {
        let (_directory, path) = key_file();
        let before = fs::read(&path).unwrap();
        assert!(matches!(FileCell::create(&path), Err(CellError::Exists { .. })));
        assert_eq!(fs::read(&path).unwrap(), before);
    }

    #[test]
    fn a_key_open_to_others_is_refused_with_the_remedy() {
        let (_directory, path) = key_file();
        for mode in [0o640, 0o604, 0o620, 0o601] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let refusal = FileCell::open(&path).err().unwrap().to_string();
            assert!(refusal.contains(&format!("chmod 600 {}", path.display())), "{refusal}");
        }
    }

    #[test]
    fn every_flipped_byte_and_every_other_length_is_refused() {
        let (_directory, path) = key_file();
        let good = fs::read(&path).unwrap();
        for at in (0..HEAD_BYTES).chain(BLOCK_BYTES..BLOCK_BYTES + SLOT_BYTES) {
            let mut bad = good.clone();
            bad[at] ^= 1;
            fs::write(&path, &bad).unwrap();
            assert!(FileCell::open(&path).is_err(), "byte {at}");
        }
        for length in [0, 7, 8, HEAD_BYTES, FILE_BYTES - 1] {
            fs::write(&path, &good[..length]).unwrap();
            assert!(FileCell::open(&path).is_err(), "length {length}");
        }
        fs::write(&path, [&good[..], b"\n"].concat()).unwrap();
        assert!(matches!(FileCell::open(&path), Err(CellError::Damaged { .. })));
        fs::write(&path, &good).unwrap();
        FileCell::open(&path).unwrap();
    }

    /// Every bit of the whole file, with one ROOT and in the middle of a replacement.
    #[test]
    fn a_flipped_bit_never_gives_another_key() {
        let path = Path::new("simulated");
        let over = |content: &[u8]| {
            let disk = Disk {
                synced: content.to_vec(),
                current: content.to_vec(),
                operations_left: u32::MAX,
            };
            let medium = SimulatedMedium(Arc::new(Mutex::new(disk)));
            (FileCell::over(path, Box::new(medium.clone()), content), medium)
        };
        let one = fresh_content().unwrap().to_vec();
        let (cell, medium) = over(&one);
        cell.unwrap().prepare(Epoch(2)).unwrap();
        let two = medium.0.lock().unwrap().current.clone();
        let (mut refused, mut a_root_less, mut harmless) = (0, 0, 0);
        for content in [one, two] {
            let before = over(&content).0.unwrap();
            let keys = |cell: &FileCell| {
                let roots = 0..cell.roots().len();
                roots.map(|at| (cell.roots()[at].0, root_bytes(cell, at))).collect::<Vec<_>>()
            };
            for bit in 0..content.len() * 8 {
                let mut flipped = content.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                let Ok(cell) = over(&flipped).0 else {
                    refused += 1;
                    continue;
                };
                assert_eq!(cell.deployment().check(), before.deployment().check(), "bit {bit}");
                let (had, has) = (keys(&before), keys(&cell));
                assert!(has.iter().all(|key| had.contains(key)), "bit {bit}");
                // Without the ROOT of its epoch the store is refused.
                a_root_less += usize::from(has.len() < had.len());
                harmless += usize::from(has.len() == had.len());
            }
        }
        eprintln!("{refused} refused, {a_root_less} cost a ROOT, {harmless} in what is not used");
        assert!(refused > 0 && a_root_less > 0);
    }

    #[test]
    fn what_is_no_cell_says_what_to_do() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("root.key");
        let refusal = |path: &Path| FileCell::open(path).err().unwrap().to_string();
        assert!(refusal(&path).contains("assent keys init"));
        let private = |bytes: &[u8]| {
            fs::write(&path, bytes).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        };
        private(&[b"ASSENTK1", &[7; 40][..]].concat());
        assert!(refusal(&path).contains("earlier version"));
        private(b"something else");
        assert!(refusal(&path).contains("is not a root key file"));
    }

    /// A disk that loses what was not synced, sector by sector, and stops after some writes.
    #[derive(Clone)]
    struct SimulatedMedium(Arc<Mutex<Disk>>);

    struct Disk {
        synced: Vec<u8>,
        current: Vec<u8>,
        operations_left: u32,
    }

    impl SimulatedMedium {
        fn step(&self, step: impl FnOnce(&mut Disk)) -> io::Result<()> {
            let mut disk = self.0.lock().unwrap();
            disk.operations_left =
                disk.operations_left.checked_sub(1).ok_or(io::Error::other("power cut"))?;
            step(&mut disk);
            Ok(())
        }

        /// What is there after a power cut: of each sector that was not synced the old bytes, the
        /// new ones, or the new ones up to somewhere.
        fn after_power_cut(&self, seed: u64) -> Vec<u8> {
            let disk = self.0.lock().unwrap();
            let mut image = disk.synced.clone();
            let mut coin = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
            let sectors = image.chunks_mut(SECTOR_BYTES).zip(disk.current.chunks(SECTOR_BYTES));
            for (old, new) in sectors.filter(|(old, new)| old != new) {
                coin ^= coin << 13;
                coin ^= coin >> 7;
                coin ^= coin << 17;
                let kept = match coin % 3 {
                    0 => 0,
                    1 => SECTOR_BYTES,
                    _ => usize::try_from(coin >> 8).unwrap_or(usize::MAX) % SLOT_BYTES,
                };
                old[..kept].copy_from_slice(&new[..kept]);
            }
            image
        }
    }

    impl Medium for SimulatedMedium {
        fn write_at(&mut self, bytes: &[u8], offset: usize) -> io::Result<()> {
            self.step(|disk| disk.current[offset..offset + bytes.len()].copy_from_slice(bytes))
        }

        fn sync(&mut self) -> io::Result<()> {
            self.step(|disk| disk.synced = disk.current.clone())
        }
    }

    #[test]
    fn a_power_cut_at_any_step_leaves_the_root_in_force() {
        let path = Path::new("simulated");
        let mut cuts = 0;
        for (operations_left, seed) in (0..24).flat_map(|n| (0..200).map(move |seed| (n, seed))) {
            let content = fresh_content().unwrap().to_vec();
            let disk = Disk { synced: content.clone(), current: content.clone(), operations_left };
            let medium = SimulatedMedium(Arc::new(Mutex::new(disk)));
            let mut cell = FileCell::over(path, Box::new(medium.clone()), &content).unwrap();
            // The ROOT that a store would depend on: from the preparation's end on either may be.
            let mut allowed = vec![(Epoch(1), root_bytes(&cell, 0))];
            for epoch in 2.. {
                if cell.prepare(Epoch(epoch)).is_err() {
                    break;
                }
                allowed.push((Epoch(epoch), root_bytes(&cell, 1)));
                if cell.retire_all_but(Epoch(epoch)).is_err() {
                    allowed.remove(0);
                    break;
                }
                allowed.remove(0);
            }
            cuts += 1;
            let image = medium.after_power_cut(seed);
            let disk =
                Disk { synced: image.clone(), current: image.clone(), operations_left: u32::MAX };
            let medium = SimulatedMedium(Arc::new(Mutex::new(disk)));
            let mut cell = FileCell::over(path, Box::new(medium.clone()), &image).unwrap();
            let (epoch, root) = allowed[0];
            let at = cell.roots().iter().position(|(held, _)| *held == epoch);
            let at = at.unwrap_or_else(|| panic!("epoch {epoch} lost, seed {seed}"));
            assert_eq!(root_bytes(&cell, at), root);
            cell.retire_all_but(epoch).unwrap();
            let rest = medium.0.lock().unwrap().synced[BLOCK_BYTES..].to_vec();
            let live = rest.iter().filter(|byte| **byte != 0).count();
            assert!(live <= SLOT_BYTES, "torn slots are wiped");
        }
        eprintln!("{cuts} power cuts, no ROOT in force lost");
    }
}
