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
    #[expect(dead_code, reason = "the policy that calls it lands with the consent engine")]
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
}
