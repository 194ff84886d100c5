//! The chain attacked.

use std::io::BufReader;

use proptest::prelude::*;

use super::export::{ExportWriter, verify_export};
use super::*;
use crate::crypto::DeploymentKey;

/// Trials of each attack.
const TRIALS: u64 = 60;
/// Entries of a chain under attack.
const ENTRIES: u64 = 40;

fn at() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

fn signer(byte: u8) -> Signer {
    DeploymentKey::for_tests(byte).signer()
}

/// A small generator that replays: xorshift64.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

fn decision(n: u64) -> Vec<u8> {
    format!(r#"{{"event":"decision","gate":"north-{n}","decision":"no_match"}}"#).into_bytes()
}

/// Entries with a checkpoint after every tenth, signed by `signer`.
fn chain(signer: &Signer, entries: impl IntoIterator<Item = Vec<u8>>) -> Vec<Vec<u8>> {
    let mut head = Head::genesis(&signer.public_key());
    let mut all = Vec::new();
    for entry in entries {
        head = head.then(&Leaf::of(&entry));
        all.push(entry);
        if head.seq % 10 == 9 {
            let entry = checkpoint_entry(signer, head, at());
            head = head.then(&Leaf::of(&entry));
            all.push(entry);
        }
    }
    all
}

fn export(signer: &Signer, entries: &[Vec<u8>]) -> Vec<u8> {
    let genesis = Head::genesis(&signer.public_key());
    let mut writer = ExportWriter::begin(Vec::new(), signer, genesis, at()).unwrap();
    for entry in entries {
        writer.entry(entry).unwrap();
    }
    writer.end(signer, at()).unwrap()
}

fn verified(export: &[u8], witness: &[Checkpoint]) -> Result<VerifyReport, VerifyError> {
    let key = signer(1).public_key();
    verify_export(BufReader::new(export), Some(&key), witness, |_| {})
}

fn lines(export: &[u8]) -> Vec<String> {
    String::from_utf8(export.to_vec()).unwrap().lines().map(str::to_owned).collect()
}

fn joined(lines: &[String]) -> Vec<u8> {
    lines.iter().flat_map(|line| [line.as_bytes(), b"\n"].concat()).collect()
}

/// The same lines with numbers in turn, as who edits a file would leave them.
fn renumbered(lines: &[String]) -> Vec<String> {
    let mut seq = 0;
    let number = |line: &String| match line.split_once(",\"entry\":") {
        Some((_, entry)) => {
            seq += 1;
            format!("{{\"seq\":{seq},\"entry\":{entry}")
        }
        None => line.clone(),
    };
    lines.iter().map(number).collect()
}

/// The head behind `count` entries.
fn head_after(entries: &[Vec<u8>], count: usize) -> Head {
    let genesis = Head::genesis(&signer(1).public_key());
    entries[..count].iter().fold(genesis, |head, entry| head.then(&Leaf::of(entry)))
}

/// One attack on an export; the bytes that the verifier is shown.
fn attack(name: &str, dice: &mut Dice) -> Vec<u8> {
    let ours = signer(1);
    let entries = chain(&ours, (0..ENTRIES).map(decision));
    let good = export(&ours, &entries);
    let mut all = lines(&good);
    let any = |dice: &mut Dice| 1 + usize::try_from(dice.below(entries.len() as u64)).unwrap();
    let one = any(dice);
    match name {
        "edit" => {
            let at = all[one].find("entry\":").unwrap() + 12;
            let wrong = if all[one].as_bytes()[at] == b'x' { "y" } else { "x" };
            all[one].replace_range(at..=at, wrong);
        }
        "delete" => {
            all.remove(one);
            all = renumbered(&all);
        }
        "insert" => {
            let new = String::from_utf8(decision(dice.below(1 << 40))).unwrap();
            all.insert(one, format!("{{\"seq\":{one},\"entry\":{new}}}"));
            all = renumbered(&all);
        }
        "swap" => {
            let mut other = any(dice);
            while all[one].split_once(",\"entry\":").unwrap().1
                == all[other].split_once(",\"entry\":").unwrap().1
            {
                other = any(dice);
            }
            all.swap(one, other);
            all = renumbered(&all);
        }
        "truncate" => {
            // With the end left out, and with the end of the whole put behind.
            let end = all.pop().unwrap();
            all.truncate(one);
            if dice.below(2) == 0 {
                all.push(end);
            }
        }
        "re-chain" => {
            // Everything anew from one entry on, with a key that is not ours.
            let theirs = signer(2);
            let mut changed = entries.clone();
            changed[one - 1] = decision(1 << 50);
            let mut forged = lines(&export(&theirs, &changed));
            forged[0].clone_from(&all[0]);
            all = forged;
        }
        "fork" => {
            // An honest beginning, then other entries under the honest end.
            let end = all.pop().unwrap();
            let other = (0..ENTRIES).map(|n| decision(n + 1_000));
            let other = lines(&export(&ours, &chain(&ours, other)));
            all.truncate(one);
            all.extend_from_slice(&other[one..other.len() - 1]);
            all.push(end);
        }
        "re-sign" => {
            // Cut short and signed anew, by who has the key.
            return export(&ours, &entries[..one - 1]);
        }
        other => unreachable!("{other}"),
    }
    joined(&all)
}

#[test]
fn d6_eight_attacks_are_found_in_every_trial() {
    let ours = signer(1);
    let entries = chain(&ours, (0..ENTRIES).map(decision));
    let untouched = export(&ours, &entries);
    let whole = Checkpoint::sign(&ours, head_after(&entries, entries.len()), at());
    for name in ["edit", "delete", "insert", "swap", "truncate", "re-chain", "fork", "re-sign"] {
        let mut found = 0;
        for seed in 1..=TRIALS {
            assert!(verified(&untouched, &[whole]).is_ok(), "control");
            let mut dice = Dice(seed * 0x9E37_79B9);
            let shown = attack(name, &mut dice);
            let alone = verified(&shown, &[]);
            if name == "re-sign" {
                assert!(alone.is_ok(), "control: without a witness it looks well: {alone:?}");
                found += u64::from(verified(&shown, &[whole]).is_err());
            } else {
                assert!(alone.is_err(), "{name}, seed {seed}: {alone:?}");
                found += 1;
            }
        }
        eprintln!("{name}: {found} of {TRIALS} found");
        assert_eq!(found, TRIALS, "{name}");
    }
}

#[test]
fn an_export_cut_at_a_checkpoint_at_either_end_is_found() {
    let ours = signer(1);
    let entries = chain(&ours, (0..ENTRIES).map(decision));
    let all = lines(&export(&ours, &entries));
    let signs = |line: &&String| line.contains("\"event\":\"checkpoint\"");
    let at = all.iter().position(|line| signs(&line)).unwrap();
    let checkpoint: serde_json::Value = serde_json::from_str(&all[at]).unwrap();
    let mut checkpoint = checkpoint["entry"].clone();
    checkpoint.as_object_mut().unwrap().remove("event");
    // The front: the chain's own checkpoint as the signed start.
    let header = all[0].replace("\"start\":null", &format!("\"start\":{checkpoint}"));
    let front = [&[header][..], &all[at..]].concat();
    assert!(matches!(verified(&joined(&front), &[]), Err(VerifyError::Signature { .. })));
    // The back: the same as the end, under the closing of the whole.
    let end: serde_json::Value = serde_json::from_str(all.last().unwrap()).unwrap();
    let end = serde_json::json!({ "end": checkpoint, "closing": end["closing"] }).to_string();
    let back = [&all[..at], &[end][..]].concat();
    assert!(matches!(verified(&joined(&back), &[]), Err(VerifyError::Signature { .. })));
}

#[test]
fn a_log_that_was_rewritten_with_its_key_is_found_by_the_witness() {
    let ours = signer(1);
    let entries = chain(&ours, (0..ENTRIES).map(decision));
    let kept = Checkpoint::sign(&ours, head_after(&entries, 20), at());
    let other = chain(&ours, (0..ENTRIES).map(|n| decision(n + 1)));
    assert_eq!(verified(&export(&ours, &entries), &[kept]).unwrap().witnessed, 1, "control");
    let refused = verified(&export(&ours, &other), &[kept]);
    assert!(matches!(refused, Err(VerifyError::WitnessDiffers { seq: 20 })));
}

#[test]
fn a_witness_follows_a_log_that_grows_and_no_other() {
    let ours = signer(1);
    let entries = chain(&ours, (0..ENTRIES).map(decision));
    let from = |entries: &[Vec<u8>], after: usize| {
        let start = head_after(entries, after);
        let mut writer = ExportWriter::begin(Vec::new(), &ours, start, at()).unwrap();
        entries[after..].iter().for_each(|entry| writer.leaf(Leaf::of(entry)).unwrap());
        writer.end(&ours, at()).unwrap()
    };
    let new = Witness { public_key: Some(ours.public_key()), last: None };
    let first = new.look(&from(&entries[..15], 0)[..]).unwrap();
    assert_eq!((first.entries, first.end.head), (15, head_after(&entries, 15)));
    let knows = Witness { last: Some(first.end), ..new };
    let second = knows.look(&from(&entries, 15)[..]).unwrap();
    assert_eq!(second.end.head, head_after(&entries, entries.len()));
    assert!(knows.look(&from(&entries[..15], 15)[..]).is_ok(), "nothing new");

    let cut = knows.look(&from(&entries[..10], 10)[..]);
    assert!(matches!(cut, Err(WitnessAlarm::CutShort { witnessed: 15, end: 10 })));
    let other = chain(&ours, (0..ENTRIES).map(|n| decision(n + 1)));
    let forked = knows.look(&from(&other, 15)[..]);
    assert!(matches!(forked, Err(WitnessAlarm::Rewritten { seq: 15 })));
    let beyond = knows.look(&from(&other, 20)[..]);
    assert!(matches!(beyond, Err(WitnessAlarm::Rewritten { seq: 15 })));
    let strange = Witness { public_key: Some(signer(2).public_key()), ..new };
    assert!(matches!(strange.look(&from(&entries, 0)[..]), Err(WitnessAlarm::Export(_))));
}

#[test]
fn a_witness_file_comes_back_in_order() {
    let ours = signer(1);
    let kept: Vec<_> = [3, 9].map(|seq| Head { seq, hash: [7; 32] }).to_vec();
    let kept: Vec<_> = kept.into_iter().map(|head| Checkpoint::sign(&ours, head, at())).collect();
    let line = |checkpoint: &Checkpoint| serde_json::to_string(checkpoint).unwrap() + "\n";
    let file: String = kept.iter().map(line).collect();
    assert_eq!(read_checkpoints(file.as_bytes()).unwrap(), kept);
    let backwards: String = kept.iter().rev().map(line).collect();
    assert!(read_checkpoints(backwards.as_bytes()).unwrap_err().to_string().contains("line 2"));
}

#[test]
fn every_flipped_bit_of_an_export_is_found_or_changes_nothing() {
    let ours = signer(1);
    let entries = chain(&ours, (0..12).map(decision));
    let good = export(&ours, &entries);
    let report = verified(&good, &[]).unwrap();
    let mut harmless = 0;
    for (at, bit) in (0..good.len()).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
        let mut flipped = good.clone();
        flipped[at] ^= 1 << bit;
        if let Ok(same) = verified(&flipped, &[]) {
            // Such as an upper-case digit of a hash.
            assert_eq!(same, report, "byte {at} bit {bit}");
            harmless += 1;
        }
    }
    eprintln!("{} flips, {harmless} without effect, the rest found", good.len() * 8);
}

