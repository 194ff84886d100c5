//! Live templates in locked memory, searched under a grant or not at all.
//!
//! ```text
//!            Index ------------- RwLock -------------+
//!                                                    |
//!   Grant -> classes ---- rows of each class --+     |
//!                                              v     |
//!   Catalogue   slot      0        1        2        3      ...
//!               generation, record, subject, consent, matches_until
//!                         |        |        |        |
//!   Arena       row    [codes]  [codes]  [00..00]  [codes]  ...   mlock, no dump, no fork
//!                       scale    scale     0        scale
//!                                          ^ purged: zero, generation + 1
//! ```
//!
//! A search compiles its grant to classes, walks the rows of those classes and compares each with
//! the probe: exact, recall 1. What comes back are [`Candidate`]s, which name slots; only
//! [`Index::confirm`] turns one into a [`Match`], after looking at generation, consent and expiry
//! once more.
//!
//! # Invariants
//! - Searching takes a [`Grant`], and only rows of the granted classes are read: scope is what a
//!   search is given, not a filter after it.
//! - Once [`Index::withdraw`] has returned, no search that begins and no candidate found before
//!   leads to the record.
//! - A search holds the read side of the lock from its first row to its last. Having the write
//!   side therefore proves that no search holds any slot; zeroising happens there.
//! - A panic while writing poisons the lock. Searching, inserting and confirming then fail closed;
//!   withdrawing and purging still work, because they can only make the index match less.
//!
//! # Not here
//! Thresholds and decisions (engine), durability (store). No search runs on a rayon worker: it
//! may spread over the pool while it holds the lock, and a worker that waits there for the lock
//! could be waiting for itself.

mod arena;
mod catalogue;
mod classes;
mod error;
mod found;
mod kernel;
mod purge;
mod quantise;
mod scan;
mod settings;
mod status;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod testkit;
#[cfg(test)]
mod tests;

use std::ops::RangeInclusive;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use self::arena::Arena;
use self::catalogue::Catalogue;
use self::quantise::{Probe, Row};
use self::scan::{Hit, Scan};
use crate::consent::Grant;
use crate::types::{
    ConsentId, ControllerId, Embedding, RecordId, Similarity, SlotId, SubjectRef, Timestamp,
};

pub use self::error::IndexError;
pub use self::found::{Candidate, Found, Match, NewTemplate};
pub use self::kernel::{Dot, Kernel};
pub use self::purge::{PendingPurge, Purged};
pub use self::settings::{IndexSettings, LockMode};
pub use self::status::{ClassStatus, ControllerStatus, IndexStatus};

/// Widths that an index can hold, dimensions.
const WIDTHS: RangeInclusive<usize> = 128..=1024;

/// The live templates of one gallery.
///
/// ```
/// use assent::consent::{ClassKey, ConsentTag};
/// use assent::index::{Index, IndexSettings, LockMode, NewTemplate};
/// use assent::types::{Embedding, RecordId, Timestamp};
///
/// let index = Index::new(&IndexSettings { width: 128, lock: LockMode::BestEffort, kernel: None })?;
/// let class = ClassKey {
///     controller: "harbour-towers".parse()?,
///     purpose: "entry".parse()?,
///     scope: "north-gate".parse()?,
/// };
/// let now = Timestamp::now();
/// let consent = ConsentTag {
///     consent_id: "c-1".parse()?,
///     class,
///     notice_version: "v1".parse()?,
///     granted_at: now,
///     expires_at: now.plus_days(30),
/// };
/// let record = RecordId::random();
/// let template = NewTemplate {
///     record,
///     subject: "resident-0017".parse()?,
///     matches_until: consent.expires_at,
///     consent,
/// };
/// index.insert(template, &Embedding::normalise(vec![1.0; 128])?)?;
/// assert!(index.holds(record));
///
/// let pending = index.withdraw(record).ok_or("not held")?;
/// assert!(!index.holds(record));
/// assert_eq!(index.purge(pending).record(), record);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Index {
    width: usize,
    dot: Dot,
    state: Arc<RwLock<State>>,
}

/// What the lock guards.
struct State {
    arena: Arena,
    catalogue: Catalogue,
}

impl Index {
    /// An empty index.
    ///
    /// # Errors
    /// A width that cannot be held, a kernel that does not run here, no memory, or no right to
    /// lock it where the settings demand that.
    pub fn new(settings: &IndexSettings) -> Result<Self, IndexError> {
        let width = settings.width;
        if !WIDTHS.contains(&width) {
            return Err(IndexError::UnsupportedWidth { width });
        }
        let dot = match settings.kernel {
            None => Kernel::best(),
            Some(kernel) => kernel.dot().ok_or(IndexError::KernelUnavailable { kernel })?,
        };
        let arena = Arena::new(width, settings.lock)?;
        let state = State { arena, catalogue: Catalogue::default() };
        Ok(Self { width, dot, state: Arc::new(RwLock::new(state)) })
    }

    /// Adds a template; it can be found once this has returned.
    ///
    /// # Errors
    /// An embedding of another width, a record or consent that is held already, no slot or memory
    /// left, no right to lock more memory where the settings demand that, or a poisoned index.
    /// Nothing is added then.
    pub fn insert(
        &self,
        template: NewTemplate,
        embedding: &Embedding,
    ) -> Result<SlotId, IndexError> {
        self.fits(embedding)?;
        let row = Row::of(embedding);
        self.state.write().map_err(|_poisoned| IndexError::Poisoned)?.insert(template, &row)
    }

