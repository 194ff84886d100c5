//! Rows by a key that stands in the row's entry and not here again.
//!
//! # Invariants
//! - A row stands in the shard that its key's hash names, once.
//! - A key may stand for several rows.
//!
//! # Not here
//! The keys: the caller hashes them, with a hasher keyed at random, and compares them.

use hashbrown::HashTable;

/// Parts of a table. Each grows by itself, so that no insertion waits for a million rows to be
/// hashed anew.
const SHARDS: usize = 256;
/// Where in a hash the shard's number is: the table itself uses the lowest bits and the top seven.
const SHARD_SHIFT: u32 = 48;

/// A hash table of rows: 5 bytes a place.
pub(super) struct Lookup {
    shards: Box<[HashTable<u32>]>,
}

impl Default for Lookup {
    fn default() -> Self {
        Self { shards: (0..SHARDS).map(|_| HashTable::new()).collect() }
    }
}

impl Lookup {
    /// The rows whose key may be the one with this hash; the caller compares the keys.
    pub(super) fn rows(&self, hash: u64) -> impl Iterator<Item = u32> {
        self.shards[shard(hash)].iter_hash(hash).copied()
    }

    /// Enters a row that is not in the table; `rehash` hashes the keys of others.
    pub(super) fn enter(&mut self, hash: u64, row: u32, rehash: impl Fn(u32) -> u64) {
        self.shards[shard(hash)].insert_unique(hash, row, |other| rehash(*other));
    }

    /// Makes room for so many more rows.
    pub(super) fn reserve(&mut self, rows: usize, rehash: impl Fn(u32) -> u64) {
        for shard in &mut self.shards {
            // Shards differ by chance; a little room more spares most of them a second time.
            shard.reserve(rows / SHARDS + rows / (8 * SHARDS), |other| rehash(*other));
        }
    }

    /// Strikes a row out.
    pub(super) fn strike(&mut self, hash: u64, row: u32) {
        if let Ok(place) = self.shards[shard(hash)].find_entry(hash, |other| *other == row) {
            place.remove();
        }
    }

    /// Memory of it all.
    pub(super) fn bytes(&self) -> usize {
        let tables: usize = self.shards.iter().map(HashTable::allocation_size).sum();
        tables + size_of_val(&*self.shards)
    }
}

fn shard(hash: u64) -> usize {
    hash.rotate_right(SHARD_SHIFT).to_le_bytes()[0].into()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::hash::{BuildHasher, RandomState};

    use super::*;
    use crate::index::testkit::Random;

    /// Ten rows share a key.
    fn key(row: u32) -> u32 {
        row / 10
    }

    #[test]
    fn a_table_agrees_with_a_plain_map_through_many_removals_and_does_not_swell() {
        let (state, mut random) = (RandomState::new(), Random::new(41));
        let hash = |row| state.hash_one(key(row));
        let (mut table, mut map) = (Lookup::default(), HashMap::<u32, Vec<u32>>::new());
        let mut bytes = 0;
        for round in 0..400_000 {
            let row = random.below(20_000);
            let rows = map.entry(key(row)).or_default();
            if let Some(at) = rows.iter().position(|other| *other == row) {
                rows.swap_remove(at);
                table.strike(hash(row), row);
            } else {
                rows.push(row);
                table.enter(hash(row), row, hash);
            }
            let mut found: Vec<u32> =
                table.rows(hash(row)).filter(|other| key(*other) == key(row)).collect();
            found.sort_unstable();
            rows.sort_unstable();
            assert_eq!(found, *rows);
            if round == 100_000 {
                bytes = table.bytes();
            }
        }
        assert!(table.bytes() <= 2 * bytes, "{bytes} bytes became {}", table.bytes());
    }
}
