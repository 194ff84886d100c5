//! Wall-clock time as the law reads it.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Milliseconds since 1970-01-01T00:00:00Z, UTC without leap seconds. Written as RFC 3339.
///
/// ```
/// use assent::types::Timestamp;
/// let t: Timestamp = "2025-06-01T00:00:00Z".parse().unwrap();
/// assert_eq!(t.plus_days(43).to_string(), "2025-07-14T00:00:00Z");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Timestamp(i64);

/// Milliseconds in a day.
const DAY_MS: i64 = 86_400_000;
/// 9999-12-31T23:59:59.999Z: RFC 3339 cannot write later instants.
const LAST_MS: i64 = 253_402_300_799_999;

impl Timestamp {
    /// 1970-01-01T00:00:00Z.
    pub const EPOCH: Self = Self(0);

    /// Now, by the system's clock.
    #[must_use]
    pub fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Self(i64::try_from(since.as_millis()).unwrap_or(LAST_MS).min(LAST_MS))
    }

    /// From milliseconds since 1970; `None` before 1970 or after the year 9999.
    #[must_use]
    pub fn from_unix_ms(ms: i64) -> Option<Self> {
        (0..=LAST_MS).contains(&ms).then_some(Self(ms))
    }

    /// Milliseconds since 1970.
    #[must_use]
    pub fn unix_ms(self) -> i64 {
        self.0
    }

    /// `days` times 24 hours later.
    #[must_use]
    pub fn plus_days(self, days: u32) -> Self {
        Self(self.0.saturating_add(i64::from(days) * DAY_MS).min(LAST_MS))
    }

    /// `ms` milliseconds later (earlier when negative).
    #[must_use]
    pub fn plus_ms(self, ms: i64) -> Self {
        Self(self.0.saturating_add(ms).clamp(0, LAST_MS))
    }

    /// Whole calendar months, UTC, since January 1970.
    #[must_use]
    pub fn months_since_1970(self) -> u32 {
        let date = OffsetDateTime::from_unix_timestamp(self.0.div_euclid(1_000)).ok();
        let months = date.map(|t| (t.year() - 1970) * 12 + i32::from(u8::from(t.month())) - 1);
        months.and_then(|months| u32::try_from(months).ok()).unwrap_or_default()
    }

    /// Milliseconds from `earlier` to `self`; negative when `self` is the earlier one.
    #[must_use]
    pub fn ms_since(self, earlier: Self) -> i64 {
        self.0 - earlier.0
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = i128::from(self.0) * 1_000_000;
        let text = OffsetDateTime::from_unix_timestamp_nanos(nanos)
            .ok()
            .and_then(|t| t.format(&Rfc3339).ok())
            .unwrap_or_default();
        f.write_str(&text)
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Not an RFC 3339 time between 1970 and 9999.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an RFC 3339 time between 1970 and 9999, such as 2025-06-01T00:00:00Z")]
pub struct InvalidTime;

impl std::str::FromStr for Timestamp {
    type Err = InvalidTime;

    fn from_str(text: &str) -> Result<Self, InvalidTime> {
        OffsetDateTime::parse(text, &Rfc3339)
            .ok()
            .and_then(|t| i64::try_from(t.unix_timestamp_nanos() / 1_000_000).ok())
            .and_then(Self::from_unix_ms)
            .ok_or(InvalidTime)
    }
}

impl TryFrom<String> for Timestamp {
    type Error = InvalidTime;

    fn try_from(text: String) -> Result<Self, InvalidTime> {
        text.parse()
    }
}

impl From<Timestamp> for String {
    fn from(t: Timestamp) -> Self {
        t.to_string()
    }
}
