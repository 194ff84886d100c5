//! What the process refuses to the outside before it holds a secret.

use rustix::process::{
    DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit,
};

use crate::memory;

/// A small C heap, no core dumps, no ptrace by others, and as much lockable memory as the system
/// allows. Each step that the system refuses is logged; none is fatal.
pub fn harden() {
    memory::gather();
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    if let Err(fault) = setrlimit(Resource::Core, none) {
        tracing::warn!(%fault, "core dumps could not be switched off");
    }
    if let Err(fault) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        tracing::warn!(%fault, "the process could not be made undumpable");
    }
    let hard = getrlimit(Resource::Memlock).maximum;
    if let Err(fault) = setrlimit(Resource::Memlock, Rlimit { current: hard, maximum: hard }) {
        tracing::warn!(%fault, "the limit on locked memory could not be raised to its maximum");
    }
}
