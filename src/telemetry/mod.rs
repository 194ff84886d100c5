//! Metric names, units and labels, in one table, and the functions that record them.
//!
//! # Invariants
//! - Labels are closed enums, or gates and their alternatives, which the policy bounds, or
//!   controllers, legal persons that an operator applied, of which there are at most
//!   [`MOST_CONTROLLERS`]: no metric can grow without bound and none carries a subject.
//! - Nobody else names a metric.

mod exporter;
mod metric;

pub use exporter::{ExporterError, export};
pub use metric::{Dropped, Gauge, Rejected, Stage};

use std::time::Duration;

use crate::types::GateId;
use metric::{BATCH_SIZE, DECISIONS, DROPPED, REJECTED, REQUEST_SECONDS, REQUESTS, STAGE_SECONDS};

/// Counts one finished request and its duration. `rpc` and `code` are names of closed sets: the
/// RPCs of the proto and the gRPC status codes.
pub fn request(rpc: &'static str, code: &'static str, took: Duration) {
    metrics::counter!(REQUESTS.name, "rpc" => rpc, "code" => code).increment(1);
    metrics::histogram!(REQUEST_SECONDS.name, "rpc" => rpc).record(took.as_secs_f64());
}

/// Counts one decision at a gate by its name on the wire.
pub fn decision(name: &'static str) {
    metrics::counter!(DECISIONS.name, "decision" => name).increment(1);
}

/// Records how long one stage of a request took.
pub fn stage(stage: Stage, took: Duration) {
    metrics::histogram!(STAGE_SECONDS.name, "stage" => stage.label()).record(took.as_secs_f64());
}

/// Records how many faces shared one run of the recogniser.
pub fn batch(faces: u32) {
    metrics::histogram!(BATCH_SIZE.name).record(f64::from(faces));
}

/// Counts a request that was refused before any work was done.
pub fn rejected(reason: Rejected) {
    metrics::counter!(REJECTED.name, "reason" => reason.label()).increment(1);
}

/// Sets how many requests were dropped between stages for one reason.
pub fn dropped(reason: Dropped, requests: u64) {
    metrics::counter!(DROPPED.name, "reason" => reason.label()).absolute(requests);
}

/// Controllers that have metrics of their own; `assent filing status` knows of all.
pub const MOST_CONTROLLERS: usize = 1_024;

/// Sets how many subjects a controller has.
#[expect(clippy::cast_precision_loss, reason = "gauges are f64 by definition")]
pub fn controller_subjects(controller: &str, subjects: u64) {
    let label = controller.to_owned();
    metrics::gauge!(metric::CONTROLLER_SUBJECTS.name, "controller" => label).set(subjects as f64);
}

/// Sets where a controller stands with the authority: which of `states`, and the Unix time of its
/// deadline, 0 for none.
pub fn filing(controller: &str, states: &[&'static str], state: &'static str, deadline: f64) {
    for other in states.iter().copied() {
        let (label, stands) = (controller.to_owned(), f64::from(u8::from(other == state)));
        metrics::gauge!(metric::FILING_STATE.name, "controller" => label, "state" => other)
            .set(stands);
    }
    let label = controller.to_owned();
    metrics::gauge!(metric::FILING_DEADLINE.name, "controller" => label).set(deadline);
}

/// Sets a gauge.
pub fn gauge(gauge: Gauge, value: f64) {
    metrics::gauge!(gauge.metric().name).set(value);
}

/// Counts one 1:N search by the way that served it, a name of a closed set.
pub fn searched(way: &'static str) {
    metrics::counter!(metric::SEARCHES.name, "plan" => way).increment(1);
}

/// Sets what answers repeated exactly have shown of a way. A share of nothing is not set.
#[expect(clippy::cast_precision_loss, reason = "gauges are f64 by definition")]
pub fn recall(way: &'static str, found: u64, missed: u64, share: Option<f64>) {
    for (outcome, mates) in [("found", found), ("missed", missed)] {
        metrics::gauge!(metric::INDEX_REPEATED.name, "plan" => way, "outcome" => outcome)
            .set(mates as f64);
    }
    if let Some(share) = share {
        metrics::gauge!(metric::INDEX_RECALL.name, "plan" => way).set(share);
    }
}

/// Sets whether the gallery of a gate of the policy has outgrown its operating point.
pub fn operating_point(gate: &GateId, outgrown: bool) {
    let gate = gate.to_string();
    metrics::gauge!(metric::OUTGROWN.name, "gate" => gate).set(f64::from(u8::from(outgrown)));
}

/// Marks the profile, kind of deployment, execution provider and scan kernel in use with 1.
pub fn in_use(
    profile: String,
    deployment: &'static str,
    provider: &'static str,
    kernel: &'static str,
) {
    metrics::gauge!(metric::PROFILE.name, "profile" => profile, "deployment" => deployment)
        .set(1.0);
    metrics::gauge!(metric::PROVIDER.name, "provider" => provider).set(1.0);
    metrics::gauge!(metric::KERNEL.name, "kernel" => kernel).set(1.0);
}

/// Sets whether a watched alternative of a gate is up; `None` where nobody watches it any more.
pub fn alternative(gate: &str, name: &str, up: Option<bool>) {
    let value = up.map_or(f64::NAN, |up| f64::from(u8::from(up)));
    let (gate, method) = (gate.to_owned(), name.to_owned());
    metrics::gauge!(metric::ALTERNATIVE_UP.name, "gate" => gate, "method" => method).set(value);
}

/// Sets how many watched alternatives of a gate are not down; `None` where none is watched any
/// more.
pub fn alternatives_up(gate: &str, up: Option<u32>) {
    let value = up.map_or(f64::NAN, f64::from);
    metrics::gauge!(metric::ALTERNATIVES_UP.name, "gate" => gate.to_owned()).set(value);
}

/// Counts a failed attempt after which a subject's face waits.
pub fn locked_out() {
    metrics::counter!(metric::LOCKOUTS.name).increment(1);
}

/// Counts a presentation attack that was suspected at a gate.
pub fn presentation_attack(gate: &str) {
    metrics::counter!(metric::ATTACKS.name, "gate" => gate.to_owned()).increment(1);
}

/// Records how long a revocation took from admission to receipt.
pub fn revocation(took: Duration) {
    metrics::histogram!(metric::REVOCATION_SECONDS.name).record(took.as_secs_f64());
}
