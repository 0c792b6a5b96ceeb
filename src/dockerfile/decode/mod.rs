//! From the line-level tree to the [`Dockerfile`]: each instruction is decoded on its own, so that every
//! wrong one is reported.
//!
//! Source: BuildKit `frontend/dockerfile/instructions/parse.go`.

mod build;
mod config;
mod files;
mod flags;
mod run;
mod unknown;

use std::collections::{BTreeMap, VecDeque};

use crate::diag::Diagnostic;

use super::MOST_ERRORS;
use super::ast::{Command, Dockerfile, Instruction, Stage, Word};
use super::node::{Node, Nodes, Outline, Phase, Problem};
use flags::{Known, Takes};

/// Why an instruction is rejected; the first is what BuildKit says.
type Rejected = Vec<Diagnostic>;

const FROM: Known = &[("platform", Takes::Value)];
const RUN: Known = &[("mount", Takes::Values), ("network", Takes::Value), ("security", Takes::Value), ("device", Takes::Values)];
const COPY: Known = &[
    ("from", Takes::Value),
    ("chown", Takes::Value),
    ("chmod", Takes::Value),
    ("link", Takes::Switch),
    ("parents", Takes::Switch),
    ("exclude", Takes::Values),
];
const ADD: Known = &[
    ("chown", Takes::Value),
    ("chmod", Takes::Value),
    ("link", Takes::Switch),
    ("keep-git-dir", Takes::Switch),
    ("checksum", Takes::Value),
    ("unpack", Takes::Switch),
    ("exclude", Takes::Values),
];
const HEALTHCHECK: Known = &[
    ("interval", Takes::Value),
    ("timeout", Takes::Value),
    ("start-period", Takes::Value),
    ("start-interval", Takes::Value),
    ("retries", Takes::Value),
];
/// To say where a flag belongs that stands at the wrong instruction.
const ALL_FLAGS: [(&str, Known); 5] = [("FROM", FROM), ("COPY", COPY), ("ADD", ADD), ("RUN", RUN), ("HEALTHCHECK", HEALTHCHECK)];

/// The instructions, in upper case.
pub(super) const INSTRUCTIONS: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

/// One error that stands for the whole instruction.
fn rejected<T>(diagnostic: Diagnostic) -> Result<T, Rejected> {
    Err(vec![diagnostic])
}

/// How many instructions a heredoc without an owner may hide.
const LONGEST_BODY: usize = 100;

/// Reads and decodes all instructions.
pub(super) fn decode(text: &str) -> (Dockerfile, Outline, Vec<Problem>) {
    let mut growing = Growing::default();
    let mut problems = Vec::new();
    // After a line that may have been a FROM, "before the first FROM" is no longer known.
    let mut lost = false;
    let mut told = false;
    // The end of a heredoc that belongs to no instruction: one error for its whole body is enough.
    let mut body_end: Option<String> = None;
    let mut nodes = Nodes::of(text);
    let mut ahead: VecDeque<Node> = VecDeque::new();
    let mut previous: Option<Node> = None;
    while problems.len() < MOST_ERRORS {
        ahead.extend(nodes.by_ref().take((LONGEST_BODY + 1).saturating_sub(ahead.len())));
        let Some(mut node) = ahead.pop_front() else { break };
        let errors = match one(&mut node, previous.as_ref()) {
            Ok(Decoded::Stage(stage)) => {
                growing.begin(*stage);
                None
            }
            Ok(Decoded::Command(command)) => {
                if growing.may_take(&command) {
                    growing.take(instruction(&mut node, command));
                } else if !told && !lost && nodes.first_lost().is_none_or(|span| span >= node.span) {
                    told = true;
                    problems.push(Problem { diagnostic: before_from(&node), phase: Phase::Instructions, lines: node.lines });
                }
                None
            }
            Err(errors) => Some(errors),
        };
        if body_end.is_some() {
            body_end = body_end.filter(|end| errors.is_none() || node.original.trim() != end);
        } else if let Some(errors) = errors {
            // Only if the end comes soon: else a typing error would hide all that follows.
            let ends = |end: &String| ahead.iter().take(LONGEST_BODY).any(|node| node.original.trim() == end);
            body_end = unknown::stray_body(&node, previous.as_ref()).map(|(_, end)| end).filter(ends);
            let known = INSTRUCTIONS.contains(&node.keyword.text.to_uppercase().as_str());
            lost |= !known || node.name == "from";
            problems.extend(errors.into_iter().map(|diagnostic| Problem { diagnostic, phase: Phase::Instructions, lines: node.lines }));
        }
        previous = Some(node);
    }
    let outline = nodes.finish();
    let dockerfile = Dockerfile { escape: outline.escape, directives: outline.directives.clone(), ..growing.finish() };
    (dockerfile, outline, problems)
}

/// A Dockerfile whose last stage may get more instructions.
#[derive(Debug, Default)]
struct Growing {
    dockerfile: Dockerfile,
    /// Of the last stage. They get a list of their own when they are all there: one that grows by itself begins with room for
    /// four, which in a file of short stages is most of the memory and a third of the time.
    commands: Vec<Instruction>,
}

