//! Thresholds from labelled photos, and what gates do with them: `assent calibrate`, margins, and
//! galleries that outgrow their operating point.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use assent::consent::{Calibration, ErrorRate};
use assent::pipeline::{
    Company, FaceDemands, Frame, ModelPack, Pipeline, PipelineSettings, Provider, ProviderChoice,
    Ticket, Urgency,
};
use assent::service::proto;
use assent::types::Embedding;
use jpeg_encoder::{ColorType, Encoder};
use serde_json::Value;
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use zune_jpeg::JpegDecoder;

use crate::harness::{
    CONTRACT, GATE, MODELS, OTHER_GATE, POLICY, Service, consent, enrolment_under, face, faces,
    matched, photo, probe, revoke_subject, verify,
};

/// Exit status for usage.
const USAGE: i32 = 64;
/// Three people in the photos that are always there: photo, left, top, width, height.
const PEOPLE: [(&str, [usize; 4]); 3] = [
    ("yaoming.jpg", [0, 0, 0, 0]),
    ("gdp.jpg", [60, 0, 190, 200]),
    ("gdp.jpg", [330, 80, 160, 200]),
];
/// Photos of each: 3 * 34 * 34 pairs of two people are enough for FMR 0.01, for 0.001 they are not.
const PHOTOS: usize = 34;
/// Half the width of a bin, and what batches move.
const CLOSE: f64 = 2e-4;

/// A folder of labelled photos: three people, as a camera might have seen them again and again.
fn labelled() -> TempDir {
    let place = tempfile::tempdir().unwrap();
    for (person, (name, part)) in PEOPLE.into_iter().enumerate() {
        let folder = place.path().join(format!("person-{person}"));
        std::fs::create_dir(&folder).unwrap();
        let jpeg = photo(name);
        let mut decoder = JpegDecoder::new(std::io::Cursor::new(&jpeg));
        let pixels = decoder.decode().unwrap();
        let (width, height) = decoder.dimensions().unwrap();
        for turn in 0..PHOTOS {
            let copy = copy(&pixels, (width, height), part, turn);
            std::fs::write(folder.join(format!("{turn:02}.jpg")), copy).unwrap();
        }
    }
    std::fs::write(place.path().join("person-0/broken.jpg"), "no picture").unwrap();
    std::fs::write(place.path().join("notes.txt"), "no person").unwrap();
    place
}

/// The part of a picture, a little moved, lighter or darker, packed badly or well.
fn copy(pixels: &[u8], (width, height): (usize, usize), part: [usize; 4], turn: usize) -> Vec<u8> {
    let [left, top, w, h] = if part[2] == 0 { [0, 0, width, height] } else { part };
    let moved = turn % 7;
    let (left, top) = (left + moved, top + turn % 5);
    let (w, h) = (w.min(width - left), h.min(height - top));
    let light = 80 + u32::try_from(turn).unwrap();
    let sample = |v: &u8| u8::try_from((u32::from(*v) * light / 100).min(255)).unwrap();
    let rows = pixels.chunks_exact(width * 3).skip(top).take(h);
    let cut: Vec<u8> =
        rows.flat_map(|row| row[left * 3..(left + w) * 3].iter().map(sample)).collect();
    let mut packed = Vec::new();
    let (w, h) = (u16::try_from(w).unwrap(), u16::try_from(h).unwrap());
    let quality = 40 + u8::try_from(turn % 4).unwrap() * 15;
    Encoder::new(&mut packed, quality).encode(&cut, w, h, ColorType::Rgb).unwrap();
    packed
}

fn calibrate(photos: &Path, out: &Path, further: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_assent"));
    command.arg("calibrate").arg(photos).arg("--out").arg(out);
    command.arg("--models-dir").arg(&*MODELS).args(["--provider", "cpu"]).args(further);
    command.output().unwrap()
}

