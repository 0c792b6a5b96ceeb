//! A script without its execute bit.

use super::super::{
    Example, Origin, Place, Rule,
    view::{Notes, View},
};
use crate::{
    dockerfile::{Command as Instruction, CommandLine, Copy},
    lint::{Files, view::Command},
    plan::clean,
};

pub(super) const RULE: Rule = Rule {
    name: "NotExecutable",
    summary: "a program that is copied and then run may be executed",
    origin: Origin::Own,
    experimental: false,
    look,
    example: Example {
        bad: "\
FROM busybox
WORKDIR /app
COPY *.sh ./
ENTRYPOINT [\"./start.sh\"]
",
        says: &[(4, "'./start.sh' cannot be executed: the mode of 'start.sh' is 0644")],
        good: "\
FROM busybox
WORKDIR /app
COPY --chmod=755 *.sh ./
ENTRYPOINT [\"./start.sh\"]
",
        files: &[("start.sh", 0o644, "#!/bin/sh\n")],
    },
};

/// A copy from the context.
struct Copied<'a> {
    sources: &'a [String],
    dest: &'a str,
}

fn look(view: &View<'_>, notes: &mut Notes<'_>) {
    let Some(files) = view.files else { return };
    let has_entrypoint = view.instructions().any(|instruction| matches!(instruction.command, Instruction::Entrypoint(_)));
    let mut copies: Vec<Copied<'_>> = Vec::new();
    let mut stage = None;
    for command in view.commands() {
        // What a stage took over from another is not followed.
        if stage.replace(command.evaluated.stage) != Some(command.evaluated.stage) {
            copies.clear();
        }
        let instruction = &command.instruction.command;
        if let Some(copy) = instruction.copied() {
            note(copy, &command, &mut copies);
        }
        if let Instruction::Run(run) = instruction {
            let changes = |text: &str| ["chmod", "install", "setfacl"].iter().any(|word| text.contains(word));
            if changes(&command.instruction.original) || run.heredocs.iter().any(|heredoc| changes(&heredoc.content)) {
                copies.clear();
            }
        }
        // An entry point may do anything with the words of CMD.
        let is_for_entrypoint = matches!(instruction, Instruction::Cmd(_)) && (has_entrypoint || command.evaluated.has_entrypoint);
        if let Some(line) = instruction.line().filter(|_| !is_for_entrypoint) {
            judge(files, &copies, (line, &command), notes);
        }
    }
}

fn note<'a>(copy: &Copy, command: &Command<'a>, copies: &mut Vec<Copied<'a>>) {
    let Some((dest, sources)) = command.values().split_first() else { return };
    if copy.chmod.is_some() || copy.from.is_some() || copy.parents.is_some() {
        // It may have been put over what was noted.
        copies.retain(|known| !is_below(known.dest, dest) && !is_below(dest, known.dest));
    } else {
        copies.push(Copied { sources, dest });
    }
}

fn judge(files: &dyn Files, copies: &[Copied<'_>], (line, command): (&CommandLine, &Command<'_>), notes: &mut Notes<'_>) {
    let Some(program) = program(line) else { return };
    let path = clean(&if program.starts_with('/') { program.to_owned() } else { format!("{}/{program}", command.evaluated.dir) });
    let found =
        copies.iter().rev().flat_map(|copied| origins(copied, &path)).find_map(|origin| files.mode(&origin).map(|mode| (origin, mode)));
    if let Some((origin, mode)) = found.filter(|(_, mode)| mode & 0o111 == 0) {
        let place = Place::from(command.instruction);
        let place = if command.evaluated.trigger.is_some() { command.place } else { place };
        let origin = origin.trim_start_matches('/');
        let detail = format!("'{program}' cannot be executed: the mode of '{origin}' is {mode:04o}");
        notes.advise(command.comments(), place, detail, Some(&format!("run `chmod +x {origin}`, or copy it with `--chmod=755`")));
    }
}

/// The path of the program that is run, if it is one that could have been copied.
fn program(line: &CommandLine) -> Option<&str> {
    let first = match line {
        CommandLine::Exec(argv, _) => argv.first()?.as_str(),
        CommandLine::Shell(word) => {
            let text = word.text.trim_start();
            text.strip_prefix("exec ").unwrap_or(text).split_whitespace().next()?
        }
    };
    let plain = first.chars().all(|letter| letter.is_alphanumeric() || matches!(letter, '/' | '.' | '-' | '_' | '+'));
    (plain && first.contains('/')).then_some(first)
}

/// Files of the context that may have become this path, the likeliest first.
fn origins(copied: &Copied<'_>, path: &str) -> Vec<String> {
    let dest = copied.dest.trim_end_matches('/');
    let mut origins = Vec::new();
    for source in copied.sources {
        let (parent, name) = source.trim_end_matches('/').rsplit_once('/').unwrap_or(("", source));
        if path == dest && !copied.dest.ends_with('/') {
            origins.push(source.clone());
        }
        let Some(below) = path.strip_prefix(dest).and_then(|below| below.strip_prefix('/')) else { continue };
        if name.contains(['*', '?', '[']) {
            if !below.contains('/') {
                origins.push(if parent.is_empty() { below.to_owned() } else { format!("{parent}/{below}") });
            }
        } else if below == name {
            origins.push(source.clone());
        } else {
            origins.push(format!("{source}/{below}"));
        }
    }
    origins
}

fn is_below(path: &str, dir: &str) -> bool {
    path.trim_end_matches('/').starts_with(dir.trim_end_matches('/'))
}
