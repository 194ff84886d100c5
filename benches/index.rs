//! The index by itself: recall, latency, throughput, changes, scopes, memory and boot.
//!
//! `cargo bench --bench index -- [--rows 1000000] [--threads 2] [--floor 0.45] [--plan auto]
//! [--graph] [--only search,flight,scopes,churn,boot,leaks,turnover]`; leaks and turnover take
//! minutes and run only when named
//!
//! People and probes are sampled from the statistics of real templates (`benches/gallery`). Recall
//! is *mate recall*: the share of mated probes whose best row by exact scan is their mate, at or
//! above the floor, that the index finds too. `--threads 1` for figures of one thread.

#![expect(
    clippy::print_stdout,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a bench prints figures"
)]

#[path = "gallery/mod.rs"]
mod gallery;

use std::collections::HashMap;
use std::error::Error;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use assent::consent::{ClassKey, ConsentTag, Grant, Policy, PolicyDocument, Profile};
use assent::index::{
    Care, ExportedRow, Index, IndexOptions, NewTemplate, PlanSetting, Query, RestoredRow,
    RotationKey,
};
use assent::types::{Embedding, RecordId, Similarity, Timestamp};
use gallery::{Gallery, GallerySettings, Population};

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// Searches of each figure.
const PROBES: usize = 2_000;
/// Callers that keep a probe in flight each.
const CALLERS: usize = 16;
/// Erasures a second beside searches.
const ERASURES_A_SECOND: u32 = 100;
/// Searches whose results are looked at for leaks.
const TRIALS: usize = 10_000_000;
/// The graph's `ef`s that are compared after changes.
const EFS: [usize; 3] = [64, 128, 256];
/// Shares of the gallery that one gate may search, a thousandth each.
const SHARES: [usize; 4] = [1, 10, 100, 1_000];

#[derive(Clone)]
struct Options {
    rows: usize,
    threads: usize,
    floor: f32,
    plan: PlanSetting,
    graph: bool,
    turns: usize,
    only: Option<String>,
}

impl Options {
    fn parse() -> Outcome<Self> {
        let mut options = Self {
            rows: 100_000,
            threads: std::thread::available_parallelism()?.get(),
            floor: 0.45,
            plan: PlanSetting::Auto,
            graph: false,
            turns: 10,
            only: None,
        };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or(format!("{word} needs a value"));
            match word.as_str() {
                "--rows" => options.rows = value()?.parse()?,
                "--threads" => options.threads = value()?.parse()?,
                "--floor" => options.floor = value()?.parse()?,
                "--plan" => options.plan = serde_json::from_value(value()?.into())?,
                "--turns" => options.turns = value()?.parse()?,
                "--graph" => options.graph = true,
                "--only" => options.only = Some(value()?),
                "--bench" => {}
                other => return Err(format!("unknown option {other}; see benches/index.rs").into()),
            }
        }
        options.graph |= options.plan == PlanSetting::Graph;
        Ok(options)
    }

    fn names(&self, section: &str) -> bool {
        self.only.as_deref().is_some_and(|only| only.split(',').any(|name| name == section))
    }

    fn wants(&self, section: &str) -> bool {
        self.only.as_deref().is_none_or(|only| only.split(',').any(|name| name == section))
    }
}

fn main() -> Outcome<()> {
    let options = Options::parse()?;
    rayon::ThreadPoolBuilder::new().num_threads(options.threads).build_global()?;
    let people = Gallery::sample(Population::faces(), GallerySettings::of(options.rows));
    if options.names("turnover") {
        turnover(&options, &people)?;
    }
    let stage = Stage::build(&options, &people)?;
    println!("\n{} rows, {} threads, floor {}", options.rows, options.threads, options.floor);
    stage.memory();
    let mates = Probes::new(&people, PROBES)?;
    if options.wants("search") {
        stage.one_by_one("mates", &mates)?;
        stage.one_by_one("strangers", &Probes::strangers(&people, PROBES)?)?;
    }
    if options.wants("flight") {
        stage.in_flight(&mates)?;
    }
    if options.wants("scopes") {
        stage.scopes(&people)?;
    }
    if options.wants("churn") {
        stage.churn(&people, &mates)?;
    }
    if options.names("leaks") {
        stage.leaks(&people)?;
    }
    if options.wants("boot") {
        stage.boot(&people, &mates)?;
    }
    Ok(())
}

