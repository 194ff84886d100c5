//! What the index's lock guards, and the steps that are taken under it.
//!
//! # Invariants
//! - A row is written before its catalogue entry makes it live, and linked into the graph only
//!   while it is live: both under the lock.
//! - Nobody reads while a row is erased: erasing takes the write side.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{PoisonError, RwLock};

use super::arena::Arena;
use super::catalogue::{Catalogue, ClassSet, GROUP_ROWS, Reuse};
use super::error::IndexError;
use super::found::{Candidate, Found, NewTemplate, Query};
use super::graph::{Graph, Near, Space};
use super::kernel::Kernels;
use super::planner::{Outlook, Way};
use super::quantise::{BareProbe, Probe, Quantiser, Row};
use super::scan::{Gallery, Hit, Search, scores};
use super::settings::GraphSettings;
use crate::consent::Grant;
use crate::types::{Similarity, SlotId, Timestamp};

/// What the lock guards.
pub(super) struct State {
    pub(super) arena: Arena,
    pub(super) catalogue: Catalogue,
    pub(super) graph: Option<Graph>,
    graph_settings: Option<GraphSettings>,
    /// Rows in use that the graph does not know yet.
    unlinked: AtomicUsize,
    /// Whether a graph is being made from saved links.
    relinking: bool,
    /// Rows erased while it is.
    erased: Vec<u32>,
}

/// The parts of the index that never change, as the steps need them.
#[derive(Clone, Copy)]
pub(super) struct Tools<'a> {
    pub(super) quantiser: &'a Quantiser,
    pub(super) kernels: Kernels,
}

impl State {
    /// An empty gallery.
    pub(super) fn new(arena: Arena, graph: Option<GraphSettings>) -> Self {
        Self {
            arena,
            catalogue: Catalogue::default(),
            graph: graph.map(Graph::new),
            graph_settings: graph,
            unlinked: AtomicUsize::new(0),
            relinking: false,
            erased: Vec::new(),
        }
    }

    /// Adds a template. The graph knows of it once [`State::link`] was called.
    pub(super) fn insert(
        &mut self,
        template: NewTemplate,
        row: &Row,
    ) -> Result<SlotId, IndexError> {
        let place = self.catalogue.vacancy(&template)?;
        self.reach(place)?;
        let slot = self.catalogue.occupy(place, template, self.arena.capacity())?;
        self.arena.write(place, row);
        *self.unlinked.get_mut() += 1;
        Ok(slot)
    }

    /// Adds a template at the slot that it had before a restart.
    pub(super) fn adopt(
        &mut self,
        slot: SlotId,
        template: NewTemplate,
        row: &Row,
    ) -> Result<(), IndexError> {
        self.reach(slot.index)?;
        self.catalogue.adopt(slot, template)?;
        self.arena.write(slot.index, row);
        *self.unlinked.get_mut() += 1;
        Ok(())
    }

