//! Searching: from a grant and a probe to candidates, and from a candidate to a match.
//!
//! # Invariants
//! - Rows are read, and the generations of those found are taken, under one hold of the lock: a
//!   candidate names the template that was compared, never a later one in its place.
//! - What a search returns has been compared by its codes and reaches the floor.

use std::cmp::Ordering;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::found::{Candidate, Found, Match, Query};
use super::gather::{BatchFailed, Term, Told};
use super::planner::{Plan, Route, Way};
use super::scan::{Search, Spread};
use super::state::State;
use super::{Index, IndexError};
use crate::consent::Grant;
use crate::telemetry;
use crate::types::{Embedding, Similarity, SubjectRef, Timestamp};

/// Searches that should take less run alone: to wait for company would cost more than it saves.
const LONE: Duration = Duration::from_micros(40);
/// Longest repetition of an answer that need not make way for others.
const SHORT: Duration = Duration::from_micros(400);
/// Batches that should take more are spread over the cores. While a shorter one runs the other
/// cores have requests to receive and answers to write, and would only take turns with it.
const SPREAD: Duration = Duration::from_millis(2);

/// Runs work on a thread that may block.
pub type Pool = fn(Box<dyn FnOnce() + Send>);
/// Hears the outcome of a search.
pub type Done = Box<dyn FnOnce(Result<Found, IndexError>) + Send>;

/// A search that may wait for company.
pub(super) struct Gathered {
    search: Search,
    route: Route,
    cost: Duration,
    /// What repeating it exactly should take.
    repetition: Duration,
}

impl Gathered {
    fn gathers(&self) -> bool {
        self.cost > LONE && self.route.way() != Way::Graph
    }
}

/// A search whose caller does other things meanwhile.
struct Errand {
    index: Arc<Index>,
    pool: Pool,
    call: Arc<Gathered>,
    /// Until it has heard.
    done: Option<Done>,
}

impl Errand {
    fn hear(&mut self, told: Told<Result<Found, IndexError>>) {
        match told {
            Told::Leads => self.index.lend_thread(self.pool),
            Told::Fate(fate) => self.finish(fate.unwrap_or(Err(IndexError::Interrupted))),
        }
    }

    fn run_alone(&mut self) {
        self.finish(self.index.alone(&self.call));
    }

    fn finish(&mut self, found: Result<Found, IndexError>) {
        let Some(done) = self.done.take() else { return };
        match found {
            Ok(mut found) if self.index.is_to_be_repeated(&self.call) => {
                let (index, call) = (Arc::clone(&self.index), Arc::clone(&self.call));
                let repeat = move || done(index.second_opinion(&call, &mut found).map(|()| found));
                (self.pool)(Box::new(repeat));
            }
            found => done(found),
        }
    }
}

impl Index {
    /// 1:N: the `k` templates most similar to the probe among those of the granted classes that
    /// match at `now` and reach the floor.
    ///
    /// # Errors
    /// A probe of another width, or a poisoned index.
    pub fn search(
        &self,
        grant: &Grant,
        query: &Query<'_>,
        now: Timestamp,
    ) -> Result<Found, IndexError> {
        debug_assert!(rayon::current_thread_index().is_none(), "no search on a rayon worker");
        let call = self.call(grant, query, now)?;
        let mut found = if call.gathers() {
            let answer = self.gather.call(Arc::clone(&call), |calls| self.answer(calls));
            answer.map_err(|BatchFailed| IndexError::Interrupted)??
        } else {
            self.alone(&call)?
        };
        if self.is_to_be_repeated(&call) {
            self.second_opinion(&call, &mut found)?;
        }
        Ok(found)
    }

    /// As [`Index::search`] for a caller whose thread must not wait: `done` hears the outcome. What
    /// takes time runs on a thread of `pool`, all searches that gather on one.
    pub fn search_on(
        self: &Arc<Self>,
        pool: Pool,
        grant: &Grant,
        query: &Query<'_>,
        now: Timestamp,
        done: Done,
    ) {
        let call = match self.call(grant, query, now) {
            Ok(call) => call,
            Err(fault) => return done(Err(fault)),
        };
        let mut errand =
            Errand { index: Arc::clone(self), pool, call: Arc::clone(&call), done: Some(done) };
        if !call.gathers() {
            pool(Box::new(move || errand.run_alone()));
        } else if self.gather.join(call, Box::new(move |told| errand.hear(told))) {
            self.lend_thread(pool);
        }
    }

    fn lend_thread(self: &Arc<Self>, pool: Pool) {
        let index = Arc::clone(self);
        pool(Box::new(move || index.gather.lead(Term::Open, |calls| index.answer(calls))));
    }

