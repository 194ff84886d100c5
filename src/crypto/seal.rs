//! Authenticated encryption of one message, and of one key under another.
//!
//! ```text
//! sealed message
//! offset  0        1             13                    13 + n         29 + n
//!         | version | nonce (12)  | ciphertext (n)      | tag (16)     |
//! ```
//! `version` is 1. The associated data is not stored: whoever opens must know it.

use aes_gcm_siv::aead::{Aead, Payload};
use aes_gcm_siv::{Aes256GcmSiv, KeyInit};
use thiserror::Error;
use zeroize::Zeroizing;

use super::secret::{RandomError, SecretKey, random_bytes};

const VERSION: u8 = 1;
const VERSION_BYTES: usize = 1;
const NONCE_BYTES: usize = 12;
const TAG_BYTES: usize = 16;
/// Where the ciphertext begins.
const HEAD_BYTES: usize = VERSION_BYTES + NONCE_BYTES;

/// By how much a sealed message is longer than its plaintext, bytes.
pub const SEAL_OVERHEAD_BYTES: usize = HEAD_BYTES + TAG_BYTES;

/// The number used once, drawn afresh for every message.
struct Nonce([u8; NONCE_BYTES]);

impl Nonce {
    fn random() -> Result<Self, RandomError> {
        random_bytes().map(Self)
    }
}

/// A sealed message: ciphertext that may be stored and copied anywhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed(Vec<u8>);

impl Sealed {
    /// The bytes, as drawn at the head of this file.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The bytes, as drawn at the head of this file.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

/// Seals `plaintext` and binds it to `aad`.
///
/// `version || N || AES-256-GCM-SIV(key, N, aad, plaintext)`, RFC 8452, N = 96 random bits.
///
/// The nonce is sound because it is drawn here for this message alone, and because GCM-SIV is
/// resistant to misuse: should two messages under one key draw the same nonce, all that shows is
/// whether they were equal. RFC 8452 section 9 allows 2^32 messages under one key with random
/// nonces; the keys used most, ROOT's, seal a few messages a revision.
///
/// # Errors
/// No randomness, or a plaintext of more than 2^36 bytes.
pub fn seal(key: &SecretKey, aad: &[u8], plaintext: &[u8]) -> Result<Sealed, SealError> {
    let nonce = Nonce::random()?;
    let ciphertext = cipher(key)
        .encrypt(&nonce.0.into(), Payload { msg: plaintext, aad })
        .map_err(|_says_nothing_more| SealError::TooLong)?;
    let mut bytes = Vec::with_capacity(HEAD_BYTES + ciphertext.len());
    bytes.push(VERSION);
    bytes.extend_from_slice(&nonce.0);
    bytes.extend_from_slice(&ciphertext);
    Ok(Sealed(bytes))
}

/// Opens what [`seal`] made with the same key and the same `aad`.
///
/// `AES-256-GCM-SIV^-1(key, N, aad, ciphertext || tag)`; nothing of the plaintext is released
/// unless the tag holds.
///
/// # Errors
/// The bytes, the key or the associated data are not those of the sealing.
pub fn open(key: &SecretKey, aad: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, OpenError> {
    let (nonce, msg) = split(sealed)?;
    cipher(key)
        .decrypt(&nonce.0.into(), Payload { msg, aad })
        .map(Zeroizing::new)
        .map_err(|_says_nothing_more| OpenError::Altered)
}

/// Seals `key` itself under `wrapping`: `seal(wrapping, aad, key)`.
///
/// # Errors
/// No randomness.
pub fn wrap_key(wrapping: &SecretKey, aad: &[u8], key: &SecretKey) -> Result<Sealed, SealError> {
    seal(wrapping, aad, key.bytes())
}

/// Opens what [`wrap_key`] made.
///
/// # Errors
/// As [`open`]; or what was sealed is not a key.
pub fn unwrap_key(wrapping: &SecretKey, aad: &[u8], sealed: &[u8]) -> Result<SecretKey, OpenError> {
    SecretKey::copy_from(&open(wrapping, aad, sealed)?).ok_or(OpenError::NotAKey)
}

fn cipher(key: &SecretKey) -> Aes256GcmSiv {
    Aes256GcmSiv::new(key.bytes().into())
}

fn split(sealed: &[u8]) -> Result<(Nonce, &[u8]), OpenError> {
    let (version, rest) = sealed.split_first().ok_or(OpenError::TooShort)?;
    if *version != VERSION {
        return Err(OpenError::Version { found: *version });
    }
    let (nonce, rest) = rest.split_first_chunk().ok_or(OpenError::TooShort)?;
    if rest.len() < TAG_BYTES {
        return Err(OpenError::TooShort);
    }
    Ok((Nonce(*nonce), rest))
}

/// Why a message was not sealed.
#[derive(Debug, Clone, Copy, Error)]
pub enum SealError {
    /// No nonce.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// Longer than the AEAD allows.
    #[error("the plaintext is longer than 2^36 bytes")]
    TooLong,
}

/// Why a sealed message does not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum OpenError {
    /// Sealed by another version of this format.
    #[error("sealed in format {found}, this program knows format {VERSION}")]
    Version {
        /// The version byte found.
        found: u8,
    },
    /// Cut off.
    #[error("shorter than a sealed message can be")]
    TooShort,
    /// The tag does not hold: another key, other associated data, or altered bytes.
    #[error("altered, or sealed with another key or for another place")]
    Altered,
    /// It opened, and what was in it is not a key.
    #[error("what was sealed is not a key")]
    NotAKey,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed() -> (SecretKey, Vec<u8>) {
        let key = SecretKey::random().unwrap();
        let sealed = seal(&key, b"place", b"plaintext").unwrap().into_bytes();
        (key, sealed)
    }

    #[test]
    fn what_was_sealed_opens_with_the_same_key_and_place() {
        let (key, sealed) = sealed();
        assert_eq!(sealed.len(), b"plaintext".len() + SEAL_OVERHEAD_BYTES);
        assert_eq!(&open(&key, b"place", &sealed).unwrap()[..], b"plaintext");
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let (key, sealed) = sealed();
        for (at, bit) in (0..sealed.len()).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
            let mut altered = sealed.clone();
            altered[at] ^= 1 << bit;
            assert!(open(&key, b"place", &altered).is_err(), "byte {at} bit {bit}");
        }
        assert!(open(&key, b"place", &sealed).is_ok(), "control");
    }

