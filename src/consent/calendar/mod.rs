//! Working days of mainland China, as data: what the law's deadlines are counted in.
//!
//! # Invariants
//! - A day is a working day or not by what was published for its year; of a year for which nothing
//!   is there, nothing is guessed: weekends are worked and weekdays are off as the State Council
//!   says, late in the year before.
//! - Days are days in Beijing.
//! - The years of a calendar follow each other without a gap.

mod day;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::Deserialize;
use thiserror::Error;

pub use day::{BeijingDay, InvalidDay};

/// What ships with the program.
const SHIPPED: &str = include_str!("cn.toml");

/// Which days are worked, year by year. Cheap to clone.
///
/// ```
/// use assent::consent::Calendar;
/// // The first of June 2025 was a Sunday within the Dragon Boat holiday.
/// let last = Calendar::shipped().add_working_days("2025-06-01".parse()?, 30)?;
/// assert_eq!(last.to_string(), "2025-07-14");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Calendar {
    years: Arc<BTreeMap<i32, Year>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Year {
    source: String,
    holidays: BTreeSet<BeijingDay>,
    workdays: BTreeSet<BeijingDay>,
}

/// A calendar file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    years: Vec<RawYear>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawYear {
    year: i32,
    source: String,
    holidays: Vec<RawHoliday>,
    workdays: Vec<BeijingDay>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawHoliday {
    name: String,
    from: BeijingDay,
    to: BeijingDay,
}

/// A calendar file that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CalendarFault {
    /// It is not such a file.
    #[error("{0}")]
    Syntax(String),
    /// A year is there twice.
    #[error("year {0} is there twice")]
    Twice(i32),
    /// A year says nothing of where it comes from.
    #[error("year {0}: source is empty; name the notice that it comes from")]
    NoSource(i32),
    /// A day lies in another year.
    #[error("year {year}: {day} lies in another year")]
    OtherYear {
        /// The year.
        year: i32,
        /// The day.
        day: BeijingDay,
    },
    /// A holiday ends before it begins.
    #[error("year {year}: {name} ends before it begins")]
    Backwards {
        /// The year.
        year: i32,
        /// The holiday.
        name: String,
    },
    /// A day is to be worked that is no weekend, or a holiday as well.
    #[error("year {year}: {day} is no weekend, or a holiday as well: it cannot be in workdays")]
    NoWeekend {
        /// The year.
        year: i32,
        /// The day.
        day: BeijingDay,
    },
    /// A year between others is missing.
    #[error("year {0} is missing between others")]
    Gap(i32),
}

/// A count that leaves the years that are known.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "the working-day calendar covers {first} to {last}, and this count reaches {day}: write what the State Council has published for {year} into a file and name it in `[filing] calendar`",
    year = .day.year()
)]
pub struct PastCalendar {
    /// The first day of which nothing is known.
    pub day: BeijingDay,
    /// The first year that is covered.
    pub first: i32,
    /// The last year that is covered.
    pub last: i32,
}

impl Calendar {
    /// What ships with the program.
    ///
    /// # Panics
    /// Never: a test parses it.
    #[must_use]
    pub fn shipped() -> Self {
        // The text is a constant of this program; every test here parses it.
        let years = parse(SHIPPED).expect("the shipped calendar parses");
        Self { years: Arc::new(years) }
    }

    /// The same with the years of a file laid over it: those that it names are as it says.
    ///
    /// # Errors
    /// The first thing that is wrong with the file.
    pub fn with(&self, file: &str) -> Result<Self, CalendarFault> {
        let mut years = BTreeMap::clone(&self.years);
        years.extend(parse(file)?);
        let mut expected = None;
        for year in years.keys().copied() {
            if expected.is_some_and(|expected| expected != year) {
                return Err(CalendarFault::Gap(year - 1));
            }
            expected = Some(year + 1);
        }
        Ok(Self { years: Arc::new(years) })
    }

    /// Each year that is covered, and the notice that it comes from.
    pub fn sources(&self) -> impl Iterator<Item = (i32, &str)> {
        self.years.iter().map(|(year, data)| (*year, data.source.as_str()))
    }

    /// The first and the last year that are covered.
    #[must_use]
    pub fn covers(&self) -> (i32, i32) {
        let first = self.years.keys().next().copied().unwrap_or(0);
        (first, self.years.keys().next_back().copied().unwrap_or(0))
    }

