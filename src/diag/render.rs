//! A diagnostic as text, as rustc draws it.

use super::{Diagnostic, Severity, Source};

/// The diagnostic with its excerpt; ends with a line feed. The first line is `error: HEADLINE`, the second
/// `  --> NAME:LINE:COLUMN`.
pub fn render(source: &Source, diagnostic: &Diagnostic) -> String {
    let start = diagnostic.span().start as usize;
    let before = source.text.get(..start).unwrap_or(&source.text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().map_or(0, |tail| tail.chars().count()) + 1;
    let word = match diagnostic.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    };
    format!("{word}: {}\n  --> {}:{line}:{column}\n", diagnostic.headline, source.name)
}
