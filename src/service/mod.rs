//! The wire: gRPC in, use cases called, gRPC out. The only module that names tonic or prost.
//!
//! # Invariants
//! - Every request is admitted from its head by the `door`, before its body is read, and every
//!   handler begins with `Shared::admit`, which returns the `Caller` as a
//!   value: no use case is reached without one.
//! - Every RPC has a line in [`access`]; one without it does not build.
//! - Every error goes through `fault`; what is internal leaves as a request id and no more.
//! - Every reply to a gate, errors included, names the ways in that need no face.
//! - Frames and embeddings are moved from the message into buffers that are zeroised.

mod access;
mod admission;
mod caller;
pub mod client;
mod door;
mod enrollment;
mod fault;
mod filing;
mod from_wire;
mod gate;
pub mod json;
mod listener;
mod never_alone;
mod notices;
mod operator;
mod serving;
mod shared;
mod to_wire;
pub mod verify_client;
mod wiped_body;
mod words;

/// The generated messages, clients and servers of package assent.v1.
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::pedantic,
    clippy::large_enum_variant,
    clippy::wildcard_enum_match_arm,
    clippy::allow_attributes_without_reason,
    reason = "generated code"
)]
pub mod proto {
    tonic::include_proto!("assent.v1");

    /// The encoded descriptors of the package and its imports.
    pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/assent.v1.bin"));
}

include!(concat!(env!("OUT_DIR"), "/rpc.rs"));

pub use access::{Access, access};
pub use caller::{CallerRule, CallerRuleFault, Callers, Role};
pub use listener::Listener;
/// A time on the wire.
pub use prost_types::Timestamp as WireTime;
pub use serving::{ServiceError, Serving, TlsMaterial};
pub use shared::{Phase, Shared};
pub(crate) use words::for_people;
