//! Lock-out: consecutive failed 1:1 attempts at one claimed subject, and how long its face waits
//! (NIST SP 800-63B-4 3.2.2, 3.2.3).
//!
//! After as many failures as the gate's policy allows the face waits 30 seconds, and after each
//! further failure twice as long, up to an hour. A match ends it; so does an operator.
//!
//! # Invariants
//! - A subject is known here by a MAC alone: neither memory nor the store's facts say whom a count
//!   is about, and a subject that does not exist is counted like any other.
//! - Attempts that are under way count as failed until they are settled: asking at once instead of
//!   one after another gains nobody an attempt.
//! - The number of counts is bounded, and counts that say more are never given up for counts that
//!   say less.
//! - A lock is durable before anybody hears of the failure that caused it.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Engine;
use crate::consent::GatePass;
use crate::store::{AuditEvent, Fact, FactKind, Facts, Store, StoreError};
use crate::types::{ControllerId, SubjectRef, Timestamp};

/// The first wait.
const FIRST_WAIT_MS: i64 = 30_000;
/// The longest wait.
const LONGEST_WAIT_MS: i64 = 3_600_000;
/// What who finds all attempts that are left under way is told to wait.
const UNDER_WAY_MS: i64 = 1_000;
/// After so many days without an attempt a count is forgotten.
const IDLE_DAYS: u32 = 30;
/// Most counts held.
const COUNTS: usize = 1 << 16;
/// One in so many counts makes room where the table is full.
const SHED: usize = 4;
/// Most rows that go with another commit.
const GONE_AT_ONCE: usize = 1_000;

/// The MAC of a controller's subject.
type Name = [u8; 32];

/// What is known of attempts at one subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Count {
    /// Failures since the last match.
    failures: u32,
    /// The face waits until then.
    until: Option<Timestamp>,
    /// The last attempt that counted.
    last: Timestamp,
    #[serde(skip)]
    under_way: u32,
    /// Whether the store knows less.
    #[serde(skip)]
    unsaved: bool,
}

impl Count {
    fn none(now: Timestamp) -> Self {
        Self { failures: 0, until: None, last: now, under_way: 0, unsaved: false }
    }

    /// How long the next attempt has to wait. A clock that was set back locks nobody out for
    /// longer than the longest wait.
    fn wait_ms(&self, limit: u32, now: Timestamp) -> i64 {
        let locked = self.until.map_or(0, |until| until.ms_since(now)).min(LONGEST_WAIT_MS);
        if locked > 0 {
            locked
        } else if self.under_way > 0 && self.failures.saturating_add(self.under_way) >= limit {
            UNDER_WAY_MS
        } else {
            0
        }
    }

    /// Counts a failure; whether the face waits from now on.
    fn fail(&mut self, limit: u32, now: Timestamp) -> bool {
        self.failures = self.failures.saturating_add(1);
        (self.last, self.unsaved) = (now, true);
        let Some(beyond) = self.failures.checked_sub(limit) else { return false };
        let wait = FIRST_WAIT_MS.checked_shl(beyond.min(16)).unwrap_or(LONGEST_WAIT_MS);
        self.until = Some(now.plus_ms(wait.min(LONGEST_WAIT_MS)));
        true
    }

    fn is_locked(&self, now: Timestamp) -> bool {
        self.until.is_some_and(|until| until > now)
    }

    fn is_idle(&self, now: Timestamp) -> bool {
        self.under_way == 0 && !self.is_locked(now) && self.last.plus_days(IDLE_DAYS) < now
    }
}

#[derive(Default)]
struct Table {
    counts: HashMap<Name, Count>,
    /// Rows that the store has and nobody needs.
    gone: Vec<Name>,
}

impl Table {
    /// Forgets a count, and the row that the store may have of it.
    fn remove(&mut self, name: &Name) {
        if self.counts.remove(name).is_some_and(|count| count.failures > 0) {
            self.gone.push(*name);
        }
    }

    /// The count begins anew.
    fn reset(&mut self, name: &Name) {
        if let Some(count) = self.counts.get_mut(name).filter(|count| count.failures > 0) {
            *count = Count { under_way: count.under_way, ..Count::none(count.last) };
            self.gone.push(*name);
        }
    }

