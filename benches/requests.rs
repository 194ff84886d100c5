//! Whole requests over gRPC on loopback: requests a second, percentiles, stage timings.
//!
//! Starts the service in this process with the provider that measures best, enrols the people of
//! `ASSENT_FACES` (one folder a person) and plays gates. Callers and service share the cores.
//!
//! `ASSENT_FACES=... cargo bench --bench requests`
#![expect(clippy::print_stdout, reason = "a bench prints its table")]
#![expect(unsafe_code, reason = "the allocators are compared by one that is either")]

mod faces;

use std::alloc::{GlobalAlloc, Layout};
use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use assent::config::{self, Overrides};
use assent::crypto::cell::FileCell;
use assent::memory::WipingAllocator;
use assent::pipeline::fetch;
use assent::server::{self, Running};
use assent::service::client::{Client, Target};
use assent::service::proto::enroll_stream_response::Result as Answer;
use assent::service::proto::verify_request::Probe;
use assent::service::{WireTime, proto};
use assent::types::Timestamp;
use futures_util::future::try_join_all;
use futures_util::stream;

const POLICY: &str = include_str!("../docs/example-policy.toml");
const CONTROLLER: &str = "maple-property";
const GATE: &str = "north-gate-1";
/// Callers at once, each on a connection of its own.
const CONCURRENCY: [usize; 3] = [1, 4, 16];
/// How long one line of the table is measured, and before that not.
const MEASURED: Duration = Duration::from_secs(10);
const WARM_UP: Duration = Duration::from_secs(2);
/// InsightFace Server 0.2.0, 1:N search, 16 clients, requests a second; measured on another day
/// (ANCHORS.md), so the ratio is a guide. A comparison to show is measured side by side.
const ANCHOR: f64 = 30.5;

/// Callers while wiping is measured, and how that is spread: turns of each setting, one after the
/// other, so that whatever else the machine does meets all of them.
const WIPING_CALLERS: usize = 4;
const WIPING_TURNS: usize = 12;
const WIPING_TURN: Duration = Duration::from_secs(2);
/// What glibc fills free memory of C and C++ with, where it is asked to.
const PERTURBED: i32 = 0xA5;

/// The program's allocator, with its wipe or without: as [`WIPES`] says at each free.
struct EitherAllocator;

#[global_allocator]
static ALLOCATOR: EitherAllocator = EitherAllocator;
static WIPES: AtomicBool = AtomicBool::new(true);

// SAFETY: the blocks are the program's allocator's from first to last, and the contract of each
// call is passed on as it is.
unsafe impl GlobalAlloc for EitherAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the contract.
        unsafe { WipingAllocator.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the contract.
        unsafe { WipingAllocator.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, start: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract.
        unsafe {
            if WIPES.load(Ordering::Relaxed) {
                WipingAllocator.dealloc(start, layout);
            } else {
                WipingAllocator.give_back(start, layout);
            }
        }
    }
}

type Fallible<T> = Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> Fallible<()> {
    let Some(faces) = std::env::var_os("ASSENT_FACES").map(PathBuf::from) else {
        println!("left out: ASSENT_FACES names no folder of faces");
        return Ok(());
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let place = tempfile::tempdir()?;
        let running = start(place.path()).await?;
        measure(&running, &faces).await?;
        running.stop().await;
        Ok(())
    })
}

async fn start(place: &Path) -> Fallible<Running> {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
    fetch::ensure(&models)?;
    let root_key = place.join("root.key");
    drop(FileCell::create(&root_key)?);
    let settings = config::load(
        None,
        Overrides {
            data_dir: Some(place.join("data")),
            root_key: Some(root_key),
            listen: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))),
            no_metrics: true,
            plaintext: true,
            models_dir: Some(models),
            ..Overrides::default()
        },
    )?;
    Ok(server::start(settings).await?)
}

async fn connect(running: &Running) -> Fallible<Client> {
    let url = format!("http://{}", running.address());
    Ok(Client::connect(&Target { url, ..Target::default() }).await?)
}

async fn measure(running: &Running, faces: &Path) -> Fallible<()> {
    let client = connect(running).await?;
    let toml = POLICY
        .replace("duplicates = \"refuse\"", "duplicates = \"flag\"")
        // Many callers play one gate: none of their frames is a newer one of another's.
        .replace("\ncomparison = ", "\nnewest_frame_wins = false\ncomparison = ");
    client.apply_policy(proto::ApplyPolicyRequest { toml, dry_run: false }).await?;
    let people = faces::people(faces)?;
    let begun = Instant::now();
    let enrolled = enrol(&client, &people).await?;
    let rate = per_second(enrolled, begun.elapsed());
    let status = client.status(proto::StatusRequest {}).await?;
    println!("provider {}, scan {}", status.provider, status.scan_kernel);
    println!("enrolled {enrolled} of {} people, {rate:.1} a second", people.len());

    let photos = photos(&people)?;
    let alone = table("1:N, JPEG photos", running, &photos, Some(ANCHOR)).await?;
    stages(&alone);
    let vectors: Vec<_> = (0..512).map(vector).collect();
    table("1:N, embeddings (no picture is looked at)", running, &vectors, None).await?;
    wiping("1:N, JPEG photos", running, &photos).await?;
    wiping("1:N, embeddings", running, &vectors).await
}

