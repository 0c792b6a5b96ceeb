//! Findings for people, and for whatever shows annotations beside a change.

use super::super::progress::visible;
use crate::{
    diag::{self, Span},
    front::{Checked, Text},
};

/// Every finding with its excerpt, and how many there are.
pub(super) fn excerpts(checked: &Checked, text: &Text) -> String {
    let excerpts = checked.found.iter().map(|finding| diag::render(&text.source, &finding.diagnostic()) + "\n");
    excerpts.chain([format!("check complete: {}\n", counted(checked.found.len()))]).collect()
}

/// `no warnings`, `1 warning`.
pub(super) fn counted(number: usize) -> String {
    match number {
        0 => "no warnings".to_owned(),
        1 => "1 warning".to_owned(),
        _ => format!("{number} warnings"),
    }
}

/// Workflow commands of GitHub, which other forges understand too: one line for each finding.
pub(super) fn annotations(checked: &Checked, text: &Text) -> String {
    let file = property(&text.source.name);
    let warnings = checked.found.iter().map(|finding| {
        let (first, last) = finding.place.lines;
        let (title, detail) = (property(finding.rule.name), data(&finding.detail));
        format!("::warning file={file},line={first},endLine={last},title={title}::{detail}\n")
    });
    let places = checked.error.iter().flat_map(|error| &error.places);
    let errors = places.map(|place| {
        let line = line_of(&text.source.text, place.span());
        format!("::error file={file},line={line}::{}\n", data(&place.headline))
    });
    warnings.chain(errors).collect()
}

/// The line that a place begins on, 1-based.
pub(super) fn line_of(text: &str, span: Span) -> usize {
    let start = text.floor_char_boundary((span.start as usize).min(text.len()));
    text.get(..start).unwrap_or_default().matches('\n').count() + 1
}

fn data(text: &str) -> String {
    // A line feed is made visible before: nothing begins a command of its own.
    visible(text.as_bytes()).replace('%', "%25")
}

fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}