    /// 1:N: the `k` templates most similar to `probe` among those of the granted classes that
    /// match at `now`.
    ///
    /// # Errors
    /// A probe of another width, or a poisoned index.
    pub fn search(
        &self,
        grant: &Grant,
        probe: &Embedding,
        k: usize,
        now: Timestamp,
    ) -> Result<Found, IndexError> {
        debug_assert!(rayon::current_thread_index().is_none(), "no search on a rayon worker");
        self.fits(probe)?;
        let probe = Probe::of(probe);
        let state = self.read()?;
        let granted = state.catalogue.compile(grant);
        let rows = state.catalogue.rows(&granted);
        Ok(state.found(&state.scan(self.dot, &probe, k, now), &rows))
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
        let probe = Probe::of(probe);
        let state = self.read()?;
        let rows = state.catalogue.rows_of_subject(grant, subject);
        Ok(state.found(&state.scan(self.dot, &probe, rows.len(), now), &[&rows]))
    }

    /// The proof that may leave the process: `candidate` still stands for the template that was
    /// compared, and its class is granted and its consent live at `now`.
    #[must_use]
    pub fn confirm(&self, grant: &Grant, candidate: &Candidate, now: Timestamp) -> Option<Match> {
        let slot = (candidate.slot(), candidate.similarity());
        self.read().ok()?.catalogue.confirm(grant, slot, now)
    }

    /// Makes a record unmatchable from here on; `None` when it is not held. There is no way back:
    /// its template waits only to be purged.
    #[must_use]
    pub fn withdraw(&self, record: RecordId) -> Option<PendingPurge> {
        let slot = self.write_anyway().catalogue.vacate(record)?;
        Some(PendingPurge::new(Arc::clone(&self.state), record, slot.index))
    }

    /// Waits until no search holds the slot, zeroises its row, and frees it under the next
    /// generation.
    pub fn purge(&self, pending: PendingPurge) -> Purged {
        pending.carry_out()
    }

    /// Whether a record can match, its expiry apart.
    #[must_use]
    pub fn holds(&self, record: RecordId) -> bool {
        self.read_anyway().catalogue.holds(record)
    }

    /// What a live record is held under; `None` when it is not held.
    #[must_use]
    pub fn describe(&self, record: RecordId) -> Option<NewTemplate> {
        self.read_anyway().catalogue.describe(record)
    }

    /// Whether a panic left the index in doubt: it finds nothing from then on.
    #[must_use]
    pub fn is_poisoned(&self) -> bool {
        self.state.is_poisoned()
    }

    /// Sizes, counts and protection.
    #[must_use]
    pub fn status(&self) -> IndexStatus {
        let state = self.read_anyway();
        let controllers = state.catalogue.controller_status();
        let (arena_bytes, locked_bytes) = (state.arena.bytes(), state.arena.locked_bytes());
        IndexStatus {
            classes: state.catalogue.class_status(),
            live: state.catalogue.live(),
            subjects: controllers.iter().map(|controller| controller.subjects).sum(),
            controllers,
            arena_bytes,
            locked_bytes,
            arena_locked: locked_bytes == arena_bytes,
            kernel: self.dot.kernel(),
        }
    }

    /// At most `limit` records that do not match at `now` any more and should be erased, the
    /// longest expired first.
    #[must_use]
    pub fn expired(&self, now: Timestamp, limit: usize) -> Vec<RecordId> {
        self.read_anyway().catalogue.expired(now, limit)
    }

    /// Every record of a controller's subject.
    #[must_use]
    pub fn records_of_subject(
        &self,
        controller: &ControllerId,
        subject: &SubjectRef,
    ) -> Vec<RecordId> {
        self.read_anyway().catalogue.records_of_subject(controller, subject)
    }

    /// The record of a controller's consent.
    #[must_use]
    pub fn record_of_consent(
        &self,
        controller: &ControllerId,
        consent: &ConsentId,
    ) -> Option<RecordId> {
        self.read_anyway().catalogue.record_of_consent(controller, consent)
    }

    /// Templates in the granted classes, expired ones that are not yet erased included.
    #[must_use]
    pub fn live_templates(&self, grant: &Grant) -> usize {
        let state = self.read_anyway();
        let granted = state.catalogue.compile(grant);
        state.catalogue.rows(&granted).iter().map(|rows| rows.len()).sum()
    }

    fn fits(&self, embedding: &Embedding) -> Result<(), IndexError> {
        let (expected, found) = (self.width, embedding.width());
        if expected == found { Ok(()) } else { Err(IndexError::Width { expected, found }) }
    }

    fn read(&self) -> Result<RwLockReadGuard<'_, State>, IndexError> {
        self.state.read().map_err(|_poisoned| IndexError::Poisoned)
    }

    /// For reports and for finding what to revoke: they lead to no match.
    fn read_anyway(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// For withdrawing: it can only make the index match less.
    fn write_anyway(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn insert(&mut self, template: NewTemplate, row: &Row) -> Result<SlotId, IndexError> {
        let place = self.catalogue.vacancy(&template)?;
        if place as usize >= self.arena.capacity() {
            self.arena.grow()?;
        }
        let slot = self.catalogue.occupy(place, template)?;
        self.arena.write(place, row.codes(), row.scale());
        Ok(slot)
    }

    fn scan<'a>(&'a self, dot: Dot, probe: &'a Probe, keep: usize, now: Timestamp) -> Scan<'a> {
        let matches_until = self.catalogue.matches_until();
        Scan { arena: &self.arena, dot, probe, matches_until, now, keep }
    }

    fn found(&self, scan: &Scan<'_>, rows: &[&[u32]]) -> Found {
        let tally = scan.over(rows);
        let candidate = |hit: &Hit| {
            Candidate::new(self.catalogue.slot_id(hit.row), Similarity::new(hit.similarity))
        };
        Found { candidates: tally.best.iter().map(candidate).collect(), searched: tally.searched }
    }
}
