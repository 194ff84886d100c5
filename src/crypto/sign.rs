//! Signatures on what leaves the service: receipts today, audit checkpoints later.

use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use thiserror::Error;

use super::secret::SecretKey;

/// Size of a public key, bytes.
pub const PUBLIC_KEY_BYTES: usize = 32;
/// Size of a signature, bytes.
pub const SIGNATURE_BYTES: usize = 64;

/// Signs with the key that belongs to ROOT. The secret half is zeroised on drop.
pub struct Signer(SigningKey);

impl Signer {
    /// The signer whose Ed25519 seed is `seed`.
    pub(super) fn from_seed(seed: &SecretKey) -> Self {
        Self(SigningKey::from_bytes(seed.bytes()))
    }

    /// `Ed25519(seed, bytes)`, RFC 8032. Its nonce is a hash of the secret and the message, so
    /// none is ever drawn.
    #[must_use]
    pub fn sign(&self, bytes: &[u8]) -> [u8; SIGNATURE_BYTES] {
        self.0.sign(bytes).to_bytes()
    }

    /// The key that [`verify`] needs.
    #[must_use]
    pub fn public_key(&self) -> [u8; PUBLIC_KEY_BYTES] {
        self.0.verifying_key().to_bytes()
    }
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Signer({})", hex::encode(self.public_key()))
    }
}

/// Checks a signature, strictly: small-order keys and non-canonical signatures do not pass.
///
/// # Errors
/// The public key is no point, or the signature is not its owner's on these bytes.
pub fn verify(
    public_key: &[u8; PUBLIC_KEY_BYTES],
    bytes: &[u8],
    signature: &[u8; SIGNATURE_BYTES],
) -> Result<(), SignatureFault> {
    VerifyingKey::from_bytes(public_key)
        .map_err(SignatureFault::PublicKey)?
        .verify_strict(bytes, &Signature::from_bytes(signature))
        .map_err(SignatureFault::Mismatch)
}

/// Why a signature does not hold.
#[derive(Debug, Error)]
pub enum SignatureFault {
    /// No such key.
    #[error("these bytes are not an Ed25519 public key")]
    PublicKey(#[source] ed25519_dalek::SignatureError),
    /// Another key signed, or other bytes were signed.
    #[error("the signature does not belong to this key and these bytes")]
    Mismatch(#[source] ed25519_dalek::SignatureError),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_signed_bytes_verify_under_the_signers_key() {
        let signer = Signer::from_seed(&SecretKey::random().unwrap());
        let other = Signer::from_seed(&SecretKey::random().unwrap());
        let signature = signer.sign(b"receipt");
        verify(&signer.public_key(), b"receipt", &signature).unwrap();
        assert!(verify(&signer.public_key(), b"receipts", &signature).is_err());
        assert!(verify(&other.public_key(), b"receipt", &signature).is_err());
        for at in 0..SIGNATURE_BYTES {
            let mut altered = signature;
            altered[at] ^= 1;
            assert!(verify(&signer.public_key(), b"receipt", &altered).is_err(), "byte {at}");
        }
    }
}
