//! The root cell: where ROOT lives, and where it can be destroyed at once.
//!
//! ROOT seals the root node of the store's key tree and nothing else. It is replaced at every
//! revocation, and the one before is destroyed: with it every older copy of the tree ends. Beside
//! ROOT a cell holds the [`DeploymentKey`], which stays.
//!
//! # Invariants
//! - At any instant, crashes included, a cell holds the ROOT in force; in the middle of a
//!   replacement it holds the next one as well, and the store's epoch says which is in force.
//! - What [`RootCell::prepare`] and [`RootCell::retire_all_but`] did is durable when they return.
//!
//! # Not here
//! When ROOT is replaced, and in which order with the store's commit (`store/tree.rs`).

mod file;
#[cfg(test)]
mod memory;
mod passphrase;
mod pkcs11;

use std::fmt;
use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use file::FileCell;
#[cfg(test)]
pub(crate) use memory::MemoryCell;
pub use passphrase::Passphrase;
pub use pkcs11::{TokenCell, TokenPlace};

use super::deployment::DeploymentKey;
use super::secret::{RandomError, SecretKey};

/// Which ROOT: counts its replacements, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(pub u64);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One ROOT.
#[derive(Debug)]
pub struct RootKey(SecretKey);

impl RootKey {
    /// The key to seal and open the root node with.
    #[must_use]
    pub fn wrapping(&self) -> &SecretKey {
        &self.0
    }
}

/// A place that holds ROOT and can destroy it.
pub trait RootCell: Send {
    /// What kind of place it is, in a word or two.
    fn kind(&self) -> &'static str;

    /// The key that stays.
    fn deployment(&self) -> &DeploymentKey;

    /// The ROOTs that are there, oldest first: one, or two where a replacement is not finished.
    fn roots(&self) -> &[(Epoch, RootKey)];

    /// Draws the ROOT of `epoch` and puts it beside the one in force; durable on return.
    ///
    /// # Errors
    /// Two are there already or `epoch` is none to come, no randomness, or the place failed.
    fn prepare(&mut self, epoch: Epoch) -> Result<(), CellError>;

    /// Destroys every ROOT but that of `epoch`; durable on return. Repeating it does no harm.
    ///
    /// # Errors
    /// There is no ROOT of `epoch`, or the place failed.
    fn retire_all_but(&mut self, epoch: Epoch) -> Result<(), CellError>;

    /// Destroys every key, the deployment key too, where it is kept; durable on return. The cell
    /// does not open again.
    ///
    /// # Errors
    /// The place failed.
    fn destroy(&mut self) -> Result<(), CellError>;
}

/// Which cell a deployment has.
#[derive(Debug, Clone)]
pub enum CellPlace {
    /// A [`FileCell`].
    File {
        /// The file.
        path: PathBuf,
        /// File of the passphrase that it is under, if it is.
        passphrase: Option<PathBuf>,
    },
    /// A [`TokenCell`].
    Token(TokenPlace),
}

impl CellPlace {
    /// Opens the cell for this process alone.
    ///
    /// # Errors
    /// See [`FileCell::open_under`] and [`TokenCell::open`].
    pub fn open(&self) -> Result<Box<dyn RootCell>, CellError> {
        Ok(match self {
            Self::File { path, passphrase } => {
                let passphrase = passphrase.as_deref().map(Passphrase::read).transpose()?;
                Box::new(FileCell::open_under(path, passphrase.as_ref())?)
            }
            Self::Token(place) => Box::new(TokenCell::open(place)?),
        })
    }

    /// Whether the cell was being destroyed when something stopped it: a file that begins with
    /// zeros, a token without one of its keys. A file that is not there tells nothing: it may lie on
    /// a medium that is not mounted.
    #[must_use]
    pub fn is_half_destroyed(&self) -> bool {
        match self {
            Self::File { path, .. } => FileCell::is_half_destroyed(path),
            Self::Token(place) => TokenCell::is_half_destroyed(place),
        }
    }

    /// Destroys what is left of a cell that is half destroyed.
    ///
    /// # Errors
    /// It is not, or the place failed.
    pub fn destroy_rest(&self) -> Result<(), CellError> {
        match self {
            Self::File { path, .. } => FileCell::destroy_rest(path),
            Self::Token(place) => TokenCell::destroy_rest(place),
        }
    }

    /// Lets go of the name of a cell that is destroyed. It may have to stay: where a file is
    /// mounted, or the directory is somebody else's.
    pub fn remove_name(&self) {
        if let Self::File { path, .. } = self {
            FileCell::remove_name(path);
        }
    }