fn findings(photos: &Path, out: &Path, further: &[&str]) -> Value {
    let output = calibrate(photos, out, &[&["--json"], further].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Cosines of pairs of two people, and of pairs of one, ascending, as anybody would compute them.
async fn cosines(photos: &Path) -> (Vec<f64>, Vec<f64>) {
    let settings = PipelineSettings {
        models_dir: MODELS.clone(),
        provider: ProviderChoice::Named(Provider::Cpu),
        ..PipelineSettings::default()
    };
    let pipeline = tokio::task::spawn_blocking(move || Pipeline::start(&settings)).await.unwrap();
    let pipeline = pipeline.unwrap();
    let demands = FaceDemands { min_eye_distance_px: 20.0, company: Company::Aside, live: false };
    let mut embedded: Vec<(PathBuf, Embedding)> = Vec::new();
    for person in std::fs::read_dir(photos).unwrap().map(|entry| entry.unwrap().path()) {
        for file in std::fs::read_dir(&person).into_iter().flatten().map(|e| e.unwrap().path()) {
            let frame = Frame::Encoded(std::fs::read(file).unwrap().into());
            let ticket = Ticket { urgency: Urgency::Bulk, ..Ticket::default() };
            if let Ok(face) = pipeline.embed(frame, demands, ticket).await {
                embedded.push((person.clone(), face.embedding));
            }
        }
    }
    let (mut impostors, mut genuine) = (Vec::new(), Vec::new());
    for (place, (person, one)) in embedded.iter().enumerate() {
        for (other_person, other) in &embedded[place + 1..] {
            let of = if person == other_person { &mut genuine } else { &mut impostors };
            of.push(f64::from(one.cosine(other).get()));
        }
    }
    impostors.sort_by(f64::total_cmp);
    genuine.sort_by(f64::total_cmp);
    (impostors, genuine)
}

/// A pack like `research` with another calibration.
fn pack_with(calibration: &[u8]) -> TempDir {
    let place = tempfile::tempdir().unwrap();
    let research = MODELS.join("research");
    for file in ["scrfd_500m_bnkps.onnx", "w600k_mbf.onnx", "ranges.f32"] {
        std::fs::copy(research.join(file), place.path().join(file)).unwrap();
    }
    let old = std::fs::read(research.join("calibration.json")).unwrap();
    let manifest = std::fs::read_to_string(research.join("manifest.toml")).unwrap();
    let [old, new] = [&old[..], calibration].map(|bytes| hex::encode(Sha256::digest(bytes)));
    assert!(manifest.contains(&old));
    std::fs::write(place.path().join("manifest.toml"), manifest.replace(&old, &new)).unwrap();
    std::fs::write(place.path().join("calibration.json"), calibration).unwrap();
    place
}

#[tokio::test(flavor = "multi_thread")]
async fn o5_the_thresholds_of_labelled_photos_are_those_computed_independently() {
    let (photos, out) = (labelled(), tempfile::tempdir().unwrap());
    let out = out.path().join("made/if/missing");
    let found = findings(photos.path(), &out, &[]);
    let (impostors, genuine) = cosines(photos.path()).await;
    assert_eq!(found["impostor_pairs"], impostors.len());
    assert_eq!(found["genuine_pairs"], genuine.len());
    let left_out = found["left_out"].as_object().unwrap();
    let counted: u64 = left_out.values().map(|photos| photos.as_u64().unwrap()).sum();
    assert_eq!(counted + found["photos"].as_u64().unwrap(), 3 * PHOTOS as u64 + 1);
    assert_eq!(left_out["no picture that can be decoded"], 1);
    let rows = found["table"].as_array().unwrap();
    assert_eq!(rows.len(), 2, "0.1 and 0.01: {rows:?}");
    for row in rows {
        let (fmr, threshold) = (row["fmr"].as_f64().unwrap(), row["threshold"].as_f64().unwrap());
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "thousands of pairs"
        )]
        let allowed = (impostors.len() as f64 * fmr) as usize;
        // The lowest threshold at which no more than those match lies just above the next one.
        let next = impostors[impostors.len() - 1 - allowed];
        assert!((threshold - next).abs() < CLOSE, "{row}: {next}");
        let missed = genuine.partition_point(|cosine| *cosine < threshold);
        assert_eq!(row["false_non_matches"]["hits"], missed);
        assert!(row["false_matches"]["high"].as_f64().unwrap() > fmr * 0.5);
    }
    let unsupported: Vec<_> = found["unsupported"].as_array().unwrap().iter().collect();
    assert_eq!(unsupported[0][0].as_f64(), Some(0.001), "what these photos cannot tell is named");

    let written = std::fs::read(out.join("calibration.json")).unwrap();
    let pack = ModelPack::load(pack_with(&written).path()).unwrap();
    let table = Calibration::parse(std::str::from_utf8(pack.calibration()).unwrap()).unwrap();
    let threshold = table.threshold_for_fmr(ErrorRate::new(0.01).unwrap()).unwrap();
    let row = rows[1]["threshold"].as_f64().unwrap();
    assert!((f64::from(threshold.similarity.get()) - row).abs() < 1e-6);
    assert!(std::fs::read_to_string(out.join("det.svg")).unwrap().starts_with("<svg"));
    let report = std::fs::read_to_string(out.join("report.md")).unwrap();
    for words in ["Not measured: FMR 1e-3", "| 1e-2 |", "default", "left out: "] {
        assert!(report.contains(words), "{words}: {report}");
    }
}

