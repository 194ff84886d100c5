//! Hashes, with and without a key.

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

use super::secret::SecretKey;

/// Size of a SHA-256 digest and of a MAC, bytes.
pub const DIGEST_BYTES: usize = 32;

/// `SHA-256(bytes)`, FIPS 180-4.
#[must_use]
pub fn sha256(bytes: &[u8]) -> [u8; DIGEST_BYTES] {
    Sha256::digest(bytes).into()
}

/// `SHA-256` of bytes that come one after the other.
#[derive(Clone, Default)]
pub struct Hasher(Sha256);

impl Hasher {
    /// Takes more bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of all of them.
    #[must_use]
    pub fn finish(self) -> [u8; DIGEST_BYTES] {
        self.0.finalize().into()
    }
}

/// So that [`std::io::copy`] hashes what it reads.
impl std::io::Write for Hasher {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// `HMAC-SHA256(key, |p1| p1 |p2| p2 ..)`, RFC 2104, with lengths as 8 bytes big-endian, so that
/// no two lists of parts share an input. Whoever lacks the key can neither compute it nor test a
/// guess, which is why a MAC may name a row where a plain hash of a guessable name may not.
#[must_use]
pub fn mac(key: &SecretKey, parts: &[&[u8]]) -> [u8; DIGEST_BYTES] {
    let mut state = keyed(key);
    for part in parts {
        state.update(&length_prefix(part));
        state.update(part);
    }
    state.finalize().into_bytes().into()
}

pub(super) fn length_prefix(part: &[u8]) -> [u8; 8] {
    (part.len() as u64).to_be_bytes()
}

fn keyed(key: &SecretKey) -> Hmac<Sha256> {
    // RFC 2104 defines HMAC for keys of any length.
    Hmac::<Sha256>::new_from_slice(key.bytes()).expect("HMAC takes keys of any length")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sha256_is_the_standard_one() {
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(hex::encode(sha256(b"abc")), abc);
    }

    #[test]
    fn a_mac_depends_on_the_key_and_on_where_the_parts_end() {
        let key = SecretKey::random().unwrap();
        assert_eq!(mac(&key, &[b"ab", b"c"]), mac(&key, &[b"ab", b"c"]), "control");
        assert_ne!(mac(&key, &[b"ab", b"c"]), mac(&key, &[b"a", b"bc"]));
        assert_ne!(mac(&key, &[b"abc"]), mac(&key, &[b"abc", b""]));
        assert_ne!(mac(&key, &[b"abc"]), mac(&SecretKey::random().unwrap(), &[b"abc"]));
    }
}
