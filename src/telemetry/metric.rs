//! The table of metrics.

use metrics::Unit;

/// One metric.
#[derive(Debug, Clone, Copy)]
pub(super) struct Metric {
    /// Name, as scraped.
    pub(super) name: &'static str,
    unit: Unit,
    help: &'static str,
    kind: Kind,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
}

macro_rules! metrics_table {
    ($($ident:ident $kind:ident $unit:ident $name:literal $help:literal;)*) => {
        $(
            #[doc = $help]
            pub(super) const $ident: Metric =
                Metric { name: $name, unit: Unit::$unit, help: $help, kind: Kind::$kind };
        )*
        const TABLE: &[Metric] = &[$($ident),*];
    };
}

metrics_table! {
    REQUESTS Counter Count "assent_requests_total" "Requests by RPC and gRPC code.";
    REQUEST_SECONDS Histogram Seconds "assent_request_seconds" "Time from admission to reply by RPC.";
    DECISIONS Counter Count "assent_decisions_total" "Decisions at gates.";
    STAGE_SECONDS Histogram Seconds "assent_stage_seconds" "Time in each stage of a request.";
    BATCH_SIZE Histogram Count "assent_batch_faces" "Faces that shared one run of the recogniser.";
    REJECTED Counter Count "assent_rejected_total" "Requests refused before any work, by reason.";
    DROPPED Counter Count "assent_dropped_total" "Requests dropped between stages, by reason.";
    REVOCATION_SECONDS Histogram Seconds "assent_revocation_seconds" "Time from Revoke to its receipt.";
    PROFILE Gauge Count "assent_profile_info" "1 for the policy profile and the kind of deployment in force.";
    PROVIDER Gauge Count "assent_provider_info" "1 for the execution provider in use.";
    KERNEL Gauge Count "assent_scan_kernel_info" "1 for the scan kernel in use.";
    QUEUE_DEPTH Gauge Count "assent_queue_depth" "Jobs that wait in the pipeline.";
    IN_FLIGHT Gauge Count "assent_requests_in_flight" "Requests admitted and not yet answered.";
    TEMPLATES Gauge Count "assent_templates" "Live templates.";
    SUBJECTS Gauge Count "assent_subjects" "Distinct subjects.";
    CONTROLLER_SUBJECTS Gauge Count "assent_controller_subjects" "Distinct subjects of a controller, over all purposes and scopes.";
    FILING_STATE Gauge Count "assent_filing_state" "1 for where a controller stands with the authority, 0 for its other states.";
    FILING_DEADLINE Gauge Seconds "assent_filing_deadline_timestamp_seconds" "When what a controller has to file is due, Unix time; 0 where nothing is. Where the working-day calendar does not reach it, when the calendar ends.";
    ARENA_BYTES Gauge Bytes "assent_arena_bytes" "Bytes of the template arena.";
    CATALOGUE_BYTES Gauge Bytes "assent_catalogue_bytes" "Bytes that the index holds besides templates and graph.";
    GRAPH_BYTES Gauge Bytes "assent_graph_bytes" "Bytes of the index's graph.";
    GRAPH_TEMPLATES Gauge Count "assent_graph_templates" "Live templates that are linked into the graph.";
    SEARCHES Counter Count "assent_searches_total" "1:N searches by the way that served them.";
    INDEX_RECALL Gauge Count "assent_index_recall" "Share of mates that a way had found, by answers repeated exactly.";
    INDEX_REPEATED Gauge Count "assent_index_repeated_mates" "Mates seen by repeating answers exactly, by way and whether the way had found them.";
    ARENA_LOCKED_BYTES Gauge Bytes "assent_arena_locked_bytes" "Bytes of the arena locked in memory.";
    REVISION Gauge Count "assent_revision" "Newest revision of the store.";
    QUARANTINED Gauge Count "assent_quarantined_records" "Records that could not be opened.";
    SNAPSHOT_ROWS Gauge Count "assent_snapshot_rows" "Rows of the newest snapshot that this process wrote.";
    SNAPSHOT_TIME Gauge Seconds "assent_snapshot_timestamp_seconds" "When the newest snapshot of this process was written, Unix time.";
    CLOCK_SKEW Gauge Seconds "assent_clock_skew_seconds" "How far the system's clock is ahead of where it should be; 0 while it is trusted.";
    UNASSESSED Gauge Count "assent_unassessed_purposes" "Purposes of gates that nobody can be enrolled for, for want of an impact assessment.";
    OUTGROWN Gauge Count "assent_gate_operating_point_outgrown" "1 while the gallery of a gate is larger than the calibration of its operating point.";
    LOW_ON_SPACE Gauge Count "assent_store_low_on_space" "1 while the store's disk is full and only revocations are taken.";
    ALTERNATIVE_UP Gauge Count "assent_alternative_up" "1 while a watched alternative of a gate is up, 0 while it is down or was not heard of in time.";
    ALTERNATIVES_UP Gauge Count "assent_gate_alternatives_up" "Watched alternatives of a gate that are not down.";
    LOCKOUTS Counter Count "assent_lockouts_total" "Failed attempts after which a subject's face waits.";
    LOCKED_SUBJECTS Gauge Count "assent_locked_subjects" "Subjects whose face waits after failed attempts.";
    ATTACKS Counter Count "assent_presentation_attacks_total" "Presentation attacks suspected, by gate.";
    SERVING Gauge Count "assent_serving" "1 while the service answers.";
}

