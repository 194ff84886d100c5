//! Rows in groups of 32, each group owned by one class at a time.
//!
//! ```text
//! group      0         1         2         3         4
//! owner    class 0   class 1   class 0    none     class 0      slot = group * 32 + row
//! live     1111...   0110...   1011...   0000...   0001...      u32, one bit a row
//!
//! row:  free --take--> live --vacate--> awaiting its purge --release--> free, generation + 1
//!                                                          '----------> retired for good
//! ```
//!
//! A search under a grant walks the groups of the granted classes and no others, so that a row of
//! another class is never even read.
//!
//! # Invariants
//! - A row is in one state of the four. Only a release frees it, with a higher generation; a row
//!   whose generation would overflow, or whose purge was abandoned, is retired.
//! - A group is owned while a row of it is live or awaiting its purge, or while it is kept for its
//!   class to grow into, and all such rows are of the owner. When none is left it goes back to the unowned, unless all its rows are retired.
//! - The list of a class holds just the groups it owns, ascending.
//!
//! # Not here
//! Who is in a row (catalogue) and whether it has expired (expiry).

use std::collections::BTreeSet;
use std::ops::Range;

use super::classes::{ClassId, ClassSet};
use crate::types::SlotId;

/// Rows in a group.
pub(in crate::index) const GROUP_ROWS: u32 = u32::BITS;
/// A class takes a stretch of fresh groups that is so small a part of what it has ...
const STRETCH_SHARE: u32 = 16;
/// ... and no more groups than these: 8,192 rows.
const STRETCH: u32 = 256;
/// The last group: the rows of later ones have no 32-bit number.
const LAST_GROUP: u32 = u32::MAX / GROUP_ROWS;

/// Whether a row may hold another person after its purge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::index) enum Reuse {
    /// The purge was carried out.
    Allowed,
    /// It was abandoned.
    Never,
}

/// The states of all rows and the groups of all classes.
#[derive(Default)]
pub(super) struct Groups {
    /// By group.
    states: Vec<Group>,
    /// By group.
    live: Vec<u32>,
    /// Groups that any class may take.
    unowned: BTreeSet<u32>,
    /// By class.
    holdings: Vec<Holding>,
}

/// What is known of a group but which of its rows are live.
struct Group {
    owner: Option<ClassId>,
    free: u32,
    retired: u32,
    generations: [u32; GROUP_ROWS as usize],
}

/// The groups of one class.
#[derive(Default)]
struct Holding {
    groups: Vec<u32>,
    /// Those of them that have free rows.
    roomy: BTreeSet<u32>,
    live: usize,
}

impl Groups {
    /// The row that a template of `class` takes next; `None` stands for a class never seen. The
    /// lowest row goes first, so that a class keeps together and the last groups empty.
    pub(super) fn vacancy(&self, class: Option<ClassId>) -> Option<u32> {
        let own = class.and_then(|class| self.holding(class)?.roomy.first());
        if let Some(group) = own.or_else(|| self.unowned.first()) {
            return Some(group * GROUP_ROWS + self.states[*group as usize].free.trailing_zeros());
        }
        let fresh = u32::try_from(self.states.len()).ok()?;
        (fresh <= LAST_GROUP).then(|| fresh * GROUP_ROWS)
    }

    /// Whether a template of `class` may take `slot`: the row is free and no other class's, and
    /// it never had a higher generation.
    pub(super) fn admits(&self, class: Option<ClassId>, slot: SlotId) -> bool {
        let (group, bit) = place(slot.index);
        self.states.get(group).is_none_or(|group| {
            group.free & bit != 0
                && group.owner.is_none_or(|owner| class == Some(owner))
                && group.generations[row_in_group(slot.index)] <= slot.generation
        })
    }

    /// Gives the class of a row that was just taken in the last group the groups behind it as well:
    /// large classes lie in long stretches, which scans run through faster. No group reaches beyond
    /// row `capacity`: memory has to be there for all that a scan may read.
    pub(super) fn stretch(&mut self, row: u32, capacity: usize) {
        let group = row / GROUP_ROWS;
        let is_new = row.is_multiple_of(GROUP_ROWS) && group as usize + 1 == self.states.len();
        if let Some(class) = self.owner(row).filter(|_| is_new) {
            let held = u32::try_from(self.of(class).len()).unwrap_or(u32::MAX);
            let mapped = u32::try_from(capacity).unwrap_or(u32::MAX) / GROUP_ROWS;
            let last = group.saturating_add((held / STRETCH_SHARE).min(STRETCH));
            let last = last.min(LAST_GROUP).min(mapped.saturating_sub(1)).max(group);
            self.extend(last);
            (group..=last).for_each(|group| self.claim(class, group));
        }
    }

