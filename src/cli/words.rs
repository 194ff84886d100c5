//! What the commands print, in English and Chinese: one table.
//!
//! Chinese where `LC_ALL`, `LC_MESSAGES` or `LANG` says so. Names, codes and `--json` are the same
//! in every language; so are complaints of the command line itself and help texts, in English.
//!
//! # Invariants
//! - A line that has no Chinese words, or another number of gaps in them, does not build.

mod lines;

use std::fmt::{Display, Write as _};

use lines::LINES;
use serde::{Serialize, Serializer};

/// Has `$fill` fill a line of the table, found while the program is built.
macro_rules! line {
    ($fill:path, $en:literal $(, $value:expr)* $(,)?) => {{
        const GAPS: &[&str] = &[$(stringify!($value)),*];
        const LINE: &$crate::cli::words::Line = $crate::cli::words::find($en, GAPS.len());
        $fill(LINE, &[$(&$value as &dyn std::fmt::Display),*])
    }};
}

/// Words in the user's language; every `{}` is filled, in order.
macro_rules! words {
    ($($line:tt)*) => { line!($crate::cli::words::fill, $($line)*) };
}

/// Prints a line of results in the user's language; every `{}` is filled, in order.
macro_rules! tell {
    ($($words:tt)*) => { say!("{}", words!($($words)*)) };
}

/// Words in both languages, for what is kept as data and shown to people: data is in English.
macro_rules! said {
    ($($line:tt)*) => { line!($crate::cli::words::Said::of, $($line)*) };
}

/// Words in both languages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Said([String; 2]);

impl Said {
    pub(super) fn of(line: &Line, values: &[&dyn Display]) -> Self {
        Self([fill_in(false, line, values), fill_in(true, line, values)])
    }
}

/// In the user's language.
impl Display for Said {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0[usize::from(in_chinese())])
    }
}

/// In English.
impl Serialize for Said {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.0[0])
    }
}

/// The same in English and in Chinese.
pub(super) type Line = (&'static str, &'static str);

/// The line that begins in English as `en`, checked while the program is built.
pub(super) const fn find(en: &str, gaps: usize) -> &'static Line {
    let mut at = 0;
    while at < LINES.len() {
        let line = &LINES[at];
        if same(line.0.as_bytes(), en.as_bytes()) {
            assert!(gaps_in(line.0.as_bytes()) == gaps, "the values do not fit the gaps");
            assert!(gaps_in(line.1.as_bytes()) == gaps, "the Chinese words have other gaps");
            return line;
        }
        at += 1;
    }
    panic!("no Chinese words in src/cli/words.rs")
}

const fn same(one: &[u8], other: &[u8]) -> bool {
    if one.len() != other.len() {
        return false;
    }
    let mut at = 0;
    while at < one.len() {
        if one[at] != other[at] {
            return false;
        }
        at += 1;
    }
    true
}

const fn gaps_in(text: &[u8]) -> usize {
    let (mut gaps, mut at) = (0, 1);
    while at < text.len() {
        if text[at - 1] == b'{' && text[at] == b'}' {
            gaps += 1;
        }
        at += 1;
    }
    gaps
}

/// The line with its gaps filled.
pub(super) fn fill(line: &Line, values: &[&dyn Display]) -> String {
    fill_in(in_chinese(), line, values)
}

fn fill_in(chinese: bool, (en, zh): &Line, values: &[&dyn Display]) -> String {
    let mut parts = if chinese { zh } else { en }.split("{}");
    let mut text = parts.next().unwrap_or_default().to_owned();
    for (value, part) in values.iter().zip(parts) {
        // Writing to a string cannot fail.
        let _ = write!(text, "{value}{part}");
    }
    text
}

/// Whether the user's language is Chinese.
pub(super) fn in_chinese() -> bool {
    let language = ["LC_ALL", "LC_MESSAGES", "LANG"].into_iter();
    let language = language.filter_map(std::env::var_os).find(|value| !value.is_empty());
    language.is_some_and(|language| language.to_string_lossy().starts_with("zh"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_filled_in_order_in_both_languages() {
        let line = ("{} of {}: {}", "{} / {}：{}");
        let values: [&dyn Display; 3] = [&1, &"two", &'3'];
        assert_eq!(fill_in(false, &line, &values), "1 of two: 3");
        assert_eq!(fill_in(true, &line, &values), "1 / two：3");
        assert_eq!(fill_in(true, &("none", "无"), &[]), "无");
        // What a value says is never a gap.
        assert_eq!(fill_in(false, &("{} {}", "{} {}"), &[&"{}", &7]), "{} 7");
    }

    #[test]
    fn every_line_is_english_and_chinese_and_there_once() {
        for (at, (en, zh)) in LINES.iter().enumerate() {
            assert!(en.is_ascii(), "{en}");
            let chinese = |c: char| ('\u{4e00}'..='\u{9fff}').contains(&c);
            assert!(zh.chars().any(chinese), "{en}: {zh}");
            assert_eq!(gaps_in(en.as_bytes()), gaps_in(zh.as_bytes()), "{en}");
            assert!(LINES[..at].iter().all(|(other, _)| other != en), "{en} is there twice");
            // Commands, options and fields are the same in every language.
            for code in en.split('`').skip(1).step_by(2) {
                assert!(zh.contains(&format!("`{code}`")), "{en}: {code}");
            }
        }
    }

    /// A line that nobody prints any more fails here.
    #[test]
    fn every_line_is_printed() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cli");
        let mut sources = String::new();
        collect(&folder, &mut sources);
        for (en, _) in LINES {
            let literal = format!("{en:?}");
            assert!(sources.contains(&literal), "{en}");
        }
    }

    fn collect(folder: &std::path::Path, sources: &mut String) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                collect(&path, sources);
            } else if path.file_name().is_some_and(|name| name != "lines.rs") {
                let text = std::fs::read_to_string(path).unwrap();
                // A literal over several lines is one line.
                let mut lines = text.split("\\\n");
                sources.push_str(lines.next().unwrap());
                lines.for_each(|line| sources.push_str(line.trim_start()));
            }
        }
    }
}
