//! One flipped bit anywhere in the store's files: noticed, or without effect.
//!
//! A trial opens a copy of a store with one bit flipped, loads it, and changes it: somebody comes,
//! somebody goes. What is wrong is a template or header that differs from what was enrolled, a
//! record that is missing though nothing says so, one that was revoked and is back, and a panic.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};

use super::journal::decided_in;
use super::*;
use crate::store::embedded::disk::SimulatedDisk;
use crate::store::embedded::journal::JOURNAL_BYTES;

/// Random flips of one run over each store; `ASSENT_FLIPS=1000000` for a long one.
const FLIPS: u64 = 1_500;
/// What names the share of every bit of the small store that a run tries: `i/n` for the `i`th of
/// `n` equal shares, counted from 0.
const EVERY: &str = "ASSENT_FLIPS_EVERY";
const PAGE_BYTES: usize = 4_096;
/// The store is changed as well in one trial of so many.
const CHANGED_ONCE_IN: usize = 4;
/// What redb keeps at the file's beginning and checks least, bytes: flipped bit by bit.
const HEAD_BYTES: usize = 320;
const REVOKED: u8 = 2;
/// Frames in the journal of a store that was not closed, ...
const DECISIONS: usize = 3;
/// ... what of each is certainly written, bytes, ...
const FRAME_BYTES: usize = 300;
/// ... and the flips in one of them, as a share of those in the database.
const FRAMES_SHARE: u64 = 15;
const NEWCOMER: u8 = 200;

/// A store before the flip.
struct Original {
    image: Vec<u8>,
    cell: MemoryCell,
    records: BTreeMap<RecordId, OpenedRecord>,
    /// The last one who came.
    last: RecordId,
    /// Whether it was closed in order.
    closed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    /// The store does not open.
    Refused,
    /// It opens, and the audit trail does not, when it is read.
    TrailRefused,
    /// It opens, and some records are set aside.
    Quarantined,
    /// It stopped when it was written to.
    Stopped,
    /// Nothing is different.
    Harmless,
    /// After a crash alone: the last commit is gone as if it had been torn.
    LastCommitGone,
    Wrong(&'static str),
}

impl Original {
    async fn with(people: u8, closed: bool) -> Self {
        let disk = SimulatedDisk::default();
        let (cell, store) = create(&Arc::new(disk.open().unwrap())).await;
        store.put_policy(b"policy").await.unwrap();
        for n in 1..=people {
            enrol(&store, n).await.unwrap();
        }
        revoke(&store, REVOKED).await.unwrap();
        enrol(&store, people + 1).await.unwrap();
        let records = load(&store).await.0;
        for _ in 0..DECISIONS {
            decide(&store).await.unwrap();
        }
        if closed {
            store.close().await;
        }
        let image = disk.image();
        Self { image, cell, records, last: id(people + 1), closed }
    }

    fn flipped(&self, bit: usize) -> SimulatedDisk {
        let mut image = self.image.clone();
        image[bit / 8] ^= 1 << (bit % 8);
        SimulatedDisk::holding(image)
    }

    async fn trial(&self, bit: usize) -> Outcome {
        let Ok(backend) = self.flipped(bit).open() else { return Outcome::Refused };
        let Ok(store) = open(&Arc::new(backend), &self.cell.copy()).await else {
            return Outcome::Refused;
        };
        let Ok(first) = seen(&store).await else { return Outcome::Refused };
        let Some(decided) = decided_in(&store).await else { return Outcome::TrailRefused };
        let mut outcome = self.judge(&first, |id| self.records.get(&id));
        if outcome == Outcome::Harmless && decided != DECISIONS {
            let last_alone = decided + 1 == DECISIONS && !self.closed;
            let missing = Outcome::Wrong("a decision is missing and nothing says so");
            outcome = if last_alone { Outcome::LastCommitGone } else { missing };
        }
        let is_over = matches!(outcome, Outcome::Wrong(_) | Outcome::LastCommitGone);
        if is_over || !bit.is_multiple_of(CHANGED_ONCE_IN) {
            return outcome;
        }
        let came = enrol(&store, NEWCOMER).await.is_ok();
        let gone = revoke(&store, 1).await.is_ok();
        if !came || !gone || !store.is_healthy() {
            return outcome.max(Outcome::Stopped);
        }
        let Ok(second) = seen(&store).await else { return Outcome::Stopped };
        let newcomer = OpenedRecord { record: record(NEWCOMER), template: template(NEWCOMER) };
        let now = |held: RecordId| match held {
            held if held == id(1) => None,
            held if held == id(NEWCOMER) => Some(&newcomer),
            held => self.records.get(&held),
        };
        let after = self.judge(&second, now);
        if after == Outcome::Harmless { outcome } else { after }
    }

    /// What was found, held against what must be: `expected` gives a record as it was enrolled.
    fn judge<'a>(
        &self,
        (opened, report): &(BTreeMap<RecordId, OpenedRecord>, LoadReport),
        expected: impl Fn(RecordId) -> Option<&'a OpenedRecord>,
    ) -> Outcome {
        for (id, found) in opened {
            match expected(*id) {
                None => return Outcome::Wrong("a record that must not be there"),
                Some(wanted)
                    if wanted.record != found.record
                        || wanted.template.expose() != found.template.expose() =>
                {
                    return Outcome::Wrong("another template or header");
                }
                Some(_) => {}
            }
        }
        let aside = |id: &RecordId| report.quarantined.iter().any(|(held, _)| held == id);
        let lost = |id: &&RecordId| expected(**id).is_some() && !opened.contains_key(id);
        let silently = |id: &&RecordId| lost(id) && !aside(id) && report.misnamed == 0;
        let missing: Vec<_> = self.records.keys().filter(silently).collect();
        match missing.as_slice() {
            [] if report.quarantined.is_empty() && report.misnamed == 0 => Outcome::Harmless,
            [] => Outcome::Quarantined,
            [one] if **one == self.last && !self.closed => Outcome::LastCommitGone,
            _ => Outcome::Wrong("a record is missing and nothing says so"),
        }
    }
}

