//! The time that consents end by: one that goes back revives nobody, one that jumps ahead destroys
//! nothing before somebody confirms it.
//!
//! The system's clock is followed while it agrees with the monotonic clock. The newest time that
//! was followed, the mark, is remembered in the store, and the time of every decision is the later
//! one of the system's and the mark's. When the system's clock is far ahead of where the monotonic
//! clock says that it should be, what has expired by it does not match; but the mark does not
//! follow, and nothing is erased for expiry, until an operator says that the clock is right.
//!
//! # Invariants
//! - The time of a decision is never before the mark; the mark only goes back when an operator
//!   confirms a clock that is behind it, which the audit trail says.
//! - While the clock is not trusted, no record is erased because of its expiry, and no audit entry
//!   because of its age. Withdrawals go on.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Engine;
use crate::store::{AuditEvent, Fact, FactKind, Facts, StoreError};
use crate::types::Timestamp;

const MARK: &str = "mark";
/// How far the clock may run ahead of the monotonic one between two looks, ms.
const AHEAD_MS: i64 = 5 * 60 * 1_000;
/// How far it may fall behind, ms: corrections, not a clock that was set.
const BEHIND_MS: i64 = 2_000;
/// How long the service may have been down before a restart has to be confirmed, ms.
const DOWN_MS: i64 = 7 * 24 * 60 * 60 * 1_000;
/// How often the mark is written.
const KEEP_EVERY: Duration = Duration::from_mins(1);

/// The mark, as the store remembers it.
#[derive(Serialize, Deserialize)]
struct Mark {
    at: Timestamp,
}

/// How the system's clock stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockStatus {
    /// How far it is ahead of where it should be, ms; negative when it is behind; 0 when trusted.
    pub skew_ms: i64,
    /// The time that consents end by.
    pub now: Timestamp,
}

impl ClockStatus {
    /// Whether what has expired may be erased.
    #[must_use]
    pub fn is_trusted(self) -> bool {
        self.skew_ms == 0
    }
}

/// The clock of one engine.
pub(super) struct Clock {
    /// The mark, Unix ms.
    mark: AtomicI64,
    state: Mutex<State>,
}

struct State {
    /// A time that was trusted, and when the monotonic clock saw it.
    anchor: (Timestamp, Duration),
    skew_ms: i64,
    kept: Option<Duration>,
}

impl Clock {
    /// Goes on from the mark that the store remembers.
    pub(super) fn open(facts: &mut Facts) -> Result<Self, StoreError> {
        let mark = facts.take::<Mark>(FactKind::Clock)?;
        let mark = mark.into_iter().find(|(name, _)| name == MARK).map(|(_, mark)| mark.at);
        let clock = Self::after(mark, system(), boot_time());
        let skew_ms = clock.state().skew_ms;
        if skew_ms != 0 {
            tell_distrust(skew_ms);
        }
        Ok(clock)
    }

    fn after(mark: Option<Timestamp>, system: Timestamp, instant: Duration) -> Self {
        let mark = mark.unwrap_or(system);
        let ahead = system.ms_since(mark);
        let follows = (0..=DOWN_MS).contains(&ahead);
        let (at, skew_ms) = if follows { (system, 0) } else { (mark, ahead) };
        Self {
            mark: AtomicI64::new(at.unix_ms()),
            state: Mutex::new(State { anchor: (at, instant), skew_ms, kept: None }),
        }
    }

    /// The time that consents end by.
    pub(super) fn now(&self) -> Timestamp {
        system().max(self.mark())
    }

    fn mark(&self) -> Timestamp {
        Timestamp::from_unix_ms(self.mark.load(Ordering::Acquire)).unwrap_or_else(system)
    }

    /// Compares the clocks; the skew where it changed between trusted and not.
    fn observe(&self, system: Timestamp, instant: Duration) -> Option<i64> {
        let mut state = self.state();
        let (anchor, since) = state.anchor;
        let elapsed = instant.saturating_sub(since).as_millis();
        let expected = anchor.plus_ms(i64::try_from(elapsed).unwrap_or(i64::MAX));
        let skew_ms = system.ms_since(expected);
        let was_trusted = state.skew_ms == 0;
        if (-BEHIND_MS..=AHEAD_MS).contains(&skew_ms) {
            state.anchor = (system, instant);
            state.skew_ms = 0;
            self.mark.fetch_max(system.unix_ms(), Ordering::AcqRel);
        } else {
            state.skew_ms = skew_ms;
            self.mark.fetch_max(expected.unix_ms(), Ordering::AcqRel);
        }
        (was_trusted != (state.skew_ms == 0)).then_some(state.skew_ms)
    }

