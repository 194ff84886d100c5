//! A connection for verifications alone, for load that must cost its sender little.
//!
//! The general client ([`super::client`]) sends a request's head, waits until it is written, and
//! sends the message then: two writes, and two packets for the service to receive. Here both leave
//! with one.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use h2::client::SendRequest;
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
use tonic::codegen::http::{Request, Uri, header};
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

/// One connection.
#[derive(Debug, Clone)]
pub struct VerifyClient {
    requests: SendRequest<Bytes>,
    method: Uri,
}

impl VerifyClient {
    /// Connects.
    ///
    /// # Errors
    /// The address is wrong, the service is not there, or TLS fails.
    pub async fn connect(target: &Target) -> Reply<Self> {
        let wrong = |why: &dyn std::fmt::Display| {
            ClientError::from(Status::invalid_argument(format!("{}: {why}", target.url)))
        };
        let url: Uri = target.url.parse().map_err(|fault| wrong(&fault))?;
        let (Some(host), Some(authority)) = (url.host(), url.authority()) else {
            return Err(wrong(&"names no host"));
        };
        let is_tls = url.scheme_str() == Some("https");
        let port = url.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let method = Uri::builder()
            .scheme(if is_tls { "https" } else { "http" })
            .authority(authority.clone())
            .path_and_query("/assent.v1.Gate/Verify")
            .build()
            .map_err(|fault| wrong(&fault))?;
        let connected = async {
            let bare = host.trim_start_matches('[').trim_end_matches(']');
            let socket = TcpStream::connect((bare, port)).await?;
            socket.set_nodelay(true)?;
            if !is_tls {
                return Self::over(socket, method).await;
            }
            let name = ServerName::try_from(bare.to_owned()).map_err(io::Error::other)?;
            let tls = TlsConnector::from(Arc::new(tls(target).map_err(io::Error::other)?));
            Self::over(tls.connect(name, socket).await?, method).await
        };
        let late = |_elapsed| Err(io::ErrorKind::TimedOut.into());
        timeout(CONNECT_TIMEOUT, connected).await.unwrap_or_else(late).map_err(|fault| {
            Status::unavailable(format!("{} cannot be reached: {fault}", target.url)).into()
        })
    }

    async fn over(
        transport: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        method: Uri,
    ) -> io::Result<Self> {
        let (requests, connection) =
            h2::client::handshake(transport).await.map_err(io::Error::other)?;
        // Ends with the last of the clones. Whoever waits for an answer learns of a fault.
        tokio::spawn(async move { connection.await.unwrap_or_default() });
        Ok(Self { requests, method })
    }

    /// `Gate.Verify` with the fields of both `parts`, and a deadline that travels with the request.
    ///
    /// # Errors
    /// The service's refusal.
    pub async fn verify(
        &self,
        parts: [EncodedVerify; 2],
        timeout: Duration,
    ) -> Reply<proto::VerifyResponse> {
        let head = Request::post(self.method.clone())
            .header(header::TE, "trailers")
            .header(header::CONTENT_TYPE, "application/grpc")
            .header("grpc-timeout", format!("{}m", timeout.as_millis().min(99_999_999)))
            .body(())
            .map_err(|fault| Status::invalid_argument(fault.to_string()))?;
        Ok(self.exchange(head, framed(&parts)).await?)
    }

    async fn exchange(
        &self,
        head: Request<()>,
        message: Bytes,
    ) -> Result<proto::VerifyResponse, Status> {
        let mut requests = self.requests.clone().ready().await.map_err(lost)?;
        let (answer, mut body) = requests.send_request(head, false).map_err(lost)?;
        body.send_data(message, true).map_err(lost)?;
        let (head, mut body) = answer.await.map_err(lost)?.into_parts();
        if let Some(status) = Status::from_header_map(&head.headers) {
            // A refusal has no message.
            return Err(status);
        }
        let mut answer = Vec::new();
        while let Some(piece) = body.data().await {
            let piece = piece.map_err(lost)?;
            body.flow_control().release_capacity(piece.len()).map_err(lost)?;
            answer.extend_from_slice(&piece);
        }
        let trailers = body.trailers().await.map_err(lost)?.unwrap_or_default();
        match Status::from_header_map(&trailers) {
            Some(status) if status.code() == Code::Ok => {}
            Some(status) => return Err(status),
            None => return Err(Status::internal("an answer without a status")),
        }
        let message = answer.get(PREFIX_BYTES..).unwrap_or_default();
        proto::VerifyResponse::decode(message)
            .map_err(|fault| Status::internal(format!("the answer is none: {fault}")))
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

#[expect(clippy::needless_pass_by_value, reason = "for `map_err`")]
fn lost(fault: h2::Error) -> Status {
    Status::unavailable(fault.to_string())
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