/// Probes and, of mated ones, the number of the template that they belong to.
struct Probes {
    probes: Vec<Embedding>,
    mates: Vec<usize>,
}

impl Probes {
    fn new(people: &Gallery, count: usize) -> Outcome<Self> {
        let mates = people.mates(count);
        let templates = mates.drawn.iter().map(|mate| mate.template).collect();
        Ok(Self { probes: embeddings(&mates.probes, people.width())?, mates: templates })
    }

    fn strangers(people: &Gallery, count: usize) -> Outcome<Self> {
        let probes = embeddings(&people.strangers(count), people.width())?;
        Ok(Self { probes, mates: Vec::new() })
    }
}

fn embeddings(values: &[f32], width: usize) -> Outcome<Vec<Embedding>> {
    let embedding = |vector: &[f32]| Embedding::normalise(vector.to_vec());
    Ok(values.chunks_exact(width).map(embedding).collect::<Result<_, _>>()?)
}

/// A filled index and what is needed to search it.
struct Stage {
    options: Options,
    index: Index,
    grants: HashMap<usize, Grant>,
    records: Vec<RecordId>,
    now: Timestamp,
}

impl Stage {
    fn build(options: &Options, people: &Gallery) -> Outcome<Self> {
        let settings =
            IndexOptions { plan: options.plan, graph: options.graph, ..IndexOptions::default() };
        let index = Index::new(settings.settings(people.width(), key()))?;
        let grants = grants()?;
        let (now, records) = (Timestamp::now(), people.len());
        let records: Vec<RecordId> = (0..records).map(|_| RecordId::random()).collect();
        let stage = Self { options: options.clone(), index, grants, records, now };
        let before = resident_bytes();
        let (begun, next) = (Instant::now(), AtomicUsize::new(0));
        std::thread::scope(|threads| {
            let workers: Vec<_> = (0..options.threads)
                .map(|_| {
                    threads.spawn(|| -> Outcome<()> {
                        loop {
                            let at = next.fetch_add(1, Ordering::Relaxed);
                            if at >= people.len() {
                                return Ok(());
                            }
                            let face = Embedding::normalise(people.template(at).to_vec())?;
                            stage.index.load(stage.template(at)?, &face)?;
                        }
                    })
                })
                .collect();
            workers.into_iter().try_for_each(ended)
        })?;
        let rate = people.len() as f64 / begun.elapsed().as_secs_f64();
        println!("loaded: {rate:.0} a second");
        stage.tend()?;
        let grown = resident_bytes().saturating_sub(before);
        println!("resident: {:.0} bytes a record", grown as f64 / people.len() as f64);
        Ok(stage)
    }

    fn tend(&self) -> Outcome<()> {
        let begun = Instant::now();
        loop {
            match self.index.care(self.options.threads)? {
                Care::Idle => return Ok(()),
                Care::Linked { linked, of } => {
                    eprint!("\rlinked {linked} of {of} ");
                }
                Care::Measured => {
                    let graph = self.index.status().graph;
                    println!("graph: {graph:?} after {:.1} s", begun.elapsed().as_secs_f64());
                }
            }
        }
    }

    /// Template `at`: its class is the number that its place belongs to, see [`class_of`].
    fn template(&self, at: usize) -> Outcome<NewTemplate> {
        let consent = ConsentTag {
            consent_id: uuid(at, 0xC0).parse()?,
            class: class(class_of(at))?,
            notice_version: "2026-01".parse()?,
            granted_at: self.now,
            expires_at: self.now.plus_days(30),
        };
        Ok(NewTemplate {
            record: self.records[at],
            subject: uuid(at, 0x50).parse()?,
            matches_until: consent.expires_at,
            consent,
        })
    }

