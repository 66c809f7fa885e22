//! The time of a run, in nanoseconds since it began, and a wait that is precise.
//!
//! Tokio's timer is precise to a millisecond, which would send ten requests late together at 10,000 a second. The
//! kernel's timer file is precise to some microseconds.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Instant;

use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime,
    timerfd_create, timerfd_settime,
};
use tokio::io::unix::AsyncFd;

const SECOND: u64 = 1_000_000_000;

/// Nanoseconds since a run began.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    began: Instant,
    /// The same moment as the kernel's timers count it.
    monotonic: u64,
}

impl Clock {
    /// A clock that begins now.
    pub(crate) fn start() -> Clock {
        Clock { began: Instant::now(), monotonic: nanos(clock_gettime(ClockId::Monotonic)) }
    }

    pub(crate) fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// A timer of the kernel.
#[derive(Debug)]
pub(crate) struct Timer {
    clock: Clock,
    file: AsyncFd<OwnedFd>,
}

impl Timer {
    /// A timer of `clock`; inside a Tokio runtime.
    ///
    /// # Errors
    /// When the process has no file left.
    pub(crate) fn new(clock: Clock) -> io::Result<Timer> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let file = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        #[expect(
            deprecated,
            reason = "what replaces it is unsafe for types whose file changes under it; an OwnedFd's does not"
        )]
        let file = AsyncFd::new(file)?;
        Ok(Timer { clock, file })
    }

    /// Waits until the clock shows `at`.
    ///
    /// # Errors
    /// When the kernel refuses the time.
    pub(crate) async fn until(&self, at: u64) -> io::Result<()> {
        // A time of zero would disarm the timer.
        let at_monotonic = self.clock.monotonic.saturating_add(at).max(1);
        let value = timespec(at_monotonic);
        let once = Itimerspec { it_interval: timespec(0), it_value: value };
        timerfd_settime(&self.file, TimerfdTimerFlags::ABSTIME, &once)?;
        while self.clock.now() < at {
            // Setting it again begins its count anew, so nothing has to be read from it.
            self.file.readable().await?.clear_ready();
        }
        Ok(())
    }
}

fn nanos(time: Timespec) -> u64 {
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    seconds.saturating_mul(SECOND).saturating_add(u64::try_from(time.tv_nsec).unwrap_or_default())
}

fn timespec(nanos: u64) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(nanos / SECOND).unwrap_or(i64::MAX),
        tv_nsec: i64::try_from(nanos % SECOND).expect("less than a second fits"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn a_wait_ends_after_its_time_and_one_that_is_past_at_once() {
        let clock = Clock::start();
        let timer = Timer::new(clock).unwrap();
        for at in [300_000, 350_000, 0, 2_000_000] {
            timer.until(at).await.unwrap();
            assert!(clock.now() >= at);
        }
    }
}
