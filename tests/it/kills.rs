//! kill -9 of the program while enrolments and revocations are in flight, and while it replaces
//! ROOT: what was acknowledged holds (P2, P4), what was not acknowledged holds whole or not at all.
//!
//! Two stores live through half of the kills each, side by side. Every second process is killed at a random moment, the others
//! kill themselves at the failpoints of the program (`src/failpoint.rs`), one after the other. A
//! kill counts for a kind of call only when at least one call of that kind had begun before it and
//! was never answered. `ASSENT_KILLS=10000` makes a long run, `ASSENT_SEED` repeats the moments.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use assent::service::client::Client;
use assent::service::proto;
use futures_util::future::join_all;
use futures_util::{StreamExt, stream};

use crate::harness::{
    CONTROLLER, GATE, POLICY, Place, Process, Service, embedded, enrolment_under, matched,
    revoke_subject, verify_face,
};

/// Kills of one run; `ASSENT_KILLS` for another number.
const KILLS: u32 = 500;
/// The least share of them that must hit a call in flight, for each kind of call.
const IN_FLIGHT_SHARE: u32 = 5;
/// Where the program kills itself, and how often it passes the point before, at most. Every start
/// replaces ROOT, so that the first time at the points of a commit is at the start.
const FAILPOINTS: [(&str, u64); 12] = [
    ("start.opened", 1),
    ("root.prepared", 1),
    ("root.committed", 1),
    ("root.retired", 1),
    ("root.prepared", 6),
    ("root.committed", 6),
    ("root.retired", 6),
    ("commit.written", 12),
    ("commit.durable", 12),
    ("enrol.committed", 8),
    ("revoke.zeroised", 6),
    ("revoke.committed", 6),
];
/// How long a process may take to reach its failpoint, milliseconds; then it is killed.
const LATEST_FAILPOINT_MS: u64 = 1_000;
/// Callers of each kind at once.
const CALLERS: usize = 4;
/// The kill comes at a random moment within this time after the callers' start, milliseconds.
const LATEST_KILL_MS: u64 = 60;
/// Living people that there are at least when revocations begin.
const POOL: usize = 40;
/// People of earlier cycles that are looked at after each restart, of each kind; all at the end.
const SAMPLE: usize = 4;
/// Questions at once.
const ASKED_AT_ONCE: usize = 16;
/// The least that the models need: probes are embeddings here.
const CONFIG: &str = "[pipeline]\nworkers = 1\nmax_batch = 1\n";

/// Somebody whose enrolment was acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Person {
    number: u64,
    record: String,
}

/// What the service says about somebody, at the gate and at the desk.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Held(String),
    Absent,
    /// Gate and desk disagree.
    Torn(String),
}

/// A broken promise.
#[derive(Debug, PartialEq, Eq)]
enum Harm {
    Lost,
    Revived,
    Torn,
}

fn subject(number: u64) -> String {
    format!("person-{number}")
}

