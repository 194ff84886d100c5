//! A client of the service, for the command line, the demo and the tests.

use std::fmt;
use std::time::Duration;

use futures_util::Stream;
use prost::Message as _;
use thiserror::Error;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Request, Status, Streaming};
use tonic_types::pb;

use super::proto;
use super::shared::code_name;

/// Longest wait for a connection.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest answer that is taken: more than the largest policy that a service can be set to take.
const MOST_ANSWER_BYTES: usize = 80 << 20;

/// Where the service is and how to prove who calls.
#[derive(Debug, Clone, Default)]
pub struct Target {
    /// `https://host:port`, or `http://host:port` for plaintext on loopback.
    pub url: String,
    /// PEM of the authority that signed the server's certificate.
    pub ca: Option<Vec<u8>>,
    /// PEM of the caller's certificate and key.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
}

/// The service said no, or could not be reached.
#[derive(Debug, Clone, Error)]
#[error("{message}")]
pub struct ClientError {
    /// The gRPC status code.
    pub code: ErrorCode,
    /// What the service said.
    pub message: String,
    /// The gate's other ways in, where a gate asked.
    pub alternatives: Vec<proto::Alternative>,
    /// The field at fault, where one is.
    pub field: Option<String>,
    /// The stable reason of a failed precondition.
    pub reason: Option<String>,
    /// When to try again.
    pub retry_after: Option<Duration>,
    /// What the service said, in Chinese.
    pub zh: Option<String>,
}

/// A gRPC status code.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ErrorCode(Code);

impl ErrorCode {
    /// As the gRPC specification writes it, such as "INVALID_ARGUMENT".
    #[must_use]
    pub fn name(self) -> &'static str {
        code_name(self.0)
    }
}

impl fmt::Debug for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl From<Status> for ClientError {
    fn from(status: Status) -> Self {
        let mut this = Self {
            code: ErrorCode(status.code()),
            message: status.message().to_owned(),
            alternatives: Vec::new(),
            field: None,
            reason: None,
            retry_after: None,
            zh: None,
        };
        let details = pb::Status::decode(status.details()).unwrap_or_default().details;
        for detail in details {
            this.read(&detail);
        }
        this
    }
}

