//! What a revocation leaves in older copies of the store: nothing that opens.

use proptest::prelude::*;

use super::super::tree::{KeyTree, Place, epoch_of, page_row, tree_row};
use super::*;
use crate::crypto::DeploymentKey;
use crate::crypto::cell::{CellError, Epoch, RootCell, RootKey};
use crate::store::embedded::disk::SimulatedDisk;

/// More people than one page of keys holds.
const MANY: u16 = 300;

async fn enrol_many(store: &Store) {
    for n in 0..MANY {
        enrol_far(store, n).await.unwrap();
    }
}

/// Every row of a table.
async fn table(backend: &Embedded, table: Table) -> Vec<(RowKey, Opaque)> {
    backend.scan(table, None, 10_000).await.unwrap()
}

async fn node(backend: &Embedded) -> Opaque {
    backend.read(vec![tree_row()]).await.unwrap().pop().unwrap().unwrap()
}

#[tokio::test]
async fn d3_an_older_copy_and_todays_root_open_no_revoked_record() {
    let disk = SimulatedDisk::default();
    let backend = Arc::new(disk.open().unwrap());
    let (cell, store) = create(&backend).await;
    enrol_many(&store).await;
    let (copy, copied_cell) = (disk.copy(), cell.copy());
    let victim = far_id(7);
    store.revoke(&[victim], now(), RevocationCause::Withdrawn).await.unwrap();

    // The front door: the copy is refused, and says why.
    let old = Arc::new(copy.open().unwrap());
    let refusal = open(&old, &cell).await.err().unwrap();
    assert!(matches!(refusal, StoreError::RolledBack { .. }), "{refusal}");

    // The back door: all keys of today on all pages of then.
    let today = cell.reopen();
    let (epoch, root) = today.roots().last().unwrap();
    let old_node = node(&old).await;
    assert!(KeyTree::open(root, epoch_of(&old_node).unwrap(), &old_node).is_err());
    assert!(KeyTree::open(root, *epoch, &old_node).is_err());
    let tree = KeyTree::open(root, *epoch, &node(&backend).await).unwrap();
    let mut opened = Vec::new();
    for (key, row) in table(&old, Table::KeyPages).await {
        for number in tree.pages() {
            if let Ok(page) = tree.open_page(number, &row) {
                assert_eq!(page_row(number).key, key);
                opened.extend(page.iter().map(|(_, id, _)| id));
            }
        }
    }
    assert!(!opened.is_empty(), "control: pages without a revocation open");
    assert!(!opened.contains(&victim));

    // The limit: who copied the cell as well has everything of that day.
    let then = open(&old, &copied_cell).await.unwrap();
    assert!(loaded_ids(&then).await.contains(&victim), "control");
}

#[tokio::test]
async fn the_neighbours_of_a_revoked_record_stay() {
    let backend = Arc::new(SimulatedDisk::default().open().unwrap());
    let (cell, store) = create(&backend).await;
    enrol_many(&store).await;
    let gone: Vec<_> = (0..MANY).step_by(3).map(far_id).collect();
    store.revoke(&gone, now(), RevocationCause::Expired).await.unwrap();
    let stay: Vec<_> = (0..MANY).map(far_id).filter(|id| !gone.contains(id)).collect();
    assert_eq!(loaded_ids(&store).await, stay);
    let store = open(&backend, &cell).await.unwrap();
    assert_eq!(loaded_ids(&store).await, stay);
    // The room that became free is used again, and the tree does not grow for it.
    enrol(&store, 200).await.unwrap();
    assert_eq!(table(&backend, Table::KeyPages).await.len(), 2);
    store.revoke(&stay, now(), RevocationCause::Expired).await.unwrap();
    revoke(&store, 200).await.unwrap();
    assert!(table(&backend, Table::KeyPages).await.is_empty(), "empty pages go");
}