    /// Whether people work on that day.
    ///
    /// # Errors
    /// Nothing is known of its year.
    pub fn is_working_day(&self, day: BeijingDay) -> Result<bool, PastCalendar> {
        let Some(year) = self.years.get(&day.year()) else {
            let (first, last) = self.covers();
            return Err(PastCalendar { day, first, last });
        };
        let off = day.is_weekend() || year.holidays.contains(&day);
        Ok(!off || year.workdays.contains(&day))
    }

    /// The day on which the `n`th working day after `day` is. The count begins the day after.
    ///
    /// # Errors
    /// The count leaves the years that are covered.
    pub fn add_working_days(&self, day: BeijingDay, n: u32) -> Result<BeijingDay, PastCalendar> {
        let (mut at, mut left) = (day, n);
        while left > 0 {
            at = at.next();
            left -= u32::from(self.is_working_day(at)?);
        }
        Ok(at)
    }
}

fn parse(text: &str) -> Result<BTreeMap<i32, Year>, CalendarFault> {
    let file: File =
        toml::from_str(text).map_err(|fault| CalendarFault::Syntax(fault.to_string()))?;
    let mut years = BTreeMap::new();
    for raw in file.years {
        let year = raw.year;
        if years.insert(year, checked(raw)?).is_some() {
            return Err(CalendarFault::Twice(year));
        }
    }
    Ok(years)
}

