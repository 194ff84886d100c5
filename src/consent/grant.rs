//! Permission to search, as a value.

use super::tag::ClassKey;

/// Permission to search the templates of certain classes. Authorisation is a value, not a bool:
/// `Index::search` demands a grant, and only this module can make one.
#[derive(Debug, Clone)]
pub struct Grant {
    classes: Box<[ClassKey]>,
}

impl Grant {
    /// The one constructor: called where a gate's policy or an admitted consent was just checked.
    pub(in crate::consent) fn over(mut classes: Vec<ClassKey>) -> Self {
        classes.sort();
        classes.dedup();
        Self { classes: classes.into_boxed_slice() }
    }

    /// A grant out of thin air, for tests of the index alone.
    #[cfg(test)]
    pub(crate) fn for_tests(classes: Vec<ClassKey>) -> Self {
        Self::over(classes)
    }

    /// The classes that may be searched, sorted, each once.
    #[must_use]
    pub fn classes(&self) -> &[ClassKey] {
        &self.classes
    }

    /// Whether `class` may be searched; asked again when a match is emitted.
    #[must_use]
    pub fn covers(&self, class: &ClassKey) -> bool {
        self.classes.binary_search(class).is_ok()
    }
}