#[test]
fn a_receipt_holds_for_its_bytes_and_its_key() {
    let (ours, other) = (signer(1), signer(2));
    let body = serde_json::json!({"type": ReceiptKind::Erasure.name(), "revision": 7});
    let receipt = Receipt::sign(&ours, &body);
    let statement = receipt.verify(Some(&ours.public_key())).unwrap();
    assert_eq!((statement.kind, statement.body), (ReceiptKind::Erasure, body));
    assert!(receipt.verify(None).is_ok());
    let refused = receipt.verify(Some(&other.public_key()));
    assert!(matches!(refused, Err(ReceiptFault::OtherKey { .. })));
    let mut altered = receipt.clone();
    altered.body[30] ^= 1;
    assert!(matches!(altered.verify(None), Err(ReceiptFault::Signature(_))));
    let odd = Receipt::sign(&ours, &serde_json::json!({"type": "assent/other/1"}));
    assert!(matches!(odd.verify(None), Err(ReceiptFault::NotAReceipt)));
}

proptest! {
    #[test]
    fn no_bytes_make_the_verifier_panic(bytes: Vec<u8>, cut in 0_usize..4_000) {
        let ours = signer(1);
        let good = export(&ours, &chain(&ours, (0..5).map(decision)));
        let _refused = verified(&bytes, &[]);
        let mut mixed = good[..cut.min(good.len())].to_vec();
        mixed.extend_from_slice(&bytes);
        if mixed != good {
            prop_assert!(verified(&mixed, &[]).is_err());
        }
    }
}
