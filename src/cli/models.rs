//! `assent models`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::Outcome;
use super::exit::{Exit, Failure};
use crate::pipeline::{fetch, list_packs};

/// What to do with model packs.
#[derive(Debug, Subcommand)]
pub(super) enum ModelsCommand {
    /// List the packs, their licences, and whether their files are there and right
    List(PlaceArgs),
    /// Fetch what is missing, by name, version and hash
    Fetch(PlaceArgs),
}

#[derive(Debug, Args)]
pub(super) struct PlaceArgs {
    /// Directory of the model packs
    #[arg(long, env = "ASSENT_MODELS_DIR", default_value = "models", value_name = "DIR")]
    models_dir: PathBuf,
}

pub(super) fn run(command: &ModelsCommand, json: bool) -> Outcome {
    match command {
        ModelsCommand::List(place) => list(place, json),
        ModelsCommand::Fetch(place) => {
            fetch::ensure(&place.models_dir).map_err(Failure::usage)?;
            list(place, json)
        }
    }
}

fn list(place: &PlaceArgs, json: bool) -> Outcome {
    let packs = list_packs(&place.models_dir).map_err(Failure::usage)?;
    if json {
        let listed: Vec<_> = packs.iter().map(describe).collect();
        say!("{}", serde_json::to_string_pretty(&listed).map_err(Failure::internal)?);
        return Ok(Exit::Ok);
    }
    for pack in &packs {
        say!("{}", pack.name);
        match &pack.pack {
            Ok(info) => {
                say!("  {}", info.description);
                say!("  licence   {}", info.licence);
                say!("  contract  {}", info.contract);
                say!("  files     there, hashes right");
            }
            Err(fault) => say!("  not usable: {fault}"),
        }
    }
    Ok(Exit::Ok)
}

fn describe(pack: &crate::pipeline::PackListing) -> serde_json::Value {
    match &pack.pack {
        Ok(info) => serde_json::json!({
            "name": pack.name,
            "usable": true,
            "description": info.description,
            "licence": info.licence,
            "contract": info.contract.as_str(),
        }),
        Err(fault) => {
            serde_json::json!({ "name": pack.name, "usable": false, "fault": fault.to_string() })
        }
    }
}
