//! Where each controller stands with the authority (O1), and what is remembered of it.
//!
//! # Invariants
//! - A duty that arose is written down with the instant at which it was seen, so that no restart
//!   moves its deadline. Until it could be written down, on a full disk, it is due all the same.
//! - What is marked as done is durable before it is acknowledged.

use std::collections::BTreeMap;
use std::sync::Arc;

use thiserror::Error;
use tokio::sync::Mutex;

use super::Engine;
use super::policy::Standing;
use crate::consent::{
    BeijingDay, Calendar, FilingDuty, FilingMark, FilingNumber, FilingRecord, FilingRules,
    FilingState, Holding, MarkRefusal, Sha256, material,
};
use crate::store::{AuditEvent, Fact, FactKind, Facts, StoreError};
use crate::types::{ControllerId, Revision, Timestamp};

/// What the engine knows about filings.
pub(super) struct Filings {
    calendar: Calendar,
    book: Mutex<Book>,
}

#[derive(Default)]
struct Book {
    records: BTreeMap<ControllerId, FilingRecord>,
    /// What is not written down yet: the duty that arose, if one did, and how many persons there
    /// were.
    unwritten: BTreeMap<ControllerId, (Option<FilingDuty>, u64)>,
    /// Digests of what controllers do, by the policy of `digested_at`: there is a look every second.
    digests: BTreeMap<ControllerId, Sha256>,
    digested_at: Revision,
}

/// One controller and its filing.
#[derive(Debug, Clone)]
pub struct ControllerFiling {
    /// The controller.
    pub controller: ControllerId,
    /// Distinct persons that it holds, over all purposes and scopes.
    pub persons: u64,
    /// The rules and where it stands by them; `None` where the profile wants no filing.
    pub standing: Option<(FilingRules, FilingState)>,
    /// What is remembered.
    pub record: FilingRecord,
}

/// What an operator says was done at the authority.
#[derive(Debug)]
pub struct MarkCommand {
    /// Who says it.
    pub caller: String,
    /// Who has done it.
    pub controller: ControllerId,
    /// What.
    pub mark: FilingMark,
    /// The authority's number.
    pub number: FilingNumber,
    /// When; `None` for today.
    pub on: Option<BeijingDay>,
}

