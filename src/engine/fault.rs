//! The place of an error: a part of a step.

use crate::{
    diag::Diagnostic,
    error::{Error, Kind},
    plan::Step,
};

/// Gives an error the place of a step's part: its headline moves to the diagnostic there.
pub(super) fn at(error: impl Into<Error>, step: &Step, part: &str, label: &str) -> Error {
    let error = error.into();
    if !error.places.is_empty() {
        return error;
    }
    let span = step.parts.get(part).copied().unwrap_or(step.span);
    let mut headline = error.headline;
    for cause in &error.causes {
        headline.push_str(": ");
        headline.push_str(cause);
    }
    let mut place = Diagnostic::error(headline, span).label(label);
    place.help = error.help;
    Error { spoiled: error.spoiled, denied: error.denied, full: error.full, ..Error::at(error.kind, vec![place]) }
}

/// What a step asks for and cannot have, at the part that asks for it.
pub(super) fn refused(step: &Step, part: &str, headline: impl Into<String>, help: impl Into<String>) -> Error {
    at(Error::new(Kind::Request, headline).help(help), step, part, "asked for here")
}

/// What a step asks for and cannot have on this machine.
pub(super) fn impossible(step: &Step, part: &str, headline: impl Into<String>, help: impl Into<String>) -> Error {
    at(Error::new(Kind::Environment, headline).help(help), step, part, "asked for here")
}
