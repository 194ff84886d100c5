//! Who is in which slot, and every way to find it.
//!
//! ```text
//! entries   by row, in blocks of a group       record, names, granted, expires      56 bytes
//!             '-> names packed on the heap     two UUIDs 32 bytes, other texts themselves
//! lookups   record -> row, (controller, subject) -> rows, (controller, consent) -> row
//!                                              row numbers alone, 6 to 12 bytes a row and lookup
//! groups    state, generation and class of rows                                      5 bytes
//! expiry    until when a row matches, and the order of it                           16 bytes
//! ```
//!
//! # Invariants
//! - A live record stands in all lookups, a withdrawn one in none: a search cannot reach it.
//! - A row has an entry while it is live, and then its group is owned by the record's class.
//! - A consent belongs to one record, so that revoking by consent misses none.
//!
//! # Not here
//! Templates. Subject references and consent ids are opaque by contract and no biometric: they
//! are freed at once, not overwritten.

mod classes;
mod expiry;
mod groups;
mod interned;
mod lookup;
mod names;
mod register;

use std::ops::Range;

use self::classes::ControllerNo;
use self::expiry::Expiry;
use self::groups::runs;
use self::interned::Interned;
use self::lookup::Lookup;
use self::names::{Name, Names};
use self::register::{Entry, Keys, Register};
use super::error::IndexError;
use super::found::{Match, NewTemplate};
use super::status::{ClassStatus, ControllerStatus};
use crate::consent::{ConsentTag, Grant};
use crate::types::{
    ConsentId, ControllerId, NoticeVersion, RecordId, Similarity, SlotId, SubjectRef, Timestamp,
};

pub(super) use self::classes::{ClassId, ClassSet};
pub(super) use self::groups::{GROUP_ROWS, Reuse, rows_of};

/// All that is known of the templates but the templates.
#[derive(Default)]
pub(super) struct Catalogue {
    register: Register,
    by_record: Lookup,
    by_subject: Lookup,
    by_consent: Lookup,
    expiry: Expiry,
    notices: Interned<NoticeVersion>,
    /// Distinct subjects by controller.
    subjects: Vec<usize>,
    live: usize,
}

impl Catalogue {
    /// The row that the next template takes.
    ///
    /// # Errors
    /// The record or its consent is held already, or no row is left.
    pub(super) fn vacancy(&self, template: &NewTemplate) -> Result<u32, IndexError> {
        self.may_hold(template)?;
        let class = self.register.classes.number(&template.consent.class);
        self.register.groups.vacancy(class).ok_or(IndexError::Full)
    }

    /// Enters a template into the row that [`Catalogue::vacancy`] named; there is memory for rows
    /// below `capacity`.
    ///
    /// # Errors
    /// The row is no such row, or no number is left for a class or notice; nothing is changed
    /// then.
    pub(super) fn occupy(
        &mut self,
        row: u32,
        new: NewTemplate,
        capacity: usize,
    ) -> Result<SlotId, IndexError> {
        let slot = self.slot_id(row);
        self.enter(slot, new)?;
        self.register.groups.stretch(row, capacity);
        Ok(slot)
    }

    /// Enters a template into the slot that it had in an earlier process. Rows that are skipped
    /// stay free.
    ///
    /// # Errors
    /// The record or its consent is held already, the row is taken, retired, past that generation
    /// or in a group of another class, or no number is left; nothing is changed then.
    pub(super) fn adopt(&mut self, slot: SlotId, new: NewTemplate) -> Result<(), IndexError> {
        self.may_hold(&new)?;
        self.enter(slot, new)
    }

    /// Makes room for so many more records.
    pub(super) fn expect(&mut self, records: usize) {
        let register = &self.register;
        self.by_record.reserve(records, |row| register.hash_of(register.record(row)));
        self.by_subject.reserve(records, |row| register.hash_of(register.subject(row)));
        self.by_consent.reserve(records, |row| register.hash_of(register.consent(row)));
    }