    fn memory(&self) {
        let status = self.index.status();
        let rows = status.live as f64;
        let graph = status.graph.map_or(0, |graph| graph.bytes);
        println!(
            "bytes a record: arena {:.0}, catalogue {:.0}, graph {:.0}",
            status.arena_bytes as f64 / rows,
            status.catalogue_bytes as f64 / rows,
            graph as f64 / rows
        );
        for (share, grant) in sorted(&self.grants) {
            let plan = self.index.plan(grant, Similarity::new(self.options.floor));
            println!("plan for {share}/1000: {plan}");
        }
    }

    fn all(&self) -> &Grant {
        &self.grants[&SHARES[SHARES.len() - 1]]
    }

    fn search(&self, grant: &Grant, probe: &Embedding) -> Outcome<Option<(RecordId, f32)>> {
        let floor = Similarity::new(self.options.floor);
        let found = self.index.search(grant, &Query { probe, k: 1, floor }, self.now)?;
        let best = found.candidates.first();
        let hit = best.and_then(|candidate| self.index.confirm(grant, candidate, self.now));
        Ok(hit.map(|hit| (hit.record(), hit.similarity().get())))
    }

    fn one_by_one(&self, what: &str, probes: &Probes) -> Outcome<()> {
        let mut times = Vec::new();
        let mut found = Vec::new();
        for probe in &probes.probes {
            let begun = Instant::now();
            found.push(self.search(self.all(), probe)?);
            times.push(begun.elapsed());
        }
        println!("one by one, {what}: {}{}", Times(times), self.recall(probes, &found));
        Ok(())
    }

    fn recall(&self, probes: &Probes, found: &[Option<(RecordId, f32)>]) -> String {
        let (mut mates, mut right) = (0, 0);
        for ((probe, mate), found) in probes.probes.iter().zip(&probes.mates).zip(found) {
            let Some(own) = self.own(probe, *mate) else { continue };
            mates += 1;
            right += usize::from(found.is_some_and(|(_, similarity)| similarity >= own));
        }
        if mates == 0 {
            return String::new();
        }
        format!(
            ", recall {:.5} of {mates} mates at or above the floor",
            right as f64 / f64::from(mates)
        )
    }

    /// The mate's similarity by its stored codes, where that is at or above the floor. An exact scan
    /// answers with this row or a better one.
    fn own(&self, probe: &Embedding, mate: usize) -> Option<f32> {
        let subject = uuid(mate, 0x50).parse().ok()?;
        let found = self.index.compare(self.all(), &subject, probe, self.now).ok()?;
        let own = found.candidates.first()?.similarity().get();
        (own >= self.options.floor).then_some(own)
    }

