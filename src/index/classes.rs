//! Classes as numbers, and the rows of each.
//!
//! # Invariants
//! - A row stands in the list of its own class and in no other, in ascending order, each once.
//! - A search walks the lists of granted classes, so a row of another class is never even read.

use std::collections::HashMap;
use std::sync::Arc;

use super::status::ClassStatus;
use crate::consent::{ClassKey, Grant};

/// The number of a class, dense from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ClassId(u32);

/// All classes seen so far. A class stays when its last row goes: there are as many as policies
/// name, not as many as people.
#[derive(Default)]
pub(super) struct Classes {
    ids: HashMap<Arc<ClassKey>, ClassId>,
    classes: Vec<Class>,
}

struct Class {
    key: Arc<ClassKey>,
    rows: Vec<u32>,
}

impl Classes {
    /// The number of `key`, a new one if need be; `None` when the numbers are used up.
    pub(super) fn intern(&mut self, key: &ClassKey) -> Option<ClassId> {
        if let Some(id) = self.ids.get(key) {
            return Some(*id);
        }
        let id = ClassId(u32::try_from(self.classes.len()).ok()?);
        let key = Arc::new(key.clone());
        self.ids.insert(Arc::clone(&key), id);
        self.classes.push(Class { key, rows: Vec::new() });
        Some(id)
    }

    /// The grant as a set of numbers. Classes never seen have no rows and no place in it.
    pub(super) fn compile(&self, grant: &Grant) -> ClassSet {
        let mut set = ClassSet::default();
        for id in grant.classes().iter().filter_map(|key| self.ids.get(key)) {
            set.insert(*id);
        }
        set
    }

    /// The rows of every class in `set`, class by class.
    pub(super) fn rows(&self, set: &ClassSet) -> Vec<&[u32]> {
        set.iter().map(|id| self.classes[id.0 as usize].rows.as_slice()).collect()
    }

    /// What the class stands for.
    pub(super) fn key(&self, id: ClassId) -> &ClassKey {
        &self.classes[id.0 as usize].key
    }

    /// Enters a row.
    pub(super) fn enter(&mut self, id: ClassId, row: u32) {
        let rows = &mut self.classes[id.0 as usize].rows;
        if let Err(at) = rows.binary_search(&row) {
            rows.insert(at, row);
        }
    }

    /// Strikes a row out.
    pub(super) fn strike(&mut self, id: ClassId, row: u32) {
        let rows = &mut self.classes[id.0 as usize].rows;
        if let Ok(at) = rows.binary_search(&row) {
            rows.remove(at);
        }
    }

    /// Every class that has rows.
    pub(super) fn status(&self) -> Vec<ClassStatus> {
        let held = self.classes.iter().filter(|class| !class.rows.is_empty());
        held.map(|class| ClassStatus { class: (*class.key).clone(), live: class.rows.len() })
            .collect()
    }
}

/// A grant compiled: one bit a class.
#[derive(Debug, Default)]
pub(super) struct ClassSet {
    words: Vec<u64>,
}

impl ClassSet {
    /// Whether the class is granted.
    pub(super) fn contains(&self, id: ClassId) -> bool {
        let (word, bit) = position(id);
        self.words.get(word).is_some_and(|bits| bits & bit != 0)
    }

    fn insert(&mut self, id: ClassId) {
        let (word, bit) = position(id);
        if self.words.len() <= word {
            self.words.resize(word + 1, 0);
        }
        self.words[word] |= bit;
    }

    fn iter(&self) -> impl Iterator<Item = ClassId> {
        (0..).zip(&self.words).flat_map(|(word, bits)| {
            let bits = *bits;
            (0..u64::BITS)
                .filter(move |bit| bits >> bit & 1 == 1)
                .map(move |bit| ClassId(word * u64::BITS + bit))
        })
    }
}

fn position(id: ClassId) -> (usize, u64) {
    ((id.0 / u64::BITS) as usize, 1 << (id.0 % u64::BITS))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::testkit::class;

    #[test]
    fn a_set_holds_what_the_grant_names_and_nothing_else() {
        let mut classes = Classes::default();
        let ids: Vec<ClassId> = (0..200).map(|n| classes.intern(&class(n)).unwrap()).collect();
        let set = classes.compile(&Grant::for_tests(vec![class(3), class(64), class(999)]));
        let found: Vec<ClassId> = set.iter().collect();
        assert_eq!(found, [ids[3], ids[64]]);
        for (n, id) in ids.iter().enumerate() {
            assert_eq!(set.contains(*id), n == 3 || n == 64);
        }
    }

    #[test]
    fn a_class_keeps_its_number() {
        let mut classes = Classes::default();
        let first = classes.intern(&class(1));
        classes.intern(&class(2));
        assert_eq!(classes.intern(&class(1)), first);
    }

    #[test]
    fn rows_are_ascending_whatever_the_order_of_entry() {
        let mut classes = Classes::default();
        let id = classes.intern(&class(1)).unwrap();
        for row in [5, 1, 9, 5, 3] {
            classes.enter(id, row);
        }
        classes.strike(id, 9);
        classes.strike(id, 7);
        let set = classes.compile(&Grant::for_tests(vec![class(1)]));
        assert_eq!(classes.rows(&set), [&[1, 3, 5]]);
    }
}