/// Why nothing was marked.
#[derive(Debug, Error)]
pub enum FilingError {
    /// No such controller.
    #[error("no such controller was applied")]
    UnknownController,
    /// It cannot have been done.
    #[error(transparent)]
    Refused(#[from] MarkRefusal),
    /// The disk is full.
    #[error("the service's disk is full; free space on it, and mark it again")]
    LowOnSpace,
    /// The store.
    #[error("it could not be stored")]
    Store(#[source] StoreError),
    /// A fault of ours.
    #[error("internal fault")]
    Internal,
}

impl Filings {
    /// What the store remembers.
    pub(super) fn of(facts: &mut Facts, calendar: Calendar) -> Result<Self, StoreError> {
        let facts = facts.take::<FilingRecord>(FactKind::Filing)?;
        let named = facts.into_iter().map(|(name, record)| {
            let controller = ControllerId::parse(name).ok();
            controller.map(|id| (id, record)).ok_or(StoreError::Malformed { what: "filing" })
        });
        let records = named.collect::<Result<_, StoreError>>()?;
        Ok(Self { calendar, book: Mutex::new(Book { records, ..Book::default() }) })
    }
}

impl Book {
    /// Looks at what a controller holds, and notes a duty that arises. One thing after the other is
    /// written down.
    fn look(&mut self, controller: &ControllerId, rules: &FilingRules, holding: Holding) {
        if self.unwritten.contains_key(controller) {
            return;
        }
        let record = self.records.entry(controller.clone()).or_default();
        if let Some((next, duty)) = record.look(rules, holding) {
            *record = next;
            self.unwritten.insert(controller.clone(), (duty, holding.persons));
        }
    }

    /// What a controller holds and does now.
    fn holding(
        &mut self,
        policy: &Standing,
        persons: &BTreeMap<ControllerId, u64>,
        controller: &ControllerId,
        now: Timestamp,
    ) -> Holding {
        if self.digested_at != policy.revision {
            self.digests.clear();
            self.digested_at = policy.revision;
        }
        let digests = &mut self.digests;
        let digest =
            digests.entry(controller.clone()).or_insert_with(|| material(policy, controller));
        Holding { persons: persons.get(controller).copied().unwrap_or(0), material: *digest, now }
    }

    fn record(&self, controller: &ControllerId) -> FilingRecord {
        self.records.get(controller).cloned().unwrap_or_default()
    }
}

impl Engine {
    /// Where each controller stands. A duty that arises is written down on the way.
    pub async fn filings(&self) -> Vec<ControllerFiling> {
        let policy = self.policy();
        let rules = FilingRules::of(policy.profile());
        let persons = self.persons();
        let mut book = self.filings.book.lock().await;
        if let Some(rules) = &rules {
            for controller in policy.controllers().map(|c| &c.id) {
                let holding = book.holding(&policy, &persons, controller, self.trusted_now());
                book.look(controller, rules, holding);
            }
            self.write_down(&mut book, rules).await;
        }
        let standings = policy.controllers().map(|c| {
            let held = persons.get(&c.id).copied().unwrap_or(0);
            self.standing(&c.id, held, rules, book.record(&c.id))
        });
        standings.collect()
    }

    /// The last year of the working-day calendar.
    #[must_use]
    pub fn calendar_until(&self) -> i32 {
        self.filings.calendar.covers().1
    }

    /// Marks something as done at the authority.
    ///
    /// # Errors
    /// It cannot have been done, or could not be written down.
    pub async fn mark_filing(
        self: &Arc<Self>,
        command: MarkCommand,
    ) -> Result<ControllerFiling, FilingError> {
        let work = Arc::clone(self).mark(command);
        // On a task of its own: a caller that goes away leaves store and memory of one mind.
        match tokio::spawn(self.tasks.track_future(work)).await {
            Ok(outcome) => outcome,
            Err(_panicked) => Err(FilingError::Internal),
        }
    }

    async fn mark(self: Arc<Self>, command: MarkCommand) -> Result<ControllerFiling, FilingError> {
        let MarkCommand { caller, controller, mark, number, on } = command;
        let policy = self.policy();
        policy.controller(&controller).ok_or(FilingError::UnknownController)?;
        let no_duty = || MarkRefusal::NoSuchDuty(policy.profile().name.clone());
        let rules = FilingRules::of(policy.profile()).ok_or_else(no_duty)?;
        let mut book = self.filings.book.lock().await;
        let holding = book.holding(&policy, &self.persons(), &controller, self.trusted_now());
        let on = on.unwrap_or_else(|| BeijingDay::of(holding.now));
        let record = book.record(&controller).mark(mark, number.clone(), on, holding)?;
        let event = AuditEvent::FilingMarked {
            at: holding.now,
            caller: &caller,
            controller: &controller,
            mark,
            number: &number,
            on,
            persons: holding.persons,
            material: holding.material,
        };
        self.remember_filing(&controller, &record, Some(&event)).await.map_err(unstored)?;
        book.unwritten.remove(&controller);
        let known = book.records.insert(controller.clone(), record.clone()).unwrap_or_default();
        // What was no duty under a mark that is taken back is one now.
        if mark == FilingMark::Mistaken && known.before.is_none_or(|b| b.due_since.is_none()) {
            let duty = record.since(FilingDuty::File).map(|_| FilingDuty::File);
            book.unwritten.insert(controller.clone(), (duty, holding.persons));
        }
        self.write_down(&mut book, &rules).await;
        book.look(&controller, &rules, holding);
        self.write_down(&mut book, &rules).await;
        Ok(self.standing(&controller, holding.persons, Some(rules), book.record(&controller)))
    }

    /// Writes down what is not; what cannot be now is tried again at the next look.
    async fn write_down(&self, book: &mut Book, rules: &FilingRules) {
        let Book { records, unwritten, .. } = book;
        // Each leaves the list only when it is written: a caller may go away in between.
        for (controller, (duty, persons)) in unwritten.clone() {
            let record = records.get(&controller).cloned().unwrap_or_default();
            let due = duty.and_then(|duty| Some((duty, record.since(duty)?)));
            let event = due.map(|(duty, at)| {
                let deadline = rules.deadline(at, &self.filings.calendar).ok();
                AuditEvent::FilingDue { at, controller: &controller, duty, persons, deadline }
            });
            match self.remember_filing(&controller, &record, event.as_ref()).await {
                Ok(()) => {
                    if let Some((duty, since)) = due {
                        tracing::warn!(
                            %controller, persons, ?duty, %since,
                            "a controller has a duty to the authority; `assent filing status` \
                             says more"
                        );
                    }
                    unwritten.remove(&controller);
                }
                Err(fault) => {
                    if !matches!(fault, StoreError::LowOnSpace) {
                        let fault = &fault as &dyn std::error::Error;
                        tracing::error!(fault, %controller, "a duty to file is not written down");
                    }
                }
            }
        }
    }

    async fn remember_filing(
        &self,
        controller: &ControllerId,
        record: &FilingRecord,
        event: Option<&AuditEvent<'_>>,
    ) -> Result<(), StoreError> {
        let fact = Fact::new(FactKind::Filing, controller.as_str(), record)?;
        self.store.remember(vec![fact], event).await
    }

    fn persons(&self) -> BTreeMap<ControllerId, u64> {
        let held = self.index.controllers().into_iter();
        held.map(|held| (held.controller, held.subjects as u64)).collect()
    }

    fn standing(
        &self,
        controller: &ControllerId,
        persons: u64,
        rules: Option<FilingRules>,
        record: FilingRecord,
    ) -> ControllerFiling {
        let standing =
            rules.map(|rules| (rules, record.state(&rules, persons, &self.filings.calendar)));
        ControllerFiling { controller: controller.clone(), persons, standing, record }
    }
}

fn unstored(fault: StoreError) -> FilingError {
    if matches!(fault, StoreError::LowOnSpace) {
        FilingError::LowOnSpace
    } else {
        FilingError::Store(fault)
    }
}
