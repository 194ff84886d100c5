//! `assent enroll`: one subject, or a folder of them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Args;
use futures_util::stream;
use indicatif::{ProgressBar, ProgressStyle};

use super::connection::ConnectionArgs;
use super::consent_file::ConsentFile;
use super::exit::{Exit, Failure};
use super::files::read;
use super::words::in_chinese;
use super::{Outcome, output};
use crate::service::client::Client;
use crate::service::proto;

/// File endings that are taken for photos.
const ENDINGS: [&str; 3] = ["jpg", "jpeg", "png"];
/// Most photos of one subject.
const MOST_FRAMES: usize = 8;

/// `assent enroll`.
#[derive(Debug, Args)]
pub(super) struct EnrollArgs {
    /// Photos of the subject, 1 to 8
    #[arg(required_unless_present = "from")]
    photos: Vec<PathBuf>,
    /// The subject: an opaque reference, never a name, ID number, phone or e-mail
    #[arg(long, required_unless_present = "from")]
    subject: Option<String>,
    /// A folder of subjects, as SUBJECT/PHOTO.jpg
    #[arg(long, value_name = "DIR", conflicts_with_all = ["photos", "subject", "idempotency_key"])]
    from: Option<PathBuf>,
    /// The controller
    #[arg(long)]
    controller: String,
    /// The consent record as TOML; docs/consent-file.md explains every field
    #[arg(long, value_name = "FILE")]
    consent: PathBuf,
    /// Repeating the call with the same key gives the same answer; by default made of consent id
    #[arg(long)]
    idempotency_key: Option<String>,
    #[command(flatten)]
    connection: ConnectionArgs,
}

pub(super) async fn run(args: &EnrollArgs, json: bool) -> Outcome {
    let consent = ConsentFile::read(&args.consent)?;
    match &args.from {
        Some(folder) => bulk(args, folder, &consent, json).await,
        None => single(args, &consent, json).await,
    }
}

async fn single(args: &EnrollArgs, consent: &ConsentFile, json: bool) -> Outcome {
    let subject = args.subject.as_deref().unwrap_or_default();
    let mut request = request(&args.controller, subject, consent, &args.photos)?;
    if let Some(key) = &args.idempotency_key {
        request.idempotency_key.clone_from(key);
    }
    let client = args.connection.connect().await?;
    let response = client.enroll(request).await?;
    if json {
        output::print_json("EnrollResponse", &response);
    } else {
        tell!("enrolled {} as record {}", subject, response.record_id);
        tell!("  expires   {}", output::time(response.expires_at.as_ref()));
        tell!("  revision  {}", response.revision);
        for twin in &response.duplicates {
            tell!("  looks like {} (record {})", twin.subject_ref, twin.record_id);
        }
    }
    Ok(Exit::Ok)
}

/// The idempotency key is the consent id: one consent, one enrolment.
fn request(
    controller: &str,
    subject: &str,
    consent: &ConsentFile,
    photos: &[PathBuf],
) -> Result<proto::EnrollRequest, Failure> {
    let consent = consent.for_subject(subject);
    let frame = |photo: &PathBuf| {
        let data = read(photo)?;
        let form = Some(proto::probe::Form::Encoded(proto::EncodedFrame { data }));
        Ok(proto::Probe { form })
    };
    Ok(proto::EnrollRequest {
        idempotency_key: consent.consent_id.clone(),
        subject_ref: subject.to_owned(),
        controller_id: controller.to_owned(),
        consent: Some(consent),
        frames: photos.iter().map(frame).collect::<Result<_, Failure>>()?,
    })
}

async fn bulk(args: &EnrollArgs, folder: &Path, consent: &ConsentFile, json: bool) -> Outcome {
    if !consent.is_for_many() {
        let advice = "for bulk enrolment consent_id must contain {subject}: \
                      every person needs a consent of their own";
        return Err(Failure::new(Exit::Usage, advice));
    }
    let subjects = subjects(folder)?;
    let client = args.connection.connect().await?;
    let bar = progress(subjects.len() as u64);
    let mut tally = Tally::default();
    let answers = send(&client, args.controller.clone(), consent.clone(), subjects).await?;
    tally.collect(answers, &bar, json).await?;
    bar.finish_and_clear();
    eprintln!("{}", words!("{} enrolled, {} refused", tally.enrolled, tally.refused));
    Ok(if tally.refused == 0 { Exit::Ok } else { Exit::Partial })
}

type Stream = crate::service::client::Answers<proto::EnrollStreamResponse>;

/// Photos are read as the stream takes them, so that a large folder never lies in memory.
async fn send(
    client: &Client,
    controller: String,
    consent: ConsentFile,
    subjects: Subjects,
) -> Result<Stream, Failure> {
    let requests = subjects.into_iter().filter_map(move |(subject, photos)| {
        let made = request(&controller, &subject, &consent, &photos);
        made.inspect_err(|failure| {
            failure.report();
        })
        .ok()
    });
    Ok(client.enroll_stream(stream::iter(requests)).await?)
}

#[derive(Debug, Default)]
struct Tally {
    enrolled: u64,
    refused: u64,
}

impl Tally {
    async fn collect(
        &mut self,
        mut answers: Stream,
        bar: &ProgressBar,
        json: bool,
    ) -> Result<(), Failure> {
        use proto::enroll_stream_response::Result as Answer;
        while let Some(answer) = answers.next().await? {
            bar.inc(1);
            match &answer.result {
                Some(Answer::Response(_)) => self.enrolled += 1,
                Some(Answer::Error(error)) => {
                    self.refused += 1;
                    let zh = Some(&error.message_zh).filter(|zh| in_chinese() && !zh.is_empty());
                    let said = zh.unwrap_or(&error.message);
                    bar.suspend(|| eprintln!("{}: {said}", answer.idempotency_key));
                }
                None => self.refused += 1,
            }
            if json {
                bar.suspend(|| output::print_json("EnrollStreamResponse", &answer));
            }
        }
        Ok(())
    }
}

fn progress(total: u64) -> ProgressBar {
    let bar = ProgressBar::new(total);
    let style = "{bar:30} {pos}/{len}  {per_sec}  {eta} left";
    if let Ok(style) = ProgressStyle::with_template(style) {
        bar.set_style(style);
    }
    bar
}

type Subjects = BTreeMap<String, Vec<PathBuf>>;

/// The photos of each sub-folder, named by it.
fn subjects(folder: &Path) -> Result<Subjects, Failure> {
    let unreadable =
        |fault: std::io::Error| Failure::new(Exit::Usage, format!("{}: {fault}", folder.display()));
    let mut subjects = Subjects::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if let (true, Some(name)) = (path.is_dir(), path.file_name().and_then(|n| n.to_str())) {
            let photos = photos(&path).map_err(unreadable)?;
            if !photos.is_empty() {
                subjects.insert(name.to_owned(), photos);
            }
        }
    }
    if subjects.is_empty() {
        let message = format!("{}: no SUBJECT/PHOTO.jpg in there", folder.display());
        return Err(Failure::new(Exit::Usage, message));
    }
    Ok(subjects)
}

/// Whether the file's ending is a photo's.
pub(super) fn is_photo(path: &Path) -> bool {
    let ending = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
    ENDINGS.contains(&ending.to_ascii_lowercase().as_str())
}

fn photos(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut photos = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if is_photo(&path) {
            photos.push(path);
        }
    }
    photos.sort();
    photos.truncate(MOST_FRAMES);
    Ok(photos)
}
