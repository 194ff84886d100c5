//! What stands in a root key file.
//!
//! ```text
//! root key file, 12,288 bytes, mode 0600
//! offset      0: head                                     never rewritten
//! offset  4,096: slot, or zeros
//! offset  8,192: slot, or zeros
//!
//! head, open              "ASSENTK2" | deployment key (32) | checksum (8) | zeros
//! head, under passphrase  "ASSENTP1" | salt (16) | memory, KiB, u32 BE | passes, u32 BE
//!                         | sealed deployment key (61) | checksum (8) | zeros
//! slot                    epoch u64 BE | ROOT (32; sealed: 61) | checksum (8) | zeros
//! ```
//! A checksum is the first 8 bytes of SHA-256 over what stands before it. It tells a torn or
//! damaged part from a good one, and is no secret beside the key. Each part lies in one disk sector.
//!
//! A sealed key is `seal(K, "assent root key file" | part | epoch, key)` of `crypto::seal`, with
//! `K = Argon2id(passphrase, salt, memory, passes, 1 lane)`, RFC 9106, so that a key cannot be put
//! in another's place.

use argon2::{Algorithm, Argon2, Params, Version};
use zeroize::Zeroizing;

use super::super::{CellError, DeploymentKey, Epoch, RootKey, SecretKey};
use crate::crypto::digest::sha256;
use crate::crypto::seal::{SEAL_OVERHEAD_BYTES, unwrap_key, wrap_key};
use crate::crypto::secret::{KEY_BYTES, random_bytes};

const OPEN_MAGIC: &[u8; MAGIC_BYTES] = b"ASSENTK2";
const SEALED_MAGIC: &[u8; MAGIC_BYTES] = b"ASSENTP1";
const OLD_MAGIC: &[u8] = b"ASSENTK1";
const MAGIC_BYTES: usize = 8;
const EPOCH_BYTES: usize = 8;
const CHECKSUM_BYTES: usize = 8;
const SALT_BYTES: usize = 16;
const COST_BYTES: usize = 8;
/// Where parts begin: far enough apart that no write of one touches another's sector.
pub(super) const BLOCK_BYTES: usize = 4_096;
pub(super) const SLOTS: usize = 2;
pub(super) const FILE_BYTES: usize = BLOCK_BYTES * (1 + SLOTS);
/// What a key is bound to beside its part.
const PLACE: &[u8] = b"assent root key file";

/// What one guess at a passphrase costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cost {
    memory_kib: u32,
    passes: u32,
}

impl Cost {
    /// RFC 9106's second recommendation, with one lane: a tenth of a second or two here.
    pub(super) const DEFAULT: Self = Self { memory_kib: 64 << 10, passes: 3 };
    /// The most that a file may ask of the machine that opens it.
    const MOST: Self = Self { memory_kib: 1 << 20, passes: 64 };
    #[cfg(test)]
    pub(super) const FOR_TESTS: Self = Self { memory_kib: 8, passes: 1 };

    fn is_sane(self) -> bool {
        (8..=Self::MOST.memory_kib).contains(&self.memory_kib)
            && (1..=Self::MOST.passes).contains(&self.passes)
    }
}

/// How the keys of a file are kept.
pub(super) enum Protection {
    /// As they are.
    Open,
    /// Sealed with the key of a passphrase.
    Passphrase {
        /// What it gives with `salt` at `cost`.
        key: SecretKey,
        salt: [u8; SALT_BYTES],
        cost: Cost,
    },
}

impl Protection {
    /// Under a fresh salt; without a passphrase, none.
    pub(super) fn fresh(passphrase: Option<&[u8]>, cost: Cost) -> Result<Self, CellError> {
        let Some(passphrase) = passphrase else { return Ok(Self::Open) };
        Self::stretched(passphrase, random_bytes()?, cost)
    }

    fn stretched(passphrase: &[u8], salt: [u8; SALT_BYTES], cost: Cost) -> Result<Self, CellError> {
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        Params::new(cost.memory_kib, cost.passes, 1, Some(KEY_BYTES))
            .and_then(|params| {
                Argon2::new(Algorithm::Argon2id, Version::V0x13, params).hash_password_into(
                    passphrase,
                    &salt,
                    &mut key[..],
                )
            })
            .map_err(|fault| CellError::Stretching { what: fault.to_string() })?;
        let key = SecretKey::copy_from(&key[..]).expect("a key's length");
        Ok(Self::Passphrase { key, salt, cost })
    }

    fn key_bytes(&self) -> usize {
        match self {
            Self::Open => KEY_BYTES,
            Self::Passphrase { .. } => KEY_BYTES + SEAL_OVERHEAD_BYTES,
        }
    }

    fn wrap(&self, place: &[u8], key: &SecretKey) -> Result<Zeroizing<Vec<u8>>, CellError> {
        match self {
            Self::Open => Ok(Zeroizing::new(key.bytes().to_vec())),
            Self::Passphrase { key: wrapping, .. } => wrap_key(wrapping, place, key)
                .map(|sealed| Zeroizing::new(sealed.into_bytes()))
                .map_err(|fault| CellError::Stretching { what: fault.to_string() }),
        }
    }

    fn unwrap(&self, place: &[u8], bytes: &[u8]) -> Option<SecretKey> {
        match self {
            Self::Open => SecretKey::copy_from(bytes),
            Self::Passphrase { key: wrapping, .. } => unwrap_key(wrapping, place, bytes).ok(),
        }
    }

    pub(super) fn slot_bytes(&self) -> usize {
        EPOCH_BYTES + self.key_bytes() + CHECKSUM_BYTES
    }

