//! The export of the chain, a file of JSON lines, and its verification without the service.
//!
//! ```text
//! {"format":"assent/audit-export/1","public_key":hex,"start":null or checkpoint}
//! {"seq":N,"entry":{...}}            the entry's bytes, as they are
//! {"seq":N,"leaf":hex}               instead, where only digests are exported
//! {"end":checkpoint,"closing":hex}
//! ```
//! `start` signs the entry before the first, where the export does not begin with the chain.
//! `closing` signs where the export begins and ends. No checkpoint of the chain is one, so an export
//! that was cut at either end, just at a checkpoint, shows that it was cut.

use std::io::{self, BufRead, Write};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use thiserror::Error;

use super::{Checkpoint, CheckpointEntry, EXPORT_END, Head, Leaf};
use crate::crypto::{PUBLIC_KEY_BYTES, SIGNATURE_BYTES, SignatureFault, Signer, verify};
use crate::types::Timestamp;

const FORMAT: &str = "assent/audit-export/1";
/// Longest line that is read: an entry is a few kilobytes.
const LINE_BYTES: u64 = 1 << 20;
/// How an entry begins that signs the chain.
const CHECKPOINT_MARK: &str = "{\"event\":\"checkpoint\"";
/// How often progress is told of, entries.
const PROGRESS: u64 = 10_000;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    format: String,
    #[serde(with = "hex::serde")]
    public_key: [u8; PUBLIC_KEY_BYTES],
    start: Option<Checkpoint>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    seq: Option<u64>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    entry: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    leaf: Option<Leaf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    end: Option<Checkpoint>,
    #[serde(skip_serializing_if = "Option::is_none")]
    closing: Option<Closing>,
}

/// A signature over where an export begins and ends.
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
struct Closing(#[serde(with = "hex::serde")] [u8; SIGNATURE_BYTES]);

/// `"assent/export-end/1" | number of the entry before the first | end`, a line each.
fn closing_statement(before: u64, end: &Checkpoint) -> String {
    super::statement(&format!("{EXPORT_END}\n{before}"), end.head, end.at)
}

/// Writes an export.
pub struct ExportWriter<W> {
    out: W,
    before: u64,
    head: Head,
}

impl<W: Write> ExportWriter<W> {
    /// Begins behind `start`, the head before the first entry to come.
    ///
    /// # Errors
    /// `out` fails.
    pub fn begin(out: W, signer: &Signer, start: Head, at: Timestamp) -> io::Result<Self> {
        let mut this = Self { out, before: start.seq, head: start };
        let public_key = signer.public_key();
        let start = (start.seq > 0).then(|| Checkpoint::sign(signer, start, at));
        this.line(&Header { format: FORMAT.to_owned(), public_key, start })?;
        Ok(this)
    }

    /// The next entry, whole.
    ///
    /// # Errors
    /// `out` fails, or the entry is no JSON.
    pub fn entry(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.head = self.head.then(&Leaf::of(bytes));
        let entry: &RawValue = serde_json::from_slice(bytes)?;
        self.line(&Line { seq: Some(self.head.seq), entry: Some(entry), ..Line::default() })
    }

    /// The next entry's digest.
    ///
    /// # Errors
    /// `out` fails.
    pub fn leaf(&mut self, leaf: Leaf) -> io::Result<()> {
        self.head = self.head.then(&leaf);
        self.line(&Line { seq: Some(self.head.seq), leaf: Some(leaf), ..Line::default() })
    }

    /// Signs the end, and gives `out` back.
    ///
    /// # Errors
    /// `out` fails.
    pub fn end(mut self, signer: &Signer, at: Timestamp) -> io::Result<W> {
        let end = Checkpoint::sign(signer, self.head, at);
        let closing = Closing(signer.sign(closing_statement(self.before, &end).as_bytes()));
        self.line(&Line { end: Some(end), closing: Some(closing), ..Line::default() })?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn line(&mut self, line: &impl Serialize) -> io::Result<()> {
        serde_json::to_writer(&mut self.out, line)?;
        self.out.write_all(b"\n")
    }

    /// The chain's head behind the newest entry written.
    #[must_use]
    pub fn head(&self) -> Head {
        self.head
    }

    /// What was written so far.
    pub fn get_mut(&mut self) -> &mut W {
        &mut self.out
    }
}

/// What an export was found to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VerifyReport {
    /// Whose it is.
    #[serde(with = "hex::serde")]
    pub public_key: [u8; PUBLIC_KEY_BYTES],
    /// The number of its first entry.
    pub first: u64,
    /// Its entries.
    pub entries: u64,
    /// Signed checkpoints among them.
    pub checkpoints: u64,
    /// Its signed end: a witness keeps it.
    pub end: Checkpoint,
    /// Checkpoints of the witness that it agrees with.
    pub witnessed: usize,
}

/// Why an export does not hold.
#[derive(Debug, Error)]
pub enum VerifyError {
    /// Not read.
    #[error("the export cannot be read")]
    Read(#[from] io::Error),
    /// Not an export, or a line that is none of one.
    #[error("line {line} is not a line of an audit export: {what}")]
    Malformed {
        /// Its number, from 1.
        line: u64,
        /// What is wrong.
        what: String,
    },
    /// Another deployment's.
    #[error("this export is signed by {found}, not by {expected}")]
    OtherKey {
        /// The key in the export, hexadecimal.
        found: String,
        /// The key asked for.
        expected: String,
    },
    /// A number out of turn: an entry was taken out, put in or moved.
    #[error(
        "line {line} holds entry {found} where {expected} has to be: entries were taken out, put in or moved"
    )]
    OutOfTurn {
        /// Its number.
        line: u64,
        /// The entry there.
        found: u64,
        /// The entry to be there.
        expected: u64,
    },
    /// A checkpoint in the chain signs another head.
    #[error(
        "entry {seq} signs another past than the one before it: the entries before it were changed"
    )]
    CheckpointDiffers {
        /// The checkpoint's entry.
        seq: u64,
    },
    /// A signature that is none of this key.
    #[error("the {what} at entry {seq} is not signed by the deployment's key")]
    Signature {
        /// Which statement.
        what: &'static str,
        /// About which entry.
        seq: u64,
        /// Why.
        source: SignatureFault,
    },
    /// No end.
    #[error("the export stops at entry {seq} without its signed end: it was cut short")]
    NoEnd {
        /// Its last entry.
        seq: u64,
    },
    /// The end signs another head.
    #[error(
        "the signed end is about another chain: entries were changed, or it is another export's"
    )]
    EndDiffers,
    /// Something behind the end.
    #[error("line {line} stands behind the signed end")]
    BehindEnd {
        /// Its number.
        line: u64,
    },
    /// The witness saw another chain.
    #[error(
        "the witness saw another entry {seq}: the log was rewritten or forked after it was witnessed"
    )]
    WitnessDiffers {
        /// The entry.
        seq: u64,
    },
    /// The witness saw more.
    #[error(
        "the witness saw entry {witnessed} at {at}, and this export ends with entry {end}: the log \
         was cut short, or this is an older export"
    )]
    WitnessSawMore {
        /// The last entry witnessed.
        witnessed: u64,
        /// When.
        at: Timestamp,
        /// The export's last.
        end: u64,
    },
}