    /// Gives up the quarter that says least.
    fn shed(&mut self) {
        let idle = self.counts.iter().filter(|(_, count)| count.under_way == 0);
        let mut least: Vec<(u32, Timestamp, Name)> =
            idle.map(|(name, count)| (count.failures, count.last, *name)).collect();
        let shed = least.len() / SHED;
        if shed > 0 {
            least.select_nth_unstable(shed);
            least[..shed].iter().for_each(|(_, _, name)| self.remove(name));
        }
    }
}

/// The counts of all subjects that somebody failed to be.
#[derive(Default)]
pub(super) struct Lockouts {
    table: Mutex<Table>,
    /// Held from reading what changed until it is durable, so that no older count overtakes a
    /// newer one. Not taken on the way of a request whose failure locks nobody out.
    saving: tokio::sync::Mutex<()>,
}

/// An attempt under way. Dropped without a word it did not take place.
pub(super) struct Attempt<'a> {
    lockouts: &'a Lockouts,
    name: Name,
    limit: u32,
}

impl Attempt<'_> {
    /// The claim was right: the count begins anew.
    pub(super) fn succeeded(self) {
        self.lockouts.table().reset(&self.name);
    }

    /// The claim was wrong, or an attack; whether the face waits from now on.
    pub(super) fn failed(self, now: Timestamp) -> bool {
        let mut table = self.lockouts.table();
        // None where it was revoked or cleared meanwhile.
        table.counts.get_mut(&self.name).is_some_and(|count| count.fail(self.limit, now))
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        let mut table = self.lockouts.table();
        if let Some(count) = table.counts.get_mut(&self.name) {
            count.under_way = count.under_way.saturating_sub(1);
            if count.under_way == 0 && count.failures == 0 {
                table.counts.remove(&self.name);
            }
        }
    }
}

impl Lockouts {
    /// The counts that the store holds.
    pub(super) fn load(facts: &mut Facts) -> Result<Self, StoreError> {
        let facts = facts.take::<Count>(FactKind::Lockout)?;
        let named = facts.into_iter().filter_map(|(name, count)| {
            let mut bytes = Name::default();
            hex::decode_to_slice(name, &mut bytes).ok().map(|()| (bytes, count))
        });
        let table = Table { counts: named.collect(), gone: Vec::new() };
        Ok(Self { table: Mutex::new(table), saving: tokio::sync::Mutex::default() })
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins an attempt, or says how long to wait.
    fn begin(&self, name: Name, limit: u32, now: Timestamp) -> Result<Attempt<'_>, Duration> {
        let mut table = self.table();
        let wait = table.counts.get(&name).map_or(0, |count| count.wait_ms(limit, now));
        if let Some(wait) = u64::try_from(wait).ok().filter(|wait| *wait > 0) {
            return Err(Duration::from_millis(wait));
        }
        if table.counts.len() >= COUNTS && !table.counts.contains_key(&name) {
            table.shed();
        }
        table.counts.entry(name).or_insert_with(|| Count::none(now)).under_way += 1;
        Ok(Attempt { lockouts: self, name, limit })
    }

    /// Whether failures are on record.
    fn failures(&self, name: &Name) -> u32 {
        self.table().counts.get(name).map_or(0, |count| count.failures)
    }

    fn forget(&self, name: &Name) {
        self.table().remove(name);
    }

    /// Rows that nobody needs, the newest of them: for a commit that is made anyway. Until the guard
    /// is dropped nobody saves a count that the commit would then remove.
    pub(super) async fn gone(&self) -> (Vec<Fact>, Option<tokio::sync::MutexGuard<'_, ()>>) {
        if self.table().gone.is_empty() {
            return (Vec::new(), None);
        }
        let in_turn = self.saving.lock().await;
        let table = self.table();
        let newest = table.gone.iter().rev().take(GONE_AT_ONCE);
        let unneeded = newest
            .filter(|name| table.counts.get(*name).is_none_or(|count| count.failures == 0))
            .map(|name| Fact::gone(FactKind::Lockout, hex::encode(name)));
        (unneeded.collect(), Some(in_turn))
    }

    fn locked(&self, now: Timestamp) -> usize {
        self.table().counts.values().filter(|count| count.is_locked(now)).count()
    }

