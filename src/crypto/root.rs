//! ROOT, the key above all keys, and the file it lives in.
//!
//! ```text
//! root key file, 48 bytes, mode 0600
//! offset  0              8            40                  48
//!         | "ASSENTK1"    | key (32)   | checksum (8)      |
//! ```
//! `checksum` is the first 8 bytes of SHA-256(magic || key): it tells a damaged file from another
//! store's key. It is no secret beside the key itself.
//!
//! Crash argument: the file is made with `O_EXCL`, synced, and then its directory is synced, and
//! only then does [`RootKey::create`] return; no store is sealed under a ROOT that `create` has not
//! returned. A crash before that leaves no file, or a short one that [`RootKey::load`] refuses, and
//! nothing that needed it.
//!
//! # Not here
//! Replacing ROOT so that an old disk opens no erased record: the root cell, issue C.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use thiserror::Error;
use zeroize::Zeroizing;

use super::digest::{DIGEST_BYTES, sha256};
use super::secret::{KEY_BYTES, RandomError, SecretKey};
use super::sign::Signer;

const MAGIC: &[u8; MAGIC_BYTES] = b"ASSENTK1";
const MAGIC_BYTES: usize = 8;
const CHECKSUM_BYTES: usize = 8;
const FILE_BYTES: usize = MAGIC_BYTES + KEY_BYTES + CHECKSUM_BYTES;
/// Read and written by its owner alone.
const FILE_MODE: u32 = 0o600;
/// Permission bits of everyone but the owner.
const OTHERS_MODE: u32 = 0o077;

/// What a key derived from ROOT is for. One use, one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RootUse {
    /// Wraps the records' own keys.
    RecordWrap,
    /// Seals the policy document.
    Policy,
    /// Names idempotency keys and consent ids by MAC.
    ClaimNames,
    /// Seals which record holds such a name.
    Claims,
    /// Seals the log.
    Log,
    /// Seals what the store says about itself.
    Meta,
}

impl RootUse {
    fn label(self) -> &'static [u8] {
        match self {
            Self::RecordWrap => b"assent record wrap",
            Self::Policy => b"assent policy",
            Self::ClaimNames => b"assent claim names",
            Self::Claims => b"assent claims",
            Self::Log => b"assent log",
            Self::Meta => b"assent meta",
        }
    }
}

const SIGNER_LABEL: &[u8] = b"assent signer";
const CHECK_LABEL: &[u8] = b"assent check";
const ROTATION_LABEL: &[u8] = b"assent rotation";

/// ROOT: without it the store is noise.
#[derive(Debug)]
pub struct RootKey(SecretKey);

impl RootKey {
    /// Draws a new ROOT and writes it to `path`; durable on return.
    ///
    /// # Errors
    /// Something is at `path` already (it is left as it is), no randomness, or the disk failed.
    pub fn create(path: &Path) -> Result<Self, RootKeyError> {
        let root = Self(SecretKey::random()?);
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(FILE_MODE)
            .open(path)
            .map_err(|fault| RootKeyError::creating(path, fault))?;
        file.write_all(&root.encode())
            .and_then(|()| file.sync_all())
            .and_then(|()| sync_directory_of(path))
            .map_err(|source| RootKeyError::Io { path: path.into(), source })?;
        Ok(root)
    }

    /// Reads ROOT from `path`.
    ///
    /// # Errors
    /// Not there, open to others than its owner, or not a root key file.
    pub fn load(path: &Path) -> Result<Self, RootKeyError> {
        let file = File::open(path).map_err(|fault| RootKeyError::loading(path, fault))?;
        let metadata =
            file.metadata().map_err(|source| RootKeyError::Io { path: path.into(), source })?;
        let mode = metadata.permissions().mode();
        if mode & OTHERS_MODE != 0 {
            return Err(RootKeyError::Exposed { path: path.into(), mode: mode & 0o777 });
        }
        let bytes =
            read_key_file(file).map_err(|source| RootKeyError::Io { path: path.into(), source })?;
        Self::decode(path, &bytes)
    }

    /// The key for one use.
    #[must_use]
    pub fn key(&self, usage: RootUse) -> SecretKey {
        self.0.derive(usage.label(), b"")
    }

    /// The signer of receipts.
    #[must_use]
    pub fn signer(&self) -> Signer {
        Signer::from_seed(&self.0.derive(SIGNER_LABEL, b""))
    }

    /// What the index draws the rotation of its rows from. It leaves this module as bytes because
    /// it is no cipher's key: a rotation hides nothing from who sees rows and vectors.
    #[must_use]
    pub fn rotation_seed(&self) -> Zeroizing<[u8; KEY_BYTES]> {
        Zeroizing::new(*self.0.derive(ROTATION_LABEL, b"").bytes())
    }

    /// A value that names this ROOT and tells nothing of it: `HMAC-SHA256(ROOT, "assent check")`.
    /// A store keeps it in plain, to tell a wrong ROOT from altered rows.
    #[must_use]
    pub fn check(&self) -> [u8; DIGEST_BYTES] {
        super::digest::mac(&self.0, &[CHECK_LABEL])
    }

    /// A fixed ROOT, for tests.
    #[cfg(test)]
    pub(crate) fn for_tests(byte: u8) -> Self {
        Self(SecretKey::copy_from(&[byte; KEY_BYTES]).unwrap())
    }

