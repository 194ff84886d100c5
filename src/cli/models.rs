//! `assent models`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::exit::{Exit, Failure};
use super::{Outcome, output};
use crate::pipeline::{
    PipelineSettings, ProviderSpeed, Trial, compare_providers, fetch, list_packs,
};

/// What to do with model packs.
#[derive(Debug, Subcommand)]
pub(super) enum ModelsCommand {
    /// List the packs, their licences, and whether their files are there and right
    List(PlaceArgs),
    /// Fetch what is missing, by name, version and hash
    Fetch(PlaceArgs),
    /// Measure how fast each execution provider runs the models on this machine
    Bench(BenchArgs),
}

#[derive(Debug, Args)]
pub(super) struct PlaceArgs {
    /// Directory of the model packs
    #[arg(long, env = "ASSENT_MODELS_DIR", default_value = "models", value_name = "DIR")]
    models_dir: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct BenchArgs {
    #[command(flatten)]
    place: PlaceArgs,
    /// The pack
    #[arg(long, default_value = "research")]
    pack: String,
    /// Side of the detector's input, pixels
    #[arg(long, default_value_t = 320)]
    detector_size: u32,
    /// Sessions side by side; one a core by default
    #[arg(long)]
    workers: Option<usize>,
    /// Largest batch
    #[arg(long, default_value_t = 8)]
    max_batch: usize,
}

pub(super) fn run(command: &ModelsCommand, json: bool) -> Outcome {
    match command {
        ModelsCommand::List(place) => list(place, json),
        ModelsCommand::Fetch(place) => {
            fetch::ensure(&place.models_dir).map_err(Failure::usage)?;
            list(place, json)
        }
        ModelsCommand::Bench(args) => bench(args, json),
    }
}

fn list(place: &PlaceArgs, json: bool) -> Outcome {
    let packs = list_packs(&place.models_dir).map_err(Failure::usage)?;
    if json {
        let listed: Vec<_> = packs.iter().map(describe).collect();
        output::print_value(&listed)?;
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

fn bench(args: &BenchArgs, json: bool) -> Outcome {
    fetch::ensure(&args.place.models_dir).map_err(Failure::usage)?;
    let settings = PipelineSettings {
        models_dir: args.place.models_dir.clone(),
        pack: args.pack.clone(),
        detector_size: args.detector_size,
        workers: args.workers,
        max_batch: args.max_batch,
        ..PipelineSettings::default()
    };
    let told = |speed: &ProviderSpeed| {
        if !json {
            print_speed(speed);
        }
    };
    if !json {
        say!(
            "{:<14} {:>9} {:>11}  {:>15}  faces a second of all workers, by batch",
            "provider",
            "agreement",
            "detector ms",
            "alone, 1 / all"
        );
    }
    let table = compare_providers(&settings, told).map_err(Failure::usage)?;
    if json {
        output::print_value(&table)?;
    }
    Ok(Exit::Ok)
}

fn print_speed(speed: &ProviderSpeed) {
    let name = speed.candidate.provider.name();
    match &speed.candidate.trial {
        Trial::Runs { agreement, detector_ms, .. } => {
            let by_batch = speed.faces_per_second.iter();
            let by_batch: Vec<_> =
                by_batch.map(|(size, rate)| format!("{size}: {rate:.0}")).collect();
            let [one, all] = speed.alone;
            say!(
                "{name:<14} {agreement:>9.5} {detector_ms:>11.2}  {:>15}  {}",
                format!("{one:.0} / {all:.0}"),
                by_batch.join(", ")
            );
        }
        Trial::Fails { reason } => say!("{name:<14} does not run here: {reason}"),
    }
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