/// The gauges that the server keeps up to date.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gauge {
    /// Jobs that wait in the pipeline.
    QueueDepth,
    /// Requests admitted and not yet answered.
    InFlight,
    /// Live templates.
    Templates,
    /// Distinct subjects.
    Subjects,
    /// Bytes of the arena.
    ArenaBytes,
    /// Locked bytes of the arena.
    ArenaLockedBytes,
    /// Bytes of the index besides templates and graph.
    CatalogueBytes,
    /// Bytes of the graph.
    GraphBytes,
    /// Templates in the graph.
    GraphTemplates,
    /// Newest revision.
    Revision,
    /// Quarantined records.
    Quarantined,
    /// Rows of the newest snapshot.
    SnapshotRows,
    /// When the newest snapshot was written.
    SnapshotTime,
    /// How far the system's clock is ahead.
    ClockSkew,
    /// Purposes of gates without an impact assessment in force.
    Unassessed,
    /// 1 while the store's disk is full.
    LowOnSpace,
    /// Subjects whose face waits.
    LockedSubjects,
    /// 1 while serving.
    Serving,
}

impl Gauge {
    pub(super) fn metric(self) -> Metric {
        match self {
            Self::QueueDepth => QUEUE_DEPTH,
            Self::InFlight => IN_FLIGHT,
            Self::Templates => TEMPLATES,
            Self::Subjects => SUBJECTS,
            Self::ArenaBytes => ARENA_BYTES,
            Self::ArenaLockedBytes => ARENA_LOCKED_BYTES,
            Self::CatalogueBytes => CATALOGUE_BYTES,
            Self::GraphBytes => GRAPH_BYTES,
            Self::GraphTemplates => GRAPH_TEMPLATES,
            Self::Revision => REVISION,
            Self::Quarantined => QUARANTINED,
            Self::SnapshotRows => SNAPSHOT_ROWS,
            Self::SnapshotTime => SNAPSHOT_TIME,
            Self::ClockSkew => CLOCK_SKEW,
            Self::Unassessed => UNASSESSED,
            Self::LowOnSpace => LOW_ON_SPACE,
            Self::LockedSubjects => LOCKED_SUBJECTS,
            Self::Serving => SERVING,
        }
    }
}

/// A stage of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Waiting for a worker.
    Queue,
    /// Decoding the frame.
    Decode,
    /// Detecting faces.
    Detect,
    /// Quality and alignment.
    Align,
    /// Waiting for a batch, and the recogniser.
    Embed,
    /// Searching the index.
    Search,
    /// Committing to the store.
    Commit,
    /// Waiting until the decision's audit entry is durable.
    Audit,
}

impl Stage {
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::Decode => "decode",
            Self::Detect => "detect",
            Self::Align => "align",
            Self::Embed => "embed",
            Self::Search => "search",
            Self::Commit => "commit",
            Self::Audit => "audit",
        }
    }
}

/// Why a request was refused before any work was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejected {
    /// More requests than the service holds at once.
    Overload,
    /// No valid caller identity.
    Unauthenticated,
    /// A caller that may not do this.
    Forbidden,
    /// The service is starting, draining or failed.
    NotServing,
}

impl Rejected {
    pub(super) const ALL: [Self; 4] =
        [Self::Overload, Self::Unauthenticated, Self::Forbidden, Self::NotServing];

    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Overload => "overload",
            Self::Unauthenticated => "unauthenticated",
            Self::Forbidden => "forbidden",
            Self::NotServing => "not_serving",
        }
    }
}

/// Why a request was dropped between stages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dropped {
    /// Its deadline passed.
    Late,
    /// Its caller went away.
    Abandoned,
    /// The same gate sent a newer frame.
    Superseded,
    /// It made room for a more urgent one, or for a gate that had less waiting.
    Evicted,
}

impl Dropped {
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Late => "late",
            Self::Abandoned => "abandoned",
            Self::Superseded => "superseded",
            Self::Evicted => "evicted",
        }
    }
}

/// Tells the exporter the unit and meaning of every metric. Called once, after the recorder is
/// installed.
pub(super) fn describe() {
    for metric in TABLE {
        match metric.kind {
            Kind::Counter => metrics::describe_counter!(metric.name, metric.unit, metric.help),
            Kind::Gauge => metrics::describe_gauge!(metric.name, metric.unit, metric.help),
            Kind::Histogram => metrics::describe_histogram!(metric.name, metric.unit, metric.help),
        }
    }
    // From 0, so that the first refusal is a rise and not the birth of a series.
    metrics::counter!(LOCKOUTS.name).absolute(0);
    for reason in Rejected::ALL {
        metrics::counter!(REJECTED.name, "reason" => reason.label()).absolute(0);
    }
}
