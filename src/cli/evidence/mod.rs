//! `assent evidence` and `assent incident`: what the service did, for whoever may ask, checked
//! without it.
//!
//! ```text
//! DIR/index.html                for people, Chinese and English; proves nothing by itself
//! DIR/statement.json            what the service states, the bytes that are signed
//! DIR/statement.signature.json  {public_key, signature}, hexadecimal, Ed25519
//! DIR/trail.jsonl               export of the audit trail; statement.json names its SHA-256
//! DIR/policy-REVISION.toml      a policy under which something was done; as above
//! ```

mod page;

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use indicatif::ProgressBar;
use serde::Deserialize;
use serde_json::Value;

use super::Outcome;
use super::audit::{kept, print_signer, print_witnessed, public_key, refused};
use super::connection::ConnectionArgs;
use super::exit::{Exit, Failure};
use super::files::{about, empty_folder, new_file, open, read, write_new};
use super::verdicts::Verdict as _;
use crate::audit::{Receipt, ReceiptKind, VerifyReport, verify_export};
use crate::crypto::{Hasher, PUBLIC_KEY_BYTES, SIGNATURE_BYTES, sha256};
use crate::service::client::Answers;
use crate::service::proto;
use crate::types::Timestamp;

const STATEMENT: &str = "statement.json";
const SIGNATURE: &str = "statement.signature.json";
const TRAIL: &str = "trail.jsonl";
const PAGE: &str = "index.html";
/// Most events that the page shows; the trail has all.
const MOST_SHOWN: usize = 10_000;

/// `assent evidence`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(super) struct EvidenceArgs {
    #[command(subcommand)]
    check: Option<EvidenceCommand>,
    /// The subject, as the enrolment tool named it
    #[arg(required = true)]
    subject: Option<String>,
    /// Whose subject
    #[arg(long, required = true, value_name = "ID")]
    controller: Option<String>,
    /// Folder for the evidence; made, or empty
    #[arg(short, long, required = true, value_name = "DIR")]
    output: Option<PathBuf>,
    #[command(flatten)]
    connection: ConnectionArgs,
}

#[derive(Debug, Subcommand)]
pub(super) enum EvidenceCommand {
    /// Check evidence without the service: signatures, digests, every link of the trail
    Verify(VerifyArgs),
}

#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    /// The folder
    folder: PathBuf,
    /// The deployment's public key; without it the key in the evidence is taken at its word
    #[arg(long, value_name = "HEX")]
    public_key: Option<String>,
    /// File that `assent audit witness` keeps
    #[arg(long, value_name = "FILE")]
    witness: Option<PathBuf>,
}

/// `assent incident`.
#[derive(Debug, Args)]
pub(super) struct IncidentArgs {
    /// From this instant on, such as 2026-03-01T08:00:00+08:00
    #[arg(long, value_name = "TIME")]
    from: Timestamp,
    /// Up to this instant, which is not part of it; now without it
    #[arg(long, value_name = "TIME")]
    until: Option<Timestamp>,
    /// Folder for the evidence; made, or empty
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    #[command(flatten)]
    connection: ConnectionArgs,
}

pub(super) async fn run(args: &EvidenceArgs, json: bool) -> Outcome {
    use proto::collect_evidence_request::About;
    if let Some(EvidenceCommand::Verify(args)) = &args.check {
        return verify(args, json);
    }
    let (Some(subject), Some(controller), Some(output)) =
        (&args.subject, &args.controller, &args.output)
    else {
        return Err(Failure::new(Exit::Usage, "a subject, --controller and --output are needed"));
    };
    let (controller_id, subject_ref) = (controller.clone(), subject.clone());
    let about = About::Subject(proto::SubjectEvidence { controller_id, subject_ref });
    collect(&args.connection, about, output, json).await
}

pub(super) async fn incident(args: &IncidentArgs, json: bool) -> Outcome {
    use proto::collect_evidence_request::About;
    let until = args.until.unwrap_or_else(Timestamp::now);
    let (from, until) = (Some(args.from.into()), Some(until.into()));
    let about = About::Period(proto::PeriodEvidence { from, until });
    collect(&args.connection, about, &args.output, json).await
}

