//! Passphrases and PINs, which come from files.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use zeroize::Zeroizing;

use super::CellError;

/// Permission bits of everyone but the owner and the group.
const WORLD_MODE: u32 = 0o007;
/// Shortest passphrase that a new file is put under, bytes.
const LEAST_BYTES: usize = 12;

/// A passphrase or a PIN. Zeroised on drop, never printed.
pub struct Passphrase(Zeroizing<Vec<u8>>);

impl Passphrase {
    /// Reads the first line of a file that not everybody may read.
    ///
    /// # Errors
    /// It cannot be read, everybody may read or write it, or its first line is empty.
    pub fn read(path: &Path) -> Result<Self, CellError> {
        let io = |source| CellError::SecretFile { path: path.into(), source };
        let mode = fs::metadata(path).map_err(io)?.permissions().mode();
        if mode & WORLD_MODE != 0 {
            return Err(CellError::Exposed { path: path.into(), mode: mode & 0o777 });
        }
        let text = Zeroizing::new(fs::read(path).map_err(io)?);
        let line = text.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            return Err(CellError::SecretEmpty { path: path.into() });
        }
        Ok(Self(Zeroizing::new(line.to_vec())))
    }

    /// The same, long enough for a file to be put under it.
    ///
    /// # Errors
    /// As [`Self::read`], or it is too short.
    pub fn read_new(path: &Path) -> Result<Self, CellError> {
        let passphrase = Self::read(path)?;
        if passphrase.0.len() < LEAST_BYTES {
            return Err(CellError::SecretShort { path: path.into(), least: LEAST_BYTES });
        }
        Ok(passphrase)
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Passphrase(..)")
    }
}
