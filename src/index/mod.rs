//! Live templates in locked memory, searched under a grant or not at all.
//!
//! ```text
//!            Index ------------- RwLock ----------------------+
//!                                                             |
//!   Grant -> classes ---- groups of each class --+            |
//!                                                v            |
//!   Catalogue   group        0             1             2             3
//!               class     lobby         garage         lobby         none
//!               live    11111...        0110...       1011...       0000...
//!               generation, record, subject, consent, expiry of each row
//!                            |             |             |             |
//!   Arena       signs    [ 32 rows ]   [ 32 rows ]   [ 32 rows ]   [00000000]   mlock, no dump,
//!               codes    [ 32 rows ]   [ 32 rows ]   [ 32 rows ]   [00000000]   no fork
//!                            |             |             |
//!   Graph       links    row <--------> row <--------> row          both ends, or none
//! ```
//!
//! # The three ways
//! A face template's mate is a lone point among strangers, and a greedy walk has nothing to
//! follow: ordinary HNSW settings miss 5 to 20 % of the enrolled among 50,000 and most of them
//! among a million. But the mate stands out once it is *looked at*, even through one bit a
//! coordinate. So there are three ways over one arena, and a [planner](Plan) that lets recall
//! choose, then cost:
//!
//! - the **exact scan** compares the codes of every permitted row (`scan/`);
//! - the **sketch scan** compares 256 signs of every permitted row, all 512 of the few that are
//!   near, and the codes of the very few that are left; a bound says what it may miss
//!   (`scan/cuts.rs`);
//! - the **graph** is HNSW with mutual links and deletion in place (`graph/`); it serves where it
//!   was measured to find as many mates at a lower cost (`planner/`).
//!
//! # Why no wrong person is returned
//! 1. A row is in the groups of its own class alone, and a search reads the groups of the granted
//!    classes alone; the graph walks over all rows and keeps those of granted classes alone.
//! 2. What comes back are [`Candidate`]s: slots with the generation that they had while the lock
//!    was held under which they were compared. A slot gets a new generation before it can hold
//!    another template, under the write side.
//! 3. Only [`Index::confirm`] turns a candidate into a [`Match`], and it looks at generation,
//!    class, consent and expiry once more. A slot that was reused has another generation.
//!
//! # Invariants
//! - Searching takes a [`Grant`](crate::consent::Grant): scope is what a search is given, not a filter after it.
//! - Once [`Index::withdraw`] has returned, no search that begins and no candidate found before
//!   leads to the record.
//! - Whoever reads rows or links holds the read side of the lock. Having the write side therefore
//!   proves that nobody holds any slot; zeroising and unlinking happen there.
//! - No template is anywhere but in the arena, and its links in the graph: probes, rows on their
//!   way in and what kernels spill are zeroised. Lists of similarities that a search or an
//!   insertion makes on its way are freed as they are.
//! - A panic while writing poisons the lock. Searching, inserting and confirming then fail closed;
//!   withdrawing and purging still work, because they can only make the index match less.
//!
//! # Not here
//! Thresholds and decisions (engine), durability (store). No search runs on a rayon worker: it
//! may spread over the pool while it holds the lock, and a worker that waits there for the lock
//! could be waiting for itself.

mod arena;
mod care;
mod catalogue;
mod error;
mod forms;
mod found;
mod gather;
mod graph;
mod kernel;
mod planner;
mod purge;
mod quantise;
mod rotation;
mod scan;
mod search;
mod settings;
mod snapshot;
mod state;
mod status;

#[cfg(test)]
mod differential;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod residue;
#[cfg(test)]
mod testkit;
#[cfg(test)]
mod tests;

use std::ops::RangeInclusive;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use self::arena::Arena;
use self::gather::Gather;
use self::kernel::Kernels;
use self::planner::Planner;
use self::quantise::Quantiser;
use self::search::Gathered;
use self::state::{State, Tools};
use crate::types::{ConsentId, ControllerId, Embedding, RecordId, SlotId, SubjectRef, Timestamp};

pub use self::care::Care;
pub use self::error::IndexError;
#[doc(hidden)]
pub use self::forms::{Form, forms};
pub use self::found::{Candidate, Found, Match, NewTemplate, Query};
pub use self::kernel::Kernel;
pub use self::planner::{GraphOutlook, Plan, PlanSetting, Recall, TARGET_RECALL, Way};
pub use self::purge::{PendingPurge, Purged};
pub use self::rotation::RotationKey;
pub use self::search::{Done, Pool};
pub use self::settings::{GraphSettings, IndexOptions, IndexSettings, LockMode};
pub use self::snapshot::{ExportedRow, HEAD_BYTES, Restored, RestoredRow, SavedLinks};
pub use self::status::{ClassStatus, ControllerStatus, GraphStatus, IndexStatus};

