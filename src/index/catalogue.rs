//! Who is in which slot, and every way to find it.
//!
//! # Invariants
//! - A live record stands in all maps, a withdrawn one in none: a search cannot reach it.
//! - A row is in use, awaiting its purge, free, or retired. Only a purge frees it, with a higher
//!   generation; a row whose generation would overflow, or whose purge was abandoned, is retired.
//! - A consent belongs to one record, so that revoking by consent misses none.
//!
//! # Not here
//! Templates. Subject references and consent ids are opaque by contract and no biometric: they
//! are freed at once, not overwritten.

use std::collections::{BTreeSet, HashMap};

use super::classes::{ClassId, ClassSet, Classes};
use super::error::IndexError;
use super::found::{Match, NewTemplate};
use super::status::{ClassStatus, ControllerStatus};
use crate::consent::{ConsentTag, Grant};
use crate::types::{
    ConsentId, ControllerId, NoticeVersion, RecordId, Similarity, SlotId, SubjectRef, Timestamp,
};

/// All that is known of the templates but the templates.
#[derive(Default)]
pub(super) struct Catalogue {
    slots: Vec<Slot>,
    matches_until: Vec<Timestamp>,
    free: Vec<u32>,
    classes: Classes,
    records: HashMap<RecordId, u32>,
    controllers: HashMap<ControllerId, People>,
    by_expiry: BTreeSet<(Timestamp, u32)>,
}

#[derive(Default)]
struct Slot {
    generation: u32,
    /// Something while live.
    entry: Option<Box<Entry>>,
}

/// A live slot's record; with its class it gives back the consent tag.
struct Entry {
    record: RecordId,
    subject: SubjectRef,
    class: ClassId,
    consent_id: ConsentId,
    notice_version: NoticeVersion,
    granted_at: Timestamp,
    expires_at: Timestamp,
}

/// The people of one controller.
#[derive(Default)]
struct People {
    by_subject: HashMap<SubjectRef, Vec<u32>>,
    by_consent: HashMap<ConsentId, u32>,
}

/// Whether a row may hold another person after its purge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reuse {
    /// The purge was carried out.
    Allowed,
    /// It was abandoned.
    Never,
}

impl Catalogue {
    /// The row that the next template takes.
    ///
    /// # Errors
    /// The record or its consent is held already, or no row is left.
    pub(super) fn vacancy(&self, template: &NewTemplate) -> Result<u32, IndexError> {
        if self.holds(template.record) {
            return Err(IndexError::RecordHeld { record: template.record });
        }
        let tag = &template.consent;
        if let Some(record) = self.record_of_consent(&tag.class.controller, &tag.consent_id) {
            return Err(IndexError::ConsentHeld { record });
        }
        let fresh = || u32::try_from(self.slots.len()).map_err(|_beyond_u32| IndexError::Full);
        self.free.last().copied().map_or_else(fresh, Ok)
    }

    /// Enters a template into the row that [`Catalogue::vacancy`] named.
    ///
    /// # Errors
    /// No class number is left; nothing is changed then.
    pub(super) fn occupy(&mut self, row: u32, new: NewTemplate) -> Result<SlotId, IndexError> {
        let class = self.classes.intern(&new.consent.class).ok_or(IndexError::Full)?;
        self.take(row, new.matches_until);
        self.classes.enter(class, row);
        self.by_expiry.insert((new.matches_until, row));
        self.records.insert(new.record, row);
        let people = self.controllers.entry(new.consent.class.controller).or_default();
        people.by_subject.entry(new.subject.clone()).or_default().push(row);
        people.by_consent.insert(new.consent.consent_id.clone(), row);
        self.slots[row as usize].entry = Some(Box::new(Entry {
            record: new.record,
            subject: new.subject,
            class,
            consent_id: new.consent.consent_id,
            notice_version: new.consent.notice_version,
            granted_at: new.consent.granted_at,
            expires_at: new.consent.expires_at,
        }));
        Ok(self.slot_id(row))
    }

    /// Drops a record from all maps. Its row stays taken until it is [released].
    ///
    /// [released]: Catalogue::release
    pub(super) fn vacate(&mut self, record: RecordId) -> Option<SlotId> {
        let row = self.records.remove(&record)?;
        let entry = self.slots[row as usize].entry.take()?;
        self.classes.strike(entry.class, row);
        self.by_expiry.remove(&(self.matches_until[row as usize], row));
        let controller = &self.classes.key(entry.class).controller;
        if let Some(people) = self.controllers.get_mut(controller) {
            people.forget(&entry, row);
            if people.by_subject.is_empty() {
                self.controllers.remove(controller);
            }
        }
        Some(self.slot_id(row))
    }

    /// Ends the wait of a vacated row for its purge.
    pub(super) fn release(&mut self, row: u32, reuse: Reuse) {
        let slot = &mut self.slots[row as usize];
        if let Some(next) = slot.generation.checked_add(1)
            && reuse == Reuse::Allowed
        {
            slot.generation = next;
            self.free.push(row);
        }
    }

    /// The row with its present generation.
    pub(super) fn slot_id(&self, row: u32) -> SlotId {
        SlotId { index: row, generation: self.slots[row as usize].generation }
    }

    /// The grant as a set of classes.
    pub(super) fn compile(&self, grant: &Grant) -> ClassSet {
        self.classes.compile(grant)
    }

