//! Full disks: enrolment is refused, revocation goes on from the reserve, and what was
//! acknowledged holds.

use super::*;
use crate::store::embedded::disk::SimulatedDisk;

/// People in the store when the disk fills; `ASSENT_FULL_DISK_RECORDS` for more.
const PEOPLE: u64 = 1_000;
/// The reserve that the documentation names.
const RESERVE_BYTES: u64 = 32 << 20;
/// What is free when the last enrolments come.
const FREE_BYTES: usize = 128 << 10;

fn people() -> u16 {
    u16::try_from(asked("ASSENT_FULL_DISK_RECORDS", PEOPLE)).unwrap()
}

async fn revoke_far(store: &Store, n: u16) -> Result<Revoked, StoreError> {
    store.revoke(&[far_id(n)], now(), RevocationCause::Withdrawn).await
}

/// Enrols until the disk is full: how many people are in the store.
async fn fill(disk: &SimulatedDisk, store: &Store) -> u16 {
    for n in 0..people() {
        enrol_far(store, n).await.unwrap();
    }
    disk.leave_free(FREE_BYTES);
    for n in people().. {
        match enrol_far(store, n).await {
            Ok(_) => {}
            Err(StoreError::LowOnSpace) => return n,
            Err(fault) => panic!("{fault}"),
        }
    }
    unreachable!("the disk fills")
}

/// Fills the disk and revokes everybody, one by one, while `neighbour` does what it does to the
/// disk after each; restarts, frees the disk, and looks whether all goes on.
async fn revoke_all_on_a_full_disk(neighbour: impl Fn(&SimulatedDisk)) -> usize {
    let disk = SimulatedDisk::default();
    let backend = Arc::new(disk.open_reserving(RESERVE_BYTES).unwrap());
    let (cell, store) = create(&backend).await;
    let enrolled = fill(&disk, &store).await;
    assert!(enrolled > people() && store.is_healthy());
    for refused in [decide(&store).await, store.put_policy(b"policy").await.map(drop)] {
        assert!(matches!(refused, Err(StoreError::LowOnSpace)), "{refused:?}");
    }
    assert_eq!(load(&store).await.1.loaded, usize::from(enrolled));
    store.regain_space().await;
    assert!(store.check_space().is_err(), "there is no space to regain");

    let (last, others) = (enrolled - 1, enrolled / 2);
    for n in 0..others {
        assert_eq!(revoke_far(&store, n).await.unwrap().records, [far_id(n)]);
        neighbour(&disk);
    }
    // A crash, and a start on the full disk.
    drop((store, backend));
    let disk = disk.after_power_cut(7);
    let backend = Arc::new(disk.open_reserving(RESERVE_BYTES).unwrap());
    let store = open(&backend, &cell).await.unwrap();
    assert_eq!(loaded_ids(&store).await, (others..enrolled).map(far_id).collect::<Vec<_>>());
    assert!(matches!(enrol_far(&store, enrolled).await, Err(StoreError::LowOnSpace)));
    for n in others..last {
        assert_eq!(revoke_far(&store, n).await.unwrap().records, [far_id(n)]);
        neighbour(&disk);
    }
    store.replace_root("test").await.unwrap();
    let used = usize::try_from(RESERVE_BYTES).unwrap() - disk.reserved();

    disk.free_all();
    store.regain_space().await;
    assert_eq!(disk.reserved() as u64, RESERVE_BYTES);
    enrol_far(&store, enrolled).await.unwrap();
    decide(&store).await.unwrap();
    assert_eq!(loaded_ids(&store).await, [far_id(last), far_id(enrolled)]);
    eprintln!("{last} single revocations on a full disk used {} KiB of the reserve", used >> 10);
    used
}

#[tokio::test]
async fn on_a_full_disk_revocation_goes_on_and_enrolment_comes_back_by_itself() {
    let used = revoke_all_on_a_full_disk(|_| {}).await;
    assert!(used as u64 <= RESERVE_BYTES / 2, "{used} bytes");
}

#[tokio::test]
async fn a_neighbour_that_takes_what_is_given_back_does_not_stop_revocation() {
    let used = revoke_all_on_a_full_disk(|disk| disk.leave_free(0)).await;
    assert!(used as u64 <= RESERVE_BYTES / 2, "{used} bytes");
}

/// The control: it is the reserve that does it.
#[tokio::test]
async fn without_a_reserve_a_full_disk_stops_the_store() {
    let disk = SimulatedDisk::default();
    let (cell, store) = create(&Arc::new(disk.open().unwrap())).await;
    for n in 0..300 {
        enrol_far(&store, n).await.unwrap();
    }
    disk.leave_free(0);
    let mut revoked = 0;
    while revoke_far(&store, revoked).await.is_ok() {
        revoked += 1;
        disk.leave_free(0);
    }
    assert!(revoked < 300 && !store.is_healthy());
    eprintln!("without a reserve, revocation ended after {revoked}");
    disk.free_all();
    let store = open(&Arc::new(disk.after_power_cut(3).open().unwrap()), &cell).await.unwrap();
    let held = loaded_ids(&store).await.len();
    assert!(held == 300 - usize::from(revoked) || held + 1 == 300 - usize::from(revoked));
}

/// Space that ran out while the service was down shows at the start.
#[tokio::test]
async fn a_start_without_room_for_the_reserve_takes_revocations_only() {
    let disk = SimulatedDisk::default();
    let (cell, store) = create(&Arc::new(disk.open().unwrap())).await;
    enrol_far(&store, 1).await.unwrap();
    enrol_far(&store, 2).await.unwrap();
    store.close().await;
    disk.leave_free(usize::try_from(RESERVE_BYTES).unwrap() - 1);
    let backend = Arc::new(disk.open_reserving(RESERVE_BYTES).unwrap());
    let store = open(&backend, &cell).await.unwrap();
    assert!(matches!(enrol_far(&store, 3).await, Err(StoreError::LowOnSpace)));
    revoke_far(&store, 1).await.unwrap();
    disk.free_all();
    store.regain_space().await;
    enrol_far(&store, 3).await.unwrap();
    assert_eq!(loaded_ids(&store).await, [far_id(2), far_id(3)]);
}
