//! The root key file: what it holds, what is refused, what power cuts and flipped bits do.

use std::fs;
use std::sync::{Arc, Mutex};

use super::format::Cost;
use super::*;
use crate::crypto::secret::KEY_BYTES;

/// What a disk writes whole.
const SECTOR_BYTES: usize = 512;
/// Bytes of an open file's head and slots that are used.
const HEAD_BYTES: usize = 8 + KEY_BYTES + 8;
const SLOT_BYTES: usize = HEAD_BYTES;
/// No passphrase, and one.
const PASSPHRASES: [Option<&[u8]>; 2] = [None, Some(b"words")];

fn key_file() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("root.key");
    drop(FileCell::create(&path).unwrap());
    (directory, path)
}

/// A new file's bytes: its keys as they are, or under a passphrase that is cheap to try.
fn fresh_content(passphrase: Option<&[u8]>) -> Vec<u8> {
    let protection = Protection::fresh(passphrase, Cost::FOR_TESTS).unwrap();
    let root = (Epoch(1), RootKey(SecretKey::random().unwrap()));
    let deployment = DeploymentKey::of(SecretKey::random().unwrap());
    whole(&protection, &deployment, &[root]).unwrap().to_vec()
}

fn passphrase(place: &Path, words: &str) -> Passphrase {
    let file = place.join("passphrase");
    fs::write(&file, format!("{words}\n")).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    Passphrase::read_new(&file).unwrap()
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
        let holds =
            |old: &[u8]| fs::read(&path).unwrap().windows(KEY_BYTES).any(|window| window == old);
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
    for passphrase in PASSPHRASES {
        flip_every_bit(passphrase);
    }
}

fn flip_every_bit(passphrase: Option<&[u8]>) {
    let path = Path::new("simulated");
    let over = |content: &[u8]| {
        let disk =
            Disk { synced: content.to_vec(), current: content.to_vec(), operations_left: u32::MAX };
        let medium = SimulatedMedium(Arc::new(Mutex::new(disk)));
        (FileCell::over(path, Box::new(medium.clone()), content, passphrase), medium)
    };
    let one = fresh_content(passphrase);
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
        let passphrase = PASSPHRASES[cuts % 2];
        let content = fresh_content(passphrase);
        let open = |content: &[u8], medium: &SimulatedMedium| {
            FileCell::over(path, Box::new(medium.clone()), content, passphrase).unwrap()
        };
        let disk = Disk { synced: content.clone(), current: content.clone(), operations_left };
        let medium = SimulatedMedium(Arc::new(Mutex::new(disk)));
        let mut cell = open(&content, &medium);
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
        let mut cell = open(&image, &medium);
        let (epoch, root) = allowed[0];
        let at = cell.roots().iter().position(|(held, _)| *held == epoch);
        let at = at.unwrap_or_else(|| panic!("epoch {epoch} lost, seed {seed}"));
        assert_eq!(root_bytes(&cell, at), root);
        cell.retire_all_but(epoch).unwrap();
        let rest = medium.0.lock().unwrap().synced[BLOCK_BYTES..].to_vec();
        let live = rest.iter().filter(|byte| **byte != 0).count();
        assert!(live <= cell.protection.slot_bytes(), "torn slots are wiped");
    }
    eprintln!("{cuts} power cuts, no ROOT in force lost");
}

#[test]
fn under_a_passphrase_no_key_stands_in_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("root.key");
    let words = passphrase(directory.path(), "correct horse battery staple");
    let mut cell = FileCell::create_under(&path, Some(&words)).unwrap();
    cell.prepare(Epoch(2)).unwrap();
    let shows = |cell: &FileCell, path: &Path| {
        let file = fs::read(path).unwrap();
        let keys = cell.roots().iter().map(|(_, root)| &root.0).chain([cell.deployment.secret()]);
        keys.filter(|key| file.windows(KEY_BYTES).any(|window| window == *key.bytes())).count()
    };
    assert_eq!(shows(&cell, &path), 0);
    let open = directory.path().join("open.key");
    assert_eq!(shows(&FileCell::create(&open).unwrap(), &open), 2, "control");
    cell.retire_all_but(Epoch(2)).unwrap();
    let root = root_bytes(&cell, 0);
    assert_eq!(cell.kind(), "file under a passphrase");
    drop(cell);
    let other = passphrase(directory.path(), "correct horse battery stable");
    let refusal = |given: Option<&Passphrase>| FileCell::open_under(&path, given).err().unwrap();
    assert!(matches!(refusal(Some(&other)), CellError::PassphraseWrong { .. }));
    assert!(matches!(refusal(None), CellError::PassphraseMissing { .. }));
    let unused = FileCell::open_under(&open, Some(&words)).err().unwrap();
    assert!(matches!(unused, CellError::PassphraseUnused { .. }));
    let cell = FileCell::open_under(&path, Some(&words)).unwrap();
    assert_eq!((epochs(&cell), root_bytes(&cell, 0)), (vec![2], root));
}

