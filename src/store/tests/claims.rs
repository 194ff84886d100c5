//! Idempotency keys and consent ids.

use super::*;

fn answered(n: u8, revision: Revision) -> PriorAnswer {
    PriorAnswer::Answered { request_digest: [n; 32], answer: vec![n; 5], revision }
}

#[tokio::test]
async fn the_same_key_finds_the_same_answer_until_the_record_is_revoked() {
    let cell = cell();
    let directory = tempfile::tempdir().unwrap();
    let (_, store) = open_in(directory.path(), &cell).await;
    assert_eq!(store.idempotent(&controller(), &key(1)).await.unwrap(), None);
    let revision = enrol(&store, 1).await.unwrap();
    enrol(&store, 2).await.unwrap();
    let prior = store.idempotent(&controller(), &key(1)).await.unwrap();
    assert_eq!(prior, Some(answered(1, revision)));
    let other = ControllerId::parse("another").unwrap();
    assert_eq!(store.idempotent(&other, &key(1)).await.unwrap(), None);
    revoke(&store, 1).await.unwrap();
    let erased = store.idempotent(&controller(), &key(1)).await.unwrap();
    assert_eq!(erased, Some(PriorAnswer::Erased));
    assert!(store.idempotent(&controller(), &key(2)).await.unwrap().is_some());
}

#[tokio::test]
async fn of_concurrent_enrolments_with_one_key_one_wins() {
    let cell = cell();
    let directory = tempfile::tempdir().unwrap();
    let (_, store) = open_in(directory.path(), &cell).await;
    let store = Arc::new(store);
    let mut tries = tokio::task::JoinSet::new();
    for n in 1..=16 {
        let store = Arc::clone(&store);
        let write = IdempotentWrite { key: key(0), ..repeat(n) };
        tries.spawn(async move { store.enrol(&record(n), &template(n), write).await });
    }
    let outcomes = tries.join_all().await;
    let refused = |outcome: &&Result<_, _>| matches!(outcome, Err(StoreError::IdempotencyTaken));
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
    assert_eq!(outcomes.iter().filter(refused).count(), 15);
    assert_eq!(loaded_ids(&store).await.len(), 1);
}

#[tokio::test]
async fn a_consent_id_is_used_once_in_the_life_of_a_store() {
    let cell = cell();
    let directory = tempfile::tempdir().unwrap();
    let (_, store) = open_in(directory.path(), &cell).await;
    enrol(&store, 1).await.unwrap();
    let again = StoredRecord { consent: consent(1), ..record(2) };
    let refused = store.enrol(&again, &template(2), repeat(2)).await;
    assert!(matches!(refused, Err(StoreError::ConsentTaken)));
    revoke(&store, 1).await.unwrap();
    let refused = store.enrol(&again, &template(2), repeat(2)).await;
    assert!(matches!(refused, Err(StoreError::ConsentTaken)), "a withdrawn consent came back");
    // Another controller's consent ids are its own.
    let mut elsewhere = again;
    elsewhere.consent.controller = ControllerId::parse("another").unwrap();
    store.enrol(&elsewhere, &template(2), repeat(2)).await.unwrap();
}

#[tokio::test]
async fn a_refused_enrolment_leaves_nothing() {
    let cell = cell();
    let directory = tempfile::tempdir().unwrap();
    let (_, store) = open_in(directory.path(), &cell).await;
    enrol(&store, 1).await.unwrap();
    let before = store.revision().await.unwrap();
    let twice = IdempotentWrite { key: key(1), ..repeat(2) };
    store.enrol(&record(2), &template(2), twice).await.unwrap_err();
    let same_id = StoredRecord { id: id(1), ..record(2) };
    let refused = store.enrol(&same_id, &template(2), repeat(2)).await;
    assert!(matches!(refused, Err(StoreError::RecordTaken)));
    assert_eq!(store.revision().await.unwrap(), before);
    assert_eq!(loaded_ids(&store).await, [id(1)]);
    enrol(&store, 2).await.unwrap();
}
