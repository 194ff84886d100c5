//! `[filing]`: the threshold may be lowered, the calendar may be continued.

use std::path::{Path, PathBuf};

use thiserror::Error;

use super::{ConfigError, contents};
use crate::consent::{Calendar, CalendarFault, Profile};

/// A setting of `[filing]` that cannot work.
#[derive(Debug, Error)]
pub enum FilingFault {
    /// Later than the law says.
    #[error(
        "threshold: {given} is not from 1 to {most}; the threshold of profile {profile:?} may only \
         be lowered"
    )]
    Threshold {
        /// What it was to be.
        given: u32,
        /// What the profile says.
        most: u32,
        /// The profile.
        profile: String,
    },
    /// Nothing to lower.
    #[error("threshold: under profile {0:?} nobody has to file; remove the setting")]
    NoDuty(String),
    /// The calendar.
    #[error("calendar: {}: {cause}", path.display())]
    Calendar {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        cause: CalendarFault,
    },
}

/// The profile with a lower threshold, where one is given.
pub(super) fn lowered(profile: Profile, given: Option<u32>) -> Result<Profile, FilingFault> {
    let Some(given) = given else { return Ok(profile) };
    let Some(most) = profile.filing_threshold else {
        return Err(FilingFault::NoDuty(profile.name));
    };
    if given == 0 || given > most {
        return Err(FilingFault::Threshold { given, most, profile: profile.name });
    }
    Ok(Profile { filing_threshold: Some(given), ..profile })
}

/// The shipped calendar, with a file's years laid over it.
pub(super) fn calendar(file: Option<&Path>) -> Result<Calendar, ConfigError> {
    let shipped = Calendar::shipped();
    let Some(path) = file else { return Ok(shipped) };
    let text = String::from_utf8_lossy(&contents(path, "filing.calendar")?).into_owned();
    let fault = |cause| FilingFault::Calendar { path: path.to_owned(), cause };
    Ok(shipped.with(&text).map_err(fault)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn under(name: &str, given: Option<u32>) -> Result<Option<u32>, String> {
        let profile = Profile::named(name).unwrap();
        lowered(profile, given).map(|p| p.filing_threshold).map_err(|fault| fault.to_string())
    }

    #[test]
    fn o1_the_threshold_may_only_be_lowered() {
        assert_eq!(under("cn", None), Ok(Some(100_000)));
        assert_eq!(under("cn", Some(100_000)), Ok(Some(100_000)));
        assert_eq!(under("cn", Some(1)), Ok(Some(1)));
        for given in [0, 100_001, u32::MAX] {
            assert!(under("cn", Some(given)).unwrap_err().contains("may only be lowered"));
        }
        assert!(under("eu", Some(5)).unwrap_err().contains("nobody has to file"));
        assert_eq!(under("eu", None), Ok(None));
    }

    #[test]
    fn o1_a_calendar_file_continues_the_shipped_one_or_is_refused_by_name() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("2027.toml");
        let covers = || calendar(Some(&file)).map(|c| c.covers()).map_err(|f| f.to_string());
        assert!(covers().unwrap_err().contains("2027.toml: cannot be read"));
        std::fs::write(&file, "[[years]]\nyear = 2027\nsource = 's'\nholidays = []\nworkdays = []")
            .unwrap();
        assert_eq!(covers(), Ok((2025, 2027)));
        std::fs::write(&file, "[[years]]\nyear = 2029\nsource = 's'\nholidays = []\nworkdays = []")
            .unwrap();
        let gap = covers().unwrap_err();
        assert!(gap.contains("filing.calendar: ") && gap.contains("2028 is missing"), "{gap}");
    }
}
