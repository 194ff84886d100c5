//! A connection for verifications alone, for load that must cost its sender little.
//!
//! The general client ([`super::client`]) sends a request's head, then the message, then that
//! nothing follows: three writes, and as many packets for the service to receive. Here all leave
//! with one.

use std::fmt::Display;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use h2::SendStream;
use h2::client::{ResponseFuture, SendRequest};
use prost::Message as _;
use prost::bytes::{BufMut, Bytes};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore};
use tonic::codegen::http::uri::{PathAndQuery, Scheme};
use tonic::codegen::http::{HeaderMap, Request, StatusCode, Uri, header};
use tonic::{Code, Status};

use super::client::{CONNECT_TIMEOUT, ClientError, Reply, Target};
use super::proto;

/// What precedes a message: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 1 + size_of::<u32>();

/// A `VerifyRequest` that was encoded before it is sent.
#[derive(Debug, Clone)]
pub struct EncodedVerify(Bytes);

impl EncodedVerify {
    /// Encodes a request, or some of its fields.
    #[must_use]
    pub fn of(request: &proto::VerifyRequest) -> Self {
        Self(request.encode_to_vec().into())
    }

    /// What was encoded.
    #[must_use]
    pub fn decoded(&self) -> proto::VerifyRequest {
        proto::VerifyRequest::decode(self.0.clone()).unwrap_or_default()
    }
}

/// One connection, made anew when it is lost.
#[derive(Debug)]
pub struct VerifyClient {
    target: Target,
    method: Uri,
    requests: Mutex<SendRequest<Bytes>>,
}

impl VerifyClient {
    /// Connects.
    ///
    /// # Errors
    /// The address is wrong, the service is not there, or TLS fails.
    pub async fn connect(target: &Target) -> Reply<Self> {
        let wrong = |why: &dyn Display| {
            ClientError::from(Status::invalid_argument(format!("{}: {why}", target.url)))
        };
        let url: Uri = target.url.parse().map_err(|fault| wrong(&fault))?;
        let mut method = url.into_parts();
        method.path_and_query = Some(PathAndQuery::from_static("/assent.v1.Gate/Verify"));
        let method = Uri::from_parts(method).map_err(|fault| wrong(&fault))?;
        let requests = Mutex::new(open(target, &method).await?);
        Ok(Self { target: target.clone(), method, requests })
    }

    /// `Gate.Verify` with the fields of both `parts`, and a deadline that travels with the request.
    ///
    /// # Errors
    /// The service's refusal, or the deadline has passed.
    pub async fn verify(
        &self,
        parts: [EncodedVerify; 2],
        deadline: Duration,
    ) -> Reply<proto::VerifyResponse> {
        let head = Request::post(self.method.clone())
            .header(header::TE, "trailers")
            .header(header::CONTENT_TYPE, "application/grpc")
            .header("grpc-timeout", format!("{}m", deadline.as_millis().min(99_999_999)))
            .body(())
            .map_err(|fault| Status::invalid_argument(fault.to_string()))?;
        let late = |_elapsed| Err(Status::deadline_exceeded("no answer within the deadline"));
        let answered = async {
            let (answer, body) = self.ready().await?.send_request(head, false).map_err(lost)?;
            exchange(answer, body, framed(&parts)).await
        };
        Ok(timeout(deadline, answered).await.unwrap_or_else(late)?)
    }

    async fn ready(&self) -> Result<SendRequest<Bytes>, Status> {
        let requests = || self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        let old = requests().clone();
        if let Ok(ready) = old.ready().await {
            return Ok(ready);
        }
        let new = open(&self.target, &self.method).await?;
        *requests() = new.clone();
        new.ready().await.map_err(lost)
    }
}

/// Sends the message and hears the answer.
async fn exchange(
    answer: ResponseFuture,
    mut request: SendStream<Bytes>,
    message: Bytes,
) -> Result<proto::VerifyResponse, Status> {
    // A service that refuses the head alone takes no message; why it does is in its answer.
    let _taken = request.send_data(message, true);
    let (head, mut body) = answer.await.map_err(lost)?.into_parts();
    // A refusal has no message, and its status in the head.
    status_in(&head.headers)?;
    if head.status != StatusCode::OK {
        return Err(Status::unknown(format!("HTTP status {}", head.status)));
    }
    let mut answer = Vec::new();
    while let Some(piece) = body.data().await {
        let piece = piece.map_err(lost)?;
        body.flow_control().release_capacity(piece.len()).map_err(lost)?;
        answer.extend_from_slice(&piece);
    }
    let trailers = body.trailers().await.map_err(lost)?.unwrap_or_default();
    if !status_in(&trailers)? {
        return Err(Status::internal("an answer without a status"));
    }
    let message = answer.get(PREFIX_BYTES..);
    let message = message.ok_or_else(|| Status::internal("an answer without a message"))?;
    proto::VerifyResponse::decode(message)
        .map_err(|fault| Status::internal(format!("the answer is none: {fault}")))
}