/// Requests a second with and without wiping what is freed, in turns.
async fn wiping(title: &str, running: &Running, probes: &[Probe]) -> Fallible<()> {
    const SETTINGS: [(&str, bool, i32); 3] = [
        ("freed as it is", false, 0),
        ("wiped", true, 0),
        ("wiped, and M_PERTURB", true, PERTURBED),
    ];
    let probes: Arc<[Probe]> = probes.into();
    let mut rates = [const { Vec::new() }; SETTINGS.len()];
    for _ in 0..WIPING_TURNS {
        for ((_, wipes, perturb), rates) in SETTINGS.iter().zip(&mut rates) {
            WIPES.store(*wipes, Ordering::Relaxed);
            // SAFETY: the call sets one number of the C heap.
            unsafe { libc::mallopt(libc::M_PERTURB, *perturb) };
            let begun = Instant::now();
            let samples = play(running, &probes, WIPING_CALLERS, WIPING_TURN).await?;
            rates.push(per_second(samples.len(), begun.elapsed()));
        }
    }
    println!("\n{title}, {WIPING_CALLERS} callers, {WIPING_TURNS} turns of {WIPING_TURN:?}");
    println!("  memory                   per second, median   against the first, turn by turn");
    for ((name, ..), of) in SETTINGS.iter().zip(&rates) {
        let ratios = of.iter().zip(&rates[0]).map(|(rate, first)| rate / first);
        println!("  {name:<24} {:>18.1}   {:>8.4}", median(of.clone()), median(ratios.collect()));
    }
    Ok(())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let half = values.len() / 2;
    values.get(half).map_or(0.0, |upper| f64::midpoint(values[(values.len() - 1) / 2], *upper))
}

async fn enrol(client: &Client, people: &[Vec<PathBuf>]) -> Fallible<usize> {
    let request = proto::GetNoticeRequest {
        controller_id: CONTROLLER.to_owned(),
        notice_id: "face-entry".to_owned(),
        version: String::new(),
    };
    let notice = client.get_notice(request).await?.notice.ok_or("no notice")?;
    let mut requests = Vec::with_capacity(people.len());
    for (number, photos) in people.iter().enumerate() {
        let data = std::fs::read(photos.first().ok_or("a folder without photos")?)?;
        requests.push(enrolment(&notice, number, data));
    }
    let mut answers = client.enroll_stream(stream::iter(requests)).await?;
    let mut enrolled = 0;
    while let Some(answer) = answers.next().await? {
        enrolled += usize::from(matches!(answer.result, Some(Answer::Response(_))));
    }
    Ok(enrolled)
}

fn enrolment(notice: &proto::Notice, number: usize, data: Vec<u8>) -> proto::EnrollRequest {
    let now = Timestamp::now();
    let id = format!("consent-{number}");
    let form = Some(proto::probe::Form::Encoded(proto::EncodedFrame { data }));
    proto::EnrollRequest {
        idempotency_key: id.clone(),
        subject_ref: format!("resident-{number:04}"),
        controller_id: CONTROLLER.to_owned(),
        consent: Some(proto::ConsentRecord {
            consent_id: id,
            purpose: "resident-entry".to_owned(),
            scope: "north-gate".to_owned(),
            notice_id: notice.notice_id.clone(),
            notice_version: notice.version.clone(),
            notice_sha256: notice.sha256.clone(),
            form: proto::ConsentForm::Electronic.into(),
            channel: "bench".to_owned(),
            captured_at: Some(WireTime::from(now.plus_ms(-1000))),
            expires_at: Some(WireTime::from(now.plus_days(180))),
            evidence_sha256: vec![7; 32],
            bundled: Some(false),
            alternative_offered: proto::AlternativeMethod::Card.into(),
            lawful_basis: proto::LawfulBasis::Consent.into(),
            subject_class: proto::SubjectClass::Adult.into(),
            ..proto::ConsentRecord::default()
        }),
        frames: vec![proto::Probe { form }],
    }
}