    /// The rows of every class in `set`.
    pub(super) fn rows(&self, set: &ClassSet) -> Vec<&[u32]> {
        self.classes.rows(set)
    }

    /// The rows of one subject in the granted classes, ascending.
    pub(super) fn rows_of_subject(&self, grant: &Grant, subject: &SubjectRef) -> Vec<u32> {
        let granted = self.compile(grant);
        let mut controllers: Vec<_> = grant.classes().iter().map(|key| &key.controller).collect();
        controllers.dedup(); // a grant's classes are sorted, by controller first
        let mut rows: Vec<u32> = controllers
            .into_iter()
            .flat_map(|controller| self.subject_rows(controller, subject))
            .filter(|row| self.entry(*row).is_some_and(|entry| granted.contains(entry.class)))
            .collect();
        rows.sort_unstable();
        rows
    }

    /// By row: the instant from which on it does not match.
    pub(super) fn matches_until(&self) -> &[Timestamp] {
        &self.matches_until
    }

    /// The match that `slot` stands for, if it still stands for one.
    pub(super) fn confirm(
        &self,
        grant: &Grant,
        (slot, similarity): (SlotId, Similarity),
        now: Timestamp,
    ) -> Option<Match> {
        let held = self.slots.get(slot.index as usize)?;
        let entry = held.entry.as_ref()?;
        let may_leave = held.generation == slot.generation
            && now < self.matches_until[slot.index as usize]
            && self.compile(grant).contains(entry.class);
        may_leave.then(|| {
            Match::proven(entry.record, entry.subject.clone(), self.tag(entry), similarity)
        })
    }

    /// Whether the record is live.
    pub(super) fn holds(&self, record: RecordId) -> bool {
        self.records.contains_key(&record)
    }

    /// What a live record is held under.
    pub(super) fn describe(&self, record: RecordId) -> Option<NewTemplate> {
        let row = *self.records.get(&record)? as usize;
        let entry = self.slots.get(row)?.entry.as_ref()?;
        Some(NewTemplate {
            record,
            subject: entry.subject.clone(),
            consent: self.tag(entry),
            matches_until: self.matches_until[row],
        })
    }

    /// Live records.
    pub(super) fn live(&self) -> usize {
        self.records.len()
    }

    /// At most `limit` records that do not match at `now` any more, the longest expired first.
    pub(super) fn expired(&self, now: Timestamp, limit: usize) -> Vec<RecordId> {
        let due = self.by_expiry.range(..=(now, u32::MAX));
        due.filter_map(|(_, row)| self.record(*row)).take(limit).collect()
    }

    /// Every record of a subject.
    pub(super) fn records_of_subject(
        &self,
        controller: &ControllerId,
        subject: &SubjectRef,
    ) -> Vec<RecordId> {
        self.subject_rows(controller, subject).filter_map(|row| self.record(row)).collect()
    }

    /// The record of a consent.
    pub(super) fn record_of_consent(
        &self,
        controller: &ControllerId,
        consent: &ConsentId,
    ) -> Option<RecordId> {
        let row = self.controllers.get(controller)?.by_consent.get(consent)?;
        self.record(*row)
    }

    /// Every class that has live templates.
    pub(super) fn class_status(&self) -> Vec<ClassStatus> {
        self.classes.status()
    }

    /// Every controller that has live templates.
    pub(super) fn controller_status(&self) -> Vec<ControllerStatus> {
        let status = |(controller, people): (&ControllerId, &People)| ControllerStatus {
            controller: controller.clone(),
            subjects: people.by_subject.len(),
        };
        self.controllers.iter().map(status).collect()
    }

    fn take(&mut self, row: u32, matches_until: Timestamp) {
        if self.free.last() == Some(&row) {
            self.free.pop();
            self.matches_until[row as usize] = matches_until;
        } else {
            self.slots.push(Slot::default());
            self.matches_until.push(matches_until);
        }
    }

    fn entry(&self, row: u32) -> Option<&Entry> {
        self.slots[row as usize].entry.as_deref()
    }

    fn record(&self, row: u32) -> Option<RecordId> {
        self.entry(row).map(|entry| entry.record)
    }

    fn subject_rows(
        &self,
        controller: &ControllerId,
        subject: &SubjectRef,
    ) -> impl Iterator<Item = u32> {
        let people = self.controllers.get(controller);
        let rows = people.and_then(|people| people.by_subject.get(subject));
        rows.into_iter().flatten().copied()
    }

    fn tag(&self, entry: &Entry) -> ConsentTag {
        ConsentTag {
            consent_id: entry.consent_id.clone(),
            class: self.classes.key(entry.class).clone(),
            notice_version: entry.notice_version.clone(),
            granted_at: entry.granted_at,
            expires_at: entry.expires_at,
        }
    }

    /// Lets a test reach the end of a row's generations.
    #[cfg(test)]
    pub(super) fn age(&mut self, row: u32, generation: u32) {
        self.slots[row as usize].generation = generation;
    }
}

impl People {
    fn forget(&mut self, entry: &Entry, row: u32) {
        self.by_consent.remove(&entry.consent_id);
        if let Some(rows) = self.by_subject.get_mut(&entry.subject) {
            rows.retain(|other| *other != row);
            if rows.is_empty() {
                self.by_subject.remove(&entry.subject);
            }
        }
    }
}
