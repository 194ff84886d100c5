//! `assent calibrate`: thresholds for a model pack from labelled photos of your own.
//!
//! # Invariants
//! - It runs here, without a service: no photo, embedding or cosine leaves the process but as
//!   counts, and in the names of photos whose labels look wrong.
//! - A rate that the photos cannot tell is left out of the table and named.

mod bounds;
mod det;
mod faces;
mod findings;
mod pairs;
mod photos;
mod rates;
mod report;

use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;

use super::exit::{Exit, Failure};
use super::{Outcome, output};
use crate::consent::Calibration;
use crate::pipeline::{Pipeline, PipelineSettings, ProviderChoice, fetch};
use faces::Faces;
pub(super) use faces::progress;
use findings::{Findings, Source};
pub(super) use photos::people;
use photos::{Groups, Person};
use rates::Curve;

/// `assent calibrate`.
#[derive(Debug, Args)]
pub(super) struct CalibrateArgs {
    /// Labelled photos (JPEG, PNG), as PERSON/PHOTO.jpg
    #[arg(value_name = "DIR")]
    photos: PathBuf,
    /// Folder for calibration.json, det.svg and report.md
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// A line `person,group` for each person: error rates by group
    #[arg(long, value_name = "FILE.csv")]
    groups: Option<PathBuf>,
    /// The pack
    #[arg(long, default_value = "research")]
    pack: String,
    /// Side of the detector's input, pixels
    #[arg(long, default_value_t = 320, value_name = "PIXELS")]
    detector: u32,
    /// Add extrapolated rows down to FMR 1e-9, marked so, for galleries that need them
    #[arg(long)]
    extrapolate: bool,
    /// Directory of the model packs
    #[arg(long, env = "ASSENT_MODELS_DIR", default_value = "models", value_name = "DIR")]
    models_dir: PathBuf,
    /// Execution provider: auto, cpu, openvino, openvino-bf16, openvino-int8, cuda, tensorrt
    #[arg(long, env = "ASSENT_PROVIDER", default_value = "auto")]
    provider: ProviderChoice,
}

pub(super) async fn run(args: &CalibrateArgs, json: bool) -> Outcome {
    let mut people = photos::people(&args.photos)?;
    let groups = args.groups.as_deref().map(|file| photos::assign(file, &mut people));
    let groups = groups.transpose()?.unwrap_or_default();
    std::fs::create_dir_all(&args.out)
        .map_err(|fault| Failure::new(Exit::Usage, fault.to_string()).about(&args.out))?;
    let pipeline = pipeline(args)?;
    let faces = faces::embed(&pipeline, &people).await?;
    let source = source(args, &pipeline);
    pipeline.shutdown();
    let (findings, curves) = measure(args, source, &people, &groups, &faces)?;
    let table = report::calibration(&findings).map_err(Failure::internal)?;
    // What a pack would refuse is not handed out.
    Calibration::parse(&table).map_err(Failure::internal)?;
    let markdown = report::markdown(&findings);
    write(&args.out, "calibration.json", &table)?;
    write(&args.out, "report.md", &markdown)?;
    let names = std::iter::once("all").chain(groups.names.iter().map(String::as_str));
    let drawn: Vec<_> = names.zip(&curves).collect();
    det::draw(&args.out.join("det.svg"), &drawn)?;
    if json {
        output::print_value(&findings)?;
    } else {
        say!("{markdown}");
        tell!("Written: calibration.json, det.svg and report.md in {}", args.out.display());
        say!();
        say!("{}", report::how_to_use(&table));
    }
    Ok(Exit::Ok)
}

fn pipeline(args: &CalibrateArgs) -> Result<Pipeline, Failure> {
    fetch::ensure(&args.models_dir).map_err(Failure::usage)?;
    let settings = PipelineSettings {
        models_dir: args.models_dir.clone(),
        pack: args.pack.clone(),
        detector_size: args.detector,
        provider: args.provider,
        ..PipelineSettings::default()
    };
    Pipeline::start(&settings).map_err(Failure::usage)
}

fn source(args: &CalibrateArgs, pipeline: &Pipeline) -> Source {
    // The folder's name and not its path: the table goes to other machines.
    let folder = args.photos.canonicalize().ok();
    let folder = folder.as_deref().and_then(Path::file_name).unwrap_or_default();
    Source {
        model: pipeline.contract().to_string(),
        detector: format!("pack {} at {1}x{1}", pipeline.pack().name, args.detector),
        folder: folder.to_string_lossy().into_owned(),
    }
}

/// The findings, and the curves of the whole and of each group.
fn measure(
    args: &CalibrateArgs,
    source: Source,
    people: &[Person],
    groups: &Groups,
    faces: &Faces,
) -> Result<(Findings, Vec<Curve>), Failure> {
    let begun = Instant::now();
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let pairs = pairs::compare(&faces.used, groups.names.len(), threads);
    let tallies = std::iter::once(&pairs.whole).chain(&pairs.groups);
    let curves: Vec<Curve> = tallies.map(Curve::of).collect();
    eprintln!(
        "{} pairs compared in {:.1} s",
        curves[0].genuine() + curves[0].impostors(),
        begun.elapsed().as_secs_f64()
    );
    let both = (&pairs, &curves[0]);
    let findings = Findings::of(source, people, groups, faces, both, args.extrapolate);
    let findings = findings.map_err(|few| {
        let left_out: Vec<_> =
            faces.left_out.iter().map(|(reason, photos)| format!("{reason} {photos}")).collect();
        let failure = Failure::new(Exit::Usage, few.to_string()).about(&args.photos);
        if left_out.is_empty() {
            failure
        } else {
            failure.advise(&format!("photos that could not be used: {}", left_out.join(", ")))
        }
    })?;
    Ok((findings, curves))
}

fn write(folder: &Path, name: &str, text: &str) -> Result<(), Failure> {
    let path = folder.join(name);
    std::fs::write(&path, text)
        .map_err(|fault| Failure::new(Exit::Usage, fault.to_string()).about(&path))
}
