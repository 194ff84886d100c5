//! What the store holds about one person under one consent.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::consent::ConsentRecord;
use crate::crypto::OpenError;
use crate::types::{Embedding, ModelContract, RecordId, SubjectRef, Timestamp};

/// A record's header: everything but the face.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredRecord {
    /// The record.
    pub id: RecordId,
    /// Whose it is.
    pub subject: SubjectRef,
    /// The consent that it is held under.
    pub consent: ConsentRecord,
    /// The embedding space of the template.
    pub model: ModelContract,
    /// How often the template was replaced.
    pub generation: u32,
    /// How many frames the template was fused from.
    pub frames: u32,
    /// When it was enrolled.
    pub enrolled_at: Timestamp,
}

/// A record with its template, opened.
#[derive(Debug, Clone)]
pub struct OpenedRecord {
    /// The header.
    pub record: StoredRecord,
    /// The face.
    pub template: Embedding,
}

/// Why one record does not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RecordFault {
    /// No record key.
    #[error("its key is missing")]
    KeyMissing,
    /// The page that its key lies in does not open.
    #[error("the page of its key does not open")]
    Key(#[source] OpenError),
    /// The page that its key lies in is lost.
    #[error("the page of its key is damaged")]
    KeyPage,
    /// No header.
    #[error("its header is missing")]
    HeaderMissing,
    /// The header does not open.
    #[error("its header does not open")]
    Header(#[source] OpenError),
    /// The header opened to something unknown.
    #[error("its header is malformed or of another version")]
    HeaderMalformed,
    /// No template.
    #[error("its template is missing")]
    TemplateMissing,
    /// The template does not open under this header.
    #[error("its template does not open under its header")]
    Template(#[source] OpenError),
    /// The template opened to no embedding.
    #[error("its template is malformed")]
    TemplateMalformed,
    /// The template is of another embedding space than the store.
    #[error("its template is of another model")]
    OtherModel,
    /// The enrolment's answer does not open.
    #[error("the answer to its enrolment does not open")]
    Answer(#[source] OpenError),
    /// The enrolment's answer opened to something unknown.
    #[error("the answer to its enrolment is malformed")]
    AnswerMalformed,
}
