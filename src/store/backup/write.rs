//! Making a backup, beside changes.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc;

use super::super::StoreError;
use super::super::backend::{DumpedRow, Table};
use super::super::log::AuditEvent;
use super::super::typed::Store;
use super::{BackupHead, END, MAGIC, code, statement};
use crate::consent::Sha256;
use crate::crypto::{DIGEST_BYTES, Hasher};
use crate::types::Timestamp;

/// Bytes of one piece.
const PIECE_BYTES: usize = 256 << 10;

/// A backup that was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackupSummary {
    /// Its rows.
    pub rows: u64,
    /// Digest of all its bytes before the end.
    pub sha256: [u8; DIGEST_BYTES],
}

impl Store {
    /// Sends a backup, piece by piece, to `pieces`; changes go on meanwhile and are not in it. When
    /// it has been sent the audit trail says so. `None` when nobody takes the pieces any more.
    ///
    /// # Errors
    /// The backend.
    pub async fn backup(
        &self,
        pieces: mpsc::Sender<Vec<u8>>,
    ) -> Result<Option<BackupSummary>, StoreError> {
        let at = Timestamp::now();
        let records = self.backend.count(Table::Headers).await?;
        let rows = records * PARTS_OF_A_RECORD + self.revision().await?.0;
        let head = BackupHead { at, public_key: self.keys.signer.public_key(), rows };
        let writer = Arc::new(Mutex::new(Writer::begin(&serde_json::to_vec(&head)?, pieces)));
        let dump = Arc::clone(&writer);
        self.backend.dump(Box::new(move |row| lock(&dump).row(&row))).await?;
        let Writer { bytes, hasher, rows, pieces } = std::mem::take(&mut *lock(&writer));
        let sha256 = hasher.finish();
        let signature = self.keys.signer.sign(statement(&sha256).as_bytes());
        let end = [&bytes[..], &[END], &sha256, &signature].concat();
        let Some(pieces) = pieces else { return Ok(None) };
        if pieces.send(end).await.is_err() {
            return Ok(None);
        }
        self.note(&AuditEvent::BackupMade { at, rows, sha256: Sha256(sha256) }).await?;
        Ok(Some(BackupSummary { rows, sha256 }))
    }
}

/// Key, header, template, answer and two claims; the log is counted apart.
const PARTS_OF_A_RECORD: u64 = 6;

fn lock(writer: &Mutex<Writer>) -> std::sync::MutexGuard<'_, Writer> {
    writer.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Default)]
struct Writer {
    bytes: Vec<u8>,
    hasher: Hasher,
    rows: u64,
    /// `None` once nobody takes them.
    pieces: Option<mpsc::Sender<Vec<u8>>>,
}

impl Writer {
    fn begin(head: &[u8], pieces: mpsc::Sender<Vec<u8>>) -> Self {
        let mut this = Self { pieces: Some(pieces), ..Self::default() };
        this.put(MAGIC);
        this.put(&u32::try_from(head.len()).unwrap_or(u32::MAX).to_le_bytes());
        this.put(head);
        this
    }

    fn put(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        self.bytes.extend_from_slice(bytes);
    }

    /// Whether more are wanted. Called where blocking is allowed.
    fn row(&mut self, row: &DumpedRow) -> bool {
        let (key, value) = (row.key.as_bytes(), row.value.as_bytes());
        let lengths = (u16::try_from(key.len()), u32::try_from(value.len()));
        let (Ok(key_length), Ok(value_length)) = lengths else {
            // No backend has such a row; a backup with a hole in it would be worse than none.
            self.pieces = None;
            return false;
        };
        self.put(&[code(row.part)]);
        self.put(&key_length.to_le_bytes());
        self.put(key);
        self.put(&value_length.to_le_bytes());
        self.put(value);
        self.rows += 1;
        if self.bytes.len() < PIECE_BYTES {
            return true;
        }
        let piece = std::mem::replace(&mut self.bytes, Vec::with_capacity(2 * PIECE_BYTES));
        let taken = self.pieces.as_ref().is_some_and(|pieces| pieces.blocking_send(piece).is_ok());
        if !taken {
            self.pieces = None;
        }
        taken
    }
}
