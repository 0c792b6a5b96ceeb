//! What was tried, as lines for a user: axis by axis, what would be used, and what that cannot do.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::sandbox::driver::{Driver, Refusal};

/// What a trial is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Axis {
    /// The store's directory.
    Store,
    /// Which ids there are inside.
    Ids,
    /// How what a step changes is kept.
    Snapshots,
    /// Whole steps.
    Steps,
}

/// One thing that was tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// Where it belongs.
    pub axis: Axis,
    /// What.
    pub tried: String,
    /// How it went.
    pub outcome: Outcome,
}

/// How a trial went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// It works; with what, in words.
    Works(String),
    /// It does not.
    Fails {
        /// What the kernel said, and which knob that points to.
        said: String,
        /// What to do, if that is known: a command for root, or a sentence.
        help: Option<String>,
    },
    /// Something before it failed.
    NotTried,
}

/// All that was tried, in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// One line each.
    pub rows: Vec<Row>,
    /// What a build would use; `None`: no step can be run.
    pub used: Option<Driver>,
}

impl Row {
    pub(super) fn new(axis: Axis, tried: impl fmt::Display, outcome: Outcome) -> Self {
        Self { axis, tried: tried.to_string(), outcome }
    }

    pub(super) fn refused(axis: Axis, refusal: Refusal) -> Self {
        Self { axis, tried: refusal.tried, outcome: Outcome::Fails { said: refusal.said, help: refusal.help } }
    }

    pub(super) fn works(&self) -> bool {
        matches!(self.outcome, Outcome::Works(_))
    }
}

impl Report {
    /// Can a RUN be run?
    pub fn works(&self) -> bool {
        let step = |row: &Row| row.axis == Axis::Steps && row.tried == super::STEP;
        self.used.is_some() && self.rows.iter().any(|row| step(row) && row.works())
    }
}

impl fmt::Display for Axis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Store => "store",
            Self::Ids => "ids",
            Self::Snapshots => "snapshots",
            Self::Steps => "steps",
        })
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tried = &self.tried;
        match &self.outcome {
            Outcome::Works(with) if with.is_empty() => write!(f, "  ok         {tried}"),
            Outcome::Works(with) => write!(f, "  ok         {tried}: {with}"),
            Outcome::Fails { said, help: None } => write!(f, "  fails      {tried}: {said}"),
            Outcome::Fails { said, help: Some(help) } => write!(f, "  fails      {tried}: {said}\n             try: {help}"),
            Outcome::NotTried => write!(f, "  not tried  {tried}"),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for axis in [Axis::Store, Axis::Ids, Axis::Snapshots, Axis::Steps] {
            writeln!(f, "{axis}")?;
            self.rows.iter().filter(|row| row.axis == axis).try_for_each(|row| writeln!(f, "{row}"))?;
        }
        match self.used.filter(|_| self.works()) {
            Some(driver) => {
                writeln!(f, "used: {driver}")?;
                driver.limits().iter().try_for_each(|limit| writeln!(f, "  - {limit}"))
            }
            None => writeln!(f, "used: nothing; builds without RUN work, a RUN is refused"),
        }
    }
}
