//! The witness: keeps checkpoints where the service cannot rewrite them.
//!
//! Its file is JSON lines of checkpoints, and only grows. Each is kept only after the export since
//! the one before it was seen to lead from it.

use std::io::{self, BufRead};

use thiserror::Error;

use super::export::{VerifyError, verify_export};
use super::{Checkpoint, Head, VerifyReport};
use crate::crypto::PUBLIC_KEY_BYTES;

/// What a witness knows.
#[derive(Debug, Clone, Copy)]
pub struct Witness {
    /// Whose log it watches.
    pub public_key: Option<[u8; PUBLIC_KEY_BYTES]>,
    /// The newest checkpoint that it keeps.
    pub last: Option<Checkpoint>,
}

/// The log is not the one that was witnessed.
#[derive(Debug, Error)]
pub enum WitnessAlarm {
    /// The log ends before what was witnessed.
    #[error("the log was cut short: entry {witnessed} was witnessed, it ends with entry {end}")]
    CutShort {
        /// The last entry witnessed.
        witnessed: u64,
        /// Its last entry now.
        end: u64,
    },
    /// The log has another past.
    #[error("the log was rewritten: its entry {seq} is not the one that was witnessed")]
    Rewritten {
        /// The entry.
        seq: u64,
    },
    /// The export does not hold by itself.
    #[error(transparent)]
    Export(#[from] VerifyError),
}

impl Witness {
    /// Looks at an export that begins behind the newest checkpoint, and says what it leads to.
    ///
    /// # Errors
    /// It does not lead from what was witnessed.
    pub fn look(&self, export: impl BufRead) -> Result<VerifyReport, WitnessAlarm> {
        let kept: &[Checkpoint] = self.last.as_slice();
        let report = verify_export(export, self.public_key.as_ref(), kept, |_| {});
        if let Err(VerifyError::WitnessSawMore { witnessed, end, .. }) = report {
            return Err(WitnessAlarm::CutShort { witnessed, end });
        }
        if let Err(VerifyError::WitnessDiffers { seq }) = report {
            return Err(WitnessAlarm::Rewritten { seq });
        }
        let report = report?;
        let begins = report.first - 1;
        match self.last {
            // Behind it, and nothing ties the two together.
            Some(Checkpoint { head: Head { seq, .. }, .. }) if begins > seq => {
                Err(WitnessAlarm::Rewritten { seq })
            }
            Some(_) | None => Ok(report),
        }
    }
}

/// The checkpoints of a witness's file, in the order of their entries.
///
/// # Errors
/// A line that is no checkpoint, or out of order.
pub fn read_checkpoints(file: impl BufRead) -> io::Result<Vec<Checkpoint>> {
    let mut kept: Vec<Checkpoint> = Vec::new();
    for (number, line) in file.lines().enumerate() {
        let line = line?;
        let wrong = |what: String| {
            io::Error::new(io::ErrorKind::InvalidData, format!("line {}: {what}", number + 1))
        };
        let checkpoint: Checkpoint =
            serde_json::from_str(&line).map_err(|fault| wrong(fault.to_string()))?;
        if kept.last().is_some_and(|last| last.head.seq > checkpoint.head.seq) {
            return Err(wrong("is about an earlier entry than the line before".to_owned()));
        }
        kept.push(checkpoint);
    }
    Ok(kept)
}
