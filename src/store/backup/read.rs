//! Reading a backup, row by row; the signature at its end holds for all of them or for none.

use std::io::{self, Read};

use super::super::backend::{DumpedRow, Opaque, Part, RowKey};
use super::{BackupHead, END, MAGIC, MOST_HEAD_BYTES, MOST_VALUE_BYTES, RestoreError, statement};
use crate::crypto::{DIGEST_BYTES, Hasher, SIGNATURE_BYTES, verify};

/// A backup as it is read.
pub struct BackupReader<R> {
    reader: R,
    hasher: Hasher,
    head: BackupHead,
    ended: bool,
}

impl<R: Read> BackupReader<R> {
    /// Reads the head.
    ///
    /// # Errors
    /// Not a backup.
    pub fn begin(reader: R) -> Result<Self, RestoreError> {
        let head = BackupHead { at: crate::types::Timestamp::now(), public_key: [0; 32], rows: 0 };
        let mut this = Self { reader, hasher: Hasher::default(), head, ended: false };
        let mut magic = [0; MAGIC.len()];
        this.fill(&mut magic)?;
        let length = this.length::<4>()?;
        if magic != *MAGIC || length > MOST_HEAD_BYTES {
            return Err(RestoreError::Malformed);
        }
        let mut head = vec![0; length];
        this.fill(&mut head)?;
        this.head = serde_json::from_slice(&head).ok().ok_or(RestoreError::Malformed)?;
        Ok(this)
    }

    /// What it says of itself: not signed before the end was read.
    #[must_use]
    pub fn head(&self) -> &BackupHead {
        &self.head
    }

    /// The next row; `None` at the end, whose signature holds then.
    ///
    /// # Errors
    /// Cut, altered, or not signed by the deployment that the head names.
    pub fn row(&mut self) -> Result<Option<DumpedRow>, RestoreError> {
        if self.ended {
            return Ok(None);
        }
        let before = self.hasher.clone();
        let mut part = [0; 1];
        self.fill(&mut part)?;
        if part == [END] {
            self.end(before)?;
            self.ended = true;
            return Ok(None);
        }
        let part = Part::ALL.get(usize::from(part[0])).ok_or(RestoreError::Malformed)?;
        let length = self.length::<2>()?;
        let key = self.bytes(length)?;
        let length = self.length::<4>()?;
        if length > MOST_VALUE_BYTES {
            return Err(RestoreError::Malformed);
        }
        let value = self.bytes(length)?;
        Ok(Some(DumpedRow {
            part: *part,
            key: RowKey::stored(&key),
            value: Opaque::stored(&value),
        }))
    }

    fn end(&mut self, hasher: Hasher) -> Result<(), RestoreError> {
        let (mut digest, mut signature) = ([0; DIGEST_BYTES], [0; SIGNATURE_BYTES]);
        self.fill(&mut digest)?;
        self.fill(&mut signature)?;
        if hasher.finish() != digest {
            return Err(RestoreError::Altered);
        }
        verify(&self.head.public_key, statement(&digest).as_bytes(), &signature)
            .map_err(RestoreError::Signature)?;
        match self.reader.read(&mut [0])? {
            0 => Ok(()),
            _behind_the_end => Err(RestoreError::Altered),
        }
    }

    /// A length of `N` bytes, little endian.
    fn length<const N: usize>(&mut self) -> Result<usize, RestoreError> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes.iter().rev().fold(0, |length, byte| length << 8 | usize::from(*byte)))
    }

    fn bytes(&mut self, length: usize) -> Result<Vec<u8>, RestoreError> {
        let mut bytes = vec![0; length];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), RestoreError> {
        match self.reader.read_exact(bytes) {
            Err(fault) if fault.kind() == io::ErrorKind::UnexpectedEof => Err(RestoreError::Cut),
            read => {
                read?;
                self.hasher.update(bytes);
                Ok(())
            }
        }
    }
}

/// Bytes of a backup's end.
const END_BYTES: usize = 1 + DIGEST_BYTES + SIGNATURE_BYTES;

/// Checks a backup as it passes by, piece by piece: that it is whole, and who signed it.
#[derive(Default)]
pub struct BackupCheck {
    hasher: Hasher,
    /// The beginning, as far as the head can go.
    start: Vec<u8>,
    /// What may be the end.
    tail: Vec<u8>,
}

impl BackupCheck {
    /// Looks at the next piece.
    pub fn update(&mut self, piece: &[u8]) {
        let wanted = (2 * MOST_HEAD_BYTES).saturating_sub(self.start.len());
        self.start.extend_from_slice(&piece[..piece.len().min(wanted)]);
        self.tail.extend_from_slice(piece);
        let settled = self.tail.len().saturating_sub(END_BYTES);
        self.hasher.update(&self.tail[..settled]);
        self.tail.drain(..settled);
    }

    /// What the whole says of itself.
    ///
    /// # Errors
    /// As [`BackupReader::row`].
    pub fn finish(self) -> Result<BackupHead, RestoreError> {
        let Self { hasher, start, tail } = self;
        let (end, rest) = tail.split_first().ok_or(RestoreError::Cut)?;
        let (digest, signature) = rest.split_first_chunk().ok_or(RestoreError::Cut)?;
        let signature = signature.try_into().ok().ok_or(RestoreError::Cut)?;
        if *end != END || hasher.finish() != *digest {
            return Err(RestoreError::Cut);
        }
        let head = BackupReader::begin(&start[..])?.head;
        verify(&head.public_key, statement(digest).as_bytes(), signature)
            .map_err(RestoreError::Signature)?;
        Ok(head)
    }
}
