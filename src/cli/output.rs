//! How answers look to people.

use std::fmt::Write as _;
use std::io::Write as _;

use super::exit::Exit;
use crate::service::{json, proto};

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
    let method =
        way.method().as_str_name().trim_start_matches("ALTERNATIVE_METHOD_").to_lowercase();
    let accessible = if way.accessible { " (accessible)" } else { "" };
    let down = if way.down { " (DOWN)" } else { "" };
    format!("{method}{accessible}{down}: {}", way.hint)
}

/// A decision without its prefix, such as "NO_MATCH".
pub(super) fn decision(decision: proto::Decision) -> &'static str {
    decision.as_str_name().trim_start_matches("DECISION_")
}

/// A reason against a face in words.
pub(super) fn reason(reason: proto::QualityReason) -> String {
    let name = reason.as_str_name().trim_start_matches("QUALITY_REASON_");
    name.to_lowercase().replace('_', " ")
}

/// RFC 3339 to the second.
pub(super) fn time(at: Option<&crate::service::WireTime>) -> String {
    at.and_then(|t| crate::types::Timestamp::from_unix_ms(t.seconds.checked_mul(1000)?))
        .map_or_else(|| "-".to_owned(), |t| t.to_string())
}

/// The consent tag on one line.
pub(super) fn tag(tag: &proto::ConsentTag) -> String {
    format!(
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
    let mut text = decision(response.decision()).to_owned();
    if response.retry_after_ms > 0 {
        let _ = write!(text, "  try again in {} s", response.retry_after_ms.div_ceil(1000));
    }
    if let Some(found) = &response.r#match {
        let _ = write!(text, "  {}", found.subject_ref);
        if let Some(similarity) = found.similarity {
            let _ = write!(text, "  similarity {similarity:.3}");
        }
        if let Some(covered) = &found.consent_tag {
            let _ = write!(text, "\n  consent    {}", tag(covered));
        }
        let _ = write!(text, "\n  record     {}", found.record_id);
    }
    if response.no_match_reason() == proto::NoMatchReason::Ambiguous {
        text.push_str("\n  reason     two subjects look too much alike for this gate's margin");
    }
    if let Some(quality) = &response.quality {
        for problem in quality.reasons() {
            let _ = write!(text, "\n  quality    {}", reason(problem));
        }
    }
    for other in &response.alternatives {
        let _ = write!(text, "\n  other way  {}", way(other));
    }
    if let Some(timings) = &response.timings {
        let _ = write!(text, "\n  time       {:.1} ms", f64::from(timings.total_us) / 1000.0);
    }
    text
}
