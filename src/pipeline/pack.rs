//! Model packs: a folder with a `manifest.toml` that names the files and their hashes.
//!
//! # Invariants
//! - A [`ModelPack`] exists only when every file had the hash that its manifest states. The bytes
//!   that were hashed are the bytes that are used: each file is read once.
//! - No model of a pack keeps weights outside of its file.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error;

use super::frame::CROP;
use super::liveness::LivenessSpec;
use super::onnx::{self, OnnxError};
use crate::types::ModelContract;

/// The file that describes a pack.
const MANIFEST: &str = "manifest.toml";
/// Largest manifest, bytes.
const MANIFEST_BYTES: u64 = 64 << 10;
/// Largest file of a pack, bytes: above it a model could not be a protobuf message.
const FILE_BYTES: u64 = 2 << 30;

/// What `assent models list` shows of a pack.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackInfo {
    /// Its name, which is its folder's.
    pub name: String,
    /// What is in it.
    pub description: String,
    /// Under which terms its models may be used.
    pub licence: String,
    /// Whose terms those are.
    pub licence_source: String,
    /// The embedding space; templates of different contracts are never compared.
    pub contract: ModelContract,
}

/// A pack in memory, hashes checked.
pub struct ModelPack {
    info: PackInfo,
    pub(super) detector: DetectorSpec,
    pub(super) detector_model: Vec<u8>,
    pub(super) recogniser: RecogniserSpec,
    pub(super) recogniser_model: Vec<u8>,
    /// What the recogniser is computed in eight bits with, where the pack has it.
    pub(super) ranges: Option<(RangesSpec, Vec<u8>)>,
    /// The liveness model, where the pack has one.
    pub(super) liveness: Option<(LivenessSpec, Vec<u8>)>,
    calibration: Vec<u8>,
}

impl ModelPack {
    /// Reads the pack in folder `dir`.
    ///
    /// # Errors
    /// [`PackError`]: a file missing, of another hash, or of a kind that is not understood.
    pub fn load(dir: &Path) -> Result<Self, PackError> {
        let Manifest { info, detector, recogniser, liveness, calibration } = Manifest::read(dir)?;
        let read_liveness = |spec: LivenessSpec| {
            let model = read_model(dir, &spec.file, &spec.sha256)?;
            Ok::<_, PackError>((spec, model))
        };
        let read_ranges = |spec: &RangesSpec| {
            Ok::<_, PackError>((spec.clone(), read_hashed(dir, &spec.file, &spec.sha256)?))
        };
        let mut recogniser_model = read_model(dir, &recogniser.file, &recogniser.sha256)?;
        onnx::free_batch(&mut recogniser_model)
            .map_err(|source| PackError::Model { file: recogniser.file.clone(), source })?;
        Ok(Self {
            info,
            detector_model: read_model(dir, &detector.file, &detector.sha256)?,
            detector,
            recogniser_model,
            ranges: recogniser.ranges.as_ref().map(read_ranges).transpose()?,
            recogniser,
            liveness: liveness.map(read_liveness).transpose()?,
            calibration: read_hashed(dir, &calibration.file, &calibration.sha256)?,
        })
    }

    /// Name, licence and contract.
    #[must_use]
    pub fn info(&self) -> &PackInfo {
        &self.info
    }

    /// The calibration table: JSON, cosine thresholds by false match rate.
    #[must_use]
    pub fn calibration(&self) -> &[u8] {
        &self.calibration
    }

    /// Gives the parts that outlive the models.
    pub(super) fn into_info(self) -> (PackInfo, Vec<u8>) {
        (self.info, self.calibration)
    }
}

/// A pack found below a models directory.
#[derive(Debug)]
pub struct PackListing {
    /// The folder's name.
    pub name: String,
    /// What is in it, or why it does not load.
    pub pack: Result<PackInfo, PackError>,
}

/// The packs below `models_dir`, by name, each checked in full.
///
/// # Errors
/// The directory cannot be read.
pub fn list_packs(models_dir: &Path) -> Result<Vec<PackListing>, PackError> {
    let unreadable = |source| PackError::Read { path: models_dir.to_path_buf(), source };
    let mut packs = Vec::new();
    for entry in std::fs::read_dir(models_dir).map_err(unreadable)? {
        let dir = entry.map_err(unreadable)?.path();
        if dir.join(MANIFEST).is_file() {
            let name = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
            packs.push(PackListing { name, pack: ModelPack::load(&dir).map(|pack| pack.info) });
        }
    }
    packs.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(packs)
}

