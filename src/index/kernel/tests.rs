//! Every kernel against the obvious computation.

use super::panel::Line;
use super::sketch::GROUP_ROWS;
use super::*;
use crate::index::testkit::Random;

fn here() -> impl Iterator<Item = Kernels> {
    Kernel::ALL.into_iter().filter_map(Kernel::kernels)
}

fn check(row: &[u8], probe: &[i8]) {
    let expected: i32 = row.iter().zip(probe).map(|(r, p)| i32::from(*r) * i32::from(*p)).sum();
    for kernels in here() {
        let name = kernels.kernel().name();
        assert_eq!(kernels.dot(row, probe), expected, "{name}, {} bytes", row.len());
    }
}

#[test]
fn all_kernels_agree_on_random_input_at_every_width() {
    let mut random = Random::new(7);
    for len in (64..=1024).step_by(64) {
        for _ in 0..50 {
            let row: Vec<u8> = (0..len).map(|_| random.byte()).collect();
            let probe: Vec<i8> = (0..len).map(|_| random.byte().cast_signed()).collect();
            check(&row, &probe);
        }
    }
}

#[test]
fn no_kernel_saturates_on_extreme_input() {
    for len in (64..=1024).step_by(64) {
        for row in [0, 1, 127, 128, 255] {
            for probe in [-128, -127, -1, 0, 1, 127] {
                check(&vec![row; len], &vec![probe; len]);
            }
        }
    }
}

/// Rows by all counts of probes, as many products as there should be and each as it should be.
fn check_many(rows: &[u8], probes: &[Vec<i8>]) {
    let stride = probes[0].len();
    let (portable, probes) = (Kernels::portable(), probes.iter().map(Vec::as_slice));
    let probes: Vec<&[i8]> = probes.collect();
    let each = |probe: &&[i8]| {
        rows.chunks_exact(stride).map(|row| portable.dot(row, probe)).collect::<Vec<_>>()
    };
    let expected: Vec<i32> = probes.iter().flat_map(each).collect();
    for kernels in here() {
        for count in 1..=probes.len() {
            let expected = &expected[..rows.len() / stride * count];
            let mut out = vec![i32::MIN; expected.len()];
            kernels.dots(rows, &kernels.panel(&probes[..count]), &mut out);
            let name = kernels.kernel().name();
            assert_eq!(out, expected, "{name}, {} bytes by {count} of {stride}", rows.len());
        }
    }
}

#[test]
fn many_rows_by_many_probes_are_the_single_products() {
    let mut random = Random::new(8);
    for stride in (64..=1024).step_by(64) {
        let probes = probes(&mut random, stride);
        for count in [0, 1, 3, 4, 5, 31, 32, 33, 70] {
            let rows: Vec<u8> = (0..count * stride).map(|_| random.byte()).collect();
            check_many(&rows, &probes);
        }
    }
}

#[test]
fn no_product_of_many_saturates_on_extreme_input() {
    for stride in (64..=1024).step_by(64) {
        for row in [0, 127, 128, 255] {
            let codes = [-128, -127, 127, -1, 0, 1, -128, 127, -128];
            check_many(&vec![row; 37 * stride], &codes.map(|code| vec![code; stride]));
        }
    }
}

fn probes(random: &mut Random, stride: usize) -> Vec<Vec<i8>> {
    let mut probe = || (0..stride).map(|_| random.byte().cast_signed()).collect();
    (0..MOST_PROBES).map(|_| probe()).collect()
}

/// What `tdpbusd` adds up from one row and each line of packed probes.
fn multiplied(row: &[u8], lines: &[Line]) -> [i32; MOST_PROBES] {
    let mut sums = [0; MOST_PROBES];
    for (row, Line(grains)) in row.as_chunks::<4>().0.iter().zip(lines) {
        for (sum, grain) in sums.iter_mut().zip(grains) {
            let products = row.iter().zip(grain).map(|(r, p)| i32::from(*r) * i32::from(*p));
            *sum += products.sum::<i32>();
        }
    }
    sums
}

#[test]
fn packed_probes_multiply_to_the_single_products() {
    let mut random = Random::new(11);
    for stride in (64..=1024).step_by(64) {
        let row: Vec<u8> = (0..stride).map(|_| random.byte()).collect();
        let probes = probes(&mut random, stride);
        let probes: Vec<&[i8]> = probes.iter().map(Vec::as_slice).collect();
        for count in 1..=MOST_PROBES {
            let panel = Panel::new(&probes[..count]).packed();
            assert_eq!(panel.lines().is_some(), count >= 8);
            let Some(lines) = panel.lines() else { continue };
            let mut expected = [0; MOST_PROBES];
            for (expected, probe) in expected.iter_mut().zip(panel.probes()) {
                *expected = Kernels::portable().dot(&row, probe);
            }
            assert_eq!(lines.len() * 4, stride);
            assert_eq!(multiplied(&row, lines), expected);
        }
    }
}