    /// Drops a record from all lookups. Its row stays taken until it is [released].
    ///
    /// [released]: Catalogue::release
    pub(super) fn vacate(&mut self, record: RecordId) -> Option<SlotId> {
        let row = self.row_of(record)?;
        let keys = self.register.keys(row)?;
        self.subjects[keys.controller.index()] -= usize::from(!self.has_namesake(row, &keys));
        self.by_record.strike(keys.record, row);
        self.by_subject.strike(keys.subject, row);
        self.by_consent.strike(keys.consent, row);
        self.expiry.strike(row);
        self.register.clear(row);
        self.register.groups.vacate(row);
        self.live -= 1;
        Some(self.slot_id(row))
    }

    /// Ends the wait of a vacated row for its purge.
    pub(super) fn release(&mut self, row: u32, reuse: Reuse) {
        self.register.groups.release(row, reuse);
    }

    /// The row with its present generation.
    pub(super) fn slot_id(&self, row: u32) -> SlotId {
        self.register.groups.slot_id(row)
    }

    /// The grant as a set of classes.
    pub(super) fn compile(&self, grant: &Grant) -> ClassSet {
        self.register.classes.compile(grant)
    }

    /// The groups of a class, as stretches of neighbours.
    pub(super) fn runs(&self, class: ClassId) -> impl Iterator<Item = Range<u32>> {
        runs(self.register.groups.of(class))
    }

    /// The class of a live row.
    #[inline]
    pub(super) fn live_class(&self, row: u32) -> Option<ClassId> {
        self.register.groups.live_class(row)
    }

    /// Whether the slot is live with this generation.
    pub(super) fn is_live(&self, slot: SlotId) -> bool {
        self.live_class(slot.index).is_some() && self.slot_id(slot.index) == slot
    }

    /// Live slots from a row on, ascending.
    pub(super) fn live_slots(&self, from: u32) -> impl Iterator<Item = SlotId> {
        self.register.groups.live_rows(from).map(|row| self.slot_id(row))
    }

    /// By group: which rows are live, the lowest bit for the first.
    pub(super) fn live_masks(&self) -> &[u32] {
        self.register.groups.live_masks()
    }

    /// Groups there are, owned or not.
    pub(super) fn group_count(&self) -> usize {
        self.register.groups.count()
    }

    /// Live rows of every class in `set`.
    pub(super) fn live_in(&self, set: &ClassSet) -> usize {
        self.register.groups.live_in(set)
    }

    /// Whether the row is live and of a class in `set`.
    #[inline]
    pub(super) fn is_in(&self, row: u32, set: &ClassSet) -> bool {
        self.live_class(row).is_some_and(|class| set.contains(class))
    }

    /// The rows of one subject in the granted classes, ascending.
    pub(super) fn rows_of_subject(&self, grant: &Grant, subject: &SubjectRef) -> Vec<u32> {
        let granted = self.compile(grant);
        let mut controllers: Vec<_> = grant.classes().iter().map(|key| &key.controller).collect();
        controllers.dedup(); // a grant's classes are sorted, by controller first
        let mut rows: Vec<u32> = controllers
            .into_iter()
            .flat_map(|controller| self.subject_rows(controller, subject))
            .filter(|row| self.is_in(*row, &granted))
            .collect();
        rows.sort_unstable();
        rows
    }

    /// By row: the instant from which on it does not match. Only live rows count.
    pub(super) fn matches_until(&self) -> &[Timestamp] {
        self.expiry.matches_until()
    }

    /// The match that `slot` stands for, if it still stands for one.
    pub(super) fn confirm(
        &self,
        grant: &Grant,
        (slot, similarity): (SlotId, Similarity),
        now: Timestamp,
    ) -> Option<Match> {
        let entry = self.register.entry(slot.index)?;
        let tag = self.tag(slot.index, entry)?;
        let may_leave = self.slot_id(slot.index) == slot
            && now < self.matches_until()[slot.index as usize]
            && grant.covers(&tag.class);
        may_leave.then(|| Match::proven(entry.record, entry.names.subject_ref(), tag, similarity))
    }