async fn look(client: &Client, number: u64) -> Seen {
    let subject_ref = subject(number);
    let verdict = client.verify(verify_face(GATE, number)).await.unwrap();
    let at_gate = matched(&verdict).map(|_| verdict.r#match.clone().unwrap());
    let request = proto::DescribeSubjectRequest {
        controller_id: CONTROLLER.to_owned(),
        subject_ref: subject_ref.clone(),
    };
    let held = client.describe_subject(request).await.unwrap().records;
    match (at_gate, held.as_slice()) {
        (None, []) => Seen::Absent,
        (Some(found), [record])
            if found.subject_ref == subject_ref
                && found.record_id == record.record_id
                && record.live =>
        {
            Seen::Held(found.record_id)
        }
        (found, held) => Seen::Torn(format!("{subject_ref}: at the gate {found:?}, held {held:?}")),
    }
}

/// What is wrong with somebody who was enrolled, and not revoked.
fn harm_to_living(person: &Person, seen: &Seen) -> Option<Harm> {
    match seen {
        Seen::Held(record) if *record == person.record => None,
        Seen::Held(_) | Seen::Torn(_) => Some(Harm::Torn),
        Seen::Absent => Some(Harm::Lost),
    }
}

/// What is wrong with somebody who was revoked.
fn harm_to_gone(seen: &Seen) -> Option<Harm> {
    match seen {
        Seen::Absent => None,
        Seen::Held(_) => Some(Harm::Revived),
        Seen::Torn(_) => Some(Harm::Torn),
    }
}

#[derive(Debug, Default)]
struct Tally {
    kills: u32,
    at_random: u32,
    /// Before it served.
    at_the_start: u32,
    at_failpoints: BTreeMap<&'static str, u32>,
    with_enrolments_cut: u32,
    with_revocations_cut: u32,
    enrolments_acked: usize,
    revocations_acked: usize,
    rotations_acked: usize,
    /// Not acknowledged: how many were there after the restart, and how many were not.
    enrolments_cut: (usize, usize),
    revocations_cut: (usize, usize),
    looks: usize,
    lost: usize,
    revived: usize,
    torn: usize,
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.kills += other.kills;
        self.at_random += other.at_random;
        self.at_the_start += other.at_the_start;
        for (name, count) in other.at_failpoints {
            *self.at_failpoints.entry(name).or_insert(0) += count;
        }
        self.with_enrolments_cut += other.with_enrolments_cut;
        self.with_revocations_cut += other.with_revocations_cut;
        self.enrolments_acked += other.enrolments_acked;
        self.revocations_acked += other.revocations_acked;
        for (mine, theirs) in [
            (&mut self.enrolments_cut, other.enrolments_cut),
            (&mut self.revocations_cut, other.revocations_cut),
        ] {
            *mine = (mine.0 + theirs.0, mine.1 + theirs.1);
        }
        self.looks += other.looks;
        self.lost += other.lost;
        self.revived += other.revived;
        self.torn += other.torn;
    }

    fn note(&mut self, who: u64, harm: Option<Harm>) {
        self.looks += 1;
        let Some(harm) = harm else { return };
        eprintln!("{}: {harm:?}", subject(who));
        match harm {
            Harm::Lost => self.lost += 1,
            Harm::Revived => self.revived += 1,
            Harm::Torn => self.torn += 1,
        }
    }
}

/// What the callers know about everybody.
#[derive(Default)]
struct Ledger {
    living: Vec<Person>,
    gone: Vec<u64>,
    /// Never answered.
    cut_enrolments: Vec<proto::EnrollRequest>,
    cut_revocations: Vec<Person>,
    next: u64,
    tally: Tally,
}

/// splitmix64.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % limit
    }

    fn some<T: Clone>(&mut self, of: &[T], count: usize) -> Vec<T> {
        let pick = |_| of[usize::try_from(self.below(of.len() as u64)).unwrap()].clone();
        if of.is_empty() { Vec::new() } else { (0..count).map(pick).collect() }
    }
}

fn request(notice: &proto::Notice, number: u64) -> proto::EnrollRequest {
    enrolment_under(notice, &subject(number), "north-gate", vec![embedded(number)])
}

fn number(request: &proto::EnrollRequest) -> u64 {
    request.subject_ref.trim_start_matches("person-").parse().unwrap()
}

/// The example policy; duplicates are flagged, so that enrolments do not wait for each other.
fn policy() -> String {
    POLICY.replace("duplicates = \"refuse\"", "duplicates = \"flag\"")
}

async fn notice(client: &Client) -> proto::Notice {
    let request = proto::GetNoticeRequest {
        controller_id: CONTROLLER.to_owned(),
        notice_id: "face-entry".to_owned(),
        version: String::new(),
    };
    client.get_notice(request).await.unwrap().notice.unwrap()
}

