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
    /// More than one face of similar size.
    SeveralFaces,
    /// Cut off by the frame's edge.
    CutOff,
    /// No face.
    NoFace,
    /// The frames of one enrolment show different faces.
    Inconsistent,
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