#[test]
fn a_root_sealed_for_another_slot_is_refused_and_not_wiped() {
    let words: Option<&[u8]> = Some(b"words");
    let (mut mine, other) = (fresh_content(words), fresh_content(words));
    mine[BLOCK_BYTES..].copy_from_slice(&other[BLOCK_BYTES..]);
    let disk = Disk { synced: mine.clone(), current: mine.clone(), operations_left: 0 };
    let medium = SimulatedMedium(Arc::new(Mutex::new(disk)));
    let opened = FileCell::over(Path::new("simulated"), Box::new(medium), &mine, words);
    assert!(matches!(opened.err().unwrap(), CellError::Damaged { .. }));
}

#[test]
fn a_passphrase_is_set_changed_and_taken_away_with_the_same_keys() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("root.key");
    let mut cell = FileCell::create(&path).unwrap();
    cell.prepare(Epoch(2)).unwrap();
    let keys = |cell: &FileCell| {
        (cell.deployment().check(), root_bytes(cell, 0), root_bytes(cell, 1), epochs(cell))
    };
    let before = keys(&cell);
    let [one, two] =
        ["first passphrase", "second passphrase"].map(|words| passphrase(directory.path(), words));
    // A copy of the open file's inode: what is left of it afterwards.
    let old = directory.path().join("old");
    fs::hard_link(&path, &old).unwrap();
    fs::write(directory.path().join("root.key.new"), "left by a crash").unwrap();
    for words in [Some(&one), Some(&two), None] {
        let cell_now = cell.set_passphrase(words).unwrap();
        assert_eq!(keys(&cell_now), before);
        drop(cell_now);
        assert!(
            FileCell::open_under(&path, if words.is_some() { None } else { Some(&one) }).is_err()
        );
        cell = FileCell::open_under(&path, words).unwrap();
        assert_eq!(keys(&cell), before);
    }
    assert!(fs::read(&old).unwrap().iter().all(|byte| *byte == 0), "the old file is zeros");
    let left = fs::read_dir(directory.path()).unwrap().count();
    assert_eq!(left, 3, "the key, its old inode and the passphrase's file");
}

#[test]
fn a_passphrase_file_is_refused_with_the_remedy() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("words");
    let refusal = |mode: u32, text: &str| {
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        Passphrase::read_new(&path).map(drop).map_err(|fault| fault.to_string())
    };
    assert!(refusal(0o600, "").unwrap_err().contains("empty"));
    assert!(refusal(0o600, "\nlong enough passphrase").unwrap_err().contains("empty"));
    assert!(refusal(0o600, "short").unwrap_err().contains("12 bytes"));
    assert!(refusal(0o604, "long enough passphrase").unwrap_err().contains("chmod 600"));
    refusal(0o640, "long enough passphrase\r\nsecond line").unwrap();
    assert_eq!(Passphrase::read(&path).unwrap().bytes(), b"long enough passphrase");
    assert_eq!(format!("{:?}", Passphrase::read(&path).unwrap()), "Passphrase(..)");
}

#[test]
fn o3_a_destroyed_cell_is_zeros_and_does_not_open_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("root.key");
    let mut cell = FileCell::create(&path).unwrap();
    cell.prepare(Epoch(2)).unwrap();
    // A copy of the open file's inode: what is left of it afterwards.
    let old = directory.path().join("old");
    fs::hard_link(&path, &old).unwrap();
    assert!(fs::read(&old).unwrap().iter().any(|byte| *byte != 0), "control");
    cell.destroy().unwrap();
    assert!(cell.roots().is_empty());
    drop(cell);
    assert!(fs::read(&old).unwrap().iter().all(|byte| *byte == 0));
    assert!(FileCell::open(&path).is_err() && FileCell::is_half_destroyed(&path));
    FileCell::destroy_rest(&path).unwrap();
    FileCell::remove_name(&path);
    assert!(!path.exists() && !FileCell::is_half_destroyed(&path));
    // A whole file, and none, are left alone.
    let whole = directory.path().join("whole.key");
    drop(FileCell::create(&whole).unwrap());
    assert!(!FileCell::is_half_destroyed(&whole) && FileCell::destroy_rest(&whole).is_err());
    assert!(FileCell::destroy_rest(&path).is_err());
    FileCell::open(&whole).unwrap();
}