#[test]
fn o5_groups_are_judged_and_too_few_data_are_no_verdict() {
    let (photos, out) = (labelled(), tempfile::tempdir().unwrap());
    let groups = out.path().join("groups.csv");
    std::fs::write(&groups, "person,group\nperson-0,a\nperson-1,b\nperson-2,b\n").unwrap();
    let further = ["--groups", groups.to_str().unwrap(), "--extrapolate"];
    let found = findings(photos.path(), out.path(), &further);
    let [a, b] = &found["groups"].as_array().unwrap()[..] else { panic!("two groups: {found}") };
    assert_eq!((&a["name"], &a["people"]), (&"a".into(), &1.into()));
    assert_eq!(a["false_matches"]["of"], 0, "alone in the group, nobody is like another");
    assert_eq!(a["fmr_verdict"], "not_enough_data");
    assert_eq!(b["people"], 2);
    assert!(b["false_matches"]["of"].as_u64().unwrap() > 900);
    let pairs = found["genuine_pairs"].as_u64().unwrap();
    let in_groups: u64 =
        [a, b].iter().map(|g| g["false_non_matches"]["of"].as_u64().unwrap()).sum();
    assert_eq!(in_groups, pairs, "everybody is in a group");
    let last = found["table"].as_array().unwrap().last().unwrap();
    assert_eq!(last["basis"], "extrapolated");
    assert!(out.path().join("det.svg").exists());
}

#[test]
fn o5_every_group_of_real_people_is_within_what_nist_asks() {
    let Some(folder) = faces() else { return };
    let out = tempfile::tempdir().unwrap();
    let groups = out.path().join("groups.csv");
    let mut lines = String::new();
    let people = std::fs::read_dir(&folder).unwrap().map(|e| e.unwrap().file_name());
    for (number, person) in people.enumerate() {
        // Not a group that means anything: the benchmark says nothing of its people.
        let group = if number % 2 == 0 { "even" } else { "odd" };
        writeln!(lines, "{},{group}", person.to_string_lossy()).unwrap();
    }
    std::fs::write(&groups, lines).unwrap();
    let found = findings(&folder, out.path(), &["--groups", groups.to_str().unwrap()]);
    let rows = found["table"].as_array().unwrap();
    let row = rows.iter().find(|row| row["fmr"].as_f64() == Some(1e-4)).expect("1e-4 is measured");
    println!("calibrate: {row}");
    println!("calibrate: groups {}", found["groups"]);
    // The pack's own table, from other photos of the same kind, says 0.2959.
    assert!((row["threshold"].as_f64().unwrap() - 0.2959).abs() < 0.03, "{row}");
    for group in found["groups"].as_array().unwrap() {
        assert_eq!(group["fnmr_verdict"], "yes", "{group}");
        assert_ne!(group["fmr_verdict"], "no", "{group}");
    }
}

