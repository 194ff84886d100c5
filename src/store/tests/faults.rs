//! Failing disks and power cuts, against a plain map.

use std::collections::BTreeSet;
use std::sync::Mutex;

use proptest::prelude::*;

use super::journal::decided;
use super::*;
use crate::crypto::DeploymentKey;
use crate::crypto::cell::{CellError, Epoch, RootCell, RootKey};
use crate::store::embedded::disk::{Power, SimulatedDisk};

/// People that the operations are about: few, so that they meet.
const PEOPLE: u8 = 6;

#[derive(Debug, Clone, Copy)]
enum Operation {
    Enrol(u8),
    Revoke(u8),
    Policy(u8),
    Decide,
    Restart,
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        4 => (0..PEOPLE).prop_map(Operation::Enrol),
        2 => (0..PEOPLE).prop_map(Operation::Revoke),
        1 => any::<u8>().prop_map(Operation::Policy),
        3 => Just(Operation::Decide),
        1 => Just(Operation::Restart),
    ]
}

/// What must be so, from what was acknowledged alone.
#[derive(Debug, Clone, Default, PartialEq)]
struct Model {
    held: BTreeSet<u8>,
    ever: BTreeSet<u8>,
    policy: Option<u8>,
    decided: usize,
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
            Operation::Decide => self.decided += 1,
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
        seen.decided = decided(store).await;
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
        Operation::Decide => decide(store).await,
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

/// Histories of one run; `ASSENT_HISTORIES=20000` for a long one.
const HISTORIES: u64 = 400;
/// Power cuts in one history, and operations between two of them at most.
const CUTS: u32 = 3;
const OPERATIONS: u32 = 16;
/// The cut comes within so many writes, syncs and steps of the root cell.
const LATEST_CUT: u32 = 160;

/// A cell on the disk's plug: what it was doing when the power went is done or not.
struct PoweredCell {
    cell: MemoryCell,
    power: Power,
    finishes: bool,
    cuts: Arc<Mutex<Cuts>>,
}

impl PoweredCell {
    fn step(
        &mut self,
        step: impl FnOnce(&mut MemoryCell) -> Result<(), CellError>,
    ) -> Result<(), CellError> {
        let out = || CellError::NoSuchEpoch { epoch: Epoch(0) };
        if self.power.is_cut() {
            return Err(out());
        }
        if self.power.draw() {
            return step(&mut self.cell);
        }
        self.cuts.lock().unwrap().in_the_cell += 1;
        if self.finishes {
            step(&mut self.cell)?;
        }
        Err(out())
    }
}

impl RootCell for PoweredCell {
    fn kind(&self) -> &'static str {
        self.cell.kind()
    }

    fn deployment(&self) -> &DeploymentKey {
        self.cell.deployment()
    }

    fn roots(&self) -> &[(Epoch, RootKey)] {
        self.cell.roots()
    }

    fn prepare(&mut self, epoch: Epoch) -> Result<(), CellError> {
        self.step(|cell| cell.prepare(epoch))
    }

    fn retire_all_but(&mut self, epoch: Epoch) -> Result<(), CellError> {
        self.step(|cell| cell.retire_all_but(epoch))
    }

    fn destroy(&mut self) -> Result<(), CellError> {
        self.step(RootCell::destroy)
    }
}

/// What happened in all histories.
#[derive(Debug, Default)]
struct Cuts {
    while_starting: u32,
    at_work: u32,
    in_the_cell: u32,
    /// Of those: with one ROOT prepared, or one not destroyed yet.
    with_two_roots: u32,
    acknowledged: u32,
    /// What was under way at a cut: found done, found not done.
    done: u32,
    not_done: u32,
    /// There was no cut before the last operation.
    without: u32,
}

fn some_operation(dice: &mut Dice) -> Operation {
    let n = u8::try_from(dice.below(u32::from(PEOPLE))).unwrap();
    match dice.below(12) {
        0..=3 => Operation::Enrol(n),
        4..=6 => Operation::Revoke(n),
        7 => Operation::Policy(n),
        _ => Operation::Decide,
    }
}

