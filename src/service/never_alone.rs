//! A face is never the only way in, not even where our handlers are not reached: messages that are
//! too large or malformed are refused by the transport, and this names other ways there too (G1).

use std::convert::Infallible;
use std::task::{Context, Poll};

use prost::Message as _;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::server::NamedService;
use tonic_types::pb;

use super::fault::Fault;
use super::to_wire;
use crate::consent::{Alternatives, Down};

/// Wraps the `Gate` service.
#[derive(Debug, Clone)]
pub(super) struct NeverFaceAlone<S>(pub(super) S);

impl<S: NamedService> NamedService for NeverFaceAlone<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<http::Request<Body>> for NeverFaceAlone<S>
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
        let answer = self.0.call(request);
        Box::pin(async move {
            let mut response = answer.await?;
            name_other_ways(response.headers_mut());
            Ok(response)
        })
    }
}

/// Whether the error's details have ways in among them.
fn names_other_ways(status: &Status) -> bool {
    let details = pb::Status::decode(status.details()).unwrap_or_default().details;
    details.iter().any(|detail| detail.type_url.ends_with("assent.v1.Alternatives"))
}

/// Adds the deployment's fallback to an error that names no way in.
fn name_other_ways(headers: &mut http::HeaderMap) {
    let Some(status) = Status::from_header_map(headers) else { return };
    if status.code() == tonic::Code::Ok || names_other_ways(&status) {
        return;
    }
    let ways = to_wire::alternatives(&Alternatives::fallback(), Down::default());
    let named = Fault::of_transport(&status).with_alternatives(ways).into_status();
    if named.add_header(headers).is_err() {
        tracing::error!("an error left without the other ways in");
    }
}
