//! The `Enrollment` service.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use futures_util::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

use super::admission::Place;
use super::caller::Caller;
use super::fault::{Fault, text};
use super::proto::{self, enrollment_server::Enrollment};
use super::shared::{Shared, observed, working};
use super::{Rpc, from_wire};
use crate::types::{ControllerId, SubjectRef};

/// Requests of one bulk enrolment that are worked on at once.
const STREAM_AHEAD: usize = 16;

pub(super) struct EnrollmentService(Arc<Shared>);

impl EnrollmentService {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self(shared)
    }
}

type Answers = Pin<Box<dyn Stream<Item = Result<proto::EnrollStreamResponse, Status>> + Send>>;

#[tonic::async_trait]
impl Enrollment for EnrollmentService {
    async fn enroll(
        &self,
        request: Request<proto::EnrollRequest>,
    ) -> Result<Response<proto::EnrollResponse>, Status> {
        observed(Rpc::EnrollmentEnroll, async {
            let caller = self.0.admit(Rpc::EnrollmentEnroll, &request)?;
            let deadline = self.0.deadline(&request);
            let place = self.0.admission.enrolments.enter()?;
            let request = request.into_inner();
            enroll(&self.0, &caller, Wish { request, deadline, bulk: false }, place).await
        })
        .await
    }

    type EnrollStreamStream = Answers;

    async fn enroll_stream(
        &self,
        request: Request<Streaming<proto::EnrollRequest>>,
    ) -> Result<Response<Answers>, Status> {
        let shared = Arc::clone(&self.0);
        observed(Rpc::EnrollmentEnrollStream, async {
            let caller = self.0.admit(Rpc::EnrollmentEnrollStream, &request)?;
            let end = self.0.open_stream()?;
            let answers = request
                .into_inner()
                .take_until(end)
                .enumerate()
                .map(move |(sequence, item)| {
                    working(answer(Arc::clone(&shared), caller.clone(), sequence as u64, item))
                })
                .buffer_unordered(STREAM_AHEAD);
            Ok(Box::pin(answers) as Answers)
        })
        .await
    }

    async fn revoke(
        &self,
        request: Request<proto::RevokeRequest>,
    ) -> Result<Response<proto::RevokeResponse>, Status> {
        observed(Rpc::EnrollmentRevoke, async {
            let caller = self.0.admit(Rpc::EnrollmentRevoke, &request)?;
            let engine = self.0.engine_for_revocation()?;
            let (controller, target) = from_wire::revoke(request.into_inner())?;
            caller.may_act_for(controller.as_str())?;
            Ok(engine.revoke(controller, target).await?.into())
        })
        .await
    }

    async fn describe_subject(
        &self,
        request: Request<proto::DescribeSubjectRequest>,
    ) -> Result<Response<proto::DescribeSubjectResponse>, Status> {
        observed(Rpc::EnrollmentDescribeSubject, async {
            let caller = self.0.admit(Rpc::EnrollmentDescribeSubject, &request)?;
            let engine = self.0.engine()?;
            let request = request.into_inner();
            let controller =
                ControllerId::parse(request.controller_id).map_err(text("controller_id"))?;
            let subject = SubjectRef::parse(request.subject_ref).map_err(text("subject_ref"))?;
            caller.may_act_for(controller.as_str())?;
            let (held, revision) = engine.describe(&controller, &subject).await?;
            let records = held.into_iter().map(proto::HeldRecord::from).collect();
            let failed_attempts = engine.failed_attempts(&controller, &subject);
            Ok(proto::DescribeSubjectResponse { records, revision: revision.0, failed_attempts })
        })
        .await
    }
}

/// One answer of a bulk enrolment; only a broken stream ends it.
async fn answer(
    shared: Arc<Shared>,
    caller: Caller,
    sequence: u64,
    item: Result<proto::EnrollRequest, Status>,
) -> Result<proto::EnrollStreamResponse, Status> {
    use proto::enroll_stream_response::Result as Answer;
    let request = item?;
    let idempotency_key = request.idempotency_key.clone();
    let outcome = match shared.admission.bulk.wait().await {
        Ok(place) => {
            let deadline = Instant::now() + shared.default_deadline();
            enroll(&shared, &caller, Wish { request, deadline, bulk: true }, place).await
        }
        Err(fault) => Err(fault),
    };
    let result = match outcome {
        Ok(response) => Answer::Response(response),
        Err(fault) => Answer::Error(fault.enroll_error()),
    };
    Ok(proto::EnrollStreamResponse { sequence, idempotency_key, result: Some(result) })
}

/// One enrolment as it came.
struct Wish {
    request: proto::EnrollRequest,
    deadline: Instant,
    bulk: bool,
}

async fn enroll(
    shared: &Shared,
    caller: &Caller,
    wish: Wish,
    _place: Place,
) -> Result<proto::EnrollResponse, Fault> {
    let engine = shared.engine()?;
    let Wish { request, deadline, bulk } = wish;
    caller.may_act_for(&request.controller_id)?;
    let (command, embeddings) = from_wire::enroll(request, deadline, bulk)?;
    if embeddings {
        caller.may_send_embeddings()?;
    }
    Ok(engine.enrol(command).await?.into())
}