/// Why a pack does not load.
#[derive(Debug, Error)]
pub enum PackError {
    /// A file cannot be read.
    #[error("cannot read {} (run `assent models fetch`)", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's words.
        source: std::io::Error,
    },
    /// A file is larger than any of its kind.
    #[error("{} has {bytes} bytes, the limit is {limit}", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size, bytes.
        bytes: u64,
        /// The limit, bytes.
        limit: u64,
    },
    /// The manifest is not understood.
    #[error("{} is not a valid manifest", path.display())]
    Manifest {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: toml::de::Error,
    },
    /// The manifest says what this version cannot do.
    #[error("{}: {what}", path.display())]
    Unsupported {
        /// The manifest.
        path: PathBuf,
        /// What it says.
        what: &'static str,
    },
    /// A file is not the one that the manifest means.
    #[error("{} has sha256 {actual}, the manifest says {expected} (run `assent models fetch`)", path.display())]
    Hash {
        /// The file.
        path: PathBuf,
        /// The manifest's hash.
        expected: String,
        /// The file's hash.
        actual: String,
    },
    /// A model is refused.
    #[error("the model {file} is refused")]
    Model {
        /// The file.
        file: String,
        /// Why.
        source: OnnxError,
    },
}

/// How a byte becomes a model's input: (byte - mean) / std.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Normalisation {
    pub(super) mean: f32,
    pub(super) std: f32,
}

impl Normalisation {
    pub(super) fn apply(self, sample: f32) -> f32 {
        (sample - self.mean) / self.std
    }
}

/// Order of the colour planes of a model's input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum ColourOrder {
    Rgb,
    Bgr,
}

impl ColourOrder {
    /// Which sample of an RGB pixel goes into plane `plane`.
    pub(super) fn source(self, plane: usize) -> usize {
        match self {
            Self::Rgb => plane,
            Self::Bgr => 2 - plane,
        }
    }
}

/// `manifest.toml`, as models/README.md explains it.
#[derive(Debug, Clone, Deserialize)]
struct Manifest {
    #[serde(flatten)]
    info: PackInfo,
    detector: DetectorSpec,
    recogniser: RecogniserSpec,
    liveness: Option<LivenessSpec>,
    calibration: CalibrationSpec,
}

/// `[detector]` of a manifest.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DetectorSpec {
    file: String,
    sha256: String,
    kind: DetectorKind,
    pub(super) input_sizes: Vec<usize>,
    mean: f32,
    std: f32,
    pub(super) colour: ColourOrder,
    pub(super) strides: Vec<usize>,
    pub(super) anchors: usize,
    pub(super) score_threshold: f32,
    pub(super) nms_iou: f32,
}

impl DetectorSpec {
    /// The input sizes up to `side` and `side` itself, ascending.
    pub(super) fn sizes_up_to(&self, side: usize) -> Vec<usize> {
        let smaller = self.input_sizes.iter().copied().filter(|size| *size < side);
        let sizes: BTreeSet<usize> = smaller.chain([side]).collect();
        sizes.into_iter().collect()
    }
}

/// Families of detectors.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum DetectorKind {
    Scrfd,
}

impl DetectorSpec {
    pub(super) fn normalisation(&self) -> Normalisation {
        Normalisation { mean: self.mean, std: self.std }
    }
}

/// `[recogniser]` of a manifest.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RecogniserSpec {
    file: String,
    sha256: String,
    alignment: Alignment,
    input: usize,
    mean: f32,
    std: f32,
    pub(super) colour: ColourOrder,
    pub(super) width: usize,
    ranges: Option<RangesSpec>,
}

/// `[recogniser.ranges]` of a manifest.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RangesSpec {
    file: String,
    sha256: String,
    /// The pointwise convolutions that stay as they are, by number.
    pub(super) float: Vec<usize>,
}

