//! The law as a pure state machine: notices, gates, consent records, grants, profiles.
//!
//! # Invariants
//! - No I/O and no clock: every function is given `now`.
//! - A [`Grant`] comes from a gate's policy or an admitted consent and from nowhere else; the
//!   index is searched with one or not at all.

mod grant;
mod record;
mod tag;

pub use grant::Grant;
pub use record::{
    AlternativeMethod, ConsentForm, ConsentRecord, Guardian, LawfulBasis, Sha256, SubjectClass,
};
pub use tag::{ClassKey, ConsentTag};
