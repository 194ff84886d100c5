//! Which way a search goes: recall first, then cost.
//!
//! ```text
//!   rows of the granted classes, exactly ---+
//!   floor of the search --- cuts -----------+--> exact or sketch, whichever costs less
//!   costs measured at start ----------------+        |
//!                                                    v
//!   graph: least ef whose measured recall      graph, if that costs less still
//!   meets the target, and what it costs ---------->
//! ```
//!
//! Exact and sketch scans keep every promise about recall by themselves. The graph has to earn
//! its place: it serves only with an `ef` at which it was seen to find the target's share of
//! mates in this very gallery ([`Tuning`]), and a share of what it answers is repeated by exact
//! scan ([`Canary`]); where that shows misses, `ef` is raised, and with no `ef` left the scans
//! take over again.
//!
//! # Invariants
//! - A plan is a choice among ways that meet the recall target. A setting can force a way; only
//!   then may the target be missed, and the plan says so.

mod canary;
mod costs;
mod tuning;

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::kernel::Kernels;
use super::scan::{Cut, Cuts};

pub(super) use self::canary::Canary;
pub use self::canary::Recall;
use self::costs::Costs;
pub(super) use self::tuning::{Rung, Tuning};

/// Share of mates at or above the floor that a way must find.
pub const TARGET_RECALL: f64 = 0.999;

/// The least cosine of the mates that the graph is measured with: further ones are below common
/// thresholds.
pub(super) const MEASURED_FROM: f32 = 0.45;

/// A way to search.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// Every row by its codes.
    Exact,
    /// Every row by its sketch, the likely ones by their codes.
    Sketch,
    /// From neighbour to neighbour.
    Graph,
}

impl Way {
    /// All ways.
    pub const ALL: [Self; 3] = [Self::Exact, Self::Sketch, Self::Graph];

    /// The way's name, as in settings, metrics and reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Sketch => "sketch",
            Self::Graph => "graph",
        }
    }
}

/// What an operator says about ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PlanSetting {
    /// The cheapest that meets the recall target.
    #[default]
    Auto,
    /// Always the exact scan.
    Exact,
    /// Always the sketch scan.
    Sketch,
    /// Always the graph, as far as it is built.
    Graph,
}

impl PlanSetting {
    fn forced(self) -> Option<Way> {
        match self {
            Self::Auto => None,
            Self::Exact => Some(Way::Exact),
            Self::Sketch => Some(Way::Sketch),
            Self::Graph => Some(Way::Graph),
        }
    }
}

/// What is known of one search before it runs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Outlook {
    /// Rows of the granted classes.
    pub(super) rows: usize,
    /// All live rows.
    pub(super) of: usize,
    /// The search's least cosine.
    pub(super) floor: f32,
    /// Whether the graph knows every row.
    pub(super) graph: bool,
}

/// A way with what it needs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Route {
    /// The exact scan.
    Exact,
    /// The sketch scan under these cuts.
    Sketch(Cut),
    /// The graph with this `ef`.
    Graph {
        /// Candidates that the walk keeps.
        ef: usize,
    },
}

/// Chooses ways.
pub(super) struct Planner {
    setting: PlanSetting,
    costs: Costs,
    cuts: Cuts,
    /// What the graph can do in this gallery; `None` until it is complete and measured.
    graph: RwLock<Option<Arc<Tuning>>>,
    /// The largest `ef` that was caught missing too much.
    ruled_out: AtomicUsize,
    canary: Canary,
}

impl Planner {
    /// Measures what the scans cost here.
    pub(super) fn new(setting: PlanSetting, kernels: Kernels, width: usize, every: u64) -> Self {
        Self {
            setting,
            costs: Costs::measure(kernels, width),
            cuts: Cuts::new(width),
            graph: RwLock::new(None),
            ruled_out: AtomicUsize::new(0),
            canary: Canary::new(every),
        }
    }

    /// Takes up what the graph was seen to do, or forgets it.
    pub(super) fn tuned(&self, tuning: Option<Tuning>) {
        if let Some(tuning) = &tuning {
            tuning.rule_out(self.ruled_out.load(Ordering::Relaxed));
        }
        *self.graph.write().unwrap_or_else(PoisonError::into_inner) = tuning.map(Arc::new);
    }

