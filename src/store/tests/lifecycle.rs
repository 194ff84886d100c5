//! Restarts, revocation, binding, group commit.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::store::embedded::disk::SimulatedDisk;

#[tokio::test]
async fn c4_a_restart_keeps_the_enrolled_and_the_revoked_stay_gone() {
    let cell = cell();
    let directory = tempfile::tempdir().unwrap();
    let (_, store) = open_in(directory.path(), &cell).await;
    for n in 1..=4 {
        enrol(&store, n).await.unwrap();
    }
    let revoked = store.revoke(&[id(2), id(9), id(2)], now(), RevocationCause::Withdrawn).await;
    assert_eq!(revoked.unwrap().records, [id(2)]);
    let revision = store.revision().await.unwrap();
    store.close().await;

    let (_, store) = open_in(directory.path(), &cell).await;
    let (opened, report) = load(&store).await;
    assert_eq!(opened.keys().copied().collect::<Vec<_>>(), [id(1), id(3), id(4)]);
    assert_eq!((report.loaded, report.revision), (3, revision));
    assert_eq!(opened[&id(3)].record, record(3));
    assert!(opened[&id(3)].template.cosine(&template(3)).get() > 0.999_999);
    assert!(opened[&id(3)].template.cosine(&template(4)).get() < 0.9, "control");
    assert_eq!(store.describe(id(3)).await.unwrap(), Some(record(3)));
    assert_eq!(store.describe(id(2)).await.unwrap(), None);
}

#[tokio::test]
async fn a_copy_of_the_files_taken_while_it_is_in_use_holds_all_that_was_acknowledged() {
    let cell = cell();
    let (directory, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (_, store) = open_in(directory.path(), &cell).await;
    enrol(&store, 1).await.unwrap();
    enrol(&store, 2).await.unwrap();
    revoke(&store, 1).await.unwrap();
    let copied = cell.copy();
    for file in ["assent.redb", "journal"] {
        std::fs::copy(directory.path().join(file), copy.path().join(file)).unwrap();
    }
    let (_, reopened) = open_in(copy.path(), &copied).await;
    assert_eq!(loaded_ids(&reopened).await, [id(2)]);
}

#[tokio::test]
async fn revoking_twice_is_answered_and_changes_nothing() {
    let cell = cell();
    let directory = tempfile::tempdir().unwrap();
    let (_, store) = open_in(directory.path(), &cell).await;
    enrol(&store, 1).await.unwrap();
    let first = revoke(&store, 1).await.unwrap();
    let second = revoke(&store, 1).await.unwrap();
    assert_eq!(second, Revoked { revision: first.revision, records: vec![] });
}

#[tokio::test]
async fn of_concurrent_revocations_each_record_is_destroyed_by_one() {
    let cell = cell();
    let directory = tempfile::tempdir().unwrap();
    let (_, store) = open_in(directory.path(), &cell).await;
    let store = Arc::new(store);
    let all: Vec<_> = (1..=8).map(id).collect();
    for n in 1..=8 {
        enrol(&store, n).await.unwrap();
    }
    let mut tries = tokio::task::JoinSet::new();
    for n in 0..8 {
        let (store, some) = (Arc::clone(&store), all[n / 2..].to_vec());
        tries.spawn(async move {
            store.revoke(&some, now(), RevocationCause::Withdrawn).await.unwrap().records
        });
    }
    let mut destroyed = tries.join_all().await.concat();
    destroyed.sort_unstable();
    assert_eq!(destroyed, all);
    assert_eq!(load(&store).await.1.loaded, 0);
}

#[tokio::test]
async fn another_root_or_model_opens_nothing() {
    let cell = cell();
    let directory = tempfile::tempdir().unwrap();
    let (backend, store) = open_in(directory.path(), &cell).await;
    enrol(&store, 1).await.unwrap();
    let backend = || Arc::clone(&backend) as Arc<dyn Backend>;
    let wrong = Store::open(backend(), Box::new(MemoryCell::new(8)), &model()).await;
    let refusal = wrong.err().unwrap();
    assert!(matches!(refusal, StoreError::WrongRoot));
    assert!(refusal.to_string().contains("this store was made with another root key"));
    let other = ModelContract::parse("model-b").unwrap();
    let refusal =
        Store::open(backend(), Box::new(cell.reopen()), &other).await.err().unwrap().to_string();
    assert!(refusal.contains("model-a") && refusal.contains("model-b"), "{refusal}");
    let foreign = StoredRecord { model: other, ..record(2) };
    let refused = store.enrol(&foreign, &template(2), repeat(2)).await;
    assert!(matches!(refused, Err(StoreError::OtherModel { .. })));
    Store::open(backend(), Box::new(cell.reopen()), &model()).await.unwrap();
}

#[tokio::test]
async fn a_data_directory_is_private_and_serves_one() {
    let cell = cell();
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("data");
    let (_, store) = open_in(&directory, &cell).await;
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&directory), mode(&directory.join("assent.redb"))), (0o700, 0o600));
    assert_eq!(mode(&directory.join("journal")), 0o600);
    let refusal = Embedded::open(&directory).err().unwrap();
    assert!(matches!(refusal, EmbeddedError::InUse { .. }), "{refusal}");
    store.close().await;
    assert!(!store.is_healthy());
    let refused = enrol(&store, 1).await;
    assert!(matches!(refused, Err(StoreError::Backend(BackendError::Closed))));
    Embedded::open(&directory).unwrap();
}

