//! Filing with the authority: who holds the faces of many people has to say so (O1; M15 of the
//! Measures, 备案).
//!
//! ```text
//!              persons >= share      persons >= threshold        marked filed
//!   Quiet -----------------> Warned ----------------------> Due -------------> Filed <----------+
//!     ^                        |                             ^                   |              |
//!     +------------------------+                             | marked filed,     | what was     | marked
//!       persons < share                                      | at any number     | filed        | changed
//!                                                            | of persons        v differs      |
//!                                                   persons  |               ChangeDue ---------+
//!                                                   >= threshold                 |
//!                                                            |                   | marked cancelled,
//!                                                        Cancelled <-------------+ and from Filed
//! ```
//! Nobody held any more turns a filing into CancelDue, somebody held turns it back. A mark that was
//! made by mistake is taken back: all stands as before it, with what came to pass since.
//!
//! # Invariants
//! - A duty that arose stays until it is marked as done: people who leave do not undo it, because
//!   the law counts from the day on which the number was reached. Only the duty to cancel a filing
//!   ends by itself: who holds people again goes on.
//! - A deadline never moves by itself: it is counted from what is remembered.
//! - Nothing is marked as done that lies in the future.
//!
//! # Not here
//! What is remembered lies in the store (`engine/filing.rs`); nobody files by himself from here:
//! the controller does, and says so.

mod number;

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use number::{FilingNumber, InvalidNumber};

use super::calendar::{BeijingDay, Calendar, PastCalendar};
use super::gate::AllowedComparison;
use super::pass::GatePass;
use super::policy::Policy;
use super::profile::Profile;
use super::record::Sha256;
use crate::types::{ControllerId, Timestamp};

/// First field of what is digested of a controller. Another form makes every filing look changed:
/// keep this one for what was filed under it.
const FORM: &str = "assent filing v1";

/// What a profile says about filing.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FilingRules {
    /// From how many persons on.
    pub threshold: u64,
    /// From how many persons on there is a warning.
    pub warn_from: u64,
    /// How many working days there are for it.
    pub working_days: u32,
}

impl FilingRules {
    /// What `profile` says; `None` where nobody has to file under it.
    #[must_use]
    pub fn of(profile: &Profile) -> Option<Self> {
        let threshold = profile.filing_threshold?;
        // Both are far below 2^52, and neither is negative.
        #[expect(clippy::cast_possible_truncation, reason = "a share of a u32")]
        #[expect(clippy::cast_sign_loss, reason = "a share is more than 0")]
        let warn_from = (f64::from(threshold) * profile.filing_warn_share?).ceil() as u64;
        let working_days = profile.filing_working_days?;
        Some(Self { threshold: threshold.into(), warn_from, working_days })
    }

    /// The last day for a duty that arose at `since`.
    ///
    /// # Errors
    /// The calendar does not reach it.
    pub fn deadline(&self, since: Timestamp, calendar: &Calendar) -> Deadline {
        calendar.add_working_days(BeijingDay::of(since), self.working_days)
    }
}

/// What was done at the authority.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FilingMark {
    /// It was filed for the first time, or anew after it was cancelled.
    Filed,
    /// A change was filed.
    Changed,
    /// Processing ended, and the filing was cancelled.
    Cancelled,
    /// The last mark was a mistake.
    Mistaken,
}

/// A duty that arises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FilingDuty {
    /// To file.
    File,
    /// To file a change.
    FileChange,
    /// To have the filing cancelled.
    Cancel,
}

/// A filing in force, as it was last marked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filed {
    /// The authority's number.
    pub number: FilingNumber,
    /// When it was filed, or changed last.
    pub on: BeijingDay,
    /// Digest of what was filed.
    pub material: Sha256,
}

/// A filing that was cancelled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cancelled {
    /// The authority's number.
    pub number: FilingNumber,
    /// When.
    pub on: BeijingDay,
}