    #[test]
    fn every_truncation_is_noticed() {
        let (key, sealed) = sealed();
        for length in 0..sealed.len() {
            assert!(open(&key, b"place", &sealed[..length]).is_err(), "length {length}");
        }
    }

    #[test]
    fn another_key_or_place_opens_nothing() {
        let (key, sealed) = sealed();
        let other = SecretKey::random().unwrap();
        assert_eq!(open(&other, b"place", &sealed).unwrap_err(), OpenError::Altered);
        assert_eq!(open(&key, b"elsewhere", &sealed).unwrap_err(), OpenError::Altered);
    }

    #[test]
    fn sealing_twice_draws_two_nonces() {
        let (key, first) = sealed();
        let second = seal(&key, b"place", b"plaintext").unwrap().into_bytes();
        assert_ne!(first[VERSION_BYTES..HEAD_BYTES], second[VERSION_BYTES..HEAD_BYTES]);
    }

    #[test]
    fn a_key_travels_wrapped() {
        let (wrapping, key) = (SecretKey::random().unwrap(), SecretKey::random().unwrap());
        let wrapped = wrap_key(&wrapping, b"id", &key).unwrap();
        let back = unwrap_key(&wrapping, b"id", wrapped.as_bytes()).unwrap();
        assert_eq!(back.bytes(), key.bytes());
        let words = seal(&wrapping, b"id", b"no key").unwrap();
        assert_eq!(unwrap_key(&wrapping, b"id", words.as_bytes()).unwrap_err(), OpenError::NotAKey);
    }
}
