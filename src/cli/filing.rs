//! `assent filing`: what the authority has to be told, by when, and that it was told (O1, M15).

mod pack;

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::connection::ConnectionArgs;
use super::exit::{Exit, Failure};
use super::files::{empty_folder, write_new};
use super::{Outcome, output};
use crate::service::client::Client;
use crate::service::proto;

/// What to do about filings.
#[derive(Debug, Subcommand)]
pub(super) enum FilingCommand {
    /// Say where each controller stands, until when something is due, and what to do next
    Status(ConnectionArgs),
    /// Collect the material of a filing in a folder
    Pack(PackArgs),
    /// Say that something was filed with the authority
    MarkFiled(MarkArgs),
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
    /// The last mark, of this number, was a mistake: all stands as before it, deadlines too
    #[arg(long, conflicts_with_all = ["change", "cancelled", "at"])]
    mistaken: bool,
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

async fn status(connection: &ConnectionArgs, json: bool) -> Outcome {
    let client = connection.connect().await?;
    let response = client.filing_status(proto::FilingStatusRequest {}).await?;
    if json {
        output::print_json("FilingStatusResponse", &response);
        return Ok(Exit::Ok);
    }
    if response.controllers.is_empty() {
        tell!("there is no controller: `assent apply FILE` brings one");
    }
    response.controllers.iter().for_each(print);
    Ok(Exit::Ok)
}

async fn mark(args: &MarkArgs, json: bool) -> Outcome {
    let client = args.connection.connect().await?;
    let mark = match (args.change, args.cancelled, args.mistaken) {
        (true, ..) => proto::FilingMark::Changed,
        (_, true, _) => proto::FilingMark::Cancelled,
        (.., true) => proto::FilingMark::Mistaken,
        (false, false, false) => proto::FilingMark::Filed,
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
    empty_folder(&args.out)?;
    let client = args.connection.connect().await?;
    let material = collect(&client, &args.controller).await?;
    let mut written = Vec::new();
    for (name, content) in pack::files(&material)? {
        let path = args.out.join(name);
        write_new(&path, content)?;
        written.push(path.display().to_string());
    }
    if json {
        let files = serde_json::json!({ "controllerId": args.controller, "files": written });
        output::print_value(&files)?;
        return Ok(Exit::Ok);
    }
    for file in &written {
        say!("{file}");
    }
    tell!(
        "the material is there as far as the service knows it; README.md says what you add by hand"
    );
    Ok(Exit::Ok)
}

/// All that the service knows, asked with the reading calls that an auditor has too.
async fn collect(client: &Client, controller: &str) -> Result<pack::Material, Failure> {
    let filings = client.filing_status(proto::FilingStatusRequest {}).await?;
    let filing = filings.controllers.into_iter().find(|one| one.controller_id == controller);
    let filing = filing.ok_or_else(|| {
        let message = words!("--controller {}: no such controller was applied", controller);
        Failure::new(Exit::Refused, message).advise(&words!("`assent filing status` names them"))
    })?;
    let policy = client.read_policy(proto::ReadPolicyRequest {}).await?;
    let status = client.status(proto::StatusRequest {}).await?;
    pack::Material::of(filing, policy, status)
}

/// Where one controller stands, and what comes next.
fn print(filing: &proto::ControllerFiling) {
    say!("{}: {}", filing.controller_id, headline(filing));
    if filing.threshold == 0 {
        tell!("  persons   {}", filing.persons);
        return;
    }
    tell!("  persons   {} of {}", filing.persons, filing.threshold);
    if !filing.filed_on.is_empty() {
        tell!("  number    {}, filed {}", filing.number, filing.filed_on);
    } else if !filing.number.is_empty() {
        tell!("  number    {}, cancelled {}", filing.number, filing.cancelled_on);
    }
    if !filing.deadline_unknown.is_empty() {
        tell!("  deadline  NOT KNOWN: {}", filing.deadline_unknown);
    }
    tell!("  next      {}", next(filing));
}

/// The state in words.
fn headline(filing: &proto::ControllerFiling) -> String {
    let since = output::time(filing.due_since.as_ref());
    let until = match (filing.deadline.as_str(), filing.overdue) {
        ("", _) => words!("as soon as you can"),
        (day, false) => words!("until {}", day),
        (day, true) => words!("OVERDUE, it was until {}", day),
    };
    match filing.state() {
        proto::FilingState::Unspecified => words!("the profile in force wants no filing"),
        proto::FilingState::Quiet => words!("quiet"),
        proto::FilingState::Warned => words!("WARNED, from {} persons on", filing.warn_from),
        proto::FilingState::Due => words!("DUE since {}: file {}", since, until),
        proto::FilingState::Filed => words!("filed"),
        proto::FilingState::ChangeDue => words!("CHANGE DUE since {}: file it {}", since, until),
        proto::FilingState::CancelDue => {
            words!("NOBODY HELD since {}: if use has ended, cancel the filing {}", since, until)
        }
        proto::FilingState::Cancelled => words!("cancelled"),
    }
}

/// What to do.
fn next(filing: &proto::ControllerFiling) -> String {
    let id = &filing.controller_id;
    let pack = words!(
        "{} collects the material",
        format!("`assent filing pack --controller {id} --out DIR`")
    );
    let mark = |option: &str| {
        format!("`assent filing mark-filed --controller {id} --number NUMBER{option}`")
    };
    match filing.state() {
        proto::FilingState::Unspecified | proto::FilingState::Quiet => words!("nothing"),
        proto::FilingState::Warned => words!("prepare the filing: {}", pack),
        proto::FilingState::Due => words!(
            "{}; file it with the cyberspace administration of the province, then {}",
            pack,
            mark("")
        ),
        proto::FilingState::Filed => words!(
            "nothing; when you end: withdraw all, have the filing cancelled, then {}",
            mark(" --cancelled")
        ),
        proto::FilingState::ChangeDue => {
            words!("{}; file the change, then {}", pack, mark(" --change"))
        }
        proto::FilingState::CancelDue => words!(
            "if use has ended: have the filing cancelled, then {}; who enrols again need not",
            mark(" --cancelled")
        ),
        proto::FilingState::Cancelled => words!("nothing; it begins anew at the threshold"),
    }
}
