//! What a calibration found: the table, the groups, and what to be careful about.

use super::super::words::Said;
use std::collections::BTreeMap;

use serde::Serialize;

use super::bounds::Share;
use super::faces::Faces;
use super::pairs::{Pair, Pairs};
use super::photos::{Groups, Person};
use super::rates::{Curve, Edge};
use crate::consent::ErrorRate;

/// The usual rates, falling.
const RATES: [f64; 6] = [1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6];
/// Where extrapolation ends.
const LAST_EXTRAPOLATED: f64 = 1e-9;
/// NIST SP 800-63B-4, 3.2.3: false non-matches in each group.
const MOST_FNMR: f64 = 0.05;
/// One photo in so many that is not used is worth a warning.
const MANY_LEFT_OUT: u64 = 20;
/// Fewer people with two photos say little about others.
const FEW_MATED: usize = 100;

/// A rate as it was counted.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Measured {
    #[serde(flatten)]
    pub(super) share: Share,
    pub(super) rate: f64,
    /// With a confidence of 95 %, were pairs independent.
    pub(super) low: f64,
    pub(super) high: f64,
}

impl Measured {
    fn of(share: Share) -> Self {
        let (low, high) = share.bounds();
        Self { share, rate: share.rate(), low, high }
    }

    fn at_most(&self, limit: f64) -> Verdict {
        if self.share.of == 0 {
            Verdict::NotEnoughData
        } else if self.high <= limit {
            Verdict::Yes
        } else if self.low > limit {
            Verdict::No
        } else {
            Verdict::NotEnoughData
        }
    }
}

/// Whether a rate is at most what it may be, as far as 95 % of confidence tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Verdict {
    Yes,
    No,
    NotEnoughData,
}

impl Verdict {
    pub(super) fn words(self) -> String {
        match self {
            Self::Yes => words!("yes"),
            Self::No => words!("no"),
            Self::NotEnoughData => words!("not enough data"),
        }
    }
}

/// What a row rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Basis {
    Measured,
    Extrapolated,
}

/// One row of the table.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Row {
    pub(super) fmr: f64,
    pub(super) threshold: f64,
    pub(super) basis: Basis,
    /// At the threshold.
    pub(super) false_matches: Measured,
    /// At the threshold.
    pub(super) false_non_matches: Measured,
}

/// One group at the threshold of the whole.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Group {
    pub(super) name: String,
    pub(super) people: usize,
    pub(super) photos: usize,
    /// Among the pairs of two people of the group.
    pub(super) false_matches: Measured,
    pub(super) false_non_matches: Measured,
    /// FMR at most 1:10,000.
    pub(super) fmr_verdict: Verdict,
    /// FNMR under 5 %.
    pub(super) fnmr_verdict: Verdict,
    /// The threshold at which the group by itself has an FMR of 1:10,000, where its pairs tell.
    pub(super) own_threshold: Option<f64>,
}

/// Two photos whose labels may be wrong.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Suspect {
    pub(super) photos: [String; 2],
    pub(super) cosine: f32,
}

/// All of it.
#[derive(Debug, Serialize)]
pub(super) struct Findings {
    /// The pack's contract.
    pub(super) model: String,
    pub(super) detector: String,
    pub(super) folder: String,
    /// People with a usable photo, and those with two.
    pub(super) people: usize,
    pub(super) mated: usize,
    /// Photos that are used.
    pub(super) photos: usize,
    pub(super) left_out: BTreeMap<&'static str, u64>,
    pub(super) genuine_pairs: u64,
    pub(super) impostor_pairs: u64,
    pub(super) genuine_mean: f64,
    pub(super) genuine_std: f64,
    pub(super) impostor_mean: f64,
    pub(super) impostor_std: f64,
    pub(super) equal_error_rate: Option<f64>,
    pub(super) table: Vec<Row>,
    /// Rates that the photos are too few for, with the impostor pairs that they would take.
    pub(super) unsupported: Vec<(f64, u64)>,
    /// Where the groups are judged: the FMR of the whole, and its threshold.
    pub(super) judged_at: (f64, f64),
    pub(super) groups: Vec<Group>,
    /// Strangers who may be one person.
    pub(super) alike: Vec<Suspect>,
    /// Photos of one person that may show two.
    pub(super) unlike: Vec<Suspect>,
    pub(super) warnings: Vec<Said>,
}

