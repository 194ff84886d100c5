//! `assent decommission`.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::Value;

use super::exit::{Exit, Failure};
use super::files::new_file;
use super::serve::ServeArgs;
use super::verdicts::Verdict as _;
use super::{Outcome, output};
use crate::server::{
    DecommissionFailure, Decommissioned, Inventory, Order, decommission, finish, interrupted,
    inventory,
};
use crate::service::{json, proto};

/// Files that are listed.
const LISTED: usize = 20;

/// Settings as of `assent serve`, which must not run.
#[derive(Debug, Args)]
pub(super) struct DecommissionArgs {
    #[command(flatten)]
    settings: ServeArgs,
    /// Do it: the first 16 digits of the deployment's public key, which the command prints without
    #[arg(long, value_name = "DIGITS")]
    confirm: Option<String>,
    /// Name and title of who is responsible, for the certificate
    #[arg(long, value_name = "NAME")]
    by: Option<String>,
    /// File for the audit trail, which has to be kept; must not exist
    #[arg(long, value_name = "FILE")]
    trail: Option<PathBuf>,
    /// File for the certificate; must not exist
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(super) async fn run(args: &DecommissionArgs, json: bool) -> Outcome {
    let settings = args.settings.settings()?;
    let begun = interrupted(&settings).map_err(|fault| refused(&fault))?;
    if let (Some(pledge), Some(confirm), Some(output)) = (begun, &args.confirm, &args.output) {
        check(confirm, &pledge.digits())?;
        let file = new_file(output)?;
        let done = finish(&settings, pledge, output).map_err(|fault| undone(output, &fault))?;
        return report(&done, output, file, json);
    }
    let found = inventory(&settings).await.map_err(|fault| refused(&fault))?;
    let digits = found.digits();
    let (Some(confirm), Some(by), Some(trail), Some(output)) =
        (&args.confirm, &args.by, &args.trail, &args.output)
    else {
        if args.confirm.is_some() {
            let message = words!("--by, --trail and --output are needed with --confirm");
            return Err(Failure::new(Exit::Usage, message));
        }
        return tell(&found, digits, json);
    };
    check(confirm, digits)?;
    let order = Order { by: by.clone(), trail: trail.clone(), certificate: output.clone() };
    let file = new_file(output)?;
    let done = decommission(&settings, &order).await.map_err(|fault| undone(output, &fault))?;
    report(&done, output, file, json)
}

/// Whether the digits name this deployment.
fn check(confirm: &str, digits: &str) -> Result<(), Failure> {
    if confirm == digits {
        return Ok(());
    }
    let message =
        words!("--confirm {} names another deployment than this one, {}", confirm, digits);
    Err(Failure::new(Exit::Usage, message))
}

/// Why nothing, or not all, was destroyed; the certificate's file is empty then.
fn undone(output: &Path, fault: &DecommissionFailure) -> Failure {
    let _empty = std::fs::remove_file(output);
    refused(fault)
}

fn refused(fault: &DecommissionFailure) -> Failure {
    Failure::new(Exit::Usage, fault.said())
}

fn report(done: &Decommissioned, output: &Path, mut file: File, json: bool) -> Outcome {
    let message = proto::Receipt::from(&done.certificate);
    let value = json::to_json("Receipt", &message).unwrap_or_default();
    let written = writeln!(file, "{value:#}").and_then(|()| file.sync_all());
    written.map_err(|fault| {
        Failure::usage(fault).about(output).advise(&words!(
            "the deployment is destroyed; its certificate is in the data directory"
        ))
    })?;
    if json {
        say!("{value:#}");
    } else {
        let said: Value =
            serde_json::from_slice(&done.certificate.body).map_err(Failure::internal)?;
        let records = &said["records_destroyed"];
        tell!("{} records destroyed, keys first; the certificate is {}", records, output.display());
        tell!("  check it with {}", format!("`assent receipt verify {}`", output.display()));
        tell!(
            "  keep {} for three years (M9, M14): it is the only copy of the audit trail",
            said["audit_trail"]["file"].as_str().unwrap_or_default()
        );
        if !done.filed.is_empty() {
            let filed = done.filed.join(", ");
            tell!(
                "  cancel the filing of {} with the authority within 30 working days (M15)",
                filed
            );
            if !done.cancel_until.is_empty() {
                tell!("  the last day for it is {}", done.cancel_until);
            }
        }
    }
    if let Err(fault) = &done.marked {
        let what = words!("the data directory does not say that it was decommissioned");
        eprintln!("assent: {}: {what}", fault.said());
    }
    for file in &done.left {
        eprintln!(
            "assent: {}",
            words!("not wiped, of no use to anybody without its keys: {}", file)
        );
    }
    Ok(if done.left.is_empty() && done.marked.is_ok() { Exit::Ok } else { Exit::Partial })
}

fn tell(found: &Inventory, digits: &str, json: bool) -> Outcome {
    if json {
        output::print_value(found)?;
        return Ok(Exit::Ok);
    }
    tell!("this deployment would be destroyed, for good:");
    tell!("  public key  {}", found.public_key);
    for controller in &found.controllers {
        tell!("  controller  {}: {}", controller["id"], controller["name"]);
    }
    for controller in &found.filed {
        tell!("  filing      {}, to be cancelled with the authority", controller);
    }
    tell!("  records     {}", found.records);
    tell!("  audit trail {} entries, written out before", found.audit_entries);
    tell!("  the root key, and {} files:", found.files.len());
    for file in found.files.iter().take(LISTED) {
        say!("    {}", file.display());
    }
    if found.files.len() > LISTED {
        tell!("    and {} more", found.files.len() - LISTED);
    }
    tell!("nothing was destroyed. To do it, repeat the command with:");
    say!("  --confirm {digits} --by \"NAME, TITLE\" --trail trail.jsonl --output certificate.json");
    Ok(Exit::Ok)
}
