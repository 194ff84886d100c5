//! The requests themselves: probes out of a folder or drawn, and consents for those enrolled.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};

use uuid::Uuid;

use super::super::consent_file::ConsentFile;
use super::super::enroll::is_photo;
use super::super::exit::{Exit, Failure};
use super::super::files::read;
use super::plan::Random;
use super::{BenchArgs, ProbeKind};
use crate::service::proto;
use crate::service::verify_client::EncodedVerify;
use proto::verify_request::Probe;

/// Embeddings that are drawn.
const EMBEDDINGS: usize = 4096;
/// Dimensions, where the service does not say: those of the reference pack.
const WIDTH: usize = 512;
/// Side of an aligned crop, pixels.
const CROP: usize = 112;

/// Everything that is sent, made before the first request.
pub(super) struct Workload {
    /// Requests with nothing but a probe, and with all but the probe; encoded.
    probes: Vec<EncodedVerify>,
    gates: Vec<EncodedVerify>,
    next: AtomicUsize,
    enrolment: Option<Enrolment>,
}

/// How people are enrolled.
struct Enrolment {
    controller: String,
    consent: ConsentFile,
    /// In every subject's name, so that two runs never meet.
    run: String,
    number: AtomicUsize,
    /// Enrolled and not yet revoked.
    held: Mutex<Vec<String>>,
}

impl Workload {
    /// `status`: what the service said of itself, if it did.
    pub(super) fn load(
        args: &BenchArgs,
        status: Option<&proto::StatusResponse>,
    ) -> Result<Self, Failure> {
        let probes = match args.probes {
            ProbeKind::Photos => photos(args)?.into_iter().map(encoded).collect(),
            ProbeKind::Crops => crops(args)?,
            ProbeKind::Embeddings => {
                let told = status.map(|status| status.model_contract.as_str());
                let contract = args.contract.as_deref().or(told).ok_or_else(|| {
                    let message = "this caller's role may not ask which model serves: name its \
                                   contract with --contract";
                    Failure::new(Exit::Usage, message)
                })?;
                embeddings(contract, args.seed)
            }
        };
        let enrolment = Enrolment::of(args)?;
        let probes = probes.into_iter().map(only_probe).collect();
        let gates = args.gates.iter().map(|gate| all_but_probe(gate)).collect();
        Ok(Self { probes, gates, next: AtomicUsize::new(0), enrolment })
    }

    pub(super) fn verify(&self) -> [EncodedVerify; 2] {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let gate = self.gates[number % self.gates.len()].clone();
        [gate, self.probes[number % self.probes.len()].clone()]
    }

    pub(super) fn enrol(&self) -> Option<proto::EnrollRequest> {
        let enrolment = self.enrolment.as_ref()?;
        let number = enrolment.number.fetch_add(1, Ordering::Relaxed);
        let subject = format!("bench-{}-{number}", enrolment.run);
        let consent = enrolment.consent.for_subject(&subject);
        let probe = self.probes[number % self.probes.len()].decoded().probe?;
        Some(proto::EnrollRequest {
            idempotency_key: consent.consent_id.clone(),
            subject_ref: subject,
            controller_id: enrolment.controller.clone(),
            consent: Some(consent),
            frames: vec![proto::Probe { form: Some(form(probe)) }],
        })
    }

    /// Remembers who is held now, for a later revocation.
    pub(super) fn enrolled(&self, subject: String) {
        if let Some(enrolment) = &self.enrolment {
            enrolment.held.lock().unwrap_or_else(PoisonError::into_inner).push(subject);
        }
    }

    /// The revocation of somebody whom the bench enrolled, if there is anybody.
    pub(super) fn revoke(&self) -> Option<proto::RevokeRequest> {
        let enrolment = self.enrolment.as_ref()?;
        let subject = enrolment.held.lock().unwrap_or_else(PoisonError::into_inner).pop()?;
        Some(enrolment.revocation(subject))
    }

    /// The revocations of all whom a cancelled enrolment may have left, and of all held.
    pub(super) fn revoke_all(&self) -> Vec<proto::RevokeRequest> {
        let Some(enrolment) = &self.enrolment else { return Vec::new() };
        let numbers = 0..enrolment.number.load(Ordering::Relaxed);
        let subjects = numbers.map(|number| format!("bench-{}-{number}", enrolment.run));
        subjects.map(|subject| enrolment.revocation(subject)).collect()
    }
}

