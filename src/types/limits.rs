//! Limits on what comes from outside, in one place.

use serde::{Deserialize, Serialize};

/// Bounds that are checked before anything is allocated for a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Largest message, bytes.
    pub message_bytes: usize,
    /// Largest decoded frame, pixels.
    pub frame_pixels: u64,
    /// Most frames in one enrolment.
    pub frames_per_enrolment: usize,
    /// Oldest frame that is still decided on, and the furthest into the future, milliseconds.
    pub frame_age_ms: u64,
    /// Verifications that may wait for or be in the pipeline at once; more are refused. Enrolments
    /// have places of their own beside these.
    pub requests_in_flight: usize,
    /// Longest wait for an answer when the caller names no deadline, milliseconds.
    pub default_deadline_ms: u64,
    /// Connections at once.
    pub connections: usize,
    /// Streams at once on one connection.
    pub streams_per_connection: u32,
    /// Time for a TLS handshake, milliseconds.
    pub handshake_ms: u64,
    /// Largest policy document, bytes.
    pub policy_bytes: usize,
}

impl Limits {
    /// Enrolments, each a request, in flight at once.
    #[must_use]
    pub fn enrolments_in_flight(&self) -> usize {
        self.requests_in_flight.div_ceil(2)
    }

    /// Enrolments of bulk streams in flight at once, over all streams.
    #[must_use]
    pub fn bulk_in_flight(&self) -> usize {
        self.requests_in_flight.div_ceil(4)
    }

    /// Room for the frames of all requests in flight, where enrolments may have half of it.
    #[must_use]
    pub fn room_for_frames(&self) -> usize {
        let enrolments = self.enrolments_in_flight() + self.bulk_in_flight();
        let enrolled = enrolments * self.frames_per_enrolment;
        (self.requests_in_flight + enrolled).max(2 * enrolled)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_bytes: 4 << 20,
            frame_pixels: 16_000_000,
            frames_per_enrolment: 8,
            frame_age_ms: 10_000,
            requests_in_flight: 256,
            default_deadline_ms: 10_000,
            connections: 1024,
            streams_per_connection: 64,
            handshake_ms: 5_000,
            policy_bytes: 1 << 20,
        }
    }
}
