//! The table of ranks (ARCHITECTURE.md) and the invariants of absence, read from the source.

use std::collections::BTreeSet;
use std::path::Path;

/// Each module, its rank, and the modules that it may name. Those are all of a lower rank.
const TABLE: [(&str, u8, &[&str]); 15] = [
    ("failpoint", 0, &[]),
    ("memory", 0, &[]),
    ("types", 0, &[]),
    ("consent", 1, &["types"]),
    ("crypto", 1, &["types"]),
    ("telemetry", 1, &["types"]),
    ("audit", 2, &["crypto", "types"]),
    ("store", 3, &["audit", "crypto", "consent", "types", "telemetry", "failpoint"]),
    ("index", 3, &["consent", "types", "telemetry"]),
    ("pipeline", 4, &["types", "telemetry"]),
    (
        "engine",
        5,
        &[
            "pipeline",
            "index",
            "store",
            "audit",
            "crypto",
            "consent",
            "types",
            "telemetry",
            "failpoint",
        ],
    ),
    // `pipeline` and `store` for what the error map reads, and the form in which frames come.
    ("service", 6, &["engine", "pipeline", "store", "consent", "types", "telemetry"]),
    (
        "config",
        7,
        &["service", "engine", "pipeline", "index", "store", "crypto", "consent", "types"],
    ),
    (
        "server",
        8,
        &[
            "config",
            "service",
            "engine",
            "pipeline",
            "index",
            "store",
            "audit",
            "crypto",
            "consent",
            "memory",
            "types",
            "telemetry",
            "failpoint",
        ],
    ),
    (
        "cli",
        9,
        &[
            "server", "config", "service", "pipeline", "store", "audit", "crypto", "consent",
            "types",
        ],
    ),
];

/// A word, and the modules that alone may use it.
const ABSENT_ELSEWHERE: [(&str, &[&str]); 15] = [
    ("tonic", &["service"]),
    ("tonic_health", &["service"]),
    ("tonic_reflection", &["service"]),
    ("tonic_types", &["service"]),
    ("prost", &["pipeline", "service"]),
    ("prost_types", &["service"]),
    ("prost_reflect", &["service"]),
    ("ort", &["pipeline"]),
    ("aes", &["crypto"]),
    ("aes_gcm", &["crypto"]),
    ("aes_gcm_siv", &["crypto"]),
    ("chacha20poly1305", &["crypto"]),
    ("argon2", &["crypto"]),
    ("cryptoki", &["crypto"]),
    ("redb", &["store"]),
];

/// Text that the modules named must not hold.
const FORBIDDEN: [(&str, &[&str]); 8] = [
    ("async fn", &["types", "consent", "audit", "crypto", "index", "telemetry"]),
    ("async move", &["types", "consent", "audit", "crypto", "index", "telemetry"]),
    (".await", &["types", "consent", "audit", "crypto", "index", "telemetry"]),
    ("std::fs", &["types", "consent", "audit"]),
    ("std::net", &["types", "consent"]),
    ("std::process", &["types", "consent"]),
    ("std::env", &["types", "consent"]),
    ("tokio", &["types", "consent", "crypto", "index", "telemetry"]),
];

/// Longest file, lines, tests apart.
const FILE_LINES: usize = 500;

/// What is wrong with one file of `src`, whose path is relative to it.
fn violations(path: &str, source: &str) -> Vec<String> {
    let mut found = Vec::new();
    if !source.starts_with("//!") {
        found.push("does not open with //!".to_owned());
    }
    let lines = product_lines(path, source);
    if lines >= FILE_LINES {
        found.push(format!("has {lines} lines, tests apart"));
    }
    let code = code_of(source);
    let module = module_of(path);
    for (word, owners) in ABSENT_ELSEWHERE {
        if !owners.contains(&module) && words(&code).contains(word) {
            found.push(format!("names {word}"));
        }
    }
    for (text, modules) in FORBIDDEN {
        if modules.contains(&module) && code.contains(text) {
            found.push(format!("holds {text:?}"));
        }
    }
    if let Some((_, _, may)) = TABLE.iter().find(|(name, _, _)| *name == module) {
        let named = named_modules(&code, depth_of(path));
        let strange = named.iter().filter(|name| **name != module && !may.contains(name));
        found.extend(strange.map(|name| format!("imports {name}")));
    } else if !["lib", "main"].contains(&module) {
        found.push("is in a module without a rank".to_owned());
    }
    found
}

/// The source without lines that are comments.
fn code_of(source: &str) -> String {
    let code = source.lines().filter(|line| !line.trim_start().starts_with("//"));
    code.collect::<Vec<_>>().join("\n")
}

/// Lines before the unit tests; none where the whole file is tests.
fn product_lines(path: &str, source: &str) -> usize {
    if path.ends_with("tests.rs") || path.contains("/tests/") {
        return 0;
    }
    let lines: Vec<&str> = source.lines().collect();
    let tests = lines.windows(2).position(|pair| {
        pair[0].trim() == "#[cfg(test)]" && pair[1].starts_with("mod ") && pair[1].ends_with('{')
    });
    tests.unwrap_or(lines.len())
}

fn module_of(path: &str) -> &str {
    path.split(['/', '.']).next().unwrap_or_default()
}

/// How many `super` lead from the file's module to the crate.
fn depth_of(path: &str) -> usize {
    let parts = path.matches('/').count();
    if path.ends_with("/mod.rs") { parts } else { parts + 1 }
}