    /// What the store has to be told, marked as told.
    fn changes(&self, now: Timestamp) -> (Vec<(Name, Count)>, Vec<Name>) {
        let mut table = self.table();
        let idle = table.counts.iter().filter(|(_, count)| count.is_idle(now));
        let idle: Vec<Name> = idle.map(|(name, _)| *name).collect();
        for name in &idle {
            table.remove(name);
        }
        let unsaved = table.counts.iter_mut().filter(|(_, count)| count.unsaved);
        let counts: Vec<(Name, Count)> = unsaved
            .map(|(name, count)| {
                count.unsaved = false;
                (*name, *count)
            })
            .collect();
        // Whoever failed again since has a row again.
        let mut gone = std::mem::take(&mut table.gone);
        gone.retain(|name| table.counts.get(name).is_none_or(|count| count.failures == 0));
        (counts, gone)
    }

    /// The store was not told: these are still to be said.
    fn untold(&self, counts: &[(Name, Count)], gone: &[Name]) {
        let mut table = self.table();
        for (name, _) in counts {
            if let Some(count) = table.counts.get_mut(name) {
                count.unsaved = true;
            }
        }
        table.gone.extend(gone);
    }

    /// Tells the store what changed; durable on return.
    async fn save(&self, store: &Store, now: Timestamp) -> Result<(), StoreError> {
        let _in_turn = self.saving.lock().await;
        let (counts, gone) = self.changes(now);
        if counts.is_empty() && gone.is_empty() {
            return Ok(());
        }
        // Whoever waits for this may go away: then the store is told the next time.
        let mut telling = Telling { lockouts: self, counts: &counts, gone: &gone, told: false };
        let kept = counts
            .iter()
            .map(|(name, count)| Fact::new(FactKind::Lockout, hex::encode(name), count));
        let left = gone.iter().map(|name| Ok(Fact::gone(FactKind::Lockout, hex::encode(name))));
        let outcome = match kept.chain(left).collect() {
            Ok(facts) => store.remember(facts, None).await,
            Err(fault) => Err(fault),
        };
        telling.told = outcome.is_ok();
        outcome
    }
}

/// What the store is being told; unless it was, it is still to be said.
struct Telling<'a> {
    lockouts: &'a Lockouts,
    counts: &'a [(Name, Count)],
    gone: &'a [Name],
    told: bool,
}

impl Drop for Telling<'_> {
    fn drop(&mut self) {
        if !self.told {
            self.lockouts.untold(self.counts, self.gone);
        }
    }
}

