//! The store by itself and at start: enrolment, boot with and without a snapshot, revocation beside
//! the disk's own sync.
//!
//! `cargo bench --bench store -- [--rows 100000] [--revocations 2000] [--dir DIR]`; the same
//! `--rows` with the same `--dir`
//!
//! People are sampled from the statistics of real templates (`benches/gallery`). With `--dir` the
//! store is kept there and used again, else it lies in a temporary directory. Boots are those of
//! the whole service: models loaded, provider chosen, index in memory, health SERVING.

#![expect(clippy::print_stdout, clippy::cast_precision_loss, reason = "a bench prints figures")]

#[path = "gallery/mod.rs"]
mod gallery;

use std::error::Error;
use std::fs::{File, OpenOptions};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use assent::config::{self, Overrides, Settings};
use assent::consent::{
    AlternativeMethod, ConsentForm, ConsentRecord, LawfulBasis, Sha256, SubjectClass,
};
use assent::crypto::cell::FileCell;
use assent::engine::RevokeTarget;
use assent::pipeline::fetch;
use assent::server::{self, Running};
use assent::store::{Embedded, IdempotentWrite, Store, StoredRecord};
use assent::types::{Embedding, IdempotencyKey, ModelContract, RecordId, Timestamp};
use futures_util::{StreamExt, TryStreamExt, stream};
use gallery::{Gallery, GallerySettings, Population};

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// Enrolments at once while the store is filled.
const WRITERS: usize = 512;
/// Boots of each kind.
const BOOTS: usize = 3;
const SYNCS: usize = 1_000;
/// What a small commit writes.
const SYNCED_BYTES: usize = 16 << 10;
const CONTROLLER: &str = "estate";
const DOORS: usize = 40;

struct Options {
    rows: usize,
    revocations: usize,
    directory: Option<PathBuf>,
}

fn options() -> Outcome<Options> {
    let mut options = Options { rows: 100_000, revocations: 2_000, directory: None };
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    while let Some(name) = arguments.next() {
        let value = arguments.next().ok_or_else(|| format!("{name} has no value"))?;
        match name.as_str() {
            "--rows" => options.rows = value.parse()?,
            "--revocations" => options.revocations = value.parse()?,
            "--dir" => options.directory = Some(value.into()),
            _ => return Err(format!("{name} is not known").into()),
        }
    }
    Ok(options)
}

fn main() -> Outcome<()> {
    let options = options()?;
    let temporary = tempfile::tempdir()?;
    let directory = options.directory.clone().unwrap_or_else(|| temporary.path().into());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(run(&options, &directory))
}

async fn run(options: &Options, directory: &Path) -> Outcome<()> {
    std::fs::create_dir_all(directory)?;
    let settings = || settings(directory);
    let root_key = directory.join("root.key");
    if !root_key.exists() {
        drop(FileCell::create(&root_key)?);
        // The service says under which contract its pack embeds.
        let running = server::start(settings()?).await?;
        let contract = running.engine().status().pack.contract;
        running.stop().await;
        fill(options.rows, directory, &contract).await?;
    }
    let snapshot = directory.join("data/snapshot");
    let _absent = std::fs::remove_file(&snapshot);
    for _ in 0..BOOTS {
        let running = boot("boot, every record opened", settings()?).await?;
        running.stop().await;
    }
    let running = boot("boot, every record opened", settings()?).await?;
    let snapshots = settings()?.snapshots.ok_or("snapshots are off")?;
    let mut unhurried = snapshots.settings.clone();
    unhurried.rows_per_second = u32::MAX;
    let written = running.engine().write_snapshot(&unhurried).await?;
    let (took, rows) = (written.took.as_secs_f64(), written.rows);
    let size = std::fs::metadata(&snapshot)?.len();
    println!("snapshot: {rows} rows, {} MB, {took:.2} s at full speed", size >> 20);
    running.stop().await;
    for _ in 0..BOOTS {
        let running = boot("boot from the snapshot", settings()?).await?;
        running.stop().await;
    }
    let running = server::start(settings()?).await?;
    syncs(directory)?;
    revoke(&running, options).await?;
    syncs(directory)?;
    running.stop().await;
    let running = boot("boot from the snapshot of before", settings()?).await?;
    running.stop().await;
    Ok(())
}

fn settings(directory: &Path) -> Outcome<Settings> {
    let file = directory.join("assent.toml");
    std::fs::write(&file, "[snapshot]\nevery_s = 86400\n[log]\nfilter = \"warn\"\n")?;
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
    fetch::ensure(&models)?;
    let overrides = Overrides {
        profile: Some("open".into()),
        data_dir: Some(directory.join("data")),
        root_key: Some(directory.join("root.key")),
        listen: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))),
        no_metrics: true,
        plaintext: true,
        models_dir: Some(models),
        provider: Some("cpu".parse()?),
        ..Overrides::default()
    };
    Ok(config::load(Some(&file), overrides)?)
}

