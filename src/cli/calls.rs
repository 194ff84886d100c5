//! Commands that are one call each.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::connection::{ConnectionArgs, read};
use super::exit::{Exit, Failure};
use super::{Outcome, output};
use crate::service::client::ClientError;
use crate::service::proto;

/// `assent apply`.
#[derive(Debug, Args)]
pub(super) struct ApplyArgs {
    /// TOML with controllers, notices and gates; docs/policy.md explains every field
    file: PathBuf,
    /// Only show what would change
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    connection: ConnectionArgs,
}

pub(super) async fn apply(args: &ApplyArgs, json: bool) -> Outcome {
    let toml = String::from_utf8(read(&args.file)?)
        .map_err(|_not_text| Failure::new(Exit::Usage, "the file is not UTF-8 text"))?;
    let client = args.connection.connect().await?;
    let refused = |mut error: ClientError| {
        // The field of the request is the file.
        if error.message.starts_with("toml: ") {
            error.message.drain(.."toml: ".len());
        }
        Failure::from(error).about(&args.file)
    };
    // First what would change, then the change.
    let request = proto::ApplyPolicyRequest { toml, dry_run: true };
    let mut response = client.apply_policy(request.clone()).await.map_err(refused)?;
    if !json {
        response.changes.iter().for_each(output::print_change);
    }
    if !args.dry_run {
        let request = proto::ApplyPolicyRequest { dry_run: false, ..request };
        response = client.apply_policy(request).await.map_err(refused)?;
    }
    if json {
        output::print_json("ApplyPolicyResponse", &response);
    } else {
        let done = if args.dry_run { "would apply" } else { "applied" };
        say!("{done}; revision {}", response.revision);
    }
    response.warnings.iter().for_each(|warning| eprintln!("warning: {warning}"));
    Ok(Exit::Ok)
}

/// `assent notice`.
#[derive(Debug, Args)]
pub(super) struct NoticeArgs {
    /// The controller
    controller: String,
    /// The notice
    notice: String,
    /// Its version; the current one by default
    #[arg(long, default_value = "")]
    version: String,
    #[command(flatten)]
    connection: ConnectionArgs,
}

pub(super) async fn notice(args: &NoticeArgs, json: bool) -> Outcome {
    let client = args.connection.connect().await?;
    let request = proto::GetNoticeRequest {
        controller_id: args.controller.clone(),
        notice_id: args.notice.clone(),
        version: args.version.clone(),
    };
    let response = client.get_notice(request).await?;
    if json {
        output::print_json("GetNoticeResponse", &response);
        return Ok(Exit::Ok);
    }
    let notice = response.notice.unwrap_or_default();
    say!("{}/{}@{}", notice.controller_id, notice.notice_id, notice.version);
    say!("sha256    {}", hex::encode(&notice.sha256));
    say!("purposes  {}", notice.purposes.join(", "));
    say!("from      {}", output::time(notice.effective_from.as_ref()));
    for text in &notice.texts {
        say!("\n[{}]", text.language);
        for part in [
            &text.controller_contact,
            &text.purpose_and_method,
            &text.retention,
            &text.necessity_and_impact,
            &text.rights,
        ] {
            say!("{part}");
        }
    }
    Ok(Exit::Ok)
}

/// How the gate knows that the person wants to be recognised.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum IntentArg {
    Button,
    Card,
    Qr,
    Presence,
    None,
}

/// What the gate says about liveness.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum PadArg {
    Live,
    Spoof,
    Unsure,
    None,
}

/// `assent verify`.
#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    /// The photo: JPEG or PNG
    photo: PathBuf,
    /// The gate
    #[arg(long)]
    gate: String,
    /// 1:1 against this subject; without it 1:N within the gate's scopes
    #[arg(long, default_value = "", hide_default_value = true)]
    subject: String,
    /// The person's act
    #[arg(long, value_enum, default_value = "button")]
    intent: IntentArg,
    /// The gate's own liveness verdict, which a policy may want
    #[arg(long, value_enum, default_value = "none")]
    pad: PadArg,
    #[command(flatten)]
    connection: ConnectionArgs,
}

