//! The report in Markdown, and the table as a pack holds it.

use serde::Serialize;
use sha2::{Digest, Sha256};

use super::super::words::in_chinese;
use super::findings::{Basis, Findings, Group, Measured, Row, Suspect, rounded};
use crate::service::for_people;

/// Places of an FNMR in a pack's table.
const FNMR_PLACES: i32 = 5;
/// A pack's `calibration.json`.
#[derive(Serialize)]
struct Calibration<'a> {
    model: &'a str,
    detector: &'a str,
    data: String,
    impostor_pairs: u64,
    genuine_pairs: u64,
    genuine_mean: f64,
    genuine_std: f64,
    impostor_mean: f64,
    impostor_std: f64,
    table: Vec<CalibrationRow>,
}

#[derive(Serialize)]
struct CalibrationRow {
    fmr: f64,
    threshold: f64,
    fnmr: f64,
    basis: Basis,
}

/// The table as a pack holds it.
///
/// # Errors
/// A number that JSON cannot hold; there is none.
pub(super) fn calibration(findings: &Findings) -> Result<String, serde_json::Error> {
    let row = |row: &Row| CalibrationRow {
        fmr: row.fmr,
        threshold: row.threshold,
        fnmr: rounded(row.false_non_matches.rate, FNMR_PLACES),
        basis: row.basis,
    };
    let Findings { photos, people, folder, .. } = findings;
    let file = Calibration {
        model: &findings.model,
        detector: &findings.detector,
        data: format!("{folder}: {photos} photos of {people} people, all pairs"),
        impostor_pairs: findings.impostor_pairs,
        genuine_pairs: findings.genuine_pairs,
        genuine_mean: findings.genuine_mean,
        genuine_std: findings.genuine_std,
        impostor_mean: findings.impostor_mean,
        impostor_std: findings.impostor_std,
        table: findings.table.iter().map(row).collect(),
    };
    Ok(serde_json::to_string_pretty(&file)? + "\n")
}

/// How to put the table into a pack.
pub(super) fn how_to_use(calibration: &str) -> String {
    let digest = hex::encode(Sha256::digest(calibration));
    let what = words!(
        "To use the table, copy calibration.json into the pack's folder and set in manifest.toml:"
    );
    format!("{what}\n\n[calibration]\nfile = \"calibration.json\"\nsha256 = \"{digest}\"\n")
}

/// The findings in words and tables, in the user's language.
pub(super) fn markdown(findings: &Findings) -> String {
    let mut text = String::new();
    facts(&mut text, findings);
    rates(&mut text, findings);
    groups(&mut text, findings);
    if !findings.warnings.is_empty() {
        put(&mut text, format!("\n{}\n", words!("Warnings:")));
        findings.warnings.iter().for_each(|warning| put(&mut text, format!("- {warning}")));
    }
    suspects(&mut text, &words!("Two people who may be one:"), &findings.alike);
    suspects(&mut text, &words!("Photos of one person that may show two:"), &findings.unlike);
    put(&mut text, "");
    put(
        &mut text,
        words!(
            "Bounds hold with a confidence of 95 % (Clopper and Pearson) where pairs are independent. Pairs that share a photo are not, so the truth may lie further away."
        ),
    );
    put(
        &mut text,
        words!(
            "The rates are those of these photos: people, cameras and light of your gates may differ."
        ),
    );
    text
}

fn put(text: &mut String, line: impl AsRef<str>) {
    text.push_str(line.as_ref());
    text.push('\n');
}

fn facts(text: &mut String, findings: &Findings) {
    let Findings { model, detector, folder, people, mated, photos, .. } = findings;
    put(text, words!("# Calibration of {}", model));
    put(text, "");
    put(text, words!("- photos: {}; detector {}", folder, detector));
    put(
        text,
        words!(
            "- used: {} photos of {} people, {} of them with two or more",
            photos,
            people,
            mated
        ),
    );
    let left_out: u64 = findings.left_out.values().sum();
    let reasons = findings.left_out.iter();
    let reasons = reasons.map(|(reason, photos)| format!("{} {photos}", reason_said(reason)));
    let reasons: Vec<_> = reasons.collect();
    let reasons =
        if reasons.is_empty() { String::new() } else { format!(": {}", reasons.join(", ")) };
    put(text, words!("- left out: {} photos{}", left_out, reasons));
    put(
        text,
        words!(
            "- pairs of one person: {}, mean cosine {}, deviation {}",
            findings.genuine_pairs,
            findings.genuine_mean,
            findings.genuine_std
        ),
    );
    put(
        text,
        words!(
            "- pairs of two people: {}, mean cosine {}, deviation {}",
            findings.impostor_pairs,
            findings.impostor_mean,
            findings.impostor_std
        ),
    );
    if let Some(rate) = findings.equal_error_rate {
        put(text, words!("- equal error rate: {} %", format_args!("{:.3}", 100.0 * rate)));
    }
}

