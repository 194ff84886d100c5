//! `assent audit` and `assent receipt`: what the service says it did, checked without it.

use std::fs::{File, OpenOptions};
use std::io::{BufReader, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use zeroize::Zeroizing;

use super::connection::ConnectionArgs;
use super::exit::{Exit, Failure};
use super::files::{about, new_file, open, read};
use super::serve::wait_for_signal;
use super::verdicts::Verdict as _;
use super::{Outcome, output};
use crate::audit::{
    Checkpoint, Receipt, ReceiptKind, VerifyError, VerifyReport, Witness, read_checkpoints,
    verify_export,
};
use crate::crypto::PUBLIC_KEY_BYTES;
use crate::service::client::Client;
use crate::service::proto;

/// What to do with the audit trail.
#[derive(Debug, Subcommand)]
pub(super) enum AuditCommand {
    /// Check an export: every link, every signature, and that it agrees with a witness
    Verify(VerifyArgs),
    /// Fetch the audit trail from the service into a file
    Export(ExportArgs),
    /// Keep the trail's checkpoints in a file here, and raise the alarm when the trail was rewritten
    Witness(WitnessArgs),
}

#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    /// The export, as `assent audit export` made it
    file: PathBuf,
    /// The deployment's public key; without it the key in the export is taken at its word
    #[arg(long, value_name = "HEX")]
    public_key: Option<String>,
    /// File that `assent audit witness` keeps
    #[arg(long, value_name = "FILE")]
    witness: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    /// The file; must not exist
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Leave out entries up to this number
    #[arg(long, default_value_t = 0, value_name = "NUMBER")]
    after: u64,
    #[command(flatten)]
    connection: ConnectionArgs,
}

