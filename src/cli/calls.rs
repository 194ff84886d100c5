//! Commands that are one call each.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::connection::ConnectionArgs;
use super::exit::{Exit, Failure};
use super::files::read;
use super::words::in_chinese;
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
        let done = if args.dry_run { words!("would apply") } else { words!("applied") };
        tell!("{}; revision {}", done, response.revision);
    }
    let warnings = if in_chinese() { &response.warnings_zh } else { &response.warnings };
    for warning in warnings {
        eprintln!("{}", words!("warning: {}", warning));
    }
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
    tell!("purposes  {}", notice.purposes.join(", "));
    tell!("from      {}", output::time(notice.effective_from.as_ref()));
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

/// How an alternative is.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum StateArg {
    Up,
    Down,
}

/// A way in that needs no face.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum MethodArg {
    Card,
    Code,
    Qr,
    Intercom,
    Staff,
}

/// `assent alternative`.
#[derive(Debug, Args)]
pub(super) struct AlternativeArgs {
    /// How it is
    #[arg(value_enum)]
    state: StateArg,
    /// The gate
    #[arg(long)]
    gate: String,
    /// The alternative; the gate's policy must have one of this kind with heartbeat_s
    #[arg(long, value_enum)]
    method: MethodArg,
    /// Which of this kind, from 1, in the order of the policy
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    number: u32,
    /// Why, for `assent status`
    #[arg(long, default_value = "", hide_default_value = true)]
    note: String,
    #[command(flatten)]
    connection: ConnectionArgs,
}

pub(super) async fn alternative(args: &AlternativeArgs, json: bool) -> Outcome {
    let state = match args.state {
        StateArg::Up => proto::AlternativeState::Up,
        StateArg::Down => proto::AlternativeState::Down,
    };
    let method = match args.method {
        MethodArg::Card => proto::AlternativeMethod::Card,
        MethodArg::Code => proto::AlternativeMethod::Code,
        MethodArg::Qr => proto::AlternativeMethod::Qr,
        MethodArg::Intercom => proto::AlternativeMethod::Intercom,
        MethodArg::Staff => proto::AlternativeMethod::Staff,
    };
    let request = proto::ReportAlternativeRequest {
        gate_id: args.gate.clone(),
        method: method.into(),
        index: args.number - 1,
        state: state.into(),
        note: args.note.clone(),
    };
    let client = args.connection.connect().await?;
    let response = client.report_alternative(request).await?;
    if json {
        output::print_json("ReportAlternativeResponse", &response);
    } else {
        match args.state {
            StateArg::Up => {
                tell!("noted; say it again within {} s, silence means down", response.heartbeat_s);
            }
            StateArg::Down => tell!("noted: it counts as down until it is said to be up"),
        }
    }
    Ok(Exit::Ok)
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
        tell!("nothing was held; revision {}", response.revision);
    } else {
        for record in &response.revoked_records {
            tell!("destroyed {}", record);
        }
        tell!("gone from revision {} on", response.revision);
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
        tell!("nothing is held; revision {}", response.revision);
    }
    if !json {
        response.records.iter().for_each(print_held);
        if response.failed_attempts > 0 {
            tell!("failed attempts since the last match: {}", response.failed_attempts);
        }
    }
    Ok(Exit::Ok)
}

fn print_held(held: &proto::HeldRecord) {
    let live = if held.live { words!("live") } else { words!("not matching") };
    tell!("{}  {}, of {} frame(s)", held.record_id, live, held.frames);
    tell!("  model    {}", held.model_contract);
    tell!("  consent  {}", held.consent_tag.as_ref().map(output::tag).unwrap_or_default());
    if !held.last_used_month.is_empty() {
        tell!("  last use {}", held.last_used_month);
    }
}
