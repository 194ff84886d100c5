//! Bounded admission: a request that finds no room is refused at once, never queued unboundedly.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::codegen::http::HeaderValue;

use super::fault::Fault;

/// The header in which a caller says how long it waits.
pub(super) const TIMEOUT: &str = "grpc-timeout";

/// Places for requests in flight.
#[derive(Debug)]
pub(super) struct Admission {
    places: Arc<Semaphore>,
    limit: usize,
}

/// One place; free again when dropped.
#[derive(Debug)]
pub(super) struct Place {
    _permit: OwnedSemaphorePermit,
}

impl Admission {
    pub(super) fn new(limit: usize) -> Self {
        Self { places: Arc::new(Semaphore::new(limit)), limit }
    }

    /// A place, now or not at all.
    pub(super) fn enter(&self) -> Result<Place, Fault> {
        match Arc::clone(&self.places).try_acquire_owned() {
            Ok(permit) => Ok(Place { _permit: permit }),
            Err(_full) => Err(Fault::full()),
        }
    }

    /// A place as soon as there is one: for streams, whose flow control holds their sender back.
    pub(super) async fn wait(&self) -> Result<Place, Fault> {
        match Arc::clone(&self.places).acquire_owned().await {
            Ok(permit) => Ok(Place { _permit: permit }),
            Err(_closed) => Err(Fault::not_serving("the service is stopping")),
        }
    }

    /// Requests in flight.
    pub(super) fn in_flight(&self) -> usize {
        self.limit.saturating_sub(self.places.available_permits())
    }
}

/// How long the caller waits, if it says so.
pub(super) fn patience(header: Option<&HeaderValue>) -> Option<Duration> {
    header.and_then(|value| value.to_str().ok()).and_then(timeout)
}

/// `1*8DIGIT unit`, as the gRPC specification writes time-outs.
fn timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let n: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_hours(n)),
        "M" => Some(Duration::from_mins(n)),
        "S" => Some(Duration::from_secs(n)),
        "m" => Some(Duration::from_millis(n)),
        "u" => Some(Duration::from_micros(n)),
        "n" => Some(Duration::from_nanos(n)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_time_outs_as_the_specification_writes_them() {
        assert_eq!(timeout("250m"), Some(Duration::from_millis(250)));
        assert_eq!(timeout("99999999H"), Some(Duration::from_hours(99_999_999)));
        for bad in ["", "m", "123456789m", "-1S", "1x", "1", "é"] {
            assert_eq!(timeout(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_full_house_refuses_at_once_and_opens_again() {
        let admission = Admission::new(1);
        let place = admission.enter().unwrap();
        assert!(admission.enter().is_err());
        assert_eq!(admission.in_flight(), 1);
        drop(place);
        assert!(admission.enter().is_ok());
    }
}
