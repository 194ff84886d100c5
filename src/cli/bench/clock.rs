//! A clock that is finer than the runtime's, whose timers go by whole milliseconds: arrivals that
//! are rounded to them come in bursts, which no independent people do.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::io::unix::AsyncFd;

/// Shorter waits are not worth a call of the system.
const AT_ONCE: Duration = Duration::from_micros(20);

/// A timer of the system.
pub(super) struct Clock(AsyncFd<OwnedFd>);

impl Clock {
    #[expect(unsafe_code, reason = "the runtime wants a promise about the descriptor")]
    pub(super) fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        // SAFETY: an `OwnedFd` keeps one descriptor open until it is dropped.
        Ok(Self(unsafe { AsyncFd::register(timer) }?))
    }

    /// Returns at `due`, at most 20 microseconds before, or at once where it has passed. Should the
    /// system's timer fail, the runtime's does it.
    pub(super) async fn wait_until(&self, due: Instant) {
        let left = due.saturating_duration_since(Instant::now());
        if left < AT_ONCE {
            // Others get their turn however late it is.
            tokio::task::coop::consume_budget().await;
        } else if self.wait(left).await.is_err() {
            tokio::time::sleep_until(due.into()).await;
        }
    }

    async fn wait(&self, left: Duration) -> io::Result<()> {
        let it_value = Timespec::try_from(left).map_err(io::Error::other)?;
        let it_interval = Timespec::default();
        let once = Itimerspec { it_interval, it_value };
        timerfd_settime(self.0.get_ref(), TimerfdTimerFlags::empty(), &once)?;
        loop {
            let mut ready = self.0.readable().await?;
            let read = |timer: &AsyncFd<OwnedFd>| {
                Ok(rustix::io::read(timer.get_ref(), &mut [0; size_of::<u64>()])?)
            };
            if let Ok(expired) = ready.try_io(read) {
                return expired.map(drop);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_due_is_waited_for_and_what_has_passed_is_not() {
        let clock = Clock::new().unwrap();
        for us in [30, 300, 3_000] {
            let due = Instant::now() + Duration::from_micros(us);
            clock.wait_until(due).await;
            assert!(Instant::now() + AT_ONCE >= due);
        }
        clock.wait_until(Instant::now()).await;
    }
}
