//! A working directory below that of the base.

use super::super::{
    Example, Origin, Rule,
    view::{Notes, View},
};
use crate::dockerfile::Command;
use crate::plan::quoted;

pub(super) const RULE: Rule = Rule {
    name: "WorkdirRelativePath",
    summary: "the first WORKDIR is absolute, else it depends on the base",
    origin: Origin::BuildKit(Some("workdir-relative-path")),
    experimental: false,
    look,
    example: Example {
        bad: "\
FROM busybox
WORKDIR app
",
        says: &[(2, r#"Relative workdir "app" can have unexpected results if the base image changes"#)],
        good: "\
FROM busybox
WORKDIR /app
",
        files: &[],
    },
};

fn look(view: &View<'_>, notes: &mut Notes<'_>) {
    for command in view.commands() {
        if let (Command::Workdir(word), [path]) = (&command.instruction.command, command.values())
            && !command.evaluated.has_workdir
            && !path.starts_with('/')
        {
            let detail = format!("Relative workdir {} can have unexpected results if the base image changes", quoted(path));
            let place = if command.evaluated.trigger.is_some() { command.place } else { command.place.mark(word.span) };
            notes.add(command.comments(), place, detail);
        }
    }
}