    /// Whether the record is live.
    pub(super) fn holds(&self, record: RecordId) -> bool {
        self.row_of(record).is_some()
    }

    /// What a live record is held under.
    pub(super) fn describe(&self, record: RecordId) -> Option<NewTemplate> {
        let row = self.row_of(record)?;
        let entry = self.register.entry(row)?;
        Some(NewTemplate {
            record,
            subject: entry.names.subject_ref(),
            consent: self.tag(row, entry)?,
            matches_until: self.matches_until()[row as usize],
        })
    }

    /// The record of a live row.
    pub(super) fn record(&self, row: u32) -> Option<RecordId> {
        self.register.record(row)
    }

    /// Live records.
    pub(super) fn live(&self) -> usize {
        self.live
    }

    /// At most `limit` records that do not match at `now` any more, the longest expired first.
    pub(super) fn expired(&self, now: Timestamp, limit: usize) -> Vec<RecordId> {
        let due = self.expiry.due(now, limit);
        due.into_iter().filter_map(|row| self.register.record(row)).collect()
    }

    /// Every record of a subject.
    pub(super) fn records_of_subject(
        &self,
        controller: &ControllerId,
        subject: &SubjectRef,
    ) -> Vec<RecordId> {
        let rows = self.subject_rows(controller, subject);
        rows.filter_map(|row| self.register.record(row)).collect()
    }

    /// Every record of a controller, with when its consent was given.
    pub(super) fn records_of_controller(
        &self,
        controller: &ControllerId,
    ) -> Vec<(RecordId, Timestamp)> {
        let Some(controller) = self.register.classes.controller_number(controller) else {
            return Vec::new();
        };
        self.register.entries_of(controller).map(|entry| (entry.record, entry.granted_at)).collect()
    }

    /// The record of a consent.
    pub(super) fn record_of_consent(
        &self,
        controller: &ControllerId,
        consent: &ConsentId,
    ) -> Option<RecordId> {
        let register = &self.register;
        let key = (register.classes.controller_number(controller)?, Name::of(consent.as_str()));
        let mut rows = self.by_consent.rows(register.hash(key));
        rows.find(|row| register.consent(*row) == Some(key)).and_then(|row| register.record(row))
    }

    /// Every class that has live templates.
    pub(super) fn class_status(&self) -> Vec<ClassStatus> {
        let live = |(id, class)| (self.register.groups.live_of(id), class);
        let held = self.register.classes.keys().map(live).filter(|(live, _)| *live > 0);
        held.map(|(live, class)| ClassStatus { class: class.clone(), live }).collect()
    }

    /// Every controller that has live templates.
    pub(super) fn controller_status(&self) -> Vec<ControllerStatus> {
        let counted = self.register.classes.controllers().zip(&self.subjects);
        counted
            .filter(|(_, subjects)| **subjects > 0)
            .map(|(controller, subjects)| ControllerStatus {
                controller: controller.clone(),
                subjects: *subjects,
            })
            .collect()
    }

    /// Memory of it all, spare capacity included; what the allocator adds, classes, controllers
    /// and notices are not counted.
    pub(super) fn bytes(&self) -> usize {
        let lookups = [&self.by_record, &self.by_subject, &self.by_consent];
        self.register.bytes()
            + self.register.groups.bytes()
            + lookups.map(Lookup::bytes).iter().sum::<usize>()
            + self.expiry.bytes()
            + self.subjects.capacity() * size_of::<usize>()
    }

    /// One record, one consent: refuses what is held already.
    fn may_hold(&self, new: &NewTemplate) -> Result<(), IndexError> {
        if self.holds(new.record) {
            return Err(IndexError::RecordHeld { record: new.record });
        }
        let tag = &new.consent;
        self.record_of_consent(&tag.class.controller, &tag.consent_id)
            .map_or(Ok(()), |record| Err(IndexError::ConsentHeld { record }))
    }

