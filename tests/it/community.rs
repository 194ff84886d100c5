//! The whole life of a deployment, with the program's own commands: a community installs gates, one
//! owner refuses, another consents and withdraws, a child needs a guardian, the firm has to file, an
//! inspector asks, the firm leaves.
//!
//! docs/story.md is this test's own record, with what differs from run to run replaced:
//! `ASSENT_WRITE_DOCS=1 cargo test --test it community` writes it.

use std::fmt::Write as _;
use std::io::Cursor;
use std::path::Path;
use std::process::{Command, Stdio};

use assent::types::Timestamp;

use crate::harness::{MODELS, POLICY, Process, embedded, enrolment, free_address, photo};

const HEAD: &str = "# The story of one deployment

What the program prints, from the first day to the last, as `tests/it/community.rs` recorded it. Record \
ids, digests, keys, times and addresses differ from run to run and stand here as RECORD, DIGEST, TIME \
and so on; lines that are left out are marked [...]. The filing's threshold is lowered to four persons \
(`[filing] threshold`), so that the firm reaches it here.
";

/// A rectangle of a photo: x, y, width, height.
type Crop = (usize, usize, usize, usize);

/// A part of one of the models' photos, as PNG.
fn part(name: &str, (x, y, width, height): Crop) -> Vec<u8> {
    let mut decoder = zune_jpeg::JpegDecoder::new(Cursor::new(photo(name)));
    let pixels = decoder.decode().unwrap();
    let stride = decoder.dimensions().unwrap().0 * 3;
    let rows = pixels.chunks_exact(stride).skip(y).take(height);
    let pixels: Vec<u8> = rows.flat_map(|row| &row[x * 3..(x + width) * 3]).copied().collect();
    let mut file = Vec::new();
    let (width, height) = (u32::try_from(width).unwrap(), u32::try_from(height).unwrap());
    let mut encoder = png::Encoder::new(&mut file, width, height);
    encoder.set_color(png::ColorType::Rgb);
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(&pixels).unwrap();
    writer.finish().unwrap();
    file
}

/// The record of the story.
struct Story {
    folder: tempfile::TempDir,
    server: String,
    page: String,
}

impl Story {
    fn tell(&mut self, title: &str, text: &str) {
        let _ = write!(self.page, "\n## {title}\n\n{text}\n");
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        std::fs::write(self.folder.path().join(name), content).unwrap();
    }

    /// Runs a command in the story's folder, ends with `code`, and records what it printed, at most
    /// `lines` of it.
    #[track_caller]
    fn run(&mut self, line: &str, code: i32, lines: usize) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_assent"));
        for word in words(line) {
            command.arg(word);
        }
        command.current_dir(self.folder.path()).env("ASSENT_SERVER", &self.server);
        command.env("ASSENT_MODELS_DIR", &*MODELS).env("LC_ALL", "C.UTF-8").stdin(Stdio::null());
        let output = command.output().unwrap();
        let printed = String::from_utf8([&output.stdout[..], &output.stderr].concat()).unwrap();
        assert_eq!(output.status.code(), Some(code), "{line}\n{printed}");
        let mut shown: Vec<&str> = printed.lines().take(lines).collect();
        if lines > 0 && printed.lines().count() > lines {
            shown.push("[...]");
        }
        let _ = writeln!(self.page, "\n```console\n$ assent {line}");
        for line in shown {
            let _ = writeln!(self.page, "{line}");
        }
        self.page.push_str("```\n");
        printed
    }
}

/// The words of a line, quoted ones as one.
fn words(line: &str) -> Vec<String> {
    let parts = line.split('"').enumerate();
    let words = parts.flat_map(|(n, part)| match n % 2 {
        0 => part.split_whitespace().map(str::to_owned).collect(),
        _ => vec![part.to_owned()],
    });
    words.collect()
}

/// What differs from run to run, by name.
fn normalised(page: &str, folder: &Path) -> String {
    let page = page.replace(folder.to_str().unwrap(), "DIR");
    let page = page.replace(MODELS.to_str().unwrap(), "models");
    let mut text = String::new();
    let mut token = String::new();
    for c in page.chars().chain(Some('\n')) {
        if c.is_ascii_alphanumeric() || ":-+.".contains(c) {
            token.push(c);
            continue;
        }
        text.push_str(&named(&token));
        token.clear();
        text.push(c);
    }
    text.pop();
    text
}

