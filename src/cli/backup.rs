//! `assent backup` and `assent restore`.

use std::fs::File;
use std::io::{BufReader, BufWriter, Write};
use std::path::PathBuf;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use super::connection::ConnectionArgs;
use super::exit::{Exit, Failure};
use super::files::{about, new_secret_file, open};
use super::keys::IdentityArgs;
use super::serve::ServeArgs;
use super::{Outcome, block_on, output};
use crate::crypto::envelope::{self, Recipient};
use crate::server::restore_backup;
use crate::service::client::Client;
use crate::service::proto;
use crate::store::{BackupCheck, BackupHead, Restored};

/// How many records are named; the audit trail names all.
const NAMED: usize = 10;

#[derive(Debug, Args)]
pub(super) struct BackupArgs {
    /// The file; must not exist
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// To whom it is addressed, age1...; several times for several. `assent keys backup-identity`
    /// or age-keygen makes one
    #[arg(short, long = "recipient", required = true, value_name = "RECIPIENT")]
    recipients: Vec<String>,
    #[command(flatten)]
    connection: ConnectionArgs,
}

#[derive(Debug, Args)]
pub(super) struct RestoreArgs {
    /// The backup
    file: PathBuf,
    /// File with the identity that the backup is addressed to
    #[arg(short, long, value_name = "FILE")]
    identity: PathBuf,
    /// The newest key mirror there is; without it a backup opens only while nothing was erased, and
    /// the service not restarted, since it was made
    #[arg(long, value_name = "DIR")]
    mirror: Option<PathBuf>,
    /// Where to, and with which root key: as for `assent serve`
    #[command(flatten)]
    settings: ServeArgs,
}

pub(super) fn new_identity(args: &IdentityArgs) -> Outcome {
    let (identity, recipient) = envelope::new_identity();
    let mut file = new_secret_file(&args.path)?;
    let written = file.write_all(identity.as_bytes()).and_then(|()| file.sync_all());
    written.map_err(about(&args.path))?;
    say!("{recipient}");
    eprintln!(
        "{}\n  assent backup --recipient {recipient}",
        words!(
            "identity written to {}: keep it away from the service, it opens the backups made with",
            args.path.display()
        )
    );
    Ok(Exit::Ok)
}

pub(super) async fn backup(args: &BackupArgs, json: bool) -> Outcome {
    let recipients = args.recipients.iter().map(|text| text.parse::<Recipient>());
    let recipients = recipients.collect::<Result<Vec<_>, _>>().map_err(Failure::usage)?;
    let client = args.connection.connect().await?;
    let file = new_secret_file(&args.output)?;
    let fetched = fetch(&client, &recipients, &file).await;
    let (head, bytes) = fetched.inspect_err(|_| {
        let _left_there = std::fs::remove_file(&args.output);
    })?;
    if json {
        let said = serde_json::json!({ "file": args.output, "bytes": bytes, "at": head.at });
        say!("{said}");
    } else {
        tell!("{} MiB written to {}, as of {}", bytes >> 20, args.output.display(), head.at);
        tell!("  to restore it you need its identity, the root key and the newest key mirror");
    }
    Ok(Exit::Ok)
}

/// The whole backup in its envelope, durable in `file`; what it says of itself, and its size.
async fn fetch(
    client: &Client,
    recipients: &[Recipient],
    file: &File,
) -> Result<(BackupHead, u64), Failure> {
    let mut out = envelope::seal(recipients, BufWriter::new(file)).map_err(Failure::usage)?;
    let mut pieces = client.backup(proto::BackupRequest {}).await?;
    let (mut check, mut bytes) = (BackupCheck::default(), 0);
    let progress = ProgressBar::no_length();
    progress.set_style(style("{spinner} {binary_bytes} at {binary_bytes_per_sec}")?);
    while let Some(proto::BackupResponse { piece }) = pieces.next().await? {
        check.update(&piece);
        out.write_all(&piece).map_err(Failure::usage)?;
        bytes += piece.len() as u64;
        progress.set_position(bytes);
    }
    progress.finish_and_clear();
    let head = check.finish().map_err(Failure::internal)?;
    let mut written = out.finish().map_err(Failure::usage)?;
    written.flush().and_then(|()| file.sync_all()).map_err(Failure::usage)?;
    Ok((head, bytes))
}

pub(super) fn restore(args: &RestoreArgs, json: bool) -> Outcome {
    let settings = args.settings.settings()?;
    let identity = BufReader::new(open(&args.identity)?);
    let file = open(&args.file)?;
    let progress = ProgressBar::new(file.metadata().map_or(0, |data| data.len()));
    progress.set_style(style("{bar:40} {binary_bytes} of {binary_total_bytes}, {eta} left")?);
    let sealed = BufReader::new(progress.wrap_read(file));
    let backup = envelope::open(identity, sealed)
        .map_err(|fault| Failure::usage(fault).about(&args.file))?;
    let mirror = args.mirror.as_deref();
    block_on(async {
        let restored = restore_backup(&settings, BufReader::new(backup), mirror, |_| {}).await;
        progress.finish_and_clear();
        report(&restored.map_err(|fault| Failure::usage(fault).about(&args.file))?, json)
    })
}

fn report(restored: &Restored, json: bool) -> Outcome {
    if json {
        output::print_value(restored)?;
        return Ok(Exit::Ok);
    }
    tell!("{} records restored, as of {}", restored.records, restored.backup_at);
    list(&words!("were revoked since and stay revoked"), &restored.revoked_since);
    list(&words!("were enrolled since and are lost: enrol them anew"), &restored.lost);
    tell!("  the first start of the service writes this into the audit trail");
    tell!(
        "  the trail goes on after the backup's last entry; later ones are with who exported them"
    );
    Ok(Exit::Ok)
}

fn list(what: &str, records: &[crate::types::RecordId]) {
    if records.is_empty() {
        return;
    }
    say!("  {} {what}:", records.len());
    for record in records.iter().take(NAMED) {
        say!("    {record}");
    }
    if records.len() > NAMED {
        tell!("    and {} more", records.len() - NAMED);
    }
}

fn style(template: &str) -> Result<ProgressStyle, Failure> {
    ProgressStyle::with_template(template).map_err(Failure::internal)
}