    /// Links a live row into the graph, beside searches and other links. A slot that was withdrawn
    /// meanwhile is left alone.
    pub(super) fn link(&self, tools: Tools<'_>, slot: SlotId) {
        if let Some(graph) = &self.graph
            && self.catalogue.is_live(slot)
            && graph.insert(&self.space(tools), slot.index)
        {
            self.unlinked.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Zeroises, unlinks and releases a withdrawn row.
    pub(super) fn erase(&mut self, tools: Tools<'_>, row: u32, reuse: Reuse) {
        // First, so that a fault in what follows leaves nothing of the template: no repair compares
        // the row that goes.
        self.arena.zeroise(row);
        match &mut self.graph {
            Some(graph) if graph.holds(row) => {
                graph.remove(&Rows { arena: &self.arena, tools }, row);
            }
            Some(_) | None => *self.unlinked.get_mut() -= 1,
        }
        if self.relinking {
            self.erased.push(row);
        }
        self.catalogue.release(row, reuse);
    }

    /// Puts the graph away while another one is made from saved links; `None` where none is kept,
    /// or where another is being made already.
    pub(super) fn begin_relinking(&mut self) -> Option<GraphSettings> {
        let settings = self.graph_settings.filter(|_| !self.relinking)?;
        self.relinking = true;
        self.graph = None;
        self.count_unlinked();
        Some(settings)
    }

    /// Takes up the graph that was made, less the rows that were erased meanwhile; an empty one
    /// where none could be made.
    pub(super) fn end_relinking(&mut self, tools: Tools<'_>, made: Option<Graph>) {
        let mut graph = made.or_else(|| self.graph_settings.map(Graph::new));
        if let Some(graph) = &mut graph {
            graph.grow(self.arena.capacity());
            let space = Rows { arena: &self.arena, tools };
            for row in &self.erased {
                graph.remove(&space, *row);
            }
        }
        self.erased.clear();
        self.relinking = false;
        self.graph = graph;
        self.count_unlinked();
    }

    fn count_unlinked(&mut self) {
        let linked = |row: u32| self.graph.as_ref().is_some_and(|graph| graph.holds(row));
        let rows = 0..u32::try_from(self.catalogue.group_count()).unwrap_or(0) * GROUP_ROWS;
        let unlinked = rows.filter(|row| self.catalogue.is_used(*row) && !linked(*row)).count();
        *self.unlinked.get_mut() = unlinked;
    }

    /// Whether the graph knows every row.
    pub(super) fn graph_is_complete(&self) -> bool {
        self.graph.is_some() && self.unlinked.load(Ordering::Relaxed) == 0
    }

    /// What is searched.
    pub(super) fn gallery(&self, kernels: Kernels) -> Gallery<'_> {
        Gallery { arena: &self.arena, catalogue: &self.catalogue, kernels }
    }

    /// A query as a search among the granted classes. No more rows are wanted than there are.
    pub(super) fn search(
        &self,
        grant: &Grant,
        query: &Query<'_>,
        probe: Probe,
        now: Timestamp,
    ) -> Search {
        let classes = self.catalogue.compile(grant);
        let keep = query.k.min(self.catalogue.live_in(&classes));
        Search { probe, classes, keep, floor: query.floor.get(), now }
    }

    /// What a planner has to know of a search.
    pub(super) fn outlook(&self, search: &Search) -> Outlook {
        self.outlook_of(&search.classes, search.floor)
    }

    /// What a planner has to know of searches among `classes` that want `floor`.
    pub(super) fn outlook_of(&self, classes: &ClassSet, floor: f32) -> Outlook {
        let rows = self.catalogue.live_in(classes);
        Outlook { rows, of: self.catalogue.live(), floor, graph: self.graph_is_complete() }
    }

    /// Hits as candidates, with the generations of this moment.
    pub(super) fn found(&self, search: &Search, hits: &[Hit], way: Way) -> Found {
        let candidate = |hit: &Hit| {
            Candidate::new(self.catalogue.slot_id(hit.row), Similarity::new(hit.similarity))
        };
        let searched = self.catalogue.live_in(&search.classes);
        Found { candidates: hits.iter().map(candidate).collect(), searched, way }
    }

    /// The walk through the graph, among the rows that the search may find.
    pub(super) fn walk(&self, tools: Tools<'_>, search: &Search, ef: usize) -> Vec<Hit> {
        let Some(graph) = &self.graph else { return Vec::new() };
        let gallery = self.gallery(tools.kernels);
        let member = |row: u32| {
            self.catalogue.is_in(row, &search.classes)
                && search.now < self.catalogue.matches_until()[row as usize]
        };
        let compare =
            |rows: &[u32], found: &mut [f32]| gallery.scores(search.probe.bare(), rows, found);
        let near = graph.search(ef, search.keep, compare, member);
        let hits = near.into_iter().map(|Near { similarity, row }| Hit { similarity, row });
        hits.take_while(|hit| hit.similarity >= search.floor).collect()
    }

    /// Makes room for a row in the arena and in the graph.
    fn reach(&mut self, row: u32) -> Result<(), IndexError> {
        while row as usize >= self.arena.capacity() {
            self.arena.grow()?;
        }
        if let Some(graph) = &mut self.graph {
            graph.grow(self.arena.capacity());
        }
        Ok(())
    }

    /// The best row that the walk finds among all, for measuring the graph.
    pub(super) fn walk_all(&self, tools: Tools<'_>, probe: &BareProbe, ef: usize) -> Option<f32> {
        let gallery = self.gallery(tools.kernels);
        let compare = |rows: &[u32], found: &mut [f32]| gallery.scores(probe, rows, found);
        let near = self.graph.as_ref()?.search(ef, 1, compare, |_row| true);
        near.first().map(|near| near.similarity)
    }

    pub(super) fn space<'a>(&'a self, tools: Tools<'a>) -> Rows<'a> {
        Rows { arena: &self.arena, tools }
    }
}

/// The rows as the graph sees them.
pub(super) struct Rows<'a> {
    arena: &'a Arena,
    tools: Tools<'a>,
}

/// The rows for whoever does not hold the lock: it is taken for each comparison. Rows that were
/// erased meanwhile compare as nothing.
pub(super) struct LockedRows<'a> {
    pub(super) state: &'a RwLock<State>,
    pub(super) tools: Tools<'a>,
}

impl Space for LockedRows<'_> {
    fn similarities(&self, row: u32, others: &[u32], found: &mut [f32]) {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        state.space(self.tools).similarities(row, others, found);
    }
}

impl Space for Rows<'_> {
    fn similarities(&self, row: u32, others: &[u32], found: &mut [f32]) {
        let (codes, scale) = self.arena.row(row);
        let probe = self.tools.quantiser.row_probe(codes, scale);
        scores(self.arena, self.tools.kernels, &probe, others, found);
    }
}
