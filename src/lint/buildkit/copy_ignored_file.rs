//! A file that COPY cannot see.

use super::super::{
    Example, Origin, Rule,
    view::{Notes, View},
};
use crate::{
    dockerfile::Command,
    plan::{clean, quoted},
};

pub(super) const RULE: Rule = Rule {
    name: "CopyIgnoredFile",
    summary: "what is copied is not excluded by the ignore file",
    origin: Origin::BuildKit(Some("copy-ignored-file")),
    experimental: false,
    look,
    example: Example {
        bad: "\
FROM busybox
COPY secret.env /app/
",
        says: &[(2, r#"Attempting to Copy file "secret.env" that is excluded by .dockerignore"#)],
        good: "\
FROM busybox
COPY app.conf /app/
",
        files: &[(".dockerignore", 0o644, "*.env\n"), ("secret.env", 0o644, "A=1\n"), ("app.conf", 0o644, "a = 1\n")],
    },
};

fn look(view: &View<'_>, notes: &mut Notes<'_>) {
    let Some(files) = view.files else { return };
    for command in view.commands() {
        let Some(verb) = verb(&command.instruction.command) else { continue };
        let Some((_destination, sources)) = command.values().split_first() else { continue };
        for source in sources {
            let path = clean(source);
            if files.is_excluded(&path) == Some(true) {
                let detail = format!("Attempting to {verb} file {} that is excluded by .dockerignore", quoted(&path));
                let help = "copy another file, or remove its pattern from the ignore file";
                notes.advise(command.comments(), command.place, detail, Some(help));
            }
        }
    }
}

/// What the instruction does with files of the context.
fn verb(command: &Command) -> Option<&'static str> {
    if let Command::Copy(copy) = command {
        copy.from.is_none().then_some("Copy")
    } else {
        matches!(command, Command::Add(_)).then_some("Add")
    }
}
