//! `assent demo`: the main job from the first policy to the last proof, on real photos, over gRPC.

mod cast;
mod story;

use std::path::PathBuf;

use clap::Args;

use super::Outcome;
use super::exit::{Exit, Failure};
use super::serve::wait_for_signal;
use crate::config::{LogFormat, LogSettings};
use crate::pipeline::fetch;
use crate::server;

/// `assent demo`.
#[derive(Debug, Args)]
pub(super) struct DemoArgs {
    /// Directory of the model packs; missing files are fetched
    #[arg(long, env = "ASSENT_MODELS_DIR", default_value = "models", value_name = "DIR")]
    models_dir: PathBuf,
    /// Leave the service running at the end, until Ctrl-C
    #[arg(long)]
    keep: bool,
}

pub(super) fn run(args: &DemoArgs) -> Outcome {
    let quiet = LogSettings { format: LogFormat::Text, filter: "error".to_owned() };
    server::init_logging(&quiet).map_err(Failure::usage)?;
    server::harden();
    fetch::ensure(&args.models_dir).map_err(Failure::usage)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(Failure::internal)?;
    runtime.block_on(async {
        let place = tempfile::tempdir().map_err(Failure::internal)?;
        let running = story::tell(&args.models_dir, place.path()).await?;
        if args.keep {
            say!("\nThe service stays at http://{} until Ctrl-C.", running.address());
            wait_for_signal().await?;
        }
        running.stop().await;
        Ok(Exit::Ok)
    })
}
