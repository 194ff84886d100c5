//! The documentation's examples are accepted, and what it names exists.

use std::path::Path;
use std::process::Command;

use assent::cli::Cli;
use assent::config::{self, Overrides, RawConfig, Security};
use assent::consent::Profile;
use assent::types::{Limits, Timestamp};
use clap::CommandFactory;

use crate::harness::{CONTROLLER, Service};

const README: &str = include_str!("../../README.md");
const CONFIG: &str = include_str!("../../docs/example-config.toml");
const CONSENT: &str = include_str!("../../docs/example-consent.toml");
const CONFIG_PAGE: &str = include_str!("../../docs/configuration.md");
const CONSENT_PAGE: &str = include_str!("../../docs/consent-file.md");
const POLICY_PAGE: &str = include_str!("../../docs/policy.md");
/// The pages that show commands.
const PAGES: [(&str, &str); 10] = [
    ("README.md", README),
    ("docs/audit.md", include_str!("../../docs/audit.md")),
    ("docs/calibration.md", include_str!("../../docs/calibration.md")),
    ("docs/configuration.md", CONFIG_PAGE),
    ("docs/consent-file.md", CONSENT_PAGE),
    ("docs/evidence.md", include_str!("../../docs/evidence.md")),
    ("docs/filing.md", include_str!("../../docs/filing.md")),
    ("docs/index.md", include_str!("../../docs/index.md")),
    ("docs/liveness.md", include_str!("../../docs/liveness.md")),
    ("docs/policy.md", POLICY_PAGE),
];

#[test]
fn the_example_configuration_is_valid() {
    toml::from_str::<RawConfig>(CONFIG).unwrap();
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("assent.toml");
    std::fs::write(&file, CONFIG).unwrap();
    std::fs::create_dir(place.path().join("tls")).unwrap();
    for name in ["server.pem", "server.key", "callers-ca.pem"] {
        std::fs::write(place.path().join("tls").join(name), "read, not parsed, at this stage")
            .unwrap();
    }
    let settings = config::load(Some(&file), Overrides::default()).unwrap();
    assert!(matches!(settings.security, Security::Tls(_)));
}

#[test]
fn every_limit_and_pipeline_setting_is_explained_with_its_default() {
    let limits = toml::Value::try_from(Limits::default()).unwrap();
    let pipeline = toml::Value::try_from(assent::pipeline::PipelineSettings::default()).unwrap();
    let quality = pipeline.get("quality").unwrap().clone();
    for section in [limits, pipeline, quality] {
        for (name, value) in section.as_table().unwrap() {
            let row = CONFIG_PAGE.lines().find(|line| line.starts_with(&format!("| `{name}` |")));
            // Both follow from `limits`.
            if matches!(name.as_str(), "frame_pixels" | "queue" | "quality") {
                continue;
            }
            let row = row.unwrap_or_else(|| panic!("docs/configuration.md has no row for {name}"));
            let plain: String = row.chars().filter(|c| *c != ',').collect();
            let shown =
                value.as_float().map_or_else(|| value.to_string().replace('"', ""), shortest);
            let cells: Vec<_> = plain.split('|').map(|c| c.trim().trim_matches('`')).collect();
            assert!(cells.contains(&shown.as_str()), "default of {name} is {shown}: {row}");
        }
    }
}

/// As people write it: 15 and 0.3, not 15.0 and 0.30000001192092896.
fn shortest(number: f64) -> String {
    format!("{number:.4}").trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Commands in code blocks: lines that begin with `$ assent`, with `\` continued.
fn commands(page: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    let joined = page.replace("\\\n", " ");
    let mut in_code = false;
    for line in joined.lines() {
        if line.starts_with("```") {
            in_code = !in_code;
        } else if in_code {
            let Some(line) = line.trim_start().strip_prefix("$ ") else { continue };
            let line = line.replacen("cargo run --release -- ", "assent ", 1);
            if let Some(words) = line.strip_prefix("assent ") {
                found.push(words.split_whitespace().map(str::to_owned).collect());
            }
        }
    }
    found
}

