//! A diagnostic as text, as rustc draws it.
//!
//! Only the lines that labels touch are handed to the drawing, so that two hundred messages about a large file stay
//! cheap. Characters that a terminal would obey are replaced everywhere.

use std::{borrow::Cow, ops::Range};

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};

use super::{Diagnostic, Label, Severity, Source};

/// The diagnostic with its excerpt; ends with a line feed. The first line is `error: HEADLINE` or `warning[RULE]: HEADLINE`, the second
/// `  --> NAME:LINE:COLUMN`.
pub fn render(source: &Source, diagnostic: &Diagnostic) -> String {
    draw(source, diagnostic, &Renderer::plain())
}

/// As [`render`], with the colours of a terminal.
pub fn render_styled(source: &Source, diagnostic: &Diagnostic) -> String {
    draw(source, diagnostic, &Renderer::styled())
}

fn draw(source: &Source, diagnostic: &Diagnostic, renderer: &Renderer) -> String {
    let level = match diagnostic.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let excerpt = Excerpt::around(&source.text, &diagnostic.labels);
    let mut snippet = Snippet::source(without_c1(excerpt.text)).line_start(excerpt.first_line).path(tame(&source.name));
    for (index, label) in diagnostic.labels.iter().enumerate() {
        let kind = if index == 0 { AnnotationKind::Primary } else { AnnotationKind::Context };
        let words = Some(tame(&label.text)).filter(|text| !text.is_empty());
        snippet = snippet.annotation(kind.span(excerpt.range(label)).label(words));
    }
    let title = level.primary_title(tame(&diagnostic.headline));
    let title = match &diagnostic.rule {
        Some(rule) => title.id(tame(rule)),
        None => title,
    };
    let mut group = title.element(snippet);
    for note in &diagnostic.notes {
        group = group.element(Level::NOTE.message(tame(note)));
    }
    if let Some(help) = &diagnostic.help {
        group = group.element(Level::HELP.message(tame(help)));
    }
    let drawn = renderer.clone().decor_style(DecorStyle::Ascii).render(&[group]);
    let mut out = String::with_capacity(drawn.len() + 1);
    let lines: Vec<&str> = drawn.lines().collect();
    for (index, line) in lines.iter().enumerate() {
        // The empty gutter before the notes says nothing.
        let before_notes = lines.get(index + 1).is_some_and(|next| bare(next).trim_start().starts_with("= "));
        if !(before_notes && bare(line).trim() == "|") {
            out.push_str(line.trim_end());
            out.push('\n');
        }
    }
    out
}

/// A drawn line without colour codes.
fn bare(line: &str) -> String {
    let mut out = String::new();
    let mut rest = line;
    while let Some((plain, code)) = rest.split_once('\x1b') {
        out.push_str(plain);
        rest = code.split_once('m').map_or("", |(_, after)| after);
    }
    out + rest
}

/// Text without characters that a terminal would obey.
fn tame(text: &str) -> String {
    let obeyed = |ch: char| ch.is_control() || matches!(ch, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    text.chars()
        .map(|ch| {
            if ch == '\t' {
                ' '
            } else if obeyed(ch) {
                char::REPLACEMENT_CHARACTER
            } else {
                ch
            }
        })
        .collect()
}

/// An excerpt without the controls of the second set, which a terminal obeys and the drawing passes on; with the same
/// offsets, for each is two bytes as what takes its place.
fn without_c1(text: &str) -> Cow<'_, str> {
    let c1 = '\u{80}'..='\u{9f}';
    if text.contains(|ch| c1.contains(&ch)) { text.replace(|ch| c1.contains(&ch), "·").into() } else { text.into() }
}

/// The longest excerpt: labels further away from the decisive one are moved to its edge.
const LONGEST: usize = 64 * 1024;

/// The lines around the labels.
struct Excerpt<'s> {
    text: &'s str,
    /// Where it begins in the source.
    start: usize,
    /// The number of its first line, 1-based.
    first_line: usize,
}

impl<'s> Excerpt<'s> {
    fn around(text: &'s str, labels: &[Label]) -> Self {
        let first = labels.first().map_or(0, |label| boundary(text, label.span.start as usize));
        let near = |offset: u32| boundary(text, (offset as usize).clamp(first.saturating_sub(LONGEST / 2), first + LONGEST / 2));
        let from = labels.iter().map(|label| near(label.span.start)).min().unwrap_or(0);
        let to = labels.iter().map(|label| near(label.span.start)).max().unwrap_or(0);
        let before = text.get(..from).unwrap_or_default();
        let start = before.rfind('\n').map_or(0, |at| at + 1);
        let end = text.get(to..).and_then(|tail| tail.find('\n')).map_or(text.len(), |at| to + at);
        Self { text: text.get(start..end).unwrap_or_default(), start, first_line: before.matches('\n').count() + 1 }
    }

    /// A label's place in the excerpt: no further than the end of the line it begins on.
    fn range(&self, label: &Label) -> Range<usize> {
        let here = |offset: u32| boundary(self.text, (offset as usize).saturating_sub(self.start));
        let (start, end) = (here(label.span.start), here(label.span.end));
        let line = self.text.get(start..).unwrap_or_default();
        let length = line.find(['\n', '\r']).unwrap_or(line.len());
        start..end.clamp(start, start + length)
    }
}

/// The nearest offset at or below that is in the text and between characters.
fn boundary(text: &str, offset: usize) -> usize {
    text.floor_char_boundary(offset.min(text.len()))
}
