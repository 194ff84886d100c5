//! The `Operator` service.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::{Stream, StreamExt};
use tonic::{Request, Response, Status};

use super::fault::Fault;
use super::proto::{self, operator_server::Operator};
use super::shared::{Shared, observed};
use super::{Rpc, filing, from_wire, to_wire};
use crate::engine::{Applied, EvidenceAbout};

pub(super) struct OperatorService(Arc<Shared>);

impl OperatorService {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self(shared)
    }
}

#[tonic::async_trait]
impl Operator for OperatorService {
    async fn apply_policy(
        &self,
        request: Request<proto::ApplyPolicyRequest>,
    ) -> Result<Response<proto::ApplyPolicyResponse>, Status> {
        observed(Rpc::OperatorApplyPolicy, async {
            self.0.admit(Rpc::OperatorApplyPolicy, &request)?;
            let engine = self.0.engine()?;
            let proto::ApplyPolicyRequest { toml, dry_run } = request.into_inner();
            let limit = engine.limits().policy_bytes;
            if toml.len() > limit {
                return Err(Fault::field("toml", format!("is longer than {limit} bytes")));
            }
            let applied = engine.apply(&toml, dry_run).await?;
            let Applied { changes, revision, warnings } = applied;
            let changes = changes.into_iter().map(proto::PolicyChange::from).collect();
            let (warnings, warnings_zh) = warnings.into_iter().map(<(_, _)>::from).unzip();
            Ok(proto::ApplyPolicyResponse { changes, revision: revision.0, warnings, warnings_zh })
        })
        .await
    }

    async fn read_policy(
        &self,
        request: Request<proto::ReadPolicyRequest>,
    ) -> Result<Response<proto::ReadPolicyResponse>, Status> {
        observed(Rpc::OperatorReadPolicy, async {
            self.0.admit(Rpc::OperatorReadPolicy, &request)?;
            let (toml, revision) = self.0.engine()?.read_policy();
            Ok(proto::ReadPolicyResponse { toml, revision: revision.0 })
        })
        .await
    }

    type ExportAuditStream =
        Pin<Box<dyn Stream<Item = Result<proto::ExportAuditResponse, Status>> + Send>>;

    async fn export_audit(
        &self,
        request: Request<proto::ExportAuditRequest>,
    ) -> Result<Response<Self::ExportAuditStream>, Status> {
        observed(Rpc::OperatorExportAudit, async {
            self.0.admit(Rpc::OperatorExportAudit, &request)?;
            let engine = self.0.engine()?;
            let end = self.0.open_stream()?;
            let proto::ExportAuditRequest { after_seq, digests_only } = request.into_inner();
            let pieces = engine.export_audit(after_seq, digests_only).take_until(end);
            let pieces = pieces.map(|piece| match piece {
                Ok(lines) => Ok(proto::ExportAuditResponse { lines }),
                Err(fault) => Err(Fault::internal(&fault).into_status()),
            });
            Ok(Box::pin(pieces) as Self::ExportAuditStream)
        })
        .await
    }

    type CollectEvidenceStream =
        Pin<Box<dyn Stream<Item = Result<proto::CollectEvidenceResponse, Status>> + Send>>;

    async fn collect_evidence(
        &self,
        request: Request<proto::CollectEvidenceRequest>,
    ) -> Result<Response<Self::CollectEvidenceStream>, Status> {
        observed(Rpc::OperatorCollectEvidence, async {
            self.0.admit(Rpc::OperatorCollectEvidence, &request)?;
            let engine = self.0.engine()?;
            let about = from_wire::evidence(request.into_inner())?;
            if let EvidenceAbout::Subject { controller, .. } = &about
                && !engine.knows_controller(controller)
            {
                return Err(Fault::field("subject.controller_id", "no such controller"));
            }
            let end = self.0.open_stream()?;
            let pieces = engine.collect_evidence(about).take_until(end).map(|piece| match piece {
                Ok(piece) => Ok(piece.into()),
                Err(fault) => Err(Fault::internal(&fault).into_status()),
            });
            Ok(Box::pin(pieces) as Self::CollectEvidenceStream)
        })
        .await
    }

