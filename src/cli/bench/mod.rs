//! `assent bench`: load on a running service, by a plan of arrivals, and what became of it.
//!
//! # Invariants
//! - With `--rate` the load is an open loop: requests are sent when they are due, whether earlier
//!   ones were answered or not, and a latency runs from the moment at which its request was due.
//!   So a service that stalls is charged for everything that it kept waiting (Tene, "How NOT to
//!   measure latency": coordinated omission).
//! - Whom the bench enrols it revokes, also when it is interrupted; unless it is told to keep them.

mod clock;
mod drive;
mod plan;
mod plot;
mod report;
mod workload;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::Outcome;
use super::connection::ConnectionArgs;
use super::exit::{Exit, Failure};
use crate::service::client::Client;
use crate::service::proto;
use clock::Clock;
use drive::Driver;
use plan::{Load, Mix};
use report::{Report, Step};
use workload::Workload;

/// `assent bench`.
#[derive(Debug, Args)]
pub(super) struct BenchArgs {
    /// A folder of photos (JPEG, PNG), searched with its sub-folders; with --probes photos
    photos: Option<PathBuf>,
    /// The gates that ask, in turn
    #[arg(long = "gate", required = true, value_delimiter = ',', value_name = "GATE")]
    gates: Vec<String>,
    /// What is sent
    #[arg(long, value_enum, default_value = "photos")]
    probes: ProbeKind,
    /// Requests a second: an open loop, one step for each value
    #[arg(long, value_delimiter = ',', value_name = "RATE", conflicts_with = "callers")]
    rate: Vec<f64>,
    /// Callers that ask again as soon as they are answered: a closed loop, one step for each value
    #[arg(long, value_delimiter = ',', value_name = "CALLERS", required_unless_present = "rate")]
    callers: Vec<usize>,
    /// How long each step is measured, seconds
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// How long each step runs before it is measured, seconds
    #[arg(long, default_value_t = 2.0)]
    warm_up: f64,
    /// Connections to the service for verifications, and as many for the rest
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=1024))]
    connections: u16,
    /// Share of enrolments among the requests, 0 to 1
    #[arg(long, default_value_t = 0.0, value_name = "SHARE", requires = "consent")]
    enrol: f64,
    /// Share of revocations, 0 to 1; of those whom the bench has enrolled before
    #[arg(long, default_value_t = 0.0, value_name = "SHARE", requires = "consent")]
    revoke: f64,
    /// Leave those whom the bench has enrolled, to fill a gallery
    #[arg(long, requires = "consent")]
    keep: bool,
    /// The controller for whom is enrolled
    #[arg(long, requires = "consent")]
    controller: Option<String>,
    /// The consent record as TOML, with {subject} in its consent_id
    #[arg(long, value_name = "FILE", requires = "controller")]
    consent: Option<PathBuf>,
    /// The model contract that embeddings are said to be of; else the service is asked, which only
    /// operators and auditors may do
    #[arg(long, value_name = "CONTRACT")]
    contract: Option<String>,
    /// How long a caller waits for its answer, milliseconds
    #[arg(long, default_value_t = 2000)]
    deadline_ms: u64,
    /// Draw throughput and p99 of the steps into this SVG file
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    /// What arrivals and mix are drawn from; the same seed gives the same plan
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// What a request to a gate carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ProbeKind {
    /// The photos of a folder, one after the other
    Photos,
    /// Aligned crops cut from those photos: no decoding, no detection
    Crops,
    /// Embeddings of nobody, drawn at random: the pipeline is left out
    Embeddings,
}

pub(super) async fn run(args: &BenchArgs, json: bool) -> Outcome {
    let mix = Mix::new(args.enrol, args.revoke)?;
    let loads = args.loads()?;
    let measured = positive("--seconds", args.seconds)?;
    let warm_up = Duration::try_from_secs_f64(args.warm_up)
        .map_err(|_negative| Failure::new(Exit::Usage, "--warm-up must be 0 or more seconds"))?;
    let (mut gates, mut clients) = (Vec::new(), Vec::new());
    for _ in 0..args.connections {
        gates.push(args.connection.connect_to_verify().await?);
        clients.push(args.connection.connect().await?);
    }
    let status = status(&clients[0]).await?;
    let workload = Workload::load(args, status.as_ref())?;
    let mut report = Report::about(status, args);
    let deadline = Duration::from_millis(args.deadline_ms);
    let clock = Clock::new()
        .map_err(|fault| Failure::new(Exit::Internal, format!("no timer to send by: {fault}")))?;
    let driver = Arc::new(Driver::new((gates, clients), workload, mix, deadline, clock));
    if !json {
        report.print_head();
    }
    let mut interrupted = false;
    for (number, load) in loads.into_iter().enumerate() {
        let seed = args.seed.wrapping_add(number as u64);
        let run = driver.run(load, warm_up, measured, seed);
        let tally = tokio::select! {
            tally = run => tally,
            _ = tokio::signal::ctrl_c() => {
                interrupted = true;
                break;
            }
        };
        let step = Step::of(load, &tally);
        if !json {
            step.print();
        }
        report.steps.push(step);
    }
    let left = if args.keep { 0 } else { driver.clean_up().await };
    report.end(json, left);
    if let Some(path) = &args.plot {
        plot::draw(path, &report)?;
    }
    Ok(if interrupted || left > 0 { Exit::Partial } else { Exit::Ok })
}

/// What the service says of itself: nothing to gates and enrollers.
async fn status(client: &Client) -> Result<Option<proto::StatusResponse>, Failure> {
    match client.status(proto::StatusRequest {}).await {
        Ok(status) => Ok(Some(status)),
        Err(refusal) if refusal.code.name() == "PERMISSION_DENIED" => Ok(None),
        Err(refusal) => Err(refusal.into()),
    }
}

impl BenchArgs {
    fn loads(&self) -> Result<Vec<Load>, Failure> {
        let closed = self.callers.iter().map(|callers| match callers {
            1..=4096 => Ok(Load::Closed { callers: *callers }),
            _ => Err(Failure::new(Exit::Usage, "--callers must be 1 to 4096")),
        });
        let open = self
            .rate
            .iter()
            .map(|rate| positive("--rate", *rate).map(|_| Load::Open { per_second: *rate }));
        closed.chain(open).collect()
    }
}

/// A number of seconds, or of requests a second, that makes sense.
fn positive(option: &str, value: f64) -> Result<Duration, Failure> {
    if value.is_finite() && value > 0.0 && value <= 1e6 {
        Ok(Duration::from_secs_f64(value))
    } else {
        Err(Failure::new(Exit::Usage, format!("{option} must be more than 0, at most 1,000,000")))
    }
}
