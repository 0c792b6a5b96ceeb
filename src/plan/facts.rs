//! What evaluation finds out beside the plan: for whoever judges a Dockerfile rather than builds it.
//!
//! Facts are noted in the order of BuildKit's passes, and none after the first error at which it would stop, so that what is
//! found with them is what BuildKit finds.
//!
//! Source: BuildKit `dockerfile2llb/convert.go: toDispatchState`, `validations.go`, `util/suggest`.

use std::sync::Arc;

use super::{Plan, Unresolved};
use crate::{
    diag::Span,
    dockerfile::{Expanded, Instruction},
    oci::Platform,
};

/// A resolution with what was found out on the way.
#[derive(Debug)]
pub struct Survey {
    /// What was found out.
    pub facts: Facts,
    /// What the file means, or all its errors.
    pub plan: Result<Plan, Unresolved>,
}

/// What was found out.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Facts {
    /// The base of every stage as it is when no build argument is given; it ends before the first that cannot be expanded.
    pub default_bases: Vec<String>,
    /// The ARGs before the first FROM, in order; of two with one name the later.
    pub globals: Vec<Argument>,
    /// What the FROM lines say.
    pub froms: Vec<FromFacts>,
    /// Bases that are not for the platform that was asked for.
    pub other_platforms: Vec<OtherPlatform>,
    /// The instructions that were evaluated, in order.
    pub commands: Vec<Evaluated>,
    /// The first error at which BuildKit would stop too.
    pub stop: Option<String>,
    undefined: usize,
}

/// A FROM line.
#[derive(Debug, Clone, PartialEq)]
pub struct FromFacts {
    /// The stage's number in the file.
    pub stage: usize,
    /// Names that are used and set.
    pub used: Vec<String>,
    /// Names that are used and not declared, each with the one that was probably meant.
    pub undeclared: Vec<Undefined>,
    /// What `--platform` gives, if it is written.
    pub platform: Option<PlatformFacts>,
}

/// `--platform` of a FROM line.
#[derive(Debug, Clone, PartialEq)]
pub struct PlatformFacts {
    /// Expanded.
    pub expanded: Expanded,
    /// As a platform, if it is one.
    pub platform: Option<Platform>,
    /// Is it what the build is for?
    pub is_target: bool,
}

/// An ARG.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Argument {
    /// Its name.
    pub name: String,
    /// Its value; empty if it has none.
    pub value: String,
    /// Names that its default uses.
    pub uses: Vec<String>,
    /// Is the value only that of the global ARG?
    pub inherited: bool,
}

/// A base that is for another platform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtherPlatform {
    /// The stage's number in the file.
    pub stage: usize,
    /// The base's name, expanded.
    pub name: String,
    /// What was asked for.
    pub expected: String,
    /// What it is.
    pub actual: String,
}

/// A variable that is used and not set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Undefined {
    /// Its name.
    pub name: String,
    /// The one that was probably meant.
    pub meant: Option<String>,
}

/// An instruction that was evaluated.
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluated {
    /// The stage's number in the file.
    pub stage: usize,
    /// The place of the instruction in the file; of a trigger, that of FROM.
    pub span: Span,
    /// The trigger of a base, which is not in the file.
    pub trigger: Option<Box<Instruction>>,
    /// Variables that its words use and that are not set; twice when two words do.
    pub undefined: Vec<Undefined>,
    /// What its words are worth: of ENV the names, of WORKDIR the path, of EXPOSE the ports, of COPY and ADD the absolute
    /// destination and the local sources. `None`: they could not be expanded. Longer ones are cut, and more than a thousand.
    pub values: Option<Vec<String>>,
    /// Of ARG: what each of its names is worth.
    pub arguments: Vec<Argument>,
    /// Did no SHELL hold?
    pub default_shell: bool,
    /// Did an ENTRYPOINT hold?
    pub has_entrypoint: bool,
    /// The working directory that held.
    pub dir: Arc<str>,
    /// Had a WORKDIR been written before, in this stage or those that it starts from?
    pub has_workdir: bool,
}

