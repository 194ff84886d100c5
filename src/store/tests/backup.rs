//! Backups: what comes back, what stays away, and what no age of a backup can undo.

use std::io::Read;

use tokio::sync::mpsc;

use super::super::backup::{BackupReader, RestoreError, Restored, restore};
use super::*;
use crate::store::embedded::disk::SimulatedDisk;

/// A mirrored store.
struct Stage {
    cell: MemoryCell,
    store: Store,
    mirror: tempfile::TempDir,
}

async fn open_mirrored(
    backend: Arc<Embedded>,
    cell: &MemoryCell,
    mirror: &Path,
) -> Result<Store, StoreError> {
    let mirror = KeyMirror::open(mirror).unwrap();
    Store::open_mirrored(backend, Box::new(cell.reopen()), Some(mirror), &model()).await
}

impl Stage {
    async fn new(people: std::ops::Range<u8>) -> Self {
        let (cell, mirror) = (cell(), tempfile::tempdir().unwrap());
        let backend = Arc::new(SimulatedDisk::default().open().unwrap());
        let store = open_mirrored(backend, &cell, mirror.path()).await.unwrap();
        for n in people {
            enrol(&store, n).await.unwrap();
        }
        Self { cell, store, mirror }
    }

    async fn backup(&self) -> Vec<u8> {
        let (pieces, mut taken) = mpsc::channel(4);
        let collect = async {
            let mut bytes = Vec::new();
            while let Some(piece) = taken.recv().await {
                bytes.extend(piece);
            }
            bytes
        };
        let (made, bytes) = tokio::join!(self.store.backup(pieces), collect);
        assert!(made.unwrap().is_some());
        bytes
    }

    /// The disk of the store is lost: closes it, and restores onto another one.
    async fn lose_and_restore(
        &self,
        backup: &[u8],
    ) -> Result<(Restored, Arc<Embedded>), RestoreError> {
        self.store.close().await;
        let mirror = KeyMirror::open(self.mirror.path()).unwrap();
        restore_onto_new(backup, &self.cell, Some(&mirror)).await
    }

    async fn reopen(&self, backend: Arc<Embedded>) -> Store {
        open_mirrored(backend, &self.cell, self.mirror.path()).await.unwrap()
    }
}

async fn restore_onto_new(
    backup: impl Read,
    cell: &MemoryCell,
    mirror: Option<&KeyMirror>,
) -> Result<(Restored, Arc<Embedded>), RestoreError> {
    let backend = Arc::new(SimulatedDisk::default().open().unwrap());
    let reader = BackupReader::begin(backup)?;
    let onto = Arc::clone(&backend) as Arc<dyn Backend>;
    let restored = restore(reader, onto, &cell.reopen(), mirror, |_| {}).await?;
    Ok((restored, backend))
}

fn ids(people: impl IntoIterator<Item = u8>) -> Vec<RecordId> {
    people.into_iter().map(id).collect()
}

/// All entries of the audit trail, one text.
async fn trail(store: &Store) -> String {
    let (mut after, mut text) = (0, String::new());
    while let Some((_, entries)) = store.audit(after).await.unwrap() {
        after += entries.len() as u64;
        for entry in entries {
            text.push_str(std::str::from_utf8(&entry).unwrap());
            text.push('\n');
        }
    }
    text
}

