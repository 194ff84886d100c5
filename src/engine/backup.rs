//! A backup on its way out.

use std::sync::Arc;

use futures_util::{Stream, StreamExt, stream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::Engine;
use crate::store::StoreError;

/// Pieces that may wait for the caller.
const PIECES_AHEAD: usize = 4;

impl Engine {
    /// The pieces of a backup (`store/backup`), made beside the requests. It ends when nobody takes
    /// the pieces any more.
    pub fn backup(
        self: &Arc<Self>,
    ) -> impl Stream<Item = Result<Vec<u8>, StoreError>> + Send + use<> {
        let (pieces, taken) = mpsc::channel(PIECES_AHEAD);
        let engine = Arc::clone(self);
        let making = async move { engine.store.backup(pieces).await };
        let making = tokio::spawn(self.tasks.track_future(making));
        let end = stream::once(async move { making.await.unwrap_or_else(|gone| Err(gone.into())) });
        // All is well when the pieces have ended and so has the work; else the caller must know.
        let fault = end.filter_map(async |end| end.err().map(Err));
        ReceiverStream::new(taken).map(Ok).chain(fault)
    }
}