    fn in_flight(&self, probes: &Probes) -> Outcome<()> {
        let (next, total) = (AtomicUsize::new(0), 3 * probes.probes.len());
        let begun = Instant::now();
        let times = std::thread::scope(|threads| {
            let caller = || -> Outcome<Vec<Duration>> {
                let mut times = Vec::new();
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    if at >= total {
                        return Ok(times);
                    }
                    let begun = Instant::now();
                    self.search(self.all(), &probes.probes[at % probes.probes.len()])?;
                    times.push(begun.elapsed());
                }
            };
            let callers: Vec<_> = (0..CALLERS).map(|_| threads.spawn(caller)).collect();
            let all = callers.into_iter().map(ended);
            all.collect::<Outcome<Vec<_>>>()
        })?;
        let rate = total as f64 / begun.elapsed().as_secs_f64();
        println!("{CALLERS} in flight: {rate:.0} a second, {}", Times(times.concat()));
        Ok(())
    }

    /// From a thousandth of the gallery to all of it.
    fn scopes(&self, people: &Gallery) -> Outcome<()> {
        let probes = Probes::new(people, 4 * PROBES)?;
        for (share, grant) in sorted(&self.grants) {
            let (mut times, mut mates, mut right, mut foreign) = (Vec::new(), 0, 0, 0);
            for (probe, mate) in probes.probes.iter().zip(&probes.mates) {
                let begun = Instant::now();
                let found = self.search(grant, probe)?;
                times.push(begun.elapsed());
                let inside = in_share(class_of(*mate), share);
                if let Some(own) = self.own(probe, *mate).filter(|_| inside) {
                    mates += 1;
                    right += usize::from(found.is_some_and(|(_, similarity)| similarity >= own));
                }
                let is_mate = found.is_some_and(|(record, _)| record == self.records[*mate]);
                foreign += usize::from(!inside && is_mate);
            }
            let recall = right as f64 / f64::from(u32::try_from(mates.max(1))?);
            println!(
                "scope of {share}/1000: {}, {right} of {mates} mates ({recall:.5}), {foreign} foreign",
                Times(times)
            );
        }
        Ok(())
    }

    /// Insertions and erasures, alone and beside searches.
    fn churn(&self, people: &Gallery, probes: &Probes) -> Outcome<()> {
        let count = 5_000.min(self.options.rows / 10);
        let alone = self.searching(probes, || {
            std::thread::sleep(Duration::from_secs(3));
            Ok(())
        })?;
        let mut steps = Vec::new();
        let beside = self.searching(probes, || {
            let pause = Duration::from_secs(1) / ERASURES_A_SECOND;
            for at in 0..3 * ERASURES_A_SECOND as usize {
                let next = Instant::now() + pause;
                steps.push(self.erase(at)?);
                std::thread::sleep(next.saturating_duration_since(Instant::now()));
            }
            Ok(())
        })?;
        println!("search alone: {}", Times(alone));
        println!("search beside {ERASURES_A_SECOND} erasures a second: {}", Times(beside));
        println!("  erasure: {}", Times(steps));
        let erased = 3 * ERASURES_A_SECOND as usize..count;
        let quiet: Outcome<Vec<_>> = erased.map(|at| self.erase(at)).collect();
        println!("erasure, nothing beside: {}", Times(quiet?));
        let (begun, next) = (Instant::now(), AtomicUsize::new(0));
        std::thread::scope(|threads| {
            let insert = || -> Outcome<()> {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    if at >= count {
                        return Ok(());
                    }
                    let face = Embedding::normalise(people.template(at).to_vec())?;
                    self.index.insert(self.template(at)?, &face)?;
                }
            };
            let workers: Vec<_> =
                (0..self.options.threads).map(|_| threads.spawn(insert)).collect();
            workers.into_iter().try_for_each(ended)
        })?;
        println!("insertion: {:.0} a second", count as f64 / begun.elapsed().as_secs_f64());
        self.one_by_one("mates after the churn", probes)
    }

    /// How long searches take while `work` runs.
    fn searching(
        &self,
        probes: &Probes,
        work: impl FnOnce() -> Outcome<()>,
    ) -> Outcome<Vec<Duration>> {
        let over = AtomicBool::new(false);
        std::thread::scope(|threads| {
            let searcher = threads.spawn(|| -> Outcome<Vec<Duration>> {
                let mut times = Vec::new();
                for probe in probes.probes.iter().cycle() {
                    if over.load(Ordering::Relaxed) {
                        break;
                    }
                    let begun = Instant::now();
                    self.search(self.all(), probe)?;
                    times.push(begun.elapsed());
                }
                Ok(times)
            });
            let worked = work();
            over.store(true, Ordering::Relaxed);
            worked?;
            ended(searcher)
        })
    }

    /// Time from withdrawal to the proof that all is zeroised.
    fn erase(&self, at: usize) -> Outcome<Duration> {
        let begun = Instant::now();
        let pending = self.index.withdraw(self.records[at]).ok_or("not held")?;
        let _purged = self.index.purge(pending);
        Ok(begun.elapsed())
    }

    /// Somebody's own template as the probe, the strongest temptation, under a grant that holds it
    /// or does not, both drawn at random. Whatever comes back is looked at under a grant of all
    /// classes.
    fn leaks(&self, people: &Gallery) -> Outcome<()> {
        let (next, results, foreign) =
            (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
        let grants: Vec<(usize, &Grant)> = sorted(&self.grants).collect();
        let classes = (0..SHARES.len()).map(class).collect::<Outcome<Vec<_>>>()?;
        let work = || -> Outcome<()> {
            loop {
                let trial = next.fetch_add(1, Ordering::Relaxed);
                if trial >= TRIALS {
                    return Ok(());
                }
                let drawn = mixed(trial as u64) as usize;
                let probe = people.template(drawn / 16 % people.len()).to_vec();
                let probe = Embedding::normalise(probe)?;
                let (share, grant) = grants[drawn % grants.len()];
                let floor = Similarity::new([-1.0, 0.3][drawn / 4 % 2]);
                let found =
                    self.index.search(grant, &Query { probe: &probe, k: 4, floor }, self.now)?;
                for candidate in &found.candidates {
                    let hit = self.index.confirm(self.all(), candidate, self.now);
                    let hit = hit.ok_or("a candidate that stands for nobody")?;
                    let class = classes.iter().position(|class| *class == hit.tag().class);
                    let is_inside = class.is_some_and(|class| in_share(class, share));
                    foreign.fetch_add(usize::from(!is_inside), Ordering::Relaxed);
                }
                results.fetch_add(found.candidates.len(), Ordering::Relaxed);
            }
        };
        std::thread::scope(|threads| {
            let workers: Vec<_> = (0..self.options.threads).map(|_| threads.spawn(work)).collect();
            workers.into_iter().try_for_each(ended)
        })?;
        let (results, foreign) = (results.into_inner(), foreign.into_inner());
        println!("leaks: {foreign} of {results} results of {TRIALS} searches out of scope");
        if foreign == 0 { Ok(()) } else { Err("results out of scope".into()) }
    }

    /// Out through a file and, as in a restart, back into a new index when this one is gone.
    fn boot(self, people: &Gallery, probes: &Probes) -> Outcome<()> {
        let file = tempfile::NamedTempFile::new()?;
        let begun = Instant::now();
        write_snapshot(&self.index, file.path())?;
        let size = std::fs::metadata(file.path())?.len();
        println!("snapshot: {:.2} s, {} MB", begun.elapsed().as_secs_f64(), size >> 20);
        // The store's part: what each record is held under, in the snapshot's order. Read before
        // the clock starts, as the store's own start is measured apart.
        let numbers: HashMap<RecordId, usize> =
            (0..).zip(&self.records).map(|(n, r)| (*r, n)).collect();
        let mut templates = Vec::with_capacity(people.len());
        let mut from = 0;
        loop {
            let rows = self.index.export(from, 4_096)?;
            let Some(last) = rows.last() else { break };
            from = last.slot.index + 1;
            for row in &rows {
                templates.push(self.template(numbers[&row.record])?);
            }
        }
        let options = IndexOptions {
            plan: self.options.plan,
            graph: self.options.graph,
            ..IndexOptions::default()
        };
        let head = self.index.snapshot_head();
        drop(self.index);
        let begun = Instant::now();
        let index = Index::new(options.settings(people.width(), key()))?;
        let restored = index.restore(&head, read_snapshot(file.path(), templates)?)?;
        let again = Self { index, ..self };
        let first = again.search(again.all(), &probes.probes[0])?;
        println!(
            "boot: {} rows, {} dropped, first answer ({}) after {:.2} s",
            restored.rows,
            restored.dropped.len(),
            if first.is_some_and(|(record, _)| record == again.records[probes.mates[0]]) {
                "right"
            } else {
                "not the mate, see recall"
            },
            begun.elapsed().as_secs_f64()
        );
        if again.options.graph {
            again.index.relink(&restored.links, again.options.threads)?;
            println!("boot: graph after {:.2} s", begun.elapsed().as_secs_f64());
            again.tend()?;
        }
        again.one_by_one("mates after the boot", probes)
    }
}

