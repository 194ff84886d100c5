//! Exit codes and failures.

use std::error::Error;
use std::process::ExitCode;

use super::words::in_chinese;
use crate::service::client::ClientError;

/// Shown below the long help.
pub(super) const HELP: &str = "\
Exit codes:
  0   done; verify: MATCH
  1   some of a bulk enrolment was refused
  3   verify: NO_MATCH
  4   verify: no decision about a person (NO_FACE, SEVERAL_FACES, LOW_QUALITY,
      STALE_FRAME, SPOOF_SUSPECTED, LOCKED_OUT, FACE_DISABLED)
  64  usage or configuration
  65  the service refused the request (invalid, or not allowed by policy)
  69  the service cannot be reached, or does not serve now
  70  internal fault
  75  at capacity or too late; try again
  77  this caller may not do that";

/// The process's exit status. The numbers follow sysexits.h where it has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done; `verify`: MATCH.
    Ok = 0,
    /// Some of a bulk enrolment was refused.
    Partial = 1,
    /// `verify`: NO_MATCH.
    NoMatch = 3,
    /// `verify`: no decision about a person.
    NoDecision = 4,
    /// Usage or configuration.
    Usage = 64,
    /// The service refused the request.
    Refused = 65,
    /// The service cannot be reached or does not serve.
    Unavailable = 69,
    /// Internal fault.
    Internal = 70,
    /// Try again.
    TryAgain = 75,
    /// Not allowed.
    Forbidden = 77,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// What went wrong, and how the process ends for it.
#[derive(Debug)]
pub(super) struct Failure {
    exit: Exit,
    message: String,
}

impl Failure {
    pub(super) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into() }
    }

    pub(super) fn usage(fault: impl Error) -> Self {
        Self::new(Exit::Usage, chain(&fault))
    }

    pub(super) fn internal(fault: impl Error) -> Self {
        Self::new(Exit::Internal, chain(&fault))
    }

    /// Names the file that the failure is about.
    pub(super) fn about(mut self, file: &std::path::Path) -> Self {
        self.message = format!("{}: {}", file.display(), self.message);
        self
    }

    /// Adds what to do about it, on a line of its own.
    pub(super) fn advise(mut self, advice: &str) -> Self {
        self.message.push_str("\n  ");
        self.message.push_str(advice);
        self
    }

    /// Says what went wrong on standard error.
    pub(super) fn report(&self) -> Exit {
        eprintln!("assent: {}", self.message);
        self.exit
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let exit = match error.code.name() {
            "INVALID_ARGUMENT" | "FAILED_PRECONDITION" | "NOT_FOUND" => Exit::Refused,
            "UNAVAILABLE" => Exit::Unavailable,
            "RESOURCE_EXHAUSTED" | "DEADLINE_EXCEEDED" => Exit::TryAgain,
            "PERMISSION_DENIED" | "UNAUTHENTICATED" => Exit::Forbidden,
            _ => Exit::Internal,
        };
        let said = error.zh.as_ref().filter(|_| in_chinese()).unwrap_or(&error.message);
        let mut message = format!("{said} ({})", error.code.name());
        for way in &error.alternatives {
            message.push('\n');
            message.push_str(&words!("  other way in: {}", super::output::way(way)));
        }
        let this = Self::new(exit, message);
        match advice(&error) {
            Some(advice) => this.advise(&advice),
            None => this,
        }
    }
}

/// What to do about a refusal that the service cannot know the remedy of.
fn advice(error: &ClientError) -> Option<String> {
    match (error.reason.as_deref(), error.code.name()) {
        (Some("GATE_UNKNOWN"), _) => Some(words!("gates come with a policy: `assent apply FILE`")),
        (Some("REVOKED" | "KEY_REUSED" | "CONSENT_USED"), _) => Some(words!(
            "every enrolment needs a consent of its own: give the consent file a new consent_id"
        )),
        (_, "NOT_FOUND") => Some(words!("notices come with a policy: `assent apply FILE`")),
        _ => None,
    }
}

/// An error and its sources, without saying anything twice.
pub(super) fn chain(fault: &dyn Error) -> String {
    let mut text = fault.to_string();
    let mut source = fault.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
