//! Classes and controllers as numbers, and grants as sets of classes.
//!
//! # Invariants
//! - A class stays when its last row goes: there are as many as policies name, not as many as
//!   people.
//!
//! # Not here
//! The rows of a class: `groups` has them.

use super::interned::Interned;
use crate::consent::{ClassKey, Grant};
use crate::types::ControllerId;

/// The number of a class, dense from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::index) struct ClassId(u32);

impl ClassId {
    /// Its place in a list by class.
    pub(super) fn index(self) -> usize {
        self.0 as usize
    }
}

/// The number of a controller, dense from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct ControllerNo(u32);

impl ControllerNo {
    /// Its place in a list by controller.
    pub(super) fn index(self) -> usize {
        self.0 as usize
    }
}

/// All classes and controllers seen so far.
#[derive(Default)]
pub(super) struct Classes {
    keys: Interned<ClassKey>,
    controllers: Interned<ControllerId>,
    /// By class.
    controller_of: Vec<ControllerNo>,
}

impl Classes {
    /// The number of `key`, a new one if need be; `None` when the numbers are used up.
    pub(super) fn intern(&mut self, key: ClassKey) -> Option<ClassId> {
        let controller = ControllerNo(self.controllers.intern(key.controller.clone())?);
        let id = ClassId(self.keys.intern(key)?);
        if id.index() == self.controller_of.len() {
            self.controller_of.push(controller);
        }
        Some(id)
    }

    /// The number of `key`, if it was ever seen.
    pub(super) fn number(&self, key: &ClassKey) -> Option<ClassId> {
        self.keys.number(key).map(ClassId)
    }

    /// What the class stands for.
    pub(super) fn key(&self, id: ClassId) -> &ClassKey {
        self.keys.value(id.0)
    }

    /// All classes, by number.
    pub(super) fn keys(&self) -> impl Iterator<Item = (ClassId, &ClassKey)> {
        (0..).map(ClassId).zip(self.keys.values())
    }

    /// Whose class it is.
    pub(super) fn controller(&self, id: ClassId) -> ControllerNo {
        self.controller_of[id.index()]
    }

    /// The number of a controller, if it was ever seen.
    pub(super) fn controller_number(&self, controller: &ControllerId) -> Option<ControllerNo> {
        self.controllers.number(controller).map(ControllerNo)
    }

    /// All controllers, by number.
    pub(super) fn controllers(&self) -> impl Iterator<Item = &ControllerId> {
        self.controllers.values()
    }

    /// The grant as a set of numbers. Classes never seen have no rows and no place in it.
    pub(super) fn compile(&self, grant: &Grant) -> ClassSet {
        let mut set = ClassSet::default();
        for id in grant.classes().iter().filter_map(|key| self.number(key)) {
            set.insert(id);
        }
        set
    }
}

/// A grant compiled: one bit a class.
#[derive(Debug, Clone, Default)]
pub(in crate::index) struct ClassSet {
    words: Vec<u64>,
}

impl ClassSet {
    /// Whether the class is granted.
    pub(in crate::index) fn contains(&self, id: ClassId) -> bool {
        let (word, bit) = position(id);
        self.words.get(word).is_some_and(|bits| bits & bit != 0)
    }

    /// The classes, by number.
    pub(in crate::index) fn iter(&self) -> impl Iterator<Item = ClassId> {
        (0..).zip(&self.words).flat_map(|(word, bits)| {
            let bits = *bits;
            (0..u64::BITS)
                .filter(move |bit| bits >> bit & 1 == 1)
                .map(move |bit| ClassId(word * u64::BITS + bit))
        })
    }

    /// Grants all that `other` grants besides.
    pub(in crate::index) fn extend(&mut self, other: &Self) {
        self.words.resize(self.words.len().max(other.words.len()), 0);
        for (word, more) in self.words.iter_mut().zip(&other.words) {
            *word |= more;
        }
    }

    fn insert(&mut self, id: ClassId) {
        let (word, bit) = position(id);
        if self.words.len() <= word {
            self.words.resize(word + 1, 0);
        }
        self.words[word] |= bit;
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
        let ids: Vec<ClassId> = (0..200).map(|n| classes.intern(class(n)).unwrap()).collect();
        let set = classes.compile(&Grant::for_tests(vec![class(3), class(64), class(999)]));
        let found: Vec<ClassId> = set.iter().collect();
        assert_eq!(found, [ids[3], ids[64]]);
        for (n, id) in ids.iter().enumerate() {
            assert_eq!(set.contains(*id), n == 3 || n == 64);
        }
    }

    #[test]
    fn a_class_keeps_its_number_and_its_controller() {
        let mut classes = Classes::default();
        let first = classes.intern(class(1)).unwrap();
        let fourth = classes.intern(class(4)).unwrap();
        assert_eq!(classes.intern(class(1)), Some(first));
        assert_eq!((classes.number(&class(4)), classes.number(&class(2))), (Some(fourth), None));
        assert_eq!(classes.controller(first), classes.controller(fourth));
        let number = classes.controller_number(&class(7).controller);
        assert_eq!(number, Some(classes.controller(first)));
        assert_eq!(classes.controllers().count(), 1);
    }
}