/// What is remembered of a controller's filing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilingRecord {
    /// When the threshold was reached first since the last cancellation: the duty to file counts
    /// from then, whatever was marked since and taken back.
    pub due_since: Option<Timestamp>,
    /// The filing in force.
    pub filed: Option<Filed>,
    /// When what was filed was first seen to differ from what is done, while no change was filed.
    pub changed_since: Option<Timestamp>,
    /// Whether anybody was held since the filing: an end needs a beginning.
    #[serde(default)]
    pub used: bool,
    /// When nobody was held any more since then.
    pub ended_since: Option<Timestamp>,
    /// The filing that was cancelled last, while there is no other.
    pub cancelled: Option<Cancelled>,
    /// What was remembered before the last mark, which may have been a mistake.
    pub before: Option<Box<Self>>,
}

/// The last day on which something may be done; or why it is not known.
pub type Deadline = Result<BeijingDay, PastCalendar>;

/// Where a controller stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FilingState {
    /// It holds few people.
    Quiet,
    /// It will soon hold so many that it has to file.
    Warned,
    /// It has to file.
    Due {
        /// When it held so many.
        since: Timestamp,
        /// Until when.
        deadline: Deadline,
    },
    /// It has filed.
    Filed,
    /// What it filed is no longer so, and it has to say what is.
    ChangeDue {
        /// Since when.
        since: Timestamp,
        /// Until when.
        deadline: Deadline,
    },
    /// It holds nobody any more, and has to have its filing cancelled if that is the end.
    CancelDue {
        /// Since when.
        since: Timestamp,
        /// Until when.
        deadline: Deadline,
    },
    /// It has ended, and its filing was cancelled.
    Cancelled,
}

impl FilingState {
    /// Every state's name.
    pub const NAMES: [&str; 7] =
        ["quiet", "warned", "due", "filed", "change_due", "cancel_due", "cancelled"];

    /// Its name.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Quiet => "quiet",
            Self::Warned => "warned",
            Self::Due { .. } => "due",
            Self::Filed => "filed",
            Self::ChangeDue { .. } => "change_due",
            Self::CancelDue { .. } => "cancel_due",
            Self::Cancelled => "cancelled",
        }
    }

    /// Since when something is due, and until when.
    #[must_use]
    pub fn duty(&self) -> Option<(Timestamp, &Deadline)> {
        match self {
            Self::Due { since, deadline }
            | Self::ChangeDue { since, deadline }
            | Self::CancelDue { since, deadline } => Some((*since, deadline)),
            Self::Quiet | Self::Warned | Self::Filed | Self::Cancelled => None,
        }
    }

    /// Whether the last day for what is due is over at `now`.
    #[must_use]
    pub fn is_overdue(&self, now: Timestamp) -> bool {
        let deadline = self.duty().and_then(|(_, deadline)| deadline.as_ref().ok());
        deadline.is_some_and(|day| day.end() <= now)
    }

    /// The instant to warn of: when the deadline is over; where it is not known, when the calendar
    /// is, which is before. Nobody learns too late that a calendar was too short.
    #[must_use]
    pub fn alarm_at(&self) -> Option<Timestamp> {
        let day = match self.duty()?.1 {
            Ok(day) => *day,
            Err(past) if past.day.year() > past.last => {
                BeijingDay::last_of(past.last).unwrap_or(past.day)
            }
            Err(past) => past.day,
        };
        Some(day.end())
    }
}

/// Why something was not marked as done.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum MarkRefusal {
    /// Nobody has to.
    #[error("under profile {0:?} nobody has to file")]
    NoSuchDuty(String),
    /// There is a filing.
    #[error("was filed under {} on {}; mark a change, or that it was cancelled", .0.number.as_str(), .0.on)]
    AlreadyFiled(Box<Filed>),
    /// There is none.
    #[error("is not filed: mark it as filed first")]
    NotFiled,
    /// A day that has not come.
    #[error("{on} has not come: in Beijing it is {today}")]
    Future {
        /// The day.
        on: BeijingDay,
        /// Today.
        today: BeijingDay,
    },
    /// Before the filing.
    #[error("{on} is before {before}, when it was filed or cancelled last")]
    TooEarly {
        /// The day.
        on: BeijingDay,
        /// When it was filed.
        before: BeijingDay,
    },
    /// It has not ended.
    #[error(
        "still holds {persons} persons: who cancels a filing has ended, and holds no faces (M15)"
    )]
    StillHolds {
        /// How many.
        persons: u64,
    },
    /// Nothing was marked, or it was taken back.
    #[error("has no mark that could be taken back")]
    NoMark,
    /// The mark to be taken back has another number.
    #[error("was marked last under {}: name that number to take the mark back", .0.as_str())]
    OtherNumber(FilingNumber),
}