impl Growing {
    fn begin(&mut self, stage: Stage) {
        self.complete();
        self.dockerfile.stages.push(stage);
    }

    /// Only ARG may stand before the first stage.
    fn may_take(&self, command: &Command) -> bool {
        !self.dockerfile.stages.is_empty() || matches!(command, Command::Arg(_))
    }

    fn take(&mut self, instruction: Instruction) {
        if self.dockerfile.stages.is_empty() {
            self.dockerfile.meta_args.push(instruction);
        } else {
            self.commands.push(instruction);
        }
    }

    fn complete(&mut self) {
        if let Some(stage) = self.dockerfile.stages.last_mut() {
            stage.commands.reserve_exact(self.commands.len());
            stage.commands.append(&mut self.commands);
        }
    }

    fn finish(mut self) -> Dockerfile {
        self.complete();
        self.dockerfile
    }
}

fn before_from(node: &Node) -> Diagnostic {
    let keyword = node.keyword.text.to_uppercase();
    Diagnostic::error(format!("{keyword} stands before the first FROM"), node.keyword.span)
        .label("there is no build stage yet")
        .help("begin with `FROM` and an image; only ARG may stand before it")
}

#[expect(clippy::large_enum_variant, reason = "it is taken apart at once, and there is one for each line")]
enum Decoded {
    Stage(Box<Stage>),
    Command(Command),
}

fn one(node: &mut Node, previous: Option<&Node>) -> Result<Decoded, Rejected> {
    if node.name == "from" {
        return build::from(node).map(Box::new).map(Decoded::Stage);
    }
    command(node, previous).map(Decoded::Command)
}

fn instruction(node: &mut Node, command: Command) -> Instruction {
    Instruction {
        command,
        span: node.span,
        keyword: std::mem::take(&mut node.keyword),
        lines: node.lines,
        original: std::mem::take(&mut node.original),
        comments: std::mem::take(&mut node.comments),
    }
}

fn command(node: &mut Node, previous: Option<&Node>) -> Result<Command, Rejected> {
    match &*node.name {
        "add" => files::add(node),
        "arg" => build::arg(node),
        "cmd" => run::cmd(node),
        "copy" => files::copy(node),
        "entrypoint" => run::entrypoint(node),
        "env" => config::env(node),
        "expose" => config::expose(node),
        "healthcheck" => run::healthcheck(node),
        "label" => config::label(node),
        "maintainer" => config::one(node, "a name").map(Command::Maintainer),
        "onbuild" => build::onbuild(node),
        "run" => run::run(node),
        "shell" => run::shell(node),
        "stopsignal" => config::one(node, "a signal").map(Command::Stopsignal),
        "user" => config::one(node, "a user").map(Command::User),
        "volume" => config::volume(node),
        "workdir" => config::one(node, "a path").map(Command::Workdir),
        _ => rejected(unknown::instruction(node, previous)),
    }
}

/// The comment lines above an instruction, by the name that each may document.
#[derive(Debug)]
pub struct Docs<'a> {
    lines: &'a [String],
    /// What stands before a line's first blank → what is behind it, of the first line that begins so.
    named: BTreeMap<&'a str, &'a str>,
}

/// Among how many lines a name with a blank in it is looked for: nobody writes more, and each name costs as much.
const MOST_LINES: usize = 100;

impl<'a> Docs<'a> {
    /// Of the lines without their `# `.
    pub fn of(lines: &'a [String]) -> Self {
        let mut named = BTreeMap::new();
        for (name, rest) in lines.iter().filter_map(|line| line.split_once(' ')) {
            let _first: &mut &str = named.entry(name).or_insert(rest);
        }
        Self { lines, named }
    }

    /// The doc comment for `name`: the rest of the first comment line that begins with it and one blank.
    pub fn find(&self, name: &str) -> Option<String> {
        let rest = if name.contains(' ') {
            self.lines.iter().take(MOST_LINES).find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?
        } else {
            self.named.get(name).copied().filter(|_| !name.is_empty())?
        };
        (!rest.is_empty()).then(|| rest.to_owned())
    }
}

/// An instruction that has no arguments where it needs some.
fn needs(node: &Node, what: &str) -> Diagnostic {
    let keyword = node.keyword.text.to_uppercase();
    let error = Diagnostic::error(format!("{keyword} needs {what}"), node.keyword.span).label("nothing follows");
    let example = match keyword.as_str() {
        "ARG" => "name=value",
        "ENV" | "LABEL" => "name=\"value\"",
        "EXPOSE" => "8080",
        "HEALTHCHECK" => "CMD wget -q -O /dev/null http://localhost/",
        "MAINTAINER" => "someone@example.com",
        "ONBUILD" => "COPY . /src",
        "STOPSIGNAL" => "SIGTERM",
        "USER" => "name",
        "VOLUME" => "/data",
        "WORKDIR" => "/path",
        _ => return error,
    };
    error.help(format!("write, for example, `{keyword} {example}`"))
}

/// Where the first word of the arguments stands that looks like a comment.
fn trailing_comment(words: &[Word]) -> Option<&Word> {
    words.iter().skip(1).find(|word| word.text.starts_with('#'))
}