/// Connects to where `method` is.
async fn open(target: &Target, method: &Uri) -> Result<SendRequest<Bytes>, Status> {
    let host = method.host().unwrap_or_default().trim_matches(['[', ']']);
    let is_tls = method.scheme() == Some(&Scheme::HTTPS);
    let port = method.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
    let connected = async {
        let socket = TcpStream::connect((host, port)).await?;
        socket.set_nodelay(true)?;
        if !is_tls {
            return over(socket).await;
        }
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        let tls = TlsConnector::from(Arc::new(tls(target).map_err(io::Error::other)?));
        over(tls.connect(name, socket).await?).await
    };
    let late = |_elapsed| Err(io::ErrorKind::TimedOut.into());
    timeout(CONNECT_TIMEOUT, connected)
        .await
        .unwrap_or_else(late)
        .map_err(|fault| Status::unavailable(format!("{} cannot be reached: {fault}", target.url)))
}

async fn over(
    transport: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> io::Result<SendRequest<Bytes>> {
    let (requests, connection) =
        h2::client::handshake(transport).await.map_err(io::Error::other)?;
    // Ends with the last of the clones. Whoever waits for an answer learns of a fault.
    tokio::spawn(async move { connection.await.unwrap_or_default() });
    Ok(requests)
}

/// Whether there is a status; an error where it is none of success.
fn status_in(headers: &HeaderMap) -> Result<bool, Status> {
    match Status::from_header_map(headers) {
        Some(status) if status.code() != Code::Ok => Err(status),
        status => Ok(status.is_some()),
    }
}

/// As protobuf has it: messages that name different fields, joined, are one that has them all.
fn framed(parts: &[EncodedVerify; 2]) -> Bytes {
    let length: usize = parts.iter().map(|EncodedVerify(part)| part.len()).sum();
    let mut message = Vec::with_capacity(PREFIX_BYTES + length);
    message.put_u8(0);
    message.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    for EncodedVerify(part) in parts {
        message.extend_from_slice(part);
    }
    message.into()
}

fn lost(fault: h2::Error) -> Status {
    if fault.is_io() || fault.is_go_away() {
        return Status::unavailable(fault.to_string());
    }
    Status::from_error(Box::new(fault))
}

fn tls(target: &Target) -> Result<ClientConfig, TlsFault> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(target.ca.as_deref().unwrap_or_default()) {
        roots.add(certificate?)?;
    }
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    let mut config = match &target.identity {
        None => config.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = CertificateDer::pem_slice_iter(certificate).collect::<Result<_, _>>()?;
            config.with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(key)?)?
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
enum TlsFault {
    #[error("a certificate or key is not PEM")]
    Pem(#[from] pem::Error),
    #[error(transparent)]
    Rustls(#[from] rustls::Error),
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    const EMPTY: EncodedVerify = EncodedVerify(Bytes::new());

    /// A refusal may overtake the message that it refuses.
    #[tokio::test]
    async fn a_refusal_of_the_head_alone_is_heard() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let service = tokio::spawn(async move {
            let (socket, _) = listener.accept().await.unwrap();
            let mut connection = h2::server::handshake(socket).await.unwrap();
            while let Some(request) = connection.accept().await {
                let (_, mut answer) = request.unwrap();
                let refusal = Status::unauthenticated("who are you?").into_http::<()>();
                answer.send_response(refusal, true).unwrap();
            }
        });
        let client = VerifyClient::connect(&Target { url, ..Target::default() }).await.unwrap();
        let head = Request::post(client.method.clone()).body(()).unwrap();
        let mut requests = client.ready().await.unwrap();
        let (answer, mut request) = requests.send_request(head, false).unwrap();
        std::future::poll_fn(|context| request.poll_reset(context)).await.unwrap();
        let refusal = exchange(answer, request, framed(&[EMPTY; 2])).await.unwrap_err();
        assert_eq!(refusal.code(), Code::Unauthenticated, "{refusal}");
        service.abort();
    }

    /// A service that is silent, then gone, then there again.
    #[tokio::test]
    async fn a_silent_service_costs_the_deadline_and_a_lost_connection_is_made_anew() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let target = Target { url, ..Target::default() };
        let (client, first) = tokio::join!(VerifyClient::connect(&target), listener.accept());
        let client = client.unwrap();
        let verify = async || {
            client.verify([EMPTY; 2], Duration::from_millis(100)).await.unwrap_err().code.name()
        };
        assert_eq!(verify().await, "DEADLINE_EXCEEDED");
        drop(first);
        // The loss is noticed by a request at the latest.
        let again = async { while verify().await != "DEADLINE_EXCEEDED" {} };
        let ((), second) = tokio::join!(again, listener.accept());
        drop((second, listener));
        while verify().await != "UNAVAILABLE" {}
        assert_eq!(verify().await, "UNAVAILABLE");
    }
}