    /// Takes a slot that [`Groups::admits`] the class; the rows and groups before it stay as they
    /// are, or free when they are new.
    pub(super) fn take(&mut self, class: ClassId, slot: SlotId) {
        let (at, bit) = place(slot.index);
        self.extend(slot.index / GROUP_ROWS);
        self.claim(class, slot.index / GROUP_ROWS);
        self.live[at] |= bit;
        let group = &mut self.states[at];
        group.generations[row_in_group(slot.index)] = slot.generation;
        group.free &= !bit;
        let holding = &mut self.holdings[class.index()];
        holding.live += 1;
        if group.free == 0 {
            holding.roomy.remove(&(slot.index / GROUP_ROWS));
        }
    }

    /// Ends the life of a live row: it waits for its purge.
    pub(super) fn vacate(&mut self, row: u32) {
        let (at, bit) = place(row);
        if let Some(owner) = self.states[at].owner
            && self.is_live(row)
        {
            self.live[at] &= !bit;
            self.holdings[owner.index()].live -= 1;
        }
    }

    /// Ends the wait of a vacated row for its purge; any other row stays as it is.
    pub(super) fn release(&mut self, row: u32, reuse: Reuse) {
        let (at, bit) = place(row);
        let group = &mut self.states[at];
        let Some(owner) = group.owner else { return };
        if (self.live[at] | group.free | group.retired) & bit != 0 {
            return;
        }
        let generation = &mut group.generations[row_in_group(row)];
        if let Some(next) = generation.checked_add(1)
            && reuse == Reuse::Allowed
        {
            *generation = next;
            group.free |= bit;
            self.holdings[owner.index()].roomy.insert(row / GROUP_ROWS);
        } else {
            group.retired |= bit;
        }
        if group.free | group.retired == u32::MAX {
            self.disown(owner, row / GROUP_ROWS);
        }
    }

    /// The row with its present generation, 0 when it was never taken.
    pub(super) fn slot_id(&self, row: u32) -> SlotId {
        let group = self.states.get(place(row).0);
        let generation = group.map_or(0, |group| group.generations[row_in_group(row)]);
        SlotId { index: row, generation }
    }

    /// Whether the row is live.
    pub(super) fn is_live(&self, row: u32) -> bool {
        let (group, bit) = place(row);
        self.live.get(group).is_some_and(|live| live & bit != 0)
    }

    /// The class that owns the row's group.
    pub(super) fn owner(&self, row: u32) -> Option<ClassId> {
        self.states.get(place(row).0)?.owner
    }

    /// The class of a live row.
    #[inline]
    pub(super) fn live_class(&self, row: u32) -> Option<ClassId> {
        let (at, bit) = place(row);
        if self.live.get(at)? & bit == 0 { None } else { self.states[at].owner }
    }

    /// Live rows from `from` on, ascending.
    pub(super) fn live_rows(&self, from: u32) -> impl Iterator<Item = u32> {
        let (first, bit) = place(from);
        let masks = (0..).zip(&self.live).skip(first);
        masks.flat_map(move |(group, mask)| {
            let skipped = if group as usize == first { bit - 1 } else { 0 };
            rows_of(mask & !skipped).map(move |row| group * GROUP_ROWS + row)
        })
    }

    /// The groups of a class, ascending.
    pub(super) fn of(&self, class: ClassId) -> &[u32] {
        self.holding(class).map_or(&[], |holding| &holding.groups)
    }

    /// Live rows of a class.
    pub(super) fn live_of(&self, class: ClassId) -> usize {
        self.holding(class).map_or(0, |holding| holding.live)
    }

    /// Live rows of all classes in `set`.
    pub(super) fn live_in(&self, set: &ClassSet) -> usize {
        set.iter().map(|class| self.live_of(class)).sum()
    }

    /// By group: which rows are live, the lowest bit for the first.
    pub(super) fn live_masks(&self) -> &[u32] {
        &self.live
    }

    /// How many groups there are, owned or not.
    pub(super) fn count(&self) -> usize {
        self.states.len()
    }

    /// Memory of it all but the sets, which are small where galleries are full.
    pub(super) fn bytes(&self) -> usize {
        let lists: usize = self.holdings.iter().map(|holding| holding.groups.capacity()).sum();
        self.states.capacity() * size_of::<Group>()
            + (self.live.capacity() + lists) * size_of::<u32>()
    }

    /// Whether the row holds somebody or something of somebody.
    pub(super) fn is_used(&self, row: u32) -> bool {
        let (at, bit) = place(row);
        self.states.get(at).is_some_and(|group| (group.free | group.retired) & bit == 0)
    }

