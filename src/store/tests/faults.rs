//! Failing disks and power cuts, against a plain map.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::store::embedded::disk::SimulatedDisk;

/// People that the operations are about: few, so that they meet.
const PEOPLE: u8 = 6;

#[derive(Debug, Clone, Copy)]
enum Operation {
    Enrol(u8),
    Revoke(u8),
    Policy(u8),
    Restart,
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        4 => (0..PEOPLE).prop_map(Operation::Enrol),
        2 => (0..PEOPLE).prop_map(Operation::Revoke),
        1 => any::<u8>().prop_map(Operation::Policy),
        1 => Just(Operation::Restart),
    ]
}

/// What must be so, from what was acknowledged alone.
#[derive(Debug, Clone, Default, PartialEq)]
struct Model {
    held: BTreeSet<u8>,
    ever: BTreeSet<u8>,
    policy: Option<u8>,
}

impl Model {
    fn apply(&mut self, operation: Operation) {
        match operation {
            Operation::Enrol(n) => {
                if self.ever.insert(n) {
                    self.held.insert(n);
                }
            }
            Operation::Revoke(n) => {
                self.held.remove(&n);
            }
            Operation::Policy(n) => self.policy = Some(n),
            Operation::Restart => {}
        }
    }

    /// What the store says of itself, in the model's words.
    async fn seen_in(store: &Store) -> Self {
        let mut seen = Self::default();
        for n in 0..PEOPLE {
            if store.idempotent(&controller(), &key(n)).await.unwrap().is_some() {
                seen.ever.insert(n);
            }
        }
        let (opened, report) = load(store).await;
        assert!(report.quarantined.is_empty(), "{report:?}");
        seen.held = opened.keys().map(|id| id.as_bytes()[0]).collect();
        seen.policy = store.policy().await.unwrap().map(|(document, _)| document[0]);
        seen
    }
}

/// `Ok(false)` when the store stopped, so that it is open whether the operation took effect.
async fn perform(store: &Store, model: &Model, operation: Operation) -> bool {
    let outcome = match operation {
        Operation::Enrol(n) if model.ever.contains(&n) => match enrol(store, n).await {
            Err(StoreError::IdempotencyTaken) => Ok(()),
            Ok(_) => panic!("{n} was enrolled twice"),
            Err(fault) => Err(fault),
        },
        Operation::Enrol(n) => enrol(store, n).await.map(drop),
        Operation::Revoke(n) => {
            let revoked = revoke(store, n).await;
            if let Ok(revoked) = &revoked {
                assert_eq!(!revoked.records.is_empty(), model.held.contains(&n));
            }
            revoked.map(drop)
        }
        Operation::Policy(n) => store.put_policy(&[n]).await.map(drop),
        Operation::Restart => Ok(()),
    };
    match outcome {
        Ok(()) => true,
        Err(StoreError::Backend(BackendError::Stopped)) => {
            assert!(!store.is_healthy());
            false
        }
        Err(fault) => panic!("{operation:?}: {fault}"),
    }
}

/// Runs the operations on a disk that fails at its `fails_at`th sync, cuts the power, and holds
/// what is found then against the model.
async fn survives(operations: Vec<Operation>, fails_at: u32, seed: u64) {
    let mut disk = SimulatedDisk::default();
    let (cell, mut store) = create(&Arc::new(disk.open().unwrap())).await;
    disk.fail_after_syncs(fails_at);
    let mut model = Model::default();
    let mut in_doubt = model.clone();
    for operation in operations {
        in_doubt = model.clone();
        in_doubt.apply(operation);
        if matches!(operation, Operation::Restart) {
            disk = disk.after_power_cut(seed);
            store = open(&Arc::new(disk.open().unwrap()), &cell).await.unwrap();
            disk.fail_after_syncs(fails_at);
        }
        if !perform(&store, &model, operation).await {
            break;
        }
        model = in_doubt.clone();
    }
    let disk = disk.after_power_cut(seed);
    let store = open(&Arc::new(disk.open().unwrap()), &cell).await.unwrap();
    let found = Model::seen_in(&store).await;
    assert!(found == model || found == in_doubt, "{found:?} is neither {model:?} nor {in_doubt:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn what_was_acknowledged_survives_failing_disks_and_power_cuts(
        operations in prop::collection::vec(operation(), 1..24),
        fails_at in 1_u32..30,
        seed: u64,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(survives(operations, fails_at, seed));
    }
}

#[tokio::test]
async fn after_a_failed_sync_nothing_is_written_any_more() {
    let disk = SimulatedDisk::default();
    let (cell, store) = create(&Arc::new(disk.open().unwrap())).await;
    enrol(&store, 1).await.unwrap();
    assert!(store.is_healthy(), "control");
    disk.fail_after_syncs(1);
    for n in 2..5 {
        let refused = enrol(&store, n).await;
        assert!(matches!(refused, Err(StoreError::Backend(BackendError::Stopped))));
        assert!(!store.is_healthy());
    }
    let again = disk.after_power_cut(0);
    let store = open(&Arc::new(again.open().unwrap()), &cell).await.unwrap();
    let held = loaded_ids(&store).await;
    assert!(held.starts_with(&[id(1)]) && held.len() <= 2, "{held:?}");
}

#[tokio::test]
async fn a_panic_of_the_writer_stops_the_store_and_hangs_nobody() {
    let disk = SimulatedDisk::default();
    let backend = Arc::new(disk.open().unwrap());
    let (cell, store) = create(&backend).await;
    let build = Box::new(|_| panic!("on purpose"));
    let refused = backend.commit(Batch { require: vec![], build }).await;
    assert!(matches!(refused, Err(BackendError::Stopped)));
    let refused = enrol(&store, 1).await;
    assert!(matches!(refused, Err(StoreError::Backend(BackendError::Stopped))));
    store.close().await;
    assert!(!store.is_healthy());
    let store = open(&Arc::new(disk.open().unwrap()), &cell).await.unwrap();
    assert!(loaded_ids(&store).await.is_empty());
}