/// No path or name that means something is longer.
const LONGEST: usize = 4096;

/// So many values of one instruction are kept.
const MOST_VALUES: usize = 1000;

/// So many uses of variables that are not set are noted; for the first few it is looked for what was meant.
const MOST_UNDEFINED: usize = 10_000;
const MOST_SUGGESTIONS: usize = 200;

impl Facts {
    /// The instruction being evaluated uses variables that are not set; `known` gives the names that are, in order.
    pub(super) fn undefined(&mut self, names: Vec<String>, known: impl FnOnce() -> Vec<String>) {
        let undefined = self.not_set(names, known);
        if let Some(command) = self.commands.last_mut() {
            command.undefined.extend(undefined);
        }
    }

    /// As many names as may still be noted, the first of all with what was probably meant: to look for that costs as much as
    /// there are names that are `known`.
    pub(super) fn not_set(&mut self, mut names: Vec<String>, known: impl FnOnce() -> Vec<String>) -> Vec<Undefined> {
        names.truncate(MOST_UNDEFINED.saturating_sub(self.undefined));
        let looked_for = MOST_SUGGESTIONS.saturating_sub(self.undefined).min(names.len());
        let known = if looked_for > 0 { known() } else { Vec::new() };
        self.undefined += names.len();
        let meant = |(at, name): (usize, String)| Undefined { meant: if at < looked_for { nearest(&name, &known) } else { None }, name };
        names.into_iter().enumerate().map(meant).collect()
    }

    /// The ARG being evaluated gives a name its value.
    pub(super) fn argument(&mut self, argument: Argument) {
        if let Some(command) = self.commands.last_mut() {
            command.arguments.push(argument);
        }
    }

    /// The instruction being evaluated comes to its effect.
    pub(super) fn values<'v>(&mut self, values: impl IntoIterator<Item = &'v str>) {
        if let Some(command) = self.commands.last_mut() {
            command.values = Some(values.into_iter().take(MOST_VALUES).map(cut).collect());
        }
    }
}

/// As much of a value as is kept.
pub(super) fn cut(value: &str) -> String {
    value.get(..value.floor_char_boundary(LONGEST)).unwrap_or_default().to_owned()
}

/// The first of the nearest names that differ in one or two letters.
fn nearest(name: &str, known: &[String]) -> Option<String> {
    let letters: Vec<char> = name.chars().collect();
    let mut best: Option<&str> = None;
    let mut limit = 3;
    for other in known.iter().filter(|other| other.len().abs_diff(name.len()) < 12 && other.len() < 256) {
        let distance = distance(&letters, &other.chars().collect::<Vec<_>>());
        if distance < limit {
            (best, limit) = (Some(other.as_str()), distance);
        }
    }
    best.map(str::to_owned)
}

/// How many letters must be added, removed or changed.
fn distance(left: &[char], right: &[char]) -> usize {
    if left.len().abs_diff(right.len()) > 2 {
        return usize::MAX;
    }
    let mut above: Vec<usize> = (0..=right.len()).collect();
    for (row, a) in left.iter().enumerate() {
        let mut corner = row;
        let mut before = row + 1;
        for (b, cell) in right.iter().zip(above.iter_mut().skip(1)) {
            let cost = (corner + usize::from(a != b)).min(before + 1).min(*cell + 1);
            corner = std::mem::replace(cell, cost);
            before = cost;
        }
        if let Some(first) = above.first_mut() {
            *first = row + 1;
        }
    }
    above.last().copied().unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_two_letters_away_was_meant() {
        let known = ["PATH", "HOME", "GOPATH", "é"].map(str::to_owned);
        for (name, meant) in [("PAHT", "PATH"), ("GOPAT", "GOPATH"), ("HOM", "HOME"), ("HOUSE", "HOME")] {
            assert_eq!(nearest(name, &known).as_deref(), Some(meant), "{name}");
        }
        assert_eq!(nearest("NB_UID", &known), None);
        assert_eq!(distance(&['a', 'b'], &['b', 'a']), 2);
        assert_eq!(distance(&[], &['b', 'a']), 2);
    }
}
