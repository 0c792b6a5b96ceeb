//! Spans, diagnostics and their rendering.
//!
//! A [`Span`] is a range of bytes in a [`Source`]. It is made by the parser and travels with
//! every step, so that an error at run time can still show the line that asked for it. This room
//! does not know what a Dockerfile is.

mod render;
mod suggest;

use serde::{Deserialize, Serialize};

pub use render::{render, render_styled};
pub use suggest::closest;

/// A range of bytes in a source text, `start <= end`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Span {
    /// The first byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

impl Span {
    /// The span of `start..end`; offsets past 4 GiB do not occur, a source is bounded far below.
    pub fn new(start: usize, end: usize) -> Self {
        let clamp = |offset: usize| u32::try_from(offset).unwrap_or(u32::MAX);
        Self { start: clamp(start), end: clamp(end) }
    }

    /// The smallest span that holds both.
    #[must_use]
    pub fn to(self, other: Self) -> Self {
        Self { start: self.start.min(other.start), end: self.end.max(other.end) }
    }
}

/// A text that spans point into, with the name that messages show.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// As the user named it: `Dockerfile`, `sub/Dockerfile.prod`, `<stdin>`.
    pub name: String,
    /// The whole text, byte for byte.
    pub text: String,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Severity {
    /// The build cannot go on.
    Error,
    /// The build goes on.
    Warning,
}

/// A place and what it has to do with the headline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Label {
    /// Where.
    pub span: Span,
    /// A few words: `not found`, `declared here`. May be empty.
    pub text: String,
}

/// One message about a source text. The first label is the place that is named.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnostic {
    /// Error or warning.
    pub severity: Severity,
    /// Lower case, no full stop, the user's own words in backticks.
    pub headline: String,
    /// Places, the decisive one first.
    pub labels: Vec<Label>,
    /// Facts.
    pub notes: Vec<String>,
    /// One thing to do.
    pub help: Option<String>,
    /// The rule that found it, by which it can be switched off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
}

impl Diagnostic {
    /// An error at a place.
    pub fn error(headline: impl Into<String>, span: Span) -> Self {
        Self {
            severity: Severity::Error,
            headline: headline.into(),
            labels: vec![Label { span, text: String::new() }],
            notes: Vec::new(),
            help: None,
            rule: None,
        }
    }

    /// A warning at a place.
    pub fn warning(headline: impl Into<String>, span: Span) -> Self {
        Self { severity: Severity::Warning, ..Self::error(headline, span) }
    }

    /// Says what the first place has to do with it.
    #[must_use]
    pub fn label(mut self, text: impl Into<String>) -> Self {
        if let Some(first) = self.labels.first_mut() {
            first.text = text.into();
        }
        self
    }

    /// Adds a place.
    #[must_use]
    pub fn also(mut self, span: Span, text: impl Into<String>) -> Self {
        self.labels.push(Label { span, text: text.into() });
        self
    }

    /// Adds a fact.
    #[must_use]
    pub fn note(mut self, text: impl Into<String>) -> Self {
        self.notes.push(text.into());
        self
    }

    /// Says what to do.
    #[must_use]
    pub fn help(mut self, text: impl Into<String>) -> Self {
        self.help = Some(text.into());
        self
    }

    /// Names the rule that found it.
    #[must_use]
    pub fn rule(mut self, name: impl Into<String>) -> Self {
        self.rule = Some(name.into());
        self
    }

    /// The decisive place.
    pub fn span(&self) -> Span {
        self.labels.first().map(|label| label.span).unwrap_or_default()
    }
}