impl FilingRecord {
    /// What has to be remembered of `holding`: the record, and the duty that arose, if one did.
    /// `None` where nothing is new. A second look at the same finds at most one more thing, a third
    /// nothing.
    #[must_use]
    pub fn look(
        &self,
        rules: &FilingRules,
        holding: Holding,
    ) -> Option<(Self, Option<FilingDuty>)> {
        let (since, nobody) = (Some(holding.now), holding.persons == 0);
        let known = self.filed.is_some() || self.cancelled.is_some();
        let same = || self.clone();
        match &self.filed {
            // While there is a filing it is no duty, but would be if the filing was a mistake.
            filed if self.due_since.is_none() && holding.persons >= rules.threshold => {
                let duty = filed.is_none().then_some(FilingDuty::File);
                Some((Self { due_since: since, ..same() }, duty))
            }
            Some(filed) if self.changed_since.is_none() && filed.material != holding.material => {
                Some((Self { changed_since: since, ..same() }, Some(FilingDuty::FileChange)))
            }
            // A cancellation may be taken back, so that what comes after it is noted too.
            filed if known && nobody && self.used && self.ended_since.is_none() => {
                let duty = filed.is_some().then_some(FilingDuty::Cancel);
                Some((Self { ended_since: since, ..same() }, duty))
            }
            _ if known && !nobody && (!self.used || self.ended_since.is_some()) => {
                Some((Self { used: true, ended_since: None, ..same() }, None))
            }
            None | Some(_) => None,
        }
    }

    /// Where a controller of `persons` stands by what is remembered.
    #[must_use]
    pub fn state(&self, rules: &FilingRules, persons: u64, calendar: &Calendar) -> FilingState {
        let deadline = |since| rules.deadline(since, calendar);
        let ended = self.ended_since.filter(|_| persons == 0);
        // Of two duties the one that is due first.
        let first = |ended| self.changed_since.is_none_or(|changed| ended < changed);
        if let (Some(_), Some(since)) = (&self.filed, ended.filter(|ended| first(*ended))) {
            return FilingState::CancelDue { since, deadline: deadline(since) };
        }
        match (&self.filed, self.changed_since, self.due_since) {
            (Some(_), Some(since), _) => {
                FilingState::ChangeDue { since, deadline: deadline(since) }
            }
            (Some(_), None, _) => FilingState::Filed,
            (None, _, Some(since)) => FilingState::Due { since, deadline: deadline(since) },
            (None, _, None) if persons >= rules.warn_from => FilingState::Warned,
            (None, _, None) if self.cancelled.is_some() => FilingState::Cancelled,
            (None, _, None) => FilingState::Quiet,
        }
    }