    fn enter(&mut self, slot: SlotId, new: NewTemplate) -> Result<(), IndexError> {
        let (register, tag) = (&mut self.register, new.consent);
        if !register.groups.admits(register.classes.number(&tag.class), slot) {
            return Err(IndexError::SlotTaken { slot });
        }
        let class = register.classes.intern(tag.class).ok_or(IndexError::Full)?;
        let notice = self.notices.intern(tag.notice_version).ok_or(IndexError::Full)?;
        register.groups.take(class, slot);
        register.enter(
            slot.index,
            Entry {
                record: new.record,
                names: Names::new(&new.subject, &tag.consent_id, notice),
                granted_at: tag.granted_at,
                expires_at: tag.expires_at,
            },
        );
        self.expiry.enter(slot.index, new.matches_until);
        self.live += 1;
        self.list(slot.index);
        Ok(())
    }

    /// Makes a live row findable.
    fn list(&mut self, row: u32) {
        let register = &self.register;
        let Some(keys) = register.keys(row) else { return };
        let namesake = self.has_namesake(row, &keys);
        if self.subjects.len() <= keys.controller.index() {
            self.subjects.resize(keys.controller.index() + 1, 0);
        }
        self.subjects[keys.controller.index()] += usize::from(!namesake);
        self.by_record.enter(keys.record, row, |row| register.hash_of(register.record(row)));
        self.by_subject.enter(keys.subject, row, |row| register.hash_of(register.subject(row)));
        self.by_consent.enter(keys.consent, row, |row| register.hash_of(register.consent(row)));
    }

    fn row_of(&self, record: RecordId) -> Option<u32> {
        let hash = self.register.hash(record);
        self.by_record.rows(hash).find(|row| self.register.record(*row) == Some(record))
    }

    fn subject_rows(
        &self,
        controller: &ControllerId,
        subject: &SubjectRef,
    ) -> impl Iterator<Item = u32> {
        let name = Name::of(subject.as_str());
        let controller = self.register.classes.controller_number(controller);
        controller.into_iter().flat_map(move |controller| self.rows_named(controller, name))
    }

    fn rows_named(&self, controller: ControllerNo, name: Name<'_>) -> impl Iterator<Item = u32> {
        let rows = self.by_subject.rows(self.register.hash((controller, name)));
        rows.filter(move |row| self.register.subject(*row) == Some((controller, name)))
    }

    /// Whether another row than `row` is listed under the row's subject.
    fn has_namesake(&self, row: u32, keys: &Keys) -> bool {
        let subject = self.register.subject(row);
        let mut rows = self.by_subject.rows(keys.subject);
        rows.any(|other| other != row && self.register.subject(other) == subject)
    }

    fn tag(&self, row: u32, entry: &Entry) -> Option<ConsentTag> {
        Some(ConsentTag {
            consent_id: entry.names.consent_id(),
            class: self.register.classes.key(self.register.groups.owner(row)?).clone(),
            notice_version: self.notices.value(entry.names.notice()).clone(),
            granted_at: entry.granted_at,
            expires_at: entry.expires_at,
        })
    }

    /// Whether the row holds somebody or something of somebody.
    pub(super) fn is_used(&self, row: u32) -> bool {
        self.register.groups.is_used(row)
    }

