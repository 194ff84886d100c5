//! Assent's index and its peers, on the same people and probes, in one run.
//!
//! ```text
//! peers prepare --size 50000                      sample gallery and probes, find the truth
//! peers run --size 50000 --engine usearch-i8      one engine; a line of JSON for each setting
//! peers table --sizes 10000,100000                every engine, each in a process of its own
//! ```
//!
//! `README.md` says what the columns mean and what they do not.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "it is a report")]

mod assent_engine;
mod engine;
mod exact_scan;
#[path = "../../gallery/mod.rs"]
mod gallery;
mod hnsw_rs_engine;
mod hnswlib_engine;
mod machine;
mod measure;
mod score;
mod set;
mod table;
#[cfg(test)]
mod tests;
mod threshold;
mod usearch_engine;

use std::error::Error;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use clap::{Args, Parser, Subcommand};

use self::engine::EngineName;
use self::gallery::GallerySettings;
use self::set::{Set, SetSettings};

/// What went wrong, for the person who reads it.
type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

#[derive(Parser)]
#[command(about, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Sample gallery and probes and find the truth, unless they lie there already
    Prepare {
        /// Templates
        #[arg(long)]
        size: usize,
        #[command(flatten)]
        options: Options,
    },
    /// Measure one engine; a line of JSON for each of its settings
    Run {
        /// Templates
        #[arg(long)]
        size: usize,
        /// What to measure
        #[arg(long, value_enum)]
        engine: EngineName,
        #[command(flatten)]
        options: Options,
    },
    /// Measure engines at several sizes and print a Markdown table
    Table {
        /// Templates, one table each
        #[arg(long, value_delimiter = ',', required = true)]
        sizes: Vec<usize>,
        /// What to measure; all if it is left out
        #[arg(long, value_enum, value_delimiter = ',')]
        engines: Vec<EngineName>,
        /// Where lines of JSON are added
        #[arg(long)]
        json: Option<PathBuf>,
        #[command(flatten)]
        options: Options,
    },
}

#[derive(Args, Clone)]
struct Options {
    /// Folder for galleries and probes: 2 GB for a million templates of 512 dimensions
    #[arg(long, default_value = "target/peers-data")]
    data: PathBuf,
    /// Dimensions; anything but 512 is sampled evenly from the sphere
    #[arg(long, default_value_t = 512)]
    width: usize,
    /// Templates of each person
    #[arg(long, default_value_t = 1)]
    templates_per_person: usize,
    /// How much two photos of a person differ; 0.5 makes an easier gallery
    #[arg(long, default_value_t = 1.0)]
    noise_scale: f32,
    /// Another seed, other people
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Probes of enrolled people
    #[arg(long, default_value_t = 1_000)]
    mates: usize,
    /// Probes of strangers
    #[arg(long, default_value_t = 200)]
    strangers: usize,
    /// Cosine from which on a mate counts; left out: where FMR is 0.01 / templates
    #[arg(long)]
    threshold: Option<f32>,
    /// Search breadths of the graphs; left out: 64 to 512, from a million templates on to 1,024
    #[arg(long, value_delimiter = ',')]
    ef: Vec<usize>,
    /// Neighbours of a graph's node
    #[arg(long, default_value_t = 16)]
    m: usize,
    /// Search breadth while a graph is built
    #[arg(long, default_value_t = 128)]
    ef_construction: usize,
    /// Threads that build, and that work through the probes of the two-thread column
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Python that has hnswlib
    #[arg(long, default_value = "python3")]
    python: PathBuf,
}

impl Options {
    fn set(&self, size: usize) -> Outcome<SetSettings> {
        if size == 0 || !size.is_multiple_of(self.templates_per_person) {
            return Err("the size must be a multiple of the templates per person".into());
        }
        let gallery = GallerySettings {
            people: size / self.templates_per_person,
            templates_per_person: self.templates_per_person,
            noise_scale: self.noise_scale,
            seed: self.seed,
        };
        let (mates, strangers) = (self.mates, self.strangers);
        Ok(SetSettings { width: self.width, gallery, mates, strangers })
    }

    fn breadths(&self, size: usize) -> Vec<usize> {
        if !self.ef.is_empty() {
            return self.ef.clone();
        }
        let breadths = [64, 128, 256, 512, 1024];
        breadths[..if size < 1_000_000 { 4 } else { 5 }].to_vec()
    }

    /// The command line that leads to these options.
    fn arguments(&self) -> Vec<String> {
        let mut arguments = vec![
            format!("--data={}", self.data.display()),
            format!("--width={}", self.width),
            format!("--templates-per-person={}", self.templates_per_person),
            format!("--noise-scale={}", self.noise_scale),
            format!("--seed={}", self.seed),
            format!("--mates={}", self.mates),
            format!("--strangers={}", self.strangers),
            format!("--m={}", self.m),
            format!("--ef-construction={}", self.ef_construction),
            format!("--threads={}", self.threads),
            format!("--python={}", self.python.display()),
        ];
        arguments.extend(self.threshold.map(|cosine| format!("--threshold={cosine}")));
        arguments.extend(self.ef.iter().map(|ef| format!("--ef={ef}")));
        arguments
    }
}

/// This program again, so that a task has memory of its own.
fn child(task: &str, size: usize, options: &Options) -> Outcome<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(task).arg(format!("--size={size}")).args(options.arguments());
    Ok(command)
}

/// Prepares in a child: what it leaves in this process's heap would hide what an engine takes.
fn prepare(size: usize, options: &Options) -> Outcome<()> {
    if Set::is_there(&options.data, options.set(size)?) {
        return Ok(());
    }
    let status = child("prepare", size, options)?.status()?;
    if status.success() { Ok(()) } else { Err("the probes could not be prepared".into()) }
}

fn run(size: usize, engine: EngineName, options: &Options) -> Outcome<()> {
    prepare(size, options)?;
    let set = Set::load(&options.data, options.set(size)?)?;
    let threshold = options.threshold.map_or_else(|| threshold::at(size), Ok)?;
    measure::run(engine, &set, threshold, options, &mut |measured| {
        println!("{}", serde_json::to_string(&score::row(&set, threshold, &measured)?)?);
        Ok(())
    })
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Task::Prepare { size, options } => {
            options.set(size).and_then(|settings| Set::prepare(&options.data, settings))
        }
        Task::Run { size, engine, options } => run(size, engine, &options),
        Task::Table { sizes, engines, json, options } => {
            let engines = if engines.is_empty() { EngineName::ALL.to_vec() } else { engines };
            table::print(&sizes, &engines, json.as_deref(), &options)
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("peers: {error}");
            ExitCode::FAILURE
        }
    }
}
