//! Builds an engine and asks it.
//!
//! # Invariants
//! - Times of one probe are taken with the whole process on one core; times of many in flight on
//!   as many threads as the options say, or as many callers as the engine wants.
//! - What is measured was asked of every engine in the same order, after the same warm-up.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::engine::EngineName;
use crate::gallery::MATE_COSINES;
use crate::set::Set;
use crate::{Options, Outcome, hnswlib_engine, machine};

/// Probes before the clock starts.
const WARM_UP: usize = 50;
/// How long many probes are kept in flight.
pub(crate) const IN_FLIGHT: Duration = Duration::from_secs(3);
/// An engine that heeds a floor is asked for this much less than the threshold: peers heed none, so
/// a mate at the very threshold must not count against it because eight bits say a hair less.
const FLOOR_MARGIN: f32 = 0.002;
/// Below any mate's cosine, rounding included.
const LOW_FLOOR: f32 = *MATE_COSINES.start() - 0.02;

/// What was seen of an engine at one setting.
#[derive(Deserialize)]
pub(crate) struct Measured {
    pub(crate) engine: EngineName,
    pub(crate) version: String,
    /// None where there is nothing to set.
    pub(crate) ef: Option<usize>,
    pub(crate) build_s: f64,
    pub(crate) bytes: u64,
    /// For every mated probe the template that came back, when asked for what lies above the
    /// threshold.
    pub(crate) found: Vec<Option<usize>>,
    /// The same when asked for everything.
    pub(crate) found_low: Vec<Option<usize>>,
    /// Of each mated probe.
    pub(crate) mate_ms: Vec<f64>,
    pub(crate) stranger_ms: Vec<f64>,
    /// If it differs from what the times say.
    pub(crate) per_second_one_core: Option<f64>,
    pub(crate) callers: usize,
    pub(crate) per_second_in_flight: f64,
}

/// Hands each setting's measurements to `report`.
pub(crate) fn run(
    name: EngineName,
    set: &Set,
    threshold: f32,
    options: &Options,
    report: &mut dyn FnMut(Measured) -> Outcome<()>,
) -> Outcome<()> {
    if name == EngineName::Hnswlib {
        return hnswlib_engine::run(set, options, report);
    }
    let resident = machine::resident_bytes();
    let start = Instant::now();
    let engine = name.build(&set.gallery, options)?;
    let build_s = start.elapsed().as_secs_f64();
    let bytes = machine::resident_bytes().saturating_sub(resident);
    let breadths = options.breadths(set.gallery.len());
    let breadths = if engine.is_graph() { &breadths[..] } else { &[0] };
    for &ef in breadths {
        eprintln!("  {} {ef}", name.as_str());
        let ask = |probe: &[f32]| engine.nearest(probe, ef, threshold - FLOOR_MARGIN);
        let (mates, strangers) = machine::on_one_core(|| -> Outcome<_> {
            set.mates().take(WARM_UP).try_for_each(|probe| ask(probe).map(drop))?;
            Ok((timed(set.mates(), ask)?, timed(set.strangers(), ask)?))
        })??;
        let found_low = if engine.heeds_floor() {
            set.mates().map(|probe| engine.nearest(probe, ef, LOW_FLOOR)).collect::<Outcome<_>>()?
        } else {
            mates.0.clone()
        };
        let callers = engine.callers(options.threads);
        report(Measured {
            engine: name,
            version: version(name).into(),
            ef: engine.is_graph().then_some(ef),
            build_s,
            bytes,
            found: mates.0,
            found_low,
            mate_ms: mates.1,
            stranger_ms: strangers.1,
            per_second_one_core: None,
            callers,
            per_second_in_flight: in_flight(set, callers, ask)?,
        })?;
    }
    Ok(())
}

/// Answers and milliseconds.
type Timed = (Vec<Option<usize>>, Vec<f64>);

fn timed<'a>(
    probes: impl Iterator<Item = &'a [f32]>,
    ask: impl Fn(&[f32]) -> Outcome<Option<usize>>,
) -> Outcome<Timed> {
    let one = |probe| {
        let start = Instant::now();
        let found = ask(probe)?;
        Ok((found, start.elapsed().as_secs_f64() * 1e3))
    };
    probes.map(one).collect()
}

/// Probes a second when `callers` ask all the time.
#[expect(clippy::cast_precision_loss, reason = "a count of a few seconds")]
fn in_flight(
    set: &Set,
    callers: usize,
    ask: impl Fn(&[f32]) -> Outcome<Option<usize>> + Sync,
) -> Outcome<f64> {
    let next = AtomicUsize::new(0);
    let start = Instant::now();
    let call = || -> Outcome<usize> {
        let mut answered = 0;
        while start.elapsed() < IN_FLIGHT {
            let i = next.fetch_add(1, Ordering::Relaxed) % set.truth.len();
            ask(set.mate(i))?;
            answered += 1;
        }
        Ok(answered)
    };
    let answered = thread::scope(|scope| {
        let callers: Vec<_> = (0..callers).map(|_| scope.spawn(call)).collect();
        let join = |caller: thread::ScopedJoinHandle<'_, _>| {
            caller.join().map_err(|_panic| "a caller panicked")?
        };
        callers.into_iter().map(join).sum::<Outcome<usize>>()
    })?;
    Ok(answered as f64 / start.elapsed().as_secs_f64())
}

fn version(name: EngineName) -> &'static str {
    machine::locked_version(match name {
        EngineName::AssentAuto
        | EngineName::AssentExact
        | EngineName::AssentSketch
        | EngineName::AssentGraph => "assent",
        EngineName::ExactScan => "peers",
        EngineName::UsearchI8 | EngineName::UsearchBf16 => "usearch",
        EngineName::HnswRs => "hnsw_rs",
        EngineName::Hnswlib => "hnswlib",
    })
}