async fn collect(
    connection: &ConnectionArgs,
    about: proto::collect_evidence_request::About,
    folder: &Path,
    json: bool,
) -> Outcome {
    let client = connection.connect().await?;
    let request = proto::CollectEvidenceRequest { about: Some(about) };
    let mut pieces = client.collect_evidence(request).await?;
    empty_folder(folder)?;
    let fetched = fetch(&mut pieces, folder).await;
    let evidence = fetched.inspect_err(|_| {
        // The folder was empty, and what is in it now proves nothing.
        let _left_there = std::fs::remove_dir_all(folder);
    })?;
    Ok(evidence.report(folder, json, false, false))
}

/// Writes what the service sends into an empty folder, and checks it.
async fn fetch(
    pieces: &mut Answers<proto::CollectEvidenceResponse>,
    folder: &Path,
) -> Result<Evidence, Failure> {
    let path = folder.join(TRAIL);
    let mut trail = BufWriter::new(new_file(&path)?);
    let (mut statement, mut bytes, progress) = (None, 0, ProgressBar::no_length());
    while let Some(response) = pieces.next().await? {
        use proto::collect_evidence_response::Piece;
        match response.piece {
            Some(Piece::Trail(lines)) => {
                trail.write_all(&lines).map_err(about(&path))?;
                bytes += lines.len() as u64;
                progress.set_position(bytes);
            }
            Some(Piece::Policy(policy)) => {
                write_new(&folder.join(policy_name(policy.revision)), policy.document)?;
            }
            Some(Piece::Statement(signed)) => statement = Some(signed),
            None => {}
        }
    }
    progress.finish_and_clear();
    let synced = trail.into_inner().map_err(std::io::IntoInnerError::into_error);
    let synced = synced.and_then(|file| file.sync_all());
    synced.map_err(about(&path))?;
    let signed = statement.ok_or_else(|| {
        Failure::new(Exit::Unavailable, "the service ended before its statement; try again")
    })?;
    write_new(&folder.join(STATEMENT), &signed.body)?;
    let signature = serde_json::json!({
        "public_key": hex::encode(&signed.public_key),
        "signature": hex::encode(&signed.signature),
    });
    write_new(&folder.join(SIGNATURE), format!("{signature:#}\n").as_bytes())?;
    let evidence = Evidence::check(folder, None, None)?;
    write_new(&folder.join(PAGE), evidence.page())?;
    Ok(evidence)
}

/// Checks what `collect` wrote, on any machine.
fn verify(args: &VerifyArgs, json: bool) -> Outcome {
    let key = public_key(args.public_key.as_deref())?;
    let evidence = Evidence::check(&args.folder, key.as_ref(), args.witness.as_deref())?;
    let page = args.folder.join(PAGE);
    if page.exists() && read(&page)? != evidence.page().as_bytes() {
        let message = words!("is not the page of this statement and this trail: it was altered");
        return Err(Failure::new(Exit::Refused, message).about(&page));
    }
    Ok(evidence.report(&args.folder, json, key.is_some(), args.witness.is_some()))
}

/// The signature beside a statement.
#[derive(Deserialize)]
struct Signature {
    #[serde(with = "hex::serde")]
    public_key: [u8; PUBLIC_KEY_BYTES],
    #[serde(with = "hex::serde")]
    signature: [u8; SIGNATURE_BYTES],
}

/// Evidence that holds.
struct Evidence {
    statement: Value,
    trail: VerifyReport,
    policies: Vec<Policy>,
    /// The trail's whole entries, in order, as many as the page shows.
    events: Vec<Value>,
}

/// A policy under which something was done.
struct Policy {
    revision: u64,
    sha256: String,
    document: String,
}

fn policy_name(revision: u64) -> String {
    format!("policy-{revision}.toml")
}