    /// Lets a test reach the end of a row's generations.
    #[cfg(test)]
    pub(super) fn age(&mut self, row: u32, generation: u32) {
        self.states[place(row).0].generations[row_in_group(row)] = generation;
    }

    fn holding(&self, class: ClassId) -> Option<&Holding> {
        self.holdings.get(class.index())
    }

    /// Makes all groups up to `last`.
    fn extend(&mut self, last: u32) {
        let first = u32::try_from(self.states.len()).unwrap_or(u32::MAX);
        for group in first..=last {
            self.unowned.insert(group);
            self.states.push(Group::new());
            self.live.push(0);
        }
    }

    /// Gives an unowned group to a class.
    fn claim(&mut self, class: ClassId, group: u32) {
        if self.holdings.len() <= class.index() {
            self.holdings.resize_with(class.index() + 1, Holding::default);
        }
        if self.unowned.remove(&group) {
            self.states[group as usize].owner = Some(class);
            let holding = &mut self.holdings[class.index()];
            holding.groups.insert(holding.groups.partition_point(|other| *other < group), group);
            holding.roomy.insert(group);
        }
    }

    /// Takes a group without people away from its class.
    fn disown(&mut self, owner: ClassId, group: u32) {
        let holding = &mut self.holdings[owner.index()];
        if let Ok(at) = holding.groups.binary_search(&group) {
            holding.groups.remove(at);
        }
        holding.roomy.remove(&group);
        let state = &mut self.states[group as usize];
        state.owner = None;
        if state.free != 0 {
            self.unowned.insert(group);
        }
    }
}

impl Group {
    fn new() -> Self {
        let generations = [0; GROUP_ROWS as usize];
        Self { owner: None, free: u32::MAX, retired: 0, generations }
    }
}

/// Ascending groups as stretches of neighbours.
pub(super) fn runs(groups: &[u32]) -> impl Iterator<Item = Range<u32>> {
    groups.chunk_by(|a, b| a + 1 == *b).map(|run| run[0]..run[run.len() - 1] + 1)
}

/// The rows whose bit is set.
pub(in crate::index) fn rows_of(mask: u32) -> impl Iterator<Item = u32> {
    let mut rest = mask;
    std::iter::from_fn(move || {
        let row = (rest != 0).then(|| rest.trailing_zeros());
        rest &= rest.wrapping_sub(1);
        row
    })
}

/// A row's group, and its bit in the group's masks.
fn place(row: u32) -> (usize, u32) {
    ((row / GROUP_ROWS) as usize, 1 << (row % GROUP_ROWS))
}

