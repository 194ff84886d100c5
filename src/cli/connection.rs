//! Where the service is, for commands that call it.

use std::path::PathBuf;

use clap::Args;

use super::exit::{Exit, Failure};
use super::files::read;
use crate::service::client::{Client, ClientError, Target};
use crate::service::verify_client::VerifyClient;

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
        Client::connect(&self.target()?).await.map_err(unreached)
    }

    /// Connects for verifications that were encoded before.
    pub(super) async fn connect_to_verify(&self) -> Result<VerifyClient, Failure> {
        VerifyClient::connect(&self.target()?).await.map_err(unreached)
    }

    fn target(&self) -> Result<Target, Failure> {
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
        Ok(Target { url: self.server.clone(), ca, identity })
    }
}

fn unreached(error: ClientError) -> Failure {
    Failure::from(error)
        .advise(&words!("is `assent serve` running there, or elsewhere (`--server`)?"))
        .advise(&words!("http:// where it serves `--plaintext`, https:// where it serves TLS"))
}