fn named(token: &str) -> String {
    let bare = token.trim_end_matches(['.', ':']);
    let tail = &token[bare.len()..];
    let hex = |text: &str| text.bytes().all(|b| b.is_ascii_hexdigit());
    let number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let is_uuid = bare.len() == 36 && bare.split('-').map(str::len).eq([8, 4, 4, 4, 12]);
    let is_time = bare.len() > 18 && bare.contains('T') && bare.as_bytes()[4] == b'-';
    let is_day = bare.len() == 10 && bare.split('-').map(str::len).eq([4, 2, 2]);
    let is_address = bare.starts_with("127.0.0.1:");
    let is_decimal = bare.split('.').count() == 2 && bare.split('.').all(number);
    let name = if is_uuid {
        "RECORD"
    } else if is_time {
        "TIME"
    } else if is_day {
        "DAY"
    } else if is_address {
        "ADDRESS"
    } else if bare.len() >= 64 && hex(bare) {
        "DIGEST"
    } else if bare.len() == 16 && hex(bare) {
        "DIGITS"
    } else if is_decimal {
        "N"
    } else {
        return token.to_owned();
    };
    format!("{name}{tail}")
}

/// The years after those that the program ships with, as if nobody had a holiday in them.
fn coming_years() -> String {
    let now = Timestamp::now().to_string();
    let this_year: u32 = now[..4].parse().unwrap();
    let year = |year| {
        format!("[[years]]\nyear = {year}\nsource = \"none\"\nworkdays = []\nholidays = []\n")
    };
    (2027..=this_year.max(2026) + 1).map(year).collect()
}