impl Engine {
    /// Begins an attempt at the claimed subject, or says how long its face has to wait.
    pub(super) fn begin_attempt(
        &self,
        pass: &GatePass,
        subject: &SubjectRef,
    ) -> Result<Attempt<'_>, Duration> {
        let name = self.store.blind_name(&pass.gate().controller, subject);
        self.lockouts.begin(name, pass.lockout_after(), self.trusted_now())
    }

    /// Tells the store which counts of failed attempts changed; durable on return.
    ///
    /// # Errors
    /// The store; what it was not told is told the next time.
    pub async fn save_lockouts(&self) -> Result<(), StoreError> {
        self.lockouts.save(&self.store, self.trusted_now()).await
    }

    /// Failed attempts at a subject that are remembered.
    #[must_use]
    pub fn failed_attempts(&self, controller: &ControllerId, subject: &SubjectRef) -> u32 {
        self.lockouts.failures(&self.store.blind_name(controller, subject))
    }

    /// Subjects whose face waits now.
    pub(super) fn locked_subjects(&self) -> usize {
        self.lockouts.locked(self.trusted_now())
    }

    /// A subject is revoked: nothing is remembered of attempts at it. The store's row, which does
    /// not say whom it was about, goes with the commit that revokes, or with the next save.
    pub(super) fn forget_attempts(&self, controller: &ControllerId, subject: &SubjectRef) {
        self.lockouts.forget(&self.store.blind_name(controller, subject));
    }

    /// Lets a subject's face be tried again; whether anything stood against it. Durable, and in the
    /// audit trail, on return.
    ///
    /// # Errors
    /// The store; where it has no audit entry, nothing was cleared.
    pub async fn clear_lockout(
        &self,
        caller: &str,
        controller: &ControllerId,
        subject: &SubjectRef,
    ) -> Result<bool, StoreError> {
        let _drain_waits = self.task();
        let name = self.store.blind_name(controller, subject);
        if self.lockouts.failures(&name) == 0 {
            return Ok(false);
        }
        let at = self.now();
        let event = AuditEvent::LockoutCleared { at, caller, controller, subject };
        let gone = Fact::gone(FactKind::Lockout, hex::encode(name));
        self.store.remember(vec![gone], Some(&event)).await?;
        self.lockouts.forget(&name);
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: u32 = 3;

    fn now() -> Timestamp {
        "2026-03-01T12:00:00Z".parse().unwrap()
    }

    fn fail(lockouts: &Lockouts, name: Name, at: Timestamp) -> bool {
        lockouts.begin(name, LIMIT, at).ok().unwrap().failed(at)
    }

    fn waits(lockouts: &Lockouts, name: Name, at: Timestamp) -> Option<u64> {
        lockouts.begin(name, LIMIT, at).err().map(|wait| wait.as_secs())
    }

    #[test]
    fn the_wait_begins_with_half_a_minute_and_doubles_up_to_an_hour() {
        let (lockouts, mut at) = (Lockouts::default(), now());
        assert!(!fail(&lockouts, [1; 32], at) && !fail(&lockouts, [1; 32], at));
        for expected in [30, 60, 120, 240, 480, 960, 1920, 3600, 3600, 3600] {
            assert!(fail(&lockouts, [1; 32], at), "{expected}");
            assert_eq!(waits(&lockouts, [1; 32], at), Some(expected));
            assert_eq!(waits(&lockouts, [2; 32], at), None, "others do not wait");
            at = at.plus_ms(i64::try_from(expected).unwrap() * 1000);
        }
    }

    #[test]
    fn a_match_begins_the_count_anew_and_other_answers_do_not_count() {
        let lockouts = Lockouts::default();
        for _ in 0..10 {
            assert!(!fail(&lockouts, [1; 32], now()) && !fail(&lockouts, [1; 32], now()));
            drop(lockouts.begin([1; 32], LIMIT, now()));
            lockouts.begin([1; 32], LIMIT, now()).ok().unwrap().succeeded();
        }
        assert!(lockouts.table().counts.is_empty());
    }

    #[test]
    fn attempts_at_once_are_no_more_than_attempts_in_turn() {
        let lockouts = Lockouts::default();
        let under_way: Vec<_> = (0..100).map(|_| lockouts.begin([1; 32], LIMIT, now())).collect();
        assert_eq!(under_way.iter().filter(|attempt| attempt.is_ok()).count(), LIMIT as usize);
        let locked = under_way.into_iter().flatten();
        assert_eq!(locked.map(|attempt| attempt.failed(now())).filter(|locked| *locked).count(), 1);
        let later = now().plus_ms(FIRST_WAIT_MS);
        let one = lockouts.begin([1; 32], LIMIT, later);
        assert!(one.is_ok() && lockouts.begin([1; 32], LIMIT, later).is_err(), "one at a time");
    }

    #[test]
    fn a_flood_of_strangers_does_not_wash_a_count_away() {
        let lockouts = Lockouts::default();
        assert!(!fail(&lockouts, [255; 32], now()) && !fail(&lockouts, [255; 32], now()));
        for n in 0..2 * COUNTS {
            let mut name = Name::default();
            name[..8].copy_from_slice(&n.to_be_bytes());
            fail(&lockouts, name, now().plus_ms(1));
            assert!(lockouts.table().counts.len() <= COUNTS);
        }
        assert!(fail(&lockouts, [255; 32], now().plus_ms(2)), "the third failure");
    }

    #[test]
    fn idle_counts_are_forgotten_and_the_store_is_told() {
        let lockouts = Lockouts::default();
        fail(&lockouts, [1; 32], now());
        assert_eq!(lockouts.changes(now()).0.len(), 1);
        assert_eq!(lockouts.changes(now()), (vec![], vec![]));
        assert_eq!(lockouts.changes(now().plus_days(IDLE_DAYS + 1)), (vec![], vec![[1; 32]]));
    }
}
