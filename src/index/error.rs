//! Why the index refused.

use thiserror::Error;

use super::kernel::Kernel;
use crate::types::{RecordId, SlotId};

/// Why the index refused.
#[derive(Debug, Error)]
pub enum IndexError {
    /// No index of that width can be made.
    #[error("an index of {width} dimensions cannot be made; 128 to 1024 can")]
    UnsupportedWidth {
        /// The width asked for, dimensions.
        width: usize,
    },
    /// The kernel named in the settings does not run here.
    #[error("this processor does not run the {} kernel", kernel.name())]
    KernelUnavailable {
        /// The kernel named.
        kernel: Kernel,
    },
    /// An embedding of another width.
    #[error("an embedding of {found} dimensions does not fit an index of {expected}")]
    Width {
        /// The index's width, dimensions.
        expected: usize,
        /// The embedding's width, dimensions.
        found: usize,
    },
    /// The record has a template already.
    #[error("record {record} is held already")]
    RecordHeld {
        /// The record.
        record: RecordId,
    },
    /// The consent has a template already: one consent, one record.
    #[error("the consent is held already, by record {record}")]
    ConsentHeld {
        /// The record that has it.
        record: RecordId,
    },
    /// A template cannot go back to the slot that it had.
    #[error("slot {} is not free for this template", slot.index)]
    SlotTaken {
        /// The slot.
        slot: SlotId,
    },
    /// Every slot number is used or retired.
    #[error("the index has no slot left")]
    Full,
    /// The kernel gave no memory.
    #[error("no memory for more templates")]
    Memory(#[source] std::io::Error),
    /// Memory could not be locked and the settings demand it.
    #[error(
        "the arena cannot be locked in RAM at {wanted_bytes} bytes: raise RLIMIT_MEMLOCK \
         (`ulimit -l`, LimitMEMLOCK= in systemd), or set index.lock = \"best-effort\""
    )]
    Unlocked {
        /// Size that the arena was to have, bytes.
        wanted_bytes: usize,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
    /// A snapshot that was made by another index: of another width, key or version.
    #[error("the snapshot is of another width, rotation key or version; rebuild from the store")]
    ForeignSnapshot,
    /// No threads for the graph.
    #[error("no threads for the graph: {0}")]
    Threads(#[source] rayon::ThreadPoolBuildError),
    /// The batch that the search was part of broke off; another try may do.
    #[error("the search was interrupted by a fault in another one")]
    Interrupted,
    /// A graph that cannot be made.
    #[error(
        "a graph of {links} links with effort {effort} cannot be made; 4 to 64 and 16 to 4096 can"
    )]
    UnsupportedGraph {
        /// Links of a row.
        links: usize,
        /// Rows in sight.
        effort: usize,
    },
    /// A writer panicked half-way. The index answers nothing from then on and must be rebuilt.
    #[error("the index is poisoned by an earlier fault and must be rebuilt")]
    Poisoned,
}

impl IndexError {
    /// Whether the machine is at fault and not the template.
    pub(super) fn is_of_the_machine(&self) -> bool {
        match self {
            Self::Memory(_) | Self::Unlocked { .. } | Self::Threads(_) | Self::Poisoned => true,
            Self::UnsupportedWidth { .. }
            | Self::KernelUnavailable { .. }
            | Self::Width { .. }
            | Self::RecordHeld { .. }
            | Self::ConsentHeld { .. }
            | Self::SlotTaken { .. }
            | Self::Full
            | Self::Interrupted
            | Self::UnsupportedGraph { .. }
            | Self::ForeignSnapshot => false,
        }
    }
}
