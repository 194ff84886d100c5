//! Brings the models and the runtime when they are not there.
//!
//! # Not here
//! Which files, from where, with which hashes: `models/fetch.sh` and its pins know that. It takes
//! a lock of its own, so that parallel callers fetch once.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use thiserror::Error;

/// The script, below the models directory.
const SCRIPT: &str = "fetch.sh";

/// Why models are missing still.
#[derive(Debug, Error)]
pub enum FetchError {
    /// There is no script to run.
    #[error("models are missing below {} and no fetch.sh is there: copy the models directory of the \
             source here and run its fetch.sh", models_dir.display())]
    NoScript {
        /// The models directory.
        models_dir: PathBuf,
    },
    /// The script cannot be started.
    #[error("cannot run {}: is bash installed?", script.display())]
    Start {
        /// The script.
        script: PathBuf,
        /// The system's words.
        source: std::io::Error,
    },
    /// The script failed; it has said on standard error why.
    #[error("{} failed ({status}); its messages say what to do, then run it again", script.display())]
    Failed {
        /// The script.
        script: PathBuf,
        /// How it ended.
        status: ExitStatus,
    },
}

/// Runs `models_dir/fetch.sh --quiet`, which returns at once when all files are there and have
/// their hashes. Without the script, the files that packs and runtime need must be there already.
///
/// Blocks: minutes on a slow network.
///
/// # Errors
/// [`FetchError`], whose text says what to do.
pub fn ensure(models_dir: &Path) -> Result<(), FetchError> {
    let script = models_dir.join(SCRIPT);
    if !script.is_file() {
        let fetched = models_dir.join("runtime").join("current").is_file();
        let missing = FetchError::NoScript { models_dir: models_dir.to_path_buf() };
        return if fetched { Ok(()) } else { Err(missing) };
    }
    let status = Command::new("bash")
        .arg(&script)
        .arg("--quiet")
        .env("ASSENT_MODELS_DIR", models_dir)
        .stdin(Stdio::null())
        .status()
        .map_err(|source| FetchError::Start { script: script.clone(), source })?;
    if status.success() { Ok(()) } else { Err(FetchError::Failed { script, status }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(script: Option<&str>) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        if let Some(text) = script {
            std::fs::write(dir.path().join(SCRIPT), text).unwrap();
        }
        dir
    }

    #[test]
    fn the_script_is_run_for_the_folder_it_lies_in() {
        let dir = folder(Some("touch \"$ASSENT_MODELS_DIR/done\""));
        ensure(dir.path()).unwrap();
        assert!(dir.path().join("done").is_file());
    }

    #[test]
    fn failure_is_told() {
        let dir = folder(Some("exit 1"));
        assert!(matches!(ensure(dir.path()), Err(FetchError::Failed { .. })));
        let empty = folder(None);
        let error = ensure(empty.path()).unwrap_err();
        assert!(error.to_string().contains("fetch.sh"), "{error}");
    }
}