/// One life of the process, which ends with the power or with an orderly stop: what was
/// acknowledged, and that with what was under way.
async fn life(
    disk: &SimulatedDisk,
    cell: &MemoryCell,
    mut model: Model,
    dice: &mut Dice,
    cuts: &Arc<Mutex<Cuts>>,
) -> (Model, Model) {
    let power = disk.power();
    power.cut_after(1 + dice.below(LATEST_CUT));
    let (cuts, finishes) = (Arc::clone(cuts), dice.below(2) == 1);
    let powered = PoweredCell {
        cell: cell.reopen(),
        power: power.clone(),
        finishes,
        cuts: Arc::clone(&cuts),
    };
    let opened = match disk.open() {
        Ok(backend) => Store::open(Arc::new(backend), Box::new(powered), &super::model()).await,
        Err(fault) => {
            assert!(power.is_cut(), "{fault}");
            cuts.lock().unwrap().while_starting += 1;
            return (model.clone(), model);
        }
    };
    let store = match opened {
        Ok(store) => store,
        Err(fault) => {
            assert!(power.is_cut(), "{fault}");
            cuts.lock().unwrap().while_starting += 1;
            return (model.clone(), model);
        }
    };
    let mut in_doubt = model.clone();
    for _ in 0..OPERATIONS {
        let operation = some_operation(dice);
        in_doubt = model.clone();
        in_doubt.apply(operation);
        if !perform(&store, &model, operation).await {
            assert!(power.is_cut());
            cuts.lock().unwrap().at_work += 1;
            return (model, in_doubt);
        }
        cuts.lock().unwrap().acknowledged += 1;
        model = in_doubt.clone();
    }
    store.close().await;
    cuts.lock().unwrap().without += 1;
    (model, in_doubt)
}

async fn history(seed: u64, cuts: &Arc<Mutex<Cuts>>) {
    let mut dice = Dice(seed);
    let mut disk = SimulatedDisk::default();
    let (cell, store) = create(&Arc::new(disk.open().unwrap())).await;
    store.close().await;
    let mut model = Model::default();
    for _ in 0..CUTS {
        let (acknowledged, in_doubt) = life(&disk, &cell, model, &mut dice, cuts).await;
        disk = disk.after_power_cut(dice.next());
        let two_roots = cell.reopen().roots().len() > 1;
        let store = open(&Arc::new(disk.open().unwrap()), &cell).await.unwrap();
        let found = Model::seen_in(&store).await;
        store.close().await;
        assert!(
            found == acknowledged || found == in_doubt,
            "ASSENT_SEED={seed}: {found:?} is neither {acknowledged:?} nor {in_doubt:?}"
        );
        assert_eq!(cell.reopen().roots().len(), 1, "ASSENT_SEED={seed}");
        let mut cuts = cuts.lock().unwrap();
        cuts.with_two_roots += u32::from(two_roots);
        if acknowledged != in_doubt {
            cuts.done += u32::from(found == in_doubt);
            cuts.not_done += u32::from(found == acknowledged);
        }
        model = found;
    }
}

/// The power goes at any write, sync or step of the root cell, at the start too; of what was not
/// synced any sectors stay. `ASSENT_SEED=n` replays the history whose seed a failure names.
#[test]
fn what_was_acknowledged_survives_a_power_cut_at_any_write() {
    let cuts = Arc::new(Mutex::new(Cuts::default()));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let replayed = std::env::var_os("ASSENT_SEED").is_some();
    let histories = if replayed { 1 } else { asked("ASSENT_HISTORIES", HISTORIES) };
    let mut dice = Dice::of_this_run();
    for n in 0..histories {
        let seed = if replayed { dice.0 } else { dice.next() };
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            runtime.block_on(history(seed, &cuts));
        }));
        assert!(outcome.is_ok(), "history {n} failed: ASSENT_SEED={seed}");
    }
    let cuts = cuts.lock().unwrap();
    eprintln!("{histories} histories, {CUTS} lives each: {cuts:#?}");
    assert!(replayed || (cuts.in_the_cell > 0 && cuts.with_two_roots > 0 && cuts.done > 0));
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
    let refused = backend.commit(Batch { require: vec![], build, patient: false }).await;
    assert!(matches!(refused, Err(BackendError::Stopped)));
    let refused = enrol(&store, 1).await;
    assert!(matches!(refused, Err(StoreError::Backend(BackendError::Stopped))));
    store.close().await;
    assert!(!store.is_healthy());
    let store = open(&Arc::new(disk.open().unwrap()), &cell).await.unwrap();
    assert!(loaded_ids(&store).await.is_empty());
}