async fn boot(what: &str, settings: Settings) -> Outcome<Running> {
    let begun = Instant::now();
    let running = server::start(settings).await?;
    let held = running.engine().status().index.live;
    println!("{what}: {:.2} s to SERVING, {held} templates", begun.elapsed().as_secs_f64());
    Ok(running)
}

/// Enrols people straight into the store.
async fn fill(rows: usize, directory: &Path, contract: &ModelContract) -> Outcome<()> {
    let backend = Arc::new(Embedded::open(&directory.join("data"))?);
    let cell = Box::new(FileCell::open(&directory.join("root.key"))?);
    let store = Store::open(backend, cell, contract).await?;
    let people = Gallery::sample(Population::faces(), GallerySettings::of(rows));
    let begun = Instant::now();
    stream::iter(0..rows)
        .map(|at| enrol(&store, contract, &people, at))
        .buffer_unordered(WRITERS)
        .try_for_each(async |()| Ok(()))
        .await?;
    let rate = rows as f64 / begun.elapsed().as_secs_f64();
    println!("enrolled: {rate:.0} a second, {WRITERS} at once");
    store.close().await;
    Ok(())
}

async fn enrol(
    store: &Store,
    contract: &ModelContract,
    people: &Gallery,
    at: usize,
) -> Outcome<()> {
    let record = StoredRecord {
        id: RecordId::random(),
        subject: subject(at).parse()?,
        consent: consent(at)?,
        model: contract.clone(),
        generation: 0,
        frames: 1,
        enrolled_at: Timestamp::now(),
    };
    let write = IdempotentWrite {
        controller: CONTROLLER.parse()?,
        key: IdempotencyKey::parse(format!("enrol-{at}"))?,
        request_digest: [7; 32],
        answer: vec![7; 900],
    };
    let template = Embedding::normalise(people.template(at).to_vec())?;
    store.enrol(&record, &template, write).await?;
    Ok(())
}

fn subject(at: usize) -> String {
    format!("5e0f6c1a-7d43-4b0e-9a5d-{at:012x}")
}

fn consent(at: usize) -> Outcome<ConsentRecord> {
    let now = Timestamp::now();
    Ok(ConsentRecord {
        controller: CONTROLLER.parse()?,
        consent_id: format!("c0f1d2e3-4a5b-4c6d-8e7f-{at:012x}").parse()?,
        purpose: "access".parse()?,
        scope: format!("building-{}", at % DOORS).parse()?,
        notice_id: "doors".parse()?,
        notice_version: "2026-01".parse()?,
        notice_sha256: Sha256([9; 32]),
        form: ConsentForm::Electronic,
        channel: "app".parse()?,
        captured_at: now,
        expires_at: now.plus_days(300),
        evidence_sha256: Sha256([8; 32]),
        alternative_offered: AlternativeMethod::Card,
        lawful_basis: LawfulBasis::Consent,
        legal_reference: None,
        subject_class: SubjectClass::Adult,
        guardian: None,
        reconsent_by: None,
        offdevice_processing: false,
    })
}

/// One after the other, each waited for: durable, zeroised, keys destroyed.
async fn revoke(running: &Running, options: &Options) -> Outcome<()> {
    // Those before were revoked by an earlier run over the same store.
    let first = options.rows.saturating_sub(running.engine().status().index.live);
    let mut taken = Vec::with_capacity(options.revocations);
    for at in first..first + options.revocations {
        let target = RevokeTarget::Subject(subject(at).parse()?);
        let begun = Instant::now();
        let receipt = running.engine().revoke(CONTROLLER.parse()?, target).await?;
        taken.push(begun.elapsed());
        if receipt.records().len() != 1 {
            return Err(format!("subject {at} was not there").into());
        }
    }
    report("revocation", taken);
    Ok(())
}

/// What the disk takes to make one small write durable.
fn syncs(directory: &Path) -> Outcome<()> {
    let path = directory.join("syncs");
    let file: File = OpenOptions::new().create(true).truncate(true).write(true).open(&path)?;
    let bytes = vec![0xA5; SYNCED_BYTES];
    let mut taken = Vec::with_capacity(SYNCS);
    for at in 0..SYNCS as u64 {
        file.write_all_at(&bytes, at % 64 * SYNCED_BYTES as u64)?;
        let begun = Instant::now();
        file.sync_data()?;
        taken.push(begun.elapsed());
    }
    std::fs::remove_file(path)?;
    report("fdatasync of 16 KiB", taken);
    Ok(())
}

fn report(what: &str, mut taken: Vec<Duration>) {
    taken.sort_unstable();
    let at = |per_mille: usize| {
        let last = taken.len().saturating_sub(1);
        taken.get(last * per_mille / 1_000).map_or(0.0, |took| took.as_secs_f64() * 1e3)
    };
    println!("{what}: n {}, p50 {:.2} ms, p99 {:.2} ms", taken.len(), at(500), at(990));
}