    /// Takes the system's clock at its word.
    fn confirm(&self, system: Timestamp, instant: Duration) {
        let mut state = self.state();
        state.anchor = (system, instant);
        (state.skew_ms, state.kept) = (0, None);
        self.mark.store(system.unix_ms(), Ordering::Release);
    }

    /// Whether the mark is to be written.
    fn is_due(&self, instant: Duration) -> bool {
        let mut state = self.state();
        let due = state.kept.is_none_or(|kept| instant.saturating_sub(kept) >= KEEP_EVERY);
        if due {
            state.kept = Some(instant);
        }
        due
    }

    fn status(&self) -> ClockStatus {
        ClockStatus { skew_ms: self.state().skew_ms, now: self.now() }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn tell_distrust(skew_ms: i64) {
    tracing::error!(
        skew_ms,
        "the system's clock is not where it should be: nothing is erased for expiry until it is, \
         or `assent clock confirm` says that it is right"
    );
}

/// Time since the machine was started, its pauses included.
fn boot_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let (seconds, nanos) = (u64::try_from(time.tv_sec), u32::try_from(time.tv_nsec));
    Duration::new(seconds.unwrap_or_default(), nanos.unwrap_or_default())
}

impl Engine {
    /// The time that consents end by.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The newest time that was trusted, a second ago at most while the clock is trusted: for what
    /// outlives the decision.
    #[must_use]
    pub fn trusted_now(&self) -> Timestamp {
        self.clock.mark()
    }

    /// How the system's clock stands.
    #[must_use]
    pub fn clock_status(&self) -> ClockStatus {
        self.clock.status()
    }

    /// Compares the clocks, and now and then writes how far time has come.
    ///
    /// # Errors
    /// The mark could not be written.
    pub async fn watch_clock(&self) -> Result<ClockStatus, StoreError> {
        let instant = boot_time();
        match self.clock.observe(system(), instant) {
            Some(0) => tracing::info!("the system's clock is trusted again"),
            Some(skew_ms) => tell_distrust(skew_ms),
            None => {}
        }
        if self.clock.is_due(instant) {
            self.keep_mark().await?;
        }
        Ok(self.clock.status())
    }

    /// Takes the system's clock as it is, on an operator's word; the audit trail says so.
    ///
    /// # Errors
    /// The store; the clock is as trusted as before.
    pub async fn confirm_clock(&self) -> Result<ClockStatus, StoreError> {
        let (at, skew_ms) = (system(), self.clock.status().skew_ms);
        // First the trail says so, then something is erased by it.
        self.write_mark(at, Some(&AuditEvent::ClockConfirmed { at, skew_ms })).await?;
        self.clock.confirm(at, boot_time());
        Ok(self.clock.status())
    }

    /// Writes how far time has come.
    pub(super) async fn keep_mark(&self) -> Result<(), StoreError> {
        self.write_mark(self.clock.mark(), None).await
    }

