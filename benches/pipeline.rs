//! From photo to embedding: frames a second at 16 at once, latency one at a time, time by stage,
//! and the share of photos that quality refuses.
//!
//! ```text
//! ASSENT_FACES=DIR cargo bench --bench pipeline [-- PROVIDER [DETECTOR_SIZE [PHOTOS]]]
//! ```
//!
//! `DIR` holds `person/photo.jpg`; without it, the pack's own photos are used. `PROVIDER` is
//! `auto` or a name.

#![expect(clippy::print_stdout, reason = "it is a report")]

mod faces;

use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use assent::pipeline::{
    Company, Embedded, FaceDemands, Frame, Pipeline, PipelineError, PipelineSettings, Ticket, fetch,
};

/// Requests at once in the throughput run.
const AT_ONCE: usize = 16;
/// What the gates of a small office ask.
const DEMANDS: FaceDemands =
    FaceDemands { min_eye_distance_px: 20.0, company: Company::Any, live: false };

type Answer = (Duration, Result<Embedded, PipelineError>);

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1).filter(|argument| !argument.starts_with("--"));
    let models_dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
    fetch::ensure(&models_dir)?;
    let settings = PipelineSettings {
        provider: arguments.next().unwrap_or_else(|| "auto".into()).parse()?,
        detector_size: arguments.next().map_or(Ok(320), |size| size.parse())?,
        models_dir,
        ..PipelineSettings::default()
    };
    let limit = arguments.next().map_or(Ok(300), |count| count.parse())?;
    let photos = photos(&settings.models_dir, limit)?;
    let start = Instant::now();
    let pipeline = Pipeline::start(&settings)?;
    println!("{}", serde_json::to_string_pretty(pipeline.report())?);
    println!("start {:.2?}, {} photos\n", start.elapsed(), photos.len());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(run(&pipeline, &photos, 1));
    report("one at a time", &runtime.block_on(timed(&pipeline, &photos, 1)));
    report("16 at once", &runtime.block_on(timed(&pipeline, &photos, AT_ONCE)));
    println!("{:?}", pipeline.counters());
    Ok(())
}

fn photos(models_dir: &Path, limit: usize) -> Result<Vec<Vec<u8>>, Box<dyn Error>> {
    let own = models_dir.join("research");
    let root = std::env::var_os("ASSENT_FACES").map_or(own, PathBuf::from);
    let mut paths = faces::people(&root)?.concat();
    paths.retain(|path| path.extension().is_some_and(|kind| kind == "jpg"));
    Ok(paths.iter().take(limit).map(std::fs::read).collect::<Result<_, _>>()?)
}

/// All photos, `at_once` of them in work at any time.
async fn run(pipeline: &Pipeline, photos: &[Vec<u8>], at_once: usize) -> Vec<Answer> {
    let next = AtomicUsize::new(0);
    let client = || async {
        let mut answers = Vec::new();
        while let Some(photo) = photos.get(next.fetch_add(1, Ordering::Relaxed)) {
            let frame = Frame::Encoded(photo.clone().into());
            let start = Instant::now();
            let answer = pipeline.embed(frame, DEMANDS, Ticket::default()).await;
            answers.push((start.elapsed(), answer));
        }
        answers
    };
    let clients = std::iter::repeat_with(client).take(at_once);
    futures_util::future::join_all(clients).await.into_iter().flatten().collect()
}

async fn timed(pipeline: &Pipeline, photos: &[Vec<u8>], at_once: usize) -> (f64, Vec<Answer>) {
    let start = Instant::now();
    let answers = run(pipeline, photos, at_once).await;
    (start.elapsed().as_secs_f64(), answers)
}

#[expect(clippy::cast_precision_loss, reason = "a few hundred photos")]
fn report(title: &str, (seconds, answers): &(f64, Vec<Answer>)) {
    let mut latencies: Vec<Duration> = answers.iter().map(|(latency, _)| *latency).collect();
    latencies.sort_unstable();
    let at = |share: usize| latencies[(latencies.len() - 1) * share / 100];
    println!("{title}: {:.1} a second", answers.len() as f64 / seconds);
    println!("  latency best {:.2?}, p50 {:.2?}, p99 {:.2?}", at(0), at(50), at(99));
    let faces: Vec<&Embedded> = answers.iter().filter_map(|(_, a)| a.as_ref().ok()).collect();
    let mean = |stage: fn(&Embedded) -> Duration| {
        faces.iter().map(|face| stage(face)).sum::<Duration>()
            / u32::try_from(faces.len()).unwrap_or(1).max(1)
    };
    println!(
        "  mean: queue {:.2?}, decode {:.2?}, detect {:.2?}, align {:.2?}, embed {:.2?} (of the batch)",
        mean(|face| face.timings.queue),
        mean(|face| face.timings.decode),
        mean(|face| face.timings.detect),
        mean(|face| face.timings.align),
        mean(|face| face.timings.embed),
    );
    let best = |stage: fn(&Embedded) -> Duration| faces.iter().map(|face| stage(face)).min();
    println!(
        "  best: decode {:.2?}, detect {:.2?}, align {:.2?}, embed {:.2?}",
        best(|face| face.timings.decode).unwrap_or_default(),
        best(|face| face.timings.detect).unwrap_or_default(),
        best(|face| face.timings.align).unwrap_or_default(),
        best(|face| face.timings.embed / face.timings.batch_size.max(1)).unwrap_or_default(),
    );
    let mut refused: BTreeMap<String, usize> = BTreeMap::new();
    for error in answers.iter().filter_map(|(_, answer)| answer.as_ref().err()) {
        let why = match error {
            PipelineError::LowQuality(quality) => format!("{:?}", quality.reasons),
            PipelineError::Decode(_)
            | PipelineError::NoFace
            | PipelineError::SeveralFaces(_)
            | PipelineError::Late
            | PipelineError::Superseded
            | PipelineError::Overloaded { .. }
            | PipelineError::Stopped
            | PipelineError::NotLive { .. }
            | PipelineError::Internal => error.to_string(),
        };
        *refused.entry(why).or_default() += 1;
    }
    let share = 100.0 * (answers.len() - faces.len()) as f64 / answers.len() as f64;
    println!("  refused {share:.2} %: {refused:?}\n");
}
