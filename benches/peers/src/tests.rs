//! The bench counts what its README says.

use crate::engine::{Engine, insert_all};
use crate::exact_scan::ExactScan;
use crate::gallery::{Gallery, GallerySettings, Population};
use crate::score::percentile;

#[test]
fn the_plain_scan_finds_nearly_what_f32_finds() {
    let gallery = Gallery::sample(Population::faces(), GallerySettings::of(2_000));
    let scan = ExactScan::build(&gallery);
    let mates = gallery.mates(200);
    let probes = mates.probes.chunks_exact(gallery.width());
    let agree = probes
        .zip(gallery.nearest(&mates.probes))
        .filter(|(probe, nearest)| scan.nearest(probe, 0, 0.0).unwrap() == Some(nearest.template));
    assert!(agree.count() >= 199);
}

#[test]
fn percentiles_are_by_nearest_rank() {
    let values: Vec<f64> = (1..=1000).rev().map(f64::from).collect();
    assert_eq!(
        [50, 99, 100].map(|p| percentile(&values, p).to_bits()),
        [500.0_f64, 990.0, 1000.0].map(f64::to_bits)
    );
    assert_eq!(percentile(&[], 50).to_bits(), 0.0_f64.to_bits());
}

#[test]
fn an_error_while_building_is_told() {
    let failing = |i| if i == 700 { Err("no".into()) } else { Ok(()) };
    assert!(insert_all(10_000, 2, failing).is_err());
    assert!(insert_all(700, 2, failing).is_ok());
}