    type BackupStream = Pin<Box<dyn Stream<Item = Result<proto::BackupResponse, Status>> + Send>>;

    async fn backup(
        &self,
        request: Request<proto::BackupRequest>,
    ) -> Result<Response<Self::BackupStream>, Status> {
        observed(Rpc::OperatorBackup, async {
            self.0.admit(Rpc::OperatorBackup, &request)?;
            let engine = self.0.engine()?;
            let end = self.0.open_stream()?;
            let pieces = engine.backup().take_until(end).map(|piece| match piece {
                Ok(piece) => Ok(proto::BackupResponse { piece }),
                Err(fault) => Err(Fault::internal(&fault).into_status()),
            });
            Ok(Box::pin(pieces) as Self::BackupStream)
        })
        .await
    }

    async fn confirm_clock(
        &self,
        request: Request<proto::ConfirmClockRequest>,
    ) -> Result<Response<proto::ConfirmClockResponse>, Status> {
        observed(Rpc::OperatorConfirmClock, async {
            self.0.admit(Rpc::OperatorConfirmClock, &request)?;
            let engine = self.0.engine()?;
            let skew_ms = engine.clock_status().skew_ms;
            let confirmed = engine.confirm_clock().await;
            let clock = confirmed?;
            Ok(proto::ConfirmClockResponse { now: Some(clock.now.into()), skew_ms })
        })
        .await
    }

    async fn rotate_keys(
        &self,
        request: Request<proto::RotateKeysRequest>,
    ) -> Result<Response<proto::RotateKeysResponse>, Status> {
        observed(Rpc::OperatorRotateKeys, async {
            self.0.admit(Rpc::OperatorRotateKeys, &request)?;
            let rotated = self.0.engine()?.rotate_keys().await;
            let keys = rotated.map_err(|fault| Fault::internal(&fault))?;
            Ok(proto::RotateKeysResponse { keys: Some(to_wire::key_status(keys)) })
        })
        .await
    }

    async fn clear_lockout(
        &self,
        request: Request<proto::ClearLockoutRequest>,
    ) -> Result<Response<proto::ClearLockoutResponse>, Status> {
        observed(Rpc::OperatorClearLockout, async {
            let caller = self.0.admit(Rpc::OperatorClearLockout, &request)?;
            let engine = self.0.engine()?;
            let proto::ClearLockoutRequest { controller_id, subject_ref } = request.into_inner();
            let (controller, subject) = from_wire::subject(controller_id, subject_ref)?;
            let cleared = engine.clear_lockout(caller.name(), &controller, &subject).await?;
            Ok(proto::ClearLockoutResponse { cleared })
        })
        .await
    }

    async fn status(
        &self,
        request: Request<proto::StatusRequest>,
    ) -> Result<Response<proto::StatusResponse>, Status> {
        observed(Rpc::OperatorStatus, async {
            self.0.admit(Rpc::OperatorStatus, &request)?;
            let engine = self.0.engine()?;
            Ok(to_wire::status(&engine.status(), &engine.gate_plans(), self.0.phase()))
        })
        .await
    }

    async fn filing_status(
        &self,
        request: Request<proto::FilingStatusRequest>,
    ) -> Result<Response<proto::FilingStatusResponse>, Status> {
        observed(Rpc::OperatorFilingStatus, async {
            self.0.admit(Rpc::OperatorFilingStatus, &request)?;
            let engine = self.0.engine()?;
            let filings = engine.filings().await;
            Ok(filing::status(filings, engine.calendar_until(), engine.now()))
        })
        .await
    }

    async fn mark_filed(
        &self,
        request: Request<proto::MarkFiledRequest>,
    ) -> Result<Response<proto::MarkFiledResponse>, Status> {
        observed(Rpc::OperatorMarkFiled, async {
            let caller = self.0.admit(Rpc::OperatorMarkFiled, &request)?;
            let engine = self.0.engine()?;
            let command = filing::mark(request.into_inner(), &caller)?;
            let marked = engine.mark_filing(command).await?;
            let filing = Some(filing::filing(marked, engine.now()));
            Ok(proto::MarkFiledResponse { filing })
        })
        .await
    }
}