/// redb names a file last: what a crash before that leaves is no store yet, and must not keep one
/// from being made.
#[tokio::test]
async fn a_crash_while_the_file_was_made_is_forgotten_and_a_store_never_is() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("assent.redb");
    let (_, store) = open_in(parent.path(), &cell()).await;
    store.close().await;
    let whole = std::fs::read(&path).unwrap();
    let mut unnamed = whole.clone();
    unnamed[..9].fill(0);
    std::fs::write(&path, &unnamed).unwrap();
    assert!(Embedded::open(parent.path()).is_err(), "control: there is something in it");
    assert_eq!(std::fs::read(&path).unwrap(), unnamed);
    let mut unborn = vec![0; 1 << 20];
    unborn[9..64].copy_from_slice(&whole[9..64]);
    std::fs::write(&path, &unborn).unwrap();
    // It is made after the database.
    std::fs::remove_file(parent.path().join("journal")).unwrap();
    let (_, store) = open_in(parent.path(), &cell()).await;
    enrol(&store, 1).await.unwrap();
}

#[tokio::test]
async fn a_policy_comes_back_with_its_revision_and_its_digest_is_in_the_log() {
    let cell = cell();
    let directory = tempfile::tempdir().unwrap();
    let (_, store) = open_in(directory.path(), &cell).await;
    assert_eq!(store.policy().await.unwrap(), None);
    store.put_policy(b"first").await.unwrap();
    let revision = store.put_policy(b"second").await.unwrap();
    assert_eq!(store.policy().await.unwrap(), Some((b"second".to_vec(), revision)));
    let log = store.log(Revision(revision.0 - 1), 10).await.unwrap();
    let digest = Sha256(crate::crypto::sha256(b"second"));
    assert!(matches!(
        log[..],
        [(at, LogEntry::PolicyApplied { sha256, .. })] if at == revision && sha256 == digest
    ));
}

#[tokio::test]
async fn grouped_commits_have_dense_revisions_and_share_syncs() {
    let disk = SimulatedDisk::default();
    let backend = Arc::new(disk.open().unwrap());
    let store = Arc::new(create(&backend).await.1);
    let before = (store.revision().await.unwrap().0, disk.syncs());
    // All enrolments queue up behind a commit whose sealing waits until they have.
    let (release, held) = std::sync::mpsc::channel::<()>();
    let slow = Batch {
        patient: false,
        require: vec![],
        build: Box::new(move |_| {
            held.recv().unwrap();
            Ok(Changes { writes: vec![], entry: Opaque::stored(b"slow") })
        }),
    };
    let (first, rest) = tokio::join!(backend.commit(slow), async {
        let mut tries = tokio::task::JoinSet::new();
        for n in 1..=100 {
            let store = Arc::clone(&store);
            tries.spawn(async move { enrol(&store, n).await.unwrap().0 });
        }
        for _ in 0..1000 {
            tokio::task::yield_now().await;
        }
        release.send(()).unwrap();
        tries.join_all().await
    });
    assert_eq!(first.unwrap().0, before.0 + 1);
    let revisions: BTreeSet<_> = rest.into_iter().collect();
    assert_eq!(revisions, (before.0 + 2..=before.0 + 101).collect());
    let syncs = disk.syncs() - before.1;
    assert!(syncs <= 6, "100 enrolments took {syncs} syncs");
    let log = store.log(Revision(before.0 + 1), 1000).await.unwrap();
    assert!(log.iter().map(|(at, _)| at.0).eq(before.0 + 2..=before.0 + 101));
    assert_eq!(load(&store).await.1.loaded, 100);
}
