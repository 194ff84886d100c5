//! The month in which each record was last used, where its controller asks for an inactivity limit
//! (C7), and the erasure of what nobody uses.
//!
//! Nothing finer than a month is kept, and nothing at all where there is no limit: when somebody
//! passed which gate is nobody's business here.
//!
//! # Invariants
//! - A record's use is remembered at most some seconds after it; a record that was never used
//!   counts from the month of its consent, or the one in which the limit began, if that is later.
//! - What is remembered of a record goes when the record goes, in the same commit.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use super::Engine;
use super::revoke::RevokeError;
use crate::consent::Policy;
use crate::index::Match;
use crate::store::{Fact, FactKind, Facts, RevocationCause, StoreError};
use crate::types::{ControllerId, RecordId, Timestamp};

/// Begins the name of a fact about a controller's limit; no record's id does.
const LIMIT: &str = "limit of ";
/// Records that one sweep takes at once.
const SWEEP_BATCH: usize = 1_000;

/// A calendar month, UTC, counted from January 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
struct Month(u32);

impl Month {
    fn of(at: Timestamp) -> Self {
        Self(at.months_since_1970())
    }

    fn since(self, earlier: Self) -> u32 {
        self.0.saturating_sub(earlier.0)
    }
}

/// What is remembered.
#[derive(Default)]
pub(super) struct LastUse(Mutex<Months>);

#[derive(Default)]
struct Months {
    used: HashMap<RecordId, Month>,
    /// Those that the store does not have so.
    changed: HashSet<RecordId>,
    /// Since which month a controller's limit is known here: nobody's use was noted before.
    limited: HashMap<ControllerId, Month>,
}

impl LastUse {
    /// What the store remembers, less what is not `held` any more.
    pub(super) fn open(
        facts: &mut Facts,
        held: impl Fn(RecordId) -> bool,
    ) -> Result<Self, StoreError> {
        let mut months = Months::default();
        for (name, month) in facts.take::<Month>(FactKind::LastUse)? {
            if let Some(controller) = name.strip_prefix(LIMIT) {
                let malformed = StoreError::Malformed { what: "last use" };
                let controller = controller.parse().map_err(|_unparsed| malformed)?;
                months.limited.insert(controller, month);
                continue;
            }
            let malformed = StoreError::Malformed { what: "last use" };
            let record = name.parse::<RecordId>().map_err(|_unparsed| malformed)?;
            if held(record) {
                months.used.insert(record, month);
            } else {
                months.changed.insert(record);
            }
        }
        Ok(Self(Mutex::new(months)))
    }

    /// The record was used.
    fn used(&self, record: RecordId, now: Timestamp) {
        let month = Month::of(now);
        let mut months = self.months();
        if months.used.get(&record) != Some(&month) {
            months.used.insert(record, month);
            months.changed.insert(record);
        }
    }

    /// The records are gone, or nobody needs to know any more; what the store has to forget.
    pub(super) fn forget(&self, records: &[RecordId]) -> Vec<Fact> {
        let mut months = self.months();
        let mut gone = Vec::new();
        for record in records {
            if months.used.remove(record).is_some() {
                months.changed.insert(*record);
                gone.push(Fact::gone(FactKind::LastUse, record.to_string()));
            }
        }
        gone
    }

    fn months(&self) -> MutexGuard<'_, Months> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Engine {
    /// Notes that somebody was found, where a limit makes that matter.
    pub(super) fn note_use(&self, found: &Match) {
        let controller = &found.tag().class.controller;
        if self.policy().inactive_months(controller).is_some() {
            self.last_use.used(found.record(), self.trusted_now());
        }
    }

    /// The month of a record's last use, such as "2026-11", where one is kept.
    pub(super) fn last_used_month(&self, record: RecordId) -> Option<String> {
        let Month(months) = self.last_use.months().used.get(&record).copied()?;
        Some(format!("{:04}-{:02}", 1970 + months / 12, 1 + months % 12))
    }

    /// Writes which months changed, and which limits began or ended.
    ///
    /// # Errors
    /// The store; they are written next time.
    pub async fn keep_last_use(&self) -> Result<(), StoreError> {
        self.begin_limits(&self.policy(), Month::of(self.trusted_now())).await?;
        let (changed, facts) = {
            let mut months = self.last_use.months();
            let changed = std::mem::take(&mut months.changed);
            let fact = |record: &RecordId| match months.used.get(record) {
                Some(month) => Fact::new(FactKind::LastUse, record.to_string(), month),
                None => Ok(Fact::gone(FactKind::LastUse, record.to_string())),
            };
            let facts = changed.iter().map(fact).collect::<Result<Vec<_>, _>>()?;
            (changed, facts)
        };
        if facts.is_empty() {
            return Ok(());
        }
        let kept = self.store.remember(facts, None).await;
        if kept.is_err() {
            self.last_use.months().changed.extend(changed);
        }
        kept
    }

