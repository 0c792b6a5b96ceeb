//! The Dockerfile: grammar, tree with byte spans, word expansion as a pure function.
//!
//! [`parse`] takes the text and gives a [`Dockerfile`] or all its errors at once. Nothing here reads a
//! file or knows an image. Words are as they were written: quotes and variables still in them;
//! [`expand`] is what `plan` calls with an environment.
//!
//! Source: BuildKit `frontend/dockerfile/parser`, `instructions`, `shell/lex.go`; docs/reference.md.

use std::sync::OnceLock;

use crate::diag::{Diagnostic, Span};

pub mod ast;
mod decode;
mod directive;
mod expand;
mod heredoc;
pub mod json;
mod lines;
mod mount;
mod node;
mod shell_pattern;
mod values;
mod words;

pub use ast::*;
pub use decode::Docs;
pub use directive::{check_comment, check_directive};
pub use expand::{expand, expand_words};
pub use heredoc::without_tabs;
pub use lines::is_cut_by_comment;
pub use mount::{MountError, expand_mount, mount_from, parse_mount, read_mount};
pub use node::Phase;
pub use values::{boolean, duration, size};

/// What a text was read as.
#[derive(Debug, Clone, PartialEq)]
pub struct Parsed {
    /// The tree; with errors, what could be recovered.
    pub dockerfile: Dockerfile,
    /// All errors, in order of position. Empty: the file is accepted.
    pub errors: Vec<Diagnostic>,
    /// Warnings of the line level (empty continuation lines).
    pub warnings: Vec<Diagnostic>,
    /// The error at which BuildKit would stop; `None` if there is none.
    pub stop: Option<Stop>,
    /// What the JSON form says besides.
    level: LineLevel,
}

/// An instruction before it means anything.
#[derive(Debug, Clone, Copy)]
pub struct Line<'p> {
    /// As written.
    pub keyword: &'p Word,
    /// What follows keyword and flags, as the instruction splits it.
    pub words: &'p [Word],
    /// The comment lines above it, as of an [`Instruction`].
    pub comments: &'p [String],
    /// From the keyword to the last byte, heredoc bodies included.
    pub span: Span,
    /// First and last physical line.
    pub lines: (u32, u32),
    /// Is it the one at which BuildKit would stop?
    pub rejected: bool,
}

impl Parsed {
    /// The instructions in order, as far as BuildKit would read them: none after the first that it rejects.
    pub fn lines(&self) -> impl Iterator<Item = Line<'_>> {
        let stop = self.stop.as_ref().map(|stop| match stop.phase {
            Phase::Parse => 0,
            Phase::Instructions => self.level.error_lines.get(stop.index).map_or(0, |lines| lines.0),
        });
        let lines = self.level.nodes().iter().map(move |node| Line {
            keyword: &node.keyword,
            words: &node.args,
            comments: &node.comments,
            span: node.span,
            lines: node.lines,
            rejected: stop.is_some_and(|stop| node.lines.0 >= stop),
        });
        lines.take_while(move |line| stop.is_none_or(|stop| line.lines.0 <= stop))
    }

    /// The instructions that are continued over a blank line: the last physical line of each, and the first blank one.
    pub fn blank_lines(&self) -> impl Iterator<Item = (u32, Span)> {
        self.level.blanks.iter().map(|blank| (blank.line, blank.span))
    }
}

/// The error at which BuildKit would stop: those of the line level come before all others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stop {
    /// Which of [`Parsed::errors`].
    pub index: usize,
    /// Which of the two passes finds it.
    pub phase: Phase,
}

/// What the JSON form says about lines.
#[derive(Debug, Clone, Default)]
struct LineLevel {
    text: String,
    /// Decoding takes the nodes apart; who asks for them has the text read again.
    nodes: OnceLock<Vec<node::Node>>,
    blanks: Vec<node::Blank>,
    bad_directive: Option<String>,
    /// Of each error, the first and last physical line of its instruction.
    error_lines: Vec<(u32, u32)>,
}

/// The nodes are a function of the text.
impl PartialEq for LineLevel {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text && self.blanks == other.blanks && self.error_lines == other.error_lines
    }
}

impl LineLevel {
    fn nodes(&self) -> &[node::Node] {
        self.nodes.get_or_init(|| node::Nodes::of(&self.text).collect())
    }
}

/// The most errors that are kept: a binary file has one on every line.
const MOST_ERRORS: usize = 200;

/// Reads a Dockerfile; pure, and linear in the text.
pub fn parse(text: &str) -> Parsed {
    let (dockerfile, outline, problems) = decode::decode(text);
    // The line level is done before anything is decoded: its first error is BuildKit's.
    let mut problems: Vec<_> = outline.problems.into_iter().chain(problems).enumerate().collect();
    problems.sort_by_key(|(order, problem)| (problem.diagnostic.span().start, *order));
    if let Some(first) = problems.iter().position(|(order, _)| *order == 0).filter(|first| *first >= MOST_ERRORS) {
        problems.swap(MOST_ERRORS - 1, first);
    }
    problems.truncate(MOST_ERRORS);
    let stop =
        problems.iter().enumerate().find(|(_, (order, _))| *order == 0).map(|(index, (_, problem))| Stop { index, phase: problem.phase });
    let error_lines = problems.iter().map(|(_, problem)| problem.lines).collect();
    let errors = problems.into_iter().map(|(_, problem)| problem.diagnostic).collect();
    let warnings = outline.blanks.iter().map(blank_line).collect();
    let level = LineLevel {
        text: text.to_owned(),
        nodes: OnceLock::new(),
        blanks: outline.blanks,
        bad_directive: outline.bad_directive,
        error_lines,
    };
    Parsed { dockerfile, errors, warnings, stop, level }
}

fn blank_line(blank: &node::Blank) -> Diagnostic {
    Diagnostic::warning("an instruction is continued over a blank line", blank.span)
        .label("this line is skipped")
        .help("remove it; future versions of the syntax may end the instruction here")
}

/// How a word is to be expanded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "four switches of the lexer that are set independently")]
pub struct Mode {
    /// Leave variables that are not set as they are.
    pub skip_unset: bool,
    /// Keep quotes.
    pub raw_quotes: bool,
    /// Keep escapes.
    pub raw_escapes: bool,
    /// Quotes mean nothing (COPY heredocs).
    pub skip_quotes: bool,
}

/// A word after expansion.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expanded {
    /// The value.
    pub text: String,
    /// Names of variables that were used and not set.
    pub unset: Vec<String>,
    /// Names of variables that were used and set.
    pub used: Vec<String>,
}

/// Why a word cannot be expanded: BuildKit's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ExpandError {
    /// What is wrong.
    pub message: String,
    /// One thing to do.
    pub help: Option<String>,
    /// The variable that must be set and is not.
    pub unset: Option<String>,
}

impl ExpandError {
    /// Says what is wrong.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), help: None, unset: None }
    }

    /// Says what to do.
    #[must_use]
    pub fn help(self, help: impl Into<String>) -> Self {
        Self { help: Some(help.into()), ..self }
    }
}

impl From<String> for ExpandError {
    fn from(message: String) -> Self {
        Self::new(message)
    }
}