    fn call(
        &self,
        grant: &Grant,
        query: &Query<'_>,
        now: Timestamp,
    ) -> Result<Arc<Gathered>, IndexError> {
        self.fits(query.probe)?;
        let probe = self.quantiser.probe(query.probe);
        let state = self.read()?;
        let search = state.search(grant, query, probe, now);
        let outlook = state.outlook(&search);
        let (route, cost) = self.planner.route(outlook);
        let repetition = self.planner.repetition(outlook);
        Ok(Arc::new(Gathered { search, route, cost, repetition }))
    }

    fn alone(&self, call: &Gathered) -> Result<Found, IndexError> {
        Ok(self.one(&*self.read()?, call, Spread::Caller))
    }

    /// Counts an answer; whether it is to be repeated exactly.
    fn is_to_be_repeated(&self, call: &Gathered) -> bool {
        telemetry::searched(call.route.way().name());
        call.route.way() != Way::Exact && self.planner.canary().is_due()
    }

    /// 1:N through the graph alone, with a given `ef`: for measuring it. Without a graph, or before
    /// a row is linked, nobody is found.
    ///
    /// # Errors
    /// As for [`Index::search`].
    pub fn search_graph(
        &self,
        grant: &Grant,
        query: &Query<'_>,
        ef: usize,
        now: Timestamp,
    ) -> Result<Found, IndexError> {
        self.fits(query.probe)?;
        let probe = self.quantiser.probe(query.probe);
        let state = self.read()?;
        let search = state.search(grant, query, probe, now);
        Ok(state.found(&search, &state.walk(self.tools(), &search, ef), Way::Graph))
    }

    /// 1:1: every template of `subject` in the granted classes that matches at `now`.
    ///
    /// # Errors
    /// A probe of another width, or a poisoned index. An unknown subject is no error: nothing is
    /// found.
    pub fn compare(
        &self,
        grant: &Grant,
        subject: &SubjectRef,
        probe: &Embedding,
        now: Timestamp,
    ) -> Result<Found, IndexError> {
        self.fits(probe)?;
        let probe = self.quantiser.probe(probe);
        let state = self.read()?;
        let gallery = state.gallery(self.kernels);
        let rows = state.catalogue.rows_of_subject(grant, subject);
        let live = rows.iter().filter(|row| now < state.catalogue.matches_until()[**row as usize]);
        let candidate = |row: &u32| {
            let similarity = Similarity::new(gallery.score(probe.bare(), *row));
            Candidate::new(state.catalogue.slot_id(*row), similarity)
        };
        let mut candidates: Vec<Candidate> = live.map(candidate).collect();
        candidates.sort_by(rank);
        Ok(Found { searched: candidates.len(), candidates, way: Way::Exact })
    }

    /// The proof that may leave the process: `candidate` still stands for the template that was
    /// compared, and its class is granted and its consent live at `now`.
    #[must_use]
    pub fn confirm(&self, grant: &Grant, candidate: &Candidate, now: Timestamp) -> Option<Match> {
        let slot = (candidate.slot(), candidate.similarity());
        self.read().ok()?.catalogue.confirm(grant, slot, now)
    }

    /// Which way serves searches under a grant that want `floor`, and why.
    #[must_use]
    pub fn plan(&self, grant: &Grant, floor: Similarity) -> Plan {
        let state = self.read_anyway();
        let classes = state.catalogue.compile(grant);
        self.planner.explain(state.outlook_of(&classes, floor.get()))
    }

    /// Whether a search under a grant that wants `floor` is over at once: it waits for no other
    /// search, and even where its answer is repeated it may run where others must not wait for it.
    #[must_use]
    pub fn is_brief(&self, grant: &Grant, floor: Similarity) -> bool {
        let state = self.read_anyway();
        let outlook = state.outlook_of(&state.catalogue.compile(grant), floor.get());
        self.planner.route(outlook).1 <= LONE && self.planner.repetition(outlook) <= SHORT
    }

    /// Templates in the granted classes, expired ones that are not yet erased included.
    #[must_use]
    pub fn live_templates(&self, grant: &Grant) -> usize {
        let state = self.read_anyway();
        state.catalogue.live_in(&state.catalogue.compile(grant))
    }

    /// Answers calls that have gathered: those of one way go through the gallery together.
    fn answer(&self, calls: &[&Arc<Gathered>]) -> Vec<Result<Found, IndexError>> {
        let Ok(state) = self.read() else {
            return calls.iter().map(|_| Err(IndexError::Poisoned)).collect();
        };
        let total: Duration = calls.iter().map(|call| call.cost).sum();
        let spread = if total > SPREAD { Spread::Pool } else { Spread::Caller };
        if let [call] = calls {
            return vec![Ok(self.one(&state, call, spread))];
        }
        let mut answers: Vec<_> = calls.iter().map(|_| None).collect();
        for way in [Way::Exact, Way::Sketch] {
            let of_way = |call: &Arc<Gathered>| call.route.way() == way;
            let members = calls.iter().enumerate().filter(|(_, call)| of_way(call));
            let (places, members): (Vec<_>, Vec<&Gathered>) =
                members.map(|(place, call)| (place, &***call)).unzip();
            let found = self.scan(&state, &members, spread);
            for (place, found) in places.into_iter().zip(found) {
                answers[place] = Some(Ok(found));
            }
        }
        answers.into_iter().map(|answer| answer.unwrap_or(Err(IndexError::Interrupted))).collect()
    }