async fn seen(store: &Store) -> Result<(BTreeMap<RecordId, OpenedRecord>, LoadReport), StoreError> {
    let mut opened = BTreeMap::new();
    let report = store
        .load(|record| {
            opened.insert(record.record.id, record);
        })
        .await?;
    Ok((opened, report))
}

/// Tries all `bits`, on all cores, and counts the outcomes.
fn survey(name: &str, original: &Original, bits: &[usize]) -> BTreeMap<Outcome, usize> {
    let next = AtomicUsize::new(0);
    let work = || {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut counts = BTreeMap::new();
        while let Some(bit) = bits.get(next.fetch_add(1, Ordering::Relaxed)) {
            let trial = catch_unwind(AssertUnwindSafe(|| runtime.block_on(original.trial(*bit))));
            let outcome = trial.unwrap_or(Outcome::Wrong("a panic"));
            if let Outcome::Wrong(what) = outcome {
                eprintln!("{name}: bit {bit}: {what}");
            }
            *counts.entry(outcome).or_insert(0) += 1;
        }
        counts
    };
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let counts = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let mut all = BTreeMap::new();
        for (outcome, count) in workers.into_iter().flat_map(|worker| worker.join().unwrap()) {
            *all.entry(outcome).or_insert(0) += count;
        }
        all
    });
    eprintln!("{name}: {} flips in {} bytes: {counts:?}", bits.len(), original.image.len());
    counts
}

/// Every bit of the database's head, some of its rest, and some of the journal's frames.
fn some_bits(original: &Original) -> Vec<usize> {
    let mut dice = Dice::of_this_run();
    let mut some = |bytes: Range<usize>, count| -> Vec<usize> {
        let bits = (bytes.end - bytes.start) as u64 * 8;
        let draw = |_| bytes.start * 8 + usize::try_from(dice.next() % bits).unwrap();
        (0..count).map(draw).collect()
    };
    let flips = asked("ASSENT_FLIPS", FLIPS);
    let database = some(JOURNAL_BYTES..original.image.len(), flips);
    let frames = (0..DECISIONS).map(|number| number * PAGE_BYTES);
    let frames = frames.flat_map(|at| some(at..at + FRAME_BYTES, flips / FRAMES_SHARE));
    let frames: Vec<usize> = frames.collect();
    let head = JOURNAL_BYTES * 8..(JOURNAL_BYTES + HEAD_BYTES) * 8;
    head.chain(database).chain(frames).collect()
}

/// Every bit of the pages that hold anything, and one bit of each page of zeros, in the share that
/// the environment asks for; `None` where it asks for none.
fn every_bit(original: &Original) -> Option<Vec<usize>> {
    let text = std::env::var(EVERY).ok()?;
    let (share, of) = text.split_once('/').unwrap();
    let (share, of): (usize, usize) = (share.parse().unwrap(), of.parse().unwrap());
    let page = |(number, page): (usize, &[u8])| {
        let begin = number * PAGE_BYTES * 8;
        let bits = if page.iter().all(|byte| *byte == 0) { 1 } else { page.len() * 8 };
        begin..begin + bits
    };
    let bits: Vec<_> = original.image.chunks(PAGE_BYTES).enumerate().flat_map(page).collect();
    let share = bits.len() * share / of..bits.len() * (share + 1) / of;
    eprintln!("{} bits in pages that hold anything, of which {share:?}", bits.len());
    Some(bits[share].to_vec())
}

fn nothing_is_wrong(counts: &BTreeMap<Outcome, usize>) {
    let wrong: Vec<_> = counts.keys().filter(|seen| matches!(seen, Outcome::Wrong(_))).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    assert!(counts.contains_key(&Outcome::Refused), "control: some flips are noticed");
}

async fn originals(people: u8) -> [(Original, &'static str); 2] {
    [
        (Original::with(people, true).await, "closed"),
        (Original::with(people, false).await, "crashed"),
    ]
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(work)
}

#[test]
fn d2_a_flipped_bit_of_a_small_store_is_noticed_or_harmless() {
    for (original, name) in block_on(originals(4)) {
        let bits = every_bit(&original).unwrap_or_else(|| some_bits(&original));
        nothing_is_wrong(&survey(&format!("small, {name}"), &original, &bits));
    }
}

#[test]
fn d2_a_flipped_bit_of_a_larger_store_is_noticed_or_harmless() {
    for (original, name) in block_on(originals(180)) {
        let bits = some_bits(&original);
        nothing_is_wrong(&survey(&format!("larger, {name}"), &original, &bits));
    }
}

/// A flip in a row's key puts rows out of order, and who reads page after page must come to an end.
#[tokio::test]
async fn rows_that_are_out_of_order_are_noticed() {
    const LONG: std::time::Duration = std::time::Duration::from_mins(1);
    let original = Original::with(4, true).await;
    let mut refused = 0;
    for n in 1..=5 {
        let id = *id(n).as_bytes();
        let found = original.image.windows(id.len()).enumerate().filter(|(_, bytes)| *bytes == id);
        for (at, _) in found {
            let outcome = tokio::time::timeout(LONG, original.trial(at * 8 + 7)).await.unwrap();
            assert!(!matches!(outcome, Outcome::Wrong(_)), "{n} at {at}: {outcome:?}");
            refused += usize::from(outcome == Outcome::Refused);
        }
    }
    assert!(refused > 0, "control");
}
