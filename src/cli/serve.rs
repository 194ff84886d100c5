//! `assent serve` and `assent check-config`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use super::Outcome;
use super::exit::{Exit, Failure};
use crate::config::{self, Overrides, Security, Settings};
use crate::pipeline::ProviderChoice;
use crate::server;

/// Settings of the service; each wins over the file.
#[derive(Debug, Args)]
pub(super) struct ServeArgs {
    /// Configuration file (TOML); docs/configuration.md lists every field
    #[arg(long, env = "ASSENT_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Policy profile: cn, eu, us-il, us-tx or open
    #[arg(long, env = "ASSENT_PROFILE")]
    profile: Option<String>,
    /// Directory of the store
    #[arg(long, env = "ASSENT_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// File of the root key; make one with `assent keys init`
    #[arg(long, env = "ASSENT_ROOT_KEY", value_name = "FILE")]
    root_key: Option<PathBuf>,
    /// File of the passphrase that the root key is under
    #[arg(long, env = "ASSENT_PASSPHRASE_FILE", value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    /// Where gRPC listens
    #[arg(long, env = "ASSENT_LISTEN", value_name = "ADDR:PORT")]
    listen: Option<SocketAddr>,
    /// Where Prometheus scrapes
    #[arg(long, env = "ASSENT_METRICS", value_name = "ADDR:PORT")]
    metrics: Option<SocketAddr>,
    /// No metrics port
    #[arg(long, conflicts_with = "metrics")]
    no_metrics: bool,
    /// Serve without TLS; loopback addresses only
    #[arg(long)]
    plaintext: bool,
    /// Directory of the model packs
    #[arg(long, env = "ASSENT_MODELS_DIR", value_name = "DIR")]
    models_dir: Option<PathBuf>,
    /// Execution provider: auto, cpu, openvino, openvino-bf16, openvino-int8, cuda, tensorrt
    #[arg(long, env = "ASSENT_PROVIDER")]
    provider: Option<ProviderChoice>,
}

impl ServeArgs {
    pub(super) fn settings(&self) -> Result<Settings, Failure> {
        let overrides = Overrides {
            profile: self.profile.clone(),
            data_dir: self.data_dir.clone(),
            root_key: self.root_key.clone(),
            passphrase_file: self.passphrase_file.clone(),
            listen: self.listen,
            metrics: self.metrics,
            no_metrics: self.no_metrics,
            plaintext: self.plaintext,
            models_dir: self.models_dir.clone(),
            provider: self.provider,
        };
        config::load(self.config.as_deref(), overrides).map_err(Failure::usage)
    }
}

pub(super) fn check(args: &ServeArgs) -> Outcome {
    let settings = args.settings()?;
    let security = match settings.security {
        Security::PlaintextLoopback => "plaintext, loopback only",
        Security::Tls(_) => "mutual TLS",
    };
    say!("configuration is valid");
    say!("  profile   {}", settings.profile.name);
    say!("  deployed  {}", settings.deployment.as_str());
    say!("  gRPC      {} ({security})", settings.grpc);
    match settings.metrics {
        Some(address) => say!("  metrics   {address}"),
        None => say!("  metrics   off"),
    }
    say!("  store     {}", settings.data_dir.display());
    say!("  root key  {}", settings.cell);
    say!("  models    {}", settings.pipeline.models_dir.display());
    Ok(Exit::Ok)
}

pub(super) fn serve(args: &ServeArgs) -> Outcome {
    let settings = args.settings()?;
    server::init_logging(&settings.log).map_err(Failure::usage)?;
    server::harden();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(Failure::internal)?;
    runtime.block_on(async {
        let running = server::start(settings).await.map_err(Failure::usage)?;
        wait_for_signal().await?;
        tracing::info!("stopping");
        running.stop().await;
        Ok(Exit::Ok)
    })
}

/// SIGTERM or SIGINT.
pub(super) async fn wait_for_signal() -> Result<(), Failure> {
    let mut terminate = signal(SignalKind::terminate()).map_err(Failure::internal)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Failure::internal)?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
