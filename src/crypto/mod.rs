//! Keys, sealing, MACs and signatures: the only module that names an AEAD.
//!
//! ```text
//! ROOT (a file, RootKey) ──HKDF──> one key per RootUse, the check value, the Ed25519 signer
//!                                   └─ RecordWrap ──AES-256-GCM-SIV──> each record's own key
//!                                                                       └─HKDF──> header, template
//! ```
//!
//! # Invariants
//! - Key bytes never leave this module in plain: a key is used, derived from, or wrapped.
//! - Every key is zeroised when dropped, and none can be printed.
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

mod digest;
mod root;
mod seal;
mod secret;
mod sign;

pub use digest::{DIGEST_BYTES, mac, sha256};
pub use root::{RootKey, RootKeyError, RootUse};
pub use seal::{
    OpenError, SEAL_OVERHEAD_BYTES, SealError, Sealed, open, seal, unwrap_key, wrap_key,
};
pub use secret::{RandomError, SecretKey};
pub use sign::{PUBLIC_KEY_BYTES, SIGNATURE_BYTES, SignatureFault, Signer, verify};
