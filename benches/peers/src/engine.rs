//! What an engine is to the bench: something built from a gallery that names the nearest template.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use assent::index::PlanSetting;

use crate::assent_engine;
use crate::exact_scan::ExactScan;
use crate::gallery::Gallery;
use crate::hnsw_rs_engine::HnswRs;
use crate::usearch_engine::Usearch;
use crate::{Options, Outcome};

/// Templates that a building thread takes at once.
const CHUNK: usize = 64;

/// Everything that can be measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum EngineName {
    AssentAuto,
    AssentExact,
    AssentSketch,
    AssentGraph,
    ExactScan,
    UsearchI8,
    UsearchBf16,
    Hnswlib,
    HnswRs,
}

/// A built index.
pub(crate) trait Engine: Sync {
    /// The template most similar to `probe`, if it is found and at least `floor` similar. Graphs
    /// search as broadly as `ef` says.
    fn nearest(&self, probe: &[f32], ef: usize, floor: f32) -> Outcome<Option<usize>>;

    /// Whether `ef` matters.
    fn is_graph(&self) -> bool;

    /// Whether `floor` matters.
    fn heeds_floor(&self) -> bool {
        false
    }

    /// Callers at once when many probes are in flight.
    fn callers(&self, threads: usize) -> usize {
        threads
    }
}

impl EngineName {
    /// In the table's order.
    pub(crate) const ALL: &[Self] = &[
        Self::AssentAuto,
        Self::AssentExact,
        Self::AssentSketch,
        Self::AssentGraph,
        Self::ExactScan,
        Self::UsearchI8,
        Self::UsearchBf16,
        Self::Hnswlib,
        Self::HnswRs,
    ];

    /// As on the command line.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::AssentAuto => "assent-auto",
            Self::AssentExact => "assent-exact",
            Self::AssentSketch => "assent-sketch",
            Self::AssentGraph => "assent-graph",
            Self::ExactScan => "exact-scan",
            Self::UsearchI8 => "usearch-i8",
            Self::UsearchBf16 => "usearch-bf16",
            Self::Hnswlib => "hnswlib",
            Self::HnswRs => "hnsw-rs",
        }
    }

    /// Builds it in this process; hnswlib has one of its own.
    pub(crate) fn build(self, gallery: &Gallery, options: &Options) -> Outcome<Box<dyn Engine>> {
        let assent = |plan| assent_engine::build(plan, gallery, options);
        Ok(match self {
            Self::AssentAuto => Box::new(assent(PlanSetting::Auto)?),
            Self::AssentExact => Box::new(assent(PlanSetting::Exact)?),
            Self::AssentSketch => Box::new(assent(PlanSetting::Sketch)?),
            Self::AssentGraph => Box::new(assent(PlanSetting::Graph)?),
            Self::ExactScan => Box::new(ExactScan::build(gallery)),
            Self::UsearchI8 => Box::new(Usearch::build(usearch::ScalarKind::I8, gallery, options)?),
            Self::UsearchBf16 => {
                Box::new(Usearch::build(usearch::ScalarKind::BF16, gallery, options)?)
            }
            Self::HnswRs => Box::new(HnswRs::build(gallery, options)?),
            Self::Hnswlib => return Err("hnswlib is measured by its own script".into()),
        })
    }
}

/// Calls `insert` for every number below `count`, on so many threads. The first error ends it.
pub(crate) fn insert_all(
    count: usize,
    threads: usize,
    insert: impl Fn(usize) -> Outcome<()> + Sync,
) -> Outcome<()> {
    let next = AtomicUsize::new(0);
    let failed = Mutex::new(None);
    let work = || {
        loop {
            let first = next.fetch_add(CHUNK, Ordering::Relaxed);
            if first >= count {
                return;
            }
            if let Err(error) = (first..count.min(first + CHUNK)).try_for_each(&insert) {
                next.store(count, Ordering::Relaxed);
                *failed.lock().expect("nobody panics while holding it") = Some(error);
                return;
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    failed.into_inner().expect("nobody panics while holding it").map_or(Ok(()), Err)
}
