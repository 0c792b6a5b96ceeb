//! What happens in a build, as values.

use serde::{Deserialize, Serialize};

use super::timing::{Phase, Span, Spell, Used};
use crate::{
    cache::{SharedRecord, Why},
    diag::Diagnostic,
    oci::DiffId,
    sandbox::{Driver, Stream, driver::Refusal},
};

/// A step as progress shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepInfo {
    /// `build`, `stage-0`.
    pub stage: String,
    /// Its number within the stage, from 1.
    pub number: usize,
    /// How many the stage has.
    pub of: usize,
    /// The instruction as written.
    pub shown: String,
    /// The steps that it needs, by their place in [`Event::Planned`].
    pub needs: Vec<usize>,
    /// The one of them that made the tree it begins with.
    pub on: Option<usize>,
    /// The layers of the image it begins with, base first, if no step was before it.
    pub base: Vec<DiffId>,
}

/// How a step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum How {
    /// Its result was in the cache.
    Cached,
    /// Its result was in a cache that was made elsewhere.
    Imported,
    /// It was done.
    Done,
    /// There was nothing to do: it is a line of the config and the history.
    Noted,
    /// It failed.
    Failed,
    /// It was ended because another one failed, or because the build was interrupted.
    Cancelled,
}

/// Something that happened. Steps are named by their place in [`Event::Planned`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// How steps are run. The first event.
    Driver {
        /// The combination; `None`: nothing was entered because no step needs it, or no combination works.
        driver: Option<Driver>,
        /// What was tried before it and does not work here.
        refused: Vec<Refusal>,
    },
    /// All steps, in the order of the plan.
    Planned {
        /// The steps.
        steps: Vec<StepInfo>,
    },
    /// A step began.
    Started {
        /// Which.
        step: usize,
    },
    /// A step was not in the cache; why, as far as it is known.
    Missed {
        /// Which.
        step: usize,
        /// What changed since the nearest earlier record.
        why: Why,
    },
    /// A step's layer, found or made.
    Layer {
        /// Which.
        step: usize,
        /// Its key: the name of its record.
        key: String,
        /// The layer.
        layer: DiffId,
        /// When it was made, RFC 3339.
        created: String,
    },
    /// What a cache is told of a step, if one is to be made of this build.
    Recorded {
        /// Its record.
        record: SharedRecord,
    },
    /// A step printed something.
    Output {
        /// Which.
        step: usize,
        /// Where.
        stream: Stream,
        /// What; not always whole lines.
        bytes: Vec<u8>,
    },
    /// A step, or a part of it, is over. Of [`Spell::Compressing`] it is told when the build is.
    Spent {
        /// Which.
        step: usize,
        /// What it was at.
        at: Spell,
        /// When.
        span: Span,
    },
    /// What was used for a step, in addition to what was told before.
    Used {
        /// Which.
        step: usize,
        /// How much.
        used: Used,
    },
    /// The front has done something that belongs to no step: an output was written.
    Aside {
        /// What.
        what: String,
        /// When.
        span: Span,
    },
    /// A part of the command, or of a step, is over. The engine tells of its parts only if [`super::Job::phases`] asks for it.
    Phase(Phase),
    /// A step ended.
    Finished {
        /// Which.
        step: usize,
        /// How.
        how: How,
        /// After so many milliseconds.
        millis: u64,
    },
    /// Something worth a line: what is waited for, extracted, written.
    Note {
        /// The line.
        text: String,
    },
    /// Something about the Dockerfile that does not stop the build.
    Warning {
        /// What, and where.
        diagnostic: Diagnostic,
    },
    /// Bytes on their way.
    Transfer {
        /// What.
        what: String,
        /// So many so far.
        done: u64,
        /// Of so many.
        total: u64,
    },
}
