//! The certificate that is signed before the keys go, and what goes on from it after a crash.
//!
//! ```text
//! decommissioning.json {certificate, cell, places, keys_destroyed}
//! ```
//!
//! # Invariants
//! - The pledge is durable before a key is touched, and is the last of all files to go.
//! - Only a place that the pledge names is wiped after a crash, and only a cell that the pledge
//!   names and that was found half destroyed is destroyed without being opened.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::wipe::{check_outside, wipe_all, wipe_whole};
use super::{DecommissionFailure, Decommissioned, MARKER, about, confirming, is_decommissioned};
use crate::audit::Receipt;
use crate::config::Settings;
use crate::service::{json, proto};

/// What a data directory holds while it is being decommissioned.
pub(super) const PLEDGE: &str = "decommissioning.json";

/// What was decided, and how far it came.
#[derive(Debug, Serialize, Deserialize)]
pub struct Pledge {
    /// Signed beforehand.
    certificate: Receipt,
    /// Where the keys are, as the settings named it.
    cell: String,
    /// What is wiped.
    places: Vec<PathBuf>,
    /// Whether the keys are surely gone.
    keys_destroyed: bool,
}

impl Pledge {
    pub(super) fn new(settings: &Settings, places: &[PathBuf], certificate: Receipt) -> Self {
        let (cell, places) = (settings.cell.to_string(), places.to_vec());
        Self { certificate, cell, places, keys_destroyed: false }
    }

    /// The digits that confirm.
    #[must_use]
    pub fn digits(&self) -> String {
        confirming(&hex::encode(self.certificate.public_key)).to_owned()
    }

    fn read(data_dir: &Path) -> Result<Option<Self>, DecommissionFailure> {
        let path = data_dir.join(PLEDGE);
        let text = match fs::read(&path) {
            Err(fault) if fault.kind() == io::ErrorKind::NotFound => return Ok(None),
            text => text.map_err(about(&path))?,
        };
        let pledge = serde_json::from_slice::<Self>(&text).ok();
        let pledge = pledge.filter(|pledge| pledge.certificate.verify(None).is_ok());
        pledge.map(Some).ok_or(DecommissionFailure::Pledge { path })
    }

    pub(super) fn keep(&self, data_dir: &Path) -> Result<(), DecommissionFailure> {
        let path = data_dir.join(PLEDGE);
        let text = serde_json::to_vec(self).map_err(io::Error::from);
        text.and_then(|text| keep(&path, &text)).map_err(about(&path))
    }

    /// The keys are gone: notes it, and lets their place go.
    pub(super) fn keys_are_gone(&mut self, settings: &Settings) -> Result<(), DecommissionFailure> {
        self.keys_destroyed = true;
        self.keep(&settings.data_dir)?;
        settings.cell.remove_name();
        Ok(())
    }
}

/// Whether decommissioning the data directory was begun and did not end.
#[must_use]
pub(in crate::server) fn is_begun(data_dir: &Path) -> bool {
    data_dir.join(PLEDGE).exists()
}

/// The pledge of a decommissioning that was interrupted when keys were gone, or some of them.
///
/// # Errors
/// The pledge does not hold.
pub fn interrupted(settings: &Settings) -> Result<Option<Pledge>, DecommissionFailure> {
    if is_decommissioned(&settings.data_dir) {
        return Ok(None);
    }
    let pledge = Pledge::read(&settings.data_dir)?;
    Ok(pledge.filter(|pledge| pledge.keys_destroyed || settings.cell.is_half_destroyed()))
}

/// Goes on with a decommissioning that was interrupted.
///
/// # Errors
/// The settings name another root key, or what is left of it cannot be destroyed; the certificate
/// would lie among what is wiped.
pub fn finish(
    settings: &Settings,
    mut pledge: Pledge,
    certificate: &Path,
) -> Result<Decommissioned, DecommissionFailure> {
    let given = settings.cell.to_string();
    if given != pledge.cell {
        return Err(DecommissionFailure::OtherCell { given, pledged: pledge.cell });
    }
    let there = pledge.places.iter().filter(|place| place.exists());
    let places: Vec<PathBuf> = there.cloned().collect();
    check_outside(certificate, &places)?;
    if !pledge.keys_destroyed {
        settings.cell.destroy_rest()?;
    }
    pledge.keys_are_gone(settings)?;
    let left = wipe_all(settings, &places);
    let certificate = pledge.certificate;
    let marked = mark(&settings.data_dir, &certificate);
    let statement = serde_json::from_slice(&certificate.body).unwrap_or_default();
    Ok(Decommissioned::of(certificate, &statement, left, marked))
}

/// Puts the certificate where everybody finds it.
pub(super) fn mark(data_dir: &Path, certificate: &Receipt) -> Result<(), DecommissionFailure> {
    let path = data_dir.join(MARKER);
    let message = proto::Receipt::from(certificate);
    let value = json::to_json("Receipt", &message).unwrap_or_default();
    let written = fs::create_dir_all(data_dir)
        .and_then(|()| keep(&path, format!("{value:#}\n").as_bytes()))
        .and_then(|()| wipe_whole(&data_dir.join(PLEDGE)));
    written.map_err(about(&path))
}

/// Writes a file whole, durable on return, its name too: it is there whole, or as it was.
fn keep(path: &Path, text: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = File::create(&new)?;
    file.write_all(text)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}