fn checked(raw: RawYear) -> Result<Year, CalendarFault> {
    let RawYear { year, source, .. } = raw;
    if source.trim().is_empty() {
        return Err(CalendarFault::NoSource(year));
    }
    let ends = raw.holidays.iter().flat_map(|holiday| [holiday.from, holiday.to]);
    if let Some(day) = ends.chain(raw.workdays.iter().copied()).find(|day| day.year() != year) {
        return Err(CalendarFault::OtherYear { year, day });
    }
    let mut holidays = BTreeSet::new();
    for RawHoliday { name, from, to } in raw.holidays {
        if to < from {
            return Err(CalendarFault::Backwards { year, name });
        }
        let days = std::iter::successors(Some(from), |day| Some(day.next()));
        holidays.extend(days.take_while(|day| *day <= to));
    }
    let workdays: BTreeSet<_> = raw.workdays.into_iter().collect();
    if let Some(day) = workdays.iter().find(|d| !d.is_weekend() || holidays.contains(d)) {
        return Err(CalendarFault::NoWeekend { year, day: *day });
    }
    Ok(Year { source, holidays, workdays })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn day(text: &str) -> BeijingDay {
        text.parse().unwrap()
    }

    fn after(from: &str, n: u32) -> String {
        Calendar::shipped().add_working_days(day(from), n).unwrap().to_string()
    }

    /// The Measures came into force on that day: who held 100,000 persons then had until this one.
    #[test]
    fn o1_thirty_working_days_after_2025_06_01_end_on_2025_07_14() {
        assert_eq!(after("2025-06-01", 30), "2025-07-14");
    }

    #[test]
    fn o1_counts_go_across_every_holiday_and_every_worked_weekend() {
        for (from, n, to) in [
            // New Year and Spring Festival, with the Sunday and the Saturday that are worked.
            ("2024-12-31", 1, "2025-01-02"),
            ("2025-01-24", 1, "2025-01-26"),
            ("2025-01-24", 2, "2025-01-27"),
            ("2025-01-27", 1, "2025-02-05"),
            ("2025-02-07", 1, "2025-02-08"),
            ("2025-02-07", 2, "2025-02-10"),
            // Qingming, Labour Day, Dragon Boat.
            ("2025-04-03", 1, "2025-04-07"),
            ("2025-04-26", 1, "2025-04-27"),
            ("2025-04-30", 1, "2025-05-06"),
            ("2025-05-30", 1, "2025-06-03"),
            // National Day and Mid-Autumn.
            ("2025-09-27", 1, "2025-09-28"),
            ("2025-09-30", 1, "2025-10-09"),
            ("2025-10-10", 1, "2025-10-11"),
            ("2025-10-11", 1, "2025-10-13"),
            // 2026.
            ("2025-12-31", 1, "2026-01-04"),
            ("2026-02-13", 1, "2026-02-14"),
            ("2026-02-14", 1, "2026-02-24"),
            ("2026-02-27", 1, "2026-02-28"),
            ("2026-04-03", 1, "2026-04-07"),
            ("2026-04-30", 1, "2026-05-06"),
            ("2026-05-08", 1, "2026-05-09"),
            ("2026-06-18", 1, "2026-06-22"),
            ("2026-09-19", 1, "2026-09-20"),
            ("2026-09-24", 1, "2026-09-28"),
            ("2026-09-30", 1, "2026-10-08"),
            ("2026-10-09", 1, "2026-10-10"),
            // Over the turn of the year.
            ("2025-12-25", 30, "2026-02-06"),
            ("2025-06-01", 0, "2025-06-01"),
        ] {
            assert_eq!(after(from, n), to, "{n} after {from}");
        }
    }

    /// 2025 had 248 working days, 2026 has as many: 52 weeks, less the weekdays that are off.
    #[test]
    fn o1_each_year_has_its_248_working_days() {
        let calendar = Calendar::shipped();
        for year in [2025, 2026] {
            let days =
                std::iter::successors(Some(day(&format!("{year}-01-01"))), |d| Some(d.next()));
            let worked = days.take_while(|d| d.year() == year);
            let worked = worked.filter(|d| calendar.is_working_day(*d).unwrap()).count();
            assert_eq!(worked, 248, "{year}");
        }
    }

    #[test]
    fn o1_a_count_past_the_data_says_where_it_ends_and_what_to_do() {
        let calendar = Calendar::shipped();
        assert_eq!(after("2026-12-30", 1), "2026-12-31");
        for (from, n) in [("2026-12-31", 1), ("2026-12-01", 30), ("2030-01-01", 1)] {
            let fault = calendar.add_working_days(day(from), n).unwrap_err();
            assert_eq!((fault.first, fault.last), (2025, 2026));
            let said = fault.to_string();
            assert!(said.contains("covers 2025 to 2026"), "{said}");
            assert!(said.contains("`[filing] calendar`"), "{said}");
        }
        assert!(calendar.add_working_days(day("2024-12-01"), 1).is_err(), "nor before it");
    }

    #[test]
    fn o1_a_file_adds_years_and_corrects_those_that_it_names() {
        let file = "[[years]]\nyear = 2027\nsource = 'test'\nworkdays = []\n\
                    holidays = [{ name = 'x', from = '2027-01-01', to = '2027-01-03' }]\n";
        let longer = Calendar::shipped().with(file).unwrap();
        assert_eq!(longer.covers(), (2025, 2027));
        let last = longer.add_working_days(day("2026-12-31"), 1).unwrap();
        assert_eq!(last.to_string(), "2027-01-04");
        let none = "[[years]]\nyear = 2026\nsource = 'test'\nworkdays = []\nholidays = []\n";
        let worked = Calendar::shipped().with(none).unwrap();
        assert!(worked.is_working_day(day("2026-10-01")).unwrap());
        assert!(worked.sources().any(|found| found == (2026, "test")));
    }

    #[test]
    fn a_bad_file_is_refused_with_its_year() {
        let year = |year: i32, source: &str, workdays: &str, holidays: &str| {
            format!(
                "[[years]]\nyear = {year}\nsource = '{source}'\nworkdays = [{workdays}]\n\
                 holidays = [{holidays}]\n"
            )
        };
        let good = year(2027, "s", "", "");
        let holiday =
            |from: &str, to: &str| format!("{{ name = 'x', from = '{from}', to = '{to}' }}");
        for (file, word) in [
            ("years = 3".to_owned(), "years"),
            (good.replace("year =", "jahr ="), "jahr"),
            (format!("{good}{good}"), "2027 is there twice"),
            (year(2027, " ", "", ""), "source is empty"),
            (year(2028, "s", "", ""), "2027 is missing"),
            (year(2027, "s", "'2026-01-03'", ""), "2026-01-03 lies in another year"),
            (year(2027, "s", "'2027-01-04'", ""), "2027-01-04 is no weekend"),
            (year(2027, "s", "", &holiday("2027-01-02", "2027-01-01")), "ends before it begins"),
            (year(2027, "s", "", &holiday("2027-12-31", "2028-01-01")), "another year"),
            (year(2027, "s", "'2027-13-01'", ""), "not a day"),
            (year(2027, "s", "'2027-01-02'", &holiday("2027-01-01", "2027-01-03")), "holiday as"),
        ] {
            let fault = Calendar::shipped().with(&file).unwrap_err().to_string();
            assert!(fault.contains(word), "{word:?} is not in {fault:?}");
        }
        assert!(Calendar::shipped().with(&good).is_ok(), "the control");
    }
}
