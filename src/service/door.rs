//! The door of every RPC: who calls and until when is settled from the head of a request, before
//! a byte of its body is read.
//!
//! # Invariants
//! - A body that is read leaves nothing in the connection's buffer ([`moved_out`]).
//! - Whoever may not call is refused here; what such a caller sends is never buffered.
//! - A unary call has a deadline from its first byte on: the caller's, or the default. Streams live
//!   as long as they are used; their items have deadlines of their own.
//! - A handler's deadline lies [`HEAD_START`] before the caller's, so that the handler, which knows
//!   the gate, speaks first; then this door; and last of all tonic's own time-out, which answers
//!   CANCELLED and lies outside every service, where nobody names another way in (G1).

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::server::NamedService;

use super::Rpc;
use super::admission;
use super::caller::Caller;
use super::fault::Fault;
use super::shared::{Shared, refused};
use super::wiped_body::moved_out;

/// How long before the caller's deadline a handler gives up.
const HEAD_START: Duration = Duration::from_millis(5);
/// Where the paths of our package begin.
const PACKAGE: &str = "/assent.v1.";

/// What the door found out, for the handler.
#[derive(Debug, Clone)]
pub(super) struct Admitted {
    /// What it was admitted to.
    pub(super) rpc: Rpc,
    /// The caller.
    pub(super) caller: Caller,
    /// When the handler gives up.
    pub(super) deadline: Instant,
}

/// Stands before one service.
#[derive(Debug, Clone)]
pub(super) struct Door<S> {
    service: S,
    shared: Arc<Shared>,
}

impl<S> Door<S> {
    pub(super) fn new(service: S, shared: &Arc<Shared>) -> Self {
        Self { service, shared: Arc::clone(shared) }
    }
}

impl<S: NamedService> NamedService for Door<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<http::Request<Body>> for Door<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.service.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        // A path that is none of ours: the service says so without reading on.
        let Some(rpc) = rpc_of(request.uri().path()) else {
            return Box::pin(self.service.call(request));
        };
        let caller = match self.shared.admit_head(rpc, request.extensions()) {
            Ok(caller) => caller,
            Err(fault) => {
                let response = refused(rpc, fault).into_http();
                return Box::pin(std::future::ready(Ok(response)));
            }
        };
        let asked = admission::patience(request.headers().get(admission::TIMEOUT));
        let patience = asked.unwrap_or(self.shared.default_deadline());
        let deadline = Instant::now() + patience.saturating_sub(HEAD_START);
        request.extensions_mut().insert(Admitted { rpc, caller, deadline });
        let late = (asked.is_some() || !is_stream(rpc)).then(|| tokio::time::sleep(patience));
        let answer = self.service.call(request.map(moved_out));
        Box::pin(async move {
            let Some(late) = late else { return answer.await };
            tokio::select! {
                biased;
                response = answer => response,
                () = late => Ok(refused(rpc, Fault::late()).into_http()),
            }
        })
    }
}

/// The RPC of a path such as `/assent.v1.Gate/Verify`.
fn rpc_of(path: &str) -> Option<Rpc> {
    let (service, method) = path.strip_prefix(PACKAGE)?.split_once('/')?;
    Rpc::ALL.iter().copied().find(|rpc| rpc.name().split_once('.') == Some((service, method)))
}

const fn is_stream(rpc: Rpc) -> bool {
    matches!(rpc, Rpc::GateVerifyStream | Rpc::EnrollmentEnrollStream)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_finds_its_rpc_and_no_other_does() {
        for rpc in Rpc::ALL.iter().copied() {
            let path = format!("{PACKAGE}{}", rpc.name().replace('.', "/"));
            assert_eq!(rpc_of(&path), Some(rpc));
            assert_eq!(is_stream(rpc), rpc.name().ends_with("Stream"));
        }
        for path in ["/", "/assent.v1.Gate", "/assent.v1.Gate/", "/assent.v1.Gate.Verify", "*"] {
            assert_eq!(rpc_of(path), None, "{path}");
        }
    }
}
