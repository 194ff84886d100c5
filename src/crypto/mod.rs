//! Keys, sealing, MACs and signatures: the only module that names an AEAD.
//!
//! ```text
//! RootCell ── deployment key ──HKDF──> one key per DeploymentUse, the check value, the signer
//!        └─── ROOT of an epoch ──AES-256-GCM-SIV──> root node ──> key pages ──> each record's key
//!                                                                       └─HKDF──> header, template
//! ```
//!
//! # Invariants
//! - Key bytes leave this module only into a zeroised buffer that the caller seals: otherwise a key
//!   is used, derived from, or wrapped.
//! - Every key lies in memory set apart for keys ([`secret_memory_kind`]), is zeroised when dropped,
//!   and cannot be printed.
//! - A nonce is drawn inside [`seal`], for one message, from the system's generator.
//!
//! # Limits
//! Zeroised are the keys and plaintexts that this module owns, and Ed25519's secret half. AES round
//! keys and the passing state of the hashes live in their crates, on the stack or beside the cipher,
//! and are wiped only where those crates' own `zeroize` features are on (of aes, polyval, hmac and
//! sha2), which features of aes-gcm-siv do not turn on.
//!
//! # Not here
//! Which key seals which row, and with what associated data: that is the store's business.

pub mod cell;
mod deployment;
mod digest;
pub mod envelope;
mod seal;
mod secret;
mod secret_memory;
mod sign;

pub use deployment::{DeploymentKey, DeploymentUse};
pub use digest::{DIGEST_BYTES, Hasher, mac, sha256};
pub use seal::{
    OpenError, SEAL_OVERHEAD_BYTES, SealError, Sealed, open, seal, unwrap_key, wrap_key,
};
pub use secret::{RandomError, SecretKey, random_bytes};
pub use secret_memory::{SecretMemoryKind, secret_memory_kind};
pub use sign::{PUBLIC_KEY_BYTES, SIGNATURE_BYTES, SignatureFault, Signer, verify};
