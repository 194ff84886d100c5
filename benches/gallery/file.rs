//! Galleries kept in a folder that the caller names: flat little-endian f32, nothing else.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use super::{Gallery, GallerySettings, Population};

/// Counts up when the same settings come to mean other vectors.
const VERSION: u32 = 1;

impl Gallery {
    /// The gallery of these settings from `directory`, sampled and left there if it is not there
    /// yet.
    ///
    /// # Errors
    /// The folder cannot be read or written.
    pub(crate) fn cached(
        directory: &Path,
        population: Population,
        settings: GallerySettings,
    ) -> io::Result<Self> {
        let path = Self::path(directory, &population, settings);
        let floats = settings.people * settings.templates_per_person * population.width();
        if let Some(templates) = read(&path, floats)? {
            return Ok(Self { population, settings, templates });
        }
        let gallery = Self::sample(population, settings);
        fs::create_dir_all(directory)?;
        write(&path, gallery.templates())?;
        Ok(gallery)
    }

    /// Where the gallery of these settings lies.
    pub(crate) fn path(
        directory: &Path,
        population: &Population,
        settings: GallerySettings,
    ) -> PathBuf {
        let GallerySettings { people, templates_per_person, noise_scale, seed } = settings;
        let (name, width) = (population.name(), population.width());
        directory.join(format!(
            "{name}-{width}d-{people}x{templates_per_person}-noise{noise_scale}-seed{seed}-v{VERSION}.f32"
        ))
    }
}

/// That many floats; none if there is no such file or it has another length.
pub(crate) fn read(path: &Path, floats: usize) -> io::Result<Option<Vec<f32>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    if file.metadata()?.len() != (floats * size_of::<f32>()) as u64 {
        return Ok(None);
    }
    let mut file = BufReader::with_capacity(1 << 20, file);
    let mut values = Vec::with_capacity(floats);
    let mut bytes = [0; size_of::<f32>()];
    for _ in 0..floats {
        file.read_exact(&mut bytes)?;
        values.push(f32::from_le_bytes(bytes));
    }
    Ok(Some(values))
}

/// Writes them under another name first, so that a file under its own name is whole.
pub(crate) fn write(path: &Path, values: &[f32]) -> io::Result<()> {
    let unfinished = path.with_extension("unfinished");
    let mut file = BufWriter::with_capacity(1 << 20, File::create(&unfinished)?);
    for value in values {
        file.write_all(&value.to_le_bytes())?;
    }
    file.into_inner()?.sync_all()?;
    fs::rename(unfinished, path)
}