impl ClientError {
    fn read(&mut self, detail: &prost_types::Any) {
        let bytes = detail.value.as_slice();
        match detail.type_url.rsplit('/').next() {
            Some("assent.v1.Alternatives") => {
                let found = proto::Alternatives::decode(bytes).unwrap_or_default();
                self.alternatives = found.alternatives;
            }
            Some("google.rpc.BadRequest") => {
                let found = pb::BadRequest::decode(bytes).unwrap_or_default();
                self.field = found.field_violations.into_iter().next().map(|v| v.field);
            }
            Some("google.rpc.PreconditionFailure") => {
                let found = pb::PreconditionFailure::decode(bytes).unwrap_or_default();
                if let Some(violation) = found.violations.into_iter().next() {
                    self.field = Some(violation.subject);
                    self.reason = Some(violation.r#type);
                }
            }
            Some("google.rpc.LocalizedMessage") => {
                let found = pb::LocalizedMessage::decode(bytes).unwrap_or_default();
                self.zh = Some(found.message);
            }
            Some("google.rpc.RetryInfo") => {
                let found = pb::RetryInfo::decode(bytes).unwrap_or_default();
                self.retry_after = found.retry_delay.and_then(|d| Duration::try_from(d).ok());
            }
            _ => {}
        }
    }

    fn unreachable(url: &str, fault: &tonic::transport::Error) -> Self {
        let cause = std::error::Error::source(fault).map(ToString::to_string).unwrap_or_default();
        Status::unavailable(format!("{url} cannot be reached: {fault} {cause}")).into()
    }
}

/// A connected client.
#[derive(Debug, Clone)]
pub struct Client {
    channel: Channel,
}

pub(super) type Reply<T> = Result<T, ClientError>;

macro_rules! unary {
    ($($(#[$doc:meta])* $name:ident, $client:ident, $service:ident, $in:ident -> $out:ident;)*) => {
        $(
            $(#[$doc])*
            ///
            /// # Errors
            /// The service's refusal.
            pub async fn $name(&self, request: proto::$in) -> Reply<proto::$out> {
                let mut client = proto::$client::$service::new(self.channel.clone())
            .max_decoding_message_size(MOST_ANSWER_BYTES);
                Ok(client.$name(request).await?.into_inner())
            }
        )*
    };
}

impl Client {
    /// Connects.
    ///
    /// # Errors
    /// The address is wrong, the service is not there, or TLS fails.
    pub async fn connect(target: &Target) -> Reply<Self> {
        let wrong = |fault: &tonic::transport::Error| {
            ClientError::from(Status::invalid_argument(format!("{}: {fault}", target.url)))
        };
        let mut endpoint = Endpoint::from_shared(target.url.clone())
            .map_err(|fault| wrong(&fault))?
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true);
        if target.url.starts_with("https:") {
            endpoint = endpoint.tls_config(tls(target)).map_err(|fault| wrong(&fault))?;
        }
        let channel = endpoint
            .connect()
            .await
            .map_err(|fault| ClientError::unreachable(&target.url, &fault))?;
        Ok(Self { channel })
    }

    unary! {
        /// `Gate.Verify`.
        verify, gate_client, GateClient, VerifyRequest -> VerifyResponse;
        /// `Gate.ReportAlternative`.
        report_alternative, gate_client, GateClient,
            ReportAlternativeRequest -> ReportAlternativeResponse;
        /// `Notices.GetMessages`.
        get_messages, notices_client, NoticesClient, GetMessagesRequest -> GetMessagesResponse;
        /// `Operator.ClearLockout`.
        clear_lockout, operator_client, OperatorClient,
            ClearLockoutRequest -> ClearLockoutResponse;
        /// `Enrollment.Enroll`.
        enroll, enrollment_client, EnrollmentClient, EnrollRequest -> EnrollResponse;
        /// `Enrollment.Revoke`.
        revoke, enrollment_client, EnrollmentClient, RevokeRequest -> RevokeResponse;
        /// `Enrollment.DescribeSubject`.
        describe_subject, enrollment_client, EnrollmentClient,
            DescribeSubjectRequest -> DescribeSubjectResponse;
        /// `Operator.ApplyPolicy`.
        apply_policy, operator_client, OperatorClient, ApplyPolicyRequest -> ApplyPolicyResponse;
        /// `Operator.ReadPolicy`.
        read_policy, operator_client, OperatorClient, ReadPolicyRequest -> ReadPolicyResponse;
        /// `Operator.Status`.
        status, operator_client, OperatorClient, StatusRequest -> StatusResponse;
        /// `Operator.FilingStatus`.
        filing_status, operator_client, OperatorClient,
            FilingStatusRequest -> FilingStatusResponse;
        /// `Operator.MarkFiled`.
        mark_filed, operator_client, OperatorClient, MarkFiledRequest -> MarkFiledResponse;
        /// `Notices.GetNotice`.
        get_notice, notices_client, NoticesClient, GetNoticeRequest -> GetNoticeResponse;
        /// `Notices.GetRetentionPolicy`.
        get_retention_policy, notices_client, NoticesClient,
            GetRetentionPolicyRequest -> GetRetentionPolicyResponse;
    }

    /// `Gate.Verify` with a deadline that travels with the request.
    ///
    /// # Errors
    /// The service's refusal.
    pub async fn verify_within(
        &self,
        request: proto::VerifyRequest,
        timeout: Duration,
    ) -> Reply<proto::VerifyResponse> {
        let mut request = Request::new(request);
        request.set_timeout(timeout);
        let mut client = proto::gate_client::GateClient::new(self.channel.clone())
            .max_decoding_message_size(MOST_ANSWER_BYTES);
        Ok(client.verify(request).await?.into_inner())
    }

    /// `Gate.VerifyStream`.
    ///
    /// # Errors
    /// The service's refusal of the stream.
    pub async fn verify_stream(
        &self,
        requests: impl Stream<Item = proto::VerifyRequest> + Send + 'static,
    ) -> Reply<Answers<proto::VerifyStreamResponse>> {
        let mut client = proto::gate_client::GateClient::new(self.channel.clone())
            .max_decoding_message_size(MOST_ANSWER_BYTES);
        Ok(Answers(client.verify_stream(requests).await?.into_inner()))
    }

    /// `Enrollment.EnrollStream`.
    ///
    /// # Errors
    /// The service's refusal of the stream.
    pub async fn enroll_stream(
        &self,
        requests: impl Stream<Item = proto::EnrollRequest> + Send + 'static,
    ) -> Reply<Answers<proto::EnrollStreamResponse>> {
        let mut client = proto::enrollment_client::EnrollmentClient::new(self.channel.clone())
            .max_decoding_message_size(MOST_ANSWER_BYTES);
        Ok(Answers(client.enroll_stream(requests).await?.into_inner()))
    }

    /// `Operator.ExportAudit`.
    ///
    /// # Errors
    /// The service's refusal.
    pub async fn export_audit(
        &self,
        request: proto::ExportAuditRequest,
    ) -> Reply<Answers<proto::ExportAuditResponse>> {
        let mut client = proto::operator_client::OperatorClient::new(self.channel.clone())
            .max_decoding_message_size(MOST_ANSWER_BYTES);
        Ok(Answers(client.export_audit(request).await?.into_inner()))
    }

    /// `Operator.CollectEvidence`.
    ///
    /// # Errors
    /// The service's refusal.
    pub async fn collect_evidence(
        &self,
        request: proto::CollectEvidenceRequest,
    ) -> Reply<Answers<proto::CollectEvidenceResponse>> {
        let mut client = proto::operator_client::OperatorClient::new(self.channel.clone())
            .max_decoding_message_size(MOST_ANSWER_BYTES);
        Ok(Answers(client.collect_evidence(request).await?.into_inner()))
    }

    /// `Operator.Backup`.
    ///
    /// # Errors
    /// The service's refusal.
    pub async fn backup(
        &self,
        request: proto::BackupRequest,
    ) -> Reply<Answers<proto::BackupResponse>> {
        let mut client = proto::operator_client::OperatorClient::new(self.channel.clone())
            .max_decoding_message_size(MOST_ANSWER_BYTES);
        Ok(Answers(client.backup(request).await?.into_inner()))
    }

    /// `Operator.ConfirmClock`.
    ///
    /// # Errors
    /// The service's refusal.
    pub async fn confirm_clock(
        &self,
        request: proto::ConfirmClockRequest,
    ) -> Reply<proto::ConfirmClockResponse> {
        let mut client = proto::operator_client::OperatorClient::new(self.channel.clone())
            .max_decoding_message_size(MOST_ANSWER_BYTES);
        Ok(client.confirm_clock(request).await?.into_inner())
    }

    /// `Operator.RotateKeys`.
    ///
    /// # Errors
    /// The service's refusal.
    pub async fn rotate_keys(
        &self,
        request: proto::RotateKeysRequest,
    ) -> Reply<proto::RotateKeysResponse> {
        let mut client = proto::operator_client::OperatorClient::new(self.channel.clone())
            .max_decoding_message_size(MOST_ANSWER_BYTES);
        Ok(client.rotate_keys(request).await?.into_inner())
    }

    /// Whether `service` ("" for the whole process) is SERVING.
    ///
    /// # Errors
    /// The service's refusal.
    pub async fn is_serving(&self, service: &str) -> Reply<bool> {
        use tonic_health::pb;
        let mut client = pb::health_client::HealthClient::new(self.channel.clone());
        let request = pb::HealthCheckRequest { service: service.to_owned() };
        let status = client.check(request).await?.into_inner().status;
        Ok(status == pb::health_check_response::ServingStatus::Serving as i32)
    }
}

/// Answers of a stream.
#[derive(Debug)]
pub struct Answers<T>(Streaming<T>);

impl<T> Answers<T> {
    /// The next answer; `None` at the end.
    ///
    /// # Errors
    /// The stream broke.
    pub async fn next(&mut self) -> Reply<Option<T>> {
        Ok(self.0.message().await?)
    }
}

fn tls(target: &Target) -> ClientTlsConfig {
    let mut config = ClientTlsConfig::new();
    if let Some(ca) = &target.ca {
        config = config.ca_certificate(Certificate::from_pem(ca));
    }
    if let Some((certificate, key)) = &target.identity {
        config = config.identity(Identity::from_pem(certificate, key));
    }
    config
}