    fn encode(&self) -> Zeroizing<Vec<u8>> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(FILE_BYTES));
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(self.0.bytes());
        let checksum = sha256(&bytes);
        bytes.extend_from_slice(&checksum[..CHECKSUM_BYTES]);
        bytes
    }

    fn decode(path: &Path, bytes: &[u8]) -> Result<Self, RootKeyError> {
        let path = || PathBuf::from(path);
        if !bytes.starts_with(MAGIC) && !bytes.is_empty() {
            return Err(RootKeyError::NotARootKey { path: path() });
        }
        let (body, checksum) = bytes
            .split_last_chunk::<CHECKSUM_BYTES>()
            .filter(|_| bytes.len() == FILE_BYTES)
            .ok_or_else(|| RootKeyError::Length { path: path() })?;
        if !sha256(body).starts_with(checksum) {
            return Err(RootKeyError::Checksum { path: path() });
        }
        SecretKey::copy_from(&body[MAGIC_BYTES..])
            .map(Self)
            .ok_or_else(|| RootKeyError::Length { path: path() })
    }
}

/// Reads one byte more than a key file has, so that a longer one shows, into memory that does not
/// move while it fills.
fn read_key_file(file: File) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(2 * FILE_BYTES));
    file.take(FILE_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn sync_directory_of(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}

/// Why there is no ROOT.
#[derive(Debug, Error)]
pub enum RootKeyError {
    /// Not there.
    #[error("no root key at {}; create one with `assent keys init`", path.display())]
    Missing {
        /// Where it was looked for.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// `create` never overwrites.
    #[error("{} exists already and is left as it is: a store may depend on it", path.display())]
    Exists {
        /// Where it was to be created.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Others may read or write it.
    #[error(
        "the root key {} is open to others (mode {mode:03o}); run `chmod 600 {}`",
        path.display(), path.display()
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Some other file.
    #[error("{} is not a root key file", path.display())]
    NotARootKey {
        /// The file.
        path: PathBuf,
    },
    /// Cut short or grown.
    #[error("the root key {} has not {FILE_BYTES} bytes: it is damaged; restore it", path.display())]
    Length {
        /// The file.
        path: PathBuf,
    },
    /// Altered.
    #[error("the root key {} fails its checksum: it is damaged; restore it", path.display())]
    Checksum {
        /// The file.
        path: PathBuf,
    },
    /// The disk or its permissions.
    #[error("the root key {} cannot be read or written", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// No randomness.
    #[error(transparent)]
    Random(#[from] RandomError),
}

impl RootKeyError {
    fn creating(path: &Path, source: io::Error) -> Self {
        let path = path.into();
        if source.kind() == io::ErrorKind::AlreadyExists {
            Self::Exists { path, source }
        } else {
            Self::Io { path, source }
        }
    }

    fn loading(path: &Path, source: io::Error) -> Self {
        let path = path.into();
        if source.kind() == io::ErrorKind::NotFound {
            Self::Missing { path, source }
        } else {
            Self::Io { path, source }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn key_file() -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("root.key");
        RootKey::create(&path).unwrap();
        (directory, path)
    }

    #[test]
    fn a_root_is_the_same_after_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("root.key");
        let created = RootKey::create(&path).unwrap();
        let loaded = RootKey::load(&path).unwrap();
        assert_eq!(created.check(), loaded.check());
        assert_eq!(created.signer().public_key(), loaded.signer().public_key());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, FILE_MODE);
    }

    #[test]
    fn an_existing_file_is_never_overwritten() {
        let (_directory, path) = key_file();
        let before = fs::read(&path).unwrap();
        assert!(matches!(RootKey::create(&path), Err(RootKeyError::Exists { .. })));
        assert_eq!(fs::read(&path).unwrap(), before);
    }

    #[test]
    fn a_key_open_to_others_is_refused_with_the_remedy() {
        let (_directory, path) = key_file();
        for mode in [0o640, 0o604, 0o620, 0o601] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let refusal = RootKey::load(&path).unwrap_err().to_string();
            assert!(refusal.contains(&format!("chmod 600 {}", path.display())), "{refusal}");
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
        RootKey::load(&path).unwrap();
    }

    #[test]
    fn every_flipped_byte_and_every_other_length_is_refused() {
        let (_directory, path) = key_file();
        let good = fs::read(&path).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            fs::write(&path, &bad).unwrap();
            assert!(RootKey::load(&path).is_err(), "byte {at}");
        }
        for length in [0, 7, 8, 40, 47] {
            fs::write(&path, &good[..length]).unwrap();
            assert!(RootKey::load(&path).is_err(), "length {length}");
        }
        fs::write(&path, [&good[..], b"\n"].concat()).unwrap();
        assert!(matches!(RootKey::load(&path), Err(RootKeyError::Length { .. })));
        fs::write(&path, &good).unwrap();
        RootKey::load(&path).unwrap();
    }

    #[test]
    fn a_missing_key_says_how_to_make_one() {
        let directory = tempfile::tempdir().unwrap();
        let refusal = RootKey::load(&directory.path().join("none")).unwrap_err().to_string();
        assert!(refusal.contains("assent keys init"), "{refusal}");
    }

    #[test]
    fn each_use_has_its_own_key() {
        let root = RootKey::for_tests(1);
        let all = [
            RootUse::RecordWrap,
            RootUse::Policy,
            RootUse::ClaimNames,
            RootUse::Claims,
            RootUse::Log,
            RootUse::Meta,
        ];
        let keys: std::collections::BTreeSet<_> =
            all.iter().map(|usage| *root.key(*usage).bytes()).collect();
        assert_eq!(keys.len(), all.len());
    }
}
