//! Applying and reading policy, and the public reads of notices.

use std::sync::{Arc, PoisonError};

use thiserror::Error;

use super::{Engine, OpenError};
use crate::consent::{
    Calibration, Change, ChangeKind, GatePass, Notice, PadPolicy, Policy, PolicyDocument,
    PolicyError, PolicyFault, Profile, RateOutsideTable,
};
use crate::store::{Store, StoreError};
use crate::types::{ControllerId, GateId, NoticeId, NoticeVersion, Revision};

/// What applying a document did, or would do.
#[derive(Debug)]
pub struct Applied {
    /// One an object of the document, in its order.
    pub changes: Vec<Change>,
    /// The revision that holds the policy.
    pub revision: Revision,
    /// What the policy asks and the model's calibration cannot give, gate by gate: in English, and
    /// in Chinese.
    pub warnings: Vec<[String; 2]>,
}

/// Why a document was not applied. Nothing changed.
#[derive(Debug, Error)]
pub enum ApplyError {
    /// The document is wrong.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// A gate asks more than the model's calibration can give.
    #[error(transparent)]
    OperatingPoint(#[from] OperatingPointFault),
    /// A gate wants a liveness model, and the pack has none.
    #[error(transparent)]
    Liveness(#[from] LivenessFault),
    /// The disk is full.
    #[error("the service's disk is full; free space on it, and apply again")]
    LowOnSpace,
    /// The store.
    #[error("the policy could not be stored")]
    Store(#[source] StoreError),
    /// A fault of ours.
    #[error("internal fault")]
    Internal,
}

fn unstored(fault: StoreError) -> ApplyError {
    if matches!(fault, StoreError::LowOnSpace) {
        ApplyError::LowOnSpace
    } else {
        ApplyError::Store(fault)
    }
}

/// A gate's FMR lies outside the model's calibration table.
#[derive(Debug, Clone, Error)]
#[error("gate {gate}: fmr: {fault}")]
pub struct OperatingPointFault {
    /// The gate.
    pub gate: GateId,
    /// What the table holds.
    #[source]
    pub fault: RateOutsideTable,
}

/// A gate wants faces judged by a liveness model that the pack does not have.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "gate {gate}: pad: the model pack has no liveness model; use pad = \"gate\", or a pack whose \
     manifest has [liveness]"
)]
pub struct LivenessFault {
    /// The gate.
    pub gate: GateId,
}

/// Why there is no such notice to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum NoticeError {
    /// Not applied.
    #[error("no such notice, or no such version of it")]
    Unknown,
}

/// The policy in force.
pub(super) struct Standing {
    policy: Policy,
    /// The revision that put it into the store; 0 before the first document.
    pub(super) revision: Revision,
}

impl std::ops::Deref for Standing {
    type Target = Policy;

    fn deref(&self) -> &Policy {
        &self.policy
    }
}

/// The policy that the store holds; empty before the first document.
pub(super) async fn stored(
    store: &Store,
    empty: Policy,
    calibration: &Calibration,
    has_liveness: bool,
) -> Result<Standing, OpenError> {
    let Some((bytes, revision)) = store.policy().await? else {
        return Ok(Standing { policy: empty, revision: Revision::default() });
    };
    let unreadable = |fault: &dyn std::fmt::Display| OpenError::Policy(fault.to_string());
    let text = std::str::from_utf8(&bytes).map_err(|fault| unreadable(&fault))?;
    let document = PolicyDocument::parse(text).map_err(|fault| unreadable(&fault))?;
    let (policy, _changes) = empty.apply(&document).map_err(|fault| unreadable(&fault))?;
    check_operating_points(&policy, calibration).map_err(|fault| unreadable(&fault))?;
    check_liveness(&policy, has_liveness).map_err(|fault| unreadable(&fault))?;
    Ok(Standing { policy, revision })
}

/// Every gate's FMR must have a threshold, so that no request finds that it has none.
fn check_operating_points(
    policy: &Policy,
    calibration: &Calibration,
) -> Result<(), OperatingPointFault> {
    for pass in policy.gates() {
        let gate = pass.gate();
        calibration
            .threshold_for_fmr(gate.fmr)
            .map_err(|fault| OperatingPointFault { gate: gate.id.clone(), fault })?;
    }
    Ok(())
}

