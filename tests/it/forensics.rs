//! D3, G6: what a face leaves behind in the memory and the files of the process.
//!
//! The program runs as a child. At the moment of interest it is stopped (SIGSTOP), and all that it
//! can write to is searched for every 16 bytes in a row of every form of a template, and for its
//! pictures. The person is a face from the photos that come with the models, or a direction.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use assent::crypto::cell::{FileCell, RootCell};
use assent::index::{self, RotationKey};
use assent::pipeline::{
    Company, FaceDemands, Frame, Pipeline, PipelineSettings, PixelFormat, Provider, ProviderChoice,
    RawFrame, Ticket,
};
use assent::service::client::Client;
use assent::service::{WireTime, proto};
use assent::types::{Embedding, Timestamp};
use rustix::process::{Pid, Signal, kill_process};
use zeroize::Zeroizing;
use zune_core::bytestream::ZCursor;
use zune_jpeg::JpegDecoder;

use crate::harness::{
    GATE, MODELS, PATIENCE, POLICY, Place, Process, connect, encoded, enrolment, face, matched,
    photo, probe, revoke_subject, verify,
};

/// Bytes that tell one template, or one picture, from all others.
const WINDOW: usize = 16;
/// Different bytes that a window has at least: others are everywhere and tell nothing.
const DIFFERENT: usize = 6;
/// D3: from the answer to an empty memory.
const GONE_WITHIN: Duration = Duration::from_millis(100);
/// Bytes read at once, and of a page.
const CHUNK: usize = 1 << 20;
const PAGE: u64 = 4_096;
/// Bits of the sieve that most windows do not pass.
const SIEVE_BITS: u32 = 24;

/// What is looked for: windows, each with the name of what it is a part of.
struct Traces {
    windows: HashMap<u128, &'static str>,
    sieve: Vec<u64>,
    /// Four values in a row of a vector, the last three divided by the first, by [`step_of`] the
    /// first quotient: what a model gives out is the embedding times some number.
    quotients: Vec<Vec<[f32; 3]>>,
}

/// Steps of quotients between -8 and 8.
const STEPS: usize = 1 << 16;
/// How far two quotients of the same two values may be apart, in parts of each.
const SAME_QUOTIENT: f32 = 1e-5;

/// How often something was found, by what and where.
type Finds = BTreeMap<String, usize>;

impl Traces {
    fn new() -> Self {
        let (sieve, quotients) = (vec![0; 1 << (SIEVE_BITS - 6)], vec![Vec::new(); STEPS]);
        Self { windows: HashMap::new(), sieve, quotients }
    }

    /// All windows that begin at a multiple of `step`.
    fn add(&mut self, name: &'static str, bytes: &[u8], step: usize) {
        for window in bytes.windows(WINDOW).step_by(step) {
            let mut seen = window.to_vec();
            seen.sort_unstable();
            seen.dedup();
            if seen.len() >= DIFFERENT {
                let window = u128::from_le_bytes(window.try_into().unwrap());
                self.windows.insert(window, name);
                let at = sieve_at(window);
                self.sieve[at / 64] |= 1 << (at % 64);
            }
        }
    }

    /// Every form that `face` has in the index or on its way there.
    fn add_face(&mut self, face: &Embedding, rotation: &RotationKey) {
        for (name, form) in index::forms(face, rotation.clone()) {
            self.add(name, &form, 1);
        }
        self.add_scaled(face);
        // Fused, though from one frame: another rounding.
        let again = Embedding::fuse(std::slice::from_ref(face)).unwrap();
        for (name, form) in index::forms(&again, rotation.clone()) {
            self.add(name, &form, 1);
        }
    }

    /// The vector times any number.
    fn add_scaled(&mut self, face: &Embedding) {
        for quotients in face.expose().windows(4).filter_map(quotients_of) {
            if let Some(step) = step_of(quotients[0]) {
                for near in step.saturating_sub(1)..(step + 2).min(STEPS) {
                    self.quotients[near].push(quotients);
                }
            }
        }
    }

