//! From photos to embeddings, through the whole pipeline, with progress on standard error.
//!
//! # Invariants
//! - Every photo is either used or counted with the reason why not.

use std::collections::BTreeMap;
use std::path::Path;

use futures_util::{StreamExt, stream};
use indicatif::{ProgressBar, ProgressStyle};

use super::super::exit::{Exit, Failure};
use super::pairs::Face;
use super::photos::Person;
use crate::pipeline::{Company, FaceDemands, Frame, Pipeline, PipelineError, Ticket, Urgency};
use crate::types::{Embedding, Quality, QualityReason};

/// As an enrolment station asks, from as far away as a gate: it must be clear whose face is meant.
const DEMANDS: FaceDemands =
    FaceDemands { min_eye_distance_px: 20.0, company: Company::Aside, live: false };
/// Photos in work for each worker: enough for it never to wait, few enough to lie in memory.
const PHOTOS_AHEAD: usize = 8;

/// What came of all photos.
#[derive(Default)]
pub(super) struct Faces {
    /// By person, then by photo.
    pub(super) used: Vec<Face>,
    /// By face: the photo, as `person/photo.jpg`.
    pub(super) labels: Vec<String>,
    /// By reason: how many photos are not used.
    pub(super) left_out: BTreeMap<&'static str, u64>,
}

/// Embeds every photo of everybody.
///
/// # Errors
/// A file that cannot be read, or a pipeline that fails.
pub(super) async fn embed(pipeline: &Pipeline, people: &[Person]) -> Result<Faces, Failure> {
    let photos = people.iter().enumerate().flat_map(|(number, person)| {
        person.photos.iter().map(move |photo| (number, person, photo.as_path()))
    });
    let bar = progress(people.iter().map(|person| person.photos.len() as u64).sum());
    let seen = photos.map(|(number, person, photo)| {
        let bar = &bar;
        async move {
            let seen = see(pipeline, photo).await;
            bar.inc(1);
            seen.map(|seen| (number, person, photo, seen))
        }
    });
    let ahead = pipeline.report().workers * PHOTOS_AHEAD;
    let mut answers = stream::iter(seen).buffered(ahead);
    let mut faces = Faces::default();
    while let Some(answer) = answers.next().await {
        let (number, person, photo, seen) = answer?;
        match seen {
            Ok(embedding) => {
                faces.used.push(Face { embedding, person: number, group: person.group });
                let file = photo.file_name().unwrap_or_default().to_string_lossy();
                faces.labels.push(format!("{}/{file}", person.name));
            }
            Err(reason) => *faces.left_out.entry(reason).or_default() += 1,
        }
    }
    drop(answers);
    bar.finish_and_clear();
    Ok(faces)
}

/// One photo's embedding, or why there is none.
async fn see(
    pipeline: &Pipeline,
    photo: &Path,
) -> Result<Result<Embedding, &'static str>, Failure> {
    let unreadable =
        |fault: std::io::Error| Failure::new(Exit::Usage, fault.to_string()).about(photo);
    let frame = Frame::Encoded(std::fs::read(photo).map_err(unreadable)?.into());
    let ticket = Ticket { urgency: Urgency::Bulk, ..Ticket::default() };
    match pipeline.embed(frame, DEMANDS, ticket).await {
        Ok(face) => Ok(Ok(face.embedding)),
        Err(PipelineError::Decode(_)) => Ok(Err("no picture that can be decoded")),
        Err(PipelineError::NoFace) => Ok(Err("no face")),
        Err(PipelineError::SeveralFaces(_)) => Ok(Err("several faces")),
        Err(PipelineError::LowQuality(quality)) => Ok(Err(first_reason(&quality))),
        Err(
            fault @ (PipelineError::NotLive { .. }
            | PipelineError::Late
            | PipelineError::Superseded
            | PipelineError::Overloaded { .. }
            | PipelineError::Stopped
            | PipelineError::Internal),
        ) => Err(Failure::internal(fault).about(photo)),
    }
}

/// Of several reasons the first counts, so that the counts add up to the photos.
fn first_reason(quality: &Quality) -> &'static str {
    quality.reasons.first().map_or("low quality", |reason| match reason {
        QualityReason::TooSmall => "too small",
        QualityReason::Blurred => "blurred",
        QualityReason::Turned => "turned away",
        QualityReason::Dark => "dark",
        QualityReason::Overexposed => "overexposed",
        QualityReason::SeveralFaces => "several faces",
        QualityReason::CutOff => "cut off",
        QualityReason::NoFace => "no face",
        QualityReason::Inconsistent => "another face than before",
    })
}

/// How far a run over so many photos is, on standard error.
pub(in super::super) fn progress(photos: u64) -> ProgressBar {
    let bar = ProgressBar::new(photos);
    let style = "{bar:30} {pos}/{len} photos  {per_sec}  {eta} left";
    if let Ok(style) = ProgressStyle::with_template(style) {
        bar.set_style(style);
    }
    bar
}