/// The graph after a tenth, after half and after everybody has left, against a graph built anew.
fn turnover(options: &Options, people: &Gallery) -> Outcome<()> {
    let half = people.len() / 2;
    let graph = Turning::new(people)?;
    (0..half).try_for_each(|at| graph.enter(at))?;
    println!("turnover of {half}: mate recall at ef {EFS:?}");
    graph.print("fresh", 0..half)?;
    (0..half / 10).try_for_each(|at| graph.leave(at))?;
    graph.print_beside("a tenth gone", half / 10..half)?;
    (half / 10..half / 2).try_for_each(|at| graph.leave(at))?;
    graph.print_beside("half gone", half / 2..half)?;
    (0..half / 2).try_for_each(|at| graph.enter(at))?;
    for turn in 0..options.turns {
        let (old, new) = if turn.is_multiple_of(2) { (0, half) } else { (half, 0) };
        (0..half).try_for_each(|at| graph.leave(old + at).and_then(|()| graph.enter(new + at)))?;
    }
    let from = if options.turns.is_multiple_of(2) { 0 } else { half };
    graph.print_beside(&format!("{} turnovers", options.turns), from..from + half)
}

/// A graph that people enter and leave.
struct Turning<'a> {
    people: &'a Gallery,
    index: Index,
    grant: Grant,
    records: Vec<std::cell::Cell<Option<RecordId>>>,
    now: Timestamp,
}

