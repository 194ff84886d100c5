//! What the index reports about itself.

use super::kernel::Kernel;
use super::planner::{Recall, Way};
use crate::consent::ClassKey;
use crate::types::ControllerId;

/// The index at one instant.
#[derive(Debug, Clone, PartialEq)]
pub struct IndexStatus {
    /// Classes that have live templates.
    pub classes: Vec<ClassStatus>,
    /// Controllers that have live templates.
    pub controllers: Vec<ControllerStatus>,
    /// Live templates.
    pub live: usize,
    /// Distinct subjects, summed over controllers: a subject reference means something only to
    /// the controller that chose it.
    pub subjects: usize,
    /// Size of the arena, bytes.
    pub arena_bytes: usize,
    /// How much of it is locked in RAM and out of dumps, bytes.
    pub locked_bytes: usize,
    /// Whether all of it is.
    pub arena_locked: bool,
    /// Size of all that is known of the templates besides, bytes.
    pub catalogue_bytes: usize,
    /// The graph, where there is one.
    pub graph: Option<GraphStatus>,
    /// The kernel in use.
    pub kernel: Kernel,
    /// What repeated searches have shown of each way.
    pub recall: [(Way, Recall); 3],
}

/// The graph.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GraphStatus {
    /// Live templates that are linked.
    pub linked: usize,
    /// Size, bytes.
    pub bytes: usize,
    /// The `ef` that meets the recall target; `None` while it is not measured or none does.
    pub ef: Option<usize>,
}

/// One class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClassStatus {
    /// The class.
    pub class: ClassKey,
    /// Its live templates.
    pub live: usize,
}

/// One controller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControllerStatus {
    /// The controller.
    pub controller: ControllerId,
    /// Its distinct subjects.
    pub subjects: usize,
}
