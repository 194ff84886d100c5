//! What an operator chooses about the index.

use serde::{Deserialize, Serialize};

use super::kernel::Kernel;

/// Whether the arena must be locked in RAM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LockMode {
    /// Refuse to hold a template in memory that could be swapped out or dumped.
    Required,
    /// Lock what the limit allows and report the rest ([`IndexStatus`](super::IndexStatus)).
    #[default]
    BestEffort,
}

/// How an [`Index`](super::Index) is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexSettings {
    /// Dimensions of every embedding, 128 to 1,024; the model's contract says how many.
    pub width: usize,
    /// Whether the arena must be locked.
    pub lock: LockMode,
    /// The distance kernel; `None` takes the fastest that this processor has.
    pub kernel: Option<Kernel>,
}