/// Where the photos and embeddings come from.
pub(super) struct Source {
    pub(super) model: String,
    pub(super) detector: String,
    pub(super) folder: String,
}

/// Too few pairs for a table.
#[derive(Debug)]
pub(super) struct TooFew {
    pub(super) genuine: u64,
    pub(super) impostors: u64,
}

impl std::fmt::Display for TooFew {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.genuine == 0 {
            return f.write_str("nobody has two photos that can be used: FNMR cannot be measured");
        }
        let needed = Curve::pairs_for(RATES[1]);
        let Self { impostors, .. } = self;
        write!(
            f,
            "{impostors} pairs of two people are too few for two rows of a table: FMR {:e} alone \
             needs {needed}; take more people",
            RATES[1]
        )
    }
}

impl Findings {
    /// # Errors
    /// Too few pairs for two rows, or no pair of one person.
    pub(super) fn of(
        source: Source,
        people: &[Person],
        groups: &Groups,
        faces: &Faces,
        (pairs, curve): (&Pairs, &Curve),
        extrapolate: bool,
    ) -> Result<Self, TooFew> {
        let mut table = measured_rows(curve);
        if table.len() < 2 || curve.genuine() == 0 {
            return Err(TooFew { genuine: curve.genuine(), impostors: curve.impostors() });
        }
        let judged = judged_at(&table);
        if extrapolate {
            table.extend(extrapolated_rows(curve, &table));
        }
        let photos_of = photos_by_person(people.len(), faces);
        let of_group = |number: usize| {
            let tally = Curve::of(&pairs.groups[number]);
            let members = people.iter().zip(&photos_of).filter(|(p, _)| p.group == Some(number));
            Group::of(groups.names[number].clone(), members.map(|(_, n)| *n), &tally, judged.1)
        };
        let (genuine, impostor) = curve.moments;
        let mut this = Self {
            model: source.model,
            detector: source.detector,
            folder: source.folder,
            people: photos_of.iter().filter(|photos| **photos > 0).count(),
            mated: photos_of.iter().filter(|photos| **photos > 1).count(),
            photos: faces.used.len(),
            left_out: faces.left_out.clone(),
            genuine_pairs: curve.genuine(),
            impostor_pairs: curve.impostors(),
            genuine_mean: rounded(genuine.mean, 4),
            genuine_std: rounded(genuine.deviation, 4),
            impostor_mean: rounded(impostor.mean, 4),
            impostor_std: rounded(impostor.deviation, 4),
            equal_error_rate: curve.equal_error().map(|(_, rate)| rate),
            unsupported: unsupported(curve),
            judged_at: (judged.0, judged.1.cosine()),
            groups: (0..groups.names.len()).map(of_group).collect(),
            alike: suspects(faces, pairs.most_alike_impostors(), |c| c >= genuine.mean),
            unlike: suspects(faces, pairs.least_alike_genuine(), |c| c <= impostor.mean),
            table,
            warnings: groups.complaints.clone(),
        };
        this.warn(curve);
        Ok(this)
    }

    fn warn(&mut self, curve: &Curve) {
        let left_out: u64 = self.left_out.values().sum();
        if left_out * MANY_LEFT_OUT > self.photos as u64 + left_out {
            self.warnings.push(said!(
                "{} photos are left out: the table speaks of the others only",
                left_out
            ));
        }
        if self.mated < FEW_MATED {
            let mated = self.mated;
            self.warnings.push(said!("FNMR rests on {} people with two photos or more", mated));
        }
        let default = ErrorRate::DEFAULT_FMR.get();
        if self.judged_at.0 > default {
            let covered = self.table.last().is_some_and(|row| row.fmr <= default);
            let (fmr, needed) = (format!("{default:e}"), Curve::pairs_for(default));
            let given = self.impostor_pairs;
            self.warnings.push(if covered {
                said!(
                    "FMR {}, which gates have by default, needs {} pairs of two people, and there \
                     are {}: it is extrapolated",
                    fmr,
                    needed,
                    given
                )
            } else {
                said!(
                    "FMR {}, which gates have by default, needs {} pairs of two people, and there \
                     are {}: a service with this table refuses such gates",
                    fmr,
                    needed,
                    given
                )
            });
        }
        let (alike, unlike) = (curve.impostors_like_genuine(), curve.genuine_like_impostors());
        if alike > 0 {
            self.warnings.push(said!(
                "{} pairs of two people are more alike than half of the pairs of one person: \
                 probably one person under two names. Wrong labels raise the thresholds",
                alike
            ));
        }
        if unlike > 0 {
            self.warnings.push(said!(
                "{} pairs of one person are less alike than half of the pairs of two people: \
                 probably wrong labels, which raise FNMR",
                unlike
            ));
        }
    }
}

