//! What a run found, for people and for programs.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::drive::{Outcomes, STAGES, Tally};
use super::plan::{Kind, Load};
use super::{BenchArgs, ProbeKind};
use crate::service::proto;

/// A whole run.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// Version of the service.
    version: String,
    /// The provider that computes there.
    provider: String,
    /// The scan kernel there.
    scan_kernel: String,
    /// Templates held when the run began.
    templates: u64,
    /// What was sent.
    probes: &'static str,
    pub(super) steps: Vec<Step>,
}

/// One step.
#[derive(Debug, Serialize)]
pub(super) struct Step {
    /// `open`: latencies run from when a request was due. `closed`: from when it was sent.
    #[serde(rename = "loop")]
    pub(super) form: &'static str,
    /// Requests a second, or callers.
    pub(super) load: f64,
    /// Time measured, seconds.
    seconds: f64,
    pub(super) kinds: BTreeMap<&'static str, KindReport>,
    /// Mean time in each stage at the service, microseconds, over all that gates were answered.
    stages_us: BTreeMap<&'static str, f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    complaint: Option<String>,
}

/// The requests of one kind.
#[derive(Debug, Serialize)]
pub(super) struct KindReport {
    due: u64,
    unsent: u64,
    /// Answered with OK and not stale, a second.
    pub(super) per_second: f64,
    codes: BTreeMap<&'static str, u64>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    decisions: BTreeMap<&'static str, u64>,
    /// Of those answered with OK.
    pub(super) latency_ms: Latency,
    /// Of those refused.
    refused_ms: Latency,
}

/// Percentiles, milliseconds; 0 where there is nothing.
#[derive(Debug, Serialize)]
pub(super) struct Latency {
    p50: f64,
    p90: f64,
    pub(super) p99: f64,
    p999: f64,
    max: f64,
}

impl Report {
    /// `status`: what the service said of itself, if it did.
    pub(super) fn about(status: Option<proto::StatusResponse>, args: &BenchArgs) -> Self {
        let status = status.unwrap_or_default();
        Self {
            version: status.version,
            provider: status.provider,
            scan_kernel: status.scan_kernel,
            templates: status.classes.iter().map(|class| class.templates).sum(),
            probes: match args.probes {
                ProbeKind::Photos => "photos",
                ProbeKind::Crops => "crops",
                ProbeKind::Embeddings => "embeddings",
            },
            steps: Vec::new(),
        }
    }

    pub(super) fn print_head(&self) {
        if self.version.is_empty() {
            say!("what serves is not told to this caller; {} sent", self.probes);
        } else {
            say!(
                "assent {}, provider {}, scan {}, {} templates; {} sent",
                self.version,
                self.provider,
                self.scan_kernel,
                self.templates,
                self.probes
            );
        }
        say!(
            "{:>12} {:<7} {:>10} {:>9} {:>9} {:>9} {:>9}  {:>8} {:>9}",
            "load",
            "kind",
            "answered/s",
            "p50 ms",
            "p99 ms",
            "p99.9 ms",
            "max ms",
            "refused",
            "p99 ms"
        );
    }

    /// The closing words, or the whole as JSON.
    pub(super) fn end(&self, json: bool, left: usize) {
        if json {
            say!("{}", serde_json::to_string_pretty(self).unwrap_or_default());
            return;
        }
        let stale = self.steps.iter().any(Step::has_stale);
        if stale {
            say!(
                "STALE_FRAME: newer frames of the same gate came while older ones waited; name \
                 several gates, or set newest_frame_wins = false in their policy"
            );
        }
        if let Some(complaint) = self.steps.iter().find_map(|step| step.complaint.as_ref()) {
            say!("refused, for one: {complaint}");
        }
        if left > 0 {
            say!("{left} people whom the bench enrolled may still be held: revoke bench-* by hand");
        }
    }
}

impl Step {
    pub(super) fn of(load: Load, tally: &Tally) -> Self {
        let (form, load) = match load {
            Load::Open { per_second } => ("open", per_second),
            #[expect(clippy::cast_precision_loss, reason = "at most 4096")]
            Load::Closed { callers } => ("closed", callers as f64),
        };
        let seconds = tally.measured.as_secs_f64();
        let kinds = Kind::ALL
            .into_iter()
            .map(|kind| (kind.name(), &tally.kinds[kind as usize]))
            .filter(|(_, outcomes)| outcomes.due > 0)
            .map(|(name, outcomes)| (name, KindReport::of(outcomes, seconds)))
            .collect();
        let stages_us = STAGES.into_iter().zip(tally.stages_us.map(|sum| mean(sum, tally.staged)));
        Self {
            form,
            load,
            seconds,
            kinds,
            stages_us: stages_us.collect(),
            complaint: tally.complaint.clone(),
        }
    }

    pub(super) fn print(&self) {
        let unit = if self.form == "open" { "/s" } else { " callers" };
        for (name, kind) in &self.kinds {
            let refused = kind.due - kind.codes.get("OK").copied().unwrap_or(0) - kind.unsent;
            say!(
                "{:>12} {name:<7} {:>10.1} {:>9.2} {:>9.2} {:>9.2} {:>9.2}  {refused:>8} {:>9.2}",
                format!("{}{unit}", self.load),
                kind.per_second,
                kind.latency_ms.p50,
                kind.latency_ms.p99,
                kind.latency_ms.p999,
                kind.latency_ms.max,
                kind.refused_ms.p99,
            );
            if kind.unsent > 0 {
                say!("{:>12} {} were not sent: this program could not keep up", "", kind.unsent);
            }
        }
        let stages = STAGES.into_iter().filter_map(|stage| {
            let us = self.stages_us.get(stage)?;
            (*us > 0.0).then(|| format!("{stage} {:.2}", us / 1000.0))
        });
        say!("{:>12} mean ms: {}", "", stages.collect::<Vec<_>>().join(", "));
    }

    fn has_stale(&self) -> bool {
        self.kinds.values().any(|kind| kind.decisions.contains_key(STALE))
    }
}

const STALE: &str = "STALE_FRAME";

impl KindReport {
    #[expect(clippy::cast_precision_loss, reason = "counts of requests")]
    fn of(outcomes: &Outcomes, seconds: f64) -> Self {
        let stale = outcomes.decisions.get(STALE).copied().unwrap_or(0);
        Self {
            due: outcomes.due,
            unsent: outcomes.unsent,
            per_second: (outcomes.answered_us.len() - stale) as f64 / seconds,
            codes: outcomes.codes.clone(),
            decisions: outcomes.decisions.clone(),
            latency_ms: Latency::of(&outcomes.answered_us),
            refused_ms: Latency::of(&outcomes.refused_us),
        }
    }
}

impl Latency {
    fn of(us: &Histogram<u64>) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "microseconds of minutes")]
        let ms = |value: u64| value as f64 / 1000.0;
        let at = |quantile| ms(us.value_at_quantile(quantile));
        Self { p50: at(0.5), p90: at(0.9), p99: at(0.99), p999: at(0.999), max: ms(us.max()) }
    }
}

#[expect(clippy::cast_precision_loss, reason = "microseconds of a run")]
fn mean(sum: u64, count: u64) -> f64 {
    if count == 0 { 0.0 } else { sum as f64 / count as f64 }
}
