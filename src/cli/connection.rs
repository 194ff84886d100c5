//! Where the service is, for commands that call it.

use std::path::PathBuf;

use clap::Args;

use super::exit::{Exit, Failure};
use super::files::read;
use crate::service::client::{Client, Target};

/// How to reach the service.
#[derive(Debug, Args)]
#[command(next_help_heading = "Connection")]
pub(super) struct ConnectionArgs {
    /// Address of the service; https:// for TLS
    #[arg(
        long,
        env = "ASSENT_SERVER",
        default_value = "http://127.0.0.1:7400",
        value_name = "URL"
    )]
    server: String,
    /// PEM of the authority that signed the server's certificate
    #[arg(long, env = "ASSENT_CA", value_name = "FILE")]
    ca: Option<PathBuf>,
    /// PEM of this caller's certificate
    #[arg(long, env = "ASSENT_CERT", value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// PEM of this caller's private key
    #[arg(long, env = "ASSENT_KEY", value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
}

impl ConnectionArgs {
    pub(super) async fn connect(&self) -> Result<Client, Failure> {
        if !["http://", "https://"].iter().any(|scheme| self.server.starts_with(scheme)) {
            let message = format!(
                "--server {}: must begin with http:// or https://, such as http://127.0.0.1:7400",
                self.server
            );
            return Err(Failure::new(Exit::Usage, message));
        }
        let ca = self.ca.as_deref().map(read).transpose()?;
        let identity = match (&self.cert, &self.key) {
            (Some(cert), Some(key)) => Some((read(cert)?, read(key)?)),
            _ => None,
        };
        let target = Target { url: self.server.clone(), ca, identity };
        Client::connect(&target).await.map_err(|error| {
            Failure::from(error)
                .advise(&words!("is `assent serve` running there, or elsewhere (`--server`)?"))
                .advise(&words!(
                    "http:// where it serves `--plaintext`, https:// where it serves TLS"
                ))
        })
    }
}
