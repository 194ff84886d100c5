//! A real file system that fills up. It is a tmpfs in a mount namespace of its own, which
//! `unshare` makes without rights where the system allows it; where it does not, the test says so,
//! and the simulated disks of `src/store/tests/space.rs` stand alone.

use std::io::Write;
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use assent::pipeline::Provider;
use assent::service::client::Client;
use assent::service::proto;
use futures_util::{StreamExt, stream};

use crate::harness::{
    CONTROLLER, GATE, PATIENCE, POLICY, Place, embedded, enrolment_under, free_address, matched,
    notice, revoke_subject, serve_arguments, serving_at, verify_face,
};

/// Single revocations on the full disk, at least.
const PEOPLE: usize = 1_000;
/// The disk: the reserve, the database with some room for 1,000 people, and a file that goes
/// later.
const DISK_MIB: u32 = 24;
const BALLAST_MIB: u32 = 6;
const RESERVE_MIB: u32 = 4;
const CALLERS: usize = 8;

/// Reads commands on standard input: what follows the first argument is the program.
const SCRIPT: &str = r#"
disk=$1 size=$2 ballast=$3
shift 3
mount -t tmpfs -o "size=${size}m,mode=0700" none "$disk" || exit 1
head -c "${ballast}M" /dev/zero > "$disk/ballast"
while read -r command; do
    case $command in
    start) "$@" & pid=$! ;;
    kill) kill -9 "$pid"; wait "$pid" ;;
    free) rm "$disk/ballast" ;;
    esac
done
kill -9 "$pid"
"#;

/// The program on a small disk of its own.
struct SmallDisk {
    shell: Child,
    commands: ChildStdin,
    address: SocketAddr,
}

impl SmallDisk {
    fn new(place: &Place, reserve_mib: u32) -> Self {
        let config = place.path().join("assent.toml");
        let text = format!(
            "[pipeline]\nworkers = 1\nmax_batch = 1\n[store]\nreserve_mib = {reserve_mib}\n"
        );
        std::fs::write(&config, text).unwrap();
        std::fs::create_dir(place.data()).unwrap();
        let address = free_address();
        let mut shell = Command::new("unshare")
            .args(["-Urm", "sh", "-c", SCRIPT, "sh"])
            .arg(place.data())
            .args([DISK_MIB.to_string(), BALLAST_MIB.to_string()])
            .arg(env!("CARGO_BIN_EXE_assent"))
            .args(serve_arguments(place, Provider::Cpu, address))
            .arg("--config")
            .arg(config)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let commands = shell.stdin.take().unwrap();
        Self { shell, commands, address }
    }

    fn tell(&mut self, command: &str) {
        writeln!(self.commands, "{command}").unwrap();
    }

