//! When things were, and what they took: for the page of `--timings`.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::sys;

/// A time on the clock that all processes of the machine share, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Instant(u64);

impl Instant {
    /// Now.
    pub fn now() -> Self {
        Self(micros(sys::since_boot()))
    }

    /// Microseconds since an earlier one; 0 if it is not earlier.
    pub fn micros_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// From when to when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// Its begin.
    pub from: Instant,
    /// Its end.
    pub to: Instant,
}

impl Span {
    /// Until now.
    pub fn since(from: Instant) -> Self {
        Self { from, to: Instant::now() }
    }
}

/// What a step was at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Spell {
    /// All of it, from when it had a slot until its result was known.
    Whole,
    /// It could have gone on, and did not: all slots were taken, or an equal step of another stage or build was being done.
    Waiting,
    /// Its program ran.
    Running,
    /// Its layer was compressed and put into the store, beside and after the rest.
    Compressing,
}

/// What a step used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Used {
    /// Of processors, in microseconds.
    pub cpu: u64,
    /// The largest memory of one of its processes, in bytes. `None`: it has no process.
    pub peak: Option<u64>,
}

impl Used {
    /// By the processes of a step.
    pub fn by_processes(usage: sys::Usage) -> Self {
        Self { cpu: micros(usage.processors), peak: Some(usage.peak_memory) }
    }

    /// By a thread of the engine.
    pub fn by_thread(processors: Duration) -> Self {
        Self { cpu: micros(processors), peak: None }
    }

    /// Both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { cpu: self.cpu.saturating_add(other.cpu), peak: self.peak.max(other.peak) }
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
