//! What an operator chooses about the index.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use super::kernel::Kernel;
use super::planner::PlanSetting;
use super::rotation::RotationKey;

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
    /// What the rows' rotation is drawn from.
    pub rotation: RotationKey,
    /// Whether the arena must be locked.
    pub lock: LockMode,
    /// The kernel; `None` takes the fastest that this processor has.
    pub kernel: Option<Kernel>,
    /// Which way searches go.
    pub plan: PlanSetting,
    /// How the graph is made; `None` for no graph.
    pub graph: Option<GraphSettings>,
    /// One answer of so many is repeated by exact scan; 0 for none.
    pub canary_every: u64,
}

impl IndexSettings {
    /// What serves by default: scans, no graph, locked as far as allowed.
    #[must_use]
    pub fn new(width: usize, rotation: RotationKey) -> Self {
        IndexOptions::default().settings(width, rotation)
    }
}

/// What an operator writes under `[index]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct IndexOptions {
    /// "best-effort" or "required".
    pub lock: LockMode,
    /// "auto", "exact", "sketch" or "graph".
    pub plan: PlanSetting,
    /// Whether a graph is kept.
    pub graph: bool,
    /// Links that a new row makes on a level of the graph.
    pub graph_links: usize,
    /// Rows in sight while it looks for them.
    pub graph_effort: usize,
    /// One answer of so many is repeated by exact scan; 0 for none.
    pub canary_every: u64,
}

impl Default for IndexOptions {
    fn default() -> Self {
        let GraphSettings { links, effort } = GraphSettings::default();
        Self {
            lock: LockMode::default(),
            plan: PlanSetting::default(),
            graph: false,
            graph_links: links,
            graph_effort: effort,
            canary_every: 1_000,
        }
    }
}

impl IndexOptions {
    /// The settings of an index of this width under this key.
    #[must_use]
    pub fn settings(&self, width: usize, rotation: RotationKey) -> IndexSettings {
        let graph = GraphSettings { links: self.graph_links, effort: self.graph_effort };
        IndexSettings {
            width,
            rotation,
            lock: self.lock,
            kernel: None,
            plan: self.plan,
            graph: self.graph.then_some(graph),
            canary_every: self.canary_every,
        }
    }
}

/// How the graph is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GraphSettings {
    /// Links that a new row makes on a level (HNSW's M), 4 to 64.
    pub links: usize,
    /// Rows in sight while it looks for them (`efConstruction`), 16 to 4,096.
    pub effort: usize,
}

impl GraphSettings {
    /// Links that a row can be given.
    pub const LINKS: RangeInclusive<usize> = 4..=64;
    /// Effort that can be spent on a new row.
    pub const EFFORT: RangeInclusive<usize> = 16..=4_096;
}

impl Default for GraphSettings {
    fn default() -> Self {
        Self { links: 16, effort: 128 }
    }
}
