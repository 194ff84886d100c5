//! How fast work gets done, measured on the work itself.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::queue::QueueShape;

/// A new measurement moves the average by one part in this many.
const MEMORY: u64 = 16;

/// Moving averages of what workers need. Unknown, and taken for nothing, until the first of each.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// Nanoseconds of a worker from a frame to its crop.
    frame: AtomicU64,
    /// Nanoseconds of a worker for each crop of a batch.
    crop: AtomicU64,
}

impl Pace {
    /// One frame has taken this long.
    pub(super) fn frame_took(&self, took: Duration) {
        learn(&self.frame, nanoseconds(took));
    }

    /// A batch of `count` crops has taken this long.
    pub(super) fn crops_took(&self, count: usize, took: Duration) {
        learn(&self.crop, nanoseconds(took) / (count.max(1) as u64));
    }

    /// How long so many frames and crops take.
    pub(super) fn time_for(&self, frames: usize, crops: usize, shape: &QueueShape) -> Duration {
        let (frame, crop) = (self.frame.load(Ordering::Relaxed), self.crop.load(Ordering::Relaxed));
        let (frames, crops) = (frames as u64, crops as u64);
        let divided = |nanoseconds: u64, of: usize| nanoseconds / of.max(1) as u64;
        let faces = divided(frames.saturating_mul(frame), shape.workers);
        let embeddings = divided((frames + crops).saturating_mul(crop), shape.recognisers);
        Duration::from_nanos(faces.saturating_add(embeddings))
    }
}

/// Two workers that learn at once may lose one of two measurements, which an average survives.
fn learn(average: &AtomicU64, measured: u64) {
    let old = average.load(Ordering::Relaxed);
    let new = if old == 0 { measured } else { (old / MEMORY) * (MEMORY - 1) + measured / MEMORY };
    average.store(new.max(1), Ordering::Relaxed);
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_average_follows_what_is_measured() {
        let shape = |workers| QueueShape {
            places: 1,
            batch_sizes: vec![1],
            workers,
            recognisers: workers.min(2),
            gate_wait: Duration::ZERO,
        };
        let pace = Pace::default();
        assert_eq!(pace.time_for(100, 100, &shape(2)), Duration::ZERO, "nothing is known");
        pace.frame_took(Duration::from_millis(4));
        pace.crops_took(8, Duration::from_millis(16));
        assert_eq!(pace.time_for(10, 5, &shape(2)), Duration::from_millis(35));
        // Ten workers with a device that computes two batches at once.
        assert_eq!(pace.time_for(10, 5, &shape(10)), Duration::from_millis(19));
        for _ in 0..200 {
            pace.frame_took(Duration::from_millis(8));
        }
        let time = pace.time_for(10, 0, &shape(1));
        assert!(time > Duration::from_millis(95) && time <= Duration::from_millis(100), "{time:?}");
    }
}
