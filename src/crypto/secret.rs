//! The 256-bit secret key and how others are derived from it.

use hkdf::Hkdf;
use sha2::Sha256;
use thiserror::Error;
use zeroize::{ZeroizeOnDrop, Zeroizing};

use super::digest::length_prefix;
use super::secret_memory::Slot;

/// Size of every symmetric key, bytes.
pub(super) const KEY_BYTES: usize = 32;

/// A 256-bit secret. Zeroised on drop, never printed, never copied: it lies in memory set apart for
/// keys, so that moving it moves a pointer and leaves no second copy on the stack.
///
/// ```
/// use assent::crypto::{SecretKey, open, seal};
/// let record = SecretKey::random()?;
/// let sealed = seal(&record.derive(b"header", b""), b"record 7", b"words")?;
/// let opened = open(&record.derive(b"header", b""), b"record 7", sealed.as_bytes())?;
/// assert_eq!(&opened[..], b"words");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct SecretKey(Slot);

impl SecretKey {
    /// A fresh key from the system's generator.
    ///
    /// # Errors
    /// The system has no randomness to give.
    pub fn random() -> Result<Self, RandomError> {
        let mut key = Self::zero();
        getrandom::fill(&mut key.0[..]).map_err(RandomError)?;
        Ok(key)
    }

    /// The key for one use of this one.
    ///
    /// `HKDF-SHA256(ikm = self, salt = none, info = |label| label |context| context)`, RFC 5869,
    /// with lengths as 8 bytes big-endian, so that no two pairs of label and context share an
    /// info. No salt is needed because the input is already uniform.
    #[must_use]
    pub fn derive(&self, label: &[u8], context: &[u8]) -> Self {
        let info =
            [&length_prefix(label)[..], label, &length_prefix(context)[..], context].concat();
        self.expand(&info)
    }

    /// Writes the key to the end of a buffer that is about to be sealed. The buffer should have the
    /// room: growing would leave a copy.
    pub fn append_to(&self, plain: &mut Zeroizing<Vec<u8>>) {
        plain.extend_from_slice(&self.0[..]);
    }

    /// The key that [`Self::append_to`] wrote; `None` for another length.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Self::copy_from(bytes)
    }

    pub(super) fn bytes(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }

    pub(super) fn zero() -> Self {
        Self(Slot::zero())
    }

    /// From bytes that the caller zeroises; `None` when they are not a key's length.
    pub(super) fn copy_from(bytes: &[u8]) -> Option<Self> {
        let mut key = Self::zero();
        (bytes.len() == KEY_BYTES).then(|| key.0.copy_from_slice(bytes))?;
        Some(key)
    }

    fn expand(&self, info: &[u8]) -> Self {
        let mut out = Self::zero();
        // RFC 5869 allows up to 255 blocks of 32 bytes; this asks for one.
        Hkdf::<Sha256>::new(None, &self.0[..])
            .expand(info, &mut out.0[..])
            .expect("one block is within HKDF's limit");
        out
    }
}

// Its slot zeroises itself.
impl ZeroizeOnDrop for SecretKey {}

impl std::fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecretKey(..)")
    }
}

/// Bytes from the system's generator that are no secret.
///
/// # Errors
/// The system has no randomness to give.
pub fn random_bytes<const N: usize>() -> Result<[u8; N], RandomError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(RandomError)?;
    Ok(bytes)
}

/// The system's random number generator failed.
#[derive(Debug, Clone, Copy, Error)]
#[error("the system's random number generator failed: {0}")]
pub struct RandomError(pub(super) getrandom::Error);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derivation_separates_labels_from_contexts() {
        let key = SecretKey::random().unwrap();
        let derived = key.derive(b"ab", b"c");
        assert_eq!(derived.bytes(), key.derive(b"ab", b"c").bytes(), "control: deterministic");
        assert_ne!(derived.bytes(), key.derive(b"a", b"bc").bytes());
        assert_ne!(derived.bytes(), key.bytes());
        assert_ne!(derived.bytes(), SecretKey::random().unwrap().derive(b"ab", b"c").bytes());
    }

    #[test]
    fn debug_tells_nothing() {
        let key = SecretKey::copy_from(&[0xA7; KEY_BYTES]).unwrap();
        assert_eq!(format!("{key:?}"), "SecretKey(..)");
    }
}
