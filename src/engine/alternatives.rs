//! Whether the ways past a gate that need no face are there: heartbeats (G2).
//!
//! A policy says how often an alternative has to be heard of. One that reports itself down, or is
//! not heard of in time, is down until it is heard of again.
//!
//! # Invariants
//! - What was down before a restart is down after it, until it is heard of. What was up has one
//!   heartbeat's time from the start: nobody could have heard it while the service was away.
//! - Only what the policy watches is remembered, so the policy bounds the memory.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::Engine;
use crate::consent::{AlternativeMethod, Alternatives, Down, GatePass, GateRefusal, Policy};
use crate::store::{Fact, FactKind, Facts, StoreError};
use crate::types::{GateId, ShortText, Timestamp};

/// One of a gate's alternatives: its kind, and which of that kind, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Way {
    /// The kind.
    pub method: AlternativeMethod,
    /// Which of that kind, in the policy's order.
    pub index: usize,
}

impl Way {
    fn at(ways: &Alternatives, place: usize) -> Option<Self> {
        let method = ways.as_slice().get(place)?.method;
        let before = ways.as_slice().iter().take(place);
        Some(Self { method, index: before.filter(|way| way.method == method).count() })
    }
}

/// How an alternative is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WayState {
    /// Not heard of yet, and not overdue.
    Unheard,
    /// It said so, in time.
    Up,
    /// It said so.
    Down,
    /// It was not heard of in time.
    Lost,
}

impl WayState {
    /// As status says it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Unheard => "unheard",
            Self::Up => "up",
            Self::Down => "down",
            Self::Lost => "lost",
        }
    }

    /// Whether a person would be sent there in vain.
    #[must_use]
    pub fn is_down(self) -> bool {
        match self {
            Self::Down | Self::Lost => true,
            Self::Unheard | Self::Up => false,
        }
    }
}

/// A watched alternative, as status and metrics show it.
#[derive(Debug, Clone)]
pub struct WatchedWay {
    /// The gate.
    pub gate: GateId,
    /// What it is called at that gate, such as "card" or "card-2".
    pub name: String,
    /// How it is.
    pub state: WayState,
    /// When it was last heard of.
    pub heard_at: Option<Timestamp>,
    /// What it said then.
    pub note: Option<ShortText>,
}

/// What was last heard of one alternative.
#[derive(Debug, Clone)]
struct Beat {
    state: WayState,
    heard_at: Option<Timestamp>,
    note: Option<ShortText>,
    /// From when on the next one is awaited.
    since: Instant,
    /// Whether the store knows something older.
    unsaved: bool,
}

/// A beat as the store remembers it.
#[derive(Serialize, Deserialize)]
struct SavedBeat {
    gate: GateId,
    way: Way,
    state: WayState,
    heard_at: Option<Timestamp>,
    note: Option<ShortText>,
}

impl Beat {
    fn awaited(since: Instant) -> Self {
        Self { state: WayState::Unheard, heard_at: None, note: None, since, unsaved: false }
    }

    fn state_by(&self, every: Duration, now: Instant) -> WayState {
        match self.state {
            WayState::Down | WayState::Lost => self.state,
            WayState::Unheard | WayState::Up => {
                let late = now.saturating_duration_since(self.since) > every;
                if late { WayState::Lost } else { self.state }
            }
        }
    }
}

/// What was heard of all watched alternatives.
#[derive(Default)]
pub(super) struct Watch {
    beats: Mutex<HashMap<GateId, HashMap<Way, Beat>>>,
}

impl Watch {
    /// What the store remembers.
    pub(super) fn load(facts: &mut Facts) -> Result<Self, StoreError> {
        let mut beats: HashMap<GateId, HashMap<Way, Beat>> = HashMap::new();
        let since = Instant::now();
        for (_, saved) in facts.take::<SavedBeat>(FactKind::Heartbeat)? {
            let SavedBeat { gate, way, state, heard_at, note } = saved;
            let beat = Beat { state, heard_at, note, since, unsaved: false };
            beats.entry(gate).or_default().insert(way, beat);
        }
        Ok(Self { beats: Mutex::new(beats) })
    }

    fn beats(&self) -> MutexGuard<'_, HashMap<GateId, HashMap<Way, Beat>>> {
        self.beats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Which alternatives of a gate are down.
    fn down(&self, pass: &GatePass, now: Instant) -> Down {
        let beats = self.beats();
        let Some(beats) = beats.get(&pass.gate().id) else { return Down::default() };
        let mut down = Down::default();
        for (place, every) in watched(pass) {
            let way = Way::at(&pass.gate().alternatives, place);
            let beat = way.and_then(|way| beats.get(&way));
            if beat.is_some_and(|beat| beat.state_by(every, now).is_down()) {
                down = down.with(place);
            }
        }
        down
    }