pub(super) async fn verify(args: &VerifyArgs, json: bool) -> Outcome {
    let data = read(&args.photo)?;
    let client = args.connection.connect().await?;
    let intent = match args.intent {
        IntentArg::Button => proto::Intent::Button,
        IntentArg::Card => proto::Intent::Card,
        IntentArg::Qr => proto::Intent::Qr,
        IntentArg::Presence => proto::Intent::PresenceConfirmed,
        IntentArg::None => proto::Intent::Unspecified,
    };
    let pad = match args.pad {
        PadArg::Live => proto::PadVerdict::Live,
        PadArg::Spoof => proto::PadVerdict::Spoof,
        PadArg::Unsure => proto::PadVerdict::Unsure,
        PadArg::None => proto::PadVerdict::Unspecified,
    };
    let request = proto::VerifyRequest {
        pad: pad.into(),
        gate_id: args.gate.clone(),
        intent: intent.into(),
        claimed_subject: args.subject.clone(),
        probe: Some(proto::verify_request::Probe::Encoded(proto::EncodedFrame { data })),
        ..proto::VerifyRequest::default()
    };
    let response = client.verify(request).await.map_err(|error| {
        let of_photo = error.field.as_deref() == Some("probe");
        let failure = Failure::from(error);
        if of_photo { failure.about(&args.photo) } else { failure }
    })?;
    if json {
        output::print_json("VerifyResponse", &response);
    } else {
        say!("{}", output::verdict(&response));
    }
    Ok(match response.decision() {
        proto::Decision::Match => Exit::Ok,
        proto::Decision::NoMatch => Exit::NoMatch,
        proto::Decision::Unspecified
        | proto::Decision::NoFace
        | proto::Decision::SeveralFaces
        | proto::Decision::LowQuality
        | proto::Decision::SpoofSuspected
        | proto::Decision::StaleFrame
        | proto::Decision::LockedOut
        | proto::Decision::FaceDisabled => Exit::NoDecision,
    })
}

/// `assent revoke`.
#[derive(Debug, Args)]
pub(super) struct RevokeArgs {
    /// The controller
    #[arg(long)]
    controller: String,
    #[command(flatten)]
    target: TargetArgs,
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// Whose consent is withdrawn: exactly one of these.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct TargetArgs {
    /// All records of this subject
    #[arg(long)]
    subject: Option<String>,
    /// One record
    #[arg(long)]
    record: Option<String>,
    /// The record held under this consent
    #[arg(long)]
    consent_id: Option<String>,
}

pub(super) async fn revoke(args: &RevokeArgs, json: bool) -> Outcome {
    use proto::revoke_request::Target;
    let subject = args.target.subject.clone().map(Target::SubjectRef);
    let record = args.target.record.clone().map(Target::RecordId);
    let consent = args.target.consent_id.clone().map(Target::ConsentId);
    let request = proto::RevokeRequest {
        controller_id: args.controller.clone(),
        target: subject.or(record).or(consent),
    };
    let client = args.connection.connect().await?;
    let response = client.revoke(request).await?;
    if json {
        output::print_json("RevokeResponse", &response);
    } else if response.revoked_records.is_empty() {
        say!("nothing was held; revision {}", response.revision);
    } else {
        for record in &response.revoked_records {
            say!("destroyed {record}");
        }
        say!("gone from revision {} on", response.revision);
    }
    Ok(Exit::Ok)
}

/// `assent describe`.
#[derive(Debug, Args)]
pub(super) struct DescribeArgs {
    /// The subject
    subject: String,
    /// The controller
    #[arg(long)]
    controller: String,
    #[command(flatten)]
    connection: ConnectionArgs,
}

pub(super) async fn describe(args: &DescribeArgs, json: bool) -> Outcome {
    let client = args.connection.connect().await?;
    let request = proto::DescribeSubjectRequest {
        controller_id: args.controller.clone(),
        subject_ref: args.subject.clone(),
    };
    let response = client.describe_subject(request).await?;
    if json {
        output::print_json("DescribeSubjectResponse", &response);
    } else if response.records.is_empty() {
        say!("nothing is held; revision {}", response.revision);
        if response.failed_attempts > 0 {
            say!("  failed attempts  {}", response.failed_attempts);
        }
    } else {
        for held in &response.records {
            let live = if held.live { "live" } else { "not matching" };
            say!("{}  {live}, of {} frame(s)", held.record_id, held.frames);
            say!("  model    {}", held.model_contract);
            say!("  consent  {}", held.consent_tag.as_ref().map(output::tag).unwrap_or_default());
            if !held.last_used_month.is_empty() {
                say!("  last use {}", held.last_used_month);
            }
        }
        if response.failed_attempts > 0 {
            say!("failed attempts since the last match: {}", response.failed_attempts);
        }
    }
    Ok(Exit::Ok)
}

/// `assent status`.
#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    #[command(flatten)]
    connection: ConnectionArgs,
}

impl StatusArgs {
    /// How to reach the service.
    pub(super) fn connection(&self) -> &ConnectionArgs {
        &self.connection
    }
}

/// How keys are kept, in a line.
fn key_line(keys: &proto::KeyStatus) -> String {
    let mirror = if keys.mirrored { "mirrored" } else { "NOT mirrored: see the log" };
    let proto::KeyStatus { epoch, root_cell, memory, .. } = keys;
    format!("epoch {epoch}, ROOT in a {root_cell}, in memory {memory}, {mirror}")
}

/// How far a gate's operating point carries.
fn reach_line(gate: &proto::GatePlan) -> String {
    let proto::GatePlan { fpir, measured_templates, calibrated_templates, .. } = gate;
    let reach = if measured_templates == calibrated_templates {
        format!("FPIR {fpir} is measured up to {measured_templates} templates")
    } else {
        format!(
            "FPIR {fpir} is measured up to {measured_templates} templates, extrapolated up to \
             {calibrated_templates}"
        )
    };
    match (gate.outgrown, gate.when_outgrown.as_str()) {
        (false, _) => reach,
        (true, "refuse") => format!("OUTGROWN, 1:N IS REFUSED: {reach}"),
        (true, _) => format!("OUTGROWN, the FPIR is higher than that: {reach}"),
    }
}

