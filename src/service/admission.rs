//! Bounded admission: a request that finds no room is refused at once, never queued unboundedly.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::codegen::http::HeaderValue;

use super::fault::Fault;
use crate::types::Limits;

/// The header in which a caller says how long it waits.
pub(super) const TIMEOUT: &str = "grpc-timeout";

/// Places for requests in flight. Each kind has its own, so that no enrolment takes a gate's, and
/// no bulk enrolment, which waits for places, one that a single enrolment might have.
#[derive(Debug)]
pub(super) struct Admission {
    pub(super) gates: Places,
    pub(super) enrolments: Places,
    pub(super) bulk: Places,
}

impl Admission {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            gates: Places::new(limits.requests_in_flight),
            enrolments: Places::new(limits.enrolments_in_flight()),
            bulk: Places::new(limits.bulk_in_flight()),
        }
    }

    /// Requests in flight.
    pub(super) fn in_flight(&self) -> usize {
        [&self.gates, &self.enrolments, &self.bulk].map(Places::taken).iter().sum()
    }
}

/// Places for one kind of request.
#[derive(Debug)]
pub(super) struct Places {
    free: Arc<Semaphore>,
    limit: usize,
}

/// One place; free again when dropped.
#[derive(Debug)]
pub(super) struct Place {
    _permit: OwnedSemaphorePermit,
}

impl Places {
    fn new(limit: usize) -> Self {
        Self { free: Arc::new(Semaphore::new(limit)), limit }
    }

    /// A place, now or not at all.
    pub(super) fn enter(&self) -> Result<Place, Fault> {
        match Arc::clone(&self.free).try_acquire_owned() {
            Ok(permit) => Ok(Place { _permit: permit }),
            Err(_full) => Err(Fault::full()),
        }
    }

    /// A place as soon as there is one: for streams, whose flow control holds their sender back.
    pub(super) async fn wait(&self) -> Result<Place, Fault> {
        match Arc::clone(&self.free).acquire_owned().await {
            Ok(permit) => Ok(Place { _permit: permit }),
            Err(_closed) => Err(Fault::not_serving("the service is stopping")),
        }
    }

    fn taken(&self) -> usize {
        self.limit.saturating_sub(self.free.available_permits())
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
        let admission = Admission::new(&Limits { requests_in_flight: 1, ..Limits::default() });
        let place = admission.gates.enter().unwrap();
        assert!(admission.gates.enter().is_err());
        // The other kinds have places of their own.
        let others = [&admission.enrolments, &admission.bulk].map(|kind| kind.enter().unwrap());
        assert_eq!(admission.in_flight(), 3);
        drop(place);
        assert!(admission.gates.enter().is_ok());
        drop(others);
        assert_eq!(admission.in_flight(), 0);
    }
}
