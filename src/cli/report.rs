//! Errors as the user sees them, on standard error.

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use super::progress::visible;
use crate::{
    diag::{self, Diagnostic, Source},
    error::{Error, Kind},
};

/// Shows an error: its places in order, or its headline with what lies beneath it. Returns its exit code.
pub(super) fn error(error: &Error, source: Option<&Source>) -> ExitCode {
    let mut text = String::new();
    if let (Some(source), false) = (source, error.places.is_empty()) {
        for place in &error.places {
            text.push_str(&diag::render(source, place));
        }
    } else {
        text.push_str("error: ");
        text.push_str(&visible(error.to_string().as_bytes()));
        text.push('\n');
    }
    if let Some(help) = &error.help {
        text.push_str("  = help: ");
        text.push_str(&visible(help.as_bytes()));
        text.push('\n');
    }
    // A terminal that is gone cannot be told.
    let _lost_terminal = io::stderr().lock().write_all(text.as_bytes());
    ExitCode::from(error.kind.exit_code())
}

/// Writes to standard output: what a command was asked for, and nothing else.
pub(super) fn print(text: &str) -> Result<(), Error> {
    let written = io::stdout().lock().write_all(text.as_bytes());
    written.map_err(|error| Error::new(Kind::Environment, "cannot write to standard output").because(&error))
}

/// Shows a warning.
pub(super) fn warning(source: &Source, diagnostic: &Diagnostic) {
    let _lost_terminal = io::stderr().lock().write_all(diag::render(source, diagnostic).as_bytes());
}