/// Liveness is judged by a model that is there, or the policy does not ask for it.
fn check_liveness(policy: &Policy, has_model: bool) -> Result<(), LivenessFault> {
    let asks = |pass: &&GatePass| pass.gate().pad == PadPolicy::Model;
    match policy.gates().find(asks) {
        Some(pass) if !has_model => Err(LivenessFault { gate: pass.gate().id.clone() }),
        Some(_) | None => Ok(()),
    }
}

impl Engine {
    /// Applies a document as a whole, or says what it would change.
    ///
    /// # Errors
    /// See [`ApplyError`].
    pub async fn apply(self: &Arc<Self>, toml: &str, dry_run: bool) -> Result<Applied, ApplyError> {
        let document = PolicyDocument::parse(toml)?;
        let work = Arc::clone(self).apply_document(document, dry_run);
        // On a task of its own: a caller that goes away leaves store and memory of one mind.
        match tokio::spawn(self.tasks.track_future(work)).await {
            Ok(outcome) => outcome,
            Err(_panicked) => Err(ApplyError::Internal),
        }
    }

    async fn apply_document(
        self: Arc<Self>,
        document: PolicyDocument,
        dry_run: bool,
    ) -> Result<Applied, ApplyError> {
        let _alone = self.applying.lock().await;
        document.check_past(self.now())?;
        let (policy, changes) = self.policy().apply(&document)?;
        // Named by its line where the gate is in the document.
        check_operating_points(&policy, &self.calibration).map_err(|fault| {
            let in_document = PolicyFault::RateOutsideTable(fault.fault);
            let located = document.refuse_gate(&fault.gate, "fmr", in_document);
            located.map_or(ApplyError::OperatingPoint(fault), ApplyError::Policy)
        })?;
        check_liveness(&policy, self.pipeline.judges_liveness()).map_err(|fault| {
            let located = document.refuse_gate(&fault.gate, "pad", PolicyFault::NoLivenessModel);
            located.map_or(ApplyError::Liveness(fault), ApplyError::Policy)
        })?;
        let reaches = self.reaches_under(&policy).into_iter();
        let warnings = reaches.filter_map(|gate| gate.warning()).collect();
        let differs = changes.iter().any(|change| change.kind != ChangeKind::Unchanged);
        if differs && !dry_run {
            let revision = self.store.put_policy(policy.to_toml().as_bytes()).await;
            let revision = revision.map_err(unstored)?;
            *self.policy.write().unwrap_or_else(PoisonError::into_inner) =
                Arc::new(Standing { policy, revision });
            self.advance(revision);
        }
        Ok(Applied { changes, revision: self.policy().revision, warnings })
    }

    /// The applied policy as TOML, and the revision that holds it.
    #[must_use]
    pub fn read_policy(&self) -> (String, Revision) {
        let standing = self.policy();
        (standing.to_toml(), standing.revision)
    }

    /// One version of a notice, or the current one, and whether it is the current one.
    ///
    /// # Errors
    /// No such notice.
    pub fn notice(
        &self,
        controller: &ControllerId,
        notice: &NoticeId,
        version: Option<&NoticeVersion>,
    ) -> Result<(Notice, bool), NoticeError> {
        let policy = self.policy();
        let now = self.now();
        let current = policy.current_notice(controller, notice, now);
        let wanted = match version {
            Some(version) => policy.notice(controller, notice, version),
            None => current,
        };
        let wanted = wanted.ok_or(NoticeError::Unknown)?;
        let is_current = current.is_some_and(|current| current.version == wanted.version);
        Ok((wanted.clone(), is_current))
    }

    /// The rules in force.
    #[must_use]
    pub fn profile(&self) -> Profile {
        self.policy().profile().clone()
    }

    /// Whether the controller is applied.
    #[must_use]
    pub fn knows_controller(&self, controller: &ControllerId) -> bool {
        self.policy().controller(controller).is_some()
    }
}