    async fn write_mark(
        &self,
        at: Timestamp,
        event: Option<&AuditEvent<'_>>,
    ) -> Result<(), StoreError> {
        let mark = Fact::new(FactKind::Clock, MARK, &Mark { at })?;
        self.store.remember(vec![mark], event).await
    }
}

/// The system's clock. In builds with debug assertions a test moves it: `ASSENT_CLOCK` names a
/// file with the milliseconds to add.
fn system() -> Timestamp {
    #[cfg(debug_assertions)]
    {
        use std::sync::OnceLock;
        static FILE: OnceLock<Option<std::path::PathBuf>> = OnceLock::new();
        if let Some(file) = FILE.get_or_init(|| std::env::var_os("ASSENT_CLOCK").map(Into::into)) {
            let text = std::fs::read_to_string(file).unwrap_or_default();
            return Timestamp::now().plus_ms(text.trim().parse().unwrap_or_default());
        }
    }
    Timestamp::now()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DAY_MS: i64 = 24 * 60 * 60 * 1_000;

    fn noon() -> Timestamp {
        "2026-03-01T12:00:00Z".parse().unwrap()
    }

    fn mark_and_skew(clock: &Clock) -> (Timestamp, i64) {
        (clock.mark(), clock.state().skew_ms)
    }

    #[test]
    fn a_clock_that_runs_is_followed() {
        let start = boot_time();
        let clock = Clock::after(None, noon(), start);
        for second in 1..=600 {
            // A millisecond of jitter each way does not make time run away.
            let at = noon().plus_ms(second * 1_000 + (second % 3) - 1);
            let instant = start + Duration::from_secs(second.unsigned_abs());
            assert_eq!(clock.observe(at, instant), None);
        }
        let (mark, skew) = mark_and_skew(&clock);
        assert!(mark.ms_since(noon().plus_ms(600_000)).abs() <= 1, "{mark}");
        assert_eq!(skew, 0);
    }

    #[test]
    fn a_clock_that_goes_back_does_not_take_time_back() {
        let start = boot_time();
        let clock = Clock::after(None, noon(), start);
        let back = noon().plus_ms(-DAY_MS);
        let told = clock.observe(back, start + Duration::from_secs(10));
        assert_eq!(told, Some(-DAY_MS - 10_000));
        // Time goes on by the monotonic clock.
        assert_eq!(mark_and_skew(&clock), (noon().plus_ms(10_000), -DAY_MS - 10_000));
        let later = clock.observe(back.plus_ms(10_000), start + Duration::from_secs(20));
        assert_eq!(later, None);
        assert_eq!(clock.mark(), noon().plus_ms(20_000));
        // Corrected: trusted by itself.
        assert_eq!(clock.observe(noon().plus_ms(30_000), start + Duration::from_secs(30)), Some(0));
    }

    #[test]
    fn a_clock_that_jumps_ahead_is_not_trusted_until_it_is_confirmed_or_corrected() {
        let start = boot_time();
        for confirmed in [false, true] {
            let clock = Clock::after(None, noon(), start);
            let ahead = noon().plus_ms(400 * DAY_MS);
            let second = start + Duration::from_secs(1);
            assert_eq!(clock.observe(ahead, second), Some(400 * DAY_MS - 1_000));
            assert_eq!(clock.mark(), noon().plus_ms(1_000), "the mark does not follow");
            if confirmed {
                clock.confirm(ahead, second);
                assert_eq!(mark_and_skew(&clock), (ahead, 0));
                let on = clock.observe(ahead.plus_ms(1_000), second + Duration::from_secs(1));
                assert_eq!(on, None);
            } else {
                let corrected =
                    clock.observe(noon().plus_ms(2_000), start + Duration::from_secs(2));
                assert_eq!(corrected, Some(0));
                assert_eq!(clock.mark(), noon().plus_ms(2_000));
            }
        }
    }

    #[test]
    fn after_a_restart_time_goes_on_from_the_mark() {
        let start = boot_time();
        for (down_ms, trusted) in
            [(0, true), (DAY_MS, true), (8 * DAY_MS, false), (-1, false), (-DAY_MS, false)]
        {
            let system = noon().plus_ms(down_ms);
            let clock = Clock::after(Some(noon()), system, start);
            let at = if trusted { system } else { noon() };
            assert_eq!(mark_and_skew(&clock), (at, if trusted { 0 } else { down_ms }), "{down_ms}");
        }
    }

    proptest! {
        /// Whatever the system's clock does: without a confirmation the mark never goes back, never
        /// runs ahead of the monotonic clock by more than each look's tolerance, and a record that
        /// has expired by the mark stays expired.
        #[test]
        fn without_a_confirmation_the_mark_only_goes_on(
            steps in prop::collection::vec((-3 * DAY_MS..3 * DAY_MS, 1_u64..100), 1..50),
        ) {
            let (start, mut elapsed) = (boot_time(), Duration::ZERO);
            let clock = Clock::after(None, noon(), start);
            let mut before = clock.mark();
            let mut looks = 0;
            for (skew, seconds) in steps {
                elapsed += Duration::from_secs(seconds);
                looks += 1;
                let elapsed_ms = i64::try_from(elapsed.as_millis()).unwrap();
                clock.observe(noon().plus_ms(elapsed_ms + skew), start + elapsed);
                let mark = clock.mark();
                prop_assert!(mark >= before);
                prop_assert!(mark.ms_since(noon()) <= elapsed_ms + looks * AHEAD_MS);
                before = mark;
            }
        }
    }
}
