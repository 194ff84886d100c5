//! What goes into the index and what comes out of it.

use super::planner::Way;
use crate::consent::ConsentTag;
use crate::types::{Embedding, RecordId, Similarity, SlotId, SubjectRef, Timestamp};

/// All that belongs to a template but the embedding itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewTemplate {
    /// The record.
    pub record: RecordId,
    /// Whose face it is.
    pub subject: SubjectRef,
    /// The consent that covers it; its class says who may search it.
    pub consent: ConsentTag,
    /// The instant from which on it does not match.
    pub matches_until: Timestamp,
}

/// What a 1:N search looks for.
#[derive(Debug, Clone, Copy)]
pub struct Query<'a> {
    /// The probe.
    pub probe: &'a Embedding,
    /// How many templates are wanted at most.
    pub k: usize,
    /// The least cosine that is wanted: the threshold of the operating point. The higher it is,
    /// the cheaper is the search; at -1 the `k` best are wanted whatever they are.
    pub floor: Similarity,
}

/// The answer to a search.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// Templates by falling similarity. A subject with several templates may stand here several
    /// times.
    pub candidates: Vec<Candidate>,
    /// Templates among which the search went: the N of FPIR.
    pub searched: usize,
    /// How it went.
    pub way: Way,
}

impl Found {
    pub(super) fn nothing(way: Way) -> Self {
        Self { candidates: Vec::new(), searched: 0, way }
    }
}

/// A template that resembles the probe. It says nothing of the person: [`Index::confirm`] turns
/// it into a [`Match`] if it still may be one.
///
/// [`Index::confirm`]: super::Index::confirm
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Candidate {
    slot: SlotId,
    similarity: Similarity,
}

impl Candidate {
    pub(super) fn new(slot: SlotId, similarity: Similarity) -> Self {
        Self { slot, similarity }
    }

    /// Where the template was when it was compared.
    #[must_use]
    pub fn slot(&self) -> SlotId {
        self.slot
    }

    /// How similar it is to the probe.
    #[must_use]
    pub fn similarity(&self) -> Similarity {
        self.similarity
    }
}

/// The proof that a template matched under a consent that was live and granted when it was
/// confirmed. What leaves the process is made from one.
#[derive(Debug, Clone, PartialEq)]
pub struct Match {
    record: RecordId,
    subject: SubjectRef,
    tag: ConsentTag,
    similarity: Similarity,
}

impl Match {
    /// The one constructor: called where a candidate was just confirmed.
    pub(super) fn proven(
        record: RecordId,
        subject: SubjectRef,
        tag: ConsentTag,
        similarity: Similarity,
    ) -> Self {
        Self { record, subject, tag, similarity }
    }

    /// The record that matched.
    #[must_use]
    pub fn record(&self) -> RecordId {
        self.record
    }

    /// Whose face it is.
    #[must_use]
    pub fn subject(&self) -> &SubjectRef {
        &self.subject
    }

    /// The consent that allows the match.
    #[must_use]
    pub fn tag(&self) -> &ConsentTag {
        &self.tag
    }

    /// How similar template and probe are.
    #[must_use]
    pub fn similarity(&self) -> Similarity {
        self.similarity
    }
}
