//! `assent lockout`: lets a subject's face be tried again.

use clap::{Args, Subcommand};

use super::connection::ConnectionArgs;
use super::exit::Exit;
use super::{Outcome, output};
use crate::service::proto;

/// `assent lockout`.
#[derive(Debug, Subcommand)]
pub(super) enum LockoutCommand {
    /// Let a subject's face be tried again after too many failed attempts
    Clear(ClearArgs),
}

/// `assent lockout clear`.
#[derive(Debug, Args)]
pub(super) struct ClearArgs {
    /// The controller
    #[arg(long)]
    controller: String,
    /// The subject
    #[arg(long)]
    subject: String,
    #[command(flatten)]
    connection: ConnectionArgs,
}

pub(super) async fn run(command: &LockoutCommand, json: bool) -> Outcome {
    let LockoutCommand::Clear(args) = command;
    let client = args.connection.connect().await?;
    let request = proto::ClearLockoutRequest {
        controller_id: args.controller.clone(),
        subject_ref: args.subject.clone(),
    };
    let response = client.clear_lockout(request).await?;
    if json {
        output::print_json("ClearLockoutResponse", &response);
    } else if response.cleared {
        tell!("cleared: the face may be tried again");
    } else {
        tell!("no failed attempts were on record");
    }
    Ok(Exit::Ok)
}