impl Ledger {
    /// Settles what the last kill cut off: whole or not at all, and repeated to its end.
    async fn settle(&mut self, client: &Client) {
        for request in std::mem::take(&mut self.cut_enrolments) {
            let who = number(&request);
            let seen = look(client, who).await;
            let again = client.enroll(request).await.expect("the repeated call is answered");
            match &seen {
                Seen::Absent => self.tally.enrolments_cut.1 += 1,
                Seen::Held(_) | Seen::Torn(_) => self.tally.enrolments_cut.0 += 1,
            }
            let person = Person { number: who, record: again.record_id };
            // Repeating the call answers with the record that was there, where one was.
            let harm = if seen == Seen::Absent { None } else { harm_to_living(&person, &seen) };
            self.tally.note(who, harm);
            self.living.push(person);
        }
        for person in std::mem::take(&mut self.cut_revocations) {
            let seen = look(client, person.number).await;
            match &seen {
                Seen::Absent => self.tally.revocations_cut.0 += 1,
                Seen::Held(_) | Seen::Torn(_) => self.tally.revocations_cut.1 += 1,
            }
            let harm = if seen == Seen::Absent { None } else { harm_to_living(&person, &seen) };
            self.tally.note(person.number, harm);
            let again = client.revoke(revoke_subject(&subject(person.number))).await;
            again.expect("the repeated call is answered");
            self.gone.push(person.number);
        }
    }

    /// Looks at some of the living and some of the gone.
    async fn audit(&mut self, client: &Client, living: &[Person], gone: &[u64]) {
        let seen = ask(client, living.iter().map(|person| person.number).collect()).await;
        for (person, seen) in living.iter().zip(&seen) {
            self.tally.note(person.number, harm_to_living(person, seen));
        }
        let seen = ask(client, gone.to_vec()).await;
        for (who, seen) in gone.iter().zip(&seen) {
            self.tally.note(*who, harm_to_gone(seen));
        }
    }

    async fn fill_pool(&mut self, client: &Client, notice: &proto::Notice) {
        let missing = POOL.saturating_sub(self.living.len()) as u64;
        let people = self.next..self.next + missing;
        self.next += missing;
        let enrol = |number| async move {
            let record = client.enroll(request(notice, number)).await.unwrap().record_id;
            Person { number, record }
        };
        let enrolled: Vec<_> =
            stream::iter(people.map(enrol)).buffered(ASKED_AT_ONCE).collect().await;
        self.tally.enrolments_acked += enrolled.len();
        self.living.extend(enrolled);
    }

    /// Callers of both kinds at work until the program is no more: killed after `ms`, or, which is
    /// what it returns, by itself.
    async fn flight(
        &mut self,
        mut process: Process,
        client: &Client,
        notice: &proto::Notice,
        ms: u64,
    ) -> bool {
        let killed = Arc::new(AtomicBool::new(false));
        let next = Arc::new(AtomicU64::new(self.next));
        let pool = Arc::new(Mutex::new(std::mem::take(&mut self.living)));
        let enrolling = join_all((0..CALLERS).map(|_| {
            let work = keep_enrolling(client.clone(), notice.clone(), next.clone(), killed.clone());
            tokio::spawn(work)
        }));
        let revoking = join_all((0..CALLERS).map(|_| {
            tokio::spawn(keep_revoking(client.clone(), Arc::clone(&pool), Arc::clone(&killed)))
        }));
        // Each start is a rotation of the keys as well.
        let rotating = tokio::spawn(keep_rotating(client.clone(), Arc::clone(&killed)));
        let end = Instant::now() + Duration::from_millis(ms);
        while Instant::now() < end && !process.has_ended() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let by_itself = process.has_ended();
        killed.store(true, Ordering::SeqCst);
        process.kill();
        let (enrolling, revoking, rotated) = tokio::join!(enrolling, revoking, rotating);
        self.tally.rotations_acked += rotated.unwrap();
        self.living = std::mem::take(&mut pool.lock().unwrap());
        self.next = next.load(Ordering::SeqCst);
        let cut_before = (self.cut_enrolments.len(), self.cut_revocations.len());
        for ended in enrolling {
            let (acked, cut) = ended.unwrap();
            self.tally.enrolments_acked += acked.len();
            self.living.extend(acked);
            self.cut_enrolments.extend(cut);
        }
        for ended in revoking {
            let (acked, cut) = ended.unwrap();
            self.tally.revocations_acked += acked.len();
            self.gone.extend(acked);
            self.cut_revocations.extend(cut);
        }
        self.tally.kills += 1;
        self.tally.with_enrolments_cut += u32::from(self.cut_enrolments.len() > cut_before.0);
        self.tally.with_revocations_cut += u32::from(self.cut_revocations.len() > cut_before.1);
        by_itself
    }
}