    /// The file of a picture and its pixels. Two windows of the same row that do not overlap are
    /// enough: what is left of a picture is left in longer pieces.
    fn add_picture(&mut self, picture: &Picture) {
        self.add("file", &picture.jpeg, WINDOW);
        self.add("pixels", &picture.rgb, WINDOW);
    }

    /// Gives every window in `memory` that is looked for to `found`.
    fn look_at(&self, memory: &[u8], mut found: impl FnMut(u128, &'static str)) {
        for window in memory.windows(WINDOW) {
            let window = u128::from_le_bytes(window.try_into().unwrap());
            let at = sieve_at(window);
            if self.sieve[at / 64] >> (at % 64) & 1 == 1
                && let Some(name) = self.windows.get(&window)
            {
                found(window, name);
            }
        }
        // The compiler of a model may do with vectors what it likes, but floats are aligned.
        for at in (0..memory.len().saturating_sub(WINDOW)).step_by(4) {
            let value = |i| f32::from_le_bytes(memory[at + 4 * i..][..4].try_into().unwrap());
            let values: [f32; 4] = std::array::from_fn(value);
            if let Some(quotients) = quotients_of(&values)
                && let Some(step) = step_of(quotients[0])
                && self.quotients[step].iter().any(|known| are_same(known, &quotients))
            {
                found(0, "f32 at some scale");
            }
        }
    }

    /// Goes through all memory that `process` can write to. `None` where this user may not look.
    fn look_into(
        &self,
        process: u32,
        mut found: impl FnMut(u128, &'static str, &str),
    ) -> Option<()> {
        let memory = File::open(format!("/proc/{process}/mem")).ok()?;
        let maps = std::fs::read_to_string(format!("/proc/{process}/maps")).ok()?;
        let mut chunk = vec![0; CHUNK];
        for line in maps.lines().filter(|line| line.contains(" rw")) {
            let place = line.split_whitespace().nth(5).unwrap_or("anonymous memory");
            let (mut at, to) = range(line);
            while at < to {
                let len = usize::try_from(to - at).unwrap().min(chunk.len());
                // What nobody may read (memfd_secret) is passed.
                let len = memory.read_at(&mut chunk[..len], at).unwrap_or(0);
                self.look_at(&chunk[..len], |window, name| found(window, name, place));
                at += match len {
                    0 => PAGE,
                    // Windows across two chunks are in the second.
                    _ if len == chunk.len() => (len - WINDOW) as u64,
                    _ => len as u64,
                };
            }
        }
        Some(())
    }

    /// What there is in the memory of `process`. `None` where this user may not look.
    fn in_memory(&self, process: u32) -> Option<Finds> {
        let mut finds = Finds::new();
        self.look_into(process, |_, name, place| {
            *finds.entry(format!("{name} in {place}")).or_default() += 1;
        })?;
        Some(finds)
    }

    /// Drops what a process that has never seen the face holds all the same: the tables that JPEG
    /// files share, mostly.
    fn forget_what_is_in(&mut self, process: u32) {
        let (mut common, before) = (Vec::new(), self.windows.len());
        let _may_look = self.look_into(process, |window, _, _| common.push(window));
        for window in common {
            self.windows.remove(&window);
        }
        println!("looked for: {} windows of {before}", self.windows.len());
        assert!(self.windows.len() > before / 100 * 95, "next to nothing is common");
    }

    /// All files below `folder`.
    fn in_files(&self, folder: &Path) -> Finds {
        let mut finds = Finds::new();
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                finds.extend(self.in_files(&path));
            } else {
                let bytes = std::fs::read(&path).unwrap();
                self.look_at(&bytes, |_, name| {
                    *finds.entry(format!("{name} in {}", path.display())).or_default() += 1;
                });
            }
        }
        finds
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the two halves")]
fn sieve_at(window: u128) -> usize {
    let (low, high) = (window as u64, (window >> 64) as u64);
    let mixed = (low ^ high.rotate_left(31)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    usize::try_from(mixed >> (64 - SIEVE_BITS)).unwrap()
}

fn quotients_of(values: &[f32]) -> Option<[f32; 3]> {
    let [first, rest @ ..] = values else { return None };
    let usable = values.iter().all(|v| v.is_normal() && (1e-9..1e9).contains(&v.abs()));
    usable.then(|| std::array::from_fn(|i| rest[i] / first))
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within 0 to STEPS")]
#[expect(clippy::cast_precision_loss, reason = "a power of two")]
fn step_of(quotient: f32) -> Option<usize> {
    let step = (quotient + 8.0) * (STEPS as f32 / 16.0);
    (0.0..STEPS as f32).contains(&step).then_some(step as usize)
}

fn are_same(known: &[f32; 3], found: &[f32; 3]) -> bool {
    known.iter().zip(found).all(|(a, b)| (a - b).abs() <= a.abs() * SAME_QUOTIENT)
}

fn range(line: &str) -> (u64, u64) {
    let (from, to) = line.split(' ').next().unwrap().split_once('-').unwrap();
    (u64::from_str_radix(from, 16).unwrap(), u64::from_str_radix(to, 16).unwrap())
}

/// A photo, or the part of it around one face.
struct Picture {
    jpeg: Vec<u8>,
    rgb: Vec<u8>,
    width: usize,
}

impl Picture {
    fn of(name: &str) -> Self {
        let jpeg = photo(name);
        let mut decoder = JpegDecoder::new(ZCursor::new(&jpeg));
        let rgb = decoder.decode().unwrap();
        let width = decoder.dimensions().unwrap().0;
        Self { jpeg, rgb, width }
    }

    /// The rectangle at (x, y), as a raw frame would hold it.
    fn cut(&self, [x, y, width, height]: [usize; 4]) -> Self {
        let rows = self.rgb.chunks_exact(self.width * 3).skip(y).take(height);
        let rgb = rows.flat_map(|row| row[x * 3..(x + width) * 3].iter().copied()).collect();
        Self { jpeg: Vec::new(), rgb, width }
    }

    fn height(&self) -> usize {
        self.rgb.len() / 3 / self.width
    }

    fn raw(&self) -> proto::RawFrame {
        proto::RawFrame {
            data: self.rgb.clone(),
            format: proto::PixelFormat::Rgb8.into(),
            width: u32::try_from(self.width).unwrap(),
            height: u32::try_from(self.height()).unwrap(),
            stride: 0,
        }
    }
}

/// A running child and all that is looked for in it.
struct Scene {
    place: Place,
    process: Process,
    traces: Traces,
    rotation: RotationKey,
}

impl Scene {
    async fn open(provider: Provider) -> Self {
        let place = Place::new();
        let mut process = Process::spawn_on(&place, provider, &[]);
        let client = process.client().await;
        let policy = POLICY.replace("duplicates = \"refuse\"", "duplicates = \"flag\"");
        let request = proto::ApplyPolicyRequest { toml: policy, dry_run: false };
        client.apply_policy(request).await.unwrap();
        let rotation = rotation(&place);
        Self { place, process, traces: Traces::new(), rotation }
    }

    async fn client(&self) -> Client {
        connect(self.process.address()).await
    }

    /// Enrols through a connection of its own.
    async fn enrol(&self, subject: &str, frame: proto::Probe, ends: Option<Timestamp>) -> Client {
        let client = self.client().await;
        let mut request = enrolment(&client, subject, "north-gate", vec![frame]).await;
        if let Some(end) = ends {
            request.consent.as_mut().unwrap().expires_at = Some(WireTime::from(end));
        }
        client.enroll(request).await.unwrap();
        client
    }

    /// What is in memory and files at this moment; `None` where this user may not look.
    fn stopped(&self) -> Option<(Finds, Finds)> {
        let pid = Pid::from_raw(i32::try_from(self.process.id()).unwrap()).unwrap();
        kill_process(pid, Signal::STOP).unwrap();
        let memory = self.traces.in_memory(self.process.id());
        let files = self.traces.in_files(self.place.path());
        kill_process(pid, Signal::CONT).unwrap();
        memory.map(|memory| (memory, files))
    }

    /// Before: the row is in memory, and that is why the search can be believed.
    fn assert_held(&self) {
        if let Some((memory, files)) = self.stopped() {
            println!("held: {memory:?}");
            let rows: usize = memory
                .iter()
                .filter(|(name, _)| name.starts_with("codes in"))
                .map(|(_, n)| n)
                .sum();
            assert!(rows > 256, "the search itself works: {memory:?}");
            assert_eq!(files, Finds::new(), "no form is ever in a file");
        } else {
            println!("left out: this user may not read the memory of another process");
        }
    }

    /// `since` the answer, at most [`GONE_WITHIN`] later: nothing.
    async fn assert_gone(&self, what: &str, since: Instant) {
        tokio::time::sleep(GONE_WITHIN.saturating_sub(since.elapsed())).await;
        if let Some((memory, files)) = self.stopped() {
            println!("{what}: {memory:?} {files:?}");
            assert_eq!((memory, files), (Finds::new(), Finds::new()), "{what}");
        }
    }
}

/// The test's only contact with the root key.
fn rotation(place: &Place) -> RotationKey {
    // The service holds the file itself.
    let copy = place.path().join("root.copy");
    std::fs::copy(place.root_key(), &copy).unwrap();
    RotationKey::new(&FileCell::open(&copy).unwrap().deployment().rotation_seed())
}

/// What the service makes of a picture: the same models, the same provider. `None` where that does
/// not run.
async fn embedding_of(frame: Frame, provider: Provider) -> Option<Embedding> {
    let settings = PipelineSettings {
        models_dir: MODELS.clone(),
        provider: ProviderChoice::Named(provider),
        ..PipelineSettings::default()
    };
    let pipeline = tokio::task::spawn_blocking(move || Pipeline::start(&settings)).await;
    let demands = FaceDemands { min_eye_distance_px: 0.0, company: Company::Aside, live: false };
    let pipeline = pipeline.unwrap().ok()?;
    Some(pipeline.embed(frame, demands, Ticket::default()).await.unwrap().embedding)
}

fn raw(picture: &Picture) -> Frame {
    let frame = picture.raw();
    Frame::Raw(RawFrame {
        format: PixelFormat::Rgb8,
        width: frame.width,
        height: frame.height,
        stride: 0,
        data: Zeroizing::new(frame.data),
    })
}

fn direction(seed: u64) -> Embedding {
    Embedding::normalise(face(seed).values).unwrap()
}

/// The same search, pointed at a process that holds what it looks for, and at a file.
#[test]
fn the_search_finds_what_is_there() {
    let place = Place::new();
    let mut traces = Traces::new();
    traces.add_face(&direction(1), &rotation(&place));
    let planted: Vec<_> = index::forms(&direction(1), rotation(&place));
    let found = traces.in_memory(std::process::id()).unwrap();
    assert!(found.iter().any(|(f, _)| f.starts_with("f32 at some scale")), "{found:?}");
    for (name, form) in &planted {
        let count: usize = found.iter().filter(|(f, _)| f.starts_with(name)).map(|(_, n)| n).sum();
        assert!(count + WINDOW > form.len() / 2, "{name}: {found:?}");
    }
    std::fs::write(place.path().join("planted"), &*planted[0].1).unwrap();
    let found: usize = traces.in_files(place.path()).values().sum();
    assert!(found > planted[0].1.len() / 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn d3_nothing_of_a_revoked_photo_is_left_after_100_ms() {
    let providers =
        [Provider::Cpu, Provider::OpenVinoF32, Provider::OpenVinoBf16, Provider::OpenVinoInt8];
    for provider in providers {
        let picture = Picture::of("yaoming.jpg");
        let frame = Frame::Encoded(Zeroizing::new(picture.jpeg.clone()));
        let Some(embedding) = embedding_of(frame, provider).await else {
            println!("left out: {provider} does not run here");
            continue;
        };
        let mut scene = Scene::open(provider).await;
        scene.traces.add_face(&embedding, &scene.rotation);
        scene.traces.add_picture(&picture);
        scene.traces.forget_what_is_in(scene.process.id());
        let _open = scene.enrol("resident-1", encoded(picture.jpeg.clone()), None).await;
        tokio::time::sleep(GONE_WITHIN).await;
        scene.assert_held();
        let client = scene.client().await;
        client.revoke(revoke_subject("resident-1")).await.unwrap();
        scene.assert_gone(&format!("a revoked photo, {provider}"), Instant::now()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn d3_nothing_of_a_revoked_embedding_is_left_after_100_ms() {
    let mut scene = Scene::open(Provider::Cpu).await;
    scene.traces.add_face(&direction(7), &scene.rotation);
    let form = proto::probe::Form::Embedding(face(7));
    scene.traces.forget_what_is_in(scene.process.id());
    let _open = scene.enrol("resident-1", probe(form), None).await;
    let client = scene.client().await;
    let probe = proto::verify_request::Probe::Embedding(face(7));
    let answer = client.verify(verify(GATE, probe)).await.unwrap();
    assert_eq!(matched(&answer), Some("resident-1"));
    scene.assert_held();
    client.revoke(revoke_subject("resident-1")).await.unwrap();
    scene.assert_gone("a revoked embedding", Instant::now()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn d3_nothing_of_an_expired_template_is_left() {
    let mut scene = Scene::open(Provider::Cpu).await;
    scene.traces.add_face(&direction(8), &scene.rotation);
    let form = proto::probe::Form::Embedding(face(8));
    // Time enough to enrol and to search the memory once, however slow the machine is.
    let search = Instant::now();
    scene.traces.forget_what_is_in(scene.process.id());
    let search = i64::try_from(search.elapsed().as_millis()).unwrap();
    let end = Timestamp::now().plus_ms(4_000 + 4 * search);
    let _open = scene.enrol("resident-1", probe(form), Some(end)).await;
    scene.assert_held();
    let client = scene.client().await;
    let begun = Instant::now();
    while held(&client).await > 0 {
        assert!(begun.elapsed() < PATIENCE, "it never expires");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    scene.assert_gone("an expired template", Instant::now()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn g6_nothing_of_a_stranger_is_left_after_a_non_match() {
    let mut scene = Scene::open(Provider::Cpu).await;
    let _open =
        scene.enrol("resident-1", probe(proto::probe::Form::Embedding(face(9))), None).await;
    let stranger = Picture::of("players.jpg").cut([290, 380, 120, 140]);
    let embedding = embedding_of(raw(&stranger), Provider::Cpu).await.unwrap();
    scene.traces.add_face(&embedding, &scene.rotation);
    scene.traces.add_picture(&stranger);
    scene.traces.add_face(&direction(10), &scene.rotation);
    scene.traces.forget_what_is_in(scene.process.id());
    let own = scene.traces.in_memory(std::process::id());
    assert!(own.is_none_or(|finds| !finds.is_empty()), "the search itself works");
    for probe in [
        proto::verify_request::Probe::Raw(stranger.raw()),
        proto::verify_request::Probe::Encoded(proto::EncodedFrame { data: photo("yaoming.jpg") }),
        proto::verify_request::Probe::Embedding(face(10)),
    ] {
        let client = scene.client().await;
        let answer = client.verify(verify(GATE, probe)).await.unwrap();
        assert_eq!(matched(&answer), None);
        scene.assert_gone("a stranger", Instant::now()).await;
    }
}

async fn held(client: &Client) -> u64 {
    let status = client.status(proto::StatusRequest {}).await.unwrap();
    let classes = status.classes.iter().filter(|class| class.templates > 0);
    classes.map(|class| class.templates).sum()
}