/// Templates to which faces are aligned.
#[derive(Debug, Clone, Copy, Deserialize)]
enum Alignment {
    #[serde(rename = "arcface-112")]
    ArcFace112,
}

impl RecogniserSpec {
    pub(super) fn normalisation(&self) -> Normalisation {
        Normalisation { mean: self.mean, std: self.std }
    }
}

/// `[calibration]` of a manifest.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct CalibrationSpec {
    file: String,
    sha256: String,
}

impl Manifest {
    fn read(dir: &Path) -> Result<Self, PackError> {
        let path = dir.join(MANIFEST);
        let text = String::from_utf8_lossy(&read(&path, MANIFEST_BYTES)?).into_owned();
        let manifest: Self = toml::from_str(&text)
            .map_err(|source| PackError::Manifest { path: path.clone(), source })?;
        match manifest.unsupported() {
            Some(what) => Err(PackError::Unsupported { path, what }),
            None => Ok(manifest),
        }
    }

    /// What the manifest says and this version cannot do.
    fn unsupported(&self) -> Option<&'static str> {
        let DetectorKind::Scrfd = self.detector.kind;
        let Alignment::ArcFace112 = self.recogniser.alignment;
        let coarsest = self.detector.strides.iter().copied().max().unwrap_or(0);
        let fits = |side: &usize| coarsest > 0 && *side > 0 && side.is_multiple_of(coarsest);
        let files = [&self.detector.file, &self.recogniser.file, &self.calibration.file];
        let ranges = self.recogniser.ranges.as_ref().map(|spec| &spec.file);
        let liveness = self.liveness.as_ref().map(|spec| &spec.file);
        let mut files = files.into_iter().chain(ranges).chain(liveness);
        if files.any(|name| Path::new(name).components().count() != 1) {
            Some("its files must lie in the pack's own folder")
        } else if self.recogniser.input != CROP {
            Some("the recogniser's input must be 112")
        } else if self.detector.anchors == 0 || self.detector.strides.contains(&0) {
            Some("strides and anchors must be positive")
        } else if self.detector.input_sizes.is_empty()
            || !self.detector.input_sizes.iter().all(fits)
        {
            Some("input_sizes must be multiples of the coarsest stride")
        } else if self.detector.std == 0.0 || self.recogniser.std == 0.0 {
            Some("std must not be 0")
        } else {
            self.liveness.as_ref().and_then(LivenessSpec::unsupported)
        }
    }
}

fn read_model(dir: &Path, file: &str, sha256: &str) -> Result<Vec<u8>, PackError> {
    let bytes = read_hashed(dir, file, sha256)?;
    onnx::refuse_external_data(&bytes)
        .map_err(|source| PackError::Model { file: file.to_owned(), source })?;
    Ok(bytes)
}

fn read_hashed(dir: &Path, file: &str, sha256: &str) -> Result<Vec<u8>, PackError> {
    let path = dir.join(file);
    let bytes = read(&path, FILE_BYTES)?;
    let actual = hex::encode(Sha256::digest(&bytes));
    if !actual.eq_ignore_ascii_case(sha256) {
        return Err(PackError::Hash { path, expected: sha256.to_owned(), actual });
    }
    Ok(bytes)
}

fn read(path: &Path, limit: u64) -> Result<Vec<u8>, PackError> {
    let unreadable = |source| PackError::Read { path: path.to_path_buf(), source };
    let bytes = std::fs::metadata(path).map_err(unreadable)?.len();
    if bytes > limit {
        return Err(PackError::TooLarge { path: path.to_path_buf(), bytes, limit });
    }
    std::fs::read(path).map_err(unreadable)
}