async fn ask(client: &Client, people: Vec<u64>) -> Vec<Seen> {
    let looks = people.into_iter().map(|number| look(client, number));
    stream::iter(looks).buffered(ASKED_AT_ONCE).collect().await
}

/// The acknowledged enrolments, and the one that was in flight at the kill.
async fn keep_enrolling(
    client: Client,
    notice: proto::Notice,
    next: Arc<AtomicU64>,
    killed: Arc<AtomicBool>,
) -> (Vec<Person>, Option<proto::EnrollRequest>) {
    let mut acked = Vec::new();
    while !killed.load(Ordering::SeqCst) {
        let number = next.fetch_add(1, Ordering::SeqCst);
        let request = request(&notice, number);
        match client.enroll(request.clone()).await {
            Ok(response) => acked.push(Person { number, record: response.record_id }),
            Err(error) => {
                assert!(ends(&killed).await, "refused by a living service: {error}");
                return (acked, Some(request));
            }
        }
    }
    (acked, None)
}

/// How many rotations of the keys were acknowledged.
async fn keep_rotating(client: Client, killed: Arc<AtomicBool>) -> usize {
    let mut acked = 0;
    while !killed.load(Ordering::SeqCst) {
        match client.rotate_keys(proto::RotateKeysRequest {}).await {
            Ok(_) => acked += 1,
            Err(error) => assert!(ends(&killed).await, "refused by a living service: {error}"),
        }
    }
    acked
}

/// The acknowledged revocations, and the one that was in flight at the kill.
async fn keep_revoking(
    client: Client,
    pool: Arc<Mutex<Vec<Person>>>,
    killed: Arc<AtomicBool>,
) -> (Vec<u64>, Option<Person>) {
    let mut acked = Vec::new();
    while !killed.load(Ordering::SeqCst) {
        let Some(person) = pool.lock().unwrap().pop() else { break };
        match client.revoke(revoke_subject(&subject(person.number))).await {
            Ok(response) => {
                assert_eq!(response.revoked_records, std::slice::from_ref(&person.record));
                acked.push(person.number);
            }
            Err(error) => {
                assert!(ends(&killed).await, "refused by a living service: {error}");
                return (acked, Some(person));
            }
        }
    }
    (acked, None)
}

