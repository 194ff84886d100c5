//! Snapshots: what comes back, what does not after a revocation, and what damage does.

use std::collections::{BTreeMap, HashSet};
use std::fs;

use tempfile::TempDir;
use zeroize::Zeroizing;

use super::*;
use crate::store::embedded::disk::SimulatedDisk;

const PEOPLE: u8 = 5;
const COUNT: usize = PEOPLE as usize;

/// A store with people in it, and a snapshot of them all.
struct Stage {
    backend: Arc<Embedded>,
    cell: MemoryCell,
    store: Store,
    directory: TempDir,
}

type Rows = BTreeMap<RecordId, Vec<u8>>;

/// How a snapshot was read.
#[derive(Debug, PartialEq, Eq)]
struct Read {
    rows: Rows,
    erased: u64,
    damaged: u64,
    /// Records that the snapshot had nothing for.
    left_over: Vec<RecordId>,
}

fn body(n: u8) -> Vec<u8> {
    vec![n; 40 + usize::from(n)]
}

fn expected(people: impl IntoIterator<Item = u8>) -> Rows {
    people.into_iter().map(|n| (id(n), body(n))).collect()
}

impl Stage {
    async fn new() -> Self {
        let backend = Arc::new(SimulatedDisk::default().open().unwrap());
        let (cell, store) = create(&backend).await;
        for n in 0..PEOPLE {
            enrol(&store, n).await.unwrap();
        }
        let stage = Self { backend, cell, store, directory: tempfile::tempdir().unwrap() };
        assert_eq!(stage.write("snapshot").await, u64::from(PEOPLE));
        stage
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join(name)
    }

    async fn begin(&self, name: &str) -> SnapshotWriter {
        let revision = self.store.revision().await.unwrap();
        let head = SnapshotHead { revision, rows: PEOPLE.into(), index: b"index".to_vec() };
        let writer = self.store.begin_snapshot(&self.path(name), &head).unwrap();
        let row = |n| SnapshotRow { record: id(n), plain: Zeroizing::new(body(n)) };
        writer.add(&self.store, (0..PEOPLE).map(row).collect()).await.unwrap()
    }

    async fn write(&self, name: &str) -> u64 {
        self.begin(name).await.finish().await.unwrap()
    }

    async fn read(&self, name: &str) -> Result<Option<Read>, SnapshotFault> {
        let Some(snapshot) = self.store.open_snapshot(&self.path(name))? else { return Ok(None) };
        assert_eq!(snapshot.head().index, b"index");
        let ring = self.store.key_ring().await.unwrap();
        let keep = |id, plain: &[u8]| Some((id, plain.to_vec()));
        let rows: Vec<_> = snapshot.rows(&ring, keep).collect();
        let (erased, damaged) = (ring.erased(), ring.damaged());
        let left_over = ring.left_over(&HashSet::new());
        let mut left_over: Vec<_> = left_over.into_iter().map(|(_, id, _)| id).collect();
        left_over.sort_unstable();
        Ok(Some(Read { rows: rows.into_iter().collect(), erased, damaged, left_over }))
    }
}

#[tokio::test]
async fn a_snapshot_gives_back_who_is_still_there_and_names_who_came_since() {
    let stage = Stage::new().await;
    assert!(stage.read("none").await.unwrap().is_none());
    revoke(&stage.store, 2).await.unwrap();
    enrol(&stage.store, 9).await.unwrap();
    let read = stage.read("snapshot").await.unwrap().unwrap();
    let left_over = vec![id(9)];
    assert_eq!(read, Read { rows: expected([0, 1, 3, 4]), erased: 1, damaged: 0, left_over });
}

#[tokio::test]
async fn no_key_of_today_opens_the_row_of_a_record_revoked_since_in_any_older_snapshot() {
    let stage = Stage::new().await;
    let before = stage.read("snapshot").await.unwrap().unwrap();
    assert_eq!(before.rows, expected(0..PEOPLE), "control: the day before it opens");
    revoke(&stage.store, 2).await.unwrap();
    // The row says under which place its key lies: every other place is tried in its stead.
    let bytes = fs::read(stage.path("snapshot")).unwrap();
    // With the slot, because the byte before may be the id's own repeated one.
    let is_row = |head: &[u8]| head[..16] == *id(2).as_bytes() && head[21] == 2;
    let at = bytes.windows(22).position(is_row).unwrap();
    for n in (0..PEOPLE).filter(|n| *n != 2) {
        let mut forged = bytes.clone();
        forged[at..at + 16].copy_from_slice(id(n).as_bytes());
        forged[at + 21] = n; // the slot
        fs::write(stage.path("forged"), &forged).unwrap();
        let read = stage.read("forged").await.unwrap().unwrap();
        assert_eq!(read.damaged, 1, "the key of {n} was tried and does not open it");
        assert_eq!(read.rows, expected([0, 1, 3, 4]));
    }
    // The next start, with another ROOT, changes nothing.
    let store = open(&stage.backend, &stage.cell).await.unwrap();
    let stage = Stage { store, ..stage };
    let read = stage.read("snapshot").await.unwrap().unwrap();
    assert_eq!((read.rows, read.erased), (expected([0, 1, 3, 4]), 1));
}