#[test]
fn the_table_of_profiles_says_what_the_profiles_say() {
    let rows: Vec<Vec<&str>> = POLICY_PAGE
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    for (column, name) in Profile::names().enumerate() {
        for rule in Profile::named(name).unwrap().explain() {
            let row = rows.iter().rfind(|row| row[0] == format!("`{}`", rule.rule));
            let row = row.unwrap_or_else(|| panic!("docs/policy.md has no row {}", rule.rule));
            let shown = match rule.value.as_str() {
                "true" => "yes".to_owned(),
                "false" => "no".to_owned(),
                "[]" => "any".to_owned(),
                value => value.replace(['"', '[', ']'], ""),
            };
            assert_eq!(
                (row[1], row[2 + column]),
                (rule.en, shown.as_str()),
                "{name}: {}",
                rule.rule
            );
        }
    }
}

#[test]
fn every_command_and_flag_of_the_documentation_exists() {
    let mut seen = 0;
    for (name, page) in PAGES {
        for words in commands(page) {
            check(name, &words);
            seen += 1;
        }
    }
    assert!(seen >= 12, "the README shows {seen} commands only");
}

fn check(page: &str, words: &[String]) {
    let mut command = Cli::command();
    command.build();
    let mut here = &command;
    for word in words {
        if matches!(word.as_str(), "|" | "&" | "#" | ">") {
            break;
        }
        if let Some(flag) = word.strip_prefix("--") {
            let flag = flag.split('=').next().unwrap_or(flag);
            let known = here.get_arguments().any(|a| a.get_long() == Some(flag));
            assert!(
                known || matches!(flag, "help" | "version"),
                "{page}: `assent {}`: no --{flag}",
                words.join(" ")
            );
        } else if here.has_subcommands() {
            match here.find_subcommand(word) {
                Some(command) => here = command,
                None if here.get_positionals().next().is_some() => break,
                None => panic!("{page}: `assent {}`: no command {word}", words.join(" ")),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_consent_file_is_accepted() {
    let service = Service::start().await;
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("consent.toml");
    std::fs::write(&file, dated_today(CONSENT)).unwrap();
    let photo = crate::harness::MODELS.join("research/photos/yaoming.jpg");
    let url = format!("http://{}", service.running.address());
    let mut command = Command::new(env!("CARGO_BIN_EXE_assent"));
    command.arg("enroll").arg(photo).args(["--subject", "resident-0042"]);
    command.args(["--controller", CONTROLLER, "--server", &url]).arg("--consent").arg(&file);
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    service.stop().await;
}

/// The example with dates that are right today, whenever that is.
fn dated_today(example: &str) -> String {
    let now = Timestamp::now();
    let line = |line: &str| match line.split(" = ").next() {
        Some("captured_at") => format!("captured_at = \"{}\"", now.plus_ms(-1000)),
        Some("expires_at") => format!("expires_at = \"{}\"", now.plus_days(30)),
        _ => line.to_owned(),
    };
    example.lines().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn every_promise_of_the_readme_names_tests_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let is_promise = |line: &&str| {
        let number = line.strip_prefix("| P").and_then(|rest| rest.split(' ').next());
        number.is_some_and(|number| number.parse::<u8>().is_ok())
    };
    let promises: Vec<_> = README.lines().filter(is_promise).collect();
    assert_eq!(promises.len(), 9);
    for promise in promises {
        let shown_by = promise.trim_end_matches(" |").rsplit(" | ").next().unwrap_or_default();
        let named: Vec<_> = shown_by.split('`').filter_map(|word| word.split_once("::")).collect();
        assert!(!named.is_empty() || promise.contains("**not yet**"), "{promise}");
        for (file, test) in named {
            let path = if file.starts_with("src/") {
                root.join(file)
            } else {
                root.join("tests/it").join(file).with_extension("rs")
            };
            let source = std::fs::read_to_string(&path).unwrap_or_default();
            assert!(source.contains(&format!("fn {test}(")), "{file}::{test} does not exist");
        }
    }
}

#[test]
fn the_pages_that_the_readme_links_to_are_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let linked = README.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next());
    for page in linked.filter(|page| !page.is_empty() && !page.contains("://")) {
        assert!(root.join(page).exists(), "README.md links to {page}");
    }
}
