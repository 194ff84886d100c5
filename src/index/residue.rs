//! What an erased template leaves in the memory of the process: nothing.

use std::collections::HashSet;
use std::fs::File;
use std::os::unix::fs::FileExt;

use zeroize::Zeroizing;

use super::forms::forms_under;
use super::testkit::{PLANS, Random, grant, is_forced, now, planned, quantiser, search, template};
use super::{Index, PlanSetting, RestoredRow};
use crate::types::Embedding;

const WIDTH: usize = 512;
/// Bytes that tell one template from all others.
const WINDOW: usize = 16;
/// Bytes of a page.
const PAGE: u64 = 4_096;
/// Bytes read at once.
const CHUNK: usize = 1 << 20;
/// Windows are kept under this mask, so that the search does not find itself.
const MASK: u128 = 0x5A5A_A5A5_5A5A_A5A5_3C3C_C3C3_3C3C_C3C3;

/// Every 16 bytes in a row of every form that a template ever has in the index.
struct Traces {
    windows: HashSet<u128>,
    /// The lowest bits of windows, to look most of memory over quickly.
    likely: Vec<bool>,
}

impl Traces {
    fn of(face: &Embedding) -> Self {
        let mut traces = Self { windows: HashSet::new(), likely: vec![false; 1 << 16] };
        for (_, form) in forms_under(&quantiser(WIDTH), face) {
            traces.add(&form);
        }
        traces
    }

    fn add(&mut self, form: &[u8]) {
        for window in form.windows(WINDOW) {
            let window = u128::from_le_bytes(window.try_into().unwrap());
            // Runs of one byte are everywhere and tell nothing.
            if window.to_le_bytes().iter().collect::<HashSet<_>>().len() > 2 {
                self.windows.insert(window ^ MASK);
                self.likely[low(window)] = true;
            }
        }
    }

    fn count_in(&self, memory: &[u8]) -> usize {
        let found = |bytes: &&[u8]| {
            let window = u128::from_le_bytes((*bytes).try_into().unwrap());
            self.likely[low(window)] && self.windows.contains(&(window ^ MASK))
        };
        memory.windows(WINDOW).filter(found).count()
    }

    /// Windows found in all memory that can be read and written.
    fn count_in_process(&self) -> usize {
        let memory = File::open("/proc/self/mem").unwrap();
        // Wiped: what was seen must not be found again where the buffer was.
        let mut chunk = Zeroizing::new(vec![0_u8; CHUNK + WINDOW]);
        let own = chunk.as_ptr().addr() as u64;
        let (own, after) = (own, own + chunk.len() as u64);
        let mut found = 0;
        for (from, to) in mappings() {
            // All but the buffer itself, on both sides of it.
            for (mut at, to) in [(from, to.min(own).max(from)), (from.max(after).min(to), to)] {
                while at < to {
                    let len = usize::try_from(to - at).unwrap().min(chunk.len());
                    // Other tests give memory back meanwhile: what lies before a hole is read all
                    // the same, and the hole is passed a page at a time.
                    let len = memory.read_at(&mut chunk[..len], at).unwrap_or(0);
                    found += self.count_in(&chunk[..len]);
                    at += match len {
                        0 => PAGE,
                        // Windows across two chunks are in the second.
                        _ if len == chunk.len() => (len - WINDOW) as u64,
                        _ => len as u64,
                    };
                }
            }
        }
        found
    }
}

fn low(window: u128) -> usize {
    usize::from(u16::from_le_bytes([window.to_le_bytes()[0], window.to_le_bytes()[1]]))
}

fn mappings() -> Vec<(u64, u64)> {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let writable = maps.lines().filter(|line| line.contains(" rw"));
    let range = |line: &str| {
        let (from, to) = line.split(' ').next()?.split_once('-')?;
        Some((u64::from_str_radix(from, 16).ok()?, u64::from_str_radix(to, 16).ok()?))
    };
    writable.filter_map(range).collect()
}

/// Out into a snapshot and back into another index, which ends.
fn reload(index: &Index, plan: PlanSetting) {
    let rows = index.export(0, 1_000).unwrap().into_iter().map(|row| RestoredRow {
        slot: row.slot,
        template: index.describe(row.record).unwrap(),
        body: row.body,
    });
    let other = planned(WIDTH, plan);
    let restored = other.restore(&index.snapshot_head(), rows).unwrap();
    assert_eq!(restored.rows, 301);
    other.relink(&restored.links, 1).unwrap();
}

#[test]
fn no_16_bytes_of_an_erased_template_stay_in_the_process() {
    for plan in PLANS {
        let (index, mut random) = (planned(WIDTH, plan), Random::new(90));
        for n in 0..300 {
            index.insert(template(n, 0), &random.embedding(WIDTH)).unwrap();
        }
        let face = random.embedding(WIDTH);
        let traces = Traces::of(&face);
        let new = template(1_000, 0);
        let record = new.record;
        index.insert(new, &face).unwrap();
        for _ in 0..30 {
            let found = search(&index, &grant([0]), &random.near(&face, 0.7), 3, now()).unwrap();
            assert!(is_forced(plan, &found));
            search(&index, &grant([0]), &face, 3, now()).unwrap();
        }
        reload(&index, plan);
        drop(face);
        assert!(traces.count_in_process() > WIDTH, "the search itself works");
        let _purged = index.purge(index.withdraw(record).unwrap());
        assert_eq!(traces.count_in_process(), 0, "{plan:?}");
    }
}
