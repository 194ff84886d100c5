//! The journal: what it holds after every end, and what is made of a damaged one.

use super::*;
use crate::store::embedded::disk::SimulatedDisk;
use crate::store::embedded::journal::{BLOCK_BYTES, HALF_BYTES, JOURNAL_BYTES};

/// Decisions, one by one, that fill half of a journal.
const HALF_FULL: usize = HALF_BYTES / BLOCK_BYTES;
/// More of them than fit into a journal.
const MORE_THAN_FIT: usize = 2 * HALF_FULL + 40;

/// How many decisions the audit trail holds, where it is whole.
pub(super) async fn decided_in(store: &Store) -> Option<usize> {
    let entries = trail_of(store).await?;
    Some(entries.iter().filter(|entry| entry.starts_with("{\"event\":\"decision\"")).count())
}

pub(super) async fn decided(store: &Store) -> usize {
    decided_in(store).await.expect("the trail is whole")
}

/// A disk after `decisions`, the store still running on it.
async fn with_decisions(decisions: usize) -> (SimulatedDisk, MemoryCell, Store) {
    let disk = SimulatedDisk::default();
    let (cell, store) = create(&Arc::new(disk.open().unwrap())).await;
    enrol(&store, 1).await.unwrap();
    for _ in 0..decisions {
        decide(&store).await.unwrap();
    }
    (disk, cell, store)
}

/// What a start finds on a copy of the disk as it is now.
async fn reopened(disk: &SimulatedDisk, cell: &MemoryCell) -> Result<usize, EmbeddedError> {
    let backend = Arc::new(disk.copy().open()?);
    let store = open(&backend, &cell.copy()).await.unwrap();
    assert_eq!(loaded_ids(&store).await, [id(1)]);
    let found = decided(&store).await;
    decide(&store).await.unwrap();
    enrol(&store, 2).await.unwrap();
    assert_eq!(decided(&store).await, found + 1, "it goes on");
    Ok(found)
}

fn database(image: &[u8]) -> &[u8] {
    &image[JOURNAL_BYTES..]
}

/// The database of one instant beside the journal of another.
fn beside(database_of: &[u8], journal_of: &[u8]) -> Vec<u8> {
    [&journal_of[..JOURNAL_BYTES], database(database_of)].concat()
}

/// The same with one bit of the journal flipped.
fn broken(image: &[u8], at: usize) -> SimulatedDisk {
    let mut image = image.to_vec();
    image[at] ^= 1;
    SimulatedDisk::holding(image)
}

#[tokio::test]
async fn a_decision_is_one_sync_of_the_journal_and_readers_find_it_in_the_tables() {
    let (disk, cell, store) = with_decisions(0).await;
    let (before, syncs) = (disk.image(), disk.syncs());
    for _ in 0..3 {
        decide(&store).await.unwrap();
    }
    let after = disk.image();
    assert_eq!(disk.syncs() - syncs, 3);
    assert!(database(&before) == database(&after), "the database is as it was");
    assert!(before[..3 * BLOCK_BYTES] != after[..3 * BLOCK_BYTES], "control");
    assert_eq!(reopened(&disk, &cell).await.unwrap(), 3, "and after a crash");
    assert_eq!(decided(&store).await, 3, "a reader has it settled");
    assert!(database(&after) != database(&disk.image()), "control");
}

#[tokio::test]
async fn every_transaction_takes_the_journal_along_and_no_frame_comes_back() {
    let (disk, cell, store) = with_decisions(5).await;
    enrol(&store, 3).await.unwrap();
    revoke(&store, 3).await.unwrap();
    assert_eq!(reopened(&disk, &cell).await.unwrap(), 5, "old frames of an older lap");
    decide(&store).await.unwrap();
    assert_eq!(reopened(&disk, &cell).await.unwrap(), 6, "one new frame before four old ones");
    store.replace_root("test").await.unwrap();
    decide(&store).await.unwrap();
    assert_eq!(reopened(&disk, &cell).await.unwrap(), 7);
}

#[tokio::test]
async fn full_halves_are_settled_beside_the_decisions_that_follow() {
    let (disk, cell, store) = with_decisions(MORE_THAN_FIT).await;
    assert_eq!(reopened(&disk, &cell).await.unwrap(), MORE_THAN_FIT);
    assert_eq!(decided(&store).await, MORE_THAN_FIT);
    assert_eq!(reopened(&disk, &cell).await.unwrap(), MORE_THAN_FIT);
}