#[tokio::test]
async fn a_key_is_destroyed_although_the_row_that_says_where_it_lies_lies() {
    let backend = Arc::new(SimulatedDisk::default().open().unwrap());
    let (_cell, store) = create(&backend).await;
    for n in 1..=3 {
        enrol(&store, n).await.unwrap();
    }
    let wrong = Place { page: 0, slot: 1 };
    let rows = vec![
        Write::Put(Table::Keys.row(id(1).into()), wrong.opaque()),
        Write::Remove(Table::Keys.row(id(3).into())),
        Write::Remove(Table::Headers.row(id(3).into())),
        Write::Remove(Table::Templates.row(id(3).into())),
        Write::Remove(Table::Answers.row(id(3).into())),
    ];
    tamper(&backend, rows).await;
    let report = load(&store).await.1;
    let bad: Vec<_> = report.quarantined.iter().map(|(id, _)| *id).collect();
    assert_eq!(bad, [id(1), id(3)]);
    let keys = async || {
        let mut found = Vec::new();
        store
            .each_page(|_, page| found.extend(page.unwrap().iter().map(|(_, id, _)| id)))
            .await
            .unwrap();
        found
    };
    assert_eq!(keys().await, [id(1), id(2), id(3)], "control");
    assert_eq!(revoke(&store, 1).await.unwrap().records, [id(1)]);
    assert_eq!(revoke(&store, 3).await.unwrap().records, [id(3)]);
    assert_eq!(keys().await, [id(2)]);
    assert_eq!(loaded_ids(&store).await, [id(2)]);
}

#[tokio::test]
async fn a_damaged_page_costs_its_records_and_its_key_goes_with_the_first_revocation() {
    let disk = SimulatedDisk::default();
    let backend = Arc::new(disk.open().unwrap());
    let (cell, store) = create(&backend).await;
    enrol_many(&store).await;
    let pages = table(&backend, Table::KeyPages).await;
    let broken = Opaque::stored(&pages[0].1.as_bytes()[1..]);
    tamper(&backend, vec![Write::Put(page_row(0), broken)]).await;
    let tampered = tamper_log(&backend).await;
    assert!(tampered, "the log's head is mended, so that the store opens");
    let store = open(&backend, &cell).await.unwrap();
    let report = load(&store).await.1;
    assert_eq!((report.loaded, report.quarantined.len()), (44, 256));
    assert!(report.quarantined.iter().all(|(_, fault)| *fault == RecordFault::KeyPage));
    enrol(&store, 1).await.unwrap();
    let victim = report.quarantined[9].0;
    store.revoke(&[victim], now(), RevocationCause::Withdrawn).await.unwrap();
    assert!(store.vault.pages().iter().all(|page| *page != 0));
    assert_eq!(load(&store).await.1.loaded, 45);
}

/// Puts a good entry at the head of the log, behind what [`tamper`] wrote.
async fn tamper_log(backend: &Arc<Embedded>) -> bool {
    let keys = super::super::sealing::Keys::of(&DeploymentKey::for_tests(7));
    let entry = serde_json::to_vec(&LogEntry::Created { at: now() }).unwrap();
    let build = Box::new(move |revision| {
        Ok(Changes { writes: vec![], entry: keys.seal_entry(revision, &entry)?.into() })
    });
    backend.commit(Batch { require: vec![], build, patient: false }).await.is_ok()
}

#[tokio::test]
async fn a_store_older_than_its_root_and_a_root_older_than_its_store_are_refused() {
    let disk = SimulatedDisk::default();
    let (cell, store) = create(&Arc::new(disk.open().unwrap())).await;
    enrol(&store, 1).await.unwrap();
    store.close().await;
    let (old_disk, old_cell) = (disk.copy(), cell.copy());
    // No revocation between: a start is enough.
    let backend = Arc::new(disk.open().unwrap());
    open(&backend, &cell).await.unwrap().close().await;
    let refusal = open(&Arc::new(old_disk.open().unwrap()), &cell).await.err().unwrap();
    assert!(matches!(refusal, StoreError::RolledBack { .. }), "{refusal}");
    assert!(refusal.to_string().contains("assent restore"), "{refusal}");
    let refusal = open(&Arc::new(disk.open().unwrap()), &old_cell).await.err().unwrap();
    assert!(matches!(refusal, StoreError::RootBehind { .. }), "{refusal}");
    open(&Arc::new(disk.open().unwrap()), &cell).await.unwrap();
}