/// Whether the program is no more, or is not in a moment: a failpoint's kill shows to a caller
/// before it shows to the one that watches the process.
async fn ends(killed: &AtomicBool) -> bool {
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(5) {
        if killed.load(Ordering::SeqCst) {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    false
}

fn kills() -> u32 {
    std::env::var("ASSENT_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(KILLS)
}

/// The seed of this run: `ASSENT_SEED`, or a new one.
fn seed() -> u64 {
    let named = std::env::var("ASSENT_SEED").ok().and_then(|text| text.parse().ok());
    named.unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        u64::from(now.subsec_nanos()) ^ now.as_secs()
    })
}

/// One store that lives through `kills`, beginning with the `first`th failpoint.
async fn lifetime(seed: u64, kills: u32, first: usize) -> Tally {
    let place = Place::new();
    let config = place.path().join("assent.toml");
    std::fs::write(&config, CONFIG).unwrap();
    let arguments = ["--config", config.to_str().unwrap()];
    let mut dice = Dice(seed);
    let mut ledger = Ledger::default();
    let mut process = Process::spawn_with(&place, &arguments);
    let mut client = process.client().await;
    let apply = proto::ApplyPolicyRequest { toml: policy(), dry_run: false };
    client.apply_policy(apply).await.unwrap();
    let notice = notice(&client).await;
    let mut failpoints = FAILPOINTS.iter().cycle().skip(first);
    while ledger.tally.kills < kills {
        ledger.fill_pool(&client, &notice).await;
        let _killed = ledger.flight(process, &client, &notice, dice.below(LATEST_KILL_MS)).await;
        ledger.tally.at_random += 1;

        let (name, most) = failpoints.next().unwrap();
        let failpoint = format!("{name}:{}", 1 + dice.below(*most));
        let mut failing = Process::spawn_failing(&place, &arguments, &failpoint);
        let reached = if let Some(client) = failing.client_or_end().await {
            ledger.flight(failing, &client, &notice, LATEST_FAILPOINT_MS).await
        } else {
            ledger.tally.kills += 1;
            ledger.tally.at_the_start += 1;
            true
        };
        if reached {
            *ledger.tally.at_failpoints.entry(name).or_insert(0) += 1;
        } else {
            ledger.tally.at_random += 1;
        }

        process = Process::spawn_with(&place, &arguments);
        client = process.client().await;
        ledger.settle(&client).await;
        let (living, gone) = (dice.some(&ledger.living, SAMPLE), dice.some(&ledger.gone, SAMPLE));
        ledger.audit(&client, &living, &gone).await;
    }
    let (living, gone) = (ledger.living.clone(), ledger.gone.clone());
    ledger.audit(&client, &living, &gone).await;
    println!("kills: {} living, {} gone at the end", living.len(), gone.len());
    ledger.tally
}

#[tokio::test(flavor = "multi_thread")]
async fn c4_what_was_acknowledged_survives_kill_9_and_the_rest_is_all_or_nothing() {
    let (seed, kills) = (seed(), kills());
    println!("kills: ASSENT_SEED={seed}");
    let begun = Instant::now();
    let half = kills / 2;
    let (mut tally, other) =
        tokio::join!(lifetime(seed, kills - half, 0), lifetime(!seed, half, FAILPOINTS.len() / 2));
    tally.add(other);
    println!("kills: {tally:#?}\nkills: {:?} in all", begun.elapsed());
    let least = kills / IN_FLIGHT_SHARE;
    let cut = tally.with_enrolments_cut.min(tally.with_revocations_cut);
    assert!(cut >= least, "too few kills hit a call in flight");
    let points: BTreeSet<_> = FAILPOINTS.iter().map(|(name, _)| *name).collect();
    let reached = tally.at_failpoints.keys().copied().collect();
    assert!(points == reached || kills < KILLS, "some failpoints killed nothing: {reached:?}");
    assert_eq!((tally.lost, tally.revived, tally.torn), (0, 0, 0), "ASSENT_SEED={seed}");
}

/// The control: the looks above would see each harm.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_enrolment_and_a_revived_record_would_be_seen() {
    let service = Service::start().await;
    let client = &service.client;
    let notice = notice(client).await;
    let record = client.enroll(request(&notice, 1)).await.unwrap().record_id;
    let (held, absent) = (look(client, 1).await, look(client, 2).await);
    let enrolled = Person { number: 1, record };
    let other = Person { number: 1, record: "another".to_owned() };
    let never = Person { number: 2, record: enrolled.record.clone() };
    assert_eq!(harm_to_living(&enrolled, &held), None);
    assert_eq!(harm_to_gone(&absent), None);
    assert_eq!(harm_to_living(&never, &absent), Some(Harm::Lost));
    assert_eq!(harm_to_living(&other, &held), Some(Harm::Torn));
    assert_eq!(harm_to_gone(&held), Some(Harm::Revived));
    service.stop().await;
}
