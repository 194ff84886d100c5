//! What was measured about one face, and what speaks against it.

use serde::{Deserialize, Serialize};

/// A reason against a face.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum QualityReason {
    /// Smaller than the minimum distance between the eyes.
    TooSmall,
    /// Too little detail.
    Blurred,
    /// Turned too far.
    Turned,
    /// Too dark.
    Dark,
    /// Overexposed.
    Overexposed,
    /// More than one face, so that it is not clear whose is meant, or the gate wants one alone.
    SeveralFaces,
    /// Cut off by the frame's edge.
    CutOff,
    /// No face.
    NoFace,
    /// The frames of one enrolment show different faces.
    Inconsistent,
}

impl QualityReason {
    /// The reason in words, for the person who takes the photo.
    #[must_use]
    pub fn explanation(self) -> &'static str {
        match self {
            Self::TooSmall => "the face is too small; come closer",
            Self::Blurred => "the face is blurred",
            Self::Turned => "the face is turned away",
            Self::Dark => "the face is too dark",
            Self::Overexposed => "the face is overexposed",
            Self::SeveralFaces => "there are several faces",
            Self::CutOff => "the face is cut off by the edge",
            Self::NoFace => "there is no face",
            Self::Inconsistent => "this is not the face of the first frame",
        }
    }
}

/// What was measured about one face. Where no detector ran (aligned crops) its fields are 0.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Quality {
    /// Detector confidence, 0 to 1.
    pub detector_score: f32,
    /// Distance between the eyes in pixels of the frame.
    pub eye_distance_px: f32,
    /// Variance of the aligned crop's Laplacian, grey levels squared.
    pub sharpness: f32,
    /// Mean brightness of the aligned crop, 0 to 255.
    pub brightness: f32,
    /// Estimated turn to the side, degrees.
    pub yaw_degrees: f32,
    /// Faces found in the frame.
    pub faces: u32,
    /// Reasons against the face; empty when it is good.
    pub reasons: Vec<QualityReason>,
}
