//! Facts: kept over restarts, told apart, sealed, in the trail, gone when they are gone.

use super::*;

async fn names(store: &Store, kind: FactKind) -> Vec<(String, u32)> {
    let mut facts = store.facts().await.unwrap().take::<u32>(kind).unwrap();
    facts.sort();
    facts
}

fn fact(kind: FactKind, name: &str, value: u32) -> Fact {
    Fact::new(kind, name, &value).unwrap()
}

#[tokio::test]
async fn facts_outlive_the_process_and_kinds_are_told_apart() {
    let place = tempfile::tempdir().unwrap();
    let cell = cell();
    {
        let backend = Arc::new(Embedded::open(place.path()).unwrap());
        let store = open(&backend, &cell).await.unwrap();
        let before = (store.revision().await.unwrap(), store.audit_head().seq);
        let event =
            AuditEvent::KeysRotated { at: now(), after_epoch: store.epoch(), reason: "test" };
        let first = vec![fact(FactKind::Filing, "a", 1), fact(FactKind::Clock, "a", 2)];
        store.remember(first, Some(&event)).await.unwrap();
        store.remember(vec![fact(FactKind::Filing, "b", 3)], None).await.unwrap();
        store.remember(vec![fact(FactKind::Filing, "a", 4)], None).await.unwrap();
        // No revision; one entry, for the one that had one.
        assert_eq!(store.revision().await.unwrap(), before.0);
        assert_eq!(store.audit_head().seq, before.1 + 1);
        store.close().await;
    }
    let (_, store) = open_in(place.path(), &cell).await;
    let filings = [("a".to_owned(), 4), ("b".to_owned(), 3)];
    assert_eq!(names(&store, FactKind::Filing).await, filings);
    assert_eq!(names(&store, FactKind::Clock).await, [("a".to_owned(), 2)]);
    assert!(names(&store, FactKind::Lockout).await.is_empty());
    store.remember(vec![Fact::gone(FactKind::Filing, "a")], None).await.unwrap();
    assert_eq!(names(&store, FactKind::Filing).await, [("b".to_owned(), 3)]);
    assert_eq!(names(&store, FactKind::Clock).await, [("a".to_owned(), 2)]);
}

#[tokio::test]
async fn a_fact_that_was_altered_or_moved_is_an_error() {
    let place = tempfile::tempdir().unwrap();
    let backend = Arc::new(Embedded::open(place.path()).unwrap());
    let (_cell, store) = create(&backend).await;
    let facts = vec![fact(FactKind::Filing, "a", 1), fact(FactKind::Filing, "b", 2)];
    store.remember(facts, None).await.unwrap();
    let rows = backend.scan(Table::Facts, None, 10).await.unwrap();
    assert_eq!(rows.len(), 2);
    // Neither kind nor name nor value is there to be read.
    for (key, value) in &rows {
        assert_eq!(key.as_bytes().len(), 32);
        assert!(!value.as_bytes().windows(6).any(|bytes| bytes == b"filing"));
    }
    let (first, second) = (Table::Facts.row(rows[0].0.clone()), rows[1].1.clone());
    let mut flipped = rows[0].1.as_bytes().to_vec();
    flipped[20] ^= 1;
    for wrong in [second, Opaque::stored(&flipped)] {
        tamper(&backend, vec![Write::Put(first.clone(), wrong)]).await;
        let fault = store.facts().await.err().unwrap();
        assert!(matches!(fault, StoreError::Altered { what: "fact", .. }), "{fault}");
    }
    tamper(&backend, vec![Write::Put(first, rows[0].1.clone())]).await;
    assert_eq!(names(&store, FactKind::Filing).await.len(), 2);
}

#[tokio::test]
async fn c4_what_is_remembered_of_somebody_goes_with_the_record_in_one_commit() {
    let place = tempfile::tempdir().unwrap();
    let (_, store) = open_in(place.path(), &cell()).await;
    enrol(&store, 1).await.unwrap();
    let remembered = vec![fact(FactKind::Lockout, "a", 3), fact(FactKind::LastUse, "b", 4)];
    store.remember(remembered, None).await.unwrap();
    let gone = vec![Fact::gone(FactKind::Lockout, "a"), Fact::gone(FactKind::LastUse, "c")];
    // Where nothing is held there is no commit, and nothing goes.
    let cause = RevocationCause::Withdrawn;
    store.revoke_with(&[id(9)], now(), cause, gone.clone()).await.unwrap();
    assert_eq!(names(&store, FactKind::Lockout).await.len(), 1, "control");
    let before = store.revision().await.unwrap();
    let revoked = store.revoke_with(&[id(1)], now(), cause, gone).await.unwrap();
    assert_eq!((revoked.revision, revoked.records), (Revision(before.0 + 1), vec![id(1)]));
    assert!(names(&store, FactKind::Lockout).await.is_empty());
    assert_eq!(names(&store, FactKind::LastUse).await, [("b".to_owned(), 4)]);
}
