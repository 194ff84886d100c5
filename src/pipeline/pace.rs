//! How fast work gets done, measured on the work itself.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

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

    /// How long `workers` need for so many frames and crops.
    pub(super) fn time_for(&self, frames: usize, crops: usize, workers: usize) -> Duration {
        let (frame, crop) = (self.frame.load(Ordering::Relaxed), self.crop.load(Ordering::Relaxed));
        let (frames, crops) = (frames as u64, crops as u64);
        let all = frames
            .saturating_mul(frame)
            .saturating_add(frames.saturating_add(crops).saturating_mul(crop));
        Duration::from_nanos(all / workers.max(1) as u64)
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
        let pace = Pace::default();
        assert_eq!(pace.time_for(100, 100, 2), Duration::ZERO, "nothing is known");
        pace.frame_took(Duration::from_millis(4));
        pace.crops_took(8, Duration::from_millis(16));
        assert_eq!(pace.time_for(10, 5, 2), Duration::from_millis(35));
        for _ in 0..200 {
            pace.frame_took(Duration::from_millis(8));
        }
        let time = pace.time_for(10, 0, 1);
        assert!(time > Duration::from_millis(95) && time <= Duration::from_millis(100), "{time:?}");
    }
}
