//! The README's integration snippets: they are in it word for word, and they work.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::harness::{GATE, Service, encoded, photo};

#[path = "../../examples/gate.rs"]
#[expect(dead_code, reason = "its main is for people")]
mod gate;

const README: &str = include_str!("../../README.md");
const RUST: &str = include_str!("../../examples/gate.rs");
const PYTHON: &str = include_str!("../../docs/gate.py");
/// Far more than a gate would wait: this machine may be busy with other tests.
const PATIENCE: Duration = Duration::from_mins(1);

#[test]
fn the_readme_holds_the_examples_word_for_word() {
    assert!(README.contains(&format!("```rust\n{RUST}```")), "examples/gate.rs");
    assert!(README.contains(&format!("```python\n{PYTHON}```")), "docs/gate.py");
}

/// A service where `resident-1` is enrolled with one photo.
async fn with_a_resident() -> Service {
    let service = Service::start().await;
    let request = service.enrolment("resident-1", vec![encoded(photo("yaoming.jpg"))]).await;
    service.client.enroll(request).await.expect("the enrolment is accepted");
    service
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rust_gate_opens_for_the_enrolled_and_offers_other_ways_to_the_rest() {
    let service = with_a_resident().await;
    let ask = async |gate: &str, name: &str| {
        gate::decide(&service.client, gate, photo(name), PATIENCE).await
    };
    match ask(GATE, "yaoming.jpg").await {
        gate::Action::Open { subject, consent } => {
            assert_eq!((&*subject, &*consent), ("resident-1", "consent-resident-1-north-gate"));
        }
        gate::Action::Offer(ways) => panic!("closed for the enrolled person: {ways:?}"),
    }
    for (gate, name) in [(GATE, "gdp.jpg"), ("no-such-gate", "yaoming.jpg")] {
        match ask(gate, name).await {
            gate::Action::Offer(ways) => assert!(!ways.is_empty(), "{gate} {name}"),
            gate::Action::Open { subject, .. } => panic!("{gate} opened for {subject}"),
        }
    }
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_python_gate_does_the_same() {
    let python = tokio::task::spawn_blocking(python).await.unwrap();
    let service = with_a_resident().await;
    let address = service.running.address().to_string();
    let photos = crate::harness::MODELS.join("research/photos");
    let ask = |gate: &str, name: &str| {
        let mut command = Command::new(&python);
        command.arg(root().join("docs/gate.py")).args([address.as_str(), gate]);
        command.arg(photos.join(name)).arg(PATIENCE.as_secs().to_string());
        command.env("PYTHONPATH", stubs());
        tokio::task::spawn_blocking(move || run(&mut command))
    };
    let opened = ask(GATE, "yaoming.jpg").await.unwrap();
    assert_eq!(opened, "open for resident-1, covered by consent-resident-1-north-gate\n");
    let closed = "stay closed; other ways in: ";
    let stranger = ask(GATE, "gdp.jpg").await.unwrap();
    assert!(stranger.starts_with(closed) && stranger.contains("_CARD"), "{stranger}");
    let refused = ask("no-such-gate", "yaoming.jpg").await.unwrap();
    assert!(refused.starts_with(closed) && refused.len() > closed.len() + 1, "{refused}");
    service.stop().await;
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Where this build keeps what it made for itself.
fn kept() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("readme-python")
}

fn stubs() -> PathBuf {
    kept().join("stubs")
}

/// A Python with grpcio in a virtual environment, made once, and the stubs of the proto.
fn python() -> PathBuf {
    let python = kept().join("venv/bin/python");
    let pins = root().join("docs/gate.requirements.txt");
    let made = kept().join("pins");
    let wanted = std::fs::read(&pins).expect("the pins are there");
    if std::fs::read(&made).ok().as_ref() != Some(&wanted) {
        let mut venv = Command::new("python3");
        run(venv.args(["-m", "venv", "--clear"]).arg(kept().join("venv")));
        let mut install = Command::new(&python);
        install.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]);
        run(install.args(["--require-hashes", "--only-binary", ":all:", "-r"]).arg(&pins));
        std::fs::write(&made, &wanted).expect("target/ can be written to");
    }
    std::fs::create_dir_all(stubs()).expect("target/ can be written to");
    let mut protoc = Command::new(&python);
    protoc.current_dir(root()).args(["-m", "grpc_tools.protoc", "-I", "proto"]);
    protoc.arg(format!("--python_out={}", stubs().display()));
    protoc.arg(format!("--grpc_python_out={}", stubs().display()));
    run(protoc.args(["assent/v1/gate.proto", "assent/v1/types.proto"]));
    python
}

/// Standard output, or a panic with all that was said.
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|fault| {
        panic!("{command:?}: {fault}; this test needs python3 with venv and pip")
    });
    let said = String::from_utf8_lossy(&output.stderr);
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{command:?} failed; this test needs python3 with venv and pip, and a package registry \
         (or pip's own settings for a local one)\n{printed}{said}"
    );
    printed.into_owned()
}
