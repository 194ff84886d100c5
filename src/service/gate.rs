//! The `Gate` service.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use futures_util::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

use super::caller::Caller;
use super::fault::Fault;
use super::from_wire::{self, ReportParts, VerifyParts};
use super::proto::{self, gate_server::Gate};
use super::shared::{Shared, observed, working};
use super::{Rpc, to_wire};
use crate::consent::{Alternatives, Down};
use crate::telemetry;
use crate::types::GateId;

/// Requests of one stream that are worked on at once.
const STREAM_AHEAD: usize = 8;

pub(super) struct GateService(Arc<Shared>);

impl GateService {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self(shared)
    }
}

type Answers = Pin<Box<dyn Stream<Item = Result<proto::VerifyStreamResponse, Status>> + Send>>;

#[tonic::async_trait]
impl Gate for GateService {
    async fn verify(
        &self,
        request: Request<proto::VerifyRequest>,
    ) -> Result<Response<proto::VerifyResponse>, Status> {
        observed(Rpc::GateVerify, async {
            // Refused without other ways: `NeverFaceAlone` adds the deployment's.
            let caller = self.0.admit(Rpc::GateVerify, &request)?;
            let deadline = self.0.deadline(&request);
            let request = request.into_inner();
            let gate = own_gate(&caller, &request.gate_id);
            let outcome = verify_by(&self.0, &caller, request, deadline).await;
            outcome.map_err(|fault| fault.with_alternatives(alternatives(&self.0, gate.as_ref())))
        })
        .await
    }

    async fn report_alternative(
        &self,
        request: Request<proto::ReportAlternativeRequest>,
    ) -> Result<Response<proto::ReportAlternativeResponse>, Status> {
        observed(Rpc::GateReportAlternative, async {
            let caller = self.0.admit(Rpc::GateReportAlternative, &request)?;
            let request = request.into_inner();
            let gate = own_gate(&caller, &request.gate_id);
            let outcome = report(&self.0, &caller, request);
            outcome.map_err(|fault| fault.with_alternatives(alternatives(&self.0, gate.as_ref())))
        })
        .await
    }

    type VerifyStreamStream = Answers;

    async fn verify_stream(
        &self,
        request: Request<Streaming<proto::VerifyRequest>>,
    ) -> Result<Response<Answers>, Status> {
        let shared = Arc::clone(&self.0);
        observed(Rpc::GateVerifyStream, async {
            let caller = self.0.admit(Rpc::GateVerifyStream, &request)?;
            let end = self.0.open_stream()?;
            let answers = request
                .into_inner()
                .take_until(end)
                .enumerate()
                .map(move |(sequence, item)| {
                    working(answer(Arc::clone(&shared), caller.clone(), sequence as u64, item))
                })
                .buffered(STREAM_AHEAD);
            Ok(Box::pin(answers) as Answers)
        })
        .await
    }
}

/// One answer of a stream; only a broken stream ends it.
async fn answer(
    shared: Arc<Shared>,
    caller: Caller,
    sequence: u64,
    item: Result<proto::VerifyRequest, Status>,
) -> Result<proto::VerifyStreamResponse, Status> {
    use proto::verify_stream_response::Result as Answer;
    let request = item.map_err(|broken| {
        Fault::of_transport(&broken).with_alternatives(alternatives(&shared, None)).into_status()
    })?;
    let deadline = Instant::now() + shared.default_deadline();
    let gate = own_gate(&caller, &request.gate_id);
    let result = match verify_by(&shared, &caller, request, deadline).await {
        Ok(response) => Answer::Response(response),
        Err(fault) => Answer::Error(fault.into_verify_error(alternatives(&shared, gate.as_ref()))),
    };
    Ok(proto::VerifyStreamResponse { sequence, result: Some(result) })
}

/// The gate that asks, where its caller may use it: nobody else hears of its other ways in.
fn own_gate(caller: &Caller, gate: &str) -> Option<GateId> {
    GateId::parse(gate).ok().filter(|gate| caller.uses(gate))
}

/// Decides by `deadline` or not at all; frames of a request that is late are dropped.
async fn verify_by(
    shared: &Shared,
    caller: &Caller,
    request: proto::VerifyRequest,
    deadline: Instant,
) -> Result<proto::VerifyResponse, Fault> {
    let decided = verify(shared, caller, request, deadline);
    tokio::time::timeout_at(deadline.into(), decided).await.unwrap_or_else(|_| Err(Fault::late()))
}

async fn verify(
    shared: &Shared,
    caller: &Caller,
    request: proto::VerifyRequest,
    deadline: Instant,
) -> Result<proto::VerifyResponse, Fault> {
    let engine = shared.engine()?;
    let VerifyParts { command, embedding } = from_wire::verify(request, caller, deadline)?;
    caller.may_use(&command.gate)?;
    if embedding {
        caller.may_send_embeddings()?;
    }
    let _place = shared.admission.gates.enter()?;
    let verdict = engine.verify(command).await?;
    telemetry::decision(to_wire::decision(&verdict.decision).as_str_name());
    Ok(verdict.into())
}

fn report(
    shared: &Shared,
    caller: &Caller,
    request: proto::ReportAlternativeRequest,
) -> Result<proto::ReportAlternativeResponse, Fault> {
    let engine = shared.engine()?;
    let ReportParts { gate, way, up, note } = from_wire::report(request)?;
    caller.may_use(&gate)?;
    let every = engine.report_alternative(&gate, way, up, note)?;
    let heartbeat_s = u32::try_from(every.as_secs()).unwrap_or(u32::MAX);
    Ok(proto::ReportAlternativeResponse { heartbeat_s })
}

/// The gate's ways in that need no face. Never empty, whatever the state of the service.
fn alternatives(shared: &Shared, gate: Option<&GateId>) -> Vec<proto::Alternative> {
    let known = shared.opened().map(|engine| engine.alternatives(gate));
    let (ways, down) = known.unwrap_or_else(|| (Alternatives::fallback(), Down::default()));
    to_wire::alternatives(&ways, down)
}