impl<'a> Turning<'a> {
    fn new(people: &'a Gallery) -> Outcome<Self> {
        let options = IndexOptions { graph: true, canary_every: 0, ..IndexOptions::default() };
        let index = Index::new(options.settings(people.width(), key()))?;
        let grant = grants()?.remove(&SHARES[SHARES.len() - 1]).ok_or("no grant")?;
        let records = vec![std::cell::Cell::new(None); people.len()];
        Ok(Self { people, index, grant, records, now: Timestamp::now() })
    }

    fn enter(&self, at: usize) -> Outcome<()> {
        let record = RecordId::random();
        let consent = ConsentTag {
            consent_id: record.to_string().parse()?,
            class: class(3)?,
            notice_version: "2026-01".parse()?,
            granted_at: self.now,
            expires_at: self.now.plus_days(1),
        };
        let subject = uuid(at, 0x50).parse()?;
        let template = NewTemplate { record, subject, matches_until: consent.expires_at, consent };
        self.index.insert(template, &Embedding::normalise(self.people.template(at).to_vec())?)?;
        self.records[at].set(Some(record));
        Ok(())
    }

    fn leave(&self, at: usize) -> Outcome<()> {
        let record = self.records[at].take().ok_or("not in")?;
        let _purged = self.index.purge(self.index.withdraw(record).ok_or("not held")?);
        Ok(())
    }

    fn print_beside(&self, what: &str, live: Range<usize>) -> Outcome<()> {
        self.print(what, live.clone())?;
        let anew = Self::new(self.people)?;
        live.clone().try_for_each(|at| anew.enter(at))?;
        anew.print("  built anew", live)
    }

    fn print(&self, what: &str, live: Range<usize>) -> Outcome<()> {
        let probes = Probes::new(self.people, 8 * PROBES)?;
        let mut shares = Vec::new();
        for ef in EFS {
            let (mut mates, mut right) = (0_u32, 0_u32);
            for (probe, mate) in probes.probes.iter().zip(&probes.mates) {
                let Some(record) = self.records[*mate].get().filter(|_| live.contains(mate)) else {
                    continue;
                };
                let query = Query { probe, k: 1, floor: Similarity::new(0.45) };
                let found = self.index.search_graph(&self.grant, &query, ef, self.now)?;
                let subject = uuid(*mate, 0x50).parse()?;
                let own = self.index.compare(&self.grant, &subject, probe, self.now)?;
                if own.candidates.first().is_none_or(|own| own.similarity().get() < 0.45) {
                    continue;
                }
                let best = found.candidates.first();
                let best = best.and_then(|best| self.index.confirm(&self.grant, best, self.now));
                mates += 1;
                right += u32::from(best.is_some_and(|best| best.record() == record));
            }
            shares.push(format!("{:.4}", f64::from(right) / f64::from(mates.max(1))));
        }
        println!("  {what}: {}", shares.join(", "));
        Ok(())
    }
}