impl Evidence {
    fn check(
        folder: &Path,
        key: Option<&[u8; PUBLIC_KEY_BYTES]>,
        witness: Option<&Path>,
    ) -> Result<Self, Failure> {
        let (statement, signature) = (folder.join(STATEMENT), folder.join(SIGNATURE));
        let body = read(&statement)?;
        let signed: Signature = serde_json::from_slice(&read(&signature)?)
            .map_err(|fault| Failure::usage(fault).about(&signature))?;
        let Signature { public_key, signature } = signed;
        let receipt = Receipt { body, signature, public_key };
        let said = receipt
            .verify(key)
            .map_err(|fault| Failure::new(Exit::Refused, fault.said()).about(&statement))?;
        if said.kind != ReceiptKind::Evidence {
            let message = words!("is signed, but is no statement of evidence");
            return Err(Failure::new(Exit::Refused, message).about(&statement));
        }
        let path = folder.join(TRAIL);
        if said.body["trail"]["sha256"] != hex::encode(digest(&path)?) {
            let message =
                words!("is not the trail that the statement names: it was altered or exchanged");
            return Err(Failure::new(Exit::Refused, message).about(&path));
        }
        let witness = witness.map(kept).transpose()?.unwrap_or_default();
        let trail = verify_export(lines_of(&path)?, Some(&public_key), &witness, |_| {})
            .map_err(|fault| refused(fault).about(&path))?;
        let (policies, events) = (Vec::new(), Vec::new());
        let mut this = Self { statement: said.body, trail, policies, events };
        let applied = this.read_trail(&path)?;
        this.read_policies(folder, &applied)?;
        Ok(this)
    }

    /// The events, and the digest of each policy that was applied, by its revision.
    fn read_trail(&mut self, trail: &Path) -> Result<HashMap<Option<u64>, String>, Failure> {
        let mut applied = HashMap::new();
        for line in lines_of(trail)?.lines() {
            let line = line.map_err(about(trail))?;
            let mut line: Value = serde_json::from_str(&line).map_err(Failure::internal)?;
            let entry = line["entry"].take();
            if entry["event"] == "policy_applied" {
                applied.insert(entry["revision"].as_u64(), text(&entry["sha256"]));
            }
            let is_event = entry.is_object() && entry["event"] != "checkpoint";
            if is_event && self.events.len() < MOST_SHOWN {
                self.events.push(entry);
            }
        }
        Ok(applied)
    }

    /// The policies, each as its digest, and the trail, say that it was applied.
    fn read_policies(
        &mut self,
        folder: &Path,
        applied: &HashMap<Option<u64>, String>,
    ) -> Result<(), Failure> {
        for policy in self.statement["policies"].as_array().into_iter().flatten() {
            let revision = policy["revision"].as_u64().unwrap_or_default();
            let path = folder.join(policy_name(revision));
            let document = read(&path)?;
            let said = text(&policy["sha256"]);
            let told = applied.get(&Some(revision));
            if hex::encode(sha256(&document)) != said || told.is_some_and(|told| *told != said) {
                let message = words!("is not the policy that was applied");
                return Err(Failure::new(Exit::Refused, message).about(&path));
            }
            let document = String::from_utf8_lossy(&document).into_owned();
            self.policies.push(Policy { revision, sha256: said, document });
        }
        Ok(())
    }

    /// The page for people, as statement and trail make it.
    fn page(&self) -> String {
        page::page(&self.statement, &self.policies, &self.events)
    }

    fn report(&self, folder: &Path, json: bool, key_given: bool, witnessed: bool) -> Exit {
        if json {
            let said = serde_json::json!({ "statement": self.statement, "trail": self.trail });
            say!("{said:#}");
            return Exit::Ok;
        }
        let statement = &self.statement;
        tell!("the evidence in {} holds", folder.display());
        tell!("  about      {}", statement["about"]);
        tell!("  collected  {}", text(&statement["collected_at"]));
        let held = statement["held"].as_array().map_or(0, Vec::len);
        tell!("  held now   {} record(s)", held);
        if statement["records_ever"] == 0 {
            tell!("  nothing was ever known of this subject, as far as the trail goes back");
        }
        if let Some(events) = statement["events"].as_object() {
            for (event, times) in events {
                say!("  {:>8}  {}", times.to_string(), page::event(event));
            }
        }
        let VerifyReport { public_key, first, end, witnessed: agreed, .. } = &self.trail;
        tell!("  trail      entries {} to {}, every link checked", first, end.head.seq);
        print_signer(public_key, key_given);
        if witnessed {
            print_witnessed(*agreed);
        }
        tell!("  to read    {}", folder.join(PAGE).display());
        Exit::Ok
    }
}

/// A JSON string as it is, anything else as JSON.
fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn digest(path: &Path) -> Result<[u8; 32], Failure> {
    let mut hasher = Hasher::default();
    let copied = std::io::copy(&mut open(path)?, &mut hasher);
    copied.map_err(about(path))?;
    Ok(hasher.finish())
}

fn lines_of(path: &Path) -> Result<BufReader<File>, Failure> {
    open(path).map(BufReader::new)
}