#[cfg(test)]
impl DetectorSpec {
    /// Three strides, plain samples.
    pub(super) fn of_tests() -> Self {
        Self {
            file: String::new(),
            sha256: String::new(),
            kind: DetectorKind::Scrfd,
            input_sizes: vec![32],
            mean: 0.0,
            std: 1.0,
            colour: ColourOrder::Rgb,
            strides: vec![8, 16, 32],
            anchors: 2,
            score_threshold: 0.5,
            nms_iou: 0.4,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An empty graph, which is a model with nothing outside of it.
    const MODEL: &[u8] = &[0x3A, 0x00];
    /// A model whose only weight lies elsewhere.
    const EXTERNAL: &[u8] = &[0x3A, 0x04, 0x2A, 0x02, 0x70, 0x01];

    #[test]
    fn smaller_inputs_are_for_smaller_frames_only() {
        let spec = DetectorSpec { input_sizes: vec![320, 256, 640], ..DetectorSpec::of_tests() };
        assert_eq!(spec.sizes_up_to(640), [256, 320, 640]);
        assert_eq!(spec.sizes_up_to(320), [256, 320]);
        assert_eq!(spec.sizes_up_to(256), [256]);
    }

    fn pack(edit: impl Fn(&str) -> String, model: &[u8]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let hash = hex::encode(Sha256::digest(model));
        let manifest = format!(
            "name = 'own'\ndescription = ''\nlicence = 'mine'\nlicence_source = 'me'\n\
             contract = 'own/1'\n[detector]\nfile = 'model'\nsha256 = '{hash}'\nkind = 'scrfd'\n\
             input_sizes = [320]\nmean = 0\nstd = 1.0\ncolour = 'rgb'\nstrides = [8, 16, 32]\n\
             anchors = 2\nscore_threshold = 0.5\nnms_iou = 0.4\n[recogniser]\nfile = 'model'\n\
             sha256 = '{hash}'\nalignment = 'arcface-112'\ninput = 112\nmean = 0.0\nstd = 1.0\n\
             colour = 'bgr'\nwidth = 512\n[calibration]\nfile = 'model'\nsha256 = '{hash}'\n"
        );
        std::fs::write(dir.path().join(MANIFEST), edit(&manifest)).unwrap();
        std::fs::write(dir.path().join("model"), model).unwrap();
        dir
    }

    fn load(edit: impl Fn(&str) -> String) -> Result<ModelPack, PackError> {
        ModelPack::load(pack(edit, MODEL).path())
    }

    #[test]
    fn a_pack_loads_when_all_hashes_are_right() {
        let pack = load(str::to_owned).unwrap();
        assert_eq!(pack.info().contract.as_str(), "own/1");
        assert_eq!(pack.calibration(), MODEL);
    }

    #[test]
    fn a_changed_model_does_not_load() {
        let dir = pack(str::to_owned, MODEL);
        std::fs::write(dir.path().join("model"), [0x3A, 0x00, 0x08, 0x01]).unwrap();
        assert!(matches!(ModelPack::load(dir.path()), Err(PackError::Hash { .. })));
    }

    #[test]
    fn weights_outside_of_the_hash_are_refused() {
        let dir = pack(str::to_owned, EXTERNAL);
        let refusal = ModelPack::load(dir.path()).err();
        assert!(
            matches!(refusal, Some(PackError::Model { source: OnnxError::ExternalData, .. })),
            "{refusal:?}"
        );
    }

    #[test]
    fn a_manifest_that_is_not_understood_is_refused() {
        for (from, to) in [
            ("kind = 'scrfd'", "kind = 'yolo'"),
            ("colour = 'bgr'", "colour = 'bgr'\nsecret = 1"),
            ("contract = 'own/1'", "contract = ''"),
        ] {
            let refusal = load(|m| m.replace(from, to)).err();
            assert!(matches!(refusal, Some(PackError::Manifest { .. })), "{to}: {refusal:?}");
        }
        for (from, to) in [
            ("input = 112", "input = 160"),
            ("file = 'model'", "file = '../model'"),
            ("strides = [8, 16, 32]", "strides = [8, 0]"),
            ("[320]", "[300]"),
        ] {
            let refusal = load(|m| m.replace(from, to)).err();
            assert!(matches!(refusal, Some(PackError::Unsupported { .. })), "{to}: {refusal:?}");
        }
    }

    #[test]
    fn a_listing_shows_broken_packs_too() {
        let models = tempfile::tempdir().unwrap();
        std::fs::create_dir(models.path().join("broken")).unwrap();
        std::fs::write(models.path().join("broken").join(MANIFEST), "name = 1").unwrap();
        let listed = list_packs(models.path()).unwrap();
        assert!(listed.len() == 1 && listed[0].name == "broken" && listed[0].pack.is_err());
    }
}
