//! What the index reports about itself.

use super::kernel::Kernel;
use crate::consent::ClassKey;
use crate::types::ControllerId;

/// The index at one instant.
#[derive(Debug, Clone, PartialEq, Eq)]
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
    /// The distance kernel in use.
    pub kernel: Kernel,
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
