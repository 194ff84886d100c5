//! People who never lived: galleries and probes sampled from the statistics of real templates.
//!
//! ```text
//! template 0 of a person   t  = normalise(mean + B z)
//! a mate of t              p  = c t + sqrt(1 - c^2) d,   d = the unit vector along W z - (W z . t) t
//!                          c ~ normal(0.60, 0.11), kept within 0.25 and 0.95
//! ```
//!
//! A person's further templates are mates of the first; a mated probe is a mate of one of its
//! person's templates, picked at random; a stranger's probe is a mate of somebody who is not in
//! the gallery. Template `i` is of person `i % people`: all first templates, then all second ones.
//!
//! For benches and tests, which include it by path; it needs rayon and nothing of the crate.
//!
//! # Invariants
//! - A vector depends on the settings and its own number: not on how many are sampled, nor by how
//!   many threads. (`ln` and `sin` may differ in the last bit between platforms.)
//! - Every vector has norm 1 but for rounding.
#![allow(dead_code, reason = "every bench and test uses its own part")]

mod exact;
pub(crate) mod file;
mod population;
mod random;
#[cfg(test)]
mod tests;

use std::ops::RangeInclusive;

use self::random::{Random, Stream};

pub(crate) use self::population::Population;

/// Mean and spread of the cosine between a mated probe and its template.
const MATE_COSINE: f32 = 0.60;
const MATE_SPREAD: f32 = 0.11;
/// No mate is less or more similar, unless `noise_scale` makes it.
pub(crate) const MATE_COSINES: RangeInclusive<f32> = 0.25..=0.95;

/// Which gallery.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct GallerySettings {
    /// How many people.
    pub(crate) people: usize,
    /// Templates of each.
    pub(crate) templates_per_person: usize,
    /// By how much two photos of one person differ: the tangent of their angle is scaled by it.
    /// At 0.5, mates lie around cosine 0.83 instead of 0.60.
    pub(crate) noise_scale: f32,
    /// Another seed, other people.
    pub(crate) seed: u64,
}

impl GallerySettings {
    /// `people` with one template each, as hard as faces are.
    pub(crate) fn of(people: usize) -> Self {
        Self { people, templates_per_person: 1, noise_scale: 1.0, seed: 1 }
    }
}

/// Templates of people, and where probes of them come from.
///
/// ```text
/// let gallery = Gallery::sample(Population::faces(), GallerySettings::of(10_000));
/// let mates = gallery.mates(1_000);
/// let truth = gallery.nearest(&mates.probes);
/// ```
pub(crate) struct Gallery {
    population: Population,
    settings: GallerySettings,
    templates: Vec<f32>,
}

/// Probes of enrolled people.
pub(crate) struct Mates {
    /// Flat, as wide as the gallery.
    pub(crate) probes: Vec<f32>,
    /// Whose they are, in the same order.
    pub(crate) drawn: Vec<Mate>,
}

/// What a mated probe was made from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Mate {
    /// The template that the probe resembles.
    pub(crate) template: usize,
    /// How much it does.
    pub(crate) cosine: f32,
}

impl Gallery {
    /// Samples it: a million templates of 512 dimensions take under a minute on two cores.
    pub(crate) fn sample(population: Population, settings: GallerySettings) -> Self {
        let GallerySettings { people, templates_per_person, seed, .. } = settings;
        let width = population.width();
        let mut templates = vec![0.0; people * templates_per_person * width];
        let (first, further) = templates.split_at_mut(people * width);
        population.people(first, |i| Random::of(seed, Stream::Person, i));
        let first = &*first;
        population.mates(
            further,
            |i| Random::of(seed, Stream::Template, i),
            |i, random| (&first[i % people * width..][..width], settings.cosine(random)),
        );
        Self { population, settings, templates }
    }

    /// Probes of enrolled people, the first `count` of an endless sequence.
    pub(crate) fn mates(&self, count: usize) -> Mates {
        let stream = |i| Random::of(self.settings.seed, Stream::Mate, i);
        let draw = |random: &mut Random| Mate {
            template: random.below(self.len()),
            cosine: self.settings.cosine(random),
        };
        let mut probes = vec![0.0; count * self.width()];
        self.population.mates(&mut probes, stream, |_, random| {
            let Mate { template, cosine } = draw(random);
            (self.template(template), cosine)
        });
        Mates { probes, drawn: (0..count).map(|i| draw(&mut stream(i))).collect() }
    }

    /// Probes of people who are not enrolled, flat, the first `count` of an endless sequence.
    pub(crate) fn strangers(&self, count: usize) -> Vec<f32> {
        let (settings, width) = (self.settings, self.width());
        let stream = |kind| move |i| Random::of(settings.seed, kind, i);
        let mut people = vec![0.0; count * width];
        self.population.people(&mut people, stream(Stream::Stranger));
        let mut probes = vec![0.0; count * width];
        self.population.mates(&mut probes, stream(Stream::StrangersProbe), |i, random| {
            (&people[i * width..][..width], settings.cosine(random))
        });
        probes
    }

    /// Templates.
    pub(crate) fn len(&self) -> usize {
        self.settings.people * self.settings.templates_per_person
    }

    /// Dimensions.
    pub(crate) fn width(&self) -> usize {
        self.population.width()
    }

    /// All templates, flat.
    pub(crate) fn templates(&self) -> &[f32] {
        &self.templates
    }

    /// The `i`-th template.
    pub(crate) fn template(&self, i: usize) -> &[f32] {
        &self.templates[i * self.width()..][..self.width()]
    }

    /// Whose template the `i`-th is.
    pub(crate) fn person_of(&self, i: usize) -> usize {
        i % self.settings.people
    }
}

impl GallerySettings {
    /// Draws how similar a mate is.
    fn cosine(self, random: &mut Random) -> f32 {
        let cosine = MATE_COSINE + MATE_SPREAD * random.normal_pair()[0];
        let cosine = cosine.clamp(*MATE_COSINES.start(), *MATE_COSINES.end());
        let tangent = self.noise_scale * (1.0 - cosine * cosine).sqrt() / cosine;
        1.0 / (1.0 + tangent * tangent).sqrt()
    }
}
