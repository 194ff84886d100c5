//! From answers and times to a row of the table.

use serde::{Deserialize, Serialize};

use crate::Outcome;
use crate::engine::EngineName;
use crate::measure::Measured;
use crate::set::{Set, Truth};

/// An engine at one setting: a line of JSON, a row of the table.
#[derive(Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) engine: EngineName,
    pub(crate) version: String,
    pub(crate) ef: Option<usize>,
    pub(crate) templates: usize,
    pub(crate) width: usize,
    pub(crate) templates_per_person: usize,
    pub(crate) noise_scale: f32,
    pub(crate) threshold: f32,
    /// Mates that exact search finds first at the threshold or above.
    pub(crate) mates_above: usize,
    /// The share of them that the engine finds too.
    pub(crate) recall_above: f64,
    /// Mates that exact search finds first, at any cosine.
    pub(crate) mates_first: usize,
    pub(crate) recall_all: f64,
    pub(crate) per_second_one_core: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) stranger_p50_ms: f64,
    pub(crate) callers: usize,
    pub(crate) per_second_in_flight: f64,
    pub(crate) build_s: f64,
    pub(crate) bytes_per_record: f64,
}

#[expect(clippy::cast_precision_loss, reason = "counts and bytes, for people")]
pub(crate) fn row(set: &Set, threshold: f32, measured: &Measured) -> Outcome<Row> {
    let asked = set.truth.len();
    if [measured.found.len(), measured.found_low.len(), measured.mate_ms.len()] != [asked; 3] {
        return Err("an engine did not answer every probe".into());
    }
    let (recall_above, mates_above) = recall(set, &measured.found, threshold);
    let (recall_all, mates_first) = recall(set, &measured.found_low, f32::NEG_INFINITY);
    let from_times = asked as f64 * 1e3 / measured.mate_ms.iter().sum::<f64>();
    let gallery = set.settings.gallery;
    Ok(Row {
        engine: measured.engine,
        version: measured.version.clone(),
        ef: measured.ef,
        templates: set.gallery.len(),
        width: set.settings.width,
        templates_per_person: gallery.templates_per_person,
        noise_scale: gallery.noise_scale,
        threshold,
        mates_above,
        recall_above,
        mates_first,
        recall_all,
        per_second_one_core: measured.per_second_one_core.unwrap_or(from_times),
        p50_ms: percentile(&measured.mate_ms, 50),
        p99_ms: percentile(&measured.mate_ms, 99),
        stranger_p50_ms: percentile(&measured.stranger_ms, 50),
        callers: measured.callers,
        per_second_in_flight: measured.per_second_in_flight,
        build_s: measured.build_s,
        bytes_per_record: measured.bytes as f64 / set.gallery.len() as f64,
    })
}

/// Of the mates that exact search finds first, `threshold` or more similar: the share whose
/// person the engine finds first too, and how many they are.
#[expect(clippy::cast_precision_loss, reason = "counts")]
fn recall(set: &Set, found: &[Option<usize>], threshold: f32) -> (f64, usize) {
    let counts =
        |truth: &Truth| set.same_person(truth.nearest, truth.mate) && truth.cosine >= threshold;
    let counted = set.truth.iter().zip(found).filter(|(truth, _)| counts(truth));
    let right = |(truth, found): (&Truth, &Option<usize>)| {
        found.is_some_and(|found| set.same_person(found, truth.mate))
    };
    let (mut hits, mut count) = (0, 0);
    for pair in counted {
        count += 1;
        hits += usize::from(right(pair));
    }
    (hits as f64 / count.max(1) as f64, count)
}

/// By nearest rank; 0 of nothing.
pub(crate) fn percentile(values: &[f64], percent: usize) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let rank = (values.len() * percent).div_ceil(100).max(1);
    values.get(rank - 1).copied().unwrap_or(0.0)
}