#[tokio::test]
async fn a_backup_brings_back_everybody_but_those_revoked_since_and_says_who_is_lost() {
    let stage = Stage::new(0..6).await;
    stage.store.put_policy(b"rules").await.unwrap();
    revoke(&stage.store, 0).await.unwrap();
    let backup = stage.backup().await;
    assert!(trail(&stage.store).await.contains("backup_made"));
    enrol(&stage.store, 9).await.unwrap();
    for n in [2, 4] {
        revoke(&stage.store, n).await.unwrap();
    }
    let (restored, backend) = stage.lose_and_restore(&backup).await.unwrap();
    assert_eq!(restored.records, 3);
    assert_eq!(restored.revoked_since, ids([2, 4]));
    assert_eq!(restored.lost, ids([9]), "enrolled after the backup, revocations kept its key");

    let store = stage.reopen(Arc::clone(&backend)).await;
    let (opened, report) = load(&store).await;
    assert_eq!(opened.into_keys().collect::<Vec<_>>(), ids([1, 3, 5]));
    assert_eq!(report.quarantined, [], "keys without rows are gone too");
    assert_eq!(store.policy().await.unwrap().unwrap().0, b"rules");
    let said = trail(&store).await;
    assert!(
        said.contains(r#""event":"restored""#) && said.contains(r#""revoked_since":2,"lost":1"#)
    );
    assert!(said.contains(&id(4).to_string()) && said.contains(&id(9).to_string()));

    // It is a store like any other from here on, and says so once only.
    assert!(matches!(enrol(&store, 2).await, Err(StoreError::IdempotencyTaken)));
    enrol(&store, 7).await.unwrap();
    revoke(&store, 1).await.unwrap();
    store.vault.release();
    let store = stage.reopen(backend).await;
    assert_eq!(loaded_ids(&store).await, ids([3, 5, 7]));
    assert_eq!(trail(&store).await.matches(r#""event":"restored""#).count(), 1);
}

#[tokio::test]
async fn a_backup_from_before_an_erasure_needs_the_mirror_and_an_old_mirror_does_not_do() {
    let stage = Stage::new(0..4).await;
    let backup = stage.backup().await;
    // Nothing was erased since: the backup's own root node opens.
    let (restored, _) = restore_onto_new(&backup[..], &stage.cell, None).await.unwrap();
    assert_eq!(restored.records, 4, "control");

    let old_cell = stage.cell.copy();
    revoke(&stage.store, 1).await.unwrap();
    let refused = restore_onto_new(&backup[..], &stage.cell, None).await.err().unwrap();
    assert!(matches!(refused, RestoreError::NoNode { mirror: None, .. }), "{refused}");
    // The limit that SECURITY.md states: a root cell that was copied before.
    let (restored, _) = restore_onto_new(&backup[..], &old_cell, None).await.unwrap();
    assert_eq!(restored.records, 4, "who kept an old ROOT has everything of that day");

    // A mirror of that day as well opens nothing today.
    stage.store.close().await;
    let old = tempfile::tempdir().unwrap();
    std::fs::copy(stage.mirror.path().join("mirror.redb"), old.path().join("mirror.redb")).unwrap();
    let backend = Arc::new(SimulatedDisk::default().open().unwrap());
    let mirror = KeyMirror::open(stage.mirror.path()).unwrap();
    let reader = BackupReader::begin(&backup[..]).unwrap();
    let cell = stage.cell.reopen();
    let onto = Arc::clone(&backend) as Arc<dyn Backend>;
    restore(reader, onto, &cell, Some(&mirror), |_| {}).await.unwrap();
    drop(mirror);
    let store = stage.reopen(backend).await;
    revoke(&store, 2).await.unwrap();
    let old = KeyMirror::open(old.path()).unwrap();
    let refused = restore_onto_new(&backup[..], &stage.cell, Some(&old)).await.err().unwrap();
    assert!(matches!(refused, RestoreError::NoNode { mirror: Some(_), .. }), "{refused}");
}

/// A page is re-keyed by one erasure after the other; the backup is of any time between.
#[tokio::test]
async fn whenever_the_backup_was_made_nobody_revoked_comes_back() {
    const STEPS: u8 = 12;
    let stage = Stage::new(0..STEPS).await;
    let mut backups = Vec::new();
    let mut alive: Vec<u8> = (0..STEPS).collect();
    for step in 0..STEPS {
        backups.push((alive.clone(), stage.backup().await));
        if step % 3 == 2 {
            enrol(&stage.store, 100 + step).await.unwrap();
            alive.push(100 + step);
        } else {
            revoke(&stage.store, step).await.unwrap();
            alive.retain(|n| *n != step);
        }
    }
    stage.store.close().await;
    let mirror = KeyMirror::open(stage.mirror.path()).unwrap();
    for (then, backup) in &backups {
        let (restored, _) =
            restore_onto_new(&backup[..], &stage.cell, Some(&mirror)).await.unwrap();
        let back: Vec<u8> = then.iter().copied().filter(|n| alive.contains(n)).collect();
        let gone = ids(then.iter().copied().filter(|n| !alive.contains(n)));
        assert_eq!(restored.records, back.len() as u64);
        assert_eq!(restored.revoked_since, gone);
    }
    eprintln!("{} backups of one life restored, nobody revoked came back", backups.len());
}

#[tokio::test]
async fn a_backup_that_was_altered_cut_or_signed_by_somebody_else_is_refused_whole() {
    let stage = Stage::new(0..3).await;
    let whole = stage.backup().await;
    let mut refused = 0;
    for at in (0..whole.len()).step_by(61) {
        let mut altered = whole.clone();
        altered[at] ^= 1 << (at % 8);
        for bytes in [&altered[..], &whole[..at]] {
            let outcome = restore_onto_new(bytes, &stage.cell, None).await;
            assert!(outcome.is_err(), "byte {at}");
            refused += 1;
        }
    }
    let longer = [&whole[..], b"x"].concat();
    assert!(restore_onto_new(&longer[..], &stage.cell, None).await.is_err());
    restore_onto_new(&whole[..], &stage.cell, None).await.unwrap();
    eprintln!("{refused} damaged backups refused");

    let foreign = restore_onto_new(&whole[..], &MemoryCell::new(8), None).await.err().unwrap();
    assert!(matches!(foreign, RestoreError::OtherDeployment), "{foreign}");
    let onto = Arc::new(SimulatedDisk::default().open().unwrap());
    let (_, _store) = create(&onto).await;
    let reader = BackupReader::begin(&whole[..]).unwrap();
    let again = restore(reader, onto, &stage.cell.reopen(), None, |_| {}).await.err().unwrap();
    assert!(matches!(again, RestoreError::NotEmpty), "{again}");
}

/// What a restore that was cut short leaves does not open as a store.
#[tokio::test]
async fn half_a_restore_does_not_open() {
    let stage = Stage::new(0..3).await;
    let whole = stage.backup().await;
    let backend = Arc::new(SimulatedDisk::default().open().unwrap());
    let reader = BackupReader::begin(&whole[..whole.len() - 1]).unwrap();
    let onto = Arc::clone(&backend) as Arc<dyn Backend>;
    restore(reader, onto, &stage.cell.reopen(), None, |_| {}).await.err().unwrap();
    assert!(backend.count(Table::Headers).await.unwrap() > 0, "control: rows were written");
    let fault = open(&backend, &stage.cell).await.err().unwrap();
    assert!(matches!(fault, StoreError::Malformed { .. }), "{fault}");
}

#[tokio::test]
async fn changes_go_on_while_a_backup_is_made_and_are_not_in_it() {
    let stage = Stage::new(0..3).await;
    let (pieces, mut taken) = mpsc::channel(1);
    let backup = stage.store.backup(pieces);
    let others = async {
        let mut bytes = taken.recv().await.unwrap();
        for n in 10..20 {
            enrol(&stage.store, n).await.unwrap();
        }
        while let Some(piece) = taken.recv().await {
            bytes.extend(piece);
        }
        bytes
    };
    let (made, bytes) = tokio::join!(backup, others);
    assert!(made.unwrap().is_some());
    let (restored, _) = restore_onto_new(&bytes[..], &stage.cell, None).await.unwrap();
    assert!(restored.records >= 3 && restored.revoked_since.is_empty());
    // Nobody takes it any more: no backup, no harm.
    let (pieces, taken) = mpsc::channel(1);
    drop(taken);
    assert_eq!(stage.store.backup(pieces).await.unwrap(), None);
    assert!(stage.store.is_healthy());
}

#[tokio::test]
async fn a_mirror_that_fails_costs_no_erasure() {
    let stage = Stage::new(0..3).await;
    assert!(stage.store.vault.is_mirrored(), "control");
    stage.store.vault.mirror(|_| Err(MirrorFault::Directory(std::io::Error::other("on purpose"))));
    assert!(!stage.store.vault.is_mirrored());
    assert_eq!(revoke(&stage.store, 1).await.unwrap().records, [id(1)]);
    assert_eq!(loaded_ids(&stage.store).await, ids([0, 2]));
}