#[tokio::test]
async fn rows_of_records_that_go_while_a_snapshot_is_written_are_left_out() {
    let stage = Stage::new().await;
    revoke(&stage.store, 3).await.unwrap();
    assert_eq!(stage.write("later").await, u64::from(PEOPLE) - 1);
    let read = stage.read("later").await.unwrap().unwrap();
    assert_eq!((read.rows, read.erased), (expected([0, 1, 2, 4]), 0));
}

#[tokio::test]
async fn a_snapshot_in_the_making_leaves_the_one_before() {
    let stage = Stage::new().await;
    let unfinished = stage.begin("snapshot").await;
    assert!(stage.path("snapshot.new").exists(), "control: there is a file in the making");
    let read = stage.read("snapshot").await.unwrap().unwrap();
    assert_eq!(read.rows, expected(0..PEOPLE));
    drop(unfinished);
    assert!(!stage.path("snapshot.new").exists());
    let read = stage.read("snapshot").await.unwrap().unwrap();
    assert_eq!(read.rows, expected(0..PEOPLE));
    stage.write("snapshot").await;
    assert!(!stage.path("snapshot.new").exists());
}

#[tokio::test]
async fn a_row_opens_in_its_own_snapshot_only() {
    let stage = Stage::new().await;
    stage.write("other").await;
    let (mine, other) =
        (fs::read(stage.path("snapshot")).unwrap(), fs::read(stage.path("other")).unwrap());
    assert_eq!(mine.len(), other.len());
    let first = mine.windows(16).position(|window| window == id(0).as_bytes()).unwrap();
    let mixed = [&mine[..first], &other[first..]].concat();
    fs::write(stage.path("mixed"), mixed).unwrap();
    let read = stage.read("mixed").await.unwrap().unwrap();
    assert_eq!((read.rows.len(), read.damaged), (0, u64::from(PEOPLE)));
    assert_eq!(read.left_over.len(), COUNT);
}

/// Wherever damage is, a row is as it was written or comes from the store.
#[tokio::test]
async fn every_flipped_bit_and_every_cut_costs_rows_and_changes_none() {
    let stage = Stage::new().await;
    let whole = fs::read(stage.path("snapshot")).unwrap();
    let (mut refused, mut fewer) = (0, 0);
    let mut look = async |bytes: &[u8], what: &str| {
        fs::write(stage.path("damaged"), bytes).unwrap();
        match stage.read("damaged").await {
            Err(_) => refused += 1,
            Ok(read) => {
                let read = read.unwrap();
                assert!(read.rows.iter().all(|(id, row)| *row == body(id.as_bytes()[0])), "{what}");
                assert!(read.rows.len() < COUNT, "{what} goes unnoticed");
                assert_eq!(read.rows.len() + read.left_over.len(), COUNT, "{what}");
                fewer += 1;
            }
        }
    };
    for bit in 0..whole.len() * 8 {
        let mut flipped = whole.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        look(&flipped, &format!("bit {bit}")).await;
    }
    for length in 0..whole.len() {
        look(&whole[..length], &format!("length {length}")).await;
    }
    let trials = whole.len() * 9;
    assert_eq!(refused + fewer, trials);
    eprintln!(
        "{trials} damaged snapshots: {refused} refused, {fewer} gave fewer rows, none another"
    );
}

#[tokio::test]
async fn a_snapshot_of_another_deployment_is_refused() {
    let stage = Stage::new().await;
    let other = Arc::new(SimulatedDisk::default().open().unwrap());
    let store = open(&other, &MemoryCell::new(8)).await.unwrap();
    let fault = store.open_snapshot(&stage.path("snapshot")).err().unwrap();
    assert!(matches!(fault, SnapshotFault::Altered(_)), "{fault}");
}

#[tokio::test]
async fn what_a_snapshot_lacks_or_loses_is_loaded_from_the_store() {
    let stage = Stage::new().await;
    enrol(&stage.store, 9).await.unwrap();
    let snapshot = stage.store.open_snapshot(&stage.path("snapshot")).unwrap().unwrap();
    let ring = stage.store.key_ring().await.unwrap();
    let rows: Vec<_> = snapshot.rows(&ring, |id, _| (id != super::id(1)).then_some(id)).collect();
    assert_eq!(rows.len(), 4, "one row could not be decoded");
    let mut loaded = Vec::new();
    let dropped = HashSet::from([id(4)]);
    let each = |opened: OpenedRecord| loaded.push(opened.record.id);
    let report = stage.store.load_beside(ring, &dropped, each).await.unwrap();
    loaded.sort_unstable();
    assert_eq!(loaded, [id(1), id(4), id(9)]);
    assert_eq!((report.loaded, report.quarantined.len()), (3, 0));
}

#[tokio::test]
async fn a_scrub_finds_damage_that_a_start_from_a_snapshot_does_not_meet() {
    let stage = Stage::new().await;
    let pause = std::time::Duration::ZERO;
    assert_eq!(stage.store.scrub(pause).await.unwrap(), [], "control");
    let broken = Opaque::stored(&row(&stage.backend, Table::Templates, 3).await.as_bytes()[1..]);
    tamper(&stage.backend, vec![Write::Put(Table::Templates.row(id(3).into()), broken)]).await;
    let read = stage.read("snapshot").await.unwrap().unwrap();
    assert_eq!(read.rows.len(), COUNT, "the snapshot does not show it");
    let faults = stage.store.scrub(pause).await.unwrap();
    assert!(matches!(&faults[..], [(found, RecordFault::Template(_))] if *found == id(3)));
}
