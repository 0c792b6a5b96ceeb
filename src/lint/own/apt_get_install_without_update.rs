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
        if run.mounts.iter().any(|mount| mount.text.contains("/var/lib/apt")) || !installs_without_lists(&texts(run)) {
            continue;
        }
        let detail = "The package lists of this installation are not fetched in the same step";
        let help = "write `RUN apt-get update && apt-get install …` in one";
        notes.advise(&instruction.comments, Place::from(instruction), detail, Some(help));
    }
}

/// What is run, lines that are continued joined.
fn texts(run: &Run) -> Vec<String> {
    let line = match &run.line {
        CommandLine::Shell(word) => word.text.clone(),
        CommandLine::Exec(argv, _) => argv.join(" "),
    };
    std::iter::once(line).chain(run.heredocs.iter().map(|heredoc| heredoc.content.replace("\\\n", " "))).collect()
}

/// Is something installed before the lists are fetched?
fn installs_without_lists(texts: &[String]) -> bool {
    let commands = texts.iter().flat_map(|text| text.split([';', '&', '|', '(', ')', '\n']));
    for command in commands {
        let words: Vec<&str> = command.split_whitespace().collect();
        let Some(at) = words.iter().position(|word| matches!(word.rsplit('/').next(), Some("apt-get" | "apt" | "aptitude"))) else {
            continue;
        };
        if words.first().is_some_and(|first| first.starts_with('#') || matches!(*first, "echo" | "printf")) {
            continue;
        }
        let mut arguments = words.iter().skip(at + 1).skip_while(|word| word.starts_with('-') || word.contains("::"));
        match arguments.next() {
            Some(&"install") if !words.contains(&"--update") && !words.contains(&"-U") => {
                return arguments.find(|word| !word.starts_with('-')).is_some_and(|first| is_package(first));
            }
            Some(&("update" | "install")) => return false,
            _other => {}
        }
    }
    false
}

/// Is it a name that is looked up in the lists? Files are installed without them, and what a variable holds nobody knows.
fn is_package(word: &str) -> bool {
    word.starts_with(|letter: char| letter.is_ascii_alphanumeric()) && word.rsplit_once('.').is_none_or(|(_, end)| end != "deb")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_installation_by_name_needs_lists() {
        let needs = |text: &str| installs_without_lists(&[text.to_owned()]);
        for text in ["apt-get install -y curl", "apt-get -y install curl && apt-get update", "sudo apt -o A::B=1 install curl"] {
            assert!(needs(text), "{text}");
        }
        for text in [
            "apt-get update && apt-get install -y curl",
            "apt-get -f install && rm x",
            "apt-get install ./x.deb",
            "apt-get install -y $PACKAGES",
            "apt install --update curl",
            "echo apt-get install curl",
            "apt-get clean",
        ] {
            assert!(!needs(text), "{text}");
        }
    }
}