/// Verifies an export: every link, every signature, its end, and that it agrees with what a witness
/// kept. `progress` is told of entries now and then.
///
/// # Errors
/// The first thing that does not hold.
pub fn verify_export(
    reader: impl BufRead,
    public_key: Option<&[u8; PUBLIC_KEY_BYTES]>,
    witness: &[Checkpoint],
    mut progress: impl FnMut(u64),
) -> Result<VerifyReport, VerifyError> {
    let mut lines = Lines { reader, number: 0, line: Vec::new() };
    let mut check = Check::begin(&mut lines, public_key, witness)?;
    while let Some((number, line)) = lines.next()? {
        let line = serde_json::from_slice(line).map_err(|fault| malformed(number, fault))?;
        match line {
            Line { seq: Some(seq), entry: Some(entry), leaf: None, end: None, closing: None } => {
                check.turn(seq, number)?;
                check.entry(entry.get())?;
            }
            Line { seq: Some(seq), entry: None, leaf: Some(leaf), end: None, closing: None } => {
                check.turn(seq, number)?;
                check.leaf(&leaf)?;
            }
            Line { seq: None, entry: None, leaf: None, end: Some(end), closing: Some(closing) } => {
                let report = check.end(&end, &closing)?;
                return match lines.next()? {
                    Some((line, _)) => Err(VerifyError::BehindEnd { line }),
                    None => Ok(report),
                };
            }
            Line { .. } => return Err(malformed(number, "neither an entry nor the end")),
        }
        if check.entries.is_multiple_of(PROGRESS) {
            progress(check.entries);
        }
    }
    Err(VerifyError::NoEnd { seq: check.head.seq })
}

struct Lines<R> {
    reader: R,
    number: u64,
    line: Vec<u8>,
}

impl<R: BufRead> Lines<R> {
    /// The next line, with its number.
    fn next(&mut self) -> Result<Option<(u64, &[u8])>, VerifyError> {
        self.line.clear();
        self.number += 1;
        io::Read::take(&mut self.reader, LINE_BYTES).read_until(b'\n', &mut self.line)?;
        match self.line.last() {
            None => Ok(None),
            Some(b'\n') => Ok(Some((self.number, &self.line[..self.line.len() - 1]))),
            Some(_) => Err(malformed(self.number, "it does not end")),
        }
    }
}

