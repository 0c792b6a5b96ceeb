//! The clock.

use std::time::{Duration, SystemTime};

use rustix::time::ClockId;

/// Now, by the wall clock.
#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the clock")]
pub fn now() -> SystemTime {
    SystemTime::now()
}

/// The time that a file system stamps on what changes now, in seconds and nanoseconds: it moves a few hundred times a second.
pub fn coarse_now() -> (i64, i64) {
    let now = rustix::time::clock_gettime(ClockId::RealtimeCoarse);
    (now.tv_sec, now.tv_nsec)
}

/// Since some moment that is the same for all processes of the machine: nobody sets this clock.
pub fn since_boot() -> Duration {
    of_clock(ClockId::Monotonic)
}

/// What the calling thread has used of processors.
pub fn thread_time() -> Duration {
    of_clock(ClockId::ThreadCPUTime)
}

fn of_clock(clock: ClockId) -> Duration {
    Duration::try_from(rustix::time::clock_gettime(clock)).unwrap_or_default()
}