    fn one(&self, state: &State, call: &Gathered, spread: Spread) -> Found {
        let Route::Graph { ef } = call.route else {
            let mut found = self.scan(state, &[call], spread);
            return found.pop().unwrap_or_else(|| Found::nothing(call.route.way()));
        };
        state.found(&call.search, &state.walk(self.tools(), &call.search, ef), Way::Graph)
    }

    /// Scans for calls of one way.
    fn scan(&self, state: &State, calls: &[&Gathered], spread: Spread) -> Vec<Found> {
        let Some(first) = calls.first() else { return Vec::new() };
        let searches: Vec<&Search> = calls.iter().map(|call| &call.search).collect();
        let gallery = state.gallery(self.kernels);
        let way = first.route.way();
        let hits = if way == Way::Sketch {
            let cuts = searches.iter().map(|search| self.planner.cut(search.floor));
            gallery.sketch(&searches, &cuts.collect::<Vec<_>>(), spread)
        } else {
            gallery.exact(&searches, spread)
        };
        let found = searches.iter().zip(&hits).map(|(search, hits)| state.found(search, hits, way));
        found.collect()
    }

    /// Repeats a search exactly and takes the better answer. The lock is taken anew for each
    /// spell, so that nobody who writes waits for the whole scan. Where it is long, it rests between
    /// spells for as long as they take: a core that is taken for all of it would be felt by a
    /// hundred requests.
    fn second_opinion(&self, call: &Gathered, found: &mut Found) -> Result<(), IndexError> {
        let mut best: Vec<Candidate> = Vec::new();
        for spell in 0.. {
            let state = self.read()?;
            let begun = Instant::now();
            let (hits, more) = state.gallery(self.kernels).exact_spell(&call.search, spell);
            best.extend(state.found(&call.search, &hits, Way::Exact).candidates);
            if !more {
                break;
            }
            drop(state);
            if call.repetition > SHORT {
                thread::sleep(begun.elapsed());
            }
        }
        best.sort_by(rank);
        // Groups may have moved between spells, and a row been compared twice.
        best.dedup_by_key(|candidate| candidate.slot());
        best.truncate(call.search.keep);
        let Some(mate) = best.first() else { return Ok(()) };
        let served = found.candidates.first();
        let was_found = served.is_some_and(|hit| hit.similarity() >= mate.similarity());
        if self.planner.canary().saw(call.route.way(), was_found) {
            self.planner.distrust(call.route);
        }
        if !was_found {
            found.candidates = best;
        }
        Ok(())
    }
}

/// Best first; equal ones by slot.
fn rank(one: &Candidate, other: &Candidate) -> Ordering {
    let by_similarity = other.similarity().get().total_cmp(&one.similarity().get());
    by_similarity.then(one.slot().index.cmp(&other.slot().index))
}

#[cfg(test)]
mod tests {
    use super::super::testkit::{Random, grant, now, settings, template};
    use super::super::{IndexSettings, PlanSetting};
    use super::*;

    const WIDTH: usize = 128;

    /// What a way missed is found by its repetition, in whichever spell it is met.
    #[test]
    fn a_repetition_in_many_spells_finds_what_was_missed() {
        let index =
            Index::new(IndexSettings { plan: PlanSetting::Sketch, ..settings(WIDTH) }).unwrap();
        let mut random = Random::new(27);
        let faces: Vec<Embedding> = (0..20_000).map(|_| random.embedding(WIDTH)).collect();
        for (n, face) in (0..).zip(&faces) {
            index.load(template(n, 0), face).unwrap();
        }
        for probe in faces.iter().step_by(1_000) {
            let query = Query { probe, k: 1, floor: Similarity::new(0.6) };
            let call = index.call(&grant([0]), &query, now()).unwrap();
            let mut found = Found::nothing(Way::Sketch);
            index.second_opinion(&call, &mut found).unwrap();
            assert_eq!(
                found.candidates,
                index.search(&grant([0]), &query, now()).unwrap().candidates
            );
            assert_eq!(found.candidates.len(), 1);
            let state = index.state.read().unwrap();
            let more = |spell| state.gallery(index.kernels).exact_spell(&call.search, spell).1;
            assert_eq!([0, 1, 2, 3].map(more), [true, true, false, false]);
        }
    }
}