    /// What the graph was seen to do.
    pub(super) fn tuning(&self) -> Option<Arc<Tuning>> {
        self.graph.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A way was caught missing more than the target allows. The graph goes on with a larger `ef`
    /// for as long as the process lives, or rests when there is none. A sketch scan that misses
    /// more than its bound allows is a fault for people to look at: it goes on as it is.
    pub(super) fn distrust(&self, route: Route) {
        let recall = self.canary.recall(route.way()).share();
        match route {
            Route::Exact => {}
            Route::Sketch(_) => tracing::warn!(
                recall,
                "the sketch scan misses mates that an exact scan finds; if this lasts, set \
                 index.plan to exact and report it"
            ),
            Route::Graph { ef } => {
                tracing::warn!(ef, recall, "the graph misses too many mates with this ef");
                self.ruled_out.fetch_max(ef, Ordering::Relaxed);
                if let Some(tuning) = self.tuning() {
                    tuning.rule_out(ef);
                }
                self.canary.restart(Way::Graph);
            }
        }
    }

    /// The watch over recall.
    pub(super) fn canary(&self) -> &Canary {
        &self.canary
    }

    /// The cuts of a floor.
    pub(super) fn cut(&self, floor: f32) -> Cut {
        self.cuts.at(floor)
    }

    /// The way of one search, and what it should take.
    pub(super) fn route(&self, outlook: Outlook) -> (Route, Duration) {
        let cut = self.cuts.at(outlook.floor);
        let scans = [
            (Route::Exact, self.costs.exact(outlook.rows)),
            (Route::Sketch(cut), self.costs.sketch(outlook.rows, cut)),
        ];
        let graph = self.graph_route(outlook);
        let forced = self.setting.forced();
        let wanted = |(route, _): &(Route, Duration)| forced.is_none_or(|way| way == route.way());
        let all = scans.into_iter().chain(graph);
        let cheapest = all.clone().filter(wanted).min_by_key(|(_, cost)| *cost);
        // Forced onto a graph that is not complete: the scans serve until it is.
        let cheapest = cheapest.or_else(|| all.min_by_key(|(_, cost)| *cost));
        cheapest.unwrap_or((Route::Exact, Duration::ZERO))
    }

    /// What repeating an answer exactly should take.
    pub(super) fn repetition(&self, outlook: Outlook) -> Duration {
        self.costs.exact(outlook.rows)
    }

    /// The choice in words.
    pub(super) fn explain(&self, outlook: Outlook) -> Plan {
        let (route, cost) = self.route(outlook);
        let cut = self.cuts.at(outlook.floor);
        Plan {
            way: route.way(),
            templates: outlook.rows,
            floor: outlook.floor,
            cost,
            exact: self.costs.exact(outlook.rows),
            sketch: self.costs.sketch(outlook.rows, cut),
            graph: self.graph_outlook(outlook),
            forced: self.setting.forced().is_some_and(|way| way == route.way()),
        }
    }

    /// The graph with the least `ef` that meets the target, or with the largest where it is forced;
    /// only while it knows every row and what was measured still holds. It was not measured with
    /// mates that are further away than [`MEASURED_FROM`].
    ///
    /// The scope only says what the walk may answer: recall is that of the whole gallery, whatever
    /// the scope. In a small one the walk takes about twice as long, and a scan is far cheaper.
    fn graph_route(&self, outlook: Outlook) -> Option<(Route, Duration)> {
        let tuning = self.tuning().filter(|tuning| !tuning.is_stale(outlook.of))?;
        let forced = self.setting == PlanSetting::Graph;
        if !forced && outlook.floor < MEASURED_FROM {
            return None;
        }
        let rung = if forced { Some(tuning.serving_or_best()) } else { tuning.serving() }?;
        outlook.graph.then_some((Route::Graph { ef: rung.ef }, rung.cost))
    }

    fn graph_outlook(&self, outlook: Outlook) -> GraphOutlook {
        match self.tuning().filter(|tuning| outlook.graph && !tuning.is_stale(outlook.of)) {
            None => GraphOutlook::Absent,
            Some(tuning) => match tuning.serving() {
                Some(rung) => GraphOutlook::Able { ef: rung.ef, cost: rung.cost },
                None => GraphOutlook::BelowTarget { best: tuning.best_recall() },
            },
        }
    }
}

impl Route {
    /// Its way.
    pub(super) fn way(self) -> Way {
        match self {
            Self::Exact => Way::Exact,
            Self::Sketch(_) => Way::Sketch,
            Self::Graph { .. } => Way::Graph,
        }
    }
}

/// Which way serves a scope, and why.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Plan {
    /// The way.
    pub way: Way,
    /// Live templates of the scope.
    pub templates: usize,
    /// The least cosine that counts there.
    pub floor: f32,
    /// What a lone search should take.
    pub cost: Duration,
    /// What an exact scan should take.
    pub exact: Duration,
    /// What a sketch scan should take.
    pub sketch: Duration,
    /// What the graph has to offer.
    pub graph: GraphOutlook,
    /// Whether the settings left no choice.
    pub forced: bool,
}

/// What the graph has to offer to a plan.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum GraphOutlook {
    /// It is switched off, or not complete or measured yet.
    Absent,
    /// No `ef` meets the target; this is the best recall seen.
    BelowTarget {
        /// Share of mates found.
        best: f64,
    },
    /// It meets the target.
    Able {
        /// Candidates that the walk keeps.
        ef: usize,
        /// What a search should take.
        cost: Duration,
    },
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let way = self.way.name();
        let why = if self.forced { "as set" } else { "the cheapest that meets the recall target" };
        write!(
            f,
            "{way}, {why}: {} templates at cosine {:.3} or more, ",
            self.templates, self.floor
        )?;
        write!(f, "exact {:.0?}, sketch {:.0?}, ", self.exact, self.sketch)?;
        match self.graph {
            GraphOutlook::Absent => write!(f, "no graph that is complete and measured"),
            GraphOutlook::BelowTarget { best } => {
                write!(
                    f,
                    "no ef at which the graph finds {TARGET_RECALL} of mates ({best:.4} seen)"
                )
            }
            GraphOutlook::Able { ef, cost } => write!(f, "graph {cost:.0?} at ef {ef}"),
        }
    }
}
