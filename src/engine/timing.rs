//! When things were, and what they took: for the page of `--timings` and for `--log-level`.

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

/// Which process was at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum By {
    /// The user's side.
    Front,
    /// What does the steps.
    Engine,
}

/// A part of a command, or of a step, as a log tells it. It names numbers and sizes, and nothing that somebody else wrote: neither a path
/// nor a name, an argument or an address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Phase {
    /// Who was at it.
    pub by: By,
    /// Of which step it is a part.
    pub step: Option<usize>,
    /// What was done.
    pub what: String,
    /// When.
    pub span: Span,
}

/// One part after the other: each begins where the one before it ended.
#[derive(Debug)]
pub struct Laps {
    by: By,
    step: Option<usize>,
    from: Instant,
}

impl Laps {
    /// The first part begins now.
    pub fn begin(by: By) -> Self {
        Self { by, step: None, from: Instant::now() }
    }

    /// Of a step of the engine.
    pub fn of_step(step: usize) -> Self {
        Self { step: Some(step), ..Self::begin(By::Engine) }
    }

    /// A part is over.
    pub fn lap(&mut self, what: impl Into<String>) -> Phase {
        let span = Span::since(self.from);
        self.from = span.to;
        Phase { by: self.by, step: self.step, what: what.into(), span }
    }
}

/// What a step was at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Spell {
    /// All of it, from when it had a slot until its result was known.
    Whole,
    /// It could have gone on, and did not: all slots were taken, or another step or build was at what it needs: an equal step, a layer's
    /// tree or index, a cache.
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