#[test]
fn folders_that_cannot_be_calibrated_on_are_refused_in_words() {
    let place = tempfile::tempdir().unwrap();
    let out = place.path().join("out");
    let refused = |folder: &Path, further: &[&str], words: &str| {
        let output = calibrate(folder, &out, further);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(USAGE), "{said}");
        assert!(said.contains(words), "{words}: {said}");
        assert!(!out.join("calibration.json").exists());
    };
    refused(&place.path().join("nowhere"), &[], "nowhere: No such file");
    let folder = place.path().join("photos");
    std::fs::create_dir_all(folder.join("one")).unwrap();
    refused(&folder, &[], "no folders with photos");
    std::fs::write(folder.join("one/1.jpg"), photo("yaoming.jpg")).unwrap();
    refused(&folder, &[], "one folder only");
    std::fs::create_dir(folder.join("two")).unwrap();
    std::fs::write(folder.join("two/1.jpg"), photo("players.jpg")).unwrap();
    refused(&folder, &[], "nobody has two photos that can be used");
    std::fs::write(folder.join("one/2.jpg"), photo("yaoming.jpg")).unwrap();
    std::fs::write(folder.join("two/2.jpg"), "nothing").unwrap();
    refused(&folder, &[], "no picture that can be decoded 1");
    let groups = place.path().join("groups.csv");
    std::fs::write(&groups, "one,a\nstrange line\n").unwrap();
    refused(&folder, &["--groups", groups.to_str().unwrap()], "line 2: is not `person,group`");
    std::fs::write(&groups, "three,a\n").unwrap();
    refused(&folder, &["--groups", groups.to_str().unwrap()], "names nobody");
    refused(&folder, &["--detector", "333"], "333 is not one of the pack's");
}

/// The example policy with duplicates flagged and `fields` in its first gate.
fn policy(fields: &str) -> String {
    let flagged = POLICY.replace("duplicates = \"refuse\"", "duplicates = \"flag\"");
    let policy = flagged.replacen("fpir = 0.01\n", &format!("{fields}\n"), 1);
    assert_ne!(policy, POLICY);
    policy
}

/// The face `seed`, a little less like itself.
fn lookalike(seed: u64) -> proto::EmbeddingProbe {
    let other = face(seed + 1_000);
    let mixed = face(seed).values.iter().zip(&other.values).map(|(a, b)| a + 0.1 * b).collect();
    proto::EmbeddingProbe { values: mixed, model_contract: CONTRACT.to_owned() }
}

async fn enrol(service: &Service, subject: &str, number: usize, face: proto::EmbeddingProbe) {
    let notice = service.notice().await;
    let frame = probe(proto::probe::Form::Embedding(face));
    let mut request = enrolment_under(&notice, subject, "north-gate", vec![frame]);
    request.idempotency_key = format!("key-{subject}-{number}");
    request.consent = Some(consent(&notice, &format!("consent-{subject}-{number}"), "north-gate"));
    service.client.enroll(request).await.unwrap();
}

async fn ask(service: &Service, seed: u64) -> proto::VerifyResponse {
    let request = verify(GATE, proto::verify_request::Probe::Embedding(face(seed)));
    service.client.verify(request).await.unwrap()
}

