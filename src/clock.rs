//! Clocks that go on while a process does not run.

use std::time::{Duration, SystemTime};

use rustix::time::{ClockId, clock_gettime};

/// Time since the machine was started, its sleep included (`CLOCK_BOOTTIME`): a machine that slept has been away.
#[must_use]
pub(crate) fn since_boot() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// A moment by both clocks that go on while a process is stopped or its machine sleeps. When a virtual machine is paused,
/// its clock since boot stands still too; its wall clock is set right afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moment {
    boot: Duration,
    wall: SystemTime,
}

impl Moment {
    /// This one.
    #[must_use]
    pub(crate) fn now() -> Self {
        let now = Self { boot: since_boot(), wall: SystemTime::now() };
        #[cfg(test)]
        let now = now.after_sleep();
        now
    }

    /// The time from here to `later`: the longer of what the two clocks say, since each may have stood still or been set
    /// back.
    #[must_use]
    pub(crate) fn until(self, later: Self) -> Duration {
        let wall = later.wall.duration_since(self.wall).unwrap_or_default();
        later.boot.saturating_sub(self.boot).max(wall)
    }
}

/// Machines that sleep while a test runs.
#[cfg(test)]
mod sleep {
    use std::cell::Cell;

    use super::{Duration, Moment};

    thread_local! {
        static SLEPT: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    }

    impl Moment {
        /// Lets the clocks that go on in a machine's sleep jump, for this thread; those that timers go by stand still.
        pub(crate) fn jump(by: Duration) {
            SLEPT.set(SLEPT.get() + by);
        }

        pub(super) fn after_sleep(self) -> Self {
            Self { boot: self.boot + SLEPT.get(), wall: self.wall + SLEPT.get() }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_goes_on() {
        let before = since_boot();
        assert!(before > Duration::ZERO && since_boot() >= before);
    }

    #[test]
    fn time_passes_by_whichever_clock_went_on() {
        let seconds = Duration::from_secs;
        let at = |boot, wall| Moment { boot: seconds(boot), wall: SystemTime::UNIX_EPOCH + seconds(wall) };
        assert_eq!(at(100, 5000).until(at(101, 5001)), seconds(1));
        assert_eq!(at(100, 5000).until(at(700, 5000)), seconds(600), "the machine slept");
        assert_eq!(at(100, 5000).until(at(101, 9000)), seconds(4000), "the virtual machine was paused");
        assert_eq!(at(100, 5000).until(at(103, 4000)), seconds(3), "the wall clock was set back");
    }
}
