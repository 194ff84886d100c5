//! A day, as it is counted in Beijing.

use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use time::{Date, OffsetDateTime, Weekday};

use crate::types::Timestamp;

/// Beijing is ahead of UTC, all year.
const OFFSET_MS: i64 = 8 * 3_600_000;
const SECOND_MS: i64 = 1_000;
const DAY_MS: i64 = 86_400_000;

/// A day in Beijing (UTC+8). Written as "2025-07-14".
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BeijingDay(Date);

impl BeijingDay {
    /// The day on which `at` is.
    #[must_use]
    pub fn of(at: Timestamp) -> Self {
        let seconds = (at.unix_ms() + OFFSET_MS).div_euclid(SECOND_MS);
        let utc = OffsetDateTime::from_unix_timestamp(seconds);
        Self(utc.map_or(Date::MAX, OffsetDateTime::date))
    }

    /// The day after; the last day that there is has none, and is its own.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.next_day().unwrap_or(self.0))
    }

    /// The instant at which it is over.
    #[must_use]
    pub fn end(self) -> Timestamp {
        let begin_s = self.0.midnight().assume_utc().unix_timestamp();
        Timestamp::EPOCH.plus_ms(begin_s * SECOND_MS + DAY_MS - OFFSET_MS)
    }

    /// Its year.
    #[must_use]
    pub fn year(self) -> i32 {
        self.0.year()
    }

    /// Whether it is a Saturday or a Sunday.
    #[must_use]
    pub fn is_weekend(self) -> bool {
        matches!(self.0.weekday(), Weekday::Saturday | Weekday::Sunday)
    }

    /// The last day of a year; `None` beyond 1970 to 9999.
    #[must_use]
    pub fn last_of(year: i32) -> Option<Self> {
        format!("{year:04}-12-31").parse().ok()
    }
}

/// Not a day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("not a day between 1970 and 9999, such as 2025-07-14")]
pub struct InvalidDay;

impl std::str::FromStr for BeijingDay {
    type Err = InvalidDay;

    fn from_str(text: &str) -> Result<Self, InvalidDay> {
        let form = time::macros::format_description!("[year]-[month]-[day]");
        let day = Date::parse(text, form).ok().filter(|day| (1970..=9999).contains(&day.year()));
        day.map(Self).ok_or(InvalidDay)
    }
}

impl fmt::Display for BeijingDay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = self.0.to_calendar_date();
        write!(f, "{year:04}-{:02}-{day:02}", u8::from(month))
    }
}

impl fmt::Debug for BeijingDay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl TryFrom<String> for BeijingDay {
    type Error = InvalidDay;

    fn try_from(text: String) -> Result<Self, InvalidDay> {
        text.parse()
    }
}

impl From<BeijingDay> for String {
    fn from(day: BeijingDay) -> Self {
        day.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(at: &str) -> String {
        BeijingDay::of(at.parse().unwrap()).to_string()
    }

    #[test]
    fn a_day_begins_and_ends_at_midnight_in_beijing() {
        assert_eq!(of("2025-05-31T15:59:59Z"), "2025-05-31");
        assert_eq!(of("2025-05-31T16:00:00Z"), "2025-06-01");
        assert_eq!(of("2025-06-01T00:00:00+08:00"), "2025-06-01");
        let day: BeijingDay = "2025-07-14".parse().unwrap();
        assert_eq!(day.end().to_string(), "2025-07-14T16:00:00Z");
        assert_eq!(BeijingDay::of(day.end()), day.next());
        assert_eq!(BeijingDay::of(day.end().plus_ms(-1)), day);
        assert_eq!(of("9999-12-31T23:59:59Z"), "9999-12-31", "the last day has no next");
    }

    #[test]
    fn what_is_no_day_is_refused() {
        for text in ["", "2025-7-14", "2025-02-29", "14.07.2025", "2025-07-14 ", "1969-12-31"] {
            assert_eq!(text.parse::<BeijingDay>(), Err(InvalidDay), "{text:?}");
        }
        assert!("2024-02-29".parse::<BeijingDay>().is_ok());
    }
}