#[test]
fn a_packed_panel_serves_every_kernel() {
    let mut random = Random::new(12);
    let probes = probes(&mut random, 128);
    let probes: Vec<&[i8]> = probes.iter().map(Vec::as_slice).collect();
    let rows: Vec<u8> = (0..33 * 128).map(|_| random.byte()).collect();
    let dots = |kernels: Kernels, panel| {
        let mut out = vec![0; 33 * MOST_PROBES];
        kernels.dots(&rows, panel, &mut out);
        out
    };
    let (plain, packed) = (Panel::new(&probes), Panel::new(&probes).packed());
    for kernels in here() {
        assert_eq!(dots(kernels, &plain), dots(kernels, &packed), "{}", kernels.kernel().name());
    }
}

/// The sieve, row by row and bit by bit.
fn sieve(
    fronts: &[[u8; GROUP_SKETCH_BYTES]],
    backs: &[[u8; GROUP_SKETCH_BYTES]],
    live: &[u32],
    probes: &[SketchProbe<'_>],
) -> Vec<Sifted> {
    let word = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().unwrap());
    let mut found = Vec::new();
    for row in 0..live.len() * GROUP_ROWS {
        let (group, at) = (row / GROUP_ROWS, row % GROUP_ROWS);
        for (number, probe) in (0..).zip(probes) {
            let differ = |n: usize| {
                let bytes = if n < 4 {
                    &fronts[group][(n * GROUP_ROWS + at) * 8..][..8]
                } else {
                    &backs[group][at * 32 + (n - 4) * 8..][..8]
                };
                (word(bytes) ^ probe.words[n]).count_ones()
            };
            let (front, full) = ((0..4).map(differ).sum::<u32>(), (0..8).map(differ).sum::<u32>());
            let is_live = live[group] >> at & 1 == 1;
            if is_live && front <= probe.front_cut && full <= probe.full_cut {
                let (row, distance) = (row.try_into().unwrap(), full.try_into().unwrap());
                found.push(Sifted { row, probe: number, distance });
            }
        }
    }
    found.sort_unstable();
    found
}

#[test]
fn the_sieve_lets_pass_what_is_within_both_cuts_and_alive() {
    let mut random = Random::new(9);
    for groups in [0, 1, 2, 7, 15, 16, 17, 40] {
        let mut half = || {
            let mut half = [0; GROUP_SKETCH_BYTES];
            half.fill_with(|| random.byte());
            half
        };
        let fronts: Vec<_> = (0..groups).map(|_| half()).collect();
        let backs: Vec<_> = (0..groups).map(|_| half()).collect();
        for count in [1, 2, 7, 8, 15, 16] {
            let live: Vec<u32> = (0..groups)
                .map(|_| [0, u32::MAX, random.below(u32::MAX)][random.below(3) as usize])
                .collect();
            let words: Vec<[u64; 8]> =
                (0..count).map(|_| std::array::from_fn(|_| random.next())).collect();
            let probes: Vec<SketchProbe<'_>> = words
                .iter()
                .map(|words| SketchProbe {
                    words,
                    front_cut: [0, 110, 120, 128, 256, u32::MAX][random.below(6) as usize],
                    full_cut: [0, 230, 250, 256, 512, u32::MAX][random.below(6) as usize],
                })
                .collect();
            let expected = sieve(&fronts, &backs, &live, &probes);
            for kernels in here() {
                let mut found = vec![Sifted { row: 0, probe: 0, distance: 9_999 }];
                kernels.sift(&fronts, &backs, &live, &probes, &mut found);
                assert_eq!(found.remove(0).distance, 9_999, "what was there stays");
                found.sort_unstable();
                assert_eq!(found, expected, "{}", kernels.kernel().name());
            }
        }
    }
}

#[test]
fn signs_by_codes_add_up() {
    let mut random = Random::new(10);
    for round in 0..200 {
        let mut bits = [0; SKETCH_BYTES];
        bits.fill_with(|| random.byte());
        let mut codes = [-128; SKETCH_BITS];
        if round > 0 {
            codes.fill_with(|| random.byte().cast_signed());
        }
        let signed = |(at, code): (usize, &i8)| {
            let code = i32::from(*code);
            if bits[at / 8] >> (at % 8) & 1 == 1 { code } else { -code }
        };
        let expected: i32 = codes.iter().enumerate().map(signed).sum();
        for kernels in here() {
            assert_eq!(kernels.lean(&bits, &codes), expected, "{}", kernels.kernel().name());
        }
    }
}

#[test]
fn names_are_what_the_settings_read() {
    for kernel in Kernel::ALL {
        let read: Kernel = serde_json::from_value(kernel.name().into()).unwrap();
        assert_eq!(read, kernel);
    }
}
