//! The command line: each command is a client of the service, but for `serve`, `demo`,
//! `check-config`, `profile`, `models`, `calibrate`, `keys`, `restore`, `decommission`,
//! `audit verify`, `evidence verify` and `receipt verify`, which run here.
//!
//! Results go to standard output (`--json`: proto JSON), everything else to standard error.

/// Prints a line of results. When nobody reads any more (`| head`), the process ends quietly.
macro_rules! say {
    () => { $crate::cli::output::line(format_args!("")) };
    ($($arg:tt)*) => { $crate::cli::output::line(format_args!($($arg)*)) };
}

#[macro_use]
mod words;

mod audit;
mod backup;
mod bench;
mod calibrate;
mod calls;
mod connection;
mod consent_file;
mod decommission;
mod demo;
mod enroll;
mod evidence;
mod exit;
mod files;
mod filing;
mod keys;
mod lockout;
mod models;
mod output;
mod profile;
mod ropa;
mod serve;
mod status;
mod verdicts;

use clap::{Parser, Subcommand};

use audit::{AuditCommand, ReceiptCommand};
use connection::ConnectionArgs;
pub use exit::Exit;

/// A face-matching microservice that only works with consent.
#[derive(Debug, Parser)]
#[command(name = "assent", version, about, after_long_help = exit::HELP, max_term_width = 100)]
pub struct Cli {
    /// Print results as JSON with the names of the proto
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the service
    Serve(serve::ServeArgs),
    /// Check a configuration without starting anything
    CheckConfig(serve::ServeArgs),
    /// Run the whole story on this machine: enrol, match, refuse, withdraw
    Demo(demo::DemoArgs),
    /// Apply controllers, notices, impact assessments and gates from a TOML file
    Apply(calls::ApplyArgs),
    /// Print a notice and its digest, which consent records must name
    Notice(calls::NoticeArgs),
    /// Enrol one subject, or a folder of subjects
    Enroll(enroll::EnrollArgs),
    /// Verify a photo at a gate; exits 0 on MATCH, 3 on NO_MATCH
    Verify(calls::VerifyArgs),
    /// Say that a gate's other way in is up or down, as its controller does by `heartbeat_s`
    Alternative(calls::AlternativeArgs),
    /// Withdraw a consent and destroy what it covered
    Revoke(calls::RevokeArgs),
    /// Say what is held about a subject
    Describe(calls::DescribeArgs),
    /// Say what the service is doing
    Status(ConnectionArgs),
    /// Say what the rules of a policy profile are and where they come from
    #[command(subcommand)]
    Profile(profile::ProfileCommand),
    /// Say that the system's clock is right after it jumped
    #[command(subcommand)]
    Clock(ClockCommand),
    /// Say what has to be filed with the authority, collect it, and mark it as filed
    #[command(subcommand)]
    Filing(filing::FilingCommand),
    /// List, fetch and check model packs
    #[command(subcommand)]
    Models(models::ModelsCommand),
    /// Measure a pack's thresholds and error rates on labelled photos of your own
    Calibrate(calibrate::CalibrateArgs),
    /// Make and replace keys, and say how they are kept
    #[command(subcommand)]
    Keys(keys::KeysCommand),
    /// Let a face be tried again after too many failed attempts
    #[command(subcommand)]
    Lockout(lockout::LockoutCommand),
    /// Fetch a backup of everything from the service, in an age envelope
    Backup(backup::BackupArgs),
    /// Bring a backup back into an empty data directory, less what was revoked since
    Restore(backup::RestoreArgs),
    /// Destroy a deployment and certify it: keys first, then every file
    Decommission(decommission::DecommissionArgs),
    /// Fetch, check and witness the audit trail
    #[command(subcommand)]
    Audit(audit::AuditCommand),
    /// Collect what was done about a subject, for a court, a regulator or the person; check it
    Evidence(evidence::EvidenceArgs),
    /// Collect what was done in a stretch of time, after an incident
    Incident(evidence::IncidentArgs),
    /// Print the records of processing (GDPR 30, PIPL 55), out of what is in force
    Ropa(ConnectionArgs),
    /// Put load on a running service and measure it
    Bench(bench::BenchArgs),
    /// Check receipts of consent and erasure
    #[command(subcommand)]
    Receipt(audit::ReceiptCommand),
}

/// What to do about the clock.
#[derive(Debug, Subcommand)]
enum ClockCommand {
    /// Take the clock as it is: what has expired by it is erased
    Confirm(ConnectionArgs),
}

/// Runs one command; the value is the process's exit status.
#[must_use]
pub fn run(cli: Cli) -> Exit {
    let json = cli.json;
    let outcome = match cli.command {
        Command::Serve(args) => serve::serve(&args),
        Command::CheckConfig(args) => serve::check(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Profile(command) => profile::run(&command, json),
        Command::Filing(command) => block_on(filing::run(&command, json)),
        Command::Models(command) => models::run(&command, json),
        Command::Calibrate(args) => block_on(calibrate::run(&args, json)),
        Command::Keys(command) => keys::run(command, json),
        Command::Lockout(command) => block_on(lockout::run(&command, json)),
        Command::Backup(args) => block_on(backup::backup(&args, json)),
        Command::Decommission(args) => block_on(decommission::run(&args, json)),
        Command::Restore(args) => backup::restore(&args, json),
        Command::Audit(AuditCommand::Verify(args)) => audit::verify(&args, json),
        Command::Audit(AuditCommand::Export(args)) => block_on(audit::export(&args, json)),
        Command::Audit(AuditCommand::Witness(args)) => block_on(audit::witness(&args, json)),
        Command::Receipt(ReceiptCommand::Verify(args)) => audit::verify_receipts(&args, json),
        Command::Evidence(args) => block_on(evidence::run(&args, json)),
        Command::Incident(args) => block_on(evidence::incident(&args, json)),
        Command::Ropa(args) => block_on(ropa::run(&args, json)),
        Command::Bench(args) => block_on(bench::run(&args, json)),
        Command::Clock(ClockCommand::Confirm(args)) => block_on(status::confirm_clock(&args, json)),
        Command::Apply(args) => block_on(calls::apply(&args, json)),
        Command::Notice(args) => block_on(calls::notice(&args, json)),
        Command::Enroll(args) => block_on(enroll::run(&args, json)),
        Command::Verify(args) => block_on(calls::verify(&args, json)),
        Command::Alternative(args) => block_on(calls::alternative(&args, json)),
        Command::Revoke(args) => block_on(calls::revoke(&args, json)),
        Command::Describe(args) => block_on(calls::describe(&args, json)),
        Command::Status(args) => block_on(status::status(&args, json)),
    };
    outcome.unwrap_or_else(|failure| failure.report())
}

type Outcome = Result<Exit, exit::Failure>;

fn block_on(work: impl Future<Output = Outcome>) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(exit::Failure::internal)?;
    runtime.block_on(work)
}
