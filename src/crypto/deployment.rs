//! The key that stays for the life of a deployment.
//!
//! What ROOT's replacement must not change hangs here: the names of claims, the seals of policy,
//! log and audit, the signature, the rotation of the index. No record's key does.

use zeroize::Zeroizing;

use super::digest::{DIGEST_BYTES, mac};
use super::secret::{KEY_BYTES, SecretKey};
use super::sign::Signer;

const SIGNER_LABEL: &[u8] = b"assent signer";
const CHECK_LABEL: &[u8] = b"assent check";
const ROTATION_LABEL: &[u8] = b"assent rotation";

/// What a key derived from the deployment key is for. One use, one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeploymentUse {
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
    /// Seals the audit entries.
    Audit,
    /// Seals the heads of snapshots.
    Snapshot,
    /// Seals what is remembered besides records.
    Facts,
}

impl DeploymentUse {
    fn label(self) -> &'static [u8] {
        match self {
            Self::Policy => b"assent policy",
            Self::ClaimNames => b"assent claim names",
            Self::Claims => b"assent claims",
            Self::Log => b"assent log",
            Self::Meta => b"assent meta",
            Self::Audit => b"assent audit",
            Self::Snapshot => b"assent snapshot",
            Self::Facts => b"assent facts",
        }
    }
}

/// The key that stays: what it derives outlives every replacement of ROOT.
#[derive(Debug)]
pub struct DeploymentKey(SecretKey);

impl DeploymentKey {
    /// The key for one use.
    #[must_use]
    pub fn key(&self, usage: DeploymentUse) -> SecretKey {
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

    /// A value that names this deployment and tells nothing of it: `HMAC-SHA256(key, "assent
    /// check")`. A store keeps it in plain, to tell a wrong key from altered rows.
    #[must_use]
    pub fn check(&self) -> [u8; DIGEST_BYTES] {
        mac(&self.0, &[CHECK_LABEL])
    }

    pub(super) fn of(key: SecretKey) -> Self {
        Self(key)
    }

    /// For the cell that keeps it.
    pub(super) fn secret(&self) -> &SecretKey {
        &self.0
    }

    /// A fixed key, for tests.
    #[cfg(test)]
    pub(crate) fn for_tests(byte: u8) -> Self {
        Self(SecretKey::copy_from(&[byte; KEY_BYTES]).unwrap())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_use_has_its_own_key() {
        let deployment = DeploymentKey::for_tests(1);
        let all = [
            DeploymentUse::Policy,
            DeploymentUse::ClaimNames,
            DeploymentUse::Claims,
            DeploymentUse::Log,
            DeploymentUse::Meta,
            DeploymentUse::Audit,
            DeploymentUse::Snapshot,
            DeploymentUse::Facts,
        ];
        let keys: std::collections::BTreeSet<_> =
            all.iter().map(|usage| *deployment.key(*usage).bytes()).collect();
        assert_eq!(keys.len(), all.len());
    }
}