    /// Lets a test reach the end of a row's generations.
    #[cfg(test)]
    pub(super) fn age(&mut self, row: u32, generation: u32) {
        self.register.groups.age(row, generation);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::index::testkit::{Random, class, consent_of, grant, now, template};

    fn enrol(catalogue: &mut Catalogue, new: NewTemplate) -> SlotId {
        let row = catalogue.vacancy(&new).unwrap();
        catalogue.occupy(row, new, usize::MAX).unwrap()
    }

    fn erase(catalogue: &mut Catalogue, record: RecordId) {
        let slot = catalogue.vacate(record).unwrap();
        catalogue.release(slot.index, Reuse::Allowed);
    }

    /// A template whose names are as long as UUIDs are written, and none or all of which are one.
    fn named(random: &mut Random, uuids: bool) -> NewTemplate {
        let mut text = || {
            let (a, b) = (random.next(), random.next());
            let id = RecordId::from_bytes((u128::from(a) << 64 | u128::from(b)).to_be_bytes());
            if uuids { id.to_string() } else { id.to_string().replace('-', "_") }
        };
        let mut new = template(0, 0);
        new.subject = text().parse().unwrap();
        new.consent.consent_id = text().parse().unwrap();
        new.matches_until = now().plus_ms((random.next() % (1 << 30)).cast_signed());
        new
    }

    #[test]
    fn a_record_costs_few_bytes() {
        for (uuids, bound) in [(true, 150), (false, 190)] {
            let (mut catalogue, mut random) = (Catalogue::default(), Random::new(42));
            for _ in 0..100_000 {
                enrol(&mut catalogue, named(&mut random, uuids));
            }
            let bytes = catalogue.bytes() / catalogue.live();
            assert!(bytes <= bound, "{bytes} bytes a record, UUIDs: {uuids}");
        }
    }

    /// What a plain map says of who is there: by controller, the records of each subject.
    type People = BTreeMap<ControllerId, BTreeMap<SubjectRef, BTreeSet<RecordId>>>;

    fn people<'a>(held: impl Iterator<Item = &'a NewTemplate>) -> People {
        let mut people = People::new();
        for new in held {
            let subjects = people.entry(new.consent.class.controller.clone()).or_default();
            subjects.entry(new.subject.clone()).or_default().insert(new.record);
        }
        people
    }

    #[test]
    fn everybody_is_found_by_every_name_until_withdrawn_and_counted_once() {
        let (mut catalogue, mut random) = (Catalogue::default(), Random::new(43));
        let mut held: Vec<NewTemplate> = Vec::new();
        for round in 0..4_000_u32 {
            // The crowd swells and shrinks by turns.
            if !held.is_empty() && random.below(10) < 3 + 4 * (round / 500 % 2) {
                let at = random.below(u32::try_from(held.len()).unwrap()) as usize;
                let gone = held.swap_remove(at);
                erase(&mut catalogue, gone.record);
                let controller = &gone.consent.class.controller;
                let consent = &gone.consent.consent_id;
                assert_eq!(catalogue.record_of_consent(controller, consent), None);
                assert_eq!(catalogue.describe(gone.record), None);
            } else {
                let new = template(random.below(40), random.below(6));
                enrol(&mut catalogue, new.clone());
                held.push(new);
            }
            if round % 50 == 0 {
                compare(&catalogue, &held);
            }
        }
    }

    fn compare(catalogue: &Catalogue, held: &[NewTemplate]) {
        let people = people(held.iter());
        for (controller, subjects) in &people {
            for (subject, records) in subjects {
                let found = catalogue.records_of_subject(controller, subject);
                assert_eq!(found.len(), records.len());
                assert_eq!(&BTreeSet::from_iter(found), records);
            }
        }
        for new in held {
            let controller = &new.consent.class.controller;
            let found = catalogue.record_of_consent(controller, &new.consent.consent_id);
            assert_eq!(found, Some(new.record));
            assert_eq!(catalogue.describe(new.record).as_ref(), Some(new));
        }
        let mut status = catalogue.controller_status();
        status.sort_by(|a, b| a.controller.cmp(&b.controller));
        let counted = status.iter().map(|status| (&status.controller, status.subjects));
        assert!(counted.eq(people.iter().map(|(controller, s)| (controller, s.len()))));
        assert_eq!(catalogue.live(), held.len());
        for (n, class) in (0..6).map(|n| (n, class(n))) {
            let live = held.iter().filter(|new| new.consent.class == class).count();
            let set = catalogue.compile(&grant([n]));
            assert_eq!(catalogue.live_in(&set), live);
        }
    }