fn words(code: &str) -> BTreeSet<&str> {
    code.split(|c: char| !c.is_alphanumeric() && c != '_').collect()
}

/// The ranked modules that the code names through `crate::` or enough `super::`.
fn named_modules(code: &str, depth: usize) -> BTreeSet<&'static str> {
    let supers = "super::".repeat(depth);
    let mut named = BTreeSet::new();
    for root in ["crate::", supers.as_str()] {
        for (at, _) in code.match_indices(root) {
            let before = code[..at].chars().next_back();
            if before.is_some_and(|c| c.is_alphanumeric() || c == '_') {
                continue;
            }
            for first in first_segments(&code[at + root.len()..]) {
                named.extend(TABLE.iter().map(|(name, _, _)| *name).filter(|name| *name == first));
            }
        }
    }
    named
}

/// The first segment of a path, or those of each path of a group in braces.
fn first_segments(path: &str) -> Vec<&str> {
    let segment = |text: &str| text.find(|c: char| !c.is_alphanumeric() && c != '_');
    let Some(group) = path.strip_prefix('{') else {
        return vec![&path[..segment(path).unwrap_or(path.len())]];
    };
    let mut depth = 0_usize;
    let mut starts = vec![0];
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => starts.push(at + 1),
            _ => {}
        }
    }
    let entry = |at: usize| {
        let text = group[at..].trim_start();
        &text[..segment(text).unwrap_or(text.len())]
    };
    starts.into_iter().map(entry).collect()
}

/// Every Rust file below `src`, with its path relative to it.
fn sources() -> Vec<(String, String)> {
    fn walk(dir: &Path, root: &Path, found: &mut Vec<(String, String)>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, root, found);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
                found.push((name, std::fs::read_to_string(&path).unwrap()));
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    walk(&root, &root, &mut found);
    found
}

#[test]
fn every_module_names_only_what_its_rank_allows() {
    let sources = sources();
    assert!(sources.len() > 50, "the source was not found");
    let mut wrong = Vec::new();
    for (path, source) in &sources {
        wrong.extend(violations(path, source).into_iter().map(|what| format!("{path} {what}")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_module_has_a_rank_and_may_name_lower_ranks_only() {
    let ranks = |name: &str| TABLE.iter().find(|(n, _, _)| *n == name).map(|(_, rank, _)| *rank);
    for (module, rank, may) in TABLE {
        for other in may {
            assert!(ranks(other).is_some_and(|lower| lower < rank), "{module} -> {other}");
        }
    }
    let found: BTreeSet<String> = sources()
        .iter()
        .map(|(path, _)| module_of(path).to_owned())
        .filter(|module| module != "lib" && module != "main")
        .collect();
    assert_eq!(found, TABLE.iter().map(|(name, _, _)| (*name).to_owned()).collect());
}

/// The checks see what they are there for.
#[test]
fn a_violation_of_each_kind_is_caught() {
    for (path, code, what) in [
        ("types/a.rs", "use crate::consent::Grant;", "imports consent"),
        ("index/a.rs", "use crate::{consent::Grant, store::{Store}, types};", "imports store"),
        ("pipeline/mod.rs", "fn f() -> super::engine::X {}", "imports engine"),
        ("pipeline/a.rs", "use super::super::consent::Grant;", "imports consent"),
        ("server/a.rs", "use crate::cli::Exit;", "imports cli"),
        ("consent/a.rs", "fn f() { crate::crypto::seal() }", "imports crypto"),
        ("engine/a.rs", "use tonic::Status;", "names tonic"),
        ("cli/a.rs", "use prost_types::Timestamp;", "names prost_types"),
        ("engine/a.rs", "let x = ort::init();", "names ort"),
        ("store/a.rs", "use aes_gcm_siv::Aes256GcmSiv;", "names aes_gcm_siv"),
        ("engine/a.rs", "use redb::Database;", "names redb"),
        ("index/a.rs", "async fn f() {}", "holds \"async fn\""),
        ("crypto/a.rs", "f().await", "holds \".await\""),
        ("consent/a.rs", "let t = std::fs::read(p);", "holds \"std::fs\""),
        ("types/a.rs", "use tokio::sync::Mutex;", "holds \"tokio\""),
        ("utils/a.rs", "", "is in a module without a rank"),
    ] {
        let source = format!("//! Text.\n{code}\n");
        assert_eq!(violations(path, &source), [what], "{path}: {code}");
    }
    let long = "//! Text.\n".to_owned() + &"\n".repeat(FILE_LINES);
    assert_eq!(violations("types/a.rs", &long), ["has 501 lines, tests apart"]);
    assert_eq!(violations("types/a.rs", "use std::fmt;"), ["does not open with //!"]);
}

/// And do not see what is not there.
#[test]
fn what_is_allowed_passes() {
    for (path, code) in [
        ("service/a.rs", "use tonic::Status; use crate::engine::Engine;"),
        ("types/a.rs", "/// See `crate::consent`, which is tonic-free.\nuse crate::types::Limits;"),
        ("index/a.rs", "use super::super::index::x; // sort, port, report"),
        ("store/a.rs", "#[cfg(test)]\nmod tests { use super::super::store; }"),
        ("engine/tests.rs", &"\n".repeat(FILE_LINES)),
    ] {
        let source = format!("//! Text.\n{code}\n");
        assert_eq!(violations(path, &source), [""; 0], "{path}: {code}");
    }
}
