//! Who may call what: one line an RPC.

use super::Rpc;
use super::caller::Role;

/// What an RPC asks of its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Anybody, without a certificate.
    Public,
    /// A caller with one of these roles.
    Roles(&'static [Role]),
}

/// The policy line of an RPC. No wildcard: a new RPC without a line does not build.
#[must_use]
pub const fn access(rpc: Rpc) -> Access {
    match rpc {
        Rpc::GateVerify | Rpc::GateVerifyStream | Rpc::GateReportAlternative => {
            Access::Roles(&[Role::Gate])
        }
        Rpc::EnrollmentEnroll | Rpc::EnrollmentEnrollStream => Access::Roles(&[Role::Enroller]),
        Rpc::EnrollmentRevoke => Access::Roles(&[Role::Enroller, Role::Operator]),
        Rpc::EnrollmentDescribeSubject => {
            Access::Roles(&[Role::Enroller, Role::Operator, Role::Auditor])
        }
        Rpc::OperatorApplyPolicy
        | Rpc::OperatorBackup
        | Rpc::OperatorConfirmClock
        | Rpc::OperatorMarkFiled
        | Rpc::OperatorClearLockout
        | Rpc::OperatorRotateKeys => Access::Roles(&[Role::Operator]),
        Rpc::OperatorReadPolicy
        | Rpc::OperatorStatus
        | Rpc::OperatorExportAudit
        | Rpc::OperatorFilingStatus
        | Rpc::OperatorCollectEvidence => Access::Roles(&[Role::Operator, Role::Auditor]),
        Rpc::NoticesGetNotice | Rpc::NoticesGetRetentionPolicy | Rpc::NoticesGetMessages => {
            Access::Public
        }
    }
}
