//! `assent keys`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::connection::ConnectionArgs;
use super::exit::{Exit, Failure};
use super::{Outcome, backup, block_on, status};
use crate::config::{self, Overrides};
use crate::crypto::cell::{CellPlace, FileCell, Passphrase};

#[derive(Debug, Subcommand)]
pub(super) enum KeysCommand {
    /// Make the root key: in a new file, readable by its owner alone, or where --config says
    Init(InitArgs),
    /// Put the root key's file under another passphrase, or under none; the service must be stopped
    Passphrase(PassphraseArgs),
    /// Replace ROOT: older copies of the store open with no root key of today from then on
    Rotate(ConnectionArgs),
    /// Say which key epoch is in force, and how the keys are kept
    Status(ConnectionArgs),
    /// Make an identity to address backups to, and print its recipient
    BackupIdentity(IdentityArgs),
}

#[derive(Debug, Args)]
pub(super) struct InitArgs {
    /// The file; must not exist
    #[arg(required_unless_present = "config")]
    path: Option<PathBuf>,
    /// File whose first line is the passphrase that it is to be under, at least 12 bytes
    #[arg(long, value_name = "FILE", requires = "path")]
    passphrase_file: Option<PathBuf>,
    /// Configuration of the service: make the root key that it names, file or PKCS#11 token
    #[arg(long, value_name = "FILE", conflicts_with = "path")]
    config: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct PassphraseArgs {
    /// The root key's file
    path: PathBuf,
    /// File of the passphrase that it is under now; leave out for none
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
    /// File of the one that it is to be under, at least 12 bytes; leave out for none
    #[arg(long, value_name = "FILE", required_unless_present = "from")]
    to: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct IdentityArgs {
    /// The file; must not exist
    pub(super) path: PathBuf,
}

pub(super) fn run(command: KeysCommand, json: bool) -> Outcome {
    match command {
        KeysCommand::Init(args) => init(args),
        KeysCommand::Passphrase(args) => set_passphrase(&args),
        KeysCommand::BackupIdentity(args) => backup::new_identity(&args),
        KeysCommand::Rotate(args) => block_on(status::rotate_keys(&args, json)),
        KeysCommand::Status(args) => block_on(status::key_status(&args, json)),
    }
}

fn init(args: InitArgs) -> Outcome {
    let place = match (args.path, args.config) {
        (Some(path), _) => CellPlace::File { path, passphrase: args.passphrase_file },
        (None, config) => {
            config::load(config.as_deref(), Overrides::default()).map_err(Failure::usage)?.cell
        }
    };
    drop(place.create().map_err(Failure::usage)?);
    match place {
        CellPlace::File { path, .. } => {
            tell!("root key written to {}", path.display());
            tell!(
                "Keep it out of all backups, on media that survive a broken disk: without it nothing opens."
            );
        }
        CellPlace::Token(place) => {
            tell!("root key generated in {}", place);
            tell!("It never leaves the token. Keep it out of the token's own backups.");
        }
    }
    tell!(
        "With an old copy of it and of the data directory whatever was erased since opens again."
    );
    Ok(Exit::Ok)
}

fn set_passphrase(args: &PassphraseArgs) -> Outcome {
    let from = args.from.as_deref().map(Passphrase::read).transpose().map_err(Failure::usage)?;
    let to = args.to.as_deref().map(Passphrase::read_new).transpose().map_err(Failure::usage)?;
    let cell = FileCell::open_under(&args.path, from.as_ref()).map_err(Failure::usage)?;
    cell.set_passphrase(to.as_ref()).map_err(Failure::internal)?;
    match to {
        Some(_) => tell!("{} is under the new passphrase", args.path.display()),
        None => tell!("{} is under no passphrase", args.path.display()),
    }
    Ok(Exit::Ok)
}