    /// What is remembered once `mark` was done `on` a day, under `number`. What the controller does
    /// now counts as what it filed: mark it when it was filed. A mistake is taken back once, by the
    /// number that was marked.
    ///
    /// # Errors
    /// It cannot have been done.
    pub fn mark(
        &self,
        mark: FilingMark,
        number: FilingNumber,
        on: BeijingDay,
        holding: Holding,
    ) -> Result<Self, MarkRefusal> {
        if mark == FilingMark::Mistaken {
            return self.taken_back(&number);
        }
        let today = BeijingDay::of(holding.now);
        if on > today {
            return Err(MarkRefusal::Future { on, today });
        }
        let last = self.filed.as_ref().map(|f| f.on).or(self.cancelled.as_ref().map(|c| c.on));
        if let Some(before) = last.filter(|last| on < *last) {
            return Err(MarkRefusal::TooEarly { on, before });
        }
        match (mark, &self.filed) {
            (FilingMark::Filed, Some(filed)) => {
                return Err(MarkRefusal::AlreadyFiled(Box::new(filed.clone())));
            }
            (FilingMark::Changed | FilingMark::Cancelled, None) => {
                return Err(MarkRefusal::NotFiled);
            }
            (FilingMark::Cancelled, Some(_)) if holding.persons > 0 => {
                return Err(MarkRefusal::StillHolds { persons: holding.persons });
            }
            (FilingMark::Filed | FilingMark::Mistaken, None) | (_, Some(_)) => {}
        }
        let mut done = Self { before: Some(Box::new(self.without_before())), ..Self::default() };
        if mark == FilingMark::Cancelled {
            done.cancelled = Some(Cancelled { number, on });
        } else {
            done.filed = Some(Filed { number, on, material: holding.material });
            done.due_since = self.due_since;
        }
        if mark != FilingMark::Filed {
            // Only a filing begins its use and its end anew.
            (done.used, done.ended_since) = (self.used, self.ended_since);
        }
        Ok(done)
    }

    /// What was remembered before the last mark.
    fn taken_back(&self, number: &FilingNumber) -> Result<Self, MarkRefusal> {
        let before = self.before.as_deref().ok_or(MarkRefusal::NoMark)?;
        let filed = self.filed.as_ref().map(|filed| &filed.number);
        let last = filed.or(self.cancelled.as_ref().map(|cancelled| &cancelled.number));
        if let Some(last) = last.filter(|last| *last != number) {
            return Err(MarkRefusal::OtherNumber(last.clone()));
        }
        let mut back = before.clone();
        back.due_since = before.due_since.or(self.due_since);
        if before.filed.is_some() {
            back.changed_since = before.changed_since.or(self.changed_since);
            (back.used, back.ended_since) = (before.used || self.used, self.ended_since);
        }
        Ok(back)
    }

    /// When that duty arose.
    #[must_use]
    pub fn since(&self, duty: FilingDuty) -> Option<Timestamp> {
        match duty {
            FilingDuty::File => self.due_since.filter(|_| self.filed.is_none()),
            FilingDuty::FileChange => self.changed_since,
            FilingDuty::Cancel => self.ended_since,
        }
    }

    /// The same without what was before it.
    #[must_use]
    pub fn without_before(&self) -> Self {
        Self { before: None, ..self.clone() }
    }
}

/// What a controller holds and does at an instant.
#[derive(Debug, Clone, Copy)]
pub struct Holding {
    /// How many persons.
    pub persons: u64,
    /// Digest of what it does: [`material`].
    pub material: Sha256,
    /// When.
    pub now: Timestamp,
}

/// A digest of what a filing says and a policy can change: who the controller is, for which
/// purposes it compares faces and how, and its impact assessments. Whether a change is substantial
/// (实质性变更) is the controller's to judge.
#[must_use]
pub fn material(policy: &Policy, controller: &ControllerId) -> Sha256 {
    let mut form = Vec::new();
    let mut text = |text: &str| {
        form.extend((text.len() as u64).to_be_bytes());
        form.extend(text.bytes());
    };
    text(FORM);
    text(controller.as_str());
    if let Some(known) = policy.controller(controller) {
        text(known.name.as_str());
        text(known.contact.as_str());
    }
    let gates = policy.gates().map(GatePass::gate).filter(|g| g.controller == *controller);
    let ways = gates.flat_map(|gate| {
        gate.purposes
            .iter()
            .map(|purpose| (purpose.as_str(), gate.comparison.map(AllowedComparison::as_str)))
    });
    for (purpose, comparison) in ways.collect::<BTreeSet<_>>() {
        text("gates");
        text(purpose);
        text(comparison.unwrap_or_default());
    }
    for assessment in policy.assessments().filter(|a| a.controller == *controller) {
        text("assessment");
        text(assessment.version.as_str());
        text(&String::from(assessment.document_sha256));
    }
    Sha256::of(&form)
}