impl Enrolment {
    fn of(args: &BenchArgs) -> Result<Option<Self>, Failure> {
        let (Some(path), Some(controller)) = (&args.consent, &args.controller) else {
            return Ok(None);
        };
        let consent = ConsentFile::read(path)?;
        if !consent.is_for_many() {
            let message = "consent_id must contain {subject}: every person needs a consent";
            return Err(Failure::new(Exit::Usage, message).about(path));
        }
        let run = Uuid::new_v4().simple().to_string()[..8].to_owned();
        let (number, held) = (AtomicUsize::new(0), Mutex::default());
        Ok(Some(Self { controller: controller.clone(), consent, run, number, held }))
    }

    fn revocation(&self, subject: String) -> proto::RevokeRequest {
        proto::RevokeRequest {
            controller_id: self.controller.clone(),
            target: Some(proto::revoke_request::Target::SubjectRef(subject)),
        }
    }
}

fn only_probe(probe: Probe) -> EncodedVerify {
    EncodedVerify::of(&proto::VerifyRequest { probe: Some(probe), ..Default::default() })
}

fn all_but_probe(gate: &str) -> EncodedVerify {
    EncodedVerify::of(&proto::VerifyRequest {
        gate_id: gate.to_owned(),
        intent: proto::Intent::Button.into(),
        ..Default::default()
    })
}

/// The same picture as a frame of an enrolment.
fn form(probe: Probe) -> proto::probe::Form {
    match probe {
        Probe::Encoded(frame) => proto::probe::Form::Encoded(frame),
        Probe::Raw(frame) => proto::probe::Form::Raw(frame),
        Probe::Aligned(face) => proto::probe::Form::Aligned(face),
        Probe::Embedding(vector) => proto::probe::Form::Embedding(vector),
    }
}

fn encoded(data: Vec<u8>) -> Probe {
    Probe::Encoded(proto::EncodedFrame { data })
}

/// The photos of the folder and its sub-folders, in order.
fn photos(args: &BenchArgs) -> Result<Vec<Vec<u8>>, Failure> {
    let Some(folder) = &args.photos else {
        let message = "a folder of photos is needed; --probes embeddings needs none";
        return Err(Failure::new(Exit::Usage, message));
    };
    let mut paths = Vec::new();
    collect(folder, &mut paths)
        .map_err(|fault| Failure::new(Exit::Usage, fault.to_string()).about(folder))?;
    if paths.is_empty() {
        return Err(Failure::new(Exit::Usage, "no JPEG or PNG in there").about(folder));
    }
    paths.sort();
    paths.iter().map(|path| read(path)).collect()
}

fn collect(folder: &Path, paths: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, paths)?;
        } else if is_photo(&path) {
            paths.push(path);
        }
    }
    Ok(())
}

/// The middle of each JPEG, scaled to a crop's size: not aligned to landmarks, which the recogniser
/// does not notice in its work.
fn crops(args: &BenchArgs) -> Result<Vec<Probe>, Failure> {
    let photos = photos(args)?;
    let crops: Vec<Probe> = photos.iter().filter_map(|photo| crop(photo)).collect();
    if crops.is_empty() {
        let message = "none of the photos is a JPEG of at least 112 x 112 pixels";
        return Err(Failure::new(Exit::Usage, message));
    }
    Ok(crops)
}

fn crop(photo: &[u8]) -> Option<Probe> {
    use zune_core::{bytestream::ZCursor, colorspace::ColorSpace, options::DecoderOptions};
    let options = DecoderOptions::default().jpeg_set_out_colorspace(ColorSpace::RGB);
    let mut decoder = zune_jpeg::JpegDecoder::new_with_options(ZCursor::new(photo), options);
    let pixels = decoder.decode().ok()?;
    let (width, height) = decoder.dimensions()?;
    let side = width.min(height);
    if side < CROP {
        return None;
    }
    let (left, top) = ((width - side) / 2, (height - side) / 2);
    let mut rgb = Vec::with_capacity(CROP * CROP * 3);
    for y in 0..CROP {
        for x in 0..CROP {
            let at = ((top + y * side / CROP) * width + left + x * side / CROP) * 3;
            rgb.extend_from_slice(pixels.get(at..at + 3)?);
        }
    }
    Some(Probe::Aligned(proto::AlignedFace { rgb }))
}

/// Directions that are nobody's.
fn embeddings(contract: &str, seed: u64) -> Vec<Probe> {
    let mut random = Random(seed ^ 0x5EED);
    #[expect(clippy::cast_possible_truncation, reason = "a sample")]
    let mut draw = |_| random.normal() as f32;
    let vector = |_| proto::EmbeddingProbe {
        values: (0..WIDTH).map(&mut draw).collect(),
        model_contract: contract.to_owned(),
    };
    (0..EMBEDDINGS).map(vector).map(Probe::Embedding).collect()
}