/// A crash before the transaction for the full half was there: its frames count, and those of the
/// other half that go on from them.
#[tokio::test]
async fn both_halves_count_until_the_tables_have_the_full_one() {
    const ALL: usize = HALF_FULL + 3;
    let (disk, cell, store) = with_decisions(0).await;
    let before = disk.image();
    for _ in 0..ALL {
        decide(&store).await.unwrap();
    }
    let now = disk.image();
    let crashed = beside(&before, &now);
    assert_eq!(reopened(&SimulatedDisk::holding(crashed.clone()), &cell).await.unwrap(), ALL);

    let last = HALF_BYTES + 2 * BLOCK_BYTES;
    assert_eq!(reopened(&broken(&crashed, last), &cell).await.unwrap(), ALL - 1, "torn");
    let numbers = [0, HALF_FULL - 1, HALF_FULL, HALF_FULL + 1];
    for number in numbers {
        let refusal = reopened(&broken(&crashed, number * BLOCK_BYTES), &cell).await.unwrap_err();
        let EmbeddedError::Journal(JournalFault::Damaged { number: found }) = refusal else {
            panic!("{number}: {refusal}")
        };
        assert_eq!(found as usize, number);
    }
    // A second crash, while the first start was clearing the journal.
    let again = SimulatedDisk::holding(crashed.clone());
    let _started = again.open().unwrap();
    let uncleared = SimulatedDisk::holding(beside(&again.image(), &crashed));
    assert_eq!(reopened(&uncleared, &cell).await.unwrap(), ALL);

    // Once the tables have it, the full half is not needed.
    store.audit(0).await.unwrap();
    for number in [0, HALF_FULL - 1] {
        let settled = broken(&beside(&disk.image(), &now), number * BLOCK_BYTES);
        assert_eq!(reopened(&settled, &cell).await.unwrap(), ALL, "{number}");
    }
    for _ in 0..HALF_FULL {
        decide(&store).await.unwrap();
    }
    let older = SimulatedDisk::holding(beside(&before, &disk.image()));
    let refusal = reopened(&older, &cell).await.unwrap_err();
    assert!(matches!(refusal, EmbeddedError::Journal(JournalFault::Newer)), "{refusal}");
}

/// Power cuts and failing syncs around the turn to the other half, whatever the two threads have
/// done by then.
#[tokio::test]
async fn what_was_decided_survives_a_cut_while_a_half_is_settled() {
    for cut in 0..24 {
        let (disk, cell, store) = with_decisions(HALF_FULL - 2).await;
        if cut % 2 == 0 {
            disk.power().cut_after(cut + 1);
        } else {
            disk.fail_after_syncs(cut / 3 + 1);
        }
        let mut told = HALF_FULL - 2;
        while decide(&store).await.is_ok() {
            told += 1;
            assert!(told < 2 * HALF_FULL, "control: it fails");
        }
        assert!(!store.is_healthy());
        for seed in 0..4 {
            let found = reopened(&disk.after_power_cut(seed), &cell).await.unwrap();
            assert!((told..=told + 1).contains(&found), "{cut}: {found} of {told}");
        }
    }
}

#[tokio::test]
async fn after_an_orderly_stop_the_journal_is_not_needed() {
    let (disk, cell, store) = with_decisions(5).await;
    let mut crashed = disk.image();
    store.close().await;
    let mut stopped = disk.image();
    for image in [&mut crashed, &mut stopped] {
        image[..JOURNAL_BYTES].fill(0);
    }
    assert_eq!(reopened(&SimulatedDisk::holding(stopped), &cell).await.unwrap(), 5);
    let without = reopened(&SimulatedDisk::holding(crashed), &cell).await.unwrap();
    assert_eq!(without, 0, "control: it was in the journal alone");
}

#[tokio::test]
async fn of_a_torn_frame_nobody_was_told_and_a_broken_one_before_others_keeps_the_store_shut() {
    let (disk, cell, _store) = with_decisions(3).await;
    let image = disk.image();
    let broken = |at| broken(&image, at);
    let last = 2 * BLOCK_BYTES;
    for at in [0, 31, 32, 40, 48, 52, 56, 200] {
        assert_eq!(reopened(&broken(last + at), &cell).await.unwrap(), 2, "{at}");
        for frame in 0..2 {
            let refusal = reopened(&broken(frame * BLOCK_BYTES + at), &cell).await.unwrap_err();
            let EmbeddedError::Journal(JournalFault::Damaged { number }) = refusal else {
                panic!("{refusal}")
            };
            assert_eq!(number as usize, frame);
        }
    }
    assert_eq!(reopened(&broken(last + BLOCK_BYTES - 1), &cell).await.unwrap(), 3, "padding");
    assert_eq!(reopened(&broken(3 * BLOCK_BYTES), &cell).await.unwrap(), 3, "behind the last");
}