    /// Makes the cell, with a deployment key and the first ROOT.
    ///
    /// # Errors
    /// See [`FileCell::create_under`] and [`TokenCell::create`].
    pub fn create(&self) -> Result<Box<dyn RootCell>, CellError> {
        Ok(match self {
            Self::File { path, passphrase } => {
                let passphrase = passphrase.as_deref().map(Passphrase::read_new).transpose()?;
                Box::new(FileCell::create_under(path, passphrase.as_ref())?)
            }
            Self::Token(place) => Box::new(TokenCell::create(place)?),
        })
    }
}

impl fmt::Display for CellPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, passphrase: None } => path.display().fmt(f),
            Self::File { path, .. } => write!(f, "{}, under a passphrase", path.display()),
            Self::Token(place) => place.fmt(f),
        }
    }
}

/// Why a cell does not do what was asked.
#[derive(Debug, Error)]
pub enum CellError {
    /// Nobody began to destroy it.
    #[error("{} was not being destroyed", path.display())]
    NotDestroyed {
        /// The file.
        path: PathBuf,
    },
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
        "the secret in {} is open to others (mode {mode:03o}); run `chmod 600 {}`",
        path.display(), path.display()
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Another process holds it.
    #[error("another assent process uses the root key {}", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// Some other file.
    #[error("{} is not a root key file", path.display())]
    NotARootKey {
        /// The file.
        path: PathBuf,
    },
    /// Of an earlier version of this program.
    #[error(
        "the root key {} has the format of an earlier version, whose stores this one does not \
         open; make a new one with `assent keys init`, and enrol anew",
        path.display()
    )]
    OldFormat {
        /// The file.
        path: PathBuf,
    },
    /// Cut short, grown or altered.
    #[error(
        "the root key {} is damaged ({what}); bring back the newest intact one: an older one opens \
         the store only if nothing was erased since",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Which part of it.
        what: &'static str,
    },
    /// The disk or its permissions.
    #[error("the root key {} cannot be read or written", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Sealed, and no passphrase at hand.
    #[error(
        "the root key {} is under a passphrase; name the passphrase's file in \
         keys.passphrase_file (--passphrase-file)",
        path.display()
    )]
    PassphraseMissing {
        /// The file.
        path: PathBuf,
    },
    /// A passphrase, and nothing sealed.
    #[error(
        "the root key {} is under no passphrase, and one is given; put it under one with `assent \
         keys passphrase`, or give none",
        path.display()
    )]
    PassphraseUnused {
        /// The file.
        path: PathBuf,
    },
    /// Sealed under another.
    #[error("the passphrase does not open the root key {}", path.display())]
    PassphraseWrong {
        /// The file.
        path: PathBuf,
    },
    /// The file of a passphrase or PIN.
    #[error("the passphrase or PIN in {} cannot be read", path.display())]
    SecretFile {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Nothing in it.
    #[error("the first line of {} is empty; it is to hold the passphrase or PIN", path.display())]
    SecretEmpty {
        /// The file.
        path: PathBuf,
    },
    /// Too easy to guess.
    #[error("the passphrase in {} is shorter than {least} bytes", path.display())]
    SecretShort {
        /// The file.
        path: PathBuf,
        /// Shortest that is taken.
        least: usize,
    },
    /// Argon2 or the seal.
    #[error("the passphrase cannot be used: {what}")]
    Stretching {
        /// What it said.
        what: String,
    },
    /// A PKCS#11 module or its token.
    #[error("{place}: {doing} failed")]
    Token {
        /// Which.
        place: TokenPlace,
        /// What was tried.
        doing: &'static str,
        /// What the module said.
        source: Box<cryptoki::error::Error>,
    },
    /// A token that does not hold what a cell is.
    #[error("{place}: {what}")]
    TokenContent {
        /// Which.
        place: TokenPlace,
        /// What is wrong, and what to do.
        what: &'static str,
    },
    /// Not an epoch to come, or a replacement is under way.
    #[error("a ROOT of epoch {epoch} cannot be prepared now")]
    NotNext {
        /// The epoch asked for.
        epoch: Epoch,
    },
    /// No such ROOT.
    #[error("the root cell holds no ROOT of epoch {epoch}")]
    NoSuchEpoch {
        /// The epoch asked for.
        epoch: Epoch,
    },
    /// No randomness.
    #[error(transparent)]
    Random(#[from] RandomError),
}