    /// Erases what was not used for as many months as its controller's limit says; how many records.
    ///
    /// # Errors
    /// See [`RevokeError`]; what is left is taken by the next sweep.
    pub async fn sweep_inactive(self: &Arc<Self>) -> Result<usize, RevokeError> {
        let (policy, this_month) = (self.policy(), Month::of(self.trusted_now()));
        self.begin_limits(&policy, this_month).await.map_err(RevokeError::Unread)?;
        let (mut idle, mut watched) = (Vec::new(), HashSet::new());
        for controller in policy.controllers() {
            let Some(limit) = policy.inactive_months(&controller.id) else { continue };
            let held = self.index.records_of_controller(&controller.id);
            let months = self.last_use.months();
            let began = months.limited.get(&controller.id).copied().unwrap_or(this_month);
            for (record, granted_at) in held {
                let used = months.used.get(&record).copied();
                let last = used.unwrap_or_else(|| Month::of(granted_at)).max(began);
                if this_month.since(last) >= limit {
                    idle.push(record);
                } else {
                    watched.insert(record);
                }
            }
        }
        // Where there is no limit any more, nothing is kept.
        let unwatched: Vec<RecordId> = {
            let months = self.last_use.months();
            months.used.keys().filter(|record| !watched.contains(*record)).copied().collect()
        };
        let mut erased = 0;
        for batch in idle.chunks(SWEEP_BATCH) {
            let _drain_waits = self.task();
            erased += self.erase(batch, RevocationCause::Inactive).await?;
        }
        let _with_the_next_changes = self.last_use.forget(&unwatched);
        Ok(erased)
    }
}

impl Engine {
    /// Notes which controllers have had a limit since when, and forgets those that have none.
    async fn begin_limits(&self, policy: &Policy, this_month: Month) -> Result<(), StoreError> {
        let limited = |id: &ControllerId| policy.inactive_months(id).is_some();
        let (mut begun, mut ended) = (Vec::new(), Vec::new());
        {
            let months = self.last_use.months();
            let now = policy.controllers().map(|c| &c.id).filter(|id| limited(id));
            begun.extend(now.filter(|id| !months.limited.contains_key(*id)).cloned());
            ended.extend(months.limited.keys().filter(|id| !limited(id)).cloned());
        }
        let name = |id: &ControllerId| format!("{LIMIT}{id}");
        let new = begun.iter().map(|id| Fact::new(FactKind::LastUse, name(id), &this_month));
        let gone = ended.iter().map(|id| Ok(Fact::gone(FactKind::LastUse, name(id))));
        let facts = new.chain(gone).collect::<Result<Vec<_>, _>>()?;
        if facts.is_empty() {
            return Ok(());
        }
        self.store.remember(facts, None).await?;
        let mut months = self.last_use.months();
        months.limited.extend(begun.into_iter().map(|id| (id, this_month)));
        months.limited.retain(|id, _| !ended.contains(id));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn months_are_those_of_the_calendar() {
        let month = |text: &str| Month::of(text.parse().unwrap());
        assert_eq!(month("1970-01-31T23:59:59Z"), Month(0));
        assert_eq!(month("2026-03-01T00:00:00Z").since(month("2026-02-28T23:59:59Z")), 1);
        assert_eq!(month("2027-01-01T00:00:00Z").since(month("2026-01-31T00:00:00Z")), 12);
        assert_eq!(month("2026-01-01T00:00:00Z").since(month("2026-02-01T00:00:00Z")), 0);
    }

    #[test]
    fn only_changes_are_written() {
        let (uses, record) = (LastUse::default(), RecordId::from_bytes([1; 16]));
        let now: Timestamp = "2026-03-01T00:00:00Z".parse().unwrap();
        uses.used(record, now);
        assert_eq!(uses.months().changed.len(), 1);
        uses.months().changed.clear();
        uses.used(record, now.plus_days(20));
        assert!(uses.months().changed.is_empty(), "the same month");
        uses.used(record, now.plus_days(40));
        assert_eq!(uses.months().changed.len(), 1);
        uses.months().changed.clear();
        assert_eq!(uses.forget(&[record, RecordId::from_bytes([2; 16])]).len(), 1);
        assert_eq!(uses.months().changed.len(), 1, "of the one that was remembered");
        assert!(uses.months().used.is_empty());
    }
}