    /// Notes what became late, begins to wait for what is new, and says how all watched
    /// alternatives are.
    fn look(&self, policy: &Policy, now: Instant) -> Vec<WatchedWay> {
        let mut beats = self.beats();
        let mut seen = Vec::new();
        for pass in policy.gates().filter(|pass| pass.is_watched()) {
            let (gate, ways) = (&pass.gate().id, &pass.gate().alternatives);
            let beats = beats.entry(gate.clone()).or_default();
            for (place, every) in watched(pass) {
                let Some(way) = Way::at(ways, place) else { continue };
                let beat = beats.entry(way).or_insert_with(|| Beat::awaited(now));
                let state = beat.state_by(every, now);
                if state != beat.state {
                    (beat.state, beat.unsaved) = (state, true);
                }
                let (gate, name) = (gate.clone(), ways.name(place));
                let (heard_at, note) = (beat.heard_at, beat.note.clone());
                seen.push(WatchedWay { gate, name, state, heard_at, note });
            }
        }
        seen
    }

    /// The store was not told: everything is to be said once more.
    fn tell_all_again(&self) {
        let mut beats = self.beats();
        beats.values_mut().flat_map(HashMap::values_mut).for_each(|beat| beat.unsaved = true);
    }

    /// What the store has to be told, marked as told; beats that nobody watches any more are gone.
    fn changes(&self, policy: &Policy) -> Result<Vec<Fact>, StoreError> {
        let mut beats = self.beats();
        let mut facts = Vec::new();
        for (gate, beats) in &mut *beats {
            let pass = policy.open_gate(gate).ok();
            beats.retain(|way, beat| {
                let kept = pass.as_ref().is_some_and(|pass| place_of(pass, *way).is_some());
                if !kept {
                    facts.push(Ok(Fact::gone(FactKind::Heartbeat, fact_name(gate, *way))));
                } else if std::mem::take(&mut beat.unsaved) {
                    let saved = SavedBeat {
                        gate: gate.clone(),
                        way: *way,
                        state: beat.state,
                        heard_at: beat.heard_at,
                        note: beat.note.clone(),
                    };
                    facts.push(Fact::new(FactKind::Heartbeat, fact_name(gate, *way), &saved));
                }
                kept
            });
        }
        beats.retain(|_, beats| !beats.is_empty());
        facts.into_iter().collect()
    }
}

/// The places that have to be heard of, and how often.
fn watched(pass: &GatePass) -> impl Iterator<Item = (usize, Duration)> {
    let watched = pass.gate().alternatives.watched();
    watched.map(|(place, way)| {
        (place, Duration::from_secs(u64::from(way.heartbeat_s.unwrap_or_default())))
    })
}

/// The place of a watched alternative.
fn place_of(pass: &GatePass, way: Way) -> Option<(usize, Duration)> {
    let place = pass.gate().alternatives.place(way.method, way.index)?;
    watched(pass).find(|(watched, _)| *watched == place)
}

fn fact_name(gate: &GateId, way: Way) -> String {
    format!("{gate}/{}/{}", way.method.name(), way.index)
}

impl Engine {
    /// An alternative of a gate was heard of; how soon it has to be again.
    ///
    /// # Errors
    /// No such gate, or its policy does not watch that alternative.
    pub fn report_alternative(
        &self,
        gate: &GateId,
        way: Way,
        up: bool,
        note: Option<ShortText>,
    ) -> Result<Duration, GateRefusal> {
        let pass = self.policy().open_gate(gate)?;
        let (_, every) = place_of(&pass, way).ok_or(GateRefusal::NotWatched)?;
        let beat = Beat {
            state: if up { WayState::Up } else { WayState::Down },
            heard_at: Some(self.now()),
            note,
            since: Instant::now(),
            unsaved: true,
        };
        self.watch.beats().entry(gate.clone()).or_default().insert(way, beat);
        Ok(every)
    }

    /// Which alternatives of a gate are known to be down.
    pub(super) fn down(&self, pass: &GatePass) -> Down {
        if pass.is_watched() { self.watch.down(pass, Instant::now()) } else { Down::default() }
    }

    /// How all watched alternatives are.
    #[must_use]
    pub fn watched_alternatives(&self) -> Vec<WatchedWay> {
        self.watch.look(&self.policy(), Instant::now())
    }

    /// Tells the store what was heard of alternatives since the last time.
    ///
    /// # Errors
    /// The store; it is told everything the next time.
    pub async fn save_heartbeats(&self) -> Result<(), StoreError> {
        let facts = self.watch.changes(&self.policy())?;
        if facts.is_empty() {
            return Ok(());
        }
        let told = self.store.remember(facts, None).await;
        if told.is_err() {
            self.watch.tell_all_again();
        }
        told
    }
}