pub(super) async fn key_status(args: &StatusArgs, json: bool) -> Outcome {
    let client = args.connection.connect().await?;
    let keys = client.status(proto::StatusRequest {}).await?.keys.unwrap_or_default();
    if json {
        output::print_json("KeyStatus", &keys);
    } else {
        say!("{}", key_line(&keys));
    }
    Ok(Exit::Ok)
}

pub(super) async fn rotate_keys(args: &StatusArgs, json: bool) -> Outcome {
    let client = args.connection.connect().await?;
    let rotated = client.rotate_keys(proto::RotateKeysRequest {}).await?;
    if json {
        output::print_json("RotateKeysResponse", &rotated);
        return Ok(Exit::Ok);
    }
    say!("{}", key_line(&rotated.keys.unwrap_or_default()));
    say!("  older copies of the store open with no root key of today any more");
    Ok(Exit::Ok)
}

pub(super) async fn confirm_clock(args: &StatusArgs, json: bool) -> Outcome {
    let client = args.connection.connect().await?;
    let confirmed = client.confirm_clock(proto::ConfirmClockRequest {}).await?;
    if json {
        output::print_json("ConfirmClockResponse", &confirmed);
        return Ok(Exit::Ok);
    }
    say!("the clock is taken as it is: {}", output::time(confirmed.now.as_ref()));
    if confirmed.skew_ms != 0 {
        say!("  it was {} s from where it should have been", confirmed.skew_ms / 1_000);
        say!("  what has expired by it is erased now");
    }
    Ok(Exit::Ok)
}

pub(super) async fn status(args: &StatusArgs, json: bool) -> Outcome {
    let client = args.connection.connect().await?;
    let status = client.status(proto::StatusRequest {}).await?;
    if json {
        output::print_json("StatusResponse", &status);
        return Ok(Exit::Ok);
    }
    say!("assent {}: {}", status.version, status.state);
    say!("  since     {}", output::time(status.started_at.as_ref()));
    say!("  revision  {}", status.revision);
    say!("  profile   {}, deployed {}", status.profile, status.deployment);
    say!("  model     {} ({})", status.model_pack, status.model_contract);
    say!("  provider  {}, scan {}", status.provider, status.scan_kernel);
    let lock = if status.arena_locked { "locked" } else { "NOT all locked: raise `ulimit -l`" };
    say!("  arena     {} KiB, {lock}", status.arena_bytes / 1024);
    say!("  catalogue {} KiB", status.catalogue_bytes / 1024);
    if status.graph_bytes > 0 {
        let size = status.graph_bytes / 1024;
        say!("  graph     {} templates, {size} KiB", status.graph_templates);
    }
    say!("  subjects  {}", status.subjects);
    if let Some(keys) = &status.keys {
        say!("  keys      {}", key_line(keys));
    }
    for class in &status.classes {
        say!(
            "  {:>8}  {} / {} / {}",
            class.templates,
            class.controller_id,
            class.purpose,
            class.scope
        );
    }
    if status.clock_skew_ms != 0 {
        let seconds = status.clock_skew_ms / 1_000;
        say!("  CLOCK {seconds} s from where it should be: nothing is erased for expiry");
        say!("    correct it, or run `assent clock confirm` if it is right");
    }
    for purpose in &status.unassessed {
        let (controller, why) = (&purpose.controller_id, purpose.standing.replace('_', " "));
        say!("  NO ENROLMENT for {} by {controller}: impact assessment {why}", purpose.purpose);
    }
    for way in &status.down_alternatives {
        let heard = way.heard_at.as_ref().map_or("never heard of".to_owned(), |at| {
            format!("last heard of {}", output::time(Some(at)))
        });
        let note = if way.note.is_empty() { String::new() } else { format!(": {}", way.note) };
        say!("  ALTERNATIVE DOWN at {}: {} is {}, {heard}{note}", way.gate_id, way.name, way.state);
    }
    if status.locked_subjects > 0 {
        say!("  locked out after failed attempts: {} subject(s)", status.locked_subjects);
    }
    for gate in &status.gate_plans {
        say!("  gate {}: {}", gate.gate_id, gate.reason);
        say!("    {}", reach_line(gate));
    }
    for recall in &status.recall {
        let seen = recall.found + recall.missed;
        say!("  recall of {}: {} of {seen} repeated mates", recall.plan, recall.found);
    }
    if status.store_low_on_space {
        say!("  DISK FULL: only revocations are taken; free space, the service goes on by itself");
    }
    for record in &status.quarantined_records {
        say!("  quarantined: {record}; revoke it by record id, or restore the store");
    }
    Ok(Exit::Ok)
}