fn rates(text: &mut String, findings: &Findings) {
    put(text, "");
    put(
        text,
        words!("| FMR | threshold | false matches | FMR, 95 % | FNMR | FNMR, 95 % | basis |"),
    );
    put(text, "|---|---|---|---|---|---|---|");
    for row in &findings.table {
        let (matches, misses) = (&row.false_matches, &row.false_non_matches);
        let basis = match row.basis {
            Basis::Measured => words!("measured"),
            Basis::Extrapolated => words!("extrapolated"),
        };
        let (fmr, threshold, hits) = (row.fmr, row.threshold, matches.share.hits);
        let line = format!(
            "| {fmr:e} | {threshold:.4} | {hits} | {} | {} | {} | {basis} |",
            small(matches),
            percent(misses.rate),
            percents(misses)
        );
        put(text, line);
    }
    let too_few: Vec<_> =
        findings.unsupported.iter().map(|(fmr, pairs)| format!("{fmr:e} ({pairs})")).collect();
    if !too_few.is_empty() {
        let line = words!(
            "Not measured: FMR {}. Each needs as many pairs of two people as stand behind it, for \
             30 false matches; there are {}.",
            too_few.join(", "),
            findings.impostor_pairs
        );
        put(text, "");
        put(text, line);
    }
}

fn groups(text: &mut String, findings: &Findings) {
    if findings.groups.is_empty() {
        return;
    }
    let (fmr, threshold) = findings.judged_at;
    let line = words!(
        "Groups at the threshold {}, which is FMR {} of the whole; strangers are people of the \
         same group (NIST SP 800-63B-4: FMR at most 1:10,000 and FNMR under 5 % in each group):",
        format_args!("{threshold:.4}"),
        format_args!("{fmr:e}")
    );
    put(text, format!("\n{line}\n"));
    let columns = words!(
        "| group | people | photos | false matches | FMR | FMR, 95 % | at most 1:10,000 | FNMR | \
         FNMR, 95 % | under 5 % | own threshold for 1:10,000 |"
    );
    put(text, columns);
    put(text, "|---|---|---|---|---|---|---|---|---|---|---|");
    findings.groups.iter().for_each(|group| put(text, group_line(group)));
}

fn group_line(of: &Group) -> String {
    let (matches, misses) = (&of.false_matches, &of.false_non_matches);
    let own = of.own_threshold.map_or_else(|| words!("not enough data"), |t| format!("{t:.4}"));
    format!(
        "| {} | {} | {} | {} / {} | {:.1e} | {} | {} | {} | {} | {} | {own} |",
        of.name,
        of.people,
        of.photos,
        matches.share.hits,
        matches.share.of,
        matches.rate,
        small(matches),
        of.fmr_verdict.words(),
        percent(misses.rate),
        percents(misses),
        of.fnmr_verdict.words(),
    )
}

fn suspects(text: &mut String, title: &str, suspects: &[Suspect]) {
    if suspects.is_empty() {
        return;
    }
    put(text, format!("\n{title}\n"));
    for Suspect { photos: [one, other], cosine } in suspects {
        put(text, format!("- {one} and {other}: {cosine:.3}"));
    }
}

fn small(measured: &Measured) -> String {
    words!("{} to {}", format_args!("{:.1e}", measured.low), format_args!("{:.1e}", measured.high))
}

fn percent(rate: f64) -> String {
    format!("{:.2} %", 100.0 * rate)
}

fn percents(measured: &Measured) -> String {
    let share = |rate: f64| format!("{:.2}", 100.0 * rate);
    words!("{} to {} %", share(measured.low), share(measured.high))
}

/// Why a photo was left out, in the user's language.
fn reason_said(reason: &str) -> String {
    let name = match reason {
        "turned away" => "QUALITY_REASON_TURNED".to_owned(),
        other => format!("QUALITY_REASON_{}", other.to_uppercase().replace(' ', "_")),
    };
    let zh = for_people(&name).filter(|_| in_chinese()).map(|(_, zh)| zh.trim_end_matches('。'));
    zh.unwrap_or(reason).to_owned()
}
