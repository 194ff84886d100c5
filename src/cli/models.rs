//! `assent models`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use sha2::{Digest, Sha256};

use super::calibrate::{people, progress};
use super::exit::{Exit, Failure};
use super::{Outcome, files, output};
use crate::pipeline::{
    PipelineSettings, ProviderChoice, ProviderSpeed, RangeMeter, Trial, compare_providers, fetch,
    list_packs,
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
    /// Measure a pack's ranges for eight bits on photos of many people (models/README.md)
    Ranges(RangesArgs),
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
    /// Only this one: cpu, openvino, openvino-bf16, openvino-int8, cuda, tensorrt; all by default
    #[arg(long, default_value = "auto", hide_default_value = true)]
    provider: ProviderChoice,
    /// Side of the detector's input, pixels
    #[arg(long, default_value_t = 320)]
    detector_size: u32,
    /// Workers; one a core by default. Each has a session of its own on cores
    #[arg(long)]
    workers: Option<usize>,
    /// Largest batch; 8 on cores and 64 on a GPU by default
    #[arg(long)]
    max_batch: Option<usize>,
}

#[derive(Debug, Args)]
pub(super) struct RangesArgs {
    #[command(flatten)]
    place: PlaceArgs,
    /// Folder with PERSON/PHOTO.jpg of a few hundred people; the first photo of each is looked at
    photos: PathBuf,
    /// The pack
    #[arg(long, default_value = "research")]
    pack: String,
    /// Where the ranges go; a new file
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

pub(super) fn run(command: &ModelsCommand, json: bool) -> Outcome {
    match command {
        ModelsCommand::List(place) => list(place, json),
        ModelsCommand::Fetch(place) => {
            fetch::ensure(&place.models_dir).map_err(Failure::usage)?;
            list(place, json)
        }
        ModelsCommand::Bench(args) => bench(args, json),
        ModelsCommand::Ranges(args) => ranges(args, json),
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
        provider: args.provider,
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
            "{:<14} {:>9} {:>11} {:>9}  {:>15}  faces a second of all workers, by batch",
            "provider",
            "agreement",
            "detector ms",
            "detect/s",
            "alone, 1 / all"
        );
    }
    let table = compare_providers(&settings, told).map_err(Failure::usage)?;
    if json {
        output::print_value(&table)?;
    }
    Ok(Exit::Ok)
}

/// Fewer faces leave rare ones outside of the ranges.
const FACES_WANTED: usize = 300;

fn ranges(args: &RangesArgs, json: bool) -> Outcome {
    // Told before minutes of work, not after.
    if args.out.exists() {
        return Err(Failure::new(Exit::Usage, "exists already").about(&args.out));
    }
    fetch::ensure(&args.place.models_dir).map_err(Failure::usage)?;
    let people = people(&args.photos)?;
    let settings = PipelineSettings {
        models_dir: args.place.models_dir.clone(),
        pack: args.pack.clone(),
        ..PipelineSettings::default()
    };
    let mut meter = RangeMeter::new(&settings).map_err(Failure::usage)?;
    let bar = progress(people.len() as u64);
    let mut used = 0;
    for photo in people.iter().filter_map(|person| person.photos.first()) {
        used += usize::from(meter.look(&files::read(photo)?).map_err(Failure::internal)?);
        bar.inc(1);
    }
    bar.finish_and_clear();
    if used == 0 {
        return Err(Failure::new(Exit::Usage, "no face in any of the photos").about(&args.photos));
    }
    let bytes = meter.bytes();
    let sha256 = hex::encode(Sha256::digest(&bytes));
    files::write_new(&args.out, &bytes)?;
    if json {
        output::print_value(&serde_json::json!({ "faces": used, "sha256": sha256 }))?;
        return Ok(Exit::Ok);
    }
    say!("{used} face(s) of {} photos, eight views each; for the manifest:\n", people.len());
    say!("[recogniser.ranges]");
    say!("file = {:?}", args.out.file_name().unwrap_or_default());
    say!("sha256 = {sha256:?}");
    say!("float = []");
    if used < FACES_WANTED {
        say!("\nFewer than {FACES_WANTED} faces: rare ones may lie outside of the ranges.");
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
                "{name:<14} {agreement:>9.5} {detector_ms:>11.2} {:>9.0}  {:>15}  {}",
                speed.detections_per_second,
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
