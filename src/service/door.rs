//! The caller's deadline, for every RPC: DEADLINE_EXCEEDED as soon as it passes, whatever the
//! handler waits for.
//!
//! tonic has a time-out of its own, which answers CANCELLED and lies outside every service, where
//! nobody names a gate's other ways in (G1). Ours is begun before it and is looked at before it,
//! so it always speaks first.

use std::convert::Infallible;
use std::task::{Context, Poll};

use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::server::NamedService;

use super::admission;
use super::fault::Fault;

/// Wraps one service.
#[derive(Debug, Clone)]
pub(super) struct InTime<S>(pub(super) S);

impl<S: NamedService> NamedService for InTime<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<http::Request<Body>> for InTime<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let patience = admission::patience(request.headers().get(admission::TIMEOUT));
        let late = patience.map(tokio::time::sleep);
        let answer = self.0.call(request);
        Box::pin(async move {
            let Some(late) = late else { return answer.await };
            tokio::select! {
                biased;
                response = answer => response,
                () = late => Ok(Fault::late().into_status().into_http()),
            }
        })
    }
}
