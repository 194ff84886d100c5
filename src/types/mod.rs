//! Vocabulary shared by all modules: identifiers, time, embeddings, quality, limits.
//!
//! # Invariants
//! - Depends on no other module and does no I/O.
//! - A value that exists is valid: constructors parse, nobody validates later.
//! - What is secret (embeddings) has no `Debug` of its content, no `Serialize`, and is zeroised
//!   when dropped.

mod embedding;
mod identifiers;
mod limits;
mod personal;
mod quality;
mod time;

pub use embedding::{Embedding, EmbeddingError, Similarity};
pub use identifiers::{
    CallerName, ConsentId, ControllerId, GateId, IdempotencyKey, InvalidText, ModelContract,
    NoticeId, NoticeVersion, Purpose, RecordId, Revision, Scope, ShortText, SlotId, SubjectRef,
    TextFault,
};
pub use limits::Limits;
pub use personal::{PersonalIdentifier, personal_identifier};
pub use quality::{Quality, QualityReason};
pub use time::{InvalidTime, Timestamp};