impl Group {
    fn of(
        name: String,
        photos: impl Iterator<Item = usize>,
        curve: &Curve,
        threshold: Edge,
    ) -> Self {
        let photos: Vec<usize> = photos.filter(|photos| *photos > 0).collect();
        let false_matches = Measured::of(curve.fmr(threshold));
        let false_non_matches = Measured::of(curve.fnmr(threshold));
        let limit = ErrorRate::DEFAULT_FMR.get();
        Self {
            name,
            people: photos.len(),
            photos: photos.iter().sum(),
            fmr_verdict: false_matches.at_most(limit),
            fnmr_verdict: false_non_matches.at_most(MOST_FNMR),
            false_matches,
            false_non_matches,
            own_threshold: curve.threshold(limit).map(Edge::cosine),
        }
    }
}

/// Rows that the pairs can tell; thresholds rise, so one that two rates share stands once.
fn measured_rows(curve: &Curve) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    for fmr in RATES {
        let Some(at) = curve.threshold(fmr) else { continue };
        if rows.last().is_none_or(|last| last.threshold < at.cosine()) {
            rows.push(row(curve, fmr, at, Basis::Measured));
        }
    }
    rows
}

/// The tail of impostor cosines is close to exponential: each further power of ten adds to the
/// threshold what the last measured one did.
fn extrapolated_rows(curve: &Curve, measured: &[Row]) -> Vec<Row> {
    let [.., before, last] = measured else { return Vec::new() };
    let slope =
        (last.threshold - before.threshold) / (before.fmr.log10() - last.fmr.log10()).max(1.0);
    let decades = (last.fmr / LAST_EXTRAPOLATED).log10().round();
    let steps = (1..).map(f64::from).take_while(|step| *step <= decades);
    steps
        .map(|step| (last.fmr * 10_f64.powf(-step), last.threshold + step * slope))
        .take_while(|(_, threshold)| *threshold < 1.0)
        .map(|(fmr, threshold)| {
            row(curve, significant(fmr), Edge::nearest(threshold), Basis::Extrapolated)
        })
        .collect()
}

fn row(curve: &Curve, fmr: f64, at: Edge, basis: Basis) -> Row {
    Row {
        fmr,
        threshold: at.cosine(),
        basis,
        false_matches: Measured::of(curve.fmr(at)),
        false_non_matches: Measured::of(curve.fnmr(at)),
    }
}

/// The default FMR of gates, or the strictest one that is measured.
fn judged_at(measured: &[Row]) -> (f64, Edge) {
    let default = ErrorRate::DEFAULT_FMR.get();
    let wanted = measured.iter().find(|row| (row.fmr / default - 1.0).abs() < 1e-9);
    let row = wanted.or(measured.last());
    row.map_or((default, Edge::nearest(1.0)), |row| (row.fmr, Edge::nearest(row.threshold)))
}

fn unsupported(curve: &Curve) -> Vec<(f64, u64)> {
    let pairs = RATES.into_iter().map(|fmr| (fmr, Curve::pairs_for(fmr)));
    pairs.filter(|(_, pairs)| curve.impostors() < *pairs).collect()
}

fn photos_by_person(people: usize, faces: &Faces) -> Vec<usize> {
    let mut photos = vec![0; people];
    for face in &faces.used {
        photos[face.person] += 1;
    }
    photos
}

fn suspects(faces: &Faces, pairs: &[Pair], is_strange: impl Fn(f64) -> bool) -> Vec<Suspect> {
    let strange = pairs.iter().take_while(|pair| is_strange(f64::from(pair.cosine)));
    let label = |place: usize| faces.labels[place].clone();
    strange
        .map(|Pair { cosine, faces: (one, other) }| Suspect {
            photos: [label(*one), label(*other)],
            cosine: *cosine,
        })
        .collect()
}

/// A power of ten without the noise of its computation.
fn significant(rate: f64) -> f64 {
    format!("{rate:.3e}").parse().unwrap_or(rate)
}

/// To so many decimal places.
pub(super) fn rounded(value: f64, places: i32) -> f64 {
    let scale = 10_f64.powi(places);
    (value * scale).round() / scale
}
