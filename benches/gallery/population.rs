//! How templates are spread: between people, and between two photos of one person.
//!
//! Sixteen people are sampled side by side, so that a factor is read once for all of them and the
//! compiler keeps their sums in vector registers.

use std::array::from_fn;

use rayon::prelude::*;

use super::random::Random;

/// Templates sampled, or probes compared, side by side.
pub(super) const LANES: usize = 16;
/// One coordinate of each of them.
pub(super) type Lanes = [f32; LANES];

/// Mean, B and W of `benches/data/README.md`.
static FACES: &[u8] = include_bytes!("../data/arcface_mbf_population.f32");
const FACES_WIDTH: usize = 512;

/// A distribution of templates.
pub(crate) struct Population {
    width: usize,
    /// None: all directions are equally likely.
    factors: Option<Factors>,
}

struct Factors {
    mean: Vec<f32>,
    between: Vec<f32>,
    within: Vec<f32>,
}

impl Population {
    /// The templates of real faces, 512 dimensions.
    pub(crate) fn faces() -> Self {
        let (mean, factors) = FACES.split_at(size_of::<f32>() * FACES_WIDTH);
        let (between, within) = factors.split_at(factors.len() / 2);
        let [mean, between, within] = [mean, between, within].map(floats);
        Self { width: FACES_WIDTH, factors: Some(Factors { mean, between, within }) }
    }

    /// Templates of any width, spread evenly over the sphere: easier than faces of that width.
    pub(crate) fn isotropic(width: usize) -> Self {
        Self { width, factors: None }
    }

    /// Faces where their width is asked for, otherwise an even spread.
    pub(crate) fn of_width(width: usize) -> Self {
        if width == FACES_WIDTH { Self::faces() } else { Self::isotropic(width) }
    }

    /// Dimensions.
    pub(crate) fn width(&self) -> usize {
        self.width
    }

    /// "faces" or "isotropic".
    pub(crate) fn name(&self) -> &'static str {
        if self.factors.is_some() { "faces" } else { "isotropic" }
    }

    /// Fills `templates` with people, each from its own stream.
    pub(super) fn people(&self, templates: &mut [f32], stream: impl Fn(usize) -> Random + Sync) {
        let block = LANES * self.width;
        templates.par_chunks_mut(block).enumerate().for_each(|(n, templates)| {
            let mut lanes = self.normal(from_fn(|lane| stream(n * LANES + lane)));
            if let Some(Factors { mean, between, .. }) = &self.factors {
                lanes = product(between, &lanes);
                for (lane, mean) in lanes.iter_mut().zip(mean) {
                    for x in lane {
                        *x += mean;
                    }
                }
            }
            for (lane, template) in templates.chunks_exact_mut(self.width).enumerate() {
                take_lane(&lanes, lane, template);
                normalise(template);
            }
        });
    }

    /// Fills `mates`, each from its own stream: `of` draws from it which template the i-th shall
    /// resemble and at which cosine; the direction in which it differs is drawn thereafter.
    pub(super) fn mates<'a>(
        &self,
        mates: &mut [f32],
        stream: impl Fn(usize) -> Random + Sync,
        of: impl Fn(usize, &mut Random) -> (&'a [f32], f32) + Sync,
    ) {
        let block = LANES * self.width;
        mates.par_chunks_mut(block).enumerate().for_each(|(n, mates)| {
            let mut streams: [Random; LANES] = from_fn(|lane| stream(n * LANES + lane));
            let mates = mates.chunks_exact_mut(self.width);
            let drawn = streams.iter_mut().take(mates.len()).enumerate();
            let drawn: Vec<_> = drawn.map(|(lane, random)| of(n * LANES + lane, random)).collect();
            let mut lanes = self.normal(streams);
            if let Some(Factors { within, .. }) = &self.factors {
                lanes = product(within, &lanes);
            }
            for (lane, (mate, (template, cosine))) in mates.zip(drawn).enumerate() {
                take_lane(&lanes, lane, mate);
                move_away(mate, template, cosine);
            }
        });
    }

    /// Standard normal coordinates.
    fn normal(&self, streams: [Random; LANES]) -> Vec<Lanes> {
        let mut lanes = vec![[0.0; LANES]; self.width];
        for (lane, mut random) in streams.into_iter().enumerate() {
            for pair in lanes.chunks_mut(2) {
                for (row, normal) in pair.iter_mut().zip(random.normal_pair()) {
                    row[lane] = normal;
                }
            }
        }
        lanes
    }
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks().0.iter().copied().map(f32::from_le_bytes).collect()
}

/// Turns a direction into the unit vector at `cosine` from `template` on that side.
fn move_away(direction: &mut [f32], template: &[f32], cosine: f32) {
    let along = dot(direction, template);
    direction.iter_mut().zip(template).for_each(|(x, t)| *x -= along * t);
    normalise(direction);
    let sine = (1.0 - cosine * cosine).sqrt();
    direction.iter_mut().zip(template).for_each(|(x, t)| *x = cosine * t + sine * *x);
    normalise(direction);
}

/// `matrix` (row-major, as wide as `columns` are many) times the columns, a row of lanes for
/// each of its rows.
pub(super) fn product(matrix: &[f32], columns: &[Lanes]) -> Vec<Lanes> {
    let mut products = Vec::with_capacity(matrix.len() / columns.len());
    let mut pairs = matrix.chunks_exact(2 * columns.len());
    for pair in &mut pairs {
        let (a, b) = pair.split_at(columns.len());
        products.extend(two_rows(a, b, columns));
    }
    if !pairs.remainder().is_empty() {
        products.push(two_rows(pairs.remainder(), pairs.remainder(), columns)[0]);
    }
    products
}

fn two_rows(a: &[f32], b: &[f32], columns: &[Lanes]) -> [Lanes; 2] {
    let (mut sums_a, mut sums_b) = ([0.0; LANES], [0.0; LANES]);
    for ((a, b), column) in a.iter().zip(b).zip(columns) {
        for lane in 0..LANES {
            sums_a[lane] += a * column[lane];
            sums_b[lane] += b * column[lane];
        }
    }
    [sums_a, sums_b]
}

/// Copies one lane's coordinates.
fn take_lane(lanes: &[Lanes], lane: usize, to: &mut [f32]) {
    to.iter_mut().zip(lanes).for_each(|(x, row)| *x = row[lane]);
}

pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn normalise(values: &mut [f32]) {
    let norm = dot(values, values).sqrt();
    for x in values {
        *x /= norm;
    }
}
