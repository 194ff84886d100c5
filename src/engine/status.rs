//! What is held and how the service does.

use std::sync::PoisonError;

use super::decide::floor;
use super::operating_point::GateReach;
use super::{Engine, WatchedWay};
use crate::consent::{
    AssessmentStanding, Comparison, ConsentTag, DeploymentMode, GatePass, SubjectClass,
};
use crate::index::{IndexStatus, Plan};
use crate::pipeline::{Counters, PackInfo, Provider};
use crate::store::{KeyStatus, StoreError};
use crate::types::{
    ControllerId, GateId, ModelContract, Purpose, RecordId, Revision, SubjectRef, Timestamp,
};

/// A snapshot for operators.
#[derive(Debug, Clone)]
pub struct EngineStatus {
    /// When the engine was opened.
    pub started_at: Timestamp,
    /// Name of the policy profile.
    pub profile: String,
    /// Where templates and probes travel.
    pub deployment: DeploymentMode,
    /// Purposes that nobody can be enrolled for, for want of an impact assessment (O2).
    pub unassessed: Vec<(ControllerId, Purpose, AssessmentStanding)>,
    /// How far the system's clock is ahead of where it should be, ms; 0 while it is trusted.
    pub clock_skew_ms: i64,
    /// Newest applied revision.
    pub revision: Revision,
    /// The index.
    pub index: IndexStatus,
    /// The model pack.
    pub pack: PackInfo,
    /// The execution provider in use.
    pub provider: Provider,
    /// The pipeline's counters.
    pub counters: Counters,
    /// The disk is full: only revocations are taken.
    pub low_on_space: bool,
    /// How the keys are kept.
    pub keys: KeyStatus,
    /// Records that could not be opened.
    pub quarantined: Vec<RecordId>,
    /// The alternatives that the policy watches.
    pub alternatives: Vec<WatchedWay>,
    /// Subjects whose face waits after failed attempts.
    pub locked_subjects: usize,
    /// Gates at which faces are switched off.
    pub resting: Vec<GateId>,
}

/// How searches at one gate go.
#[derive(Debug, Clone)]
pub struct GatePlan {
    /// The gate.
    pub gate: GateId,
    /// The way that serves its searches, and why.
    pub plan: Plan,
    /// How far its operating point carries.
    pub reach: GateReach,
}

/// One record held about a subject.
#[derive(Debug, Clone)]
pub struct Held {
    /// The record.
    pub record: RecordId,
    /// Its consent.
    pub tag: ConsentTag,
    /// Adult or child.
    pub subject_class: SubjectClass,
    /// For children.
    pub reconsent_by: Option<Timestamp>,
    /// Frames of the template.
    pub frames: u32,
    /// Its model contract.
    pub model: ModelContract,
    /// Whether it can match now.
    pub live: bool,
    /// The month of its last use, such as "2026-11", where one is kept.
    pub last_used_month: Option<String>,
}

impl Engine {
    /// A snapshot for operators and metrics.
    #[must_use]
    pub fn status(&self) -> EngineStatus {
        let policy = self.policy();
        let unassessed = policy.unassessed(self.now()).into_iter();
        EngineStatus {
            clock_skew_ms: self.clock_status().skew_ms,
            profile: policy.profile().name.clone(),
            deployment: policy.deployment().mode,
            unassessed: unassessed
                .map(|(c, p, standing)| (c.clone(), p.clone(), standing))
                .collect(),
            started_at: self.started_at,
            revision: self.revision(),
            index: self.index.status(),
            pack: self.pipeline.pack().clone(),
            provider: self.pipeline.provider(),
            counters: self.pipeline.counters(),
            low_on_space: self.store.check_space().is_err(),
            keys: self.store.key_status(),
            quarantined: self.quarantined(),
            alternatives: self.watched_alternatives(),
            locked_subjects: self.locked_subjects(),
            resting: self.resting_gates(),
        }
    }

    fn resting_gates(&self) -> Vec<GateId> {
        let standing = self.policy();
        let gates = standing.gates().map(GatePass::gate);
        gates.filter(|gate| !gate.face_enabled).map(|gate| gate.id.clone()).collect()
    }

    /// Replaces ROOT: every older copy of the store is worth nothing without an older copy of the
    /// root cell from then on.
    ///
    /// # Errors
    /// The store or its root cell; the store has stopped then.
    pub async fn rotate_keys(&self) -> Result<KeyStatus, StoreError> {
        let _drain_waits = self.task();
        self.store.replace_root("operator").await?;
        Ok(self.store.key_status())
    }

    /// Which way serves the 1:N searches of each gate, and why.
    #[must_use]
    pub fn gate_plans(&self) -> Vec<GatePlan> {
        let standing = self.policy();
        let searches = |pass: &&GatePass| pass.compares(Comparison::OneToMany);
        let plan = |pass: &GatePass| {
            let threshold = self.threshold(pass, Comparison::OneToMany);
            GatePlan {
                gate: pass.gate().id.clone(),
                plan: self.index.plan(pass.grant(), floor(pass, threshold)),
                reach: self.reach_of(pass),
            }
        };
        standing.gates().filter(searches).map(plan).collect()
    }

    /// Records that could not be opened.
    pub(super) fn quarantined(&self) -> Vec<RecordId> {
        self.quarantined.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What is held about a subject; no biometrics.
    ///
    /// # Errors
    /// The store could not be read.
    pub async fn describe(
        &self,
        controller: &ControllerId,
        subject: &SubjectRef,
    ) -> Result<(Vec<Held>, Revision), StoreError> {
        let revision = self.revision();
        let now = self.now();
        let mut held = Vec::new();
        for record in self.index.records_of_subject(controller, subject) {
            if let Some(stored) = self.store.describe(record).await? {
                held.push(Held {
                    record,
                    tag: stored.consent.tag(),
                    subject_class: stored.consent.subject_class,
                    reconsent_by: stored.consent.reconsent_by,
                    frames: stored.frames,
                    model: stored.model,
                    live: stored.consent.matches_until() > now,
                    last_used_month: self.last_used_month(record),
                });
            }
        }
        Ok((held, revision))
    }
}
