//! `assent decommission`.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::PathBuf;

use clap::Args;

use super::Outcome;
use super::exit::{Exit, Failure};
use super::serve::ServeArgs;
use crate::server::{Decommissioned, Inventory, Order, decommission, inventory};
use crate::service::{json, proto};

/// Digits of the public key that confirm.
const CONFIRMING_DIGITS: usize = 16;
/// Files that are listed.
const LISTED: usize = 20;

/// Settings as of `assent serve`, which must not run.
#[derive(Debug, Args)]
pub(super) struct DecommissionArgs {
    #[command(flatten)]
    settings: ServeArgs,
    /// Do it: the first 16 digits of the deployment's public key, which the command prints without
    #[arg(long, value_name = "DIGITS", requires_all = ["by", "trail", "output"])]
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
    let found = inventory(&settings).await.map_err(Failure::usage)?;
    let digits = &found.public_key[..CONFIRMING_DIGITS];
    let (Some(confirm), Some(by), Some(trail), Some(output)) =
        (&args.confirm, &args.by, &args.trail, &args.output)
    else {
        return tell(&found, digits, json);
    };
    if confirm != digits {
        let message =
            format!("--confirm {confirm} names another deployment than this one, {digits}");
        return Err(Failure::new(Exit::Usage, message));
    }
    let order = Order { by: by.clone(), trail: trail.clone(), certificate: output.clone() };
    let file = OpenOptions::new().write(true).create_new(true).open(output);
    let file = file.map_err(|fault| Failure::usage(fault).about(output))?;
    let done = decommission(&settings, &order).await.map_err(|fault| {
        let _empty = std::fs::remove_file(output);
        Failure::usage(fault)
    })?;
    report(&done, &order, found.records, file, json)
}

fn report(
    done: &Decommissioned,
    order: &Order,
    records: u64,
    mut file: File,
    json: bool,
) -> Outcome {
    let Order { certificate: output, trail, .. } = order;
    let message = proto::Receipt::from(&done.certificate);
    let value = json::to_json("Receipt", &message).unwrap_or_default();
    let written = writeln!(file, "{value:#}").and_then(|()| file.sync_all());
    written.map_err(|fault| {
        Failure::usage(fault)
            .about(output)
            .advise("the deployment is destroyed; its certificate is in the data directory")
    })?;
    if json {
        say!("{value:#}");
    } else {
        say!("{records} records destroyed, keys first; the certificate is {}", output.display());
        say!("  check it with `assent receipt verify {}`", output.display());
        say!(
            "  keep {} for three years (M9, M14): it is the only copy of the audit trail",
            trail.display()
        );
        if !done.filed.is_empty() {
            let filed = done.filed.join(", ");
            say!("  cancel the filing of {filed} with the authority within 30 working days (M15)");
        }
    }
    if let Err(fault) = &done.marked {
        eprintln!("assent: {fault}: the data directory does not say that it was decommissioned");
    }
    for file in &done.left {
        eprintln!("assent: not wiped, and of no use to anybody without its keys: {file}");
    }
    Ok(if done.left.is_empty() && done.marked.is_ok() { Exit::Ok } else { Exit::Partial })
}

fn tell(found: &Inventory, digits: &str, json: bool) -> Outcome {
    if json {
        say!("{}", serde_json::to_string_pretty(found).map_err(Failure::internal)?);
        return Ok(Exit::Ok);
    }
    say!("this deployment would be destroyed, for good:");
    say!("  public key  {}", found.public_key);
    for controller in &found.controllers {
        say!("  controller  {}: {}", controller["id"], controller["name"]);
    }
    for filing in &found.filings {
        say!("  filing      {}, to be cancelled with the authority", filing["controller"]);
    }
    say!("  records     {}", found.records);
    say!("  audit trail {} entries, written out before", found.audit_entries);
    say!("  the root key, and {} files:", found.files.len());
    for file in found.files.iter().take(LISTED) {
        say!("    {}", file.display());
    }
    if found.files.len() > LISTED {
        say!("    and {} more", found.files.len() - LISTED);
    }
    say!("nothing was destroyed. To do it, repeat the command with:");
    say!("  --confirm {digits} --by \"NAME, TITLE\" --trail trail.jsonl --output certificate.json");
    Ok(Exit::Ok)
}
