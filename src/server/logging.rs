//! Log lines: text or JSON, on standard error, without subjects.

use std::io::{IsTerminal as _, stderr};

use tracing_subscriber::EnvFilter;

use crate::config::{LogFormat, LogSettings};

/// Installs the process's subscriber; a second call changes nothing.
///
/// # Errors
/// The filter is not a valid tracing filter.
pub fn init_logging(settings: &LogSettings) -> Result<(), tracing_subscriber::filter::ParseError> {
    let filter = EnvFilter::try_new(&settings.filter)?;
    let base = tracing_subscriber::fmt().with_env_filter(filter).with_writer(stderr);
    let installed = match settings.format {
        LogFormat::Text => base.with_target(false).with_ansi(stderr().is_terminal()).try_init(),
        LogFormat::Json => base.json().try_init(),
    };
    if installed.is_err() {
        tracing::debug!("logging was set up before");
    }
    Ok(())
}
