//! The audit trail: whole across restarts and groups, and noticed when it is not.

use super::super::trail::head_row;
use super::*;
use crate::audit::Leaf;
use crate::store::embedded::disk::SimulatedDisk;

/// All entries of a trail that is whole.
async fn trail(store: &Store) -> Vec<String> {
    trail_of(store).await.expect("the trail is whole")
}

fn events(entries: &[String]) -> Vec<String> {
    let event =
        |entry: &String| serde_json::from_str::<serde_json::Value>(entry).unwrap()["event"].clone();
    entries.iter().map(|entry| event(entry).as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn every_change_and_decision_is_in_the_trail_in_order() {
    let disk = SimulatedDisk::default();
    let (cell, store) = create(&Arc::new(disk.open().unwrap())).await;
    store.put_policy(b"policy").await.unwrap();
    enrol(&store, 1).await.unwrap();
    decide(&store).await.unwrap();
    revoke(&store, 1).await.unwrap();
    assert!(enrol(&store, 1).await.is_err(), "what is refused is no change");
    store.close().await;
    let backend = Arc::new(disk.open().unwrap());
    let store = open(&backend, &cell).await.unwrap();
    let entries = trail(&store).await;
    assert_eq!(
        events(&entries),
        [
            "store_created",
            "policy_applied",
            "enrolled",
            "decision",
            "erased",
            "checkpoint",
            "keys_rotated"
        ]
    );
    let all = entries.join("\n");
    for said in ["consent-1", "resident-of-flat-1", "withdrawn", "loopback", "north"] {
        assert!(all.contains(said), "{said}");
    }
    let (before, rest) = store.audit(3).await.unwrap().unwrap();
    assert_eq!((before.seq, rest[0].starts_with(b"{\"event\":\"decision\"")), (3, true));
    assert_eq!(store.audit(7).await.unwrap(), None);
    assert_eq!(store.audit(u64::MAX).await.unwrap(), None);
}

#[tokio::test]
async fn many_decisions_share_syncs_and_are_signed_on_the_way() {
    let disk = SimulatedDisk::default();
    let (_cell, store) = create(&Arc::new(disk.open().unwrap())).await;
    let store = Arc::new(store);
    let before = disk.syncs();
    let mut tries = tokio::task::JoinSet::new();
    for _ in 0..2_500 {
        let store = Arc::clone(&store);
        tries.spawn(async move { decide(&store).await.unwrap() });
    }
    tries.join_all().await;
    let syncs = disk.syncs() - before;
    assert!(syncs < 1_000, "{syncs} syncs for 2,500 decisions");
    let entries = trail(&store).await;
    let signed = entries.iter().filter(|entry| entry.contains("\"checkpoint\"")).count();
    assert!(entries.len() == 2_501 + signed && (1..=3).contains(&signed), "{signed}");
}

#[tokio::test]
async fn a_trail_that_was_cut_altered_or_put_back_keeps_the_store_shut() {
    let disk = SimulatedDisk::default();
    let backend = Arc::new(disk.open().unwrap());
    let (cell, store) = create(&backend).await;
    enrol(&store, 1).await.unwrap();
    let old_head = backend.read(vec![head_row()]).await.unwrap().pop().unwrap().unwrap();
    enrol(&store, 2).await.unwrap();
    let blocks = backend.scan(Table::Audit, None, 10).await.unwrap();
    let (last, value) = blocks.last().unwrap().clone();
    let mut flipped = value.as_bytes().to_vec();
    *flipped.last_mut().unwrap() ^= 1;
    let attacks = [
        vec![Write::Remove(Table::Audit.row(last.clone()))],
        vec![Write::Put(Table::Audit.row(last.clone()), Opaque::stored(&flipped))],
        vec![Write::Put(Table::Audit.row(last.clone()), blocks[0].1.clone())],
        vec![Write::Put(head_row(), old_head)],
        vec![Write::Remove(head_row())],
        // The beginning, as if it had been pruned.
        vec![Write::Remove(Table::Audit.row(blocks[0].0.clone()))],
    ];
    for attack in attacks {
        let disk = disk.copy();
        let backend = Arc::new(disk.open().unwrap());
        tamper(&backend, attack).await;
        let opened = open(&backend, &cell.copy()).await;
        assert!(
            matches!(
                opened,
                Err(StoreError::Altered { what: "audit trail", .. }
                    | StoreError::Malformed { what: "audit trail" })
            ),
            "{:?}",
            opened.err()
        );
    }
    let backend = Arc::new(disk.copy().open().unwrap());
    open(&backend, &cell.copy()).await.unwrap();
}

#[tokio::test]
async fn d6_entries_past_their_retention_go_and_the_rest_stays_a_chain() {
    let disk = SimulatedDisk::default();
    let (cell, store) = create(&Arc::new(disk.open().unwrap())).await;
    let whole = trail(&store).await;
    assert_eq!(store.prune(now()).await.unwrap(), None, "the newest block stays, however old");
    for day in 0..40 {
        decide_at(&store, now().plus_days(day)).await.unwrap();
    }
    // The entry that made the store is of today: nothing before it goes, nothing behind it.
    assert_eq!(store.prune(now().plus_days(30)).await.unwrap(), None);
    let today = Timestamp::now().plus_days(1);
    let through = store.prune(today).await.unwrap().unwrap();
    assert!(through.seq > whole.len() as u64);
    let start = store.audit_at(0).await.unwrap();
    assert_eq!(start, through, "an export begins behind what is gone");
    let (before, entries) = store.audit(0).await.unwrap().unwrap();
    assert_eq!(before, through);
    let mut head = before;
    for entry in &entries {
        head = head.then(&Leaf::of(entry));
    }
    assert_eq!(store.audit_at(head.seq).await.unwrap(), head);
    assert_eq!(store.prune(now()).await.unwrap(), None, "the first block left is young");

    // It says so in the chain, opens again, and goes on.
    let said = events_of(&store, through.seq).await;
    assert!(said.contains(&"pruned".to_owned()), "{said:?}");
    store.close().await;
    let store = open(&Arc::new(disk.open().unwrap()), &cell).await.unwrap();
    enrol(&store, 1).await.unwrap();
    assert!(events_of(&store, through.seq).await.ends_with(&["enrolled".to_owned()]));
}

/// Events behind an entry.
async fn events_of(store: &Store, mut after: u64) -> Vec<String> {
    let mut found = Vec::new();
    while let Some((_, block)) = store.audit(after).await.unwrap() {
        after += block.len() as u64;
        found.extend(block.into_iter().map(|entry| String::from_utf8(entry).unwrap()));
    }
    events(&found)
}