/// Decisions in the audit trail with their reasons, in order.
async fn recorded(service: &Service) -> Vec<(String, Option<String>)> {
    let request = proto::ExportAuditRequest { after_seq: 0, digests_only: false };
    let mut pieces = service.client.export_audit(request).await.unwrap();
    let mut bytes = Vec::new();
    while let Some(piece) = pieces.next().await.unwrap() {
        bytes.extend_from_slice(&piece.lines);
    }
    let text = String::from_utf8(bytes).unwrap();
    let entries = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let entries = entries.map(|line| line["entry"].clone());
    let word = |value: &Value| value.as_str().map(str::to_owned);
    entries
        .filter(|entry| entry["event"] == "decision")
        .map(|entry| (word(&entry["decision"]).unwrap(), word(&entry["reason"])))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_margin_two_subjects_who_look_alike_are_not_told_apart_by_a_guess() {
    let service = Service::start().await;
    service.apply(&policy("fpir = 0.01")).await;
    enrol(&service, "resident-1", 0, face(1)).await;
    enrol(&service, "resident-2", 0, lookalike(1)).await;
    enrol(&service, "resident-3", 0, face(3)).await;
    let answer = ask(&service, 1).await;
    assert_eq!(matched(&answer), Some("resident-1"), "without a margin the best one is taken");
    assert_eq!(answer.no_match_reason(), proto::NoMatchReason::Unspecified);

    service.apply(&policy("fpir = 0.01\nmargin = 0.05")).await;
    let answer = ask(&service, 1).await;
    assert_eq!(answer.decision(), proto::Decision::NoMatch);
    assert_eq!(answer.no_match_reason(), proto::NoMatchReason::Ambiguous);
    assert!(answer.r#match.is_none() && !answer.alternatives.is_empty());
    let alone = ask(&service, 3).await;
    assert_eq!(matched(&alone), Some("resident-3"), "nobody looks like this one");
    let stranger = ask(&service, 9).await;
    assert_eq!(stranger.decision(), proto::Decision::NoMatch);
    assert_eq!(stranger.no_match_reason(), proto::NoMatchReason::Unspecified);
    let entry =
        |decision: &str, reason: Option<&str>| (decision.to_owned(), reason.map(str::to_owned));
    let expected = [
        entry("match", None),
        entry("no_match", Some("ambiguous")),
        entry("match", None),
        entry("no_match", None),
    ];
    assert_eq!(recorded(&service).await, expected);

    service.client.revoke(revoke_subject("resident-2")).await.unwrap();
    let answer = ask(&service, 1).await;
    assert_eq!(matched(&answer), Some("resident-1"), "whoever withdrew is in nobody's way");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rival_is_seen_behind_any_number_of_the_best_subjects_templates() {
    let service = Service::start().await;
    service.apply(&policy("fpir = 0.01\nmargin = 0.05")).await;
    // More than a search asks for at first.
    for number in 0..20 {
        enrol(&service, "resident-1", number, face(1)).await;
    }
    let answer = ask(&service, 1).await;
    assert_eq!(matched(&answer), Some("resident-1"), "one subject is no rival of itself");
    enrol(&service, "resident-2", 0, lookalike(1)).await;
    let answer = ask(&service, 1).await;
    assert_eq!(answer.no_match_reason(), proto::NoMatchReason::Ambiguous);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gallery_that_outgrows_its_operating_point_is_served_with_a_warning_or_refused() {
    /// Three templates need FMR 1e-9, where the calibration of the pack ends.
    const FPIR: &str = "fpir = 0.0000000031";
    let service = Service::start().await;
    let applied = service.apply(&policy(FPIR)).await;
    assert!(applied.warnings.is_empty(), "{:?}", applied.warnings);
    for number in 1..=4 {
        enrol(&service, &format!("resident-{number}"), 0, face(number)).await;
    }
    let status = service.client.status(proto::StatusRequest {}).await.unwrap();
    let gate = status.gate_plans.iter().find(|gate| gate.gate_id == GATE).unwrap();
    assert!(gate.outgrown && gate.when_outgrown == "warn", "{gate:?}");
    assert_eq!((gate.measured_templates, gate.calibrated_templates), (0, 3));
    let other = status.gate_plans.iter().find(|gate| gate.gate_id == OTHER_GATE).unwrap();
    assert!(!other.outgrown, "{other:?}");
    assert_eq!((other.measured_templates, other.calibrated_templates), (1_005, 10_050_335));
    assert_eq!(matched(&ask(&service, 1).await), Some("resident-1"), "served all the same");

    let refusing = policy(&format!("{FPIR}\noutgrown = \"refuse\""));
    let applied = service.apply(&refusing).await;
    let [warning] = &applied.warnings[..] else { panic!("one warning: {applied:?}") };
    let [zh] = &applied.warnings_zh[..] else { panic!("one warning: {applied:?}") };
    assert!(zh.contains("请拆分范围"), "{zh}");
    for words in [GATE, "4 templates", "up to 3", "refused"] {
        assert!(warning.contains(words), "{words}: {warning}");
    }
    let request = verify(GATE, proto::verify_request::Probe::Embedding(face(1)));
    let refusal = service.client.verify(request).await.unwrap_err();
    assert_eq!(refusal.code.name(), "FAILED_PRECONDITION", "{refusal}");
    assert_eq!(refusal.reason.as_deref(), Some("OPERATING_POINT_OUTGROWN"));
    assert!(!refusal.alternatives.is_empty());
    let withdrawn = service.client.revoke(revoke_subject("resident-4")).await.unwrap();
    assert_eq!(withdrawn.revoked_records.len(), 1);
    assert_eq!(matched(&ask(&service, 1).await), Some("resident-1"), "it fits again");
    service.stop().await;
}
