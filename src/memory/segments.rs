//! Code and constants of the program and its libraries, let go of after loading.
//!
//! Most of what they hold runs while models load and never again: compilers, kernels for other
//! processors, schemas. The pages stay in the system's cache of files; what is needed again comes
//! back from there at the first touch.
//!
//! # Invariants
//! - Only pages that are what the file holds are let go of: nobody has written them, not the
//!   loader either, and nobody can without making them writable first.

use std::ops::Range;
use std::{fs, ptr};

use rustix::mm::{Advice, madvise};

/// Unmaps the pages of files that this process has mapped to read or to run; the next touch maps a
/// page again. Where the system does not say which these are, nothing is done.
pub(super) fn let_go() {
    let Ok(mappings) = fs::read_to_string("/proc/self/smaps") else { return };
    for range in untouched(&mappings) {
        let start = ptr::with_exposed_provenance_mut(range.start);
        // SAFETY: private pages of a file, as they are in the file: the next touch reads the same
        // bytes again. Locked pages are refused, and stay.
        let _stay = unsafe { madvise(start, range.len(), Advice::LinuxDontNeed) };
    }
}

/// The mappings of files that cannot be written, and of which no page was.
fn untouched(mappings: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut mapping = None;
    for line in mappings.lines() {
        if let Some((range, is_text)) = head(line) {
            mapping = is_text.then_some(range);
        } else if line.starts_with("Anonymous:") || line.starts_with("Swap:") {
            if !line.ends_with(" 0 kB") {
                mapping = None;
            }
        } else if line.starts_with("VmFlags:") {
            // The last line of a mapping.
            found.extend(mapping.take());
        }
    }
    found
}

/// The addresses of the mapping that `line` begins, and whether it is one of a file that can be
/// read only: `7f5c00000000-7f5c00021000 r-xp 00001000 fe:00 1234    /lib/libc.so.6`.
fn head(line: &str) -> Option<(Range<usize>, bool)> {
    let (addresses, rest) = line.split_once(' ')?;
    let (start, end) = addresses.split_once('-')?;
    let [start, end] = [start, end].map(|hex| usize::from_str_radix(hex, 16));
    let readable = rest.starts_with("r--p ") || rest.starts_with("r-xp ");
    let of_file = rest.split_ascii_whitespace().nth(4).is_some_and(|path| path.starts_with('/'));
    Some((start.ok()?..end.ok()?, readable && of_file))
}

#[cfg(test)]
mod tests {
    use std::hint::black_box;

    use super::*;

    #[test]
    fn only_pages_of_files_that_nobody_wrote_are_chosen() {
        let mapping = |head: &str, anonymous: u32, swap: u32| {
            format!(
                "{head}\nSize: 4 kB\nRss: 4 kB\nAnonymous: {anonymous:8} kB\nSwap: {swap:8} kB\n\
                 SwapPss: 0 kB\nVmFlags: rd mr\n"
            )
        };
        let mappings = [
            mapping("1000-2000 r-xp 00000000 fe:00 12      /lib/a b.so", 0, 0),
            mapping("2000-3000 rw-p 00001000 fe:00 12      /lib/a b.so", 0, 0),
            mapping("3000-4000 r--p 00002000 fe:00 12      /lib/relocated.so", 4, 0),
            mapping("4000-5000 r--p 00002000 fe:00 12      /lib/swapped.so", 0, 4),
            mapping("5000-6000 r--p 00000000 00:00 0       [vvar]", 0, 0),
            mapping("6000-7000 r--p 00000000 00:00 0 ", 0, 0),
            mapping("7000-8000 r--s 00000000 fe:00 13      /shared", 0, 0),
            mapping("8000-a000 r--p 00000000 fe:00 14      /lib/c.so", 0, 0),
        ];
        assert_eq!(untouched(&mappings.concat()), [0x1000..0x2000, 0x8000..0xa000]);
        assert!(untouched("1000-2000 r-xp 0 fe:00 12 /cut").is_empty());
        assert!(untouched("no such thing").is_empty());
    }

    /// Resident kilobytes that come from files.
    fn resident() -> u64 {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssFile:")).unwrap();
        line.trim().trim_end_matches(" kB").trim().parse().unwrap()
    }

    #[test]
    fn what_was_let_go_of_is_there_again_when_it_is_needed() {
        // A constant of the program's own, and code that must run afterwards.
        static WORDS: [u64; 4096] = [7; 4096];
        let sum = || black_box(&WORDS).iter().sum::<u64>();
        assert_eq!(sum(), 7 * 4096);
        let before = resident();
        let_go();
        let after = resident();
        assert!(after < before, "{before} kB, then {after} kB");
        assert_eq!(sum(), 7 * 4096);
    }
}