    async fn start(&mut self) -> Client {
        self.tell("start");
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            if let Some(client) = serving_at(self.address).await {
                return client;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("the program did not serve within {PATIENCE:?}");
    }

    /// kill -9, waited for: the next client is not one of the old process.
    async fn kill(&mut self) {
        self.tell("kill");
        let begun = Instant::now();
        while serving_at(self.address).await.is_some() {
            assert!(begun.elapsed() < PATIENCE, "the program does not end");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// The end of its input ends the shell, and that the program.
    fn end(self) {
        let Self { mut shell, commands, .. } = self;
        drop(commands);
        shell.wait().unwrap();
    }
}

/// Whether this machine lets a test mount a small disk.
fn can_mount() -> bool {
    let script = "mount -t tmpfs -o size=1m none /tmp";
    let tried = Command::new("unshare").args(["-Urm", "sh", "-c", script]).output();
    let can = tried.is_ok_and(|output| output.status.success());
    if !can {
        eprintln!("LEFT OUT: this machine lets no test mount a file system: no real disk is full");
    }
    can
}

fn subject(n: usize) -> String {
    format!("person-{n}")
}

/// Enrols until the service refuses: who was enrolled, and the refusal's reason.
async fn fill(client: &Client) -> (Vec<usize>, Option<String>) {
    let notice = notice(client).await;
    let notice = &notice;
    let enrol = |n: usize| async move {
        let seed = u64::try_from(n).unwrap();
        let request = enrolment_under(notice, &subject(n), "north-gate", vec![embedded(seed)]);
        (n, client.enroll(request).await)
    };
    let (mut enrolled, mut refusal) = (Vec::new(), None);
    let mut answers = stream::iter(0..100_000).map(enrol).buffered(CALLERS);
    while let Some((n, answer)) = answers.next().await {
        match answer {
            Ok(_) => enrolled.push(n),
            Err(error) => {
                refusal = Some(error.reason.clone().unwrap_or_else(|| error.to_string()));
                break;
            }
        }
    }
    // Those that were under way.
    drop(answers);
    (enrolled, refusal)
}

async fn prepared(place: &Place, reserve_mib: u32) -> (SmallDisk, Client) {
    let mut disk = SmallDisk::new(place, reserve_mib);
    let client = disk.start().await;
    let toml = POLICY.replace("duplicates = \"refuse\"", "duplicates = \"flag\"");
    client.apply_policy(proto::ApplyPolicyRequest { toml, dry_run: false }).await.unwrap();
    (disk, client)
}

async fn is_low(client: &Client) -> bool {
    client.status(proto::StatusRequest {}).await.unwrap().store_low_on_space
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_full_disk_revoke_works_and_the_rest_is_refused_until_there_is_space() {
    if !can_mount() {
        return;
    }
    let place = Place::new();
    let (mut disk, client) = prepared(&place, RESERVE_MIB).await;
    let (enrolled, refusal) = fill(&client).await;
    assert_eq!(refusal.as_deref(), Some("LOW_ON_SPACE"));
    assert!(enrolled.len() > PEOPLE, "{} people fill the disk", enrolled.len());
    assert!(is_low(&client).await);
    let refused = client.verify(verify_face(GATE, 1)).await.unwrap_err();
    assert_eq!(refused.code.name(), "UNAVAILABLE", "{refused}");
    assert!(!refused.alternatives.is_empty() && refused.message.contains("full"), "{refused}");

    let (last, others) = enrolled.split_last().unwrap();
    for n in others {
        let answer = client.revoke(revoke_subject(&subject(*n))).await.unwrap();
        assert_eq!(answer.revoked_records.len(), 1, "{n}");
    }
    assert!(is_low(&client).await, "the reserve stays in use while the disk is full");
    disk.kill().await;
    let client = disk.start().await;
    let held = async |n: usize| {
        let request = proto::DescribeSubjectRequest {
            controller_id: CONTROLLER.to_owned(),
            subject_ref: subject(n),
        };
        client.describe_subject(request).await.unwrap().records.len()
    };
    for n in others {
        assert_eq!(held(*n).await, 0, "{n} is back");
    }
    assert_eq!(held(*last).await, 1, "an acknowledged enrolment is lost");

    disk.tell("free");
    let begun = Instant::now();
    while is_low(&client).await {
        assert!(begun.elapsed() < PATIENCE, "enrolment does not come back");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let notice = notice(&client).await;
    let newcomer = enrolment_under(&notice, "newcomer", "north-gate", vec![embedded(999_999)]);
    client.enroll(newcomer).await.unwrap();
    let verdict = client.verify(verify_face(GATE, 999_999)).await.unwrap();
    assert_eq!(matched(&verdict), Some("newcomer"));
    let verdict = client.verify(verify_face(GATE, u64::try_from(*last).unwrap())).await.unwrap();
    assert_eq!(matched(&verdict), Some(subject(*last).as_str()));
    println!(
        "{} enrolled until the disk was full, {} revoked one by one on it; enrolment was back {:?} \
         after there was space",
        enrolled.len(),
        others.len(),
        begun.elapsed()
    );
    disk.end();
}

/// The control: it is the reserve that does it.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_reserve_a_full_disk_stops_the_service() {
    if !can_mount() {
        return;
    }
    let place = Place::new();
    let (disk, client) = prepared(&place, 0).await;
    let (enrolled, refusal) = fill(&client).await;
    assert!(refusal.is_some_and(|reason| reason != "LOW_ON_SPACE"));
    let refused = client.revoke(revoke_subject(&subject(enrolled[0]))).await.unwrap_err();
    assert_eq!(refused.code.name(), "UNAVAILABLE", "{refused}");
    println!("without a reserve the service stopped after {} enrolments", enrolled.len());
    disk.end();
}
