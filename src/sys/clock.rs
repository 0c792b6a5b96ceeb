//! The clock.

use std::time::SystemTime;

/// Now, by the wall clock.
#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the clock")]
pub fn now() -> SystemTime {
    SystemTime::now()
}

/// The time that a file system stamps on what changes now, in seconds and nanoseconds: it moves a few hundred times a second.
pub fn coarse_now() -> (i64, i64) {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
    (now.tv_sec, now.tv_nsec)
}
