//! What rules look at, and what they note.

use std::collections::BTreeMap;

use super::{Finding, Options, Place, Rule, Subject};
use crate::{
    dockerfile::{Dockerfile, Instruction, Line, Stage},
    plan::{Evaluated, Facts},
};

/// The files of a context.
pub trait Files {
    /// Is this path of the context excluded by the ignore file? `None`: it cannot be told, because there is no ignore file or one
    /// with exceptions.
    fn is_excluded(&self, path: &str) -> Option<bool>;

    /// The permission bits of a regular file of the context; `None`: there is none, or it is not known.
    fn mode(&self, path: &str) -> Option<u32>;
}

/// What rules look at.
pub(super) struct View<'a> {
    /// The instructions as far as BuildKit reads them.
    pub(super) lines: Vec<Line<'a>>,
    /// Instructions that are continued over a blank line.
    pub(super) blank_lines: Vec<Place>,
    /// The tree; `None`: the file was rejected.
    pub(super) file: Option<&'a Dockerfile>,
    /// What evaluation found out.
    pub(super) facts: Option<&'a Facts>,
    /// The context.
    pub(super) files: Option<&'a dyn Files>,
    /// Instructions of the file by where they begin.
    by_start: BTreeMap<u32, &'a Instruction>,
}

/// An instruction that was evaluated.
#[derive(Clone, Copy)]
pub(super) struct Command<'a> {
    /// What it says.
    pub(super) instruction: &'a Instruction,
    /// What its words are worth.
    pub(super) evaluated: &'a Evaluated,
    /// Where it stands; a trigger stands at FROM.
    pub(super) place: Place,
}

impl<'a> Command<'a> {
    /// The comments above it.
    pub(super) fn comments(&self) -> &'a [String] {
        &self.instruction.comments
    }

    /// What its words are worth; nothing if that is not known.
    pub(super) fn values(&self) -> &'a [String] {
        self.evaluated.values.as_deref().unwrap_or_default()
    }
}

impl<'a> View<'a> {
    pub(super) fn new(subject: Subject<'a>) -> Self {
        let accepted = subject.parsed.errors.is_empty();
        let file = Some(&subject.parsed.dockerfile).filter(|_| accepted);
        let instructions = file.into_iter().flat_map(|file| &file.stages).flat_map(|stage| &stage.commands);
        // The line level rejects a file before anything else is said of it.
        let lines: Vec<Line<'a>> = subject.parsed.lines().collect();
        let blanks = subject.parsed.blank_lines().map(|(line, span)| Place { lines: (line, line), span });
        Self {
            blank_lines: if lines.is_empty() { Vec::new() } else { blanks.collect() },
            lines,
            file,
            facts: subject.facts,
            files: subject.files,
            by_start: instructions.map(|instruction| (instruction.span.start, instruction)).collect(),
        }
    }

    /// The stages of an accepted file.
    pub(super) fn stages(&self) -> &'a [Stage] {
        self.file.map(|file| file.stages.as_slice()).unwrap_or_default()
    }

    /// The instructions of all stages of an accepted file.
    pub(super) fn instructions(&self) -> impl Iterator<Item = &'a Instruction> {
        self.stages().iter().flat_map(|stage| &stage.commands)
    }

    /// The FROM lines of an accepted file, each with its words.
    pub(super) fn stage_lines(&self) -> impl Iterator<Item = Line<'a>> {
        self.lines.iter().copied().filter(|line| line.keyword.text.eq_ignore_ascii_case("from"))
    }

    /// The instructions that were evaluated, in order.
    pub(super) fn commands(&self) -> impl Iterator<Item = Command<'a>> {
        let evaluated = self.facts.into_iter().flat_map(|facts| &facts.commands);
        evaluated.filter_map(|evaluated| {
            let instruction = match &evaluated.trigger {
                Some(trigger) => trigger,
                None => self.by_start.get(&evaluated.span.start).copied()?,
            };
            let place = match &evaluated.trigger {
                Some(_) => Place::from(self.stages().get(evaluated.stage)?),
                None => Place::from(instruction),
            };
            Some(Command { instruction, evaluated, place })
        })
    }
}

/// Takes what one rule finds.
pub(super) struct Notes<'a> {
    rule: &'static Rule,
    options: &'a Options,
    found: &'a mut Vec<Finding>,
    /// How many other rules have found.
    others: usize,
    /// Where the comments are that were read last, and what they say: there may be many, and many findings below them.
    last: Option<(*const String, bool)>,
}

/// The most findings of one rule: a machine that writes a file wrong does so on every line.
pub(super) const MOST: usize = 5_000;

impl<'a> Notes<'a> {
    pub(super) fn new(rule: &'static Rule, options: &'a Options, found: &'a mut Vec<Finding>) -> Self {
        Self { rule, options, others: found.len(), found, last: None }
    }

    /// Notes a finding, unless a `# check=skip=` among the comments above says otherwise.
    pub(super) fn add(&mut self, comments: &[String], place: Place, detail: impl Into<String>) {
        self.advise(comments, place, detail, None);
    }

    /// As [`Notes::add`], with what to do.
    pub(super) fn advise(&mut self, comments: &[String], place: Place, detail: impl Into<String>, help: Option<&str>) {
        if self.found.len() - self.others < MOST && self.is_allowed(comments) {
            self.found.push(Finding { rule: self.rule, detail: detail.into(), place, help: help.map(str::to_owned) });
        }
    }

    fn is_allowed(&mut self, comments: &[String]) -> bool {
        match self.last {
            Some((at, allowed)) if at == comments.as_ptr() => allowed,
            _ => {
                let allowed = self.options.allow(self.rule, comments);
                self.last = Some((comments.as_ptr(), allowed));
                allowed
            }
        }
    }
}