/// Whether transactions found rows in the journal or not, and however many of them are lost.
#[tokio::test]
async fn a_database_that_is_older_than_its_journal_is_noticed() {
    for decisions in [0, 2] {
        let (disk, cell, store) = with_decisions(decisions).await;
        let older = disk.image();
        for n in 2..4 {
            enrol(&store, n).await.unwrap();
            decide(&store).await.unwrap();
            let image = beside(&older, &disk.image());
            let refusal = reopened(&SimulatedDisk::holding(image), &cell).await.unwrap_err();
            assert!(matches!(refusal, EmbeddedError::Journal(JournalFault::Newer)), "{refusal}");
        }
        let found = reopened(&SimulatedDisk::holding(older), &cell).await.unwrap();
        assert_eq!(found, decisions, "control");
    }
}

/// What replaces ROOT goes through the database: the tree must not be lost with a journal.
#[tokio::test]
async fn the_key_tree_is_never_in_the_journal() {
    let (disk, cell, store) = with_decisions(1).await;
    store.replace_root("test").await.unwrap();
    let mut image = disk.image();
    image[..JOURNAL_BYTES].fill(0);
    assert_eq!(reopened(&SimulatedDisk::holding(image), &cell).await.unwrap(), 1);
}

#[tokio::test]
async fn a_start_clears_the_journal() {
    let (disk, cell, store) = with_decisions(2).await;
    assert!(disk.image()[..JOURNAL_BYTES].iter().any(|byte| *byte != 0), "control");
    store.close().await;
    let store = open(&Arc::new(disk.open().unwrap()), &cell).await.unwrap();
    assert!(disk.image()[..JOURNAL_BYTES].iter().all(|byte| *byte == 0));
    assert_eq!(decided(&store).await, 2);
}

#[tokio::test]
async fn a_failed_write_to_the_journal_stops_the_store() {
    let (disk, cell, store) = with_decisions(2).await;
    disk.fail_after_syncs(1);
    for _ in 0..2 {
        let refused = decide(&store).await;
        assert!(matches!(refused, Err(StoreError::Backend(BackendError::Stopped))));
        assert!(!store.is_healthy());
    }
    let refused = store.audit(0).await;
    assert!(matches!(refused, Err(StoreError::Backend(BackendError::Stopped))), "{refused:?}");
    for seed in 0..8 {
        let found = reopened(&disk.after_power_cut(seed), &cell).await.unwrap();
        assert!((2..=3).contains(&found), "{found}");
    }
}

#[tokio::test]
async fn a_journal_that_is_missing_after_a_crash_is_asked_for() {
    let cell = cell();
    let (directory, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (_, store) = open_in(directory.path(), &cell).await;
    decide(&store).await.unwrap();
    let [here, there] =
        [&directory, &copy].map(|at| (at.path().join("assent.redb"), at.path().join("journal")));
    std::fs::copy(&here.0, &there.0).unwrap();
    let refusal = Embedded::open(copy.path()).err().unwrap();
    assert!(matches!(refusal, EmbeddedError::Journal(JournalFault::Missing { .. })), "{refusal}");
    assert!(!there.1.exists(), "and not made");
    let opened = async |cell| decided(&open_in(copy.path(), cell).await.1).await;
    let copied = cell.copy();
    std::fs::copy(&here.1, &there.1).unwrap();
    assert_eq!(opened(&copied).await, 1);
    // That was an orderly stop: nothing is missing without it.
    std::fs::remove_file(&there.1).unwrap();
    assert_eq!(opened(&copied).await, 1);
    // A crash again, and the last decisions given up.
    std::fs::copy(&here.0, &there.0).unwrap();
    std::fs::write(&there.1, b"").unwrap();
    let refusal = Embedded::open(copy.path()).err().unwrap();
    assert!(matches!(refusal, EmbeddedError::Journal(JournalFault::Short { length: 0 })));
    std::fs::write(&there.1, vec![0; JOURNAL_BYTES]).unwrap();
    assert_eq!(opened(&cell.copy()).await, 0);
}
