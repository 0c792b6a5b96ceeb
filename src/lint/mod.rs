//! Rules that judge a Dockerfile that is accepted: BuildKit's under their names, and our own. Nothing here changes anything.
//!
//! A rule is one file with a [`Rule`], whose example is its test and its page in docs/lint.md. It looks at a [`View`]: the text's
//! lines, the tree, and, for what needs more than the text, [`plan::Facts`](crate::plan::Facts) and the files of the context.
//!
//! Invariant: what is found by BuildKit's rules is what BuildKit finds: rule, line and detail; nothing behind the place at which it
//! would stop.
//!
//! Source: BuildKit `frontend/dockerfile/linter`, and where its rules are run: `instructions/parse.go`,
//! `dockerfile2llb/convert.go`, `validations.go`.

mod buildkit;
mod finding;
mod json;
mod options;
mod own;
#[cfg(test)]
mod tests;
mod view;

pub use finding::{Finding, Place};
pub use json::describe;
pub use options::{BadOptions, Options};
pub use view::Files;

use crate::{dockerfile::Parsed, plan::Facts};
use view::{Notes, View};

/// A rule.
#[derive(Debug)]
pub struct Rule {
    /// As it is skipped by.
    pub name: &'static str,
    /// What it asks for, in a sentence.
    pub summary: &'static str,
    /// Whose it is.
    pub origin: Origin,
    /// Does it hold only where `experimental=` asks for it?
    pub experimental: bool,
    /// What it finds.
    look: fn(&View<'_>, &mut Notes<'_>),
    /// Its test, and its page.
    pub example: Example,
}

/// Whose rule it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// BuildKit's, with the last part of the address of its page, if it has one.
    BuildKit(Option<&'static str>),
    /// Ours: it never makes a build fail.
    Own,
}

/// What a rule says of a text, and a text that it is content with.
#[derive(Debug)]
pub struct Example {
    /// A Dockerfile, and what is around it.
    pub bad: &'static str,
    /// What the rule says of it: line and detail.
    pub says: &'static [(u32, &'static str)],
    /// The same put right; no rule says anything of it.
    pub good: &'static str,
    /// Files of the context of both: path, permission bits, content.
    pub files: &'static [(&'static str, u32, &'static str)],
}

impl Rule {
    /// The page that explains it, if there is one elsewhere.
    pub fn url(&self) -> Option<String> {
        match self.origin {
            Origin::BuildKit(page) => page.map(|page| format!("https://docs.docker.com/go/dockerfile/rule/{page}/")),
            Origin::Own => None,
        }
    }
}

/// All rules: BuildKit's in the order in which it comes to them, then ours.
pub fn rules() -> impl Iterator<Item = &'static Rule> {
    buildkit::RULES.iter().chain(own::RULES).copied()
}

/// What is judged.
#[derive(Clone, Copy)]
pub struct Subject<'a> {
    /// The text.
    pub text: &'a str,
    /// What it was read as.
    pub parsed: &'a Parsed,
    /// What evaluation found out; `None`: the file was rejected.
    pub facts: Option<&'a Facts>,
    /// The files of the context, where there is one.
    pub files: Option<&'a dyn Files>,
}

/// Everything that the rules find, in order of lines.
pub fn check(subject: Subject<'_>, options: &Options) -> Vec<Finding> {
    let view = View::new(subject);
    let mut found = Vec::new();
    for rule in rules() {
        (rule.look)(&view, &mut Notes::new(rule, options, &mut found));
    }
    found.sort_by_key(|finding| finding.place.lines.0);
    found
}

/// What `error=true` makes of findings: the error at which BuildKit ends the build. Our own rules have no part in it.
pub fn violation(options: &Options, found: &[Finding]) -> Option<String> {
    let mut names: Vec<&str> = Vec::new();
    for finding in found.iter().filter(|finding| finding.rule.origin != Origin::Own) {
        if !names.contains(&finding.rule.name) {
            names.push(finding.rule.name);
        }
    }
    (options.error && !names.is_empty()).then(|| format!("lint violation found for rules: {}", names.join(", ")))
}
