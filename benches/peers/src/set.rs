//! A gallery, its probes and the truth about them, in files that every engine reads.
//!
//! ```text
//! NAME.f32         templates, flat little-endian f32 (gallery/file.rs)
//! NAME.probes.f32  probes: mates, then strangers
//! NAME.truth.json  whose the mates are, and what exact search finds for them
//! ```

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::Outcome;
use crate::gallery::{Gallery, GallerySettings, Population, file};

#[derive(Clone, Copy)]
pub(crate) struct SetSettings {
    pub(crate) width: usize,
    pub(crate) gallery: GallerySettings,
    pub(crate) mates: usize,
    pub(crate) strangers: usize,
}

/// What all engines are asked.
pub(crate) struct Set {
    pub(crate) settings: SetSettings,
    pub(crate) gallery: Gallery,
    pub(crate) files: Files,
    pub(crate) truth: Vec<Truth>,
    probes: Vec<f32>,
}

/// Where it lies.
pub(crate) struct Files {
    pub(crate) gallery: PathBuf,
    pub(crate) probes: PathBuf,
    truth: PathBuf,
}

/// About one mated probe.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Truth {
    /// The template that it was made from.
    pub(crate) mate: usize,
    /// The template that exact search finds first.
    pub(crate) nearest: usize,
    /// How similar that one is.
    pub(crate) cosine: f32,
}

impl Set {
    pub(crate) fn is_there(data: &Path, settings: SetSettings) -> bool {
        let files = Files::of(data, settings);
        [files.gallery, files.probes, files.truth].iter().all(|path| path.is_file())
    }

    /// Leaves the files in `data`. The truth comes last: if it is there, all is.
    pub(crate) fn prepare(data: &Path, settings: SetSettings) -> Outcome<()> {
        if Self::is_there(data, settings) {
            return Ok(());
        }
        eprintln!(
            "sampling {} templates",
            settings.gallery.people * settings.gallery.templates_per_person
        );
        let population = Population::of_width(settings.width);
        let gallery = Gallery::cached(data, population, settings.gallery)?;
        let mates = gallery.mates(settings.mates);
        eprintln!("searching for the truth about {} probes", settings.mates);
        let nearest = gallery.nearest(&mates.probes);
        let truth: Vec<Truth> = mates
            .drawn
            .iter()
            .zip(nearest)
            .map(|(mate, best)| Truth {
                mate: mate.template,
                nearest: best.template,
                cosine: best.cosine,
            })
            .collect();
        let files = Files::of(data, settings);
        let probes = [mates.probes, gallery.strangers(settings.strangers)].concat();
        file::write(&files.probes, &probes)?;
        fs::write(files.truth, serde_json::to_string(&truth)?)?;
        Ok(())
    }

    pub(crate) fn load(data: &Path, settings: SetSettings) -> Outcome<Self> {
        let files = Files::of(data, settings);
        let population = Population::of_width(settings.width);
        let gallery = Gallery::cached(data, population, settings.gallery)?;
        let floats = (settings.mates + settings.strangers) * settings.width;
        let probes = file::read(&files.probes, floats)?.ok_or("the probes are incomplete")?;
        let truth: Vec<Truth> = serde_json::from_str(&fs::read_to_string(&files.truth)?)?;
        Ok(Self { settings, gallery, files, truth, probes })
    }

    /// Probes of enrolled people.
    pub(crate) fn mates(&self) -> impl ExactSizeIterator<Item = &[f32]> + Clone {
        self.probes.chunks_exact(self.settings.width).take(self.settings.mates)
    }

    /// Probes of people who are not enrolled.
    pub(crate) fn strangers(&self) -> impl ExactSizeIterator<Item = &[f32]> {
        self.probes.chunks_exact(self.settings.width).skip(self.settings.mates)
    }

    /// The `i`-th probe of an enrolled person.
    pub(crate) fn mate(&self, i: usize) -> &[f32] {
        &self.probes[i * self.settings.width..][..self.settings.width]
    }

    /// Whether two templates are of the same person.
    pub(crate) fn same_person(&self, a: usize, b: usize) -> bool {
        self.gallery.person_of(a) == self.gallery.person_of(b)
    }
}

impl Files {
    fn of(data: &Path, settings: SetSettings) -> Self {
        let population = Population::of_width(settings.width);
        let gallery = Gallery::path(data, &population, settings.gallery);
        let (mates, strangers) = (settings.mates, settings.strangers);
        let beside = |kind: &str| {
            let mut name = gallery.file_stem().unwrap_or_default().to_owned();
            name.push(format!("-{mates}+{strangers}.{kind}"));
            gallery.with_file_name(name)
        };
        let (probes, truth) = (beside("probes.f32"), beside("truth.json"));
        Self { gallery, probes, truth }
    }
}
