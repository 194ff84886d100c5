//! The `Notices` service: public reads.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::fault::{Fault, text};
use super::proto::{self, notices_server::Notices};
use super::shared::{Shared, observed};
use super::{Rpc, words};
use crate::types::{ControllerId, NoticeId, NoticeVersion};

pub(super) struct NoticesService(Arc<Shared>);

impl NoticesService {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self(shared)
    }
}

#[tonic::async_trait]
impl Notices for NoticesService {
    async fn get_notice(
        &self,
        request: Request<proto::GetNoticeRequest>,
    ) -> Result<Response<proto::GetNoticeResponse>, Status> {
        observed(Rpc::NoticesGetNotice, async {
            self.0.admit(Rpc::NoticesGetNotice, &request)?;
            let request = request.into_inner();
            let controller =
                ControllerId::parse(request.controller_id).map_err(text("controller_id"))?;
            let notice = NoticeId::parse(request.notice_id).map_err(text("notice_id"))?;
            let version = match request.version.as_str() {
                "" => None,
                version => Some(NoticeVersion::parse(version).map_err(text("version"))?),
            };
            let (notice, current) =
                self.0.engine()?.notice(&controller, &notice, version.as_ref())?;
            Ok(proto::GetNoticeResponse { notice: Some(notice.into()), current })
        })
        .await
    }

    async fn get_messages(
        &self,
        request: Request<proto::GetMessagesRequest>,
    ) -> Result<Response<proto::GetMessagesResponse>, Status> {
        observed(Rpc::NoticesGetMessages, async {
            self.0.admit(Rpc::NoticesGetMessages, &request)?;
            Ok(words::messages())
        })
        .await
    }

    async fn get_retention_policy(
        &self,
        request: Request<proto::GetRetentionPolicyRequest>,
    ) -> Result<Response<proto::GetRetentionPolicyResponse>, Status> {
        observed(Rpc::NoticesGetRetentionPolicy, async {
            self.0.admit(Rpc::NoticesGetRetentionPolicy, &request)?;
            let controller = ControllerId::parse(request.into_inner().controller_id)
                .map_err(text("controller_id"))?;
            let engine = self.0.engine()?;
            if !engine.knows_controller(&controller) {
                return Err(Fault::field("controller_id", "no such controller"));
            }
            let profile = engine.profile();
            Ok(proto::GetRetentionPolicyResponse {
                profile: profile.name.clone(),
                max_retention_days: profile.max_retention_days,
                erased_within_seconds: profile.erase_within_seconds,
            })
        })
        .await
    }
}