fn row_in_group(row: u32) -> usize {
    (row % GROUP_ROWS) as usize
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::super::classes::Classes;
    use super::*;
    use crate::index::testkit::{class, grant};

    const CLASSES: u32 = 4;

    #[derive(Debug, Clone)]
    enum Step {
        Take { class: u32, times: u32 },
        Adopt { class: u32, row: u32, generation: u32 },
        Vacate { nth: usize },
        Release { nth: usize, reuse: Reuse },
        Age { nth: usize },
        Leave { class: u32 },
    }

    fn step() -> impl Strategy<Value = Step> {
        let reuse = prop_oneof![5 => Just(Reuse::Allowed), 1 => Just(Reuse::Never)];
        let nth = 0..1_000_usize;
        prop_oneof![
            4 => (0..CLASSES, 1..50_u32).prop_map(|(class, times)| Step::Take { class, times }),
            1 => (0..CLASSES, 0..300_u32, 0..3_u32)
                .prop_map(|(class, row, generation)| Step::Adopt { class, row, generation }),
            6 => nth.clone().prop_map(|nth| Step::Vacate { nth }),
            6 => (nth.clone(), reuse).prop_map(|(nth, reuse)| Step::Release { nth, reuse }),
            1 => nth.prop_map(|nth| Step::Age { nth }),
            1 => (0..CLASSES).prop_map(|class| Step::Leave { class }),
        ]
    }

    /// What a row that was ever taken is to the model.
    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Life {
        Live(usize),
        Awaiting(usize),
        Free,
        Retired,
    }

    /// The groups beside a plain map of rows that they must agree with.
    struct Pair {
        groups: Groups,
        ids: Vec<ClassId>,
        rows: BTreeMap<u32, (Life, u32)>,
    }

    impl Pair {
        fn new() -> Self {
            let mut classes = Classes::default();
            let ids = (0..CLASSES).map(|n| classes.intern(class(n)).unwrap()).collect();
            Self { groups: Groups::default(), ids, rows: BTreeMap::new() }
        }

        fn go(&mut self, step: &Step) {
            match *step {
                Step::Take { class, times } => (0..times).for_each(|_| self.take(class as usize)),
                Step::Adopt { class, row, generation } => {
                    self.adopt(class as usize, SlotId { index: row, generation });
                }
                Step::Vacate { nth } => {
                    if let Some(row) = self.nth(nth, |life| matches!(life, Life::Live(_))) {
                        self.vacate(row);
                    }
                }
                Step::Release { nth, reuse } => {
                    if let Some(row) = self.nth(nth, |life| matches!(life, Life::Awaiting(_))) {
                        self.release(row, reuse);
                    }
                }
                Step::Age { nth } => {
                    if let Some(row) = self.nth(nth, |life| matches!(life, Life::Live(_))) {
                        self.groups.age(row, u32::MAX);
                        self.rows.entry(row).and_modify(|(_, generation)| *generation = u32::MAX);
                    }
                }
                Step::Leave { class } => {
                    for row in self.all(|life| life == Life::Live(class as usize)) {
                        self.vacate(row);
                        self.release(row, Reuse::Allowed);
                    }
                }
            }
            self.audit();
        }

        fn take(&mut self, class: usize) {
            let row = self.groups.vacancy(Some(self.ids[class])).unwrap();
            let (life, generation) = self.row(row);
            assert_eq!(life, Life::Free, "row {row} is handed out twice");
            let slot = self.groups.slot_id(row);
            assert_eq!(slot, SlotId { index: row, generation });
            assert!(self.groups.admits(Some(self.ids[class]), slot));
            self.groups.take(self.ids[class], slot);
            self.rows.insert(row, (Life::Live(class), generation));
        }

        fn adopt(&mut self, class: usize, slot: SlotId) {
            let (life, generation) = self.row(slot.index);
            let foreign = self.owner(slot.index / GROUP_ROWS).is_some_and(|owner| owner != class);
            let may = life == Life::Free && !foreign && generation <= slot.generation;
            assert_eq!(self.groups.admits(Some(self.ids[class]), slot), may);
            if may {
                self.groups.take(self.ids[class], slot);
                self.rows.insert(slot.index, (Life::Live(class), slot.generation));
            }
        }

        fn vacate(&mut self, row: u32) {
            self.groups.vacate(row);
            self.groups.vacate(row); // a second time changes nothing
            let (Life::Live(class), generation) = self.row(row) else { panic!("not live") };
            self.rows.insert(row, (Life::Awaiting(class), generation));
        }

        fn release(&mut self, row: u32, reuse: Reuse) {
            let (_, generation) = self.row(row);
            self.groups.release(row, reuse);
            self.groups.release(row, reuse); // a second time changes nothing
            let freed = reuse == Reuse::Allowed && generation < u32::MAX;
            let after =
                if freed { (Life::Free, generation + 1) } else { (Life::Retired, generation) };
            self.rows.insert(row, after);
        }

        fn row(&self, row: u32) -> (Life, u32) {
            self.rows.get(&row).copied().unwrap_or((Life::Free, 0))
        }

        fn all(&self, is: impl Fn(Life) -> bool) -> Vec<u32> {
            self.rows.iter().filter(|(_, (life, _))| is(*life)).map(|(row, _)| *row).collect()
        }

        fn nth(&self, nth: usize, is: impl Fn(Life) -> bool) -> Option<u32> {
            let all = self.all(is);
            (!all.is_empty()).then(|| all[nth % all.len()])
        }

        /// The class of those who are in the group, by the model.
        fn owner(&self, group: u32) -> Option<usize> {
            let rows = group * GROUP_ROWS..(group + 1) * GROUP_ROWS;
            let mut owners = rows.filter_map(|row| match self.row(row).0 {
                Life::Live(class) | Life::Awaiting(class) => Some(class),
                Life::Free | Life::Retired => None,
            });
            let first = owners.next();
            assert!(owners.all(|owner| Some(owner) == first), "group {group} has two classes");
            first
        }

        fn audit(&self) {
            let count = u32::try_from(self.groups.count()).unwrap();
            assert_eq!(self.groups.live_masks().len(), self.groups.count());
            let mut lists = vec![Vec::new(); CLASSES as usize];
            let (mut roomy, mut unowned) = (lists.clone(), BTreeSet::new());
            for group in 0..count {
                self.audit_rows(group);
                let state = &self.groups.states[group as usize];
                let owner = self.owner(group);
                assert_eq!(state.owner, owner.map(|class| self.ids[class]));
                if let Some(class) = owner {
                    lists[class].push(group);
                    roomy[class].extend((state.free != 0).then_some(group));
                } else if state.free != 0 {
                    unowned.insert(group);
                }
            }
            assert_eq!(self.groups.unowned, unowned);
            for (class, id) in self.ids.iter().enumerate() {
                assert_eq!(self.groups.of(*id), lists[class]);
                let live = self.all(|life| life == Life::Live(class));
                assert_eq!(self.groups.live_of(*id), live.len());
                if let Some(holding) = self.groups.holding(*id) {
                    assert!(holding.roomy.iter().eq(&roomy[class]));
                }
            }
        }

        fn audit_rows(&self, group: u32) {
            let state = &self.groups.states[group as usize];
            let mask = self.groups.live_masks()[group as usize];
            for at in 0..GROUP_ROWS {
                let (life, generation) = self.row(group * GROUP_ROWS + at);
                let seen = [mask, state.free, state.retired].map(|mask| mask >> at & 1 == 1);
                let right = match life {
                    Life::Live(_) => [true, false, false],
                    Life::Awaiting(_) => [false; 3],
                    Life::Free => [false, true, false],
                    Life::Retired => [false, false, true],
                };
                assert_eq!(seen, right, "row {at} of group {group} is {life:?}");
                assert_eq!(state.generations[at as usize], generation);
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: 200,
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        #[test]
        fn the_groups_agree_with_a_plain_map(steps in prop::collection::vec(step(), 1..150)) {
            let mut pair = Pair::new();
            for step in &steps {
                pair.go(step);
            }
        }
    }

    #[test]
    fn a_group_serves_another_class_once_its_last_person_is_purged() {
        let mut pair = Pair::new();
        for class in [0, 1, 0] {
            pair.go(&Step::Take { class, times: GROUP_ROWS });
        }
        assert_eq!(pair.groups.of(pair.ids[0]), [0, 2]);
        for row in 0..GROUP_ROWS {
            pair.vacate(row);
        }
        pair.take(2);
        assert_eq!(pair.groups.of(pair.ids[2]), [3], "the others still await their purge");
        for row in 0..GROUP_ROWS {
            pair.release(row, Reuse::Allowed);
        }
        assert_eq!(pair.groups.vacancy(Some(pair.ids[2])), Some(3 * GROUP_ROWS + 1), "its own");
        assert_eq!(pair.groups.vacancy(Some(pair.ids[1])), Some(0), "the unowned");
        assert_eq!(pair.groups.vacancy(None), Some(0));
        pair.audit();
    }

    #[test]
    fn a_group_whose_rows_are_all_retired_is_never_used_again() {
        let mut pair = Pair::new();
        pair.go(&Step::Take { class: 0, times: GROUP_ROWS });
        for row in 0..GROUP_ROWS {
            pair.vacate(row);
            pair.release(row, Reuse::Never);
        }
        pair.audit();
        for class in 0..CLASSES as usize {
            assert_eq!(pair.groups.vacancy(Some(pair.ids[class])), Some(GROUP_ROWS));
        }
        let slot = SlotId { index: 3, generation: 9 };
        assert!(!pair.groups.admits(Some(pair.ids[0]), slot));
    }

    #[test]
    fn live_rows_of_a_set_are_counted_class_by_class() {
        let mut classes = Classes::default();
        let mut groups = Groups::default();
        for n in 0..90 {
            let id = classes.intern(class(n % 3)).unwrap();
            let slot = groups.slot_id(groups.vacancy(Some(id)).unwrap());
            groups.take(id, slot);
        }
        groups.vacate(5);
        let live = |classes_of: &[u32]| {
            groups.live_in(&classes.compile(&grant(classes_of.iter().copied())))
        };
        assert_eq!((live(&[]), live(&[0]), live(&[1, 2]), live(&[0, 1, 2, 3])), (0, 29, 60, 89));
    }

    #[test]
    fn no_row_lies_beyond_32_bits() {
        let slot = SlotId { index: u32::MAX, generation: 0 };
        assert_eq!(u64::from(LAST_GROUP) * 32 + 31, u64::from(slot.index));
        assert!(Groups::default().admits(None, slot));
    }

    #[test]
    fn runs_are_what_stands_together() {
        let runs =
            |groups: &[u32]| runs(groups).map(|run| (run.start, run.end)).collect::<Vec<_>>();
        assert_eq!(runs(&[]), []);
        assert_eq!(runs(&[4]), [(4, 5)]);
        let last = (LAST_GROUP, LAST_GROUP + 1);
        assert_eq!(runs(&[0, 1, 2, 5, 7, 8, LAST_GROUP]), [(0, 3), (5, 6), (7, 9), last]);
    }
}