/// Widths that an index can hold, dimensions.
const WIDTHS: RangeInclusive<usize> = 128..=1024;

/// The live templates of one gallery.
///
/// ```
/// use assent::consent::{ClassKey, ConsentTag};
/// use assent::index::{Index, IndexSettings, NewTemplate, RotationKey};
/// use assent::types::{Embedding, RecordId, Timestamp};
///
/// let index = Index::new(IndexSettings::new(128, RotationKey::new(&[7; 32])))?;
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
    quantiser: Arc<Quantiser>,
    kernels: Kernels,
    planner: Planner,
    gather: Gather<Arc<Gathered>, Result<Found, IndexError>>,
    state: Arc<RwLock<State>>,
}

impl Index {
    /// An empty index.
    ///
    /// # Errors
    /// A width that cannot be held, a kernel that does not run here, no memory, or no right to
    /// lock it where the settings demand that.
    pub fn new(settings: IndexSettings) -> Result<Self, IndexError> {
        let IndexSettings { width, rotation, lock, kernel, plan, graph, canary_every } = settings;
        if !WIDTHS.contains(&width) {
            return Err(IndexError::UnsupportedWidth { width });
        }
        if let Some(GraphSettings { links, effort }) = graph
            && !(GraphSettings::LINKS.contains(&links) && GraphSettings::EFFORT.contains(&effort))
        {
            return Err(IndexError::UnsupportedGraph { links, effort });
        }
        let kernels = match kernel {
            None => Kernel::best(),
            Some(kernel) => kernel.kernels().ok_or(IndexError::KernelUnavailable { kernel })?,
        };
        let arena = Arena::new(width, lock)?;
        Ok(Self {
            quantiser: Arc::new(Quantiser::new(width, rotation)),
            kernels,
            planner: Planner::new(plan, kernels, width, canary_every),
            gather: Gather::new(kernel::MOST_PROBES),
            state: Arc::new(RwLock::new(State::new(arena, graph))),
        })
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
        let slot = self.load(template, embedding)?;
        // Links are made beside searches: they take longer than anybody should wait for a lock.
        self.read()?.link(self.tools(), slot);
        Ok(slot)
    }

    /// Adds a template as [`Index::insert`] does, but leaves its links to [`Index::care`]: until it
    /// is linked, scans find it. For filling an index at start.
    ///
    /// # Errors
    /// As for [`Index::insert`].
    pub fn load(&self, template: NewTemplate, embedding: &Embedding) -> Result<SlotId, IndexError> {
        self.fits(embedding)?;
        let row = self.quantiser.row(embedding);
        self.state.write().map_err(|_poisoned| IndexError::Poisoned)?.insert(template, &row)
    }

    /// Makes a record unmatchable from here on; `None` when it is not held. There is no way back:
    /// its template waits only to be purged.
    #[must_use]
    pub fn withdraw(&self, record: RecordId) -> Option<PendingPurge> {
        let slot = self.write_anyway().catalogue.vacate(record)?;
        let (state, quantiser) = (Arc::clone(&self.state), Arc::clone(&self.quantiser));
        Some(PendingPurge::new(state, quantiser, self.kernels, record, slot.index))
    }

    /// Waits until nobody holds the slot, takes it out of the graph, zeroises all that there was
    /// of it, and frees it under the next generation.
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
            catalogue_bytes: state.catalogue.bytes(),
            graph: state.graph.as_ref().map(|graph| self.graph_status(graph)),
            kernel: self.kernels.kernel(),
            recall: Way::ALL.map(|way| (way, self.planner.canary().recall(way))),
        }
    }

    /// Controllers that have live templates, and how many distinct subjects each has.
    #[must_use]
    pub fn controllers(&self) -> Vec<ControllerStatus> {
        self.read_anyway().catalogue.controller_status()
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

    /// Every record of a controller, with when its consent was given.
    #[must_use]
    pub fn records_of_controller(&self, controller: &ControllerId) -> Vec<(RecordId, Timestamp)> {
        self.read_anyway().catalogue.records_of_controller(controller)
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

    fn tools(&self) -> Tools<'_> {
        Tools { quantiser: &self.quantiser, kernels: self.kernels }
    }

    fn fits(&self, embedding: &Embedding) -> Result<(), IndexError> {
        let (expected, found) = (self.quantiser.width(), embedding.width());
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
