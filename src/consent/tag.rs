//! What rides on every match: the consent that allows it.

use serde::{Deserialize, Serialize};

use crate::types::{ConsentId, ControllerId, NoticeVersion, Purpose, Scope, Timestamp};

/// What a template may be searched for: the unit in which permission is given.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ClassKey {
    /// The legal person that runs the gates.
    pub controller: ControllerId,
    /// Why.
    pub purpose: Purpose,
    /// Where.
    pub scope: Scope,
}

/// The consent under which a template is held, as every match carries it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsentTag {
    /// The consent record.
    pub consent_id: ConsentId,
    /// Controller, purpose and scope that it covers.
    pub class: ClassKey,
    /// Version of the notice that the person agreed to.
    pub notice_version: NoticeVersion,
    /// When consent was given.
    pub granted_at: Timestamp,
    /// When it ends; no match from this instant on.
    pub expires_at: Timestamp,
}