/// A cell of which one operation fails, before or after it took effect.
struct FailingCell {
    cell: MemoryCell,
    operations_left: u32,
    took_effect: bool,
}

impl FailingCell {
    fn step(
        &mut self,
        step: impl FnOnce(&mut MemoryCell) -> Result<(), CellError>,
    ) -> Result<(), CellError> {
        if self.operations_left > 0 {
            self.operations_left -= 1;
            return step(&mut self.cell);
        }
        if self.took_effect {
            step(&mut self.cell)?;
        }
        Err(failed_cell())
    }
}

fn failed_cell() -> CellError {
    CellError::NoSuchEpoch { epoch: Epoch(0) }
}

impl RootCell for FailingCell {
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

/// Revokes one after the other until the cell fails, and looks at what the next start finds.
async fn survives(operations_left: u32, took_effect: bool, seed: u64) {
    let disk = SimulatedDisk::default();
    let (cell, store) = create(&Arc::new(disk.open().unwrap())).await;
    for n in 1..=8 {
        enrol(&store, n).await.unwrap();
    }
    store.close().await;
    let failing = FailingCell { cell: cell.reopen(), operations_left, took_effect };
    let backend = Arc::new(disk.open().unwrap());
    let mut acknowledged = 0;
    let opened = Store::open(Arc::clone(&backend) as _, Box::new(failing), &model()).await;
    if let Ok(store) = opened {
        for n in 1..=8 {
            match revoke(&store, n).await {
                Ok(revoked) => assert_eq!(revoked.records, [id(n)]),
                Err(StoreError::Backend(BackendError::Stopped)) => break,
                Err(fault) => panic!("{fault}"),
            }
            acknowledged = n;
        }
        assert!(acknowledged == 8 || !store.is_healthy());
    }
    let after = Arc::new(disk.after_power_cut(seed).open().unwrap());
    let store = open(&after, &cell).await.unwrap();
    assert_eq!(cell.reopen().roots().len(), 1, "one ROOT is left");
    let held = loaded_ids(&store).await;
    let lost = 8 - held.len();
    let acknowledged = usize::from(acknowledged);
    assert!(lost == acknowledged || lost == acknowledged + 1, "{lost} gone, {acknowledged} acked");
    assert_eq!(held, (1..=8).skip(lost).map(id).collect::<Vec<_>>());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn a_failing_cell_and_a_power_cut_lose_no_acknowledged_revocation(
        operations_left in 0_u32..20,
        took_effect: bool,
        seed: u64,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(survives(operations_left, took_effect, seed));
    }
}

/// Revocations of `people` at once; how often ROOT was replaced for them.
async fn replacements(window: std::time::Duration, people: std::ops::Range<u8>) -> u64 {
    let backend = Arc::new(SimulatedDisk::default().open().unwrap());
    let store = Arc::new(create(&backend).await.1);
    for n in people.clone() {
        enrol(&store, n).await.unwrap();
    }
    backend.gather_revocations(window);
    let before = store.epoch().0;
    let mut tries = tokio::task::JoinSet::new();
    for n in people {
        let store = Arc::clone(&store);
        tries.spawn(async move { revoke(&store, n).await.unwrap().records });
    }
    assert!(tries.join_all().await.iter().all(|records| records.len() == 1));
    store.epoch().0 - before
}

#[tokio::test]
async fn revocations_within_the_window_share_one_replacement_of_root() {
    let alone = replacements(std::time::Duration::ZERO, 0..1).await;
    assert_eq!(alone, 1, "control");
    // Far longer than any machine needs to queue sixteen calls: the window itself is not measured.
    let shared = replacements(std::time::Duration::from_secs(2), 0..16).await;
    assert!(shared < 16, "{shared} replacements for 16 revocations");
}