fn consent(digest: &str, extra: &str) -> String {
    let now = Timestamp::now();
    format!(
        "consent_id = \"consent-{{subject}}\"\npurpose = \"resident-entry\"\nscope = \"north-gate\"\n\
         notice_id = \"face-entry\"\nnotice_version = \"2026-01\"\nnotice_sha256 = \"{digest}\"\n\
         form = \"electronic\"\nchannel = \"front-desk-tablet\"\ncaptured_at = \"{}\"\n\
         expires_at = \"{}\"\nevidence_sha256 = \"{}\"\nbundled = false\n\
         alternative_offered = \"card\"\n{extra}",
        now.plus_ms(-1000),
        now.plus_days(180),
        "07".repeat(32),
    )
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::too_many_lines, reason = "a story is told from beginning to end")]
async fn g1_c4_c5_o1_o3_o4_a_deployment_from_its_first_day_to_its_last() {
    let address = free_address();
    let server = format!("http://{address}");
    let mut story = Story { folder: tempfile::tempdir().unwrap(), server, page: HEAD.to_owned() };
    story.write(
        "assent.toml",
        format!(
            "profile = \"cn\"\nroot_key = \"root.key\"\n[listen]\ngrpc = \"{address}\"\n\
             plaintext = true\n[pipeline]\nprovider = \"cpu\"\n[filing]\nthreshold = 4\ncalendar = \"working-days.toml\"\n"
        ),
    );
    story.write("working-days.toml", coming_years());
    story.write("policy.toml", POLICY);
    story.write("owner.png", part("gdp.jpg", (60, 0, 190, 200)));
    story.write("wang.jpg", photo("yaoming.jpg"));
    story.write("child.png", part("gdp.jpg", (330, 80, 160, 200)));

    story.tell(
        "A community installs face gates · 小区安装人脸门禁",
        "The property firm makes the root key, checks its configuration and starts the service. Then \
         it applies its policy: who it is, what people are told, its impact assessment, its gates with \
         the ways in that need no face.",
    );
    story.run("keys init root.key", 0, 3);
    story.run("check-config --config assent.toml", 0, 8);
    let mut serve = Command::new(env!("CARGO_BIN_EXE_assent"));
    serve.args(["serve", "--config", "assent.toml", "--no-metrics"]);
    serve.current_dir(story.folder.path()).env("ASSENT_MODELS_DIR", &*MODELS);
    let mut process = Process::begin(&mut serve, address);
    let client = process.client().await;
    story.run("apply policy.toml", 0, 8);

    story.tell(
        "One owner says no · 一位业主拒绝",
        "He gets in by card from day one. The gate that sees him all the same finds nobody, says which \
         other ways there are, and keeps nothing of him.",
    );
    let answer = story.run("verify owner.png --gate north-gate-1", 3, 8);
    assert!(answer.starts_with("NO_MATCH") && answer.contains("card"), "{answer}");
    let held = story.run("describe owner-0001 --controller maple-property", 0, 3);
    assert!(held.contains("nothing is held"), "{held}");

    story.tell(
        "Another says yes · 另一位业主同意",
        "She reads the notice, consents to it separately, is enrolled at the front desk and passes. \
         Every match carries the consent that covers it.",
    );
    let notice = story.run("notice maple-property face-entry", 0, 6);
    let digest = notice.lines().find_map(|line| line.strip_prefix("sha256")).unwrap().trim();
    story.write("consent.toml", consent(digest, ""));
    let enrol = "enroll wang.jpg --subject resident-0017 --controller maple-property \
                 --consent consent.toml";
    story.run(enrol, 0, 4);
    let answer = story.run("verify wang.jpg --gate north-gate-1", 0, 8);
    assert!(answer.starts_with("MATCH") && answer.contains("consent-resident-0017"), "{answer}");
    story.run("verify wang.jpg --gate lobby-1", 3, 1);

    story.tell(
        "She withdraws · 她撤回同意",
        "One call, no reason. When it returns, the template is gone from memory and disk, and her card \
         works as before.",
    );
    let revoked = story.run("revoke --controller maple-property --subject resident-0017", 0, 4);
    assert!(revoked.contains("destroyed"), "{revoked}");
    let answer = story.run("verify wang.jpg --gate north-gate-1", 3, 4);
    assert!(answer.starts_with("NO_MATCH"), "{answer}");
    story.run("describe resident-0017 --controller maple-property", 0, 2);

    story.tell(
        "A child · 未成年人",
        "Under 14 a guardian has to consent, and the consent has to be renewed. Without that the \
         enrolment is refused and names what is missing.",
    );
    let class = "subject_class = \"under14\"\n";
    story.write("child.toml", consent(digest, class));
    let enrol = "enroll child.png --subject resident-0018 --controller maple-property \
                 --consent child.toml";
    let refused = story.run(enrol, 65, 4);
    assert!(refused.contains("guardian"), "{refused}");
    let guardian = format!(
        "{class}reconsent_by = \"{}\"\n[guardian]\nguardian_ref = \"resident-0016\"\n\
         relation = \"parent\"\nevidence_sha256 = \"{}\"\nminor_rules_version = \"2026-01\"\n",
        Timestamp::now().plus_days(100),
        "08".repeat(32)
    );
    let adult = consent(digest, "").replace("consent-{subject}", "consent-child-{subject}");
    story.write("child.toml", format!("{adult}{guardian}"));
    story.run(enrol, 0, 3);

    // The firm's other sites, where nobody looks at the command line.
    for seed in 100..103 {
        let subject = format!("resident-{seed}");
        let request = enrolment(&client, &subject, "lobby", vec![embedded(seed)]).await;
        client.enroll(request).await.unwrap();
    }
    story.tell(
        "The firm grows · 达到备案人数",
        "Its sites together reach the number from which on it has to file with the authority within 30 \
         working days. The service says until when, collects the material, and remembers what was \
         filed.",
    );
    let due = story.run("filing status", 0, 6);
    assert!(due.contains("DUE"), "{due}");
    story.run("filing pack --controller maple-property --out filing", 0, 12);
    story.run("filing mark-filed --controller maple-property --number \"FT-2026-0042\"", 0, 4);

    story.tell(
        "An inspector asks · 检查人员取证",
        "What did the service do about her, who is long gone from it? The evidence has her consent, \
         the notice word for word and every event, holds without the service, and tells nothing of \
         anybody else.",
    );
    let evidence = "evidence resident-0017 --controller maple-property --output evidence";
    let collected = story.run(evidence, 0, 14);
    assert!(collected.contains("held now   0") && collected.contains("erased"), "{collected}");
    story.run("evidence verify evidence", 0, 4);
    story.run("audit export --output trail.jsonl", 0, 0);
    story.run("audit verify trail.jsonl", 0, 6);
    story.run("ropa", 0, 24);

    drop(client);
    process.stop();
    story.tell(
        "The firm leaves · 撤场",
        "It stops the service and decommissions it: the audit trail is written out, the keys are \
         destroyed, every file is overwritten and removed, and a certificate says so. Nothing opens \
         any more, and the data directory is never served again.",
    );
    let told = story.run("decommission --config assent.toml", 0, 14);
    let digits = told.split("--confirm ").nth(1).unwrap().split(' ').next().unwrap().to_owned();
    let order = format!(
        "decommission --config assent.toml --confirm {digits} --by \"Li Lei, data protection officer\" \
         --trail last-trail.jsonl --output certificate.json"
    );
    let done = story.run(&order, 0, 6);
    assert!(done.contains("4 records destroyed"), "{done}");
    story.run("receipt verify certificate.json", 0, 8);
    let refused = story.run("serve --config assent.toml", 64, 4);
    assert!(refused.contains("was decommissioned"), "{refused}");

    let page = normalised(&story.page, story.folder.path());
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/story.md");
    if std::env::var_os("ASSENT_WRITE_DOCS").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    if written != page {
        let differs = written.lines().zip(page.lines()).find(|(one, other)| one != other);
        panic!(
            "docs/story.md is not what the program prints: {differs:?}; write it with \
             `ASSENT_WRITE_DOCS=1 cargo test --test it community`"
        );
    }
}
