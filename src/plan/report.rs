//! The errors and warnings of a resolution, collected so that all are told at once.
//!
//! Invariant: a [`Plan`] leaves this room only when no error was reported.

use super::{Plan, facts::Facts};
use crate::{
    diag::{Diagnostic, Span},
    error::Kind,
};

/// Why there is no plan.
#[derive(Debug, Clone)]
pub struct Unresolved {
    /// All errors, in order of position; one without a place (an unknown target) has no label and comes first.
    pub places: Vec<Diagnostic>,
    /// Whose fault: the worst of them.
    pub kind: Kind,
}

/// There was an error, and it was reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reported;

/// How many errors are told. A machine that writes a file wrong does so on every line.
const ERRORS: usize = 100;

/// How much of a text from outside a message repeats, in bytes.
const TEXT: usize = 2000;

/// How many bytes the values of one plan may hold. A file of a few lines can ask for terabytes (`ENV A=$A$A` and again).
const PLAN_BYTES: usize = 256 << 20;

/// What was found so far.
#[derive(Debug, Default)]
pub(super) struct Report {
    errors: Vec<Diagnostic>,
    kind: Option<Kind>,
    warnings: Vec<Diagnostic>,
    bytes: usize,
    facts: Facts,
}

impl Report {
    /// The Dockerfile or the request is wrong.
    pub(super) fn error(&mut self, diagnostic: Diagnostic) {
        self.blame(diagnostic, Kind::Request);
    }

    /// Somebody is wrong.
    pub(super) fn blame(&mut self, diagnostic: Diagnostic, kind: Kind) {
        self.kind = Some(self.kind.map_or(kind, |known| worse(known, kind)));
        // A trigger and its FROM, or two look-ups of one word, may find the same fault.
        let diagnostic = shortened(diagnostic);
        self.facts.stop.get_or_insert_with(|| diagnostic.headline.clone());
        if self.errors.len() < ERRORS && !self.errors.contains(&diagnostic) {
            self.errors.push(diagnostic);
        }
    }

    /// An error that BuildKit does not see.
    pub(super) fn own_error(&mut self, diagnostic: Diagnostic) {
        let stop = self.facts.stop.clone();
        self.error(diagnostic);
        self.facts.stop = stop;
    }

    /// Notes a fact, unless BuildKit has stopped.
    pub(super) fn note(&mut self, note: impl FnOnce(&mut Facts)) {
        if self.facts.stop.is_none() {
            note(&mut self.facts);
        }
    }

    /// What was noted.
    pub(super) fn take_facts(&mut self) -> Facts {
        std::mem::take(&mut self.facts)
    }

    /// Something that does not stop the build.
    pub(super) fn warning(&mut self, diagnostic: Diagnostic) {
        self.warnings.push(diagnostic);
    }

    /// Counts what a step adds to the plan; false when it is too much, which is then reported, once.
    pub(super) fn charge(&mut self, bytes: usize, span: Span) -> bool {
        let fitted = self.bytes <= PLAN_BYTES;
        self.bytes = self.bytes.saturating_add(bytes);
        if fitted && self.bytes > PLAN_BYTES {
            let diagnostic = Diagnostic::error("the variables and history of this build are larger than 256 MiB", span);
            self.error(
                diagnostic.label("too much from here on").help("look for a variable that holds itself twice: it doubles with each line"),
            );
        }
        !self.is_exhausted()
    }

    /// Was more asked for than a plan may hold, or is so much wrong that nobody reads on? Nothing more is evaluated then.
    pub(super) fn is_exhausted(&self) -> bool {
        self.bytes > PLAN_BYTES || self.errors.len() >= ERRORS
    }

    /// All errors in order.
    pub(super) fn unresolved(mut self) -> Unresolved {
        self.errors.sort_by_key(|error| error.labels.first().map(|label| (label.span.start, label.span.end)));
        Unresolved { places: self.errors, kind: self.kind.unwrap_or(Kind::Request) }
    }

    /// The plan with its warnings if there was no error.
    pub(super) fn finish(mut self, plan: Option<Plan>) -> Result<Plan, Unresolved> {
        match plan {
            Some(mut plan) if self.errors.is_empty() => {
                plan.warnings.append(&mut self.warnings);
                Ok(plan)
            }
            _ => Err(self.unresolved()),
        }
    }
}

fn shortened(mut diagnostic: Diagnostic) -> Diagnostic {
    let labels = diagnostic.labels.iter_mut().map(|label| &mut label.text);
    let texts = labels.chain(&mut diagnostic.notes).chain(&mut diagnostic.help).chain([&mut diagnostic.headline]);
    for text in texts.filter(|text| text.len() > TEXT) {
        text.truncate(text.floor_char_boundary(TEXT));
        text.push('…');
    }
    diagnostic
}

/// The one that a caller should hear of: a wrong file is fixed by its author at once, a machine or a registry is not.
fn worse(one: Kind, other: Kind) -> Kind {
    let rank = |kind: Kind| match kind {
        Kind::Request => 0,
        Kind::Usage => 1,
        Kind::Step => 2,
        Kind::Remote => 3,
        Kind::Environment => 4,
        Kind::Bug => 5,
        Kind::Interrupted => 6,
    };
    if rank(other) > rank(one) { other } else { one }
}
