//! The audit trail on its way out, for auditors and witnesses.

use std::sync::Arc;

use futures_util::{Stream, stream};

use super::Engine;
use crate::audit::{ExportWriter, Leaf};
use crate::store::StoreError;
use crate::types::Timestamp;

/// Where an export is.
enum Export {
    Begin { after: u64 },
    Going { writer: ExportWriter<Vec<u8>>, until: u64 },
    Done,
}

impl Engine {
    /// The export of the audit trail (`audit/export.rs`) behind the entry `after`, up to what is
    /// durable now: pieces of whole lines. With `digests_only` the entries themselves stay here.
    pub fn export_audit(
        self: &Arc<Self>,
        after: u64,
        digests_only: bool,
    ) -> impl Stream<Item = Result<Vec<u8>, StoreError>> + Send + use<> {
        let engine = Arc::clone(self);
        stream::try_unfold(Export::Begin { after }, move |export| {
            let engine = Arc::clone(&engine);
            async move { engine.export_piece(export, digests_only).await }
        })
    }

    /// Removes entries from before `before` from the beginning of the trail; whether there were any.
    /// There may be more.
    ///
    /// # Errors
    /// The trail cannot be read or written.
    pub async fn prune_audit(&self, before: Timestamp) -> Result<bool, StoreError> {
        let through = self.store.prune(before).await?;
        if let Some(through) = through {
            tracing::info!(through = through.seq, %before, "audit entries past retention removed");
        }
        Ok(through.is_some())
    }

    async fn export_piece(
        &self,
        export: Export,
        digests_only: bool,
    ) -> Result<Option<(Vec<u8>, Export)>, StoreError> {
        let (signer, now) = (self.store.signer(), Timestamp::now());
        match export {
            Export::Done => Ok(None),
            Export::Begin { after } => {
                let until = self.store.audit_head().seq;
                let start = self.store.audit_at(after).await?;
                let mut writer = ExportWriter::begin(Vec::new(), signer, start, now)?;
                let piece = std::mem::take(writer.get_mut());
                Ok(Some((piece, Export::Going { writer, until })))
            }
            Export::Going { mut writer, until } => {
                if writer.head().seq >= until {
                    return Ok(Some((writer.end(signer, now)?, Export::Done)));
                }
                // A hole, or a block that does not follow: nothing of it is signed.
                for entry in self.store.audit_behind(writer.head()).await? {
                    if digests_only {
                        writer.leaf(Leaf::of(&entry))?;
                    } else {
                        writer.entry(&entry)?;
                    }
                }
                let piece = std::mem::take(writer.get_mut());
                Ok(Some((piece, Export::Going { writer, until })))
            }
        }
    }
}