/// The second photos: nobody is asked about the very picture that enrolled them.
fn photos(people: &[Vec<PathBuf>]) -> Fallible<Vec<Probe>> {
    let second = people.iter().filter_map(|photos| photos.get(1));
    let probe = |path| Ok(Probe::Encoded(proto::EncodedFrame { data: std::fs::read(path)? }));
    second.map(probe).collect()
}

/// A direction that is nobody's.
fn vector(seed: u16) -> Probe {
    let value = |i: u16| (f32::from(seed) * 1.7 + f32::from(i) * f32::from(i) * 0.37).sin();
    let values = (0..512).map(value).collect();
    let model_contract = "w600k_mbf/arcface-112/rgb/1".to_owned();
    Probe::Embedding(proto::EmbeddingProbe { values, model_contract })
}

/// One answered request.
struct Sample {
    latency: Duration,
    timings: proto::Timings,
}

/// Measures at each concurrency and prints a line each; the samples of the caller who was alone.
async fn table(
    title: &str,
    running: &Running,
    probes: &[Probe],
    anchor: Option<f64>,
) -> Fallible<Vec<Sample>> {
    let against = anchor.map(|anchor| format!("   against {anchor} a second")).unwrap_or_default();
    println!("\n{title}\n  callers   per second    p50 ms    p99 ms{against}");
    let probes: Arc<[Probe]> = probes.into();
    let mut alone = Vec::new();
    for callers in CONCURRENCY {
        play(running, &probes, callers, WARM_UP).await?;
        let begun = Instant::now();
        let mut samples = play(running, &probes, callers, MEASURED).await?;
        let rate = per_second(samples.len(), begun.elapsed());
        samples.sort_by_key(|sample| sample.latency);
        let ratio = anchor.map(|anchor| format!("   {:.1} x", rate / anchor)).unwrap_or_default();
        println!(
            "  {callers:>7} {rate:>12.1} {:>9.2} {:>9.2}{ratio}",
            ms(quantile(&samples, 0.5)),
            ms(quantile(&samples, 0.99)),
        );
        if callers == 1 {
            alone = samples;
        }
    }
    Ok(alone)
}

/// Callers that ask one question after the other until the time is over.
async fn play(
    running: &Running,
    probes: &Arc<[Probe]>,
    callers: usize,
    time: Duration,
) -> Fallible<Vec<Sample>> {
    let mut tasks = Vec::with_capacity(callers);
    for caller in 0..callers {
        let client = connect(running).await?;
        let probes = Arc::clone(probes);
        tasks.push(tokio::spawn(async move {
            let (begun, mut samples) = (Instant::now(), Vec::new());
            let first = caller * probes.len() / callers;
            for probe in probes.iter().cycle().skip(first) {
                if begun.elapsed() >= time {
                    break;
                }
                samples.push(ask(&client, probe.clone()).await?);
            }
            Fallible::Ok(samples)
        }));
    }
    let samples = try_join_all(tasks).await?;
    Ok(samples.into_iter().collect::<Fallible<Vec<_>>>()?.into_iter().flatten().collect())
}

async fn ask(client: &Client, probe: Probe) -> Fallible<Sample> {
    let request = proto::VerifyRequest {
        gate_id: GATE.to_owned(),
        intent: proto::Intent::Button.into(),
        probe: Some(probe),
        ..proto::VerifyRequest::default()
    };
    let begun = Instant::now();
    let response = client.verify(request).await?;
    let timings = response.timings.ok_or("no timings")?;
    Ok(Sample { latency: begun.elapsed(), timings })
}

/// Mean time in each stage.
fn stages(samples: &[Sample]) {
    let stage = |name: &str, us: fn(&proto::Timings) -> u32| {
        let sum: f64 = samples.iter().map(|sample| f64::from(us(&sample.timings))).sum();
        #[expect(clippy::cast_precision_loss, reason = "thousands")]
        let mean = sum / samples.len() as f64 / 1000.0;
        println!("  {name:<8} {mean:>8.3}");
    };
    println!("\nStages at one caller, mean ms");
    stage("queue", |t| t.queue_us);
    stage("decode", |t| t.decode_us);
    stage("detect", |t| t.detect_us);
    stage("align", |t| t.align_us);
    stage("embed", |t| t.embed_us);
    stage("search", |t| t.search_us);
    stage("total", |t| t.total_us);
}

/// Of sorted samples.
fn quantile(samples: &[Sample], share: f64) -> Duration {
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a place among thousands"
    )]
    let place = (samples.len() as f64 * share) as usize;
    let last = samples.len().saturating_sub(1);
    samples.get(place.min(last)).map_or(Duration::ZERO, |sample| sample.latency)
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

fn per_second(count: usize, time: Duration) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "thousands")]
    let count = count as f64;
    count / time.as_secs_f64()
}
