//! What the four services share: the engine once it is ready, callers, admission.

use std::future::Future;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::{Either, ready};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tokio_util::task::AbortOnDropHandle;
use tonic::codegen::http::Extensions;
use tonic::{Code, Request, Status};

use super::Rpc;
use super::access::access;
use super::admission::Admission;
use super::caller::{Caller, Callers};
use super::door::Admitted;
use super::fault::Fault;
use crate::engine::Engine;
use crate::telemetry::{self, Rejected};
use crate::types::Limits;

/// Where the process is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// Models load, the store opens, the index is built.
    Starting = 0,
    /// Answers.
    Serving = 1,
    /// Finishes what it has begun.
    Draining = 2,
    /// A fault leaves the store or the pipeline in doubt.
    Failed = 3,
}

impl Phase {
    /// As `Operator.Status` says it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Serving => "serving",
            Self::Draining => "draining",
            Self::Failed => "failed",
        }
    }
}

/// State of all services of one process.
#[derive(Debug)]
pub struct Shared {
    engine: OnceLock<Ready>,
    phase: AtomicU8,
    callers: Callers,
    pub(super) admission: Admission,
    default_deadline: Duration,
    leaving: CancellationToken,
}

/// The engine has no `Debug` of its own: it holds templates and keys.
struct Ready(Arc<Engine>);

impl std::fmt::Debug for Ready {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Engine")
    }
}

impl Shared {
    /// Not serving yet.
    #[must_use]
    pub fn new(callers: Callers, limits: &Limits) -> Arc<Self> {
        Arc::new(Self {
            engine: OnceLock::new(),
            phase: AtomicU8::new(Phase::Starting as u8),
            callers,
            admission: Admission::new(limits),
            default_deadline: Duration::from_millis(limits.default_deadline_ms),
            leaving: CancellationToken::new(),
        })
    }

    /// Begins to serve. A second engine is ignored.
    pub fn serve(&self, engine: Arc<Engine>) {
        if self.engine.set(Ready(engine)).is_ok() {
            self.enter(Phase::Serving);
        }
    }

    /// Enters a later phase of life; there is no way back.
    pub fn enter(&self, phase: Phase) {
        self.phase.fetch_max(phase as u8, Ordering::AcqRel);
        if matches!(self.phase(), Phase::Draining | Phase::Failed) {
            self.leaving.cancel();
        }
    }

    /// Where the process is.
    #[must_use]
    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Starting,
            1 => Phase::Serving,
            2 => Phase::Draining,
            _ => Phase::Failed,
        }
    }

    /// Requests in flight.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.admission.in_flight()
    }

    /// The caller of a request of which only the head is here, if it may call `rpc`.
    pub(super) fn admit_head(&self, rpc: Rpc, head: &Extensions) -> Result<Caller, Fault> {
        let admitted = self.callers.admit(access(rpc), head);
        if let Err(fault) = &admitted {
            let unknown = fault.code() == Code::Unauthenticated;
            let reason = if unknown { Rejected::Unauthenticated } else { Rejected::Forbidden };
            telemetry::rejected(reason);
        }
        admitted
    }

    /// The caller that the door admitted to `rpc`. Nobody, where it admitted nobody to it.
    #[expect(clippy::unused_self, reason = "no caller without the state that knows the callers")]
    pub(super) fn admit<T>(&self, rpc: Rpc, request: &Request<T>) -> Result<Caller, Fault> {
        let admitted = request.extensions().get::<Admitted>().filter(|found| found.rpc == rpc);
        let admitted = admitted.ok_or_else(|| Fault::unauthenticated("not admitted"))?;
        Ok(admitted.caller.clone())
    }

    /// Opens a stream: refused where it would end at once; else what ends it when the service
    /// stops serving.
    pub(super) fn open_stream(&self) -> Result<WaitForCancellationFutureOwned, Fault> {
        if self.leaving.is_cancelled() {
            self.engine()?;
        }
        Ok(self.leaving.clone().cancelled_owned())
    }

    /// The engine, while it serves.
    pub(super) fn engine(&self) -> Result<&Arc<Engine>, Fault> {
        let refusal = match (self.phase(), self.engine.get()) {
            (Phase::Serving, Some(Ready(engine))) if engine.is_healthy() => return Ok(engine),
            (Phase::Draining, _) => "the service is stopping",
            (Phase::Failed, _) | (Phase::Serving, Some(_)) => {
                "the service has stopped after a fault; see its log"
            }
            (Phase::Starting | Phase::Serving, _) => "the service is starting",
        };
        telemetry::rejected(Rejected::NotServing);
        Err(Fault::not_serving(refusal))
    }

    /// The engine for a revocation: it goes on while the service drains.
    pub(super) fn engine_for_revocation(&self) -> Result<&Arc<Engine>, Fault> {
        self.opened().map_or_else(|| self.engine(), Ok)
    }

    /// The engine once it was opened, whether it serves or not; asking counts as no refusal.
    pub(super) fn opened(&self) -> Option<&Arc<Engine>> {
        self.engine.get().map(|Ready(engine)| engine)
    }

    /// When the handler of a request gives up.
    pub(super) fn deadline<T>(&self, request: &Request<T>) -> Instant {
        let admitted = request.extensions().get::<Admitted>();
        admitted.map_or_else(|| Instant::now() + self.default_deadline, |found| found.deadline)
    }

    pub(super) fn default_deadline(&self) -> Duration {
        self.default_deadline
    }
}

/// Runs a handler, counts its outcome, and turns a fault into a status.
pub(super) async fn observed<T>(
    rpc: Rpc,
    work: impl Future<Output = Result<T, Fault>>,
) -> Result<tonic::Response<T>, Status> {
    let begun = Instant::now();
    let outcome = work.await;
    let code = outcome.as_ref().map_or_else(Fault::code, |_| Code::Ok);
    telemetry::request(rpc.name(), code_name(code), begun.elapsed());
    outcome.map(tonic::Response::new).map_err(Fault::into_status)
}

/// One answer of a stream, begun here, in the stream's order, and then worked on whether or not
/// anybody reads answers: what waits for its reader holds no place. It ends with its stream.
pub(super) fn working<T: Send + 'static>(
    answer: impl Future<Output = Result<T, Status>> + Send + 'static,
) -> impl Future<Output = Result<T, Status>> {
    let mut answer = Box::pin(answer);
    if let Some(answered) = answer.as_mut().now_or_never() {
        return Either::Left(ready(answered));
    }
    let rest = AbortOnDropHandle::new(tokio::spawn(answer));
    let failed = |fault| Err(Fault::internal(&fault).into_status());
    Either::Right(rest.map(move |ended| ended.unwrap_or_else(failed)))
}

/// A request that is answered without its handler: counted, and turned into a status.
pub(super) fn refused(rpc: Rpc, fault: Fault) -> Status {
    telemetry::request(rpc.name(), code_name(fault.code()), Duration::ZERO);
    fault.into_status()
}

/// The code as the gRPC specification writes it.
pub(super) const fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
