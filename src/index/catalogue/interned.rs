//! Values that recur as numbers.
//!
//! # Invariants
//! - Numbers are dense from 0, and a value keeps its number for good: what is interned here are
//!   the words of policies, of which there are few, never the words of people.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

/// Numbered values, each once.
pub(super) struct Interned<T> {
    numbers: HashMap<Arc<T>, u32>,
    values: Vec<Arc<T>>,
}

impl<T> Default for Interned<T> {
    fn default() -> Self {
        Self { numbers: HashMap::new(), values: Vec::new() }
    }
}

impl<T: Eq + Hash> Interned<T> {
    /// The number of `value`, a new one if need be; `None` when the numbers are used up.
    pub(super) fn intern(&mut self, value: T) -> Option<u32> {
        if let Some(number) = self.number(&value) {
            return Some(number);
        }
        let number = u32::try_from(self.values.len()).ok()?;
        let value = Arc::new(value);
        self.numbers.insert(Arc::clone(&value), number);
        self.values.push(value);
        Some(number)
    }

    /// The number of `value`, if it was ever interned.
    pub(super) fn number(&self, value: &T) -> Option<u32> {
        self.numbers.get(value).copied()
    }

    /// What `number` stands for.
    pub(super) fn value(&self, number: u32) -> &T {
        &self.values[number as usize]
    }

    /// All values, by number.
    pub(super) fn values(&self) -> impl Iterator<Item = &T> {
        self.values.iter().map(|value| &**value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_keeps_its_number() {
        let mut words = Interned::default();
        let numbers = ["a", "b", "a"].map(|word| words.intern(word));
        assert_eq!(numbers, [0, 1, 0].map(Some));
        assert_eq!((words.number(&"b"), words.number(&"c")), (Some(1), None));
        assert_eq!(*words.value(1), "b");
        assert!(words.values().eq(&["a", "b"]));
    }
}
