//! `assent filing`: what the authority has to be told, by when, and that it was told (O1, M15).

mod pack;

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::connection::ConnectionArgs;
use super::exit::{Exit, Failure};
use super::{Outcome, output};
use crate::service::client::Client;
use crate::service::proto;

/// What to do about filings.
#[derive(Debug, Subcommand)]
pub(super) enum FilingCommand {
    /// Say where each controller stands, until when something is due, and what to do next
    Status(StatusArgs),
    /// Collect the material of a filing in a folder
    Pack(PackArgs),
    /// Say that something was filed with the authority
    MarkFiled(MarkArgs),
}

#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    #[command(flatten)]
    connection: ConnectionArgs,
}

#[derive(Debug, Args)]
pub(super) struct PackArgs {
    /// The controller
    #[arg(long)]
    controller: String,
    /// The folder; made where it is not there, and refused where anything is in it
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    #[command(flatten)]
    connection: ConnectionArgs,
}

#[derive(Debug, Args)]
pub(super) struct MarkArgs {
    /// The controller
    #[arg(long)]
    controller: String,
    /// The number that the authority gave
    #[arg(long)]
    number: String,
    /// The day on which it was done, in Beijing; today by default
    #[arg(long, default_value = "", hide_default_value = true, value_name = "YYYY-MM-DD")]
    at: String,
    /// A change was filed
    #[arg(long, conflicts_with = "cancelled")]
    change: bool,
    /// Processing has ended and the filing was cancelled; nobody may be held any more
    #[arg(long)]
    cancelled: bool,
    #[command(flatten)]
    connection: ConnectionArgs,
}

pub(super) async fn run(command: &FilingCommand, json: bool) -> Outcome {
    match command {
        FilingCommand::Status(args) => status(args, json).await,
        FilingCommand::Pack(args) => pack(args, json).await,
        FilingCommand::MarkFiled(args) => mark(args, json).await,
    }
}

async fn status(args: &StatusArgs, json: bool) -> Outcome {
    let client = args.connection.connect().await?;
    let response = client.filing_status(proto::FilingStatusRequest {}).await?;
    if json {
        output::print_json("FilingStatusResponse", &response);
        return Ok(Exit::Ok);
    }
    if response.controllers.is_empty() {
        say!("there is no controller: `assent apply FILE` brings one");
    }
    response.controllers.iter().for_each(print);
    Ok(Exit::Ok)
}

async fn mark(args: &MarkArgs, json: bool) -> Outcome {
    let client = args.connection.connect().await?;
    let mark = match (args.change, args.cancelled) {
        (false, false) => proto::FilingMark::Filed,
        (true, _) => proto::FilingMark::Changed,
        (false, true) => proto::FilingMark::Cancelled,
    };
    let request = proto::MarkFiledRequest {
        controller_id: args.controller.clone(),
        mark: mark.into(),
        number: args.number.clone(),
        date: args.at.clone(),
    };
    let response = client.mark_filed(request).await?;
    if json {
        output::print_json("MarkFiledResponse", &response);
    } else {
        print(&response.filing.unwrap_or_default());
    }
    Ok(Exit::Ok)
}

async fn pack(args: &PackArgs, json: bool) -> Outcome {
    let folder = pack::Folder::empty(&args.out)?;
    let client = args.connection.connect().await?;
    let material = collect(&client, &args.controller).await?;
    let written = folder.write(&pack::files(&material)?)?;
    if json {
        let files = serde_json::json!({ "controllerId": args.controller, "files": written });
        say!("{}", serde_json::to_string_pretty(&files).map_err(Failure::internal)?);
        return Ok(Exit::Ok);
    }
    for file in &written {
        say!("{file}");
    }
    say!(
        "the material is there as far as the service knows it; README.md says what you add by hand"
    );
    Ok(Exit::Ok)
}

/// All that the service knows, asked with the reading calls that an auditor has too.
async fn collect(client: &Client, controller: &str) -> Result<pack::Material, Failure> {
    let filings = client.filing_status(proto::FilingStatusRequest {}).await?;
    let filing = filings.controllers.into_iter().find(|one| one.controller_id == controller);
    let filing = filing.ok_or_else(|| {
        let message = format!("--controller {controller}: no such controller was applied");
        Failure::new(Exit::Refused, message).advise("`assent filing status` names them")
    })?;
    let policy = client.read_policy(proto::ReadPolicyRequest {}).await?;
    let status = client.status(proto::StatusRequest {}).await?;
    pack::Material::of(filing, policy, status)
}

/// Where one controller stands, and what comes next.
fn print(filing: &proto::ControllerFiling) {
    say!("{}: {}", filing.controller_id, headline(filing));
    if filing.threshold == 0 {
        say!("  persons   {}", filing.persons);
        return;
    }
    say!("  persons   {} of {}", filing.persons, filing.threshold);
    if !filing.number.is_empty() {
        let done = if filing.filed_on.is_empty() {
            format!("cancelled {}", filing.cancelled_on)
        } else {
            format!("filed {}", filing.filed_on)
        };
        say!("  number    {}, {done}", filing.number);
    }
    if !filing.deadline_unknown.is_empty() {
        say!("  deadline  NOT KNOWN: {}", filing.deadline_unknown);
    }
    say!("  next      {}", next(filing));
}

/// The state in words.
fn headline(filing: &proto::ControllerFiling) -> String {
    let since = output::time(filing.due_since.as_ref());
    let until = match (filing.deadline.as_str(), filing.overdue) {
        ("", _) => "as soon as you can".to_owned(),
        (day, false) => format!("until {day}"),
        (day, true) => format!("OVERDUE, it was until {day}"),
    };
    match filing.state() {
        proto::FilingState::Unspecified => "the profile in force wants no filing".to_owned(),
        proto::FilingState::Quiet => "quiet".to_owned(),
        proto::FilingState::Warned => {
            format!("WARNED, from {} persons on", filing.warn_from)
        }
        proto::FilingState::Due => format!("DUE since {since}: file {until}"),
        proto::FilingState::Filed => "filed".to_owned(),
        proto::FilingState::ChangeDue => format!("CHANGE DUE since {since}: file it {until}"),
        proto::FilingState::Cancelled => "cancelled".to_owned(),
    }
}

/// What to do.
fn next(filing: &proto::ControllerFiling) -> String {
    let id = &filing.controller_id;
    let pack = format!("`assent filing pack --controller {id} --out DIR` collects the material");
    let mark = format!("`assent filing mark-filed --controller {id} --number NUMBER");
    match filing.state() {
        proto::FilingState::Unspecified | proto::FilingState::Quiet => "nothing".to_owned(),
        proto::FilingState::Warned => format!("prepare the filing: {pack}"),
        proto::FilingState::Due => format!(
            "{pack}; file it with the cyberspace administration of the province, then {mark}`"
        ),
        proto::FilingState::Filed => format!(
            "nothing; when you end: withdraw all, have the filing cancelled, then {mark} --cancelled`"
        ),
        proto::FilingState::ChangeDue => format!("{pack}; file the change, then {mark} --change`"),
        proto::FilingState::Cancelled => "nothing; it begins anew at the threshold".to_owned(),
    }
}
