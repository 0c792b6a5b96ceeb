//! The clock.

use std::time::SystemTime;

/// Now, by the wall clock.
#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the clock")]
pub fn now() -> SystemTime {
    SystemTime::now()
}
