//! Operating points: from a gate's error rates and its gallery's size to the threshold, and what
//! becomes of a gallery that has outgrown them.
//!
//! # Invariants
//! - 1:N is never laxer than 1:1, so that a small gallery is no easier to enter.

use thiserror::Error;

use super::Engine;
use crate::consent::{Comparison, ErrorRate, GatePass, Grant, Policy, Reach, WhenOutgrown};
use crate::types::{GateId, Similarity};

/// A gate's 1:N operating point and the gallery that it has to do for.
#[derive(Debug, Clone)]
pub struct GateReach {
    /// The gate.
    pub gate: GateId,
    /// What its policy wants.
    pub fpir: ErrorRate,
    /// Templates that it may search.
    pub templates: u64,
    /// How many the calibration carries.
    pub reach: Reach,
    /// What its policy says of more.
    pub rule: WhenOutgrown,
}

impl GateReach {
    /// Whether the gallery is larger than the calibration carries.
    #[must_use]
    pub fn is_outgrown(&self) -> bool {
        self.templates.max(1) > self.reach.calibrated
    }

    /// In words, for whoever can do something about it: in English, and in Chinese.
    #[must_use]
    pub fn warning(&self) -> Option<[String; 2]> {
        if !self.is_outgrown() {
            return None;
        }
        let Self { gate, fpir, templates, reach: Reach { calibrated, .. }, rule } = self;
        let (then, zh_then) = match rule {
            WhenOutgrown::Warn => (
                "the strictest calibrated threshold is used, and more strangers are taken for \
                 somebody than the FPIR says",
                "将采用标定中最严格的阈值，误识为登记者的外人会多于 FPIR 所示",
            ),
            WhenOutgrown::Refuse => ("1:N verification is refused there", "该通道将拒绝 1:N 识别"),
        };
        let fpir = fpir.get();
        let en = format!(
            "gate {gate}: may search {templates} templates, and FPIR {fpir} is calibrated up to \
             {calibrated}: {then}. Split the scope, allow a higher FPIR, compare 1:1, or \
             calibrate the model on more people (docs/calibration.md)"
        );
        let zh = format!(
            "通道 {gate}：可检索 {templates} 个模板，而 FPIR {fpir} 只标定至 {calibrated} 个：{zh_then}。\
             请拆分范围、提高 FPIR、改用 1:1，或以更多人标定模型（docs/calibration.md）"
        );
        Some([en, zh])
    }
}

/// The gallery has outgrown the gate's operating point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "the gate may search {templates} templates, and its operating point is calibrated up to \
     {calibrated}: 1:N verification is refused; claim a subject, or use another way in"
)]
pub struct Outgrown {
    /// Templates that the gate may search.
    pub templates: u64,
    /// How many the calibration carries.
    pub calibrated: u64,
}

impl Engine {
    /// 1:1: the gate's FMR. 1:N: its FPIR over the templates that may be searched, and never laxer
    /// than its FMR. Fails closed.
    pub(super) fn threshold(&self, pass: &GatePass, comparison: Comparison) -> Similarity {
        let gate = pass.gate();
        let one = self.calibration.threshold_for_fmr(gate.fmr);
        let one = one.map_or(Similarity::new(1.0), |threshold| threshold.similarity);
        match comparison {
            Comparison::OneToOne => one,
            Comparison::OneToMany => {
                let many = self.threshold_among(pass.grant(), gate.fpir);
                if many > one { many } else { one }
            }
        }
    }

    /// The threshold at which a search among the granted templates reaches `fpir`.
    pub(super) fn threshold_among(&self, grant: &Grant, fpir: ErrorRate) -> Similarity {
        let templates = self.index.live_templates(grant) as u64;
        self.calibration.threshold_for_fpir(fpir, templates).similarity
    }

    /// Whether the gate may search a gallery of this size.
    ///
    /// # Errors
    /// It has outgrown the operating point, and the gate's policy refuses then.
    pub(super) fn check_reach(
        &self,
        pass: &GatePass,
        comparison: Comparison,
    ) -> Result<(), Outgrown> {
        if comparison == Comparison::OneToOne || pass.gate().outgrown == WhenOutgrown::Warn {
            return Ok(());
        }
        let gate = self.reach_of(pass);
        if gate.is_outgrown() {
            return Err(Outgrown { templates: gate.templates, calibrated: gate.reach.calibrated });
        }
        Ok(())
    }

    /// How far the operating point of each gate that searches 1:N carries.
    #[must_use]
    pub fn gate_reaches(&self) -> Vec<GateReach> {
        self.reaches_under(&self.policy())
    }

    /// The same under another policy.
    pub(super) fn reaches_under(&self, policy: &Policy) -> Vec<GateReach> {
        let searches = |pass: &&GatePass| pass.compares(Comparison::OneToMany);
        policy.gates().filter(searches).map(|pass| self.reach_of(pass)).collect()
    }

    pub(super) fn reach_of(&self, pass: &GatePass) -> GateReach {
        let gate = pass.gate();
        GateReach {
            gate: gate.id.clone(),
            fpir: gate.fpir,
            templates: self.index.live_templates(pass.grant()) as u64,
            reach: self.calibration.reach(gate.fpir),
            rule: gate.outgrown,
        }
    }
}