/// Rows one after the other, each with its slot, record and length. A service seals each body under
/// its record's key; people who never lived need none.
fn write_snapshot(index: &Index, path: &std::path::Path) -> Outcome<()> {
    use std::io::Write;
    let mut out = std::io::BufWriter::with_capacity(1 << 20, std::fs::File::create(path)?);
    let mut from = 0;
    loop {
        let rows = index.export(from, 4_096)?;
        let Some(last) = rows.last() else { break };
        from = last.slot.index + 1;
        for ExportedRow { slot, record, body } in &rows {
            out.write_all(&slot.index.to_le_bytes())?;
            out.write_all(&slot.generation.to_le_bytes())?;
            out.write_all(record.as_bytes())?;
            out.write_all(&u32::try_from(body.len())?.to_le_bytes())?;
            out.write_all(body)?;
        }
    }
    Ok(out.flush()?)
}

fn read_snapshot(
    path: &std::path::Path,
    templates: Vec<NewTemplate>,
) -> Outcome<impl Iterator<Item = RestoredRow>> {
    use std::io::Read;
    let mut input = std::io::BufReader::with_capacity(1 << 20, std::fs::File::open(path)?);
    // What cannot be read is a row that cannot be used: the index drops and names it.
    Ok(templates.into_iter().map(move |template| {
        let mut head = [0; 28];
        let mut body = Vec::new();
        if input.read_exact(&mut head).is_ok() && template.record.as_bytes() == &head[8..24] {
            body.resize(word(&head, 6) as usize, 0);
            let _torn = input.read_exact(&mut body);
        }
        let slot = assent::types::SlotId { index: word(&head, 0), generation: word(&head, 1) };
        RestoredRow { slot, template, body: body.into() }
    }))
}

fn word(head: &[u8; 28], number: usize) -> u32 {
    u32::from_le_bytes(head.as_chunks().0[number])
}

/// What a thread came to; a panic is an error.
fn ended<T>(thread: std::thread::ScopedJoinHandle<'_, Outcome<T>>) -> Outcome<T> {
    thread.join().map_err(|_panicked| "a thread panicked")?
}

/// A number that looks random (the finaliser of SplitMix64; Steele, Lea and Flood 2014).
fn mixed(number: u64) -> u64 {
    let a = number.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let b = (a ^ (a >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let c = (b ^ (b >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    c ^ (c >> 31)
}

fn key() -> RotationKey {
    RotationKey::new(&[7; 32])
}

/// 1,000 places share four classes: one place, nine, ninety and nine hundred.
fn class_of(at: usize) -> usize {
    match at % 1_000 {
        0 => 0,
        1..10 => 1,
        10..100 => 2,
        _ => 3,
    }
}

/// Whether a class is within the share of so many thousandths.
fn in_share(class: usize, share: usize) -> bool {
    SHARES[class] <= share
}

fn class(number: usize) -> Outcome<ClassKey> {
    Ok(ClassKey {
        controller: "bench".parse()?,
        purpose: "entry".parse()?,
        scope: format!("scope-{number}").parse()?,
    })
}

/// A grant for each share, from a policy as an operator applies it.
fn grants() -> Outcome<HashMap<usize, Grant>> {
    let document = PolicyDocument::parse(include_str!("index_policy.toml"))?;
    let (policy, _changes) = Policy::under(Profile::named("open")?).apply(&document)?;
    let grant = |share: usize| -> Outcome<(usize, Grant)> {
        Ok((share, policy.open_gate(&format!("share-{share}").parse()?)?.grant().clone()))
    };
    SHARES.into_iter().map(grant).collect()
}

fn sorted(grants: &HashMap<usize, Grant>) -> impl Iterator<Item = (usize, &Grant)> {
    SHARES.into_iter().filter_map(|share| Some((share, grants.get(&share)?)))
}

/// A text that looks like a UUID and is a number's.
fn uuid(number: usize, kind: u8) -> String {
    format!("{kind:08x}-0000-4000-8000-{number:012x}")
}

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    kib.unwrap_or_default() << 10
}

/// Times, printed as their percentiles.
struct Times(Vec<Duration>);

impl std::fmt::Display for Times {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut times = self.0.clone();
        times.sort_unstable();
        let at = |share: f64| times.get((times.len() as f64 * share) as usize).or(times.last());
        let ms = |share| at(share).copied().unwrap_or_default().as_secs_f64() * 1e3;
        write!(f, "p50 {:.3} ms, p99 {:.3} ms", ms(0.5), ms(0.99))
    }
}
