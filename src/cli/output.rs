//! How answers look to people.

use std::fmt::Write as _;
use std::io::Write as _;

use super::exit::{Exit, Failure};
use super::words::in_chinese;
use crate::service::{for_people, json, proto};

/// One line on standard output.
pub(super) fn line(text: std::fmt::Arguments<'_>) {
    let mut out = std::io::stdout().lock();
    if writeln!(out, "{text}").is_err() {
        std::process::exit(i32::from(Exit::Ok as u8));
    }
}

/// Prints a message as JSON.
pub(super) fn print_json<M>(name: &str, message: &M)
where
    M: json::Message,
{
    let value = json::to_json(name, message).unwrap_or_default();
    say!("{}", serde_json::to_string_pretty(&value).unwrap_or_default());
}

/// Prints any value as JSON.
pub(super) fn print_value(value: &impl serde::Serialize) -> Result<(), Failure> {
    say!("{}", serde_json::to_string_pretty(value).map_err(Failure::internal)?);
    Ok(())
}

/// Prints one object of a policy diff.
pub(super) fn print_change(change: &proto::PolicyChange) {
    say!("{} {} {}", mark(change.kind()), change.object, change.id);
    for field in &change.fields {
        say!("    {field}");
    }
}

/// What happens to an object, as one character.
pub(super) fn mark(kind: proto::ChangeKind) -> char {
    match kind {
        proto::ChangeKind::Added => '+',
        proto::ChangeKind::Changed => '~',
        proto::ChangeKind::Unchanged | proto::ChangeKind::Unspecified => '=',
    }
}

/// A way in that needs no face.
pub(super) fn way(way: &proto::Alternative) -> String {
    let method = method(way.method());
    let accessible = if way.accessible { words!(" (accessible)") } else { String::new() };
    let down = if way.down { words!(" (DOWN)") } else { String::new() };
    format!("{method}{accessible}{down}: {}", way.hint)
}

fn method(method: proto::AlternativeMethod) -> String {
    match method {
        proto::AlternativeMethod::Unspecified => words!("unknown"),
        proto::AlternativeMethod::Card => words!("card"),
        proto::AlternativeMethod::Code => words!("code"),
        proto::AlternativeMethod::Qr => words!("qr"),
        proto::AlternativeMethod::Intercom => words!("intercom"),
        proto::AlternativeMethod::Staff => words!("staff"),
    }
}

/// The name of a way, such as "card" or "card-2", as status has it.
pub(super) fn way_name(name: &str) -> String {
    let (base, number) = name.split_once('-').unwrap_or((name, ""));
    let known = format!("ALTERNATIVE_METHOD_{}", base.to_uppercase());
    let Some(known) = proto::AlternativeMethod::from_str_name(&known) else {
        return name.to_owned();
    };
    let dash = if number.is_empty() { "" } else { "-" };
    format!("{}{dash}{number}", method(known))
}

/// A decision without its prefix, such as "NO_MATCH".
pub(super) fn decision(decision: proto::Decision) -> &'static str {
    decision.as_str_name().trim_start_matches("DECISION_")
}

/// A reason against a face in words.
pub(super) fn reason(reason: proto::QualityReason) -> String {
    let name = reason.as_str_name();
    match for_people(name).filter(|_| in_chinese()) {
        Some((_, zh)) => zh.to_owned(),
        None => name.trim_start_matches("QUALITY_REASON_").to_lowercase().replace('_', " "),
    }
}

/// RFC 3339 to the second.
pub(super) fn time(at: Option<&crate::service::WireTime>) -> String {
    at.and_then(|t| crate::types::Timestamp::from_unix_ms(t.seconds.checked_mul(1000)?))
        .map_or_else(|| "-".to_owned(), |t| t.to_string())
}

/// The consent tag on one line.
pub(super) fn tag(tag: &proto::ConsentTag) -> String {
    words!(
        "{} for {} in {} by {}, notice {}, until {}",
        tag.consent_id,
        tag.purpose,
        tag.scope,
        tag.controller_id,
        tag.notice_version,
        time(tag.expires_at.as_ref())
    )
}

/// A verification's answer on a few lines.
pub(super) fn verdict(response: &proto::VerifyResponse) -> String {
    let mut first = decision(response.decision()).to_owned();
    if let Some((_, zh)) = for_people(response.decision().as_str_name()).filter(|_| in_chinese()) {
        let _ = write!(first, "  {zh}");
    }
    if response.retry_after_ms > 0 {
        first.push_str(&words!("  try again in {} s", response.retry_after_ms.div_ceil(1000)));
    }
    let mut lines = Vec::new();
    if let Some(found) = &response.r#match {
        let _ = write!(first, "  {}", found.subject_ref);
        if let Some(similarity) = found.similarity {
            first.push_str(&words!("  similarity {}", format_args!("{similarity:.3}")));
        }
        let covered = found.consent_tag.as_ref();
        lines.extend(covered.map(|covered| words!("  consent    {}", tag(covered))));
        lines.push(words!("  record     {}", found.record_id));
    }
    if response.no_match_reason() == proto::NoMatchReason::Ambiguous {
        lines.push(words!("  reason     two subjects look too much alike for this gate's margin"));
    }
    let quality = response.quality.iter().flat_map(proto::Quality::reasons);
    lines.extend(quality.map(|problem| words!("  quality    {}", reason(problem))));
    let others = response.alternatives.iter();
    lines.extend(others.map(|other| words!("  other way  {}", way(other))));
    if let Some(timings) = &response.timings {
        let ms = f64::from(timings.total_us) / 1000.0;
        lines.push(words!("  time       {} ms", format_args!("{ms:.1}")));
    }
    lines.insert(0, first);
    lines.join("\n")
}
