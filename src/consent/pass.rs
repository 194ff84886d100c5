//! Permission to use a gate, as a value: everything that a verification has to know about it.

use std::sync::Arc;

use thiserror::Error;

use super::gate::{Alternative, Comparison, Down, Gate, Intent, PadPolicy};
use super::grant::Grant;
use super::profile::Profile;
use super::refusal::RefusalKind;
use super::tag::ClassKey;

/// A gate's policy, compiled when it was applied. Cheap to clone; a pass that is held while
/// another policy is applied keeps saying what it said.
///
/// # Invariants
/// - The grant covers exactly the classes of the gate's controller, purposes and scopes.
#[derive(Debug, Clone)]
pub struct GatePass(Arc<Compiled>);

#[derive(Debug)]
struct Compiled {
    gate: Gate,
    grant: Grant,
    intent_required: bool,
    lockout_after: u32,
    watched: bool,
}

impl GatePass {
    /// Called by `Policy::apply`, which has just checked the gate.
    pub(super) fn compile(gate: Gate, profile: &Profile) -> Self {
        let class = |(purpose, scope): (&_, &_)| ClassKey {
            controller: gate.controller.clone(),
            purpose: Clone::clone(purpose),
            scope: Clone::clone(scope),
        };
        let pairs = gate.purposes.iter().flat_map(|p| gate.scopes.iter().map(move |s| (p, s)));
        let grant = Grant::over(pairs.map(class).collect());
        // No gate is laxer than the profile, and none lets everybody try for ever.
        let most = profile.lockout_limit(gate.pad);
        let lockout_after = gate.lockout_after.map_or(most, |attempts| attempts.clamp(1, most));
        let watched = gate.alternatives.any_watched();
        let intent_required = profile.intent_required;
        Self(Arc::new(Compiled { gate, grant, intent_required, lockout_after, watched }))
    }

    /// The gate as the policy describes it: operating point, eye distance, what may be told.
    #[must_use]
    pub fn gate(&self) -> &Gate {
        &self.0.gate
    }

    /// What may be searched at this gate.
    #[must_use]
    pub fn grant(&self) -> &Grant {
        &self.0.grant
    }

    /// The gate's other ways in; never empty.
    #[must_use]
    pub fn alternatives(&self) -> &[Alternative] {
        self.0.gate.alternatives.as_slice()
    }

    /// Consecutive failed attempts at one subject after which its face waits.
    #[must_use]
    pub fn lockout_after(&self) -> u32 {
        self.0.lockout_after
    }

    /// Whether one of the gate's alternatives has to be heard of (G2).
    #[must_use]
    pub fn is_watched(&self) -> bool {
        self.0.watched
    }

    /// Whether the face may be compared while these alternatives are down (G1).
    ///
    /// # Errors
    /// The policy wants an alternative, and all that are watched are down.
    pub fn check_alternatives(&self, down: Down) -> Result<(), GateRefusal> {
        let gate = &self.0.gate;
        let all_down = || gate.alternatives.watched().all(|(place, _)| down.is_down(place));
        if gate.require_alternative && all_down() {
            return Err(GateRefusal::NoAlternativeUp);
        }
        Ok(())
    }

    /// Whether liveness can be judged as the policy wants it: `said` by the gate, or by the model
    /// on a `whole_frame`.
    ///
    /// # Errors
    /// What the policy wants is not there.
    pub fn check_pad(&self, said: bool, whole_frame: bool) -> Result<(), GateRefusal> {
        match self.0.gate.pad {
            PadPolicy::Gate if !said => Err(GateRefusal::PadMissing),
            PadPolicy::Model if !whole_frame => Err(GateRefusal::PadNeedsFrame),
            PadPolicy::None | PadPolicy::Gate | PadPolicy::Model => Ok(()),
        }
    }

    /// Whether the gate's policy allows this comparison.
    #[must_use]
    pub fn compares(&self, comparison: Comparison) -> bool {
        self.0.gate.comparison.is_some_and(|allowed| allowed.allows(comparison))
    }

    /// Whether the gate may compare so (G7).
    ///
    /// # Errors
    /// It may not.
    pub fn check_comparison(&self, comparison: Comparison) -> Result<(), GateRefusal> {
        if self.compares(comparison) { Ok(()) } else { Err(GateRefusal::Comparison(comparison)) }
    }

    /// Whether the person asked to be recognised, where the profile wants to know (G6).
    ///
    /// # Errors
    /// The profile wants to know and the gate does not say.
    pub fn check_intent(&self, intent: Option<Intent>) -> Result<(), GateRefusal> {
        if self.0.intent_required && intent.is_none() {
            return Err(GateRefusal::IntentMissing);
        }
        Ok(())
    }
}

/// Why a gate's request is refused before any picture is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum GateRefusal {
    /// No such gate was applied.
    #[error("there is no such gate")]
    UnknownGate,
    /// G6: the profile demands the person's act.
    #[error("the gate must say how the person asked to be recognised")]
    IntentMissing,
    /// The gate's policy wants its liveness verdict.
    #[error(
        "is missing: this gate's policy wants the gate's own liveness verdict (pad = \"gate\")"
    )]
    PadMissing,
    /// The gate's policy wants the model's verdict, which needs the frame around the face.
    #[error("must be a frame: this gate's policy has liveness judged on it (pad = \"model\")")]
    PadNeedsFrame,
    /// G1: the face would be the only way in.
    #[error(
        "every watched alternative of this gate is down, and its policy has the face wait then \
         (require_alternative)"
    )]
    NoAlternativeUp,
    /// G2: nobody watches this alternative, or there is none.
    #[error("the gate's policy has no such alternative with heartbeat_s")]
    NotWatched,
    /// G7: the gate's policy does not allow it.
    #[error("the gate's policy does not allow {}", match .0 {
        Comparison::OneToOne => "1:1 comparison; leave the claimed subject out",
        Comparison::OneToMany => "1:N search; claim a subject",
    })]
    Comparison(Comparison),
}

impl GateRefusal {
    /// Whose turn it is.
    #[must_use]
    pub fn kind(self) -> RefusalKind {
        match self {
            Self::IntentMissing | Self::PadMissing | Self::PadNeedsFrame => RefusalKind::Field,
            Self::UnknownGate | Self::NoAlternativeUp | Self::NotWatched | Self::Comparison(_) => {
                RefusalKind::State
            }
        }
    }

    /// The field at fault, as on the wire.
    #[must_use]
    pub fn field(self) -> &'static str {
        match self {
            Self::UnknownGate => "gate_id",
            Self::PadMissing => "pad",
            Self::PadNeedsFrame => "probe",
            Self::NoAlternativeUp => "alternatives",
            Self::NotWatched => "method",
            Self::IntentMissing => "intent",
            Self::Comparison(_) => "claimed_subject",
        }
    }
}
