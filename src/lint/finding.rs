//! What a rule found, and where.

use super::Rule;
use crate::{
    diag::{Diagnostic, Span},
    dockerfile::{Instruction, Line, Stage},
};

/// Where something stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// First and last physical line, 1-based.
    pub lines: (u32, u32),
    /// What is marked in an excerpt.
    pub span: Span,
}

impl Place {
    /// The same lines, with something more precise marked.
    #[must_use]
    pub(super) fn mark(self, span: Span) -> Self {
        Self { span, ..self }
    }
}

impl From<&Instruction> for Place {
    fn from(instruction: &Instruction) -> Self {
        Self { lines: instruction.lines, span: instruction.span }
    }
}

impl From<&Stage> for Place {
    fn from(stage: &Stage) -> Self {
        Self { lines: stage.lines, span: stage.span }
    }
}

impl From<Line<'_>> for Place {
    fn from(line: Line<'_>) -> Self {
        Self { lines: line.lines, span: line.span }
    }
}

/// One thing that a rule found.
#[derive(Debug, Clone)]
pub struct Finding {
    /// The rule.
    pub rule: &'static Rule,
    /// What is wrong, as BuildKit words it.
    pub detail: String,
    /// Where.
    pub place: Place,
    /// What to do.
    pub help: Option<String>,
}

impl Finding {
    /// As a warning with its excerpt.
    pub fn diagnostic(&self) -> Diagnostic {
        let warning = Diagnostic::warning(self.detail.clone(), self.place.span).rule(self.rule.name);
        match &self.help {
            Some(help) => warning.help(help.clone()),
            None => warning,
        }
    }
}