    /// The whole part that a head is in the file.
    pub(super) fn head(&self, deployment: &SecretKey) -> Result<Zeroizing<Vec<u8>>, CellError> {
        let mut head = Zeroizing::new(Vec::with_capacity(BLOCK_BYTES));
        match self {
            Self::Open => head.extend_from_slice(OPEN_MAGIC),
            Self::Passphrase { salt, cost, .. } => {
                head.extend_from_slice(SEALED_MAGIC);
                head.extend_from_slice(salt);
                head.extend_from_slice(&cost.memory_kib.to_be_bytes());
                head.extend_from_slice(&cost.passes.to_be_bytes());
            }
        }
        head.extend_from_slice(&self.wrap(&head_place(), deployment)?);
        Ok(with_checksum(head))
    }

    pub(super) fn slot(
        &self,
        epoch: Epoch,
        root: &RootKey,
    ) -> Result<Zeroizing<Vec<u8>>, CellError> {
        let mut slot = Zeroizing::new(Vec::with_capacity(BLOCK_BYTES));
        slot.extend_from_slice(&epoch.0.to_be_bytes());
        slot.extend_from_slice(&self.wrap(&slot_place(epoch), &root.0)?);
        Ok(with_checksum(slot))
    }

    pub(super) fn read_slot(&self, content: &[u8], slot: usize) -> Slot {
        let part = &content[BLOCK_BYTES * (1 + slot)..][..self.slot_bytes()];
        if part.iter().all(|byte| *byte == 0) {
            return Slot::Empty;
        }
        let Some((epoch, key)) = checked(part).and_then(<[u8]>::split_first_chunk) else {
            return Slot::Torn;
        };
        let epoch = Epoch(u64::from_be_bytes(*epoch));
        let root = self.unwrap(&slot_place(epoch), key).map(RootKey);
        root.map_or(Slot::Foreign, |root| Slot::Root(epoch, root))
    }
}

/// What is in a slot.
pub(super) enum Slot {
    Root(Epoch, RootKey),
    Empty,
    Torn,
    /// Whole, and not sealed for this place with this passphrase: no crash does that.
    Foreign,
}

/// What is wrong with a head.
pub(super) enum HeadFault {
    OldFormat,
    NotARootKey,
    Damaged(&'static str),
    PassphraseMissing,
    PassphraseUnused,
    PassphraseWrong,
    Cell(CellError),
}

impl From<CellError> for HeadFault {
    fn from(fault: CellError) -> Self {
        Self::Cell(fault)
    }
}

/// Reads the head of a file whose whole content is given.
pub(super) fn read_head(
    content: &[u8],
    passphrase: Option<&[u8]>,
) -> Result<(Protection, DeploymentKey), HeadFault> {
    if content.starts_with(OLD_MAGIC) {
        return Err(HeadFault::OldFormat);
    }
    let sealed = content.starts_with(SEALED_MAGIC);
    if !sealed && !content.starts_with(OPEN_MAGIC) && !content.is_empty() {
        return Err(HeadFault::NotARootKey);
    }
    if content.len() != FILE_BYTES {
        return Err(HeadFault::Damaged("its length is wrong"));
    }
    let prefix_bytes = if sealed { MAGIC_BYTES + SALT_BYTES + COST_BYTES } else { MAGIC_BYTES };
    let key_bytes = if sealed { KEY_BYTES + SEAL_OVERHEAD_BYTES } else { KEY_BYTES };
    let body = checked(&content[..prefix_bytes + key_bytes + CHECKSUM_BYTES])
        .ok_or(HeadFault::Damaged("its head fails its checksum"))?;
    let (prefix, key) = body.split_at(prefix_bytes);
    let protection = match (sealed, passphrase) {
        (false, None) => Protection::Open,
        (false, Some(_)) => return Err(HeadFault::PassphraseUnused),
        (true, None) => return Err(HeadFault::PassphraseMissing),
        (true, Some(passphrase)) => {
            let (salt, cost) = stretching(&prefix[MAGIC_BYTES..])
                .ok_or(HeadFault::Damaged("what its passphrase is to cost is out of bounds"))?;
            Protection::stretched(passphrase, salt, cost)?
        }
    };
    let fault = if sealed { HeadFault::PassphraseWrong } else { HeadFault::Damaged("its head") };
    let deployment = protection.unwrap(&head_place(), key).ok_or(fault)?;
    Ok((protection, DeploymentKey::of(deployment)))
}

fn stretching(bytes: &[u8]) -> Option<([u8; SALT_BYTES], Cost)> {
    let (salt, rest) = bytes.split_first_chunk()?;
    let (memory_kib, rest) = rest.split_first_chunk()?;
    let (passes, _) = rest.split_first_chunk()?;
    let cost =
        Cost { memory_kib: u32::from_be_bytes(*memory_kib), passes: u32::from_be_bytes(*passes) };
    cost.is_sane().then_some((*salt, cost))
}

fn head_place() -> Vec<u8> {
    [PLACE, b"|deployment"].concat()
}

fn slot_place(epoch: Epoch) -> Vec<u8> {
    [PLACE, b"|root|", &epoch.0.to_be_bytes()].concat()
}

fn with_checksum(mut part: Zeroizing<Vec<u8>>) -> Zeroizing<Vec<u8>> {
    let checksum = sha256(&part);
    part.extend_from_slice(&checksum[..CHECKSUM_BYTES]);
    part
}

/// The body of a part whose checksum holds.
fn checked(part: &[u8]) -> Option<&[u8]> {
    let (body, checksum) = part.split_last_chunk::<CHECKSUM_BYTES>()?;
    sha256(body).starts_with(checksum).then_some(body)
}
