//! `apt-get install` with lists of another step.

use super::super::{
    Example, Origin, Place, Rule,
    view::{Notes, View},
};
use crate::dockerfile::{Command, CommandLine, Run};

pub(super) const RULE: Rule = Rule {
    name: "AptGetInstallWithoutUpdate",
    summary: "apt-get fetches its lists in the step that installs: those of an earlier step grow old in the cache",
    origin: Origin::Own,
    experimental: false,
    look,
    example: Example {
        bad: "\
FROM debian
RUN apt-get update
RUN apt-get install -y curl
",
        says: &[(3, "The package lists of this installation are not fetched in the same step")],
        good: "\
FROM debian
RUN apt-get update && apt-get install -y curl
",
        files: &[],
    },
};

fn look(view: &View<'_>, notes: &mut Notes<'_>) {
    for instruction in view.instructions() {
        let Command::Run(run) = &instruction.command else { continue };
        // Whoever mounts the lists has them from somewhere.
        if run.mounts.iter().any(|mount| mount.text.contains("/var/lib/apt")) || !installs_without_lists(&words(run)) {
            continue;
        }
        let detail = "The package lists of this installation are not fetched in the same step";
        let help = "write `RUN apt-get update && apt-get install …` in one";
        notes.advise(&instruction.comments, Place::from(instruction), detail, Some(help));
    }
}

/// The words of what is run.
fn words(run: &Run) -> Vec<&str> {
    let separates = |letter: char| letter.is_whitespace() || matches!(letter, ';' | '&' | '|' | '(' | ')');
    let mut words: Vec<&str> = match &run.line {
        CommandLine::Shell(word) => word.text.split(separates).collect(),
        CommandLine::Exec(argv, _) => argv.iter().flat_map(|word| word.split(separates)).collect(),
    };
    words.extend(run.heredocs.iter().flat_map(|heredoc| heredoc.content.split(separates)));
    words.retain(|word| !word.is_empty());
    words
}

/// Is something installed before the lists are fetched? Only words after a program's own options count.
fn installs_without_lists(words: &[&str]) -> bool {
    for (at, word) in words.iter().enumerate() {
        if !matches!(word.rsplit('/').next(), Some("apt-get" | "apt" | "aptitude")) {
            continue;
        }
        let mut arguments = words.iter().skip(at + 1).skip_while(|word| word.starts_with('-') || word.contains("::"));
        match arguments.next() {
            Some(&"update") => return false,
            // Files are installed without lists, and what a variable holds nobody knows.
            Some(&"install") => {
                let first = arguments.find(|word| !word.starts_with('-'));
                return first.is_some_and(|first| is_package(first));
            }
            _other => {}
        }
    }
    false
}

/// Is it a name that is looked up in the lists?
fn is_package(word: &str) -> bool {
    word.starts_with(|letter: char| letter.is_ascii_alphanumeric()) && word.rsplit_once('.').is_none_or(|(_, end)| end != "deb")
}
