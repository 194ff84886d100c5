//! Writing a snapshot, batch by batch, beside changes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use tokio::task::spawn_blocking;
use zeroize::Zeroizing;

use super::super::StoreError;
use super::super::backend::Table;
use super::super::sealing::RecordKey;
use super::super::tree::{self, Page, Place};
use super::super::typed::Store;
use super::{HEAD_AAD, ID_BYTES, MAGIC, SnapshotFault, SnapshotHead, SnapshotId, SnapshotRow};
use crate::crypto::{SealError, Sealed, random_bytes, seal};
use crate::types::RecordId;

/// Ends the name of a file in the making.
const UNFINISHED: &str = "new";
const FILE_MODE: u32 = 0o600;
const BUFFER_BYTES: usize = 1 << 20;

/// A snapshot in the making. Dropped before [`SnapshotWriter::finish`] it leaves nothing but the
/// snapshot before it.
pub struct SnapshotWriter {
    id: SnapshotId,
    file: BufWriter<File>,
    unfinished: Unfinished,
    path: PathBuf,
    rows: u64,
}

/// The file in the making, removed when dropped: on a full disk its space is needed for more.
struct Unfinished(PathBuf);

impl Drop for Unfinished {
    fn drop(&mut self) {
        // It has another name by now where all went well.
        let _gone = fs::remove_file(&self.0);
    }
}

impl Store {
    /// Begins a snapshot that will lie at `path`.
    ///
    /// # Errors
    /// The file, or no randomness.
    pub fn begin_snapshot(
        &self,
        path: &Path,
        head: &SnapshotHead,
    ) -> Result<SnapshotWriter, SnapshotFault> {
        let id = SnapshotId(random_bytes::<ID_BYTES>().map_err(SealError::from)?);
        let sealed = seal(&self.keys.snapshot, HEAD_AAD, &encode_head(id, head))?;
        let unfinished = Unfinished(path.with_extension(UNFINISHED));
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(true).mode(FILE_MODE);
        let mut file = BufWriter::with_capacity(BUFFER_BYTES, file.open(&unfinished.0)?);
        file.write_all(MAGIC)?;
        write_sealed(&mut file, &sealed)?;
        Ok(SnapshotWriter { id, file, unfinished, path: path.into(), rows: 0 })
    }

    /// The keys of those records that are held, and where they lie.
    async fn keys_for(
        &self,
        records: &[RecordId],
    ) -> Result<BTreeMap<RecordId, (Place, RecordKey)>, StoreError> {
        let rows = records.iter().map(|id| Table::Keys.row((*id).into())).collect();
        let places = self.backend.read(rows).await?;
        let places = places.iter().map(|row| row.as_ref().and_then(Place::of));
        let places: Vec<_> =
            records.iter().zip(places).filter_map(|(id, place)| Some((*id, place?))).collect();
        let numbers: BTreeSet<u32> = places.iter().map(|(_, place)| place.page).collect();
        let numbers: Vec<u32> = numbers.into_iter().collect();
        let rows = numbers.iter().map(|number| tree::page_row(*number)).collect();
        let rows = self.backend.read(rows).await?;
        // A page that does not open, or that a revocation re-keyed between the two reads, has no
        // keys to give; its records are loaded from the store at the next start.
        let pages = numbers
            .into_iter()
            .zip(rows)
            .filter_map(|(number, row)| Some((number, self.vault.open_page(number, &row?).ok()?)));
        let mut pages: BTreeMap<u32, Page> = pages.collect();
        let taken = places.into_iter().filter_map(|(id, place)| {
            let key = pages.get_mut(&place.page)?.take(place.slot, id)?;
            Some((id, (place, key)))
        });
        Ok(taken.collect())
    }
}

impl SnapshotWriter {
    /// Adds rows. Those whose record is gone by now are left out.
    ///
    /// # Errors
    /// The file, or the store cannot be read. The snapshot is given up then.
    pub async fn add(
        mut self,
        store: &Store,
        rows: Vec<SnapshotRow>,
    ) -> Result<Self, SnapshotFault> {
        let records: Vec<_> = rows.iter().map(|row| row.record).collect();
        let keys = store.keys_for(&records).await;
        let keys = keys.map_err(|fault| SnapshotFault::Keys(Box::new(fault)))?;
        let work = move || {
            for SnapshotRow { record, plain } in rows {
                if let Some((place, key)) = keys.get(&record) {
                    let sealed = key.seal_row(&self.id.aad(record), &plain)?;
                    self.file.write_all(record.as_bytes())?;
                    self.file.write_all(&place.bytes())?;
                    write_sealed(&mut self.file, &sealed)?;
                    self.rows += 1;
                }
            }
            Ok(self)
        };
        spawn_blocking(work).await.map_err(|_panicked| SnapshotFault::Interrupted)?
    }

    /// Puts the snapshot in the place of the one before; durable on return. How many rows it has.
    ///
    /// # Errors
    /// The file.
    pub async fn finish(self) -> Result<u64, SnapshotFault> {
        let Self { mut file, unfinished, path, rows, .. } = self;
        let work = move || {
            file.flush()?;
            file.get_ref().sync_all()?;
            fs::rename(&unfinished.0, &path)?;
            File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()?;
            Ok(rows)
        };
        spawn_blocking(work).await.map_err(|_panicked| SnapshotFault::Interrupted)?
    }
}

fn encode_head(id: SnapshotId, head: &SnapshotHead) -> Zeroizing<Vec<u8>> {
    let SnapshotHead { revision, rows, index } = head;
    let parts = [&id.0[..], &revision.0.to_be_bytes(), &rows.to_be_bytes(), index];
    Zeroizing::new(parts.concat())
}

fn write_sealed(file: &mut impl Write, sealed: &Sealed) -> io::Result<()> {
    let bytes = sealed.as_bytes();
    let length = u32::try_from(bytes.len()).map_err(|_long| io::ErrorKind::InvalidInput)?;
    file.write_all(&length.to_le_bytes())?;
    file.write_all(bytes)
}