fn malformed(line: u64, what: impl std::fmt::Display) -> VerifyError {
    VerifyError::Malformed { line, what: what.to_string() }
}

/// The chain as far as it was read.
struct Check<'w> {
    public_key: [u8; PUBLIC_KEY_BYTES],
    first: u64,
    head: Head,
    entries: u64,
    checkpoints: u64,
    witnessed: usize,
    witness: &'w [Checkpoint],
}

impl<'w> Check<'w> {
    fn begin<R: BufRead>(
        lines: &mut Lines<R>,
        expected: Option<&[u8; PUBLIC_KEY_BYTES]>,
        witness: &'w [Checkpoint],
    ) -> Result<Self, VerifyError> {
        let (number, line) = lines.next()?.unwrap_or((1, b""));
        let header = serde_json::from_slice::<Header>(line);
        let Header { format, public_key, start } =
            header.map_err(|fault| malformed(number, fault))?;
        if format != FORMAT {
            return Err(malformed(number, format_args!("format {format:?} is not {FORMAT:?}")));
        }
        if let Some(expected) = expected.filter(|expected| **expected != public_key) {
            let (found, expected) = (hex::encode(public_key), hex::encode(expected));
            return Err(VerifyError::OtherKey { found, expected });
        }
        for checkpoint in witness {
            signed(checkpoint.verify(&public_key), "witness's checkpoint", checkpoint.head)?;
        }
        let head = match start {
            None => Head::genesis(&public_key),
            Some(start) => {
                signed(start.verify(&public_key), "start", start.head)?;
                start.head
            }
        };
        let first = head.seq.saturating_add(1);
        let mut this =
            Self { public_key, first, head, entries: 0, checkpoints: 0, witnessed: 0, witness };
        this.compare_with_witness()?;
        Ok(this)
    }

    fn turn(&self, found: u64, line: u64) -> Result<(), VerifyError> {
        let expected = self.head.seq.saturating_add(1);
        if found == expected {
            Ok(())
        } else {
            Err(VerifyError::OutOfTurn { line, found, expected })
        }
    }

    fn entry(&mut self, entry: &str) -> Result<(), VerifyError> {
        if entry.starts_with(CHECKPOINT_MARK) {
            let seq = self.head.seq + 1;
            let differs = VerifyError::CheckpointDiffers { seq };
            let Ok(CheckpointEntry { checkpoint }) = serde_json::from_str(entry) else {
                return Err(differs);
            };
            if checkpoint.head != self.head {
                return Err(differs);
            }
            signed(checkpoint.verify(&self.public_key), "checkpoint", checkpoint.head)?;
            self.checkpoints += 1;
        }
        self.leaf(&Leaf::of(entry.as_bytes()))
    }

    fn leaf(&mut self, leaf: &Leaf) -> Result<(), VerifyError> {
        self.head = self.head.then(leaf);
        self.entries += 1;
        self.compare_with_witness()
    }

    /// Checkpoints of a witness are in the order of their entries.
    fn compare_with_witness(&mut self) -> Result<(), VerifyError> {
        while let Some((next, rest)) = self.witness.split_first() {
            if next.head.seq > self.head.seq {
                break;
            }
            // One from before the export's start says nothing about it.
            if next.head.seq == self.head.seq {
                if next.head.hash != self.head.hash {
                    return Err(VerifyError::WitnessDiffers { seq: next.head.seq });
                }
                self.witnessed += 1;
            }
            self.witness = rest;
        }
        Ok(())
    }

    fn end(self, end: &Checkpoint, closing: &Closing) -> Result<VerifyReport, VerifyError> {
        signed(end.verify(&self.public_key), "end", end.head)?;
        let statement = closing_statement(self.first.saturating_sub(1), end);
        let closed = verify(&self.public_key, statement.as_bytes(), &closing.0);
        signed(closed, "extent of the export", end.head)?;
        if end.head != self.head {
            return Err(VerifyError::EndDiffers);
        }
        if let Some(Checkpoint { head, at, .. }) = self.witness.last() {
            let (witnessed, at) = (head.seq, *at);
            return Err(VerifyError::WitnessSawMore { witnessed, at, end: self.head.seq });
        }
        let Self { public_key, first, entries, checkpoints, witnessed, .. } = self;
        Ok(VerifyReport { public_key, first, entries, checkpoints, end: *end, witnessed })
    }
}

fn signed(
    outcome: Result<(), SignatureFault>,
    what: &'static str,
    head: Head,
) -> Result<(), VerifyError> {
    outcome.map_err(|source| VerifyError::Signature { what, seq: head.seq, source })
}
