//! How long an auditor waits: writing and verifying an export of the audit trail, on one core.
//!
//! ```text
//! cargo bench --bench audit [-- ENTRIES]
//! ```

#![expect(clippy::print_stdout, reason = "it is a report")]

use std::error::Error;
use std::time::{Duration, Instant};

use assent::audit::{Checkpoint, ExportWriter, Head, Leaf, checkpoint_entry, verify_export};
use assent::crypto::Signer;
use assent::crypto::cell::{FileCell, RootCell};
use assent::types::Timestamp;

/// Entries, where no number is given.
const ENTRIES: u64 = 1_000_000;
/// Entries between two checkpoints, as the store has them.
const EVERY: u64 = 1_000;
/// An entry as the store writes it.
const DECISION: &str = r#"{"event":"decision","at":"2026-11-25T23:56:34.032Z","caller":"gate-controller-7","gate":"north-gate-1","comparison":"one_to_many","decision":"match","record":"ec3735e5-7803-4830-b707-dcf03ccf4651","consent_id":"consent-resident-0042","purpose":"resident-entry","scope":"north-gate","revision":123456}"#;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1).filter(|argument| !argument.starts_with("--"));
    let entries = arguments.next().map_or(Ok(ENTRIES), |count| count.parse())?;
    let place = tempfile::tempdir()?;
    let signer = FileCell::create(&place.path().join("root.key"))?.deployment().signer();

    let begun = Instant::now();
    let (export, seen) = export(&signer, entries)?;
    println!("{entries} entries, {} bytes an entry", export.len() as u64 / entries.max(1));
    report("made and written", entries, begun.elapsed());
    for witness in [&[][..], &[seen]] {
        let begun = Instant::now();
        let key = signer.public_key();
        let found = verify_export(&export[..], Some(&key), witness, |_entries| {})?;
        let title = if witness.is_empty() { "verified" } else { "verified with a witness" };
        report(title, entries, begun.elapsed());
        println!("  {} checkpoints among them, {} witnessed", found.checkpoints, found.witnessed);
    }
    Ok(())
}

/// Decisions with a checkpoint every so often; and what a witness keeps of the end.
fn export(signer: &Signer, entries: u64) -> Result<(Vec<u8>, Checkpoint), Box<dyn Error>> {
    let at = Timestamp::now();
    let mut head = Head::genesis(&signer.public_key());
    let mut export = ExportWriter::begin(Vec::new(), signer, head, at)?;
    for seq in 1..=entries {
        let entry = if seq.is_multiple_of(EVERY) {
            checkpoint_entry(signer, head, at)
        } else {
            DECISION.as_bytes().to_vec()
        };
        head = head.then(&Leaf::of(&entry));
        export.entry(&entry)?;
    }
    Ok((export.end(signer, at)?, Checkpoint::sign(signer, head, at)))
}

#[expect(clippy::cast_precision_loss, reason = "a few million entries")]
fn report(title: &str, entries: u64, took: Duration) {
    let rate = entries as f64 / took.as_secs_f64();
    println!("{title}: {took:.2?}, {rate:.0} entries a second");
}
