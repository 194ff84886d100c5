//! From an embedding to a decision: what is looked for in the index, and what is made of it.
//!
//! # Invariants
//! - A match was confirmed under the gate's grant of that moment, and so was the rival that stands
//!   against it: whoever withdrew neither matches nor stands in anybody's way.
//! - Where the gate has a margin, a search shows the best subject's nearest rival, however many
//!   templates the best subject has.

use tokio::sync::oneshot;

use super::Engine;
use super::verdict::{Decision, VerifyError};
use crate::consent::{GatePass, Grant};
use crate::index::{Candidate, Found, Match, Query};
use crate::types::{Embedding, Revision, Similarity, SubjectRef, Timestamp};

/// Candidates asked of the index: the best one and those behind it, should it die before emission.
const CANDIDATES: usize = 4;
/// The same where two subjects are wanted.
const CANDIDATES_OF_TWO: usize = 16;
/// So many times more, when all of those are of one subject.
const WIDER: usize = 8;

impl Engine {
    /// The templates that are to be decided about: 1:1 those of the claimed subject, 1:N the best
    /// that reach the threshold, and with a margin those that could stand against a match.
    pub(super) async fn find(
        &self,
        pass: &GatePass,
        claimed: Option<&SubjectRef>,
        embedding: Embedding,
        threshold: Similarity,
    ) -> Result<Found, VerifyError> {
        let now = self.now();
        if let Some(subject) = claimed {
            return Ok(self.index.compare(pass.grant(), subject, &embedding, now)?);
        }
        let floor = floor(pass, threshold);
        if pass.gate().margin.is_none() {
            return self.search(pass.grant(), embedding, CANDIDATES, floor, now).await;
        }
        let mut k = CANDIDATES_OF_TWO;
        loop {
            let found = self.search(pass.grant(), embedding.clone(), k, floor, now).await?;
            if found.candidates.len() < k || self.shows_two(pass.grant(), &found, now) {
                return Ok(found);
            }
            k = k.saturating_mul(WIDER);
        }
    }

    /// 1:N, on this thread when it is short and on another one when it is not: the `k` best
    /// templates that reach `floor`.
    pub(super) async fn search(
        &self,
        grant: &Grant,
        probe: Embedding,
        k: usize,
        floor: Similarity,
        now: Timestamp,
    ) -> Result<Found, VerifyError> {
        if self.index.is_brief(grant, floor) {
            return Ok(self.index.search(grant, &Query { probe: &probe, k, floor }, now)?);
        }
        let (tell, told) = oneshot::channel();
        let done = Box::new(move |found| drop(tell.send(found)));
        let pool = |work| drop(tokio::task::spawn_blocking(work));
        self.index.search_on(pool, grant, &Query { probe: &probe, k, floor }, now, done);
        // Nobody tells when a search panicked.
        told.await.map_or(Err(VerifyError::Internal), |found| Ok(found?))
    }

    /// The best candidate above the threshold that may still match: consent, expiry and slot are
    /// looked at once more, and the gate's grant is taken anew, because the policy may have
    /// changed since the search began. With a margin, nobody where a second subject is too near.
    /// With the decision, the revision of the policy that it rests on.
    pub(super) fn decide(
        &self,
        pass: &GatePass,
        threshold: Similarity,
        found: &Found,
    ) -> (Decision, Revision) {
        let standing = self.policy();
        let today = standing.open_gate(&pass.gate().id);
        let decision = today
            .map_or(Decision::NoMatch, |today| self.decide_under(&today, pass, threshold, found));
        (decision, standing.revision)
    }

    fn decide_under(
        &self,
        today: &GatePass,
        pass: &GatePass,
        threshold: Similarity,
        found: &Found,
    ) -> Decision {
        if !today.gate().face_enabled {
            return Decision::FaceDisabled;
        }
        let now = self.now();
        let confirmed = |candidate: &Candidate| self.index.confirm(today.grant(), candidate, now);
        let mut candidates = found.candidates.iter();
        let mut matching =
            candidates.by_ref().take_while(|candidate| candidate.similarity() >= threshold);
        let Some(best) = matching.find_map(confirmed) else { return Decision::NoMatch };
        // `take_while` stops at the match, so what is left are those behind it.
        let has_rival = pass.gate().margin.is_some_and(|margin| {
            let near = |candidate: &&Candidate| {
                f64::from(best.similarity().get() - candidate.similarity().get()) < margin.get()
            };
            let mut rivals = candidates.take_while(near).filter_map(confirmed);
            rivals.any(|rival| !is_same_subject(&best, &rival))
        });
        if has_rival { Decision::Ambiguous } else { Decision::Match(best) }
    }

    /// Whether candidates of two subjects are among those found.
    fn shows_two(&self, grant: &Grant, found: &Found, now: Timestamp) -> bool {
        let confirmed = |candidate| self.index.confirm(grant, candidate, now);
        let mut live = found.candidates.iter().filter_map(confirmed);
        live.next().is_some_and(|best| live.any(|other| !is_same_subject(&best, &other)))
    }
}

/// The least similarity that matters to a decision at the gate.
pub(super) fn floor(pass: &GatePass, threshold: Similarity) -> Similarity {
    #[expect(clippy::cast_possible_truncation, reason = "cosines are compared as f32")]
    let margin = pass.gate().margin.map_or(0.0, |margin| margin.get() as f32);
    Similarity::new(threshold.get() - margin)
}

/// Two controllers may call two people the same.
fn is_same_subject(one: &Match, other: &Match) -> bool {
    one.subject() == other.subject() && one.tag().class.controller == other.tag().class.controller
}