#[derive(Debug, Args)]
pub(super) struct WitnessArgs {
    /// Where checkpoints are kept: on a machine that whoever runs the service cannot write to
    #[arg(long, value_name = "FILE")]
    file: PathBuf,
    /// The deployment's public key; without it the first export's key is kept to
    #[arg(long, value_name = "HEX")]
    public_key: Option<String>,
    /// Look again after so many seconds, until Ctrl-C; look once without it
    #[arg(long, value_name = "SECONDS")]
    every: Option<u64>,
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// What to do with receipts.
#[derive(Debug, Subcommand)]
pub(super) enum ReceiptCommand {
    /// Check the signature of receipts, and print what they say
    Verify(ReceiptArgs),
}

#[derive(Debug, Args)]
pub(super) struct ReceiptArgs {
    /// A receipt, or an answer of `assent --json enroll` or `revoke` with one in it
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// The deployment's public key; without it the key in the receipt is taken at its word
    #[arg(long, value_name = "HEX")]
    public_key: Option<String>,
}

pub(super) fn verify(args: &VerifyArgs, json: bool) -> Outcome {
    let key = public_key(args.public_key.as_deref())?;
    let witness = args.witness.as_deref().map(kept).transpose()?.unwrap_or_default();
    let file = open(&args.file)?;
    let size = file.metadata().map_err(about(&args.file))?.len();
    let progress = bar(size);
    let reader = progress.wrap_read(file);
    let report = verify_export(BufReader::new(reader), key.as_ref(), &witness, |_| {});
    progress.finish_and_clear();
    let report = report.map_err(|fault| refused(fault).about(&args.file))?;
    if json {
        output::print_value(&report)?;
        return Ok(Exit::Ok);
    }
    print_report(&report, key.is_some(), args.witness.is_some());
    Ok(Exit::Ok)
}

fn print_report(report: &VerifyReport, key_given: bool, witness_given: bool) {
    let VerifyReport { public_key, first, entries, checkpoints, end, witnessed } = report;
    tell!("the audit trail holds: {} entries, from {} to {}", entries, first, end.head.seq);
    print_signer(public_key, key_given);
    tell!("  at         {}", end.at);
    tell!("  signed on the way {} times", checkpoints);
    if witness_given {
        print_witnessed(*witnessed);
    } else {
        tell!("  not compared with a witness: whoever has the signing key could have rewritten it");
    }
}

/// Whose signature it is.
pub(super) fn print_signer(public_key: &[u8; PUBLIC_KEY_BYTES], key_given: bool) {
    tell!("  signed by  {}", hex::encode(public_key));
    if !key_given {
        tell!("             compare it with the key that you know: --public-key checks it");
    }
}

/// That a witness saw the same.
pub(super) fn print_witnessed(checkpoints: usize) {
    tell!("  agrees with {} checkpoint(s) of the witness", checkpoints);
}

pub(super) async fn export(args: &ExportArgs, json: bool) -> Outcome {
    let client = args.connection.connect().await?;
    let mut file = new_file(&args.output)?;
    let fetched = fetch(&client, args.after, &mut file).await;
    let bytes = fetched.and_then(|bytes| {
        // A service that stops in the middle leaves a piece that holds for nothing.
        file.rewind().map_err(about(&args.output))?;
        verify_export(BufReader::new(&file), None, &[], |_| {})
            .map_err(|fault| refused(fault).about(&args.output))?;
        Ok(bytes)
    });
    let bytes = bytes.inspect_err(|_| {
        let _left_there = std::fs::remove_file(&args.output);
    })?;
    if json {
        say!("{}", serde_json::json!({ "file": args.output, "bytes": bytes }));
    } else {
        let check = format!("`assent audit verify {}`", args.output.display());
        tell!("{} KiB written; check with {}", bytes / 1024, check);
    }
    Ok(Exit::Ok)
}

/// The whole export, durable in `file`; its size.
async fn fetch(client: &Client, after_seq: u64, file: &mut File) -> Result<u64, Failure> {
    let request = proto::ExportAuditRequest { after_seq, digests_only: false };
    let mut pieces = client.export_audit(request).await?;
    let (mut bytes, progress) = (0, ProgressBar::no_length());
    while let Some(piece) = pieces.next().await? {
        file.write_all(&piece.lines).map_err(Failure::usage)?;
        bytes += piece.lines.len() as u64;
        progress.set_position(bytes);
    }
    progress.finish_and_clear();
    file.sync_all().map_err(Failure::usage)?;
    Ok(bytes)
}

pub(super) async fn witness(args: &WitnessArgs, json: bool) -> Outcome {
    let mut witness = Witness { public_key: public_key(args.public_key.as_deref())?, last: None };
    if args.file.exists() {
        witness.last = kept(&args.file)?.last().copied();
    }
    loop {
        // Connected anew each time: the service may have been restarted meanwhile.
        let client = args.connection.connect().await?;
        look(&client, &mut witness, &args.file, json).await?;
        let Some(seconds) = args.every else { return Ok(Exit::Ok) };
        tokio::select! {
            stopped = wait_for_signal() => return stopped.map(|()| Exit::Ok),
            () = tokio::time::sleep(Duration::from_secs(seconds)) => {}
        }
    }
}

/// Follows the trail from the newest checkpoint on, and keeps the new one.
async fn look(
    client: &Client,
    witness: &mut Witness,
    file: &Path,
    json: bool,
) -> Result<(), Failure> {
    let after_seq = witness.last.map_or(0, |last| last.head.seq);
    let request = proto::ExportAuditRequest { after_seq, digests_only: true };
    let mut pieces = client.export_audit(request).await?;
    let mut export = Vec::new();
    while let Some(piece) = pieces.next().await? {
        export.extend_from_slice(&piece.lines);
    }
    let report = witness.look(&export[..]).map_err(|alarm| {
        Failure::new(Exit::Refused, words!("ALARM: {}", alarm.said()))
            .about(file)
            .advise("keep this file, and find out who changed the store or its root key")
    })?;
    if report.entries > 0 || witness.last.is_none() {
        keep(file, &report.end)?;
        witness.last = Some(report.end);
    }
    witness.public_key = Some(report.public_key);
    if json {
        say!("{}", serde_json::to_string(&report).map_err(Failure::internal)?);
    } else {
        tell!("entry {} witnessed, {} new", report.end.head.seq, report.entries);
    }
    Ok(())
}

fn keep(file: &Path, checkpoint: &Checkpoint) -> Result<(), Failure> {
    let line = serde_json::to_string(checkpoint).map_err(Failure::internal)? + "\n";
    let opened = OpenOptions::new().append(true).create(true).open(file);
    let written = opened.and_then(|mut out| {
        out.write_all(line.as_bytes())?;
        out.sync_all()
    });
    written.map_err(about(file))
}

pub(super) fn kept(file: &Path) -> Result<Vec<Checkpoint>, Failure> {
    read_checkpoints(BufReader::new(open(file)?)).map_err(about(file))
}

pub(super) fn verify_receipts(args: &ReceiptArgs, json: bool) -> Outcome {
    let key = public_key(args.public_key.as_deref())?;
    for file in &args.files {
        let text = Zeroizing::new(read(file)?);
        let receipt = find_receipt(&text)
            .ok_or_else(|| Failure::new(Exit::Usage, words!("holds no receipt")).about(file))?;
        let statement = receipt
            .verify(key.as_ref())
            .map_err(|fault| Failure::new(Exit::Refused, fault.said()).about(file))?;
        if json {
            output::print_value(&statement.body)?;
            continue;
        }
        let what = match statement.kind {
            ReceiptKind::Consent => words!("consent receipt"),
            ReceiptKind::Erasure => words!("erasure receipt"),
            ReceiptKind::Evidence => words!("statement of evidence"),
            ReceiptKind::Decommission => words!("certificate of decommissioning"),
        };
        tell!("{}: {}, signed by {}", file.display(), what, hex::encode(receipt.public_key));
        if key.is_none() {
            tell!("  compare this key with the one that you know: --public-key checks it");
        }
        if let Some(fields) = statement.body.as_object() {
            for (name, value) in fields.iter().filter(|(name, _)| *name != "type") {
                say!("  {name}: {value}");
            }
        }
    }
    Ok(Exit::Ok)
}

/// In a receipt as the proto's JSON has it, alone or as the field `receipt` of an answer.
fn find_receipt(text: &[u8]) -> Option<Receipt> {
    let whole: serde_json::Value = serde_json::from_slice(text).ok()?;
    let found = whole.get("receipt").unwrap_or(&whole);
    let bytes = |name: &str, other: &str| {
        let field = found.get(name).or_else(|| found.get(other))?;
        decode_base64(field.as_str()?)
    };
    Some(Receipt {
        body: bytes("body", "body")?,
        signature: bytes("signature", "signature")?.try_into().ok()?,
        public_key: bytes("publicKey", "public_key")?.try_into().ok()?,
    })
}

/// RFC 4648, as proto JSON writes bytes.
fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let value = |c: u8| match c {
        b'A'..=b'Z' => Some(u32::from(c - b'A')),
        b'a'..=b'z' => Some(u32::from(c - b'a') + 26),
        b'0'..=b'9' => Some(u32::from(c - b'0') + 52),
        b'+' | b'-' => Some(62),
        b'/' | b'_' => Some(63),
        _ => None,
    };
    let (mut bytes, mut bits, mut held) = (Vec::new(), 0_u32, 0);
    for c in text.trim_end_matches('=').bytes() {
        bits = bits << 6 | value(c)?;
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push(u8::try_from(bits >> held & 0xFF).ok()?);
        }
    }
    Some(bytes)
}

pub(super) fn public_key(hex: Option<&str>) -> Result<Option<[u8; 32]>, Failure> {
    let decode = |hex: &str| {
        let mut key = [0; 32];
        hex::decode_to_slice(hex, &mut key).map(|()| key)
    };
    hex.map(decode).transpose().map_err(|_no_hex| {
        Failure::new(Exit::Usage, "--public-key: 64 hexadecimal digits are needed")
    })
}

pub(super) fn refused(fault: VerifyError) -> Failure {
    if let VerifyError::Read(fault) = fault {
        return Failure::usage(fault);
    }
    Failure::new(Exit::Refused, fault.said())
}

fn bar(size: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes} {eta}");
    ProgressBar::new(size).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