    #[test]
    fn two_controllers_may_use_the_same_names() {
        let mut catalogue = Catalogue::default();
        let (first, mut second) = (template(1, 0), template(1, 1));
        second.consent.consent_id = first.consent.consent_id.clone();
        for new in [&first, &second] {
            enrol(&mut catalogue, new.clone());
        }
        erase(&mut catalogue, first.record);
        let found = |c, new: &NewTemplate| {
            let controller = class(c).controller;
            (
                catalogue.records_of_subject(&controller, &new.subject),
                catalogue.record_of_consent(&controller, &new.consent.consent_id),
            )
        };
        assert_eq!(found(0, &first), (vec![], None));
        assert_eq!(found(1, &second), (vec![second.record], Some(second.record)));
    }

    #[test]
    fn templates_go_back_to_the_slots_they_had() {
        let slot = |index, generation| SlotId { index, generation };
        let mut catalogue = Catalogue::default();
        let crowd = [
            (slot(3, 7), template(1, 0)),
            (slot(5, 0), template(2, 0)),
            (slot(70, u32::MAX), template(3, 1)),
        ];
        for (slot, new) in &crowd {
            catalogue.adopt(*slot, new.clone()).unwrap();
            assert_eq!(catalogue.slot_id(slot.index), *slot);
            assert_eq!(catalogue.describe(new.record).as_ref(), Some(new));
        }
        assert_eq!(catalogue.group_count(), 3);
        assert_eq!(catalogue.live_masks(), [0b10_1000, 0, 1 << 6]);
        assert_eq!(enrol(&mut catalogue, template(4, 0)), slot(0, 0), "its class has room");
        assert_eq!(enrol(&mut catalogue, template(5, 2)), slot(32, 0), "the skipped group is free");
        erase(&mut catalogue, crowd[0].1.record);
        assert_eq!(catalogue.slot_id(3), slot(3, 8));
    }

    #[test]
    fn a_refused_template_changes_nothing() {
        let slot = |index, generation| SlotId { index, generation };
        let mut catalogue = Catalogue::default();
        let held = template(1, 0);
        catalogue.adopt(slot(3, 7), held.clone()).unwrap();
        let freed = template(2, 0);
        catalogue.adopt(slot(4, 7), freed.clone()).unwrap();
        erase(&mut catalogue, freed.record);

        let twin = NewTemplate { consent: held.consent.clone(), ..template(1, 0) };
        let taken = |refused| matches!(refused, Err(IndexError::SlotTaken { .. }));
        assert!(taken(catalogue.adopt(slot(3, 9), template(3, 0))), "taken");
        assert!(taken(catalogue.adopt(slot(8, 0), template(3, 1))), "another class's group");
        assert!(taken(catalogue.adopt(slot(4, 7), template(3, 0))), "a generation of the past");
        assert!(taken(catalogue.occupy(3, template(3, 0), usize::MAX).map(drop)), "no vacancy");
        let again = catalogue.adopt(slot(9, 0), held.clone());
        assert!(matches!(again, Err(IndexError::RecordHeld { record }) if record == held.record));
        let again = catalogue.adopt(slot(9, 0), twin);
        assert!(matches!(again, Err(IndexError::ConsentHeld { record }) if record == held.record));

        compare(&catalogue, &[held]);
        assert_eq!(catalogue.live_masks(), [1 << 3]);
        assert_eq!(catalogue.vacancy(&template(3, 1)).unwrap(), 32);
        assert_eq!(catalogue.expired(now().plus_days(2), 9).len(), 1);
    }

    #[test]
    fn names_of_a_withdrawn_record_serve_again() {
        let mut catalogue = Catalogue::default();
        let new = template(1, 0);
        for generation in 0..5 {
            assert_eq!(enrol(&mut catalogue, new.clone()), SlotId { index: 0, generation });
            erase(&mut catalogue, new.record);
        }
        assert!(!catalogue.holds(new.record));
        assert_eq!(
            catalogue.record_of_consent(&class(0).controller, &consent_of(new.record)),
            None
        );
        assert_eq!((catalogue.class_status(), catalogue.controller_status()), (vec![], vec![]));
    }
}
