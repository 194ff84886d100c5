//! The gallery is what its head says.

#![allow(unused_imports, dead_code, reason = "benches without a test harness leave the tests out")]

use rayon::ThreadPoolBuilder;

use super::population::dot;
use super::{Gallery, GallerySettings, Mates, Population};

const PEOPLE: usize = 1_000;

fn faces(settings: GallerySettings) -> Gallery {
    Gallery::sample(Population::faces(), settings)
}

fn norms(vectors: &[f32], width: usize) -> impl Iterator<Item = f32> {
    vectors.chunks_exact(width).map(|v| dot(v, v).sqrt())
}

#[test]
fn every_vector_has_norm_1() {
    for width in [128, 129, 512, 1024] {
        let settings = GallerySettings { templates_per_person: 2, ..GallerySettings::of(37) };
        let gallery = Gallery::sample(Population::of_width(width), settings);
        let (mates, strangers) = (gallery.mates(21), gallery.strangers(21));
        for vectors in [gallery.templates(), &mates.probes, &strangers] {
            assert!(norms(vectors, width).all(|norm| (norm - 1.0).abs() < 1e-5), "{width}");
        }
    }
}

#[test]
fn any_number_of_threads_and_people_gives_the_same_vectors() {
    let sample = |threads, people| {
        let pool = ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let gallery = faces(GallerySettings::of(people));
            let (mates, strangers) = (gallery.mates(40), gallery.strangers(40));
            (gallery, mates.probes, strangers)
        })
    };
    let (one, mates, strangers) = sample(1, 100);
    let (three, again, same_strangers) = sample(3, 100);
    assert_eq!(one.templates(), three.templates());
    assert_eq!((mates, &strangers), (again, &same_strangers));
    let (larger, _, still) = sample(2, 301);
    assert_eq!(one.templates(), &larger.templates()[..one.templates().len()]);
    assert_eq!(strangers, still);
}

#[test]
fn another_seed_gives_other_people() {
    let [a, b] = [1, 2].map(|seed| faces(GallerySettings { seed, ..GallerySettings::of(16) }));
    assert!((0..16).all(|i| dot(a.template(i), b.template(i)).abs() < 0.4));
}

#[test]
fn mates_lie_at_their_cosine_around_0_60_with_spread_0_11() {
    let gallery = faces(GallerySettings::of(PEOPLE));
    let Mates { probes, drawn } = gallery.mates(4_000);
    let cosines: Vec<f32> = probes
        .chunks_exact(gallery.width())
        .zip(&drawn)
        .map(|(probe, mate)| {
            let cosine = dot(probe, gallery.template(mate.template));
            assert!((cosine - mate.cosine).abs() < 1e-4, "{cosine} for {mate:?}");
            cosine
        })
        .collect();
    let (mean, spread) = mean_and_spread(&cosines);
    assert!((mean - 0.60).abs() < 0.01 && (spread - 0.11).abs() < 0.01, "{mean} {spread}");
}

#[test]
fn less_noise_brings_the_templates_of_a_person_together() {
    let settings = GallerySettings {
        templates_per_person: 3,
        noise_scale: 0.5,
        ..GallerySettings::of(PEOPLE)
    };
    let gallery = faces(settings);
    assert_eq!(gallery.len(), 3 * PEOPLE);
    assert_eq!(gallery.person_of(2 * PEOPLE + 7), 7);
    let first_to_third = |p| dot(gallery.template(p), gallery.template(2 * PEOPLE + p));
    let (mean, _) = mean_and_spread(&(0..PEOPLE).map(first_to_third).collect::<Vec<_>>());
    assert!((mean - 0.82).abs() < 0.02, "{mean}");
}

#[test]
fn people_and_strangers_are_as_alike_as_real_ones() {
    // Of real templates: mean 0.007, spread 0.067 (models/research/calibration.json).
    let gallery = faces(GallerySettings::of(PEOPLE));
    let strangers = gallery.strangers(16);
    let people: Vec<f32> =
        (1..PEOPLE).map(|i| dot(gallery.template(0), gallery.template(i))).collect();
    let others = strangers
        .chunks_exact(gallery.width())
        .flat_map(|probe| (0..PEOPLE).map(|i| dot(probe, gallery.template(i))));
    for (mean, spread) in [people, others.collect()].map(|cosines| mean_and_spread(&cosines)) {
        assert!(mean.abs() < 0.03 && (0.05..0.09).contains(&spread), "{mean} {spread}");
    }
}

#[test]
fn exact_search_finds_what_a_plain_loop_finds() {
    let gallery = faces(GallerySettings::of(PEOPLE + 3));
    let mates = gallery.mates(21);
    let nearest = gallery.nearest(&mates.probes);
    assert_eq!(nearest.len(), 21);
    for (probe, nearest) in mates.probes.chunks_exact(gallery.width()).zip(nearest) {
        let cosine = |i| dot(probe, gallery.template(i));
        let best = (0..gallery.len()).max_by(|a, b| cosine(*a).total_cmp(&cosine(*b))).unwrap();
        assert_eq!(nearest.template, best);
        assert!((nearest.cosine - cosine(best)).abs() < 1e-5);
    }
}

#[test]
fn a_gallery_from_a_folder_is_the_sampled_one() {
    let directory = std::env::temp_dir().join(format!("assent-gallery-{}", std::process::id()));
    let settings = GallerySettings::of(50);
    let cached = || Gallery::cached(&directory, Population::isotropic(128), settings).unwrap();
    let (written, read) = (cached(), cached());
    let sampled = Gallery::sample(Population::isotropic(128), settings);
    assert_eq!(written.templates(), sampled.templates());
    assert_eq!(read.templates(), sampled.templates());
    std::fs::remove_dir_all(directory).unwrap();
}

#[expect(clippy::cast_precision_loss, reason = "a few thousand")]
fn mean_and_spread(values: &[f32]) -> (f32, f32) {
    let mean_of = |values: &mut dyn ExactSizeIterator<Item = f32>| {
        let count = values.len() as f32;
        values.sum::<f32>() / count
    };
    let mean = mean_of(&mut values.iter().copied());
    let variance = mean_of(&mut values.iter().map(|x| (x - mean) * (x - mean)));
    (mean, variance.sqrt())
}
