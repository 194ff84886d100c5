//! redb answers some damage of its file with a panic; here it becomes an error.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use thiserror::Error;

/// The database's code panicked.
#[derive(Debug, Error)]
#[error("the database's code panicked: {0}")]
pub struct Panicked(String);

/// Runs `work`. Whatever it was working on is not to be used after an error: it may be half done.
pub(super) fn catch<T>(work: impl FnOnce() -> T) -> Result<T, Panicked> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|payload| Panicked(message(&*payload)))
}

fn message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| payload.downcast_ref().cloned()).unwrap_or_else(|| "no message".to_owned())
}
